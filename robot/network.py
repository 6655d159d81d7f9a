"""What a client of the robot needs of a network: topics of plain records, timers and a clock.

`robot.ros2.Link` is ROS 2's; `robot.virtual.VirtualNetwork` has a simulated robot behind it and a
time of its own.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from robot.messages import Kind
from robot.presets import Reliability


@runtime_checkable
class Network(Protocol):
    """A node on a network. Callbacks run one at a time."""

    broken: str
    """What ended it, in words; empty while nothing did."""

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        ...

    def now_s(self) -> float:
        """The clock of message stamps, seconds."""
        ...

    def monotonic_s(self) -> float:
        """The clock of `JointState.received_s`, seconds."""
        ...

    def sender(
        self, topic: str, kind: Kind, reliability: Reliability = "reliable", depth: int = 10
    ) -> Callable[[Any, float], None]:
        """A function that publishes a record with a stamp (s)."""
        ...

    def listen(
        self,
        topic: str,
        kind: Kind,
        callback: Callable[[Any, float], None],
        reliability: Reliability = "reliable",
        depth: int = 10,
    ) -> Callable[[], None]:
        """Calls back with every record and its stamp (s); returns what ends that."""
        ...

    def every(self, seconds: float, callback: Callable[[], None]) -> None:
        """Calls back again and again."""
        ...

    def publishers(self, topic: str) -> int:
        """How many publish there, this node with them."""
        ...

    def subscribers(self, topic: str) -> int:
        """How many listen there."""
        ...

    def close(self) -> None:
        """Ends it; may be called twice."""
        ...
