"""Rigid poses of recordings as unit quaternion wxyz and position (m), in double precision.

Stamps and chains of a dozen links are where single precision shows; JAX is not needed here.
"""

import math

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from realdex_jax.errors import DatasetError

_UNIT = 1e-2
"""How far a quaternion's length may be from one."""
_FAR = 1e3
"""Metres that no part of a recording is away."""
_RIGID = 1e-3
"""How far a matrix may be from a rotation, in any entry of R R^T."""


def of_matrix(T: Float[np.ndarray, "4 4"], where: str) -> Float[np.ndarray, " 7"]:
    """A rigid 4 x 4 matrix as unit quaternion wxyz and position (m).

    Raises:
        DatasetError: It is not rigid.
    """
    R = T[:3, :3]
    with np.errstate(all="ignore"):  # damaged numbers, squared
        off = np.abs(R @ R.T - np.eye(3)).max() if np.isfinite(T).all() else math.inf
    if not off <= _RIGID or np.linalg.det(R) < 0 or np.abs(T[3] - [0, 0, 0, 1]).max() > _RIGID:
        raise DatasetError(f"{where}: the matrix is not a rotation and a translation")
    wxyz = Rotation.from_matrix(R).as_quat(scalar_first=True)
    return np.concatenate([wxyz, T[:3, 3]])


def from_ros(rows: Float[np.ndarray, "t 7"], where: str) -> Float[np.ndarray, "t 7"]:
    """Rows `tx ty tz qx qy qz qw` of a file as poses; raises as `unit`."""
    return unit(_of_ros(rows), where)


def whole_of_ros(
    rows: Float[np.ndarray, "t 7"], where: str
) -> tuple[Float[np.ndarray, "t 7"], Bool[np.ndarray, " t"]]:
    """Rows `tx ty tz qx qy qz qw` of a file, and which are poses; the others repeat the last.

    Those before the first pose repeat that one. Where tracking was lost, tools write zeros, or
    numbers that are none.

    Raises:
        DatasetError: None is a pose.
    """
    poses = _of_ros(rows)
    whole = _whole(poses) & (np.abs(poses) < _FAR).all(axis=1)
    if not whole.any():
        raise DatasetError(f"{where}: {_odd(poses, 0)}; and no other row is a pose")
    last = np.maximum.accumulate(np.where(whole, np.arange(len(poses)), int(whole.argmax())))
    return unit(poses[last], where), whole


def _of_ros(rows: Float[np.ndarray, "t 7"]) -> Float[np.ndarray, "t 7"]:
    return np.concatenate([rows[:, 6:], rows[:, 3:6], rows[:, :3]], axis=1)


def to_ros(wxyz_xyz: Float[np.ndarray, "t 7"]) -> Float[np.ndarray, "t 7"]:
    """Poses as rows `tx ty tz qx qy qz qw`: `from_ros` undone."""
    return np.concatenate([wxyz_xyz[:, 4:], wxyz_xyz[:, 1:4], wxyz_xyz[:, :1]], axis=1)


def unit(wxyz_xyz: Float[np.ndarray, "t 7"], where: str) -> Float[np.ndarray, "t 7"]:
    """Poses with quaternions of exactly unit length.

    Raises:
        DatasetError: One is not even nearly so long; the message counts rows from 1.
    """
    bad = np.flatnonzero(~_whole(wxyz_xyz))
    if len(bad):
        raise DatasetError(f"{where}: {_odd(wxyz_xyz, bad[0])} ({len(bad)} such)")
    length = np.linalg.norm(wxyz_xyz[:, :4], axis=1, keepdims=True)
    return np.concatenate([wxyz_xyz[:, :4] / length, wxyz_xyz[:, 4:]], axis=1)


def _whole(wxyz_xyz: Float[np.ndarray, "t 7"]) -> Bool[np.ndarray, " t"]:
    """Rows that are finite and whose quaternion is of about unit length."""
    length = np.linalg.norm(wxyz_xyz[:, :4], axis=1)
    return np.isfinite(wxyz_xyz).all(axis=1) & (np.abs(length - 1.0) <= _UNIT)


