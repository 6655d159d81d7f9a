"""Pictures and depth of a flat print, through a lens that bends: rays cast into one plane.

The print is a grid of square cells, each of one grey; every pixel is the mean of several rays, so
that edges lie where they are to a small fraction of a pixel. Board frame: origin in the middle of
the print, x to its right, y down, z into the paper.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage
from scipy.interpolate import RectBivariateSpline
from scipy.spatial.transform import Rotation

from realdex_jax.geometry.lens import Lens
from realdex_jax.geometry.view import DepthNoise
from sim import kinect
from sim.kinect import CameraError, DepthCamera

_RAYS = 4
"""Rays of a pixel in each direction."""
_STRIDE = 4
"""Pixels between those whose direction is computed; cubic splines give the others to 1e-6 pixel."""
_MARGIN = 6
"""Pixels around the print; blur reaches there."""
_NEAREST = 0.05
"""Prints nearer (m) than this to the camera's plane are not shown."""
_BACK = 120.0
"""Grey of the print's back."""


@dataclasses.dataclass(frozen=True)
class Exposure:
    """How a camera takes a picture."""

    black: float = 35.0
    """Grey level of ink."""
    white: float = 205.0
    """Grey level of paper."""
    blur: float = 0.7
    """Standard deviation of the lens's blur, pixels."""
    noise: float = 2.5
    """Standard deviation of a pixel, grey levels."""


