"""The app: one server, one look, and a view at a time of those that it was given."""

import threading
import time
from collections.abc import Sequence

from viewer import server as servers
from viewer.panel import Panel
from viewer.server import viser

_TICK = 1.0 / 30.0


class App:
    """A server whose visitors all see the same."""

    def __init__(
        self,
        title: str,
        panels: Sequence[Panel],
        host: str = "127.0.0.1",
        port: int = 8080,
    ) -> None:
        """Opens all views, shows the first, and serves.

        Args:
            title: Of the page.
            panels: The views, one at least; the app closes them.
            host: Address to listen at.
            port: Port, or 0 for a free one.

        Raises:
            ConfigError: Host or port cannot be had.
            RealdexError: A view cannot be opened.
        """
        self._panels = {panel.title: panel for panel in panels}
        self._lock = threading.RLock()
        self._closed = False
        try:
            self._server = servers.start(host, port, title)
        except BaseException:
            for panel in panels:
                panel.close()
            raise
        try:
            gui = self._server.gui
            choice = gui.add_button_group("View", tuple(self._panels), visible=len(panels) > 1)
            self._folders: dict[str, viser.GuiFolderHandle] = {}
            for panel in panels:
                self._folders[panel.title] = gui.add_folder(
                    panel.title if len(panels) > 1 else None
                )
                with self._folders[panel.title]:
                    panel.open(self._server)
            centre = gui.add_button("Centre the view")
            choice.on_click(lambda event: self.choose(event.target.value))
            centre.on_click(lambda event: self._look(event.client))
            self.choose(panels[0].title)
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """Where to point the browser; with the token."""
        return servers.address(self._server)

    @property
    def shown(self) -> Panel:
        """The view that is shown."""
        return self._shown

    def choose(self, title: str) -> None:
        """Shows another view."""
        with self._lock:
            self._shown = self._panels[title]
            for name, panel in self._panels.items():
                self._folders[name].visible = name == title
                panel.show(name == title)
            self._server.look_all(self._shown.viewpoint())
        self._server.flush()

    def tick(self, now: float) -> None:
        """Lets the view that is shown go on to a time (s)."""
        self._shown.tick(now)

    def run(self, over: threading.Event) -> None:
        """Goes on until it is interrupted, or told that it is over."""
        while not over.wait(_TICK):
            self.tick(time.monotonic())

    def close(self) -> None:
        """Ends views and server; may be called twice."""
        if self._closed:
            return
        self._closed = True
        for panel in self._panels.values():
            panel.close()
        servers.stop(self._server)

    def _look(self, client: viser.ClientHandle | None) -> None:
        seen = self._shown.viewpoint()
        if client is not None and seen is not None:
            servers.look(client.camera, seen)
