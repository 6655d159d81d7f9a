"""One cloud from the pictures of all cameras of a moment, cropped, cleaned and merged.

Merged points are means of what the cameras say, by how well each sees a surface: near and head on
counts more. `upstream_compatible` makes clouds as the release's tools do, with their two slips.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage
from scipy.spatial import KDTree

from capture import depth as depth_of
from capture import realdex, undistortion
from capture.depth import DepthConfig
from capture.device import CaptureError, Frame, Optics
from capture.robot_surface import Posed
from realdex_jax.data import rigid
from realdex_jax.geometry import cloud as clouds
from realdex_jax.geometry.outliers import not_hidden, not_lone, not_sparse

HIDDEN_RADIUS = 1e4
"""Of the sphere at which the release's tools flip points, metres."""
_UPSTREAM_FAR = 3.0
_BLENDED = 16
"""Neighbours that a merged point's place along its normal is averaged over."""
_ALIKE = 0.8
"""Cosine between normals of neighbours on one surface."""


@dataclasses.dataclass(frozen=True)
class CloudConfig:
    """How clouds are made."""

    depth: DepthConfig = dataclasses.field(default_factory=DepthConfig)
    """Which readings count."""
    low: tuple[float, float, float] = (-0.5, -0.5, -0.03)
    """Corner of the box that is kept, world, metres."""
    high: tuple[float, float, float] = (0.5, 0.5, 0.7)
    """The other corner."""
    through: float = 0.02
    """A point goes if another camera sees something farther behind it, metres; 0 keeps it."""
    hidden_radius: float = 0.0
    """Of hidden-point removal from each camera, metres; 0 leaves it out: readings along rays of one
    lens hide nothing of each other, and flying ones go before."""
    voxel: float = 0.002
    """Side of the cells that points are averaged in, metres."""
    neighbours: int = 20
    """Of statistical removal."""
    sigmas: float = 2.0
    """Of statistical removal."""
    radius: float = 0.01
    """Of radius removal, metres; 0 leaves it out."""
    least: int = 4
    """Points that must be within that radius."""
    blend: float = 0.004
    """Metres along a surface over which its points are averaged across; 0 leaves it out."""
    margin: float = 0.012
    """Metres around the robot within which points are cut out."""
    upstream_compatible: bool = False
    """As the release's tools: undistorted by nearest pixel with a shifted principal point, hidden
    points as from the world's origin, plain means in voxels, statistical removal."""


