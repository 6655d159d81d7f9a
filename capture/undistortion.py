"""Pictures as a pinhole without distortion would have taken them.

Clouds do not need them: `Lens.back_project` has a direction for every pixel as it is. RealDex's
pictures were undistorted first, and wrongly, which can be done here too, for comparison.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Int, Shaped

from capture.device import CaptureError
from realdex_jax.geometry import lens as optics
from realdex_jax.geometry.lens import Lens


def pinhole(lens: Lens, *, upstream_compatible: bool = False) -> Lens:
    """The pinhole that `undistorted` pictures are of.

    Args:
        lens: The lens.
        upstream_compatible: With the optical axis in the middle of the picture, as OpenCV puts it
            if it is not told otherwise. RealDex's program was not, and went on with the old axis:
            at 1 m its points are 6 to 13 mm too low, and up to 5 mm aside.
    """
    if not upstream_compatible:
        return dataclasses.replace(lens, distortion=(0.0,) * 8)
    cx, cy = (lens.width - 1) / 2, (lens.height - 1) / 2
    return dataclasses.replace(lens, cx=cx, cy=cy, distortion=(0.0,) * 8)


def undistorted(
    picture: Shaped[np.ndarray, "h w *c"], lens: Lens, *, upstream_compatible: bool = False
) -> Shaped[np.ndarray, "h w *c"]:
    """A picture without distortion; each pixel is the nearest one of the old, or 0.

    Args:
        picture: As the lens shows it: depth or colour.
        lens: The lens.
        upstream_compatible: As of `pinhole`.

    Raises:
        CaptureError: The picture is not the lens's.
    """
    if picture.shape[:2] != (lens.height, lens.width):
        raise CaptureError(
            f"a picture of {picture.shape[1]} x {picture.shape[0]} pixels; its lens has "
            f"{lens.width} x {lens.height}"
        )
    source = _sources(lens, upstream_compatible)
    flat = picture.reshape(-1, *picture.shape[2:])
    made = np.where((source >= 0).reshape(-1, *[1] * (flat.ndim - 1)), flat[source], 0)
    return made.astype(picture.dtype).reshape(picture.shape)


@functools.lru_cache(maxsize=8)
def _sources(lens: Lens, upstream_compatible: bool) -> Int[np.ndarray, " n"]:
    """For each new pixel the flat index of the old one that it is taken from; -1 for none."""
    straight = pinhole(lens, upstream_compatible=upstream_compatible)
    flat = straight.undistort(optics.grid(lens.width, lens.height))
    at = lens.distort(flat) * [lens.fx, lens.fy] + [lens.cx, lens.cy]
    at = np.rint(at).astype(np.int64)
    inside = ((at >= 0) & (at < [lens.width, lens.height])).all(axis=1)
    return np.where(inside, at[:, 1] * lens.width + at[:, 0], -1)
