"""Signed distance of an object on a grid, for batched look-ups in JAX.

The distance is to the surface of the union of the object's convex pieces, which is what physics
collides with. Cells store distance and unit gradient, so that one gather gives a first-order
value.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import trimesh
from jaxtyping import Array, Float, Int
from scipy.spatial import KDTree

from realdex_jax import pytree
from realdex_jax.geometry.shape import ObjectShape

CELLS = 300_000
"""Cells of every grid: all objects share one shape, so jitted users compile once."""
MARGIN = 0.03
"""Metres of grid around the object; beyond, the distance to the grid's border is added."""
MIN_PITCH = 0.0015
_SURFACE_SAMPLES = 40_000
_NEAREST = 4


@pytree.dataclass
class SdfGrid:
    """Distance grid of one object in its frame."""

    cells: Float[Array, "c 4"]
    """Signed distance (m, negative inside) and its unit gradient, row-major over x, y, z; padded
    to `CELLS`."""
    shape: Int[Array, " 3"]
    """Number of nodes along each axis."""
    origin: Float[Array, " 3"]
    """Position of the first node, metres."""
    pitch: Float[Array, ""]
    """Distance between nodes, metres."""


@pytree.dataclass
class SdfGrids:
    """Distance grids of several objects, of equal size."""

    cells: Float[Array, "o c 4"]
    shape: Float[Array, "o 3"]
    origin: Float[Array, "o 3"]
    pitch: Float[Array, " o"]


def stack(grids: Sequence[SdfGrid]) -> SdfGrids:
    """Grids of equal size as one record."""
    return SdfGrids(
        cells=jnp.stack([g.cells for g in grids]),
        shape=jnp.stack([g.shape.astype(jnp.float32) for g in grids]),
        origin=jnp.stack([g.origin for g in grids]),
        pitch=jnp.stack([g.pitch for g in grids]),
    )


def build(shape: ObjectShape) -> SdfGrid:
    """Samples an object's distance field; about a second, mostly nearest-neighbour search."""
    return sample(lambda p: exact_distance(shape, p), shape.bounds)


def sample(
    field: Callable[[Float[np.ndarray, "n 3"]], Float[np.ndarray, " n"]],
    bounds: Float[np.ndarray, "2 3"],
    cells: int = CELLS,
) -> SdfGrid:
    """Samples any signed distance on a grid, `MARGIN` around the object.

    Args:
        field: Distance (m) at points (m), negative inside.
        bounds: Lowest and highest corner of the object, metres.
        cells: Cells of the grid; unused ones are padding, so that jitted users compile once.
    """
    low, high = bounds[0] - MARGIN, bounds[1] + MARGIN
    pitch = max(MIN_PITCH, float(np.cbrt(np.prod(high - low) / cells)))
    nodes = np.ceil((high - low) / pitch).astype(int) + 1
    while nodes.prod() > cells:
        pitch *= 1.01
        nodes = np.ceil((high - low) / pitch).astype(int) + 1
    axes = [low[i] + pitch * np.arange(nodes[i]) for i in range(3)]
    p = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    d = field(p).reshape(tuple(nodes))
    gradient = np.stack([np.gradient(d, pitch, axis=i) for i in range(3)], axis=-1)
    gradient /= np.linalg.norm(gradient, axis=-1, keepdims=True) + 1e-9
    values = np.zeros((cells, 4), np.float32)
    values[: nodes.prod()] = np.concatenate([d[..., None], gradient], axis=-1).reshape(-1, 4)
    return SdfGrid(
        cells=jnp.asarray(values),
        shape=jnp.asarray(nodes, jnp.int32),
        origin=jnp.asarray(low, jnp.float32),
        pitch=jnp.asarray(pitch, jnp.float32),
    )