@dataclasses.dataclass(frozen=True, eq=False)
class Cloud:
    """The surfaces of a moment."""

    p_world: Float[np.ndarray, "n 3"]
    """Points, metres."""
    normal_world: Float[np.ndarray, "n 3"]
    """Unit normals toward the cameras."""
    colour: UInt8[np.ndarray, "n 3"]
    """Of the camera that sees it best; black where no colour lens sees it."""
    cameras: Int[np.ndarray, " n"]
    """How many cameras see it."""
    seconds: Mapping[str, float]
    """Time that each stage took."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Points:
    """Points of one camera or of all, in the world."""

    p: Float[np.ndarray, "n 3"]
    normal: Float[np.ndarray, "n 3"]
    sigma: Float[np.ndarray, " n"]
    colour: UInt8[np.ndarray, "n 3"]
    coloured: Bool[np.ndarray, " n"]
    camera: Int[np.ndarray, " n"]

    def take(self, keep: np.ndarray) -> _Points:
        """Some of them."""
        return _Points(*(getattr(self, f.name)[keep] for f in dataclasses.fields(self)))


class _Watch:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._since
        self._since = now


def merged(
    frames: Mapping[int, Frame],
    optics: Mapping[int, Optics],
    wxyz_xyz_world_cam: Mapping[int, Float[np.ndarray, " 7"]],
    config: CloudConfig | None = None,
    *,
    robot: Posed | None = None,
) -> Cloud:
    """The cloud of one moment.

    Args:
        frames: Of the moment, by camera.
        optics: Lenses by camera.
        wxyz_xyz_world_cam: T_world_cam of each, from calibration.
        config: How; the project's way if None.
        robot: The posed robot, which is cut out of the cloud; None leaves it in.

    Raises:
        CaptureError: No frame, or a camera without lenses or place; a box of no volume.
    """
    config = config or CloudConfig()
    if not frames or set(frames) - (set(optics) & set(wxyz_xyz_world_cam)):
        raise CaptureError(
            f"frames of cameras {sorted(frames)}; there must be one, and lenses and a place for "
            f"each: {sorted(optics)}, {sorted(wxyz_xyz_world_cam)}"
        )
    if not (np.array(config.low) < config.high).all():
        raise CaptureError(f"box from {config.low} to {config.high}; must have a volume")
    watch = _Watch()
    make = _upstream_view if config.upstream_compatible else _view
    parts = {c: make(f, optics[c], wxyz_xyz_world_cam[c], config, watch) for c, f in frames.items()}
    if config.through > 0.0 and not config.upstream_compatible:
        for c in frames:
            for o in frames.keys() - {c}:
                through = _seen_through(
                    parts[c].p, frames[o], optics[o], wxyz_xyz_world_cam[o], config
                )
                parts[c] = parts[c].take(~through)
        watch.lap("seen through")
    whole = _Points(
        *(
            np.concatenate([getattr(part, f.name) for part in parts.values()])
            for f in dataclasses.fields(_Points)
        )
    )
    if robot is not None:
        whole = whole.take(~robot.near(whole.p, config.margin))
        watch.lap("robot cut out")
    return _clean(whole, config, watch)


def _clean(points: _Points, config: CloudConfig, watch: _Watch) -> Cloud:
    """Outliers out, one point in each voxel, blended."""
    sigma, cameras = points.sigma, np.ones(len(points.p), np.int64)
    if config.voxel > 0.0 and not config.upstream_compatible:
        points, sigma, cameras = averaged(points, config.voxel)
        watch.lap("merged")
    if config.upstream_compatible:
        keep = not_lone(points.p, config.neighbours, config.sigmas)
    elif config.radius > 0.0:
        keep = not_sparse(points.p, config.radius, config.least)
    else:
        keep = np.ones(len(points.p), bool)
    points, sigma, cameras = points.take(keep), sigma[keep], cameras[keep]
    watch.lap("outliers")
    p, normal = points.p, points.normal
    if config.blend > 0.0 and not config.upstream_compatible:
        p, normal = blended(p, normal, sigma, config.blend)
        watch.lap("blended")
    colour = np.where(points.coloured[:, None], points.colour, 0).astype(np.uint8)
    return Cloud(p, normal, colour, cameras, watch.seconds)


def _inside(p: Float[np.ndarray, "n 3"], config: CloudConfig) -> Bool[np.ndarray, " n"]:
    return np.asarray(((p >= config.low) & (p <= config.high)).all(axis=1))


def _view(
    frame: Frame, optics: Optics, place: Float[np.ndarray, " 7"], config: CloudConfig, watch: _Watch
) -> _Points:
    """What one camera sees, in the box."""
    T_world_depth = rigid.compose(place, optics.wxyz_xyz_colour_depth)
    p_depth, seen = optics.depth.back_project(frame.depth / 1000.0)
    within = seen.copy()
    within[seen] = _inside(rigid.apply(T_world_depth, p_depth), config)
    watch.lap("cropped")
    found = depth_of.view(frame.depth, optics, config.depth, within)
    p = rigid.apply(place, found.p_cam)
    normal = found.normal_cam @ rigid.matrix(place)[:3, :3].T
    watch.lap("surfaces")
    colour, coloured = depth_of.colours(found.p_cam, frame.colour, optics.colour)
    watch.lap("coloured")
    points = _Points(
        p, normal, found.sigma, colour, coloured, np.full(len(p), frame.camera, np.int64)
    )
    if config.hidden_radius > 0.0 and len(p):
        points = points.take(not_hidden(p, T_world_depth[4:], config.hidden_radius))
        watch.lap("hidden")
    # By camera: where four see the table, what two see of an object would count as lone.
    points = points.take(not_lone(points.p, config.neighbours, config.sigmas))
    watch.lap("outliers")
    return points


def _upstream_view(
    frame: Frame, optics: Optics, place: Float[np.ndarray, " 7"], config: CloudConfig, watch: _Watch
) -> _Points:
    """What the release's tools make of one camera; depth of more than 3 m is left out."""
    lens = optics.colour
    depth = realdex.registered(frame.depth, optics)
    watch.lap("registered")
    depth, colour = (
        undistortion.undistorted(x, lens, upstream_compatible=True) for x in (depth, frame.colour)
    )
    z = np.where(depth <= 1000.0 * _UPSTREAM_FAR, depth, 0) / 1000.0
    p_cam, seen = undistortion.pinhole(lens).back_project(z)
    watch.lap("undistorted")
    p = rigid.apply(place, p_cam)
    keep = _inside(p, config)
    p, shades = p[keep], colour[seen][keep]
    watch.lap("cropped")
    if len(p):
        kept = not_hidden(p, np.zeros(3), HIDDEN_RADIUS)
        p, shades = p[kept], shades[kept]
    watch.lap("hidden")
    count = len(p)
    normal = clouds.estimate_normals(p, place[4:]) if count else p
    watch.lap("normals")
    points = _Points(
        p, normal, np.ones(count), shades, np.ones(count, bool), np.full(count, frame.camera)
    )
    points = averaged(points, config.voxel)[0] if config.voxel > 0.0 else points
    watch.lap("merged")
    return points


