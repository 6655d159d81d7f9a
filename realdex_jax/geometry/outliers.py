"""Which points of a cloud are to go: lone ones, sparse ones, and those hidden from a viewpoint.

All answer with a mask of the points to keep, so that normals and colours can follow.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import ConvexHull, KDTree, QhullError

from realdex_jax.errors import CloudError


def not_lone(
    points: Float[np.ndarray, "n 3"], neighbours: int = 20, sigmas: float = 2.0
) -> Bool[np.ndarray, " n"]:
    """Statistical removal: not those unusually far from their neighbours.

    A point goes if its mean distance to so many nearest other points is more than so many standard
    deviations above the mean over the cloud. A cloud with no more points than that is kept.

    Args:
        points: The cloud, metres.
        neighbours: How many.
        sigmas: Standard deviations.

    Raises:
        CloudError: Fewer than one neighbour.
    """
    if neighbours < 1:
        raise CloudError(f"{neighbours} neighbours; at least 1")
    if len(points) <= neighbours:
        return np.ones(len(points), bool)
    apart = KDTree(points).query(points, k=neighbours + 1)[0][:, 1:].mean(axis=1)
    return apart <= apart.mean() + sigmas * apart.std()


def not_sparse(
    points: Float[np.ndarray, "n 3"], radius: float, least: int
) -> Bool[np.ndarray, " n"]:
    """Radius removal: those that have so many other points within a radius (m).

    Raises:
        CloudError: The radius is not positive.
    """
    if not radius > 0:
        raise CloudError(f"radius of {radius} m; must be positive")
    if len(points) <= least or least < 1:
        return np.full(len(points), least < 1)
    reach = KDTree(points).query(points, k=least + 1, distance_upper_bound=radius)[0]
    return np.isfinite(reach[:, -1])


def not_hidden(
    points: Float[np.ndarray, "n 3"], p_view: Float[np.ndarray, " 3"], radius: float
) -> Bool[np.ndarray, " n"]:
    """Hidden-point removal by spherical flipping: those that are seen from a viewpoint.

    Args:
        points: The cloud, metres.
        p_view: The viewpoint, metres, in the same frame and at none of the points.
        radius: Of the sphere that points are flipped at, metres, beyond all of them; the larger,
            the more points near the outline stay.

    Raises:
        CloudError: A point at the viewpoint or beyond the sphere, or points in one plane with it.
            Katz et al., "Direct visibility of point sets", 2007.
    """
    local = np.asarray(points, np.float64) - p_view
    reach = np.linalg.norm(local, axis=1, keepdims=True)
    if len(points) and not (reach.min() > 0.0 and reach.max() < radius):
        raise CloudError(
            f"points from {reach.min():.3g} to {reach.max():.3g} m from the viewpoint; they must "
            f"be apart from it and within the radius of {radius} m"
        )
    flipped = local * (2 * radius / reach - 1)
    try:
        hull = ConvexHull(np.concatenate([flipped, np.zeros((1, 3))]))
    except QhullError as error:
        raise CloudError(f"the cloud of {len(points)} points is flat, it has no sides") from error
    seen = np.zeros(len(points) + 1, bool)
    seen[hull.vertices] = True
    return seen[:-1]
