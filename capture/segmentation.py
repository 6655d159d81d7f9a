"""Where the table is, and which things stand on it: what a first look at a scene needs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from capture.device import CaptureError
from realdex_jax.data import rigid

_BIN = 0.005
"""Of the histogram of heights, metres."""
_REACH = 0.5
"""Points within so many metres of what the cameras look at count for the table, sideways."""
_FEWEST = 200
"""Points that a look at the table needs."""
_VOXEL = 0.01
"""Things are apart (m) if a layer of empty voxels is between them."""
_SMALLEST = 40
"""Points of a thing; fewer are noise."""


def looked_at(wxyz_xyz_world_cam: Mapping[int, Float[np.ndarray, " 7"]]) -> np.ndarray:
    """The point (m) in the world that the axes of all cameras pass closest to.

    Raises:
        CaptureError: There is no camera, or all look the same way.
    """
    A, b = np.zeros((3, 3)), np.zeros(3)
    for pose in wxyz_xyz_world_cam.values():
        T = rigid.matrix(pose)
        across = np.eye(3) - np.outer(T[:3, 2], T[:3, 2])
        A, b = A + across, b + across @ T[:3, 3]
    if np.linalg.eigvalsh(A)[0] < 1e-3:
        raise CaptureError(
            f"{len(wxyz_xyz_world_cam)} cameras do not look at one place; two that look from "
            "different sides are needed, or say where the table and the object are"
        )
    return np.linalg.solve(A, b)


def table_height(
    p_world: Float[np.ndarray, "n 3"], p_world_target: Float[np.ndarray, " 3"]
) -> float:
    """Height (m) of the table: the level that most points about a place are at.

    Args:
        p_world: Points of all cameras, z up, metres.
        p_world_target: What the cameras look at.

    Raises:
        CaptureError: There are hardly any points.
    """
    z = p_world[np.linalg.norm((p_world - p_world_target)[:, :2], axis=1) < _REACH, 2]
    if len(z) < _FEWEST:
        raise CaptureError(f"{len(z)} points about the table; {_FEWEST} are needed to find it")
    level = np.floor(z / _BIN).astype(np.int64)
    counts = np.bincount(level - level.min())
    # Neighbours count, too: the table may lie on the border of two bins.
    around = np.convolve(counts, np.ones(3), mode="same")
    peak = (int(around.argmax()) + int(level.min()) + 0.5) * _BIN
    return float(np.median(z[np.abs(z - peak) < 2.0 * _BIN]))


def things(p_world: Float[np.ndarray, "n 3"]) -> list[Bool[np.ndarray, " n"]]:
    """Points that belong together, for each thing; the largest first.

    Args:
        p_world: Points without table and hand, metres.
    """
    if not len(p_world):
        return []
    cell = np.floor((p_world - p_world.min(axis=0)) / _VOXEL).astype(np.int64)
    filled = np.zeros(cell.max(axis=0) + 1, bool)
    filled[tuple(cell.T)] = True
    # A voxel between two filled ones may be empty: surfaces at a slant have gaps.
    joined = ndimage.binary_dilation(filled, np.ones((3, 3, 3), bool))
    labels = np.zeros(joined.shape, np.int32)
    ndimage.label(joined, np.ones((3, 3, 3), int), output=labels)
    found = labels[tuple(cell.T)]
    sizes = np.bincount(found, minlength=2)
    order = [k for k in np.argsort(-sizes[1:], kind="stable") + 1 if sizes[k] >= _SMALLEST]
    return [found == k for k in order]
