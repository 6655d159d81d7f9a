"""Real human motion: the door demonstrations recorded by glove and tracker on the Adroit hand.

The file is the plain-array form of hand_dapg's `door` set (Rajeswaran et al. 2018): per sequence NN
`observations_NN` (t 39) and `init_door_body_pos_NN` (3), 100 Hz. Adroit is a Shadow hand on four
arm joints; its palm body is our palm frame, its finger joints are DexGraspNet's.
"""

import re
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from realdex_jax.data import motion as motions
from realdex_jax.data import npz
from realdex_jax.data.motion import Motion
from realdex_jax.errors import DatasetError
from realdex_jax.hand import joints

STEP = 0.01
"""Seconds between observations."""
MAX_BEYOND = 0.4
"""Radians a finger joint may lie beyond our limits and still be projected: the handle presses a
ring finger 0.36 aside; more means another layout."""

_WIDTH = 39
_HAND = slice(5, 27)
_LATCH, _HINGE = 27, 28
_PALM, _HANDLE = slice(29, 32), slice(32, 35)

# Adroit's tree (door task): slide along the forearm's z, three turns, two wrist joints.
_R_WORLD_BASE = Rotation.from_euler("XYZ", [-1.57, 0.0, 3.14])
_P_WORLD_BASE = np.array([0.0, -0.7, 0.2])
_P_FOREARM_WRIST = np.array([0.0, 0.0, 0.396])
_P_WRIST_PALM = np.array([0.0, 0.0, 0.034])
_P_PALM_SITE = np.array([0.007, -0.05, 0.07])
"""The site in the palm that the observations call the palm's position."""

_LARGEST = 1e3  # m or rad; a damaged number


def read_adroit(path: str | Path) -> list[Motion]:
    """Reads all door demonstrations, in order of their numbers, at their own 100 Hz.

    The hand's world pose comes from the arm joints; the slide, which the observations leave out,
    from the observed palm position. The object is the door's handle: its grip point, turned with
    hinge and latch. Finger angles a little beyond our limits are projected onto them.

    Raises:
        DatasetError: The file cannot be read, holds no demonstrations, or one of them is not of
            this layout: wrong width, not finite, fewer than six frames, fingers far beyond their
            limits.
    """
    path = Path(path)
    arrays = npz.read(path)
    found = sorted(name for name in arrays if re.fullmatch(r"observations_\d+", name))
    if not found:
        raise DatasetError(f"{path}: no arrays observations_NN; it has {', '.join(arrays) or '-'}")
    return [_sequence(np.asarray(arrays[name], np.float64), f"{path}: {name}") for name in found]


def _sequence(observed: Float[np.ndarray, "t w"], where: str) -> Motion:
    if observed.ndim != 2 or observed.shape[1] != _WIDTH:
        raise DatasetError(f"{where} has shape {observed.shape}; it must be (t, {_WIDTH})")
    whole = (np.abs(observed) < _LARGEST).all(axis=1)
    if not whole.all():
        frame = int(np.argmin(whole))
        raise DatasetError(f"{where}: frame {frame} is not finite, or no angle and no place")
    q = joints.from_dexgraspnet(observed[:, _HAND])
    beyond = np.maximum(joints.LOWER - q, q - joints.UPPER)
    if len(q) and beyond.max() > MAX_BEYOND:
        frame, joint = np.unravel_index(beyond.argmax(), beyond.shape)
        raise DatasetError(
            f"{where}: {joints.NAMES[joint]} = {q[frame, joint]:.3f} rad in frame {frame}, "
            f"{beyond.max():.3f} beyond its limits; at most {MAX_BEYOND} are projected"
        )
    R_world_palm, p_world_palm = palm(observed)
    R_world_handle = Rotation.from_euler("Z", observed[:, [_HINGE]]) * Rotation.from_euler(
        "Y", observed[:, [_LATCH]]
    )
    phi = np.concatenate(
        [np.clip(q, joints.LOWER, joints.UPPER), p_world_palm, R_world_palm.as_rotvec()], axis=1
    )
    handle = np.concatenate(
        [R_world_handle.as_quat(scalar_first=True), observed[:, _HANDLE]], axis=1
    )
    return motions.validate(
        Motion(
            time=(STEP * np.arange(len(q))).astype(np.float32),
            phi=phi.astype(np.float32),
            wxyz_xyz_world_object=handle.astype(np.float32),
        ),
        where,
    )


def palm(observed: Float[np.ndarray, "t 39"]) -> tuple[Rotation, Float[np.ndarray, "t 3"]]:
    """Orientation and origin (m) of the palm in the world, of t frames."""
    wrist_2, wrist_1 = observed[:, [3]], observed[:, [4]]
    R_world_forearm = _R_WORLD_BASE * Rotation.from_euler("XYZ", observed[:, :3])
    R_world_wrist = R_world_forearm * Rotation.from_euler("Y", wrist_2)
    R_world_palm = R_world_wrist * Rotation.from_euler("X", wrist_1)
    p_unslid = (
        _P_WORLD_BASE + R_world_forearm.apply(_P_FOREARM_WRIST) + R_world_wrist.apply(_P_WRIST_PALM)
    )
    along = _R_WORLD_BASE.apply([0.0, 0.0, 1.0])
    slide = (observed[:, _PALM] - p_unslid - R_world_palm.apply(_P_PALM_SITE)) @ along
    return R_world_palm, p_unslid + slide[:, None] * along
