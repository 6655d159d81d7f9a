"""The side an object stands on, which no camera above a table sees."""

import numpy as np
from jaxtyping import Float
from scipy.spatial import ConvexHull, KDTree, QhullError

_BAND, _BAND_SHARE = 0.004, 0.04
"""Metres, and share of the height, above what an object stands on that count as its foot."""


def under(points: Float[np.ndarray, "n 3"], z: float, pitch: float) -> Float[np.ndarray, "k 3"]:
    """A flat bottom within the outline of what is lowest.

    Args:
        points: Surface points, metres, +z up.
        z: Height of what the object stands on.
        pitch: Distance of the points that are made, metres.

    Returns:
        Points at that height; none if what is lowest has no area.
    """
    band = max(_BAND, _BAND_SHARE * float(points[:, 2].max(initial=z) - z))
    foot = points[points[:, 2] < z + band, :2]
    try:
        hull = ConvexHull(foot)
    except (QhullError, ValueError):
        return np.zeros((0, 3))
    lines = [np.arange(l, h + pitch, pitch) for l, h in zip(foot.min(0), foot.max(0), strict=True)]
    flat = np.stack(np.meshgrid(*lines), -1).reshape(-1, 2)
    flat = flat[(flat @ hull.equations[:, :2].T + hull.equations[:, 2] < 0).all(1)]
    return np.column_stack([flat, np.full(len(flat), z)])


def closed(points: Float[np.ndarray, "n 3"], z: float) -> Float[np.ndarray, "m 3"]:
    """A cloud with the underside that lies on a table, as dense as the cloud itself.

    Where the cloud has points near that height already, nothing is added.

    Args:
        points: What cameras above the table saw, metres, +z up.
        z: Height of the table.
    """
    tree = KDTree(points)
    # Of random points the nearest is half as far as the next of a grid with as many.
    pitch = 2.0 * float(np.median(tree.query(points, k=2)[0][:, 1]))
    added = under(points, z, pitch)
    if len(added):
        added = added[tree.query(added)[0] > 1.5 * pitch]
    return np.concatenate([points, added])