def exact_distance(shape: ObjectShape, p: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """Signed distance (m) of points to the union of the object's pieces.

    The nearest of dense surface samples names candidate triangles; the distance to those is exact.
    """
    corners, samples, triangle = _union_surface(shape)
    near = np.asarray(KDTree(samples).query(p, k=_NEAREST, workers=-1)[1])
    distance = np.full(len(p), np.inf)
    for k in range(_NEAREST):
        closest = trimesh.triangles.closest_point(corners[triangle[near[:, k]]], p)
        distance = np.minimum(distance, np.linalg.norm(p - closest, axis=-1))
    return np.where(shape.contains(p), -distance, distance)


def _union_surface(shape: ObjectShape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangles of all pieces, samples of the union's surface, and the triangle of each sample."""
    hulls = [trimesh.convex.convex_hull(piece) for piece in shape.pieces]
    corners = np.concatenate([hull.triangles for hull in hulls])
    soup = trimesh.Trimesh(
        corners.reshape(-1, 3), np.arange(3 * len(corners)).reshape(-1, 3), process=False
    )
    samples, triangle = trimesh.sample.sample_surface(soup, _SURFACE_SAMPLES, seed=0)[:2]
    outer = shape.piece_distance(samples).min(axis=1) > -1e-6
    return corners, samples[outer], triangle[outer]


def first_order(grid: SdfGrid, p: Float[Array, " 3 *b"]) -> tuple[Array, Array]:
    """Signed distance extrapolated from the nearest node: one gather a point.

    Args:
        grid: The object.
        p: Points in the object frame, metres; components first.

    Returns:
        Distance (*b), metres, and the node's unit normal (3 *b). Only the distance is
        differentiable.
    """
    u, outside = _to_grid(grid, p)
    index = jnp.round(jax.lax.stop_gradient(u))
    value = _gather(grid, index.astype(jnp.int32))
    normal = value[1:]
    return value[0] + ((u - index) * normal).sum(0) * grid.pitch + outside, normal


def distance_among(
    grids: SdfGrids, which: Int[Array, " b"], p: Float[Array, "b n 3"]
) -> Float[Array, "b n"]:
    """Signed distances (m), as `first_order`, of points to a grid of their own for each row.

    Args:
        grids: The objects.
        which: Object of each row.
        p: Points in the frame of their object, metres.
    """
    pitch, shape = grids.pitch[which, None, None], grids.shape[which, None]
    u = (p - grids.origin[which, None]) / pitch
    inside = jnp.clip(u, 0.0, (shape - 1) * 0.9999)
    outside = jnp.sqrt(((u - inside) ** 2).sum(-1) + 1e-12) * pitch[..., 0]
    index = jnp.round(jax.lax.stop_gradient(inside))
    x, y, z = (index[..., i].astype(jnp.int32) for i in range(3))
    size = shape.astype(jnp.int32)
    # One gather of single cells from all grids: a grid per row would be copied.
    cell = (x * size[..., 1] + y) * size[..., 2] + z + which[:, None] * grids.cells.shape[1]
    value = grids.cells.reshape(-1, 4)[cell]
    return value[..., 0] + ((inside - index) * value[..., 1:]).sum(-1) * pitch[..., 0] + outside


def trilinear(grid: SdfGrid, p: Float[Array, " 3 *b"]) -> tuple[Array, Array]:
    """Signed distance (*b) and unit normal (3 *b), both interpolated: eight gathers a point.

    Distance and normal are differentiable.
    """
    u, outside = _to_grid(grid, p)
    index = jnp.floor(jax.lax.stop_gradient(u))
    fraction = u - index
    index = index.astype(jnp.int32)
    total = jnp.zeros((4, *p.shape[1:]), p.dtype)
    for corner in np.ndindex(2, 2, 2):
        x, y, z = (fraction[i] if corner[i] else 1 - fraction[i] for i in range(3))
        step = jnp.asarray(corner, jnp.int32).reshape(3, *[1] * (p.ndim - 1))
        total = total + (x * y * z) * _gather(grid, index + step)
    normal = total[1:] / jnp.sqrt((total[1:] ** 2).sum(0) + 1e-6)
    return total[0] + outside, normal


def _to_grid(grid: SdfGrid, p: Array) -> tuple[Array, Array]:
    """Grid coordinates clamped to the nodes, and the metres that clamping moved."""
    column = (3, *[1] * (p.ndim - 1))
    u = (p - grid.origin.reshape(column)) / grid.pitch
    inside = jnp.clip(u, 0.0, ((grid.shape - 1) * 0.9999).reshape(column))
    return inside, jnp.sqrt(((u - inside) ** 2).sum(0) + 1e-12) * grid.pitch


def _gather(grid: SdfGrid, index: Array) -> Array:
    """Cell contents, components first (4 *b), from nodes (3 *b)."""
    cell = (index[0] * grid.shape[1] + index[1]) * grid.shape[2] + index[2]
    # Cells interleave their four values, so one cache line serves a point.
    return jnp.stack([grid.cells.reshape(-1)[4 * cell + i] for i in range(4)])