def _seen_through(
    p_world: Float[np.ndarray, "n 3"],
    frame: Frame,
    optics: Optics,
    place: Float[np.ndarray, " 7"],
    config: CloudConfig,
) -> Bool[np.ndarray, " n"]:
    """Points before which a camera sees nothing, and something farther behind them."""
    to_depth = rigid.inverse(rigid.compose(place, optics.wxyz_xyz_colour_depth))
    p = rigid.apply(to_depth, p_world)
    lens = optics.depth
    before = p[:, 2] > 0.05
    at = np.rint(lens.project(np.where(before[:, None], p, [0.0, 0.0, 1.0]))).astype(np.int64)
    size = np.array([lens.width, lens.height])
    there = before & ((at >= 0) & (at < size)).all(axis=1)
    at = np.clip(at, 0, size - 1)
    # A pixel without a reading says nothing: its zero makes its neighbours say nothing either.
    nearest = ndimage.minimum_filter(frame.depth, 3, mode="constant") / 1000.0
    return there & (nearest[at[:, 1], at[:, 0]] > p[:, 2] + config.through)


def averaged(
    points: _Points, voxel: float
) -> tuple[_Points, Float[np.ndarray, " k"], Int[np.ndarray, " k"]]:
    """One point in each cell: the mean, weighed by what each is known to.

    Returns:
        Points, their standard deviations (m), and how many cameras each is of.
    """
    if not len(points.p):
        return points, points.sigma, points.camera
    cell = np.floor(points.p / voxel).astype(np.int64)
    cell -= cell.min(axis=0)
    span = cell.max(axis=0) + 1
    # Two sides of a thin part share no mean.
    # Which of two axes is larger changes on round surfaces: only opposite sides are told apart.
    axis = np.argmax(np.abs(points.normal), axis=1)[:, None]
    side = np.take_along_axis(points.normal, axis, axis=1)[:, 0] > 0.0
    key = ((cell[:, 0] * span[1] + cell[:, 1]) * span[2] + cell[:, 2]) * 2 + side
    _, first, group = np.unique(key, return_index=True, return_inverse=True)
    count = len(first)
    weight = 1.0 / points.sigma**2
    total = np.bincount(group, weight, count)

    def mean(values: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "k 3"]:
        each = [np.bincount(group, weight * v, count) for v in values.T]
        return np.stack(each, axis=1) / total[:, None]

    normal = mean(points.normal)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    # Colour of the point that is known best, of those that have one.
    order = np.lexsort((points.sigma, ~points.coloured, group))
    best = order[np.searchsorted(group[order], np.arange(count))]
    seen = np.unique(group * 64 + points.camera)
    cameras = np.bincount(seen // 64, minlength=count)
    sigma = 1.0 / np.sqrt(total)
    made = _Points(
        mean(points.p), normal, sigma, points.colour[best], points.coloured[best], cameras
    )
    return made, sigma, cameras


def blended(
    p: Float[np.ndarray, "n 3"],
    normal: Float[np.ndarray, "n 3"],
    sigma: Float[np.ndarray, " n"],
    reach: float,
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Points moved along their normals to the mean of their neighbours on the same surface.

    Where views overlap, and are a little off, this makes one surface of theirs.

    Args:
        p: Points, metres.
        normal: Their unit normals.
        sigma: Their standard deviations, metres.
        reach: Standard deviation of the weights over the distance, metres.

    Returns:
        Points and unit normals.
    """
    if len(p) <= _BLENDED:
        return p, normal
    apart, near = KDTree(p).query(p, k=_BLENDED)
    alike = np.einsum("ni,nki->nk", normal, normal[near])
    offset = p[near] - p[:, None]
    # Heights by the mean of both normals are exact on circles, too: round parts do not shrink.
    height = 0.5 * np.einsum("nki,nki->nk", offset, normal[:, None] + normal[near])
    weight = np.exp(-0.5 * (apart / reach) ** 2) / sigma[near] ** 2
    weight *= (alike > _ALIKE) & (np.abs(height) < reach)
    total = weight.sum(axis=1, keepdims=True)
    # A point is always its own neighbour, so the total is positive.
    moved = p + normal * (np.einsum("nk,nk->n", weight, height)[:, None] / total)
    turned = np.einsum("nk,nki->ni", weight, normal[near])
    return moved, turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-9)
