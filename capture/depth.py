"""What one camera's depth picture says of surfaces: oriented points, without those that fly.

Readings are put along the true rays of the depth lens, so nothing is resampled. On a plane 1/z is
linear in x/z and y/z whatever the lens does: a small window of the picture gives normal and depth
by three sums, without a search for neighbours.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, UInt8, UInt16
from scipy import ndimage

from capture.device import CaptureError, Optics
from realdex_jax.data import rigid
from realdex_jax.geometry.lens import Lens
from realdex_jax.geometry.view import DepthNoise

_LEAST_SHARE = 0.35
"""Share of a window that must have readings; along a straight outline it is half."""
_OFF = 4.0
"""Standard deviations of the noise by which a reading may be off its window's plane."""
_ROUGH = 2.0
"""Times the noise by which a window may be off its plane, and still be taken for one surface."""
_HIDDEN = 0.015
"""Metres by which a point behind another has another's colour."""


@dataclasses.dataclass(frozen=True)
class DepthConfig:
    """Which readings count."""

    far: float = 3.0
    """Readings beyond are left out, metres."""
    step: float = 0.012
    """Readings that differ by more from the next pixel's are on an edge, metres."""
    kept: int = 6
    """Of the eight pixels around one so many must be of its surface, or it may fly."""
    slant: float = 1.25
    """Largest angle between ray and normal, radians."""
    window: int = 5
    """Side of the window that gives normal and depth, pixels; odd."""
    smooth: bool = True
    """Take depth from the window's plane where the window is of one surface."""
    noise: DepthNoise = dataclasses.field(default_factory=DepthNoise)
    """Of the camera."""


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """Oriented points of one camera, row by row."""

    p_cam: Float[np.ndarray, "n 3"]
    """In the camera's frame (its colour lens's), metres."""
    normal_cam: Float[np.ndarray, "n 3"]
    """Unit normals toward the camera."""
    sigma: Float[np.ndarray, " n"]
    """Expected standard deviation along the normal, metres."""
    at: Bool[np.ndarray, "H W"]
    """The pixels of the depth picture that they are of."""


