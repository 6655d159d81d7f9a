"""The two lenses of a virtual Azure Kinect, which distort as the released calibration's do.

Every camera differs a little from the next: focal length, optical axis, distortion, and where the
depth lens is. The figures are near those of real devices, and of none.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from realdex_jax.geometry.lens import Lens
from sim.kinect import CameraError

FULL_COLOUR, FULL_DEPTH = (1920, 1080), (640, 576)
"""Columns and rows at which the figures below are meant."""
_COLOUR_FOCAL, _DEPTH_FOCAL = 911.0, 504.0
_BELOW = ((0.45, 0.15), (-2.60, 0.12), (-0.60, 0.05))
"""Colour lens: middle and spread of k4, k5 and of the sum of k4, k5, k6. The sum holds the lens
together: three figures drawn apart would fold it inside the picture."""
_ABOVE = ((0.121, 0.003), (-0.173, 0.012), (0.018, 0.003))
"""The same of k1 - k4, k2 - k5, k3 - k6: what is left of the lens where the two cancel."""
_DEPTH_BELOW = ((5.60, 0.10), (5.10, 0.15), (11.65, 0.05))
_DEPTH_ABOVE = ((-0.335, 0.003), (-1.64, 0.03), (-2.745, 0.02))
_P_COLOUR_DEPTH = (-0.032, -0.002, 0.004)
_TILT = np.deg2rad(-6.0)
"""The depth lens looks down a little, about the picture's x axis."""


@dataclasses.dataclass(frozen=True, eq=False)
class Lenses:
    """Colour and depth lens of one camera, and where the depth lens is."""

    colour: Lens
    depth: Lens
    wxyz_xyz_colour_depth: Float[np.ndarray, " 7"]
    """T_colour_depth: quaternion wxyz and position (m)."""


def draw(camera: int, seed: int, width: int = 1920, depth_width: int = 640) -> Lenses:
    """The lenses of a camera.

    Args:
        camera: Its number.
        seed: Of the rig.
        width: Columns of its colour picture, of 16 to 9; whatever they are, it sees the same.
        depth_width: Columns of its depth picture, of 10 to 9.

    Raises:
        CameraError: Pictures whose sides are no whole numbers, or that are narrower than 64.
    """
    for what, columns, unit in (("colour", width, 16), ("depth", depth_width, 10)):
        if columns % unit or columns < 64:
            raise CameraError(
                f"{what} pictures {columns} wide; must be a multiple of {unit}, 64 or more"
            )
    rng = np.random.default_rng([seed, camera])
    colour = Lens(
        *FULL_COLOUR,
        *_focal(rng, _COLOUR_FOCAL, 3.0),
        959.5 + float(rng.normal(0.0, 2.5)),
        549.0 + float(rng.normal(0.0, 3.0)),
        _distortion(rng, _ABOVE, _BELOW, 8e-4),
    )
    depth = Lens(
        *FULL_DEPTH,
        *_focal(rng, _DEPTH_FOCAL, 0.7),
        320.0 + float(rng.normal(0.0, 2.0)),
        331.5 + float(rng.normal(0.0, 2.0)),
        _distortion(rng, _DEPTH_ABOVE, _DEPTH_BELOW, 5e-5),
    )
    turn = Rotation.from_rotvec([_TILT, 0, 0]) * Rotation.from_rotvec(rng.normal(0, 3e-3, 3))
    p = np.array(_P_COLOUR_DEPTH) + rng.normal(0.0, 2e-4, 3)
    pose = np.concatenate([turn.as_quat(scalar_first=True), p])
    return Lenses(scaled(colour, width), scaled(depth, depth_width), pose)


def scaled(lens: Lens, width: int) -> Lens:
    """The same lens before a picture of another width: it sees the same."""
    s = width / lens.width
    return Lens(
        width,
        round(lens.height * s),
        lens.fx * s,
        lens.fy * s,
        (lens.cx + 0.5) * s - 0.5,
        (lens.cy + 0.5) * s - 0.5,
        lens.distortion,
    )


def _focal(rng: np.random.Generator, middle: float, spread: float) -> tuple[float, float]:
    fx = middle + float(rng.normal(0.0, spread))
    return fx, fx - float(rng.uniform(0.0, 5e-4)) * middle


def _distortion(
    rng: np.random.Generator,
    above: tuple[tuple[float, float], ...],
    below: tuple[tuple[float, float], ...],
    tangential: float,
) -> tuple[float, float, float, float, float, float, float, float]:
    """Coefficients k1 k2 p1 p2 k3 k4 k5 k6."""
    k4, k5, sum_below = (float(rng.uniform(m - s, m + s)) for m, s in below)
    d1, d2, sum_above = (float(rng.uniform(m - s, m + s)) for m, s in above)
    k6, d3 = sum_below - k4 - k5, sum_above - d1 - d2
    p1, p2 = rng.uniform(-tangential, tangential, 2).tolist()
    return k4 + d1, k5 + d2, p1, p2, k6 + d3, k4, k5, k6
