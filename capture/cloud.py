"""One cloud of one moment from the depth pictures of all cameras.

Every reading becomes a point where its own pixel looks; readings on edges and at grazing angles,
which fly or are mostly noise, are left out. In the world, the readings of all cameras are averaged
cell by cell, each by how well it is known, and moved along the normal to the surface around them.
`upstream_compatible` is RealDex's own way instead, with its faults.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8, UInt16
from scipy import ndimage
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from capture import realdex, undistortion
from capture.device import CaptureError, Optics
from realdex_jax.data import rigid
from realdex_jax.geometry import outliers
from realdex_jax.geometry.view import DepthNoise

Box = tuple[tuple[float, float, float], tuple[float, float, float]]

UPSTREAM_BOX: Box = ((-0.3, -0.6, 0.5), (2.0, 0.5, 1.4))
"""What RealDex's program keeps of a camera's cloud; its world is the arm's base."""
_UPSTREAM_RADIUS = 1e4
_ROUNDING = 0.001 / 12**0.5
"""Standard deviation of a depth in whole millimetres, metres."""
_WINDOW = 5
"""Pixels along the side of the square that a reading's normal is taken from."""
_ALIKE = 0.7
"""Cosine of normals above which two points are of one side of a surface."""


@dataclasses.dataclass(frozen=True)
class CloudConfig:
    """How a cloud is made."""

    box: Box | None = None
    """Least and largest x, y, z of the world that are kept, metres; None is all."""
    slant_deg: float = 72.0
    """Angle between ray and normal above which readings are left out."""
    sigmas: float = 4.0
    """A reading is on an edge if a neighbour's depth differs by more than a surface at that angle
    explains, and so many standard deviations of the noise."""
    hidden: bool = False
    """Whether points hidden from their camera are removed; what a camera measures it sees, so only
    readings that fly behind a surface can be."""
    voxel: float = 0.002
    """Cells that readings are averaged in, metres."""
    neighbours: int = 20
    """Of statistical outlier removal; 0 leaves it out."""
    neighbour_sigmas: float = 2.0
    """Of statistical outlier removal."""
    radius: float = 0.01
    """Of radius outlier removal, metres; 0 leaves it out."""
    least: int = 5
    """Points within the radius without which a point goes."""
    smooth: float = 0.006
    """Radius within which a point is moved to the surface about it, metres; 0 leaves it out."""
    noise: DepthNoise = DepthNoise()
    """What is known of the cameras' noise; readings are weighed by it."""
    upstream_compatible: bool = False
    """RealDex's own way: depth registered to colour, the shifted optical axis, hidden points
    removed as seen from the world's origin, plain means of cells, statistical removal."""


