"""What a robot did: its states and the object's pose while it ran, as a motion, and the verdict."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from realdex_jax.data.motion import RATE, Motion
from robot import clearance, limits, plan
from robot.interface import JointState, RobotError

MIN_RISE_M = 0.05
"""An object that ends so high over where it stood, metres, is lifted; plans lift it by 0.10."""


@dataclass(eq=False)
class Film:
    """States as they came, 15 a second; written by one thread."""

    time_s: list[float] = field(default_factory=list)
    """Monotonic seconds."""
    q: list[Float[np.ndarray, " 30"]] = field(default_factory=list)
    """Joint angles, radians, order `limits.NAMES`."""
    wxyz_xyz_world_object: list[Float[np.ndarray, " 7"]] = field(default_factory=list)
    """Poses of the object; none where nobody tells them, as on a real robot."""

    def motion(self) -> Motion | None:
        """Hand and object in the world; None if next to nothing was seen of the object."""
        if len(self.wxyz_xyz_world_object) < 6 or len(self.q) > len(self.wxyz_xyz_world_object):
            return None
        return Motion(
            time=np.asarray(self.time_s, np.float32) - np.float32(self.time_s[0]),
            phi=hand_poses(np.stack(self.q)),
            wxyz_xyz_world_object=np.stack(self.wxyz_xyz_world_object).astype(np.float32),
        )

    def risen_m(self) -> float:
        """How much higher the object ends than it began, metres; 0 if it was never seen."""
        seen = self.wxyz_xyz_world_object
        return float(seen[-1][6] - seen[0][6]) if seen else 0.0

    @property
    def observed(self) -> bool:
        """Whether the object was seen at all."""
        return bool(self.wxyz_xyz_world_object)

    @property
    def lifted(self) -> bool:
        """Whether the object ends in the air."""
        return self.risen_m() >= MIN_RISE_M


def hand_poses(q: Float[np.ndarray, "t 30"]) -> Float[np.ndarray, "t 28"]:
    """Poses of the hand in the world at joint angles (rad, order `limits.NAMES`).

    Fingers that are measured beyond their limits are put at them.
    """
    R, p_base = clearance.palm(jnp.asarray(q, jnp.float32))
    turn = Rotation.from_matrix(np.asarray(R, np.float64)).as_rotvec()
    p_world = np.asarray(p_base, np.float64) + clearance.P_BASE
    fingers = np.clip(q[:, limits.HAND], limits.LOWER[limits.HAND], limits.UPPER[limits.HAND])
    return np.concatenate([fingers, p_world, turn], axis=1).astype(np.float32)


@contextlib.contextmanager
def filming(
    state: Callable[[], JointState | None],
    object_pose: Callable[[], tuple[Float[np.ndarray, " 7"], float] | None],
) -> Iterator[Film]:
    """Watches for as long as the block lasts; what cannot be read is left out.

    Args:
        state: The robot's last joint state.
        object_pose: The object's last pose, T_world_object, and its stamp.
    """
    seen, over = Film(), threading.Event()

    def look() -> None:
        while not over.wait(1.0 / RATE):
            joint, placed = state(), object_pose()
            if joint is None or (placed is None and seen.wxyz_xyz_world_object):
                continue
            with contextlib.suppress(RobotError):
                q = plan.at(joint)
                if placed is not None:
                    if not seen.wxyz_xyz_world_object:  # what came before the object was seen
                        seen.time_s.clear()
                        seen.q.clear()
                    seen.wxyz_xyz_world_object.append(np.asarray(placed[0], np.float64))
                seen.time_s.append(time.monotonic())
                seen.q.append(q)

    thread = threading.Thread(target=look, name="film", daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
