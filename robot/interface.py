"""What a robot is to the rest: joint states that come, trajectories that go, and a stop."""

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from realdex_jax.errors import RealdexError


class RobotError(RealdexError):
    """A command that must not be sent, or a robot that does not do as it was told."""


@dataclasses.dataclass(frozen=True, eq=False)
class JointState:
    """Where the joints were."""

    stamp_s: float
    """When, by the sender's clock, seconds."""
    received_s: float
    """When it came, by this machine's monotonic clock, seconds."""
    names: tuple[str, ...]
    """Joint names, in the sender's order."""
    q: Float[np.ndarray, " j"]
    """Positions, radians."""
    qd: Float[np.ndarray, " j"]
    """Velocities, radians per second."""


@dataclasses.dataclass(frozen=True, eq=False)
class Trajectory:
    """Joint positions and velocities over time; between points a cubic."""

    names: tuple[str, ...]
    """Joint names: arm and hand together; an adapter sends each controller its own."""
    t: Float[np.ndarray, " k"]
    """Seconds since the start, rising; the first is 0."""
    q: Float[np.ndarray, "k j"]
    """Positions, radians."""
    qd: Float[np.ndarray, "k j"]
    """Velocities, radians per second."""


@runtime_checkable
class Robot(Protocol):
    """Arm and hand, whether real or simulated. Calls return at once."""

    def state(self) -> JointState | None:
        """The last state of all joints; None before the first. Its age is the caller's matter.

        Joints that come in several messages are put together; the stamps are the oldest's.
        """
        ...

    def faults(self) -> tuple[str, ...]:
        """What controllers have reported since the last call, in words: aborted, rejected, dead."""
        ...

    def send(self, trajectory: Trajectory) -> tuple[Trajectory, ...]:
        """Replaces what the controllers follow.

        Returns:
            What was really published, one for each controller.

        Raises:
            RobotError: A joint that no controller has, a value that is not finite, or a controller
                that it could not be published to; the others have theirs all the same.
        """
        ...

    def stop(self) -> tuple[Trajectory, ...]:
        """Asks the controllers to come to rest. Whether they do, states tell.

        Returns:
            What was really published, one for each controller; why one lacks, `faults` tell.
        """
        ...

    def close(self) -> None:
        """Stops and lets go of the connection; may be called twice."""
        ...