def _odd(wxyz_xyz: Float[np.ndarray, "t 7"], row: int) -> str:
    """What is wrong with a row, for messages."""
    if np.isfinite(wxyz_xyz[row]).all():
        length = np.linalg.norm(wxyz_xyz[row, :4])
        return f"quaternion of row {row + 1} has length {length:.4g}; it must be 1"
    return f"row {row + 1} has a number that is not finite"


def compose(
    wxyz_xyz_a_b: Float[np.ndarray, "*#t 7"], wxyz_xyz_b_c: Float[np.ndarray, "*#t 7"]
) -> Float[np.ndarray, "*t 7"]:
    """T_a_c = T_a_b T_b_c of poses as quaternion wxyz and position, in double precision."""
    shape = np.broadcast_shapes(np.shape(wxyz_xyz_a_b), np.shape(wxyz_xyz_b_c))
    flat_a, flat_b = (
        np.array(np.broadcast_to(x, shape), np.float64).reshape(-1, 7)
        for x in (wxyz_xyz_a_b, wxyz_xyz_b_c)
    )
    R_a_b = Rotation.from_quat(flat_a[:, :4], scalar_first=True)
    R_b_c = Rotation.from_quat(flat_b[:, :4], scalar_first=True)
    p = R_a_b.apply(flat_b[:, 4:]) + flat_a[:, 4:]
    wxyz = (R_a_b * R_b_c).as_quat(scalar_first=True)
    return np.concatenate([wxyz, p], axis=1).reshape(shape)


def inverse(wxyz_xyz_a_b: Float[np.ndarray, "*t 7"]) -> Float[np.ndarray, "*t 7"]:
    """T_b_a of T_a_b, in double precision."""
    flat = np.asarray(wxyz_xyz_a_b, np.float64).reshape(-1, 7)
    R_b_a = Rotation.from_quat(flat[:, :4], scalar_first=True).inv()
    both = [R_b_a.as_quat(scalar_first=True), -R_b_a.apply(flat[:, 4:])]
    return np.concatenate(both, axis=1).reshape(np.shape(wxyz_xyz_a_b))


def interpolate(
    time: Float[np.ndarray, " n"],
    wxyz_xyz: Float[np.ndarray, "n 7"],
    at: Float[np.ndarray, " t"],
) -> Float[np.ndarray, "t 7"]:
    """Poses between samples: positions in a line, orientations on great arcs.

    Args:
        time: Strictly rising; any unit.
        wxyz_xyz: A pose at each.
        at: Within the samples, or else the nearest one is taken.
    """
    if len(time) == 1:
        return np.repeat(wxyz_xyz, len(at), axis=0)
    right = np.clip(np.searchsorted(time, at), 1, len(time) - 1)
    before, after = wxyz_xyz[right - 1], wxyz_xyz[right]
    share = np.clip((at - time[right - 1]) / (time[right] - time[right - 1]), 0.0, 1.0)[:, None]
    R_w_a = Rotation.from_quat(before[:, :4], scalar_first=True)
    R_a_b = R_w_a.inv() * Rotation.from_quat(after[:, :4], scalar_first=True)
    wxyz = (R_w_a * Rotation.from_rotvec(share * R_a_b.as_rotvec())).as_quat(scalar_first=True)
    return np.concatenate([wxyz, before[:, 4:] + share * (after[:, 4:] - before[:, 4:])], axis=1)


def apply(
    wxyz_xyz_a_b: Float[np.ndarray, " 7"], p_b: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "n 3"]:
    """Points of frame b in frame a, metres."""
    R_a_b = Rotation.from_quat(wxyz_xyz_a_b[:4], scalar_first=True).as_matrix()
    return p_b @ R_a_b.T + wxyz_xyz_a_b[4:]


def matrix(wxyz_xyz_a_b: Float[np.ndarray, " 7"]) -> Float[np.ndarray, "4 4"]:
    """A pose as 4 x 4 matrix: `of_matrix` undone."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat(wxyz_xyz_a_b[:4], scalar_first=True).as_matrix()
    T[:3, 3] = wxyz_xyz_a_b[4:]
    return T