def photograph(
    white: Bool[np.ndarray, "rows columns"],
    cell: float,
    lens: Lens,
    wxyz_xyz_cam_board: Float[np.ndarray, " 7"],
    rng: np.random.Generator,
    exposure: Exposure | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """A colour picture of the print before a plain wall.

    Args:
        white: The print's cells, ink where False.
        cell: Side of a cell, metres.
        lens: The camera's optics.
        wxyz_xyz_cam_board: T_cam_board: quaternion wxyz and position (m).
        rng: random numbers, of wall, light and noise.
        exposure: how the picture is taken.
    """
    exposure = exposure or Exposure()
    across, down = (np.linspace(0.0, 1.0, n, dtype=np.float32) for n in (lens.width, lens.height))
    (upper_left, upper_right), (lower_left, lower_right) = rng.uniform(60.0, 160.0, (2, 2))
    upper = np.float32(upper_left) + across * np.float32(upper_right - upper_left)
    lower = np.float32(lower_left) + across * np.float32(lower_right - lower_left)
    picture = upper + down[:, None] * (lower - upper)
    # Light falls off over the picture, on wall and print alike.
    fall = 1.0 - np.float32(rng.uniform(0.0, 0.12)) * down[:, None]
    box = _box(white.shape, cell, lens, wxyz_xyz_cam_board)
    if box is not None:
        left, top, right, bottom = box
        part = picture[top:bottom, left:right]
        seen, cover, _ = _cast(white, cell, lens, wxyz_xyz_cam_board, box, exposure)
        picture[top:bottom, left:right] = seen + (1.0 - cover) * part
        wide = _grown(box, lens)
        left, top, right, bottom = wide
        blurred = ndimage.gaussian_filter(picture[top:bottom, left:right], exposure.blur)
        picture[top:bottom, left:right] = blurred
    picture *= fall
    noise = rng.standard_normal(picture.shape, np.float32)
    noise *= np.float32(exposure.noise)
    picture += noise
    grey = np.clip(picture + np.float32(0.5), 0, 255, out=picture).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def depth(
    shape: tuple[int, int],
    cell: float,
    lens: Lens,
    wxyz_xyz_cam_board: Float[np.ndarray, " 7"],
    rng: np.random.Generator | None = None,
    noise: DepthNoise | None = None,
) -> Float[np.ndarray, "h w"]:
    """Depth along the optical axis (m) of the print alone; 0 where it is not seen.

    Args:
        shape: Rows and columns of the print's cells.
        cell: Side of a cell, metres.
        lens: The optics.
        wxyz_xyz_cam_board: T_cam_board.
        rng: random numbers; without them the depth has no fault.
        noise: the camera's faults; an Azure Kinect's if None.
    """
    picture = np.zeros((lens.height, lens.width))
    box = _box(shape, cell, lens, wxyz_xyz_cam_board)
    if box is None:
        return picture
    left, top, right, bottom = box
    z, hit, flat = _plane(shape, cell, _directions(lens, box, 1), wxyz_xyz_cam_board)[:3]
    stretch = np.sqrt(1.0 + (flat**2).sum(axis=-1))
    distance = np.where(hit, z * stretch, np.inf)
    if rng is not None:
        n_cam = Rotation.from_quat(wxyz_xyz_cam_board[:4], scalar_first=True).as_matrix()[:, 2]
        cosine = np.abs(flat @ n_cam[:2] + n_cam[2]) / stretch
        slant = np.where(hit, np.arccos(np.clip(cosine, 0.0, 1.0)), 0.0)
        distance = kinect.readings(distance, slant, rng, noise or DepthNoise())
    measured = np.where(np.isfinite(distance), distance, 0.0) / stretch
    ends = DepthCamera()
    kept = (measured >= ends.near) & (measured <= ends.far)
    picture[top:bottom, left:right] = np.where(kept, measured, 0.0)
    return picture


def _box(
    shape: tuple[int, int], cell: float, lens: Lens, wxyz_xyz_cam_board: Float[np.ndarray, " 7"]
) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of the part of the picture that the print can be in."""
    if not (np.isfinite(wxyz_xyz_cam_board).all() and cell > 0.0):
        raise CameraError(f"print with cells of {cell} m at {wxyz_xyz_cam_board.tolist()}")
    share = np.linspace(-0.5, 0.5, 9)
    edge = np.stack(np.meshgrid(share, share), axis=-1).reshape(-1, 2)
    p_board = np.concatenate(
        [edge * cell * np.array([shape[1], shape[0]]), np.zeros((len(edge), 1))], axis=1
    )
    R = Rotation.from_quat(wxyz_xyz_cam_board[:4], scalar_first=True)
    p_cam = R.apply(p_board) + wxyz_xyz_cam_board[4:]
    if p_cam[:, 2].min() < _NEAREST:
        return None
    pixels = lens.project(p_cam)
    low = np.floor(pixels.min(axis=0)).astype(int) - _MARGIN
    high = np.ceil(pixels.max(axis=0)).astype(int) + _MARGIN + 1
    left, top = np.clip(low, 0, [lens.width, lens.height]).tolist()
    right, bottom = np.clip(high, 0, [lens.width, lens.height]).tolist()
    return (left, top, right, bottom) if right > left and bottom > top else None


def _grown(box: tuple[int, int, int, int], lens: Lens) -> tuple[int, int, int, int]:
    left, top, right, bottom = box
    return (
        max(left - _MARGIN, 0),
        max(top - _MARGIN, 0),
        min(right + _MARGIN, lens.width),
        min(bottom + _MARGIN, lens.height),
    )


def _directions(
    lens: Lens, box: tuple[int, int, int, int], rays: int
) -> Float[np.ndarray, "h w 2"]:
    """Directions x/z, y/z of all rays of a part of the picture, `rays` x `rays` to a pixel."""
    left, top, right, bottom = box
    coarse_x = np.arange(left - _STRIDE, right + 2 * _STRIDE, _STRIDE, dtype=np.float64)
    coarse_y = np.arange(top - _STRIDE, bottom + 2 * _STRIDE, _STRIDE, dtype=np.float64)
    at = np.stack(np.meshgrid(coarse_x, coarse_y), axis=-1)
    flat = lens.undistort(at.reshape(-1, 2)).reshape(at.shape)
    inside = (np.arange(rays) + 0.5) / rays - 0.5
    fine_x = (np.arange(left, right)[:, None] + inside).ravel()
    fine_y = (np.arange(top, bottom)[:, None] + inside).ravel()
    if not np.isfinite(flat).all():
        # The picture reaches beyond what the lens shows: no smooth function there.
        fine = np.stack(np.meshgrid(fine_x, fine_y), axis=-1)
        return lens.undistort(fine.reshape(-1, 2)).reshape(fine.shape)
    return np.stack(
        [RectBivariateSpline(coarse_y, coarse_x, flat[..., k])(fine_y, fine_x) for k in range(2)],
        axis=-1,
    )


def _plane(
    shape: tuple[int, int],
    cell: float,
    flat: Float[np.ndarray, "h w 2"],
    wxyz_xyz_cam_board: Float[np.ndarray, " 7"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Depth (m) of rays, whether they meet the print, the rays, and where in it, in cells."""
    turn = Rotation.from_quat(wxyz_xyz_cam_board[:4], scalar_first=True)
    R = turn.as_matrix().astype(flat.dtype)
    p = wxyz_xyz_cam_board[4:].astype(flat.dtype)
    slope = flat @ R[:2, 2] + R[2, 2]
    z = np.divide(R[:, 2] @ p, slope, out=np.full_like(slope, -1.0), where=np.abs(slope) > 1e-9)
    # Rows of the board's axes: a point's coordinate along one is that axis times (point - p).
    at = (
        np.stack([z * (flat @ R[:2, k] + R[2, k]) - R[:, k] @ p for k in range(2)], axis=-1) / cell
        + np.array([shape[1], shape[0]]) / 2
    )
    inside = (at >= 0.0).all(axis=-1) & (at[..., 0] < shape[1]) & (at[..., 1] < shape[0])
    return z, inside & (z > 0.0), flat, at


def _cast(
    white: Bool[np.ndarray, "rows columns"],
    cell: float,
    lens: Lens,
    wxyz_xyz_cam_board: Float[np.ndarray, " 7"],
    box: tuple[int, int, int, int],
    exposure: Exposure,
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Grey of the print in each pixel, the share of the pixel it covers, and if it faces us."""
    # Single precision places a ray to 1e-5 of a cell.
    flat = _directions(lens, box, _RAYS).astype(np.float32)
    _, hit, _, at = _plane(white.shape, cell, flat, wxyz_xyz_cam_board)
    R = Rotation.from_quat(wxyz_xyz_cam_board[:4], scalar_first=True).as_matrix()
    facing = bool(R[:, 2] @ wxyz_xyz_cam_board[4:] > 0.0)
    grey = np.full(hit.shape, _BACK, np.float32)
    if facing:
        levels = np.where(white, exposure.white, exposure.black)
        column, row = at[hit].astype(np.int64).T
        grey[hit] = levels[row, column]
    grey[~hit] = 0.0
    rows, columns = (n // _RAYS for n in hit.shape)

    def mean(values: np.ndarray) -> np.ndarray:
        return values.reshape(rows, _RAYS, columns, _RAYS).mean(axis=(1, 3))

    return mean(grey), mean(hit.astype(np.float32)), facing
