"""A scene over time: hand and object at any moment, also between the frames of a motion."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from realdex_jax import arm
from realdex_jax.data import rigid
from realdex_jax.data.motion import RATE
from realdex_jax.data.motion_set import MotionSet
from realdex_jax.errors import DatasetError
from realdex_jax.hand import joints
from sim.demonstrate import P_WORLD_BASE

JOINTS = (*arm.JOINTS, *(f"rh_{name}" for name in ("WRJ2", "WRJ1", *joints.NAMES)))
"""Joints of arm, wrist and hand by their ROS names, in the order of `Sequence.robot`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sequence:
    """Hand and object over t moments."""

    time_s: Float[np.ndarray, " t"]
    """True time, rising, seconds; before and after it everything rests."""
    phi: Float[np.ndarray, "t 28"]
    """Poses of the hand in the world."""
    wxyz_xyz_world_object: Float[np.ndarray, "t 7"]
    """T_world_object: quaternion wxyz and position (m)."""
    p_world_table: Float[np.ndarray, " 3"]
    """Middle of the table's top, metres."""

    @property
    def end_s(self) -> float:
        """The last moment, seconds."""
        return float(self.time_s[-1])

    def object_at(self, at_s: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 7"]:
        """T_world_object at moments (s)."""
        return rigid.interpolate(self.time_s, self.wxyz_xyz_world_object, at_s)

    def palm_at(self, at_s: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 7"]:
        """T_world_hand at moments (s)."""
        return rigid.interpolate(self.time_s, palms(self.phi), at_s)

    def hand_at(self, at_s: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 28"]:
        """Poses of the hand at moments (s): joints in a line, the palm on a great arc."""
        palm = self.palm_at(at_s)
        rotvec = Rotation.from_quat(palm[:, :4], scalar_first=True).as_rotvec()
        q = [np.interp(at_s, self.time_s, self.phi[:, j]) for j in range(22)]
        return np.concatenate([np.stack(q, axis=1), palm[:, 4:], rotvec], axis=1)

    def robot(self) -> Float[np.ndarray, "t 30"] | None:
        """Angles (rad) of `JOINTS` at the sequence's moments, the wrist at zero.

        None where the arm cannot follow the palm on one branch.
        """
        R = Rotation.from_rotvec(self.phi[:, 25:]).as_matrix()
        p = self.phi[:, 22:25] - np.array(P_WORLD_BASE)
        q, serves = arm.track(jnp.asarray(R, jnp.float32), jnp.asarray(p, jnp.float32))
        if not bool(serves):
            return None
        wrist = np.zeros((len(R), 2))
        return np.concatenate([np.asarray(q, np.float64), wrist, self.phi[:, :22]], axis=1)


def palms(phi: Float[np.ndarray, "t 28"]) -> Float[np.ndarray, "t 7"]:
    """T_world_hand of poses: quaternion wxyz and position (m)."""
    wxyz = Rotation.from_rotvec(np.asarray(phi[:, 25:], np.float64)).as_quat(scalar_first=True)
    return np.concatenate([wxyz, phi[:, 22:25]], axis=1)


def of_motion(motions: MotionSet, i: int, *, lift_m: float = 0.0, last: int = 0) -> Sequence:
    """The scene of one reach, from its first frame on.

    Args:
        motions: Reaches in the world, table at z = 0.
        i: Which.
        lift_m: Metres that hand and object rise after it, as one; with it the lift takes two
            seconds for each 20 cm.
        last: Only so many last frames of the reach; 0 is all.

    Raises:
        DatasetError: The reach has no such frames.
    """
    phi = np.asarray(motions.poses(i), np.float64)
    if len(phi) < max(last, 2) or last == 1 or min(last, lift_m) < 0:
        raise DatasetError(
            f"motion {i} has {len(phi)} frames; {last} last ones and a lift of {lift_m} m were "
            "asked for: at least 2 frames, and nothing negative"
        )
    phi = phi[-last:] if last else phi
    world = np.asarray(motions.wxyz_xyz_world_object[i], np.float64)
    still = np.repeat(world[None], len(phi), axis=0)
    made = Sequence(np.arange(len(phi)) / RATE, phi, still, np.array([world[4], world[5], 0.0]))
    return carried(made, lift_m, 10.0 * lift_m) if lift_m else made


def carried(
    sequence: Sequence, rise_m: float, seconds: float, turn: tuple[float, float] = (0.35, 0.25)
) -> Sequence:
    """The sequence, and then hand and object moved up and turned as one rigid thing.

    Args:
        sequence: Ends with the object in the hand.
        rise_m: How far up, metres.
        seconds: How long it takes; speed is zero at both ends.
        turn: About the vertical and about world x, radians, around the object.
    """
    count = max(int(np.ceil(seconds * RATE)), 1)
    share = np.arange(1, count + 1) / count
    share = (3.0 - 2.0 * share) * share**2
    moved = np.array([[turn[0]], [turn[1]]]) * share
    R = Rotation.from_euler("zx", moved.T)
    last, pivot = sequence.phi[-1], sequence.wxyz_xyz_world_object[-1]
    p = R.apply(-pivot[4:]) + pivot[4:]
    p[:, 2] += rise_m * share
    T_world_moved = np.concatenate([R.as_quat(scalar_first=True), p], axis=1)
    hand = rigid.compose(T_world_moved, palms(last[None]))
    rotvec = Rotation.from_quat(hand[:, :4], scalar_first=True).as_rotvec()
    q = np.repeat(last[None, :22], count, axis=0)
    phi = np.concatenate([q, hand[:, 4:], rotvec], axis=1)
    return Sequence(
        np.concatenate([sequence.time_s, sequence.end_s + np.arange(1, count + 1) / RATE]),
        np.concatenate([sequence.phi, phi]),
        np.concatenate([sequence.wxyz_xyz_world_object, rigid.compose(T_world_moved, pivot[None])]),
        sequence.p_world_table,
    )
