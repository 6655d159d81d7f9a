"""What a depth camera sees of a surface known by many points: hidden sides, noise, lost readings.

Fast enough to augment clouds while training, the faster in single precision, which is kept: a
camera's noise is a thousand times its error. `sim.kinect` casts rays at meshes instead, and takes
its noise from here, so that clouds to learn from and clouds to be tested on have the same faults.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import KDTree

from realdex_jax.errors import CloudError
from realdex_jax.geometry.cloud import MIN_POINTS

DISTANCE = (0.5, 0.9)
"""Metres from a camera above a table to the sphere around the object it looks at."""
STAGGER_S = 160e-6
"""Seconds between the depth exposures of Azure Kinects: with less, one sees another's light."""

_CELL = 0.5
"""Width of a cell of the grid over the spacing of the points."""
_STENCIL = np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)])
"""Cells that a point covers. With 1.5 spacings they leave few holes and outgrow the silhouette by
less than one spacing."""
_ABOVE, _BEFORE = 0.3, 1.0
"""Spacings by which a point must lie above another's tangent plane, and nearer to the camera, to
hide it. The first keeps a surface seen at a slant from hiding itself, the second its rounding."""
_PROBES = 256
"""Points whose nearest neighbours tell the spacing."""


@dataclass(frozen=True)
class DepthNoise:
    """Faults of a time-of-flight depth camera; the defaults are an Azure Kinect's.

    Axial and lateral noise are those that BlenderProc's model of this camera reads from Tölgyessy
    et al., "Evaluation of the Azure Kinect", Sensors 21(2) 413, 2021; Microsoft states 17 mm at
    most at the far end. That readings are lost at a slant and at edges, and that edges fly, is
    documented; how often is not, so those figures are this project's choice.
    """

    axial: float = 0.0005
    """Standard deviation of the distance along the ray up to `axial_from`, metres."""
    axial_from: float = 0.5
    """Distance from which on it grows, metres."""
    axial_growth: float = 0.001
    """Its growth, metres for each metre beyond."""
    lateral: float = 0.0005
    """Standard deviation, along each image axis, of the angle between the ray a pixel stands for
    and the one it measures, radians: a quarter of a pixel."""
    slant: tuple[float, float] = (1.22, 1.48)
    """Angles between ray and normal (radians; 70 and 85 degrees) from which on readings get lost,
    and all are lost; the share is linear between."""
    step: float = 0.02
    """Metres by which the next pixel must be farther for a pixel to lie on an edge."""
    edge_lost: float = 0.5
    """Share of the pixels on edges that mix two distances so that the camera drops them."""
    edge_flying: float = 0.25
    """Share of the pixels on edges that report a distance between the two."""
    backdrop: float = 0.1
    """What is behind the object at its outline, as far as flying pixels go, metres."""

    def spread(self, distance: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Standard deviation of the axial noise at a distance, both metres."""
        return self.axial + self.axial_growth * np.maximum(distance - self.axial_from, 0.0)

    def lost(self, incidence: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Share of the readings lost at an angle between ray and normal, radians."""
        low, high = self.slant
        return np.clip((incidence - low) / (high - low), 0.0, 1.0)


def seen_from(
    points: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    p_view: Float[np.ndarray, " 3"],
    spacing: float | None = None,
) -> Bool[np.ndarray, " n"]:
    """Which points of a densely sampled surface a camera sees.

    A point is seen if its normal faces the camera and no other such point covers it: in a grid of
    viewing directions, finer than the points are apart, the nearest point of the cell is looked up.
    It hides what is behind it unless it lies in or below the other's tangent plane, so that nothing
    convex hides itself. Details smaller than a few spacings of the points come out wrong.

    Args:
        points: all around the object and even by area, metres.
        normals: outward unit normals.
        p_view: the camera in the frame of the points, metres, outside of the object.
        spacing: what `spacing_of` says of the points, if known; half the time goes there.

    Returns:
        True where seen.

    Raises:
        CloudError: too few points, or the camera is in their midst.
    """
    if len(points) < MIN_POINTS:
        raise CloudError(f"{len(points)} points; need at least {MIN_POINTS} to tell what is hidden")
    spacing = spacing_of(points) if spacing is None else spacing
    rows, facing_to = _rows(points), _rows(normals)
    offset = rows - np.asarray(p_view, rows.dtype)[:, None]
    distance = np.sqrt(np.einsum("in,in->n", offset, offset))
    seen = np.einsum("in,in->n", offset, facing_to) < 0.0
    forward = offset.mean(axis=1)
    forward /= max(float(np.linalg.norm(forward)), 1e-12)
    depth = forward @ offset
    if not depth.min() > 0.0:
        raise CloudError(
            f"camera at {np.round(p_view, 3).tolist()} m is not clear of the points, which are "
            f"within {distance.max():.3g} m of it; move it out of the object's box"
        )
    facing = np.flatnonzero(seen)
    if not len(facing):
        return seen
    # Far to near: of several points in a cell the last one written, the nearest, stays.
    facing = facing[np.argsort(-distance[facing])]
    across = np.linalg.svd(forward[None])[2][1:]
    flat = (across @ offset.take(facing, axis=1)) / depth[facing]
    flat -= flat.min(axis=1, keepdims=True)
    row, column = (flat * (depth.mean() / (_CELL * spacing))).astype(np.int64) + 1
    width = int(column.max()) + 2
    index = row * width + column
    nearest = np.empty((int(row.max()) + 2) * width, np.int64)
    covered = index[:, None] + _STENCIL @ [width, 1]
    nearest[covered.ravel()] = np.repeat(facing, len(_STENCIL))
    front = nearest[index]
    apart = rows.take(front, axis=1) - rows.take(facing, axis=1)
    above = np.einsum("in,in->n", apart, facing_to.take(facing, axis=1))
    before = distance[facing] - distance[front]
    seen[facing[(above > _ABOVE * spacing) & (before > _BEFORE * spacing)]] = False
    return seen


def noisy(
    points: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    p_view: Float[np.ndarray, " 3"],
    rng: np.random.Generator,
    noise: DepthNoise | None = None,
) -> Float[np.ndarray, "k 3"]:
    """Points that a camera sees, as it measures them: moved along their rays, some of them lost.

    A ray that is off by a small angle meets a slanted surface at another distance; that is how
    lateral noise enters. Edges are not known here, so no pixels fly.

    Args:
        points: seen points, metres.
        normals: their outward unit normals.
        p_view: the camera, metres.
        rng: random numbers.
        noise: the camera's faults; an Azure Kinect's if None.

    Returns:
        The k <= n points that are left, in order.
    """
    noise = noise or DepthNoise()
    rows = _rows(points)
    start = np.asarray(p_view, rows.dtype)[:, None]
    offset = rows - start
    distance = np.sqrt(np.einsum("in,in->n", offset, offset))
    ray = offset / distance
    cosine = -np.einsum("in,in->n", ray, _rows(normals))
    incidence = np.arccos(np.clip(cosine, 0.0, 1.0))
    slope = np.tan(np.minimum(incidence, noise.slant[1]))
    spread = np.hypot(noise.spread(distance), distance * noise.lateral * slope)
    error = spread * rng.standard_normal(len(points), rows.dtype.type)
    left = rng.random(len(points), rows.dtype.type) >= noise.lost(incidence)
    return (start + ray * (distance + error)).T[left]


def spacing_of(points: Float[np.ndarray, "n 3"]) -> float:
    """Distance of neighbours if the points lay on a square grid of their density, metres."""
    probes = points[:: max(len(points) // _PROBES, 1)]
    tree = KDTree(points, leafsize=64, balanced_tree=False, compact_nodes=False)  # quick to build
    nearest = tree.query(probes, k=2)[0][:, 1]
    # Of randomly spread points, half the root of the area of each is the mean distance. Points
    # given twice make it too small; the bound, that of a rod 400 times as long as thick, keeps the
    # grid small then.
    least = 0.1 * float(np.ptp(_rows(points), axis=1).max()) / len(points) ** 0.5
    return max(2.0 * float(nearest.mean()), least, 1e-9)


def _rows(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "3 n"]:
    """Components first, single or double: NumPy is quick along an axis that is long."""
    return np.ascontiguousarray(points.T, np.result_type(points, np.float32))
