"""The surface that an oriented point cloud implies, as the same distance grid that meshes give.

Near the cloud the value is the weighted mean of distances to the tangent planes of the nearest
points (implicit moving least squares, Kolluri 2005), which averages sensor noise; farther out it
is the distance to the nearest tangent disc.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from realdex_jax.geometry import cloud as clouds
from realdex_jax.geometry.sdf import SdfGrid

CELLS = 120_000
"""Cells of every grid, so that jitted users compile once."""
MARGIN = 0.03
"""Metres of grid around the cloud; beyond it the distance to the border is added."""
_MIN_PITCH = 0.0015
_NEAREST = 8
_VIEWS = 32


def grid(points: Float[np.ndarray, "n 3"], normals: Float[np.ndarray, "n 3"]) -> SdfGrid:
    """Samples the implied distance; about half a second.

    Args:
        points: Surface points, metres; a few thousand for millimetre accuracy.
        normals: Outward unit normals.
    """
    low, high = points.min(axis=0) - MARGIN, points.max(axis=0) + MARGIN
    pitch = max(_MIN_PITCH, float(np.cbrt(np.prod(high - low) / CELLS)))
    nodes = np.ceil((high - low) / pitch).astype(int) + 1
    while nodes.prod() > CELLS:
        pitch *= 1.01
        nodes = np.ceil((high - low) / pitch).astype(int) + 1
    axes = [low[i] + pitch * np.arange(nodes[i]) for i in range(3)]
    p = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    d = distance(points, normals, p).reshape(nodes)
    gradient = np.stack(np.gradient(d, pitch), axis=-1)
    gradient /= np.linalg.norm(gradient, axis=-1, keepdims=True) + 1e-9
    cells = np.zeros((CELLS, 4), np.float32)
    cells[: nodes.prod()] = np.concatenate([d[..., None], gradient], axis=-1).reshape(-1, 4)
    return SdfGrid(
        cells=jnp.asarray(cells),
        shape=jnp.asarray(nodes, jnp.int32),
        origin=jnp.asarray(low, jnp.float32),
        pitch=jnp.asarray(pitch, jnp.float32),
    )


def distance(
    points: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    p: Float[np.ndarray, "q 3"],
) -> Float[np.ndarray, " q"]:
    """Signed distance (m) of query points to the implied surface, negative inside.

    Args:
        points: Surface points, metres.
        normals: Outward unit normals.
        p: Query points, metres.
    """
    tree = cKDTree(points)
    k = min(_NEAREST, len(points))
    spacing = float(np.median(tree.query(points, k=2)[0][:, 1])) * 1.5 + 1e-4
    r, near = tree.query(p, k=k, workers=-1)
    r, near = r.reshape(len(p), k), near.reshape(len(p), k)
    n = normals[near]
    height = ((p[:, None] - points[near]) * n).sum(-1)
    # The other side of a thin wall is as near as this one and must not be averaged with it.
    same_side = (n * n[:, :1]).sum(-1) > 0.0
    weight = np.exp(-(r**2 - r[:, :1] ** 2) / spacing**2) * same_side
    plane = (weight * height).sum(-1) / weight.sum(-1)
    lateral = np.sqrt(np.maximum(r**2 - height**2, 0.0))
    disc = np.hypot(height, np.maximum(lateral - spacing, 0.0)).min(-1)
    far = np.clip(r[:, 0] / spacing - 1.5, 0.0, 1.0)
    return (1 - far) * plane + far * np.where(plane < 0, -disc, disc)


def oriented_normals(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Estimated normals of a full or partial cloud, turned outward.

    A point that is seen from outside has its normal toward the viewer; many views vote. That
    orients handles and concave parts, where "away from the middle" is wrong.

    Args:
        points: The cloud, metres.
    """
    normals = clouds.estimate_normals(points)
    votes = np.zeros(len(points))
    for direction in _sphere(_VIEWS):
        seen = clouds.partial_view(points, direction)
        camera = points.mean(axis=0) + 0.8 * direction
        toward = camera - points[seen]
        toward /= np.linalg.norm(toward, axis=-1, keepdims=True)
        votes[seen] += (normals[seen] * toward).sum(-1)
    known = np.abs(votes) > 1e-6
    flipped = np.where((votes < 0)[:, None], -normals, normals)
    if known.all() or not known.any():
        return flipped
    # Points that no view saw follow their nearest seen neighbour.
    _, near = cKDTree(points[known]).query(points[~known])
    agrees = (flipped[~known] * flipped[known][near]).sum(-1) >= 0
    flipped[~known] = np.where(agrees[:, None], flipped[~known], -flipped[~known])
    return flipped


def _sphere(count: int) -> Float[np.ndarray, "c 3"]:
    """Evenly spread directions (Fibonacci lattice)."""
    z = 1 - (2 * np.arange(count) + 1) / count
    angle = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    side = np.sqrt(1 - z**2)
    return np.stack([side * np.cos(angle), side * np.sin(angle), z], axis=-1)