def view(
    depth: UInt16[np.ndarray, "H W"],
    optics: Optics,
    config: DepthConfig | None = None,
    within: Bool[np.ndarray, "H W"] | None = None,
) -> View:
    """The surfaces that a depth picture shows.

    Args:
        depth: Millimetres in the depth lens's picture, as the camera gave it.
        optics: The camera's lenses.
        config: Which readings count.
        within: Pixels that are wanted; all if None.

    Raises:
        CaptureError: A window of an even side, or a picture that is not the lens's.
    """
    config = config or DepthConfig()
    if config.window < 3 or config.window % 2 == 0:
        raise CaptureError(f"window of {config.window} pixels; must be odd, and 3 or more")
    if depth.shape != (optics.depth.height, optics.depth.width):
        raise CaptureError(
            f"depth of {depth.shape[1]} x {depth.shape[0]} pixels; the lens has "
            f"{optics.depth.width} x {optics.depth.height}"
        )
    z = np.where(depth <= 1000.0 * config.far, depth, 0) / 1000.0
    p, seen = optics.depth.back_project(z)
    flat = np.zeros((*depth.shape, 2))
    flat[seen] = p[:, :2] / p[:, 2:]
    z = np.where(seen, z, 0.0)
    wanted = seen if within is None else seen & within
    inside = _window_of(wanted, config.window)
    found = _fit(z[inside], flat[inside], config)
    at = np.zeros(depth.shape, bool)
    at[inside] = found.kept & wanted[inside]
    take = at[inside]
    p_depth = np.concatenate([flat[inside][take], np.ones((int(take.sum()), 1))], axis=1)
    p_depth *= found.z[take][:, None]
    R = rigid.matrix(optics.wxyz_xyz_colour_depth)[:3, :3]
    return View(
        rigid.apply(optics.wxyz_xyz_colour_depth, p_depth),
        found.normal[take] @ R.T,
        found.sigma[take],
        at,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Fit:
    z: Float[np.ndarray, "h w"]
    normal: Float[np.ndarray, "h w 3"]
    sigma: Float[np.ndarray, "h w"]
    kept: Bool[np.ndarray, "h w"]


def _window_of(wanted: Bool[np.ndarray, "H W"], margin: int) -> tuple[slice, slice]:
    """The part of the picture around the wanted pixels; the whole if there are none."""
    if not wanted.any():
        return slice(0, 1), slice(0, 1)
    bounds = [np.flatnonzero(wanted.any(axis=axis))[[0, -1]] for axis in (1, 0)]
    rows, columns = (slice(max(int(a) - margin, 0), int(b) + margin + 1) for a, b in bounds)
    return rows, columns


def _fit(
    z: Float[np.ndarray, "h w"], flat: Float[np.ndarray, "h w 2"], config: DepthConfig
) -> _Fit:
    """Planes through the windows of a picture."""
    solid = inner(z, config.step, config.kept)
    m = solid.astype(np.float64)
    x, y = flat[..., 0], flat[..., 1]
    w = np.where(solid, 1.0 / np.where(solid, z, 1.0), 0.0)

    def mean(values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
        return ndimage.uniform_filter(values * m, config.window, mode="constant")

    share = mean(np.ones_like(m))
    enough = solid & (share > _LEAST_SHARE)
    safe = np.where(enough, share, 1.0)
    mx, my, mw = (mean(v) / safe for v in (x, y, w))
    xx, xy, yy, xw, yw, ww = (
        mean(a * b) / safe - ma * mb
        for a, b, ma, mb in (
            (x, x, mx, mx),
            (x, y, mx, my),
            (y, y, my, my),
            (x, w, mx, mw),
            (y, w, my, mw),
            (w, w, mw, mw),
        )
    )
    det = xx * yy - xy * xy
    # The readings of a window must not be in a line.
    enough &= det > 1e-3 * (xx + yy) ** 2
    det = np.where(enough, det, 1.0)
    a, b = (yy * xw - xy * yw) / det, (xx * yw - xy * xw) / det
    fitted = mw + a * (x - mx) + b * (y - my)
    enough &= fitted > 0.0
    normal = -np.stack([a, b, mw - a * mx - b * my], axis=-1)
    length = np.linalg.norm(normal, axis=-1)
    normal /= np.where(enough, length, 1.0)[..., None]
    long = np.sqrt(x * x + y * y + 1.0)
    cosine = -(normal[..., 0] * x + normal[..., 1] * y + normal[..., 2]) / long
    cosine = np.clip(cosine, 0.05, 1.0)
    ray = z * long
    tangent = np.sqrt(1.0 / cosine**2 - 1.0)
    noise = np.hypot(
        config.noise.spread(ray.ravel()).reshape(ray.shape), ray * config.noise.lateral * tangent
    )
    # A millimetre is the step of the readings.
    noise = np.hypot(noise, 1e-3 / np.sqrt(12.0))
    z_fitted = 1.0 / np.where(enough, fitted, 1.0)
    scatter = np.sqrt(np.maximum(ww - a * xw - b * yw, 0.0)) * z * z
    even = enough & (scatter * long < _ROUGH * noise)
    kept = enough & (np.abs(z - z_fitted) * long < _OFF * noise)
    kept &= cosine > np.cos(config.slant)
    smooth = even & config.smooth
    count = np.where(smooth, np.maximum(safe * config.window**2, 1.0), 1.0)
    # At a window's middle the plane is known as well as the mean; off it somewhat worse.
    return _Fit(np.where(smooth, z_fitted, z), normal, noise * cosine / np.sqrt(count), kept)


def inner(z: Float[np.ndarray, "h w"], step: float, least: int = 6) -> Bool[np.ndarray, "h w"]:
    """Readings inside a surface: so many of the eight around them differ by a step at most.

    Args:
        z: Depth, metres; 0 without a reading.
        step: Metres.
        least: How many; along a straight outline it is five.
    """
    around = np.pad(z, 1)
    near = np.zeros(z.shape, np.int8)
    rows, columns = z.shape
    for i in range(3):
        for j in range(3):
            if (i, j) != (1, 1):
                near += np.abs(around[i : i + rows, j : j + columns] - z) <= step
    return (z > 0.0) & (near >= least)


def colours(
    p_cam: Float[np.ndarray, "n 3"], colour: UInt8[np.ndarray, "h w 3"], lens: Lens
) -> tuple[UInt8[np.ndarray, "n 3"], Bool[np.ndarray, " n"]]:
    """Depth to colour alignment: the colours of points that a depth lens saw.

    Args:
        p_cam: In the colour lens's frame, metres.
        colour: Its picture, distorted.
        lens: The colour lens.

    Returns:
        Colours, and which points the colour lens sees too: in its picture, and not behind others.
    """
    size = np.array([lens.width, lens.height])
    before = p_cam[:, 2] > 1e-3
    pixel = lens.project(np.where(before[:, None], p_cam, [0.0, 0.0, 1.0]))
    at = np.rint(pixel).astype(np.int64)
    seen = before & ((at >= 0) & (at < size)).all(axis=1)
    at = np.clip(at, 0, size - 1)
    # Cells about as large as the points are apart, and their neighbours, so that nothing shows
    # through between.
    cell = at // max(round(lens.width / 480), 1)
    rows, columns = (cell.max(axis=0) + 1)[::-1] if len(cell) else (1, 1)
    nearest = np.full((rows, columns), np.inf)
    np.minimum.at(nearest, (cell[seen, 1], cell[seen, 0]), p_cam[seen, 2])
    nearest = ndimage.minimum_filter(nearest, 3, mode="nearest")
    seen &= p_cam[:, 2] < nearest[cell[:, 1], cell[:, 0]] + _HIDDEN
    return colour[at[:, 1], at[:, 0]], seen
