"""Depth pictures of planes and balls by closed forms, through lenses that distort."""

import numpy as np
from jaxtyping import Float

from capture import virtual
from capture.device import Frame, Optics
from realdex_jax.data import rigid
from sim import film


def rig(seed: int = 0, depth_width: int = 160) -> tuple[dict[int, Optics], dict[int, np.ndarray]]:
    """Lenses and places of four cameras around a table; colour of 160 columns."""
    made = film.around_table(seed, 160, depth_width)
    optics = {c: virtual.optics_of(pair) for c, pair in enumerate(made.lenses)}
    return optics, {c: np.asarray(place) for c, place in enumerate(made.wxyz_xyz_world_cam)}


def depth_picture(
    optics: Optics, wxyz_xyz_world_cam: np.ndarray, balls: tuple = (), table: float = 0.0
) -> Float[np.ndarray, "H W"]:
    """Metres along the depth lens's axis: a table, and balls as (x, y, z, radius) in the world."""
    T = rigid.matrix(rigid.compose(wxyz_xyz_world_cam, optics.wxyz_xyz_colour_depth))
    flat = optics.depth.directions().reshape(-1, 2)
    ray = np.concatenate([flat, np.ones((len(flat), 1))], axis=1) @ T[:3, :3].T
    with np.errstate(divide="ignore"):
        z = (table - T[2, 3]) / ray[:, 2]
    z = np.where((z > 0) & np.isfinite(z), z, np.inf)
    for *middle, radius in balls:
        away = np.array(middle) - T[:3, 3]
        a, b = (ray**2).sum(1), ray @ away
        inside = b**2 - a * (away @ away - radius**2)
        hit = (b - np.sqrt(np.maximum(inside, 0.0))) / a
        z = np.where((inside > 0) & (hit > 0), np.minimum(z, hit), z)
    return np.where(np.isfinite(z), z, 0.0).reshape(optics.depth.height, optics.depth.width)


def frame(camera: int, optics: Optics, depth: np.ndarray) -> Frame:
    """A frame with that depth (m), and colour that tells camera and column."""
    colour = np.zeros((optics.colour.height, optics.colour.width, 3), np.uint8)
    colour[..., 0] = 50 * (camera + 1)
    colour[..., 1] = np.arange(optics.colour.width)[None] % 256
    return Frame(camera, 0, 0, 0, colour, np.rint(1000.0 * depth).astype(np.uint16))