@dataclasses.dataclass(frozen=True, eq=False)
class Cloud:
    """The points of one moment, in the world."""

    points: Float[np.ndarray, "n 3"]
    """Metres."""
    normals: Float[np.ndarray, "n 3"]
    """Unit normals, on the side that was seen."""
    spread: Float[np.ndarray, " n"]
    """Standard deviation along the normal by the noise alone, metres."""
    cameras: Int[np.ndarray, " n"]
    """Bit c is set where camera c saw it."""
    colours: UInt8[np.ndarray, "n 3"] | None
    """RGB, where pictures were given."""
    seconds: Mapping[str, float]
    """Time of each stage."""
    counts: Mapping[str, int]
    """Points after each stage."""

    def __getitem__(self, kept: Bool[np.ndarray, " n"]) -> Cloud:
        """Those points only."""
        colours = None if self.colours is None else self.colours[kept]
        return dataclasses.replace(
            self,
            points=self.points[kept],
            normals=self.normals[kept],
            spread=self.spread[kept],
            cameras=self.cameras[kept],
            colours=colours,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Readings:
    """Points of one camera that are good enough, in some frame."""

    points: Float[np.ndarray, "n 3"]
    """Metres."""
    normals: Float[np.ndarray, "n 3"]
    """Unit normals, toward the camera."""
    spread: Float[np.ndarray, " n"]
    """Standard deviation along the normal, metres."""
    pixels: Int[np.ndarray, "n 2"]
    """Column and row in the depth picture."""

    def __getitem__(self, kept: Bool[np.ndarray, " n"]) -> Readings:
        """Those readings only."""
        return Readings(self.points[kept], self.normals[kept], self.spread[kept], self.pixels[kept])

    def moved(self, wxyz_xyz_a_b: Float[np.ndarray, " 7"]) -> Readings:
        """In frame a what was in frame b."""
        R = Rotation.from_quat(wxyz_xyz_a_b[:4], scalar_first=True).as_matrix()
        points, normals = self.points @ R.T + wxyz_xyz_a_b[4:], self.normals @ R.T
        return dataclasses.replace(self, points=points, normals=normals)


class _Stages:
    """Times and counts of the stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def count(self, name: str, points: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + points


def cloud(
    depth: Mapping[int, UInt16[np.ndarray, "_ _"]],
    optics: Mapping[int, Optics],
    wxyz_xyz_world_cam: Mapping[int, Float[np.ndarray, " 7"]],
    config: CloudConfig | None = None,
    *,
    colour: Mapping[int, UInt8[np.ndarray, "_ _ 3"]] | None = None,
) -> Cloud:
    """The cloud of one moment.

    Args:
        depth: Depth pictures by camera, millimetres, as its depth lens shows them.
        optics: Lenses of the cameras.
        wxyz_xyz_world_cam: T_world_cam of their colour lenses, as calibration has them.
        config: How; the defaults if None.
        colour: Colour pictures by camera, if points are to have colours.

    Raises:
        CaptureError: There is no picture, or a camera has no lenses or no place.
    """
    config, stages = config or CloudConfig(), _Stages()
    numbers = sorted(depth)
    lost = [c for c in numbers if c not in optics or c not in wxyz_xyz_world_cam]
    if not numbers or lost:
        raise CaptureError(
            f"depth of cameras {numbers}, without lenses or place {lost}; there must be one "
            "camera at least, and each must have both"
        )
    if config.upstream_compatible:
        return _upstream(depth, optics, wxyz_xyz_world_cam, config, stages)
    seen = {}
    for c in numbers:
        T_world_depth = rigid.compose(wxyz_xyz_world_cam[c], optics[c].wxyz_xyz_colour_depth)
        one = _readings(depth[c], optics[c], config, stages).moved(T_world_depth)
        with stages("crop"):
            one = one[_inside(one.points, config.box)]
        stages.count("crop", len(one.points))
        if config.hidden:
            with stages("hidden points"):
                far = _UPSTREAM_RADIUS * np.linalg.norm(one.points - T_world_depth[4:], axis=1)
                kept = outliers.not_hidden(one.points, T_world_depth[4:], float(far.max()))
                one = one[kept]
            stages.count("hidden points", len(one.points))
        seen[c] = one
    pictures = None
    if colour is not None:
        with stages("colour"):
            pictures = {
                c: colours(seen[c].points, optics[c], wxyz_xyz_world_cam[c], colour[c])
                for c in numbers
            }
    with stages("merge"):
        made = merged(seen, config.voxel, pictures)
    stages.count("merge", len(made.points))
    if config.neighbours:
        with stages("statistical outliers"):
            made = made[outliers.not_lone(made.points, config.neighbours, config.neighbour_sigmas)]
        stages.count("statistical outliers", len(made.points))
    if config.radius:
        with stages("radius outliers"):
            made = made[outliers.not_sparse(made.points, config.radius, config.least)]
        stages.count("radius outliers", len(made.points))
    if config.smooth and len(made.points):
        with stages("smooth"):
            made = smoothed(made, config.smooth)
    return dataclasses.replace(made, seconds=stages.seconds, counts=stages.counts)


def readings(
    depth: UInt16[np.ndarray, "h w"], optics: Optics, config: CloudConfig | None = None
) -> Readings:
    """The good points of one camera, in the frame of its depth lens.

    Args:
        depth: Millimetres, as the depth lens shows it.
        optics: The camera's lenses.
        config: How; the defaults if None.

    Raises:
        CaptureError: The picture is not the lens's.
    """
    return _readings(depth, optics, config or CloudConfig(), _Stages())


def merged(
    seen: Mapping[int, Readings],
    voxel: float,
    pictures: Mapping[int, UInt8[np.ndarray, "_ 3"]] | None = None,
) -> Cloud:
    """Means of the readings in each cell and of each side, weighed by how well they are known.

    Args:
        seen: Readings of each camera, in one frame.
        voxel: Side of a cell, metres.
        pictures: Their colours.

    Raises:
        CaptureError: A cell without a size.
    """
    if not voxel > 0:
        raise CaptureError(f"cells of {voxel} m; must be positive")
    numbers = sorted(seen)
    points = np.concatenate([seen[c].points for c in numbers])
    normals = np.concatenate([seen[c].normals for c in numbers])
    weight = np.concatenate([seen[c].spread for c in numbers]) ** -2.0
    bit = np.repeat([1 << c for c in numbers], [len(seen[c].points) for c in numbers])
    # Sides of a thin thing are no one surface.
    side = np.argmax(np.concatenate([normals, -normals], axis=1), axis=1)
    cell = np.floor(points / voxel).astype(np.int64)
    cell -= cell.min(axis=0, initial=0)
    size = cell.max(axis=0, initial=0) + 1
    key = ((cell[:, 0] * size[1] + cell[:, 1]) * size[2] + cell[:, 2]) * 6 + side
    _, at = np.unique(key, return_inverse=True)
    count = int(at.max(initial=-1)) + 1
    total = np.bincount(at, weight, count)

    def mean(x: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(at, weight * c, count) for c in x.T], axis=1) / total[:, None]

    normal = mean(normals)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    cameras = np.zeros(count, np.int64)
    np.bitwise_or.at(cameras, at, bit)
    colour = None
    if pictures is not None:
        colour = mean(np.concatenate([pictures[c] for c in numbers])).astype(np.uint8)
    return Cloud(mean(points), normal, total**-0.5, cameras, colour, {}, {})


def smoothed(made: Cloud, radius: float, neighbours: int = 20) -> Cloud:
    """Points moved along their normals to the surface around them, and better normals.

    Neighbours of the same side count by how near and how well known they are; the height of the
    plane through them at the point is where it goes. Points never move along the surface, so that
    edges stay where they are seen.

    Args:
        made: The cloud.
        radius: Within which points count, metres.
        neighbours: Most that count.
    """
    # Single precision from here on: offsets are millimetres, and memory is what takes the time.
    count = min(neighbours, len(made.points))
    apart, near = KDTree(made.points).query(made.points, k=[*range(1, count + 1)], workers=-1)
    near_by = apart < radius
    side, spread = made.normals.astype(np.float32), made.spread.astype(np.float32)
    alike = np.einsum("nki,ni->nk", side[near], side) > _ALIKE
    offset = (made.points[near] - made.points[:, None]).astype(np.float32)
    weight = np.where(near_by & alike, np.exp(-4.5 * (apart / radius) ** 2), 0.0)
    weight = (weight * spread[near] ** -2.0).astype(np.float32)
    weight /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-12)
    middle = np.einsum("nk,nki->ni", weight, offset)
    offset -= middle[:, None]
    covariance = np.einsum("nki,nkj->nij", weight[..., None] * offset, offset)
    value, vector = np.linalg.eigh(covariance)
    normal = vector[:, :, 0].astype(np.float64)
    # Of two points or of a line no plane is known: what the camera saw stays.
    flat = (value[:, 1] > 4.0 * value[:, 0]) & ((weight > 0).sum(axis=1) >= 6)
    normal = np.where(flat[:, None], normal, made.normals)
    facing = np.einsum("ni,ni->n", normal, made.normals)
    normal = np.where((facing < 0.0)[:, None], -normal, normal)
    height = np.einsum("ni,ni->n", middle, normal)
    variance = ((weight * spread[near]) ** 2).sum(axis=1, dtype=np.float64)
    return dataclasses.replace(
        made,
        points=made.points + height[:, None] * normal,
        normals=normal,
        spread=np.sqrt(np.maximum(variance, 1e-12)),
    )


def colours(
    p_world: Float[np.ndarray, "n 3"],
    optics: Optics,
    wxyz_xyz_world_cam: Float[np.ndarray, " 7"],
    picture: UInt8[np.ndarray, "h w 3"],
) -> UInt8[np.ndarray, "n 3"]:
    """Colours of points in a camera's picture; black outside of it.

    The colour lens is 3 cm beside the depth lens: right at an edge it may see what is in front.

    Args:
        p_world: Points before the camera, metres.
        optics: Its lenses.
        wxyz_xyz_world_cam: T_world_cam.
        picture: RGB as the colour lens shows it.
    """
    p_cam = rigid.apply(rigid.inverse(wxyz_xyz_world_cam), p_world)
    lens = optics.colour
    pixel = np.rint(lens.project(p_cam)).astype(np.int64)
    inside = ((pixel >= 0) & (pixel < [lens.width, lens.height])).all(axis=1)
    column, row = np.where(inside[:, None], pixel, 0).T
    return np.where(inside[:, None], picture[row, column], 0).astype(np.uint8)


def _readings(
    depth: UInt16[np.ndarray, "h w"], optics: Optics, config: CloudConfig, stages: _Stages
) -> Readings:
    lens, noise = optics.depth, config.noise
    if depth.shape != (lens.height, lens.width):
        raise CaptureError(
            f"a depth picture of {depth.shape[1]} x {depth.shape[0]} pixels; its lens has "
            f"{lens.width} x {lens.height}"
        )
    with stages("undistortion"):
        z = depth / 1000.0
        p, seen = lens.back_project(z)
        grid = np.full((*depth.shape, 3), np.nan)
        grid[seen] = p
    stages.count("undistortion", len(p))
    with stages("edges"):
        # The focal length is the picture's; a lens that distorts changes it by a tenth or so.
        slope = np.tan(np.deg2rad(config.slant_deg)) / min(lens.fx, lens.fy)
        step = z * slope + config.sigmas * np.hypot(noise.spread(z.ravel()), _ROUNDING).reshape(
            z.shape
        )
        seen = seen & ~_edges(np.where(seen, z, np.nan), step)
    stages.count("edges", int(seen.sum()))
    with stages("slants"):
        normal = _normals(np.where(seen[..., None], grid, 0.0), seen)
        row, column = np.nonzero(seen)
        p, n = grid[row, column], normal[row, column]
        reach = np.linalg.norm(p, axis=1)
        cosine = -np.einsum("ni,ni->n", p, n) / reach
        kept = cosine > np.cos(np.deg2rad(config.slant_deg))
        p, n, reach, cosine = p[kept], n[kept], reach[kept], cosine[kept]
        # Along the normal noise of the ray counts by the cosine, a ray astray by the sine.
        along = np.hypot(noise.spread(reach), _ROUNDING) * cosine
        across = noise.lateral * reach * np.sqrt(np.maximum(1.0 - cosine**2, 0.0))
    stages.count("slants", len(p))
    pixels = np.stack([column[kept], row[kept]], axis=1)
    return Readings(p, n, np.maximum(np.hypot(along, across), 1e-5), pixels)


def _edges(z: Float[np.ndarray, "h w"], step: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels with a neighbour (of four) whose depth differs by more than `step`."""
    edge = np.zeros(z.shape, bool)
    for axis in (0, 1):
        jump = np.abs(np.diff(z, axis=axis))
        bound = np.moveaxis(step, axis, 0)
        far = np.moveaxis(jump, axis, 0) > np.maximum(bound[1:], bound[:-1])
        view = np.moveaxis(edge, axis, 0)
        view[1:] |= far
        view[:-1] |= far
    return edge


def _normals(
    grid: Float[np.ndarray, "h w 3"], seen: Bool[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w 3"]:
    """Unit normals toward the camera, of planes z = a x + b y + c about each pixel.

    Fitted in inverse depth over x/z and y/z, where planes are planes and the pixels' places have no
    noise. Zero where the readings about a pixel are in no plane.
    """
    z = np.where(seen, grid[..., 2], 1.0)
    w = seen.astype(np.float64)
    x, y, d = grid[..., 0] / z, grid[..., 1] / z, w / z

    def total(a: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(a * w, _WINDOW, mode="constant")

    n = total(np.ones_like(w))
    safe = np.maximum(n, 1e-12)
    mx, my, md = total(x) / safe, total(y) / safe, total(d) / safe
    xx, yy = total(x * x) / safe - mx * mx, total(y * y) / safe - my * my
    xy = total(x * y) / safe - mx * my
    xd, yd = total(x * d) / safe - mx * md, total(y * d) / safe - my * md
    det = xx * yy - xy * xy
    good = seen & (n * _WINDOW**2 > 5.5) & (det > 1e-16)
    det = np.where(good, det, 1.0)
    a, b = (yy * xd - xy * yd) / det, (xx * yd - xy * xd) / det
    # a X/Z + b Y/Z + c = 1/Z is the plane a X + b Y + c Z = 1: (a, b, c) points away.
    normal = -np.stack([a, b, md - a * mx - b * my], axis=-1)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    return np.where(good[..., None], normal / np.maximum(length, 1e-12), 0.0)


def _inside(points: Float[np.ndarray, "n 3"], box: Box | None) -> Bool[np.ndarray, " n"]:
    if box is None:
        return np.ones(len(points), bool)
    return ((points >= box[0]) & (points <= box[1])).all(axis=1)


def _upstream(
    depth: Mapping[int, UInt16[np.ndarray, "_ _"]],
    optics: Mapping[int, Optics],
    wxyz_xyz_world_cam: Mapping[int, Float[np.ndarray, " 7"]],
    config: CloudConfig,
    stages: _Stages,
) -> Cloud:
    seen: dict[int, Readings] = {}
    for c in sorted(depth):
        with stages("registration"):
            registered = realdex.registered(depth[c], optics[c]) / 1000.0
        with stages("undistortion"):
            p = undistortion.upstream_points(registered, optics[c].colour)
            p = rigid.apply(wxyz_xyz_world_cam[c], p)
        with stages("crop"):
            p = p[_inside(p, config.box)]
        stages.count("crop", len(p))
        with stages("hidden points"):
            p = p[outliers.not_hidden(p, np.zeros(3), _UPSTREAM_RADIUS)]
        stages.count("hidden points", len(p))
        up = np.zeros_like(p)
        up[:, 2] = 1.0  # one side: cells are plain
        seen[c] = Readings(p, up, np.ones(len(p)), np.zeros((len(p), 2), np.int64))
    with stages("merge"):
        made = merged(seen, config.voxel)
    stages.count("merge", len(made.points))
    with stages("statistical outliers"):
        kept = outliers.not_lone(made.points, config.neighbours or 20, config.neighbour_sigmas)
        made = made[kept]
    stages.count("statistical outliers", len(made.points))
    return dataclasses.replace(made, seconds=stages.seconds, counts=stages.counts)
