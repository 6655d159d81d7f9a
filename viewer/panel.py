"""What a view of the app is to the app."""

from typing import Protocol, runtime_checkable

from viewer.server import Server
from viewer.tableau import Viewpoint


@runtime_checkable
class Panel(Protocol):
    """One view: controls beside the picture, and nodes in it."""

    title: str
    """Of its button and its folder."""

    def open(self, server: Server) -> None:
        """Makes controls and nodes; called once, within the folder of its controls."""
        ...

    def show(self, visible: bool) -> None:
        """Shows or hides its nodes; the app does the controls."""
        ...

    def tick(self, now: float) -> None:
        """Goes on to a time, in seconds of a clock that never goes back; only while it is shown."""
        ...

    def viewpoint(self) -> Viewpoint | None:
        """From where all of it is seen; None if there is nothing yet."""
        ...

    def close(self) -> None:
        """Lets go of what it holds; may be called twice."""
        ...
