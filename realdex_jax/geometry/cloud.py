"""Point clouds from users and cameras: checks, fixed-size sampling, normals, one-sided views."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike
from scipy.spatial import KDTree

from realdex_jax.errors import CloudError
from realdex_jax.geometry.outliers import not_hidden

MIN_POINTS = 16
"""Fewest distinct points that say anything about a shape."""

MIN_EXTENT, MAX_EXTENT = 0.01, 1.0
"""Allowed range of the longest side of an object's bounding box, metres; for meshes too."""

_NEIGHBOURS = 16
_TOGETHER = 512
"""Sizes of clouds are rounded up to a multiple of it before points are chosen."""
_VIEW_RADIUS = 100.0
"""Radius of the flipping sphere over the cloud's extent; larger keeps more points near the rim."""


def check_cloud(points: ArrayLike, *, name: str = "cloud") -> Float[np.ndarray, "n 3"]:
    """Refuse a cloud that no grasp can be predicted from.

    Args:
        points: (n, 3) positions, metres; extra columns (colour, normals) are refused, not ignored.
        name: for messages, such as the file's path.

    Returns:
        The points as float64.

    Raises:
        CloudError: wrong shape, empty, not finite, too few distinct points, or a wrong unit.
    """
    try:
        cloud = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CloudError(f"{name}: cannot be read as numbers: {error}") from error
    if cloud.size == 0:
        raise CloudError(f"{name}: empty (shape {cloud.shape}); need at least {MIN_POINTS} points")
    if cloud.ndim != 2 or cloud.shape[1] != 3:
        raise CloudError(f"{name}: shape {cloud.shape}; need (points, 3): x, y, z in metres")
    finite = np.isfinite(cloud).all(axis=1)
    if not finite.all():
        raise CloudError(
            f"{name}: {np.sum(~finite)} of {len(cloud)} points are not finite (first: row "
            f"{int(np.argmin(finite))}); keep cloud[np.isfinite(cloud).all(axis=1)]"
        )
    distinct = len(np.unique(cloud, axis=0))
    if distinct < MIN_POINTS:
        raise CloudError(f"{name}: {distinct} distinct points; need at least {MIN_POINTS}")
    longest = float(np.ptp(cloud, axis=0).max())
    if not MIN_EXTENT <= longest <= MAX_EXTENT:
        factors = {"mm": 1e-3, "cm": 1e-2, "inch": 0.0254}
        fits = [
            f"multiply by {factor:g} if it is in {unit}"
            for unit, factor in factors.items()
            if MIN_EXTENT <= longest * factor <= MAX_EXTENT
        ]
        hint = f"; {' or '.join(fits)}" if fits else "; crop it to one object, in metres"
        raise CloudError(
            f"{name}: {longest:.4g} m long; objects must be {MIN_EXTENT * 100:g} cm to "
            f"{MAX_EXTENT:g} m{hint}"
        )
    return cloud


@partial(jax.jit, static_argnames="count")
def _farthest(points: Float[Array, "n 3"], start: Int[Array, ""], count: int) -> Int[Array, " k"]:
    def pick(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        nearest, last = carry
        nearest = jnp.minimum(nearest, jnp.sum((points - points[last]) ** 2, axis=-1))
        return (nearest, jnp.argmax(nearest)), last

    # From the points themselves, so that the carry has the same type under vmap and in float64.
    infinite = jnp.full_like(points[:, 0], jnp.inf)
    _, chosen = jax.lax.scan(pick, (infinite, start), None, length=count)
    return chosen


def farthest_points(
    points: Float[Array, "n 3"], count: int, key: Array | None = None
) -> Int[Array, " k"]:
    """Farthest-point sampling: each next point is the one farthest from all chosen so far.

    Args:
        points: the cloud, at least `count` points.
        count: how many to choose.
        key: picks the first point; None starts at the point farthest from the centroid.

    Returns:
        Indices of the chosen points, in the order chosen.

    Raises:
        CloudError: `count` is not between 1 and the number of points.
    """
    points = jnp.asarray(points)
    if not 1 <= count <= len(points):
        raise CloudError(f"cannot choose {count} of {len(points)} points; need 1..{len(points)}")
    if key is None:
        start = jnp.argmax(jnp.sum((points - points.mean(axis=0)) ** 2, axis=-1))
    else:
        start = jax.random.randint(key, (), 0, len(points))
    # Clouds of many sizes share a program. Copies of the first point are never chosen before it is,
    # nor after: they are as near to what is chosen as it is, and come later.
    more = -len(points) % _TOGETHER
    points = jnp.concatenate([points, jnp.broadcast_to(points[:1], (more, 3))])
    return _farthest(points, start.astype(jnp.int32), count)


def resample(points: Float[np.ndarray, "n 3"], count: int, key: Array) -> Int[np.ndarray, " k"]:
    """Indices that bring a cloud to a fixed size.

    More points than `count`: farthest-point sampling. Fewer: every point, then random repeats.

    Args:
        points: a cloud from `check_cloud`.
        count: size wanted.
        key: JAX random key.

    Returns:
        Indices into `points`.
    """
    if len(points) >= count:
        return np.asarray(farthest_points(jnp.asarray(points, jnp.float32), count, key))
    extra = jax.random.randint(key, (count - len(points),), 0, len(points))
    return np.concatenate([np.arange(len(points)), np.asarray(extra)])


def estimate_normals(
    points: Float[np.ndarray, "n 3"], view: Float[np.ndarray, " 3"] | None = None
) -> Float[np.ndarray, "n 3"]:
    """Unit normals from the plane through each point's neighbours.

    Args:
        points: the cloud, metres.
        view: camera position in the cloud's frame; normals then point toward it. None orients them
            away from the centroid, which is right for full clouds of roughly convex objects only.

    Returns:
        One unit normal for each point.
    """
    k = min(_NEIGHBOURS, len(points))
    _, near = KDTree(points).query(points, k=k)
    local = points[near] - points[near].mean(axis=1, keepdims=True)
    covariance = np.einsum("nki,nkj->nij", local, local)
    normals = np.linalg.eigh(covariance)[1][:, :, 0]
    outward = points - points.mean(axis=0) if view is None else np.asarray(view) - points
    inward = np.einsum("ni,ni->n", normals, outward) < 0
    return np.where(inward[:, None], -normals, normals)


def partial_view(
    points: Float[np.ndarray, "n 3"], direction: Float[np.ndarray, " 3"], distance: float = 0.8
) -> Int[np.ndarray, " k"]:
    """Indices of the points that a camera would see (hidden point removal, Katz et al. 2007).

    Args:
        points: a full cloud, metres.
        direction: from the cloud's centroid toward the camera.
        distance: of the camera from the centroid, metres.

    Returns:
        Sorted indices of the visible points.

    Raises:
        CloudError: the direction is zero, or the cloud is flat.
    """
    direction = np.asarray(direction, dtype=np.float64)
    length = np.linalg.norm(direction)
    if not length > 0:
        raise CloudError(f"view direction {direction.tolist()} must be a non-zero vector")
    camera = points.mean(axis=0) + distance * direction / length
    reach = np.linalg.norm(points - camera, axis=1)
    return np.flatnonzero(not_hidden(points, camera, _VIEW_RADIUS * reach.max()))
