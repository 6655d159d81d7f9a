"""The turns of an object that no camera can tell apart, and distances of poses up to them."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from realdex_jax.geometry import shape as shapes

TOLERANCE = 0.0015
"""Metres by which a turn may move the surface and still count: what a camera's noise hides."""
_SHARE = 0.995
"""Of the points."""
_PLANES = 4
"""Nearest samples, of whose planes the best counts: at an edge there are two."""
_LOW = 0.02
"""Mean square rise of the surface for a turn that moves its farthest point by one, below which the
turn is looked at."""
_ANGLES = np.deg2rad([23.0, 71.0, 137.0])
"""Turns that a solid of revolution is tried with; no even-sided prism stands all three."""


@dataclasses.dataclass(frozen=True, eq=False)
class Symmetry:
    """The turns about an object's middle that leave its surface in place, in the object's axes."""

    p_object_middle: Float[np.ndarray, " 3"]
    """The middle of the surface, metres, object frame: every axis of symmetry meets it."""
    turns: Float[np.ndarray, "k 3 3"]
    """The single ones among the 24 of a cube; the first is the identity."""
    axes: Float[np.ndarray, "a 3"]
    """Unit axes about which every turn is one: none, one of a bottle, three of a ball."""


def find(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], count: int = 8192
) -> Symmetry:
    """Looks for symmetries.

    About the axes of the object frame, its principal axes, and those that small turns hint at.

    Args:
        vertices: Corners, metres.
        faces: Triangles.
        count: Points of the surface that are compared.
    """
    p, n = shapes.sample(np.asarray(vertices, np.float64), faces, count, seed=1)
    middle = p.mean(axis=0)
    p = p - middle
    tree, few = KDTree(p), p[: count // 8]

    def stays(R: Float[np.ndarray, "3 3"]) -> bool:
        moved = few @ R.T
        distance, index = tree.query(moved, k=_PLANES)
        off = np.abs((n[index] * (moved[:, None] - p[index])).sum(axis=-1)).min(axis=1)
        # As long as the nearest sample is near, its plane tells.
        near = distance[:, 0] < 0.05 * np.ptp(p, axis=0).max() + TOLERANCE
        return bool(np.mean(near & (off < TOLERANCE)) >= _SHARE)

    frames = np.eye(3), _right(np.linalg.eigh(p.T @ p)[1])
    cube = Rotation.create_group("O").as_matrix()
    cube = cube[np.argsort(-np.trace(cube, axis1=1, axis2=2), kind="stable")]
    turns = [np.stack([R for R in F @ cube @ F.T if stays(R)]) for F in frames]
    kept: list[np.ndarray] = []
    for axis in (*np.eye(3), *_hints(p, n)):
        across = axis - sum((a * (a @ axis) for a in kept), np.zeros(3))
        if np.linalg.norm(across) > 0.5 and all(
            stays(Rotation.from_rotvec(angle * axis).as_matrix()) for angle in _ANGLES
        ):
            kept.append(across / np.linalg.norm(across))
    return Symmetry(middle, max(turns, key=len), np.reshape(kept, (-1, 3)))


def _hints(p: Float[np.ndarray, "n 3"], n: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "a 3"]:
    """Axes about which small turns hardly move the surface."""
    moved = np.cross(p / np.linalg.norm(p, axis=1).max(), n)
    values, ways = np.linalg.eigh(moved.T @ moved / len(p))
    return ways.T[values < _LOW]


def _right(R: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    return R * np.array([1.0, 1.0, np.sign(np.linalg.det(R))])


def apart(
    symmetry: Symmetry,
    a: Float[np.ndarray, "t 7"],
    b: Float[np.ndarray, "t 7"],
) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, " t"]]:
    """How far poses of an object are from each other, up to its symmetries.

    Args:
        symmetry: Of the object.
        a: T_world_object: quaternion wxyz and position (m).
        b: Others.

    Returns:
        Distances of the middle (m) and least angles (rad).
    """
    R_a, R_b = (Rotation.from_quat(x[:, :4], scalar_first=True).as_matrix() for x in (a, b))
    off = (R_a - R_b) @ symmetry.p_object_middle + a[:, 4:] - b[:, 4:]
    R = np.einsum("tji,tjk->tik", R_a, R_b)
    if len(symmetry.axes) > 1:
        angle = np.zeros(len(a))
    elif len(symmetry.axes):
        # Only where the axis points; a turn that swaps its ends may be a symmetry too.
        axis = symmetry.axes[0]
        ends = (symmetry.turns @ axis) @ (R @ axis).T
        angle = np.arccos(np.clip(ends.max(axis=0), -1.0, 1.0))
    else:
        left = np.einsum("tij,kjl->tkil", R, symmetry.turns)
        size = Rotation.from_matrix(left.reshape(-1, 3, 3)).magnitude()
        angle = size.reshape(len(a), -1).min(axis=1)
    return np.linalg.norm(off, axis=1), angle
