"""The optics of a camera: where a point shows in its picture, and where a pixel's point may be.

Pictures are as the camera took them, distorted; nothing is resampled. Camera frame: x right, y
down, z forward, metres. Pixels are (column, row); whole numbers are middles of pixels.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Bool, Float

_ROUNDS = 30
"""Newton steps of the inverse; ten do inside the range of an Azure Kinect's lens."""
_EXACT = 1e-9
"""Residual (units of the focal length, a millionth of a pixel) at which the inverse is found."""
_EDGE = 4.0
"""A lens bends less than this: farther out (units of the focal length) nothing is looked for."""


@dataclasses.dataclass(frozen=True)
class Lens:
    """A pinhole with rational distortion, OpenCV's model of eight coefficients."""

    width: int
    """Columns of the picture."""
    height: int
    """Rows of the picture."""
    fx: float
    """Focal length over the width of a pixel."""
    fy: float
    """Focal length over the height of a pixel."""
    cx: float
    """Column of the optical axis."""
    cy: float
    """Row of the optical axis."""
    distortion: tuple[float, float, float, float, float, float, float, float] = (
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    )
    """k1 k2 p1 p2 k3 k4 k5 k6: radial 1 to 3 above the line, tangential, radial 4 to 6 below."""

    @property
    def K(self) -> Float[np.ndarray, "3 3"]:
        """The matrix of the pinhole."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def project(self, p_cam: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2"]:
        """Pixels of points before the camera.

        Args:
            p_cam: Points (m), z positive. Far outside of the picture the result means nothing:
                the polynomials of a lens fold back there.
        """
        flat = self.distort(p_cam[:, :2] / p_cam[:, 2:])
        return flat * [self.fx, self.fy] + [self.cx, self.cy]

    def distort(self, flat: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """Where the lens shows directions x/z, y/z; in units of the focal length."""
        return _distorted(self.distortion, flat)[0]

    def slopes(self, flat: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2 2"]:
        """Derivative of `distort`."""
        xx, xy, yx, yy = _distorted(self.distortion, np.asarray(flat, np.float64))[1]
        return np.stack([np.stack([xx, xy], axis=-1), np.stack([yx, yy], axis=-1)], axis=-2)

    def undistort(self, pixels: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """Directions x/z, y/z of pixels: `project` undone.

        Returns:
            NaN where no direction leads to the pixel.
        """
        shown = (np.asarray(pixels, np.float64) - [self.cx, self.cy]) / [self.fx, self.fy]
        if not any(self.distortion):
            return shown
        flat = shown.copy()
        found = np.zeros(len(flat), bool)
        left = np.arange(len(flat))
        for _ in range(_ROUNDS):
            value, J = _distorted(self.distortion, flat[left])
            error = value - shown[left]
            found[left] = np.abs(error).max(axis=1, initial=0.0) < _EXACT
            more = ~found[left]
            left, error = left[more], error[more]
            if not len(left):
                break
            flat[left] = _stepped(flat[left], error, tuple(j[more] for j in J))
        found &= np.abs(flat).max(axis=1, initial=0.0) < _EDGE
        # The polynomials fold; beyond the fold a second direction shows at the same pixel.
        _, (xx, xy, yx, yy) = _distorted(self.distortion, flat)
        found &= (xx * yy - xy * yx > 0.0) & (xx + yy > 0.0)
        return np.where(found[:, None], flat, np.nan)

    def rays(self, pixels: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 3"]:
        """Unit directions in the camera's frame through pixels; NaN where there is none."""
        flat = self.undistort(pixels)
        v_cam = np.concatenate([flat, np.ones((len(flat), 1))], axis=1)
        return v_cam / np.linalg.norm(v_cam, axis=1, keepdims=True)

    def directions(self) -> Float[np.ndarray, "h w 2"]:
        """Directions x/z, y/z of all pixels, NaN where there is none; kept, read-only."""
        return _directions(self)

    def back_project(
        self, depth: Float[np.ndarray, "h w"]
    ) -> tuple[Float[np.ndarray, "n 3"], Bool[np.ndarray, "h w"]]:
        """The points that a depth picture shows, row by row.

        Args:
            depth: Metres along the optical axis; zero and NaN where nothing was measured.

        Returns:
            Points in the camera frame (m), and which pixels they belong to.
        """
        flat = _directions(self)
        seen = (np.nan_to_num(depth) > 0.0) & np.isfinite(flat[..., 0])
        z = np.asarray(depth, np.float64)[seen][:, None]
        return np.concatenate([flat[seen] * z, z], axis=1), seen


def grid(width: int, height: int) -> Float[np.ndarray, "n 2"]:
    """Middles of all pixels (column, row), row by row."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack([columns, rows], axis=-1).reshape(-1, 2).astype(np.float64)


@functools.lru_cache(maxsize=8)
def _directions(lens: Lens) -> Float[np.ndarray, "h w 2"]:
    """Directions of all pixels; at 1920 x 1080 they take 33 MB, and a second to make."""
    flat = lens.undistort(grid(lens.width, lens.height))
    flat.setflags(write=False)
    return flat.reshape(lens.height, lens.width, 2)


def _distorted(
    coefficients: tuple[float, ...], flat: Float[np.ndarray, "n 2"]
) -> tuple[Float[np.ndarray, "n 2"], tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """The lens's map and its derivatives (dx/dx, dx/dy, dy/dx, dy/dy)."""
    k1, k2, p1, p2, k3, k4, k5, k6 = coefficients
    x, y = flat.T
    s = x * x + y * y
    above = 1.0 + s * (k1 + s * (k2 + s * k3))
    below = 1.0 + s * (k4 + s * (k5 + s * k6))
    radial = above / below
    slope = ((k1 + s * (2 * k2 + 3 * s * k3)) - radial * (k4 + s * (2 * k5 + 3 * s * k6))) / below
    value = np.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (s + 2 * x * x),
            y * radial + p1 * (s + 2 * y * y) + 2 * p2 * x * y,
        ],
        axis=1,
    )
    mixed = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
    xx = radial + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x
    yy = radial + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x
    return value, (xx, mixed, mixed, yy)


def _stepped(
    flat: Float[np.ndarray, "n 2"],
    error: Float[np.ndarray, "n 2"],
    J: tuple[np.ndarray, ...],
) -> Float[np.ndarray, "n 2"]:
    """One Newton step, no longer than half a focal length; none where the map is singular."""
    xx, xy, yx, yy = J
    det = xx * yy - xy * yx
    safe = np.where(np.abs(det) > 1e-12, det, np.inf)
    step = np.stack(
        [yy * error[:, 0] - xy * error[:, 1], xx * error[:, 1] - yx * error[:, 0]], axis=1
    )
    step = np.nan_to_num(step / safe[:, None])
    length = np.linalg.norm(step, axis=1, keepdims=True)
    return flat - step * np.minimum(1.0, 0.5 / np.maximum(length, 0.5))
