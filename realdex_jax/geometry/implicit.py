"""The surface that an oriented point cloud implies, as the same distance grid that meshes give.

Near the cloud the value is the weighted mean of distances to the tangent planes of the nearest
points (implicit moving least squares, Kolluri 2005), which averages sensor noise; farther out it
is the distance to the nearest tangent disc.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.spatial import KDTree

from realdex_jax.geometry import cloud as clouds
from realdex_jax.geometry import sdf
from realdex_jax.geometry.sdf import SdfGrid

CELLS = 120_000
"""Cells of every grid, so that jitted users compile once."""
_NEAREST = 8
_VIEWS = 32
_HOLE = 3.5
"""Radius in median spacings of the widest gap in most samples, not in all."""
_WIDER = ((3.8, 0.05), (4.2, 0.05), (5.0, 0.05), (7.0, 0.5), (10.0, 0.5))
"""Wider gaps to try, in median spacings, and the share of points that must then have a pocket
behind them. Uniformly random clouds of 4000 points often have a gap beyond the first, hardly ever
one of five; the last two, which could also be the mouth of a vessel, are for uneven density."""
_MOUTH = 0.2
"""A gap of more than this radius, over the longest side, is an opening however sparse the cloud."""
_LEAK = 0.3
"""Share of two-sided points above which wider gaps are tried."""
_SHUT = 0.1
"""Most two-sided points of a cloud whose gaps are closed."""
_OPEN = 0.6
"""Share of two-sided points above which a cloud is suspected to show one side only."""
_ONE_SIDED = 0.85
"""Share of the points that one view must show for that."""


@dataclasses.dataclass(frozen=True, eq=False)
class Oriented:
    """Points with normals, the ones of thin walls marked."""

    points: Float[np.ndarray, "n 3"]
    """Metres."""
    normals: Float[np.ndarray, "n 3"]
    """Outward unit normals; of a two-sided point one of the two."""
    two_sided: Bool[np.ndarray, " n"]
    """Points of walls so thin that the cloud does not tell their sides apart."""


def grid(surface: Oriented) -> SdfGrid:
    """Samples the implied distance; about half a second.

    Args:
        surface: A few thousand points for millimetre accuracy.
    """
    bounds = np.stack([surface.points.min(axis=0), surface.points.max(axis=0)])
    return sdf.sample(lambda p: distance(surface, p), bounds, CELLS)


def distance(surface: Oriented, p: Float[np.ndarray, "q 3"]) -> Float[np.ndarray, " q"]:
    """Signed distance (m) of query points to the implied surface, negative inside.

    Two-sided points count as facing the query: a thin wall has no inside, and the distance to its
    middle is what a hand needs.

    Args:
        surface: The cloud.
        p: Query points, metres.
    """
    points, normals = surface.points, surface.normals
    tree = KDTree(points)
    k = min(_NEAREST, len(points))
    spacing = 1.5 * _spacing(points)
    r, near = tree.query(p, k=k, workers=-1)
    r, near = r.reshape(len(p), k), near.reshape(len(p), k)
    n = normals[near]
    height = ((p[:, None] - points[near]) * n).sum(-1)
    turn = np.where(surface.two_sided[near] & (height < 0), -1.0, 1.0)
    height, n = turn * height, turn[..., None] * n
    # The other side of a thin wall is as near as this one and must not be averaged with it.
    same_side = (n * n[:, :1]).sum(-1) > 0.0
    weight = np.exp(-(r**2 - r[:, :1] ** 2) / spacing**2) * same_side
    plane = (weight * height).sum(-1) / weight.sum(-1)
    lateral = np.sqrt(np.maximum(r**2 - height**2, 0.0))
    disc = np.hypot(height, np.maximum(lateral - spacing, 0.0)).min(-1)
    far = np.clip(r[:, 0] / spacing - 1.5, 0.0, 1.0)
    return (1 - far) * plane + far * np.where(plane < 0, -disc, disc)


def orient(
    points: Float[np.ndarray, "n 3"], view: Float[np.ndarray, " 3"] | None = None
) -> Oriented:
    """Estimated normals of a full or one-sided cloud, turned outward.

    Outside is what can be reached from far away without coming near a point. A normal points
    there; a point with outside on both sides belongs to a wall too thin for the cloud.

    Args:
        points: The cloud, metres.
        view: Where the camera was, if the cloud shows one side only.
    """
    normals = clouds.estimate_normals(points, view)
    if view is not None:
        return Oriented(points, normals, np.zeros(len(points), bool))
    spacing = _spacing(points)
    above, below, _ = _sides(points, normals, _HOLE * spacing)
    if (above & below).mean() > _LEAK:
        # Open, or one gap has flooded the inside. Only a closed surface has room behind it that a
        # slightly wider band cuts off; of an open one the band itself fills what it closes.
        for hole, share in _WIDER:
            if hole * spacing > _MOUTH * np.ptp(points, axis=0).max():
                break
            up, down, enclosed = _sides(points, normals, hole * spacing)
            if enclosed > share and (up & down).mean() < _SHUT:
                above, below = up, down
                break
    normals = np.where((below & ~above)[:, None], -normals, normals)
    two_sided = above & below
    if two_sided.mean() > _OPEN:
        # Nothing is enclosed. If one view shows nearly all points, it is a cloud of one side.
        seen = [(len(clouds.partial_view(points, v)), *v) for v in _sphere(_VIEWS)]
        most = np.array(max(seen))
        if most[0] > _ONE_SIDED * len(points):
            return orient(points, points.mean(axis=0) + 0.8 * most[1:])
    return Oriented(points, normals, two_sided)


def _sides(
    points: Float[np.ndarray, "n 3"], normals: Float[np.ndarray, "n 3"], band: float
) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"], float]:
    """Whether outside lies above and below each point, and the share before enclosed pockets."""
    space, step = _Space(points, band), 1.35 * band * normals
    outside_above, pocket_above = space(points + step)
    outside_below, pocket_below = space(points - step)
    enclosed = (outside_above & pocket_below) | (outside_below & pocket_above)
    return outside_above, outside_below, float(enclosed.mean())


class _Space:
    """The space farther than a band from every point, in connected regions, as a voxel grid."""

    def __init__(self, points: Float[np.ndarray, "n 3"], band: float) -> None:
        """Floods the space farther than `band` metres from every point."""
        self._pitch = max(band / 2.5, float(np.ptp(points, axis=0).max()) / 80)
        self._low = points.min(axis=0) - 4 * band
        extent = points.max(axis=0) + 4 * band - self._low
        nodes = np.ceil(extent / self._pitch).astype(int) + 1
        axes = [self._low[i] + self._pitch * np.arange(nodes[i]) for i in range(3)]
        p = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        near, _ = KDTree(points).query(p, distance_upper_bound=band, workers=-1)
        region = np.zeros(tuple(nodes), np.int32)
        ndimage.label((near > band).reshape(region.shape), output=region)
        self._region = region

    def __call__(
        self, p: Float[np.ndarray, "q 3"]
    ) -> tuple[Bool[np.ndarray, " q"], Bool[np.ndarray, " q"]]:
        """Whether points are outside (connected to infinity), and whether in a pocket."""
        index = np.round((p - self._low) / self._pitch).astype(int)
        index = np.clip(index, 0, np.array(self._region.shape) - 1)
        region = self._region[tuple(index.T)]
        outside = region == self._region[0, 0, 0]
        return outside, (region > 0) & ~outside


def _spacing(points: Float[np.ndarray, "n 3"]) -> float:
    """Median distance (m) to the nearest other point."""
    return float(np.median(KDTree(points).query(points, k=2)[0][:, 1])) + 1e-4


def _sphere(count: int) -> Float[np.ndarray, "c 3"]:
    """Evenly spread directions (Fibonacci lattice)."""
    z = 1 - (2 * np.arange(count) + 1) / count
    angle = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    side = np.sqrt(1 - z**2)
    return np.stack([side * np.cos(angle), side * np.sin(angle), z], axis=-1)
