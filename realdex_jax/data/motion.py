"""The record every motion travels in: a hand and an object in the world, over time."""

import dataclasses

import jax.numpy as jnp
import jaxlie
import numpy as np
from jaxtyping import Array, Float
from scipy.spatial.transform import Rotation, Slerp

from realdex_jax import pose, pytree
from realdex_jax.data import schema
from realdex_jax.errors import DatasetError

RATE = 15.0
"""Frames a second of RealDex's recordings, and of every motion the models see."""

MIN_FRAMES = 6
"""Five past frames and the present one: the least that MotionNet can start from (section 4.3)."""


@pytree.dataclass
class Motion:
    """One reach, from a start pose to a grasp or beyond; t frames."""

    time: Float[Array | np.ndarray, " t"]
    """Seconds since the first frame, rising."""
    phi: Float[Array | np.ndarray, "t 28"]
    """Hand poses in the world: joint angles (rad), palm translation (m), palm axis-angle (rad)."""
    wxyz_xyz_world_object: Float[Array | np.ndarray, "t 7"]
    """Object poses, T_world_object: unit quaternion wxyz, then position (m)."""

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.time)


def validate(motion: Motion, where: str = "motion") -> Motion:
    """Checks a motion and returns it.

    Args:
        motion: The motion.
        where: Named in errors: a file or a sequence.

    Raises:
        DatasetError: Shapes that do not fit, fewer than `MIN_FRAMES` frames, values that are not
            finite, time that does not rise, joint angles beyond their limits, or quaternions not
            of unit length.
    """
    t = len(motion.time)
    if t < MIN_FRAMES:
        raise DatasetError(f"{where}: {t} frames; a motion has at least {MIN_FRAMES}")
    shapes = {"time": (t,), "phi": (t, pose.SIZE), "wxyz_xyz_world_object": (t, 7)}
    for name, shape in shapes.items():
        value = np.asarray(getattr(motion, name))
        if value.shape != shape:
            raise DatasetError(f"{where}: {name} has shape {value.shape}; it must be {shape}")
        bad = np.flatnonzero(~np.isfinite(value.reshape(t, -1)).all(axis=1))
        if len(bad):
            raise DatasetError(f"{where}: {name} of frame {bad[0]} is not finite ({len(bad)} such)")
    step = np.diff(np.asarray(motion.time))
    if not (step > 0).all():
        raise DatasetError(f"{where}: time does not rise at frame {int(np.argmin(step)) + 1}")
    schema.check_limits(np.asarray(motion.phi)[:, : pose.JOINTS], where, "frame")
    length = np.linalg.norm(np.asarray(motion.wxyz_xyz_world_object)[:, :4], axis=1)
    if np.abs(length - 1.0).max() > 1e-3:
        frame = int(np.abs(length - 1.0).argmax())
        raise DatasetError(
            f"{where}: the object's quaternion in frame {frame} has length {length[frame]:.4f}; it "
            "must be 1"
        )
    return motion


def resample(motion: Motion, rate: float = RATE) -> Motion:
    """The motion at an even rate: joints and positions linearly, orientations on great arcs.

    Args:
        motion: Any motion.
        rate: Frames a second; the last frame is the last even one inside the motion.

    Raises:
        DatasetError: The rate is not positive, or too few frames would be left.
    """
    if not rate > 0.0:
        raise DatasetError(f"rate {rate}; it must be positive")
    old = np.asarray(motion.time, np.float64)
    # A frame that floating point puts a hair beyond the end is the last frame.
    time = np.minimum(np.arange(int((old[-1] - old[0]) * rate + 1e-6) + 1) / rate, old[-1] - old[0])
    if len(time) < MIN_FRAMES:
        raise DatasetError(
            f"{old[-1] - old[0]:.3f} s at {rate} frames a second give {len(time)} frames; a motion "
            f"has at least {MIN_FRAMES}"
        )
    phi, world = interpolate(motion, old[0] + time)
    return Motion(
        time=time.astype(np.float32),
        phi=phi.astype(np.float32),
        wxyz_xyz_world_object=world.astype(np.float32),
    )


def interpolate(
    motion: Motion, time: Float[np.ndarray, " k"]
) -> tuple[Float[np.ndarray, "k 28"], Float[np.ndarray, "k 7"]]:
    """Hand and object poses at any times (s) within a motion.

    Joints and positions linearly, orientations on great arcs.
    """
    old = np.asarray(motion.time, np.float64)

    def linear(values: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(time, old, column) for column in values.T], axis=1)

    def turned(rotation: Rotation) -> Rotation:
        return Slerp(old, rotation)(time)

    phi = np.asarray(motion.phi, np.float64)
    world = np.asarray(motion.wxyz_xyz_world_object, np.float64)
    palm = turned(Rotation.from_rotvec(phi[:, 25:])).as_rotvec()
    body = turned(Rotation.from_quat(world[:, :4], scalar_first=True)).as_quat(scalar_first=True)
    return (
        np.concatenate([linear(phi[:, :25]), palm], axis=1),
        np.concatenate([body, linear(world[:, 4:])], axis=1),
    )


def in_object_frame(motion: Motion) -> Motion:
    """The same motion seen from the object, which then rests at the origin."""
    q, T_world_hand = pose.split(jnp.asarray(motion.phi))
    T_world_object = jaxlie.SE3(jnp.asarray(motion.wxyz_xyz_world_object))
    phi = pose.join(q, T_world_object.inverse() @ T_world_hand)
    still = np.zeros((len(motion), 7), np.float32)
    still[:, 0] = 1.0
    return dataclasses.replace(motion, phi=phi, wxyz_xyz_world_object=still)
