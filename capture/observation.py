"""One moment as the tracker takes it: points about the object, and how far the cameras see.

Made of depth pictures, with as many points and cells at every moment, so that what follows is
compiled once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from capture.device import CaptureError
from realdex_jax import pytree
from realdex_jax.data import rigid
from realdex_jax.geometry.lens import Lens
from realdex_jax.hand import collision, kinematics
from realdex_jax.hand.load import HandModel

HAND_MARGIN = 0.008
"""Points nearer (m) than this to the hand's primitives count as the hand's: the primitives stay
within a few millimetres of its meshes, depth is off by one, and edges fly."""
TABLE_MARGIN = 0.005
"""Points lower (m) than this above the table count as the table's."""
_CELL = 4
"""Pixels of depth along the side of a cell of `Observation.nearest`."""
_STEP = 64
"""Cells by which pictures are filled up."""


@pytree.dataclass
class Observation:
    """What c cameras see about the object, in the world."""

    p_world: Float[Array, "n 3"]
    """Points, metres, in no order."""
    v_world: Float[Array, "n 3"]
    """Unit directions from them to the cameras that saw them."""
    free: Bool[Array, " n"]
    """Whether they may be of the object: there at all, and not the hand's."""
    nearest: Float[Array, "c h w"]
    """Least depth in and about each cell of the pictures, metres; 0 where nothing is known."""
    optics: Float[Array, "c 12"]
    """fx, fy, cx, cy in cells, and the eight coefficients of distortion."""
    R_world_cam: Float[Array, "c 3 3"]
    """Orientations of the lenses."""
    p_world_cam: Float[Array, "c 3"]
    """Places of the lenses, metres."""


def observe(
    depths: Mapping[int, Float[np.ndarray, "_ _"]],
    lenses: Mapping[int, Lens],
    wxyz_xyz_world_cam: Mapping[int, Float[np.ndarray, " 7"]],
    p_world_middle: Float[np.ndarray, " 3"],
    radius: float,
    *,
    table_z: float | None = None,
    count: int = 4096,
    seed: int = 0,
) -> Observation:
    """The points of depth pictures in a ball.

    Args:
        depths: Depth pictures of one moment by camera, metres along the axis, 0 without a reading;
            a camera that is missing saw nothing.
        lenses: Optics of all cameras.
        wxyz_xyz_world_cam: T_world_cam of each lens.
        p_world_middle: Middle of the ball: about where the object is, metres.
        radius: Of the ball, metres.
        table_z: Height of the table, metres, whose points are left out; None if there is none.
        count: How many points; drawn from those there are, and padded where there are fewer.
        seed: Of the draw.

    Raises:
        CaptureError: A camera has no place, or a picture is not its lens's.
    """
    cameras = sorted(lenses)
    if lost := [c for c in cameras if c not in wxyz_xyz_world_cam]:
        raise CaptureError(f"cameras {lost} have no place; each of {cameras} needs one")
    rng = np.random.default_rng(seed)
    points, ways, grids = [], [], []
    for c in cameras:
        T, lens, depth = wxyz_xyz_world_cam[c], lenses[c], depths.get(c)
        if depth is None:
            depth = np.zeros((lens.height, lens.width), np.float32)
        if depth.shape != (lens.height, lens.width):
            raise CaptureError(
                f"camera {c}: a picture of {depth.shape[1]} x {depth.shape[0]} pixels; "
                f"its lens has {lens.width} x {lens.height}"
            )
        grids.append(_nearest(depth))
        p = _in_ball(depth, lens, T, p_world_middle, radius, 2 * count, rng)
        if table_z is not None:
            p = p[p[:, 2] > table_z + TABLE_MARGIN]
        points.append(p)
        away = T[4:] - p
        ways.append(away / np.linalg.norm(away, axis=1, keepdims=True))
    p, v = np.concatenate(points), np.concatenate(ways)
    chosen = rng.permutation(len(p))[:count]
    packed = np.zeros((2, count, 3), np.float32)
    packed[0, : len(chosen)], packed[1, : len(chosen)] = p[chosen], v[chosen]
    # In steps, so that pictures of similar sizes share what is compiled.
    size = -(-np.array([g.shape for g in grids]).max(axis=0) // _STEP) * _STEP
    nearest = np.zeros((len(cameras), *size), np.float32)
    for i, g in enumerate(grids):
        nearest[i, : g.shape[0], : g.shape[1]] = g
    T_world_cam = np.stack([rigid.matrix(wxyz_xyz_world_cam[c]) for c in cameras])
    return Observation(
        jnp.asarray(packed[0]),
        jnp.asarray(packed[1]),
        jnp.asarray(np.arange(count) < len(chosen)),
        jnp.asarray(nearest),
        jnp.asarray([_row(lenses[c]) for c in cameras], jnp.float32),
        jnp.asarray(T_world_cam[:, :3, :3], jnp.float32),
        jnp.asarray(T_world_cam[:, :3, 3], jnp.float32),
    )


def without(seen: Observation, hand: HandModel, phi: Float[Array, " 28"]) -> Observation:
    """The observation with the points of the hand marked as not free; may be jitted.

    Args:
        seen: The observation.
        hand: The hand.
        phi: Its pose in the world.
    """
    distance = collision.signed_distance(hand, kinematics.posed(hand, phi), seen.p_world)
    return dataclasses.replace(seen, free=seen.free & (distance > HAND_MARGIN))


def cells(seen: Observation, p_world: Float[Array, "m 3"]) -> tuple[Array, Array]:
    """What is known where points would be seen.

    Args:
        seen: The observation.
        p_world: Points, metres.

    Returns:
        Their depths (c m) and the least depths measured there (c m), 0 where nothing is known.
    """

    def one(nearest: Array, optics: Array, R: Array, p: Array) -> tuple[Array, Array]:
        p_cam = (p_world - p) @ R
        z = p_cam[:, 2]
        flat = _distort(optics[4:], p_cam[:, :2] / jnp.maximum(z, 1e-3)[:, None])
        cell = jnp.floor(flat * optics[:2] + optics[2:4]).astype(jnp.int32)
        height, width = nearest.shape
        inside = (z > 0.05) & (cell >= 0).all(1) & (cell < jnp.array([width, height])).all(1)
        column, row = jnp.clip(cell, 0, jnp.array([width - 1, height - 1])).T
        return z, jnp.where(inside, nearest[row, column], 0.0)

    return jax.vmap(one)(seen.nearest, seen.optics, seen.R_world_cam, seen.p_world_cam)


def _in_ball(
    depth: Float[np.ndarray, "h w"],
    lens: Lens,
    T: Float[np.ndarray, " 7"],
    p_world_middle: Float[np.ndarray, " 3"],
    radius: float,
    most: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "n 3"]:
    """The points of a picture in a ball, in the world; of many pixels not more than `most`."""
    middle = rigid.apply(rigid.inverse(T), p_world_middle[None])
    z = float(middle[0, 2])
    if z <= radius:  # the camera is in the ball, or the ball behind it
        left, top, right, bottom = 0, 0, lens.width, lens.height
    else:
        half = 1.2 * radius / (z - radius) * np.array([lens.fx, lens.fy])  # lenses distort
        pixel = lens.project(middle)[0]
        left, top = np.clip(pixel - half, 0, [lens.width, lens.height]).astype(int)
        right, bottom = np.clip(pixel + half + 1, 0, [lens.width, lens.height]).astype(int)
    window = depth[top:bottom, left:right]
    row, column = np.nonzero(np.abs(window - z) <= min(radius, z - 1e-3))
    if len(row) > most:
        chosen = rng.integers(0, len(row), most)
        row, column = row[chosen], column[chosen]
    z_cam = window[row, column, None].astype(np.float64)
    flat = lens.directions()[row + top, column + left]
    p = rigid.apply(T, np.concatenate([flat * z_cam, z_cam], axis=1))
    return p[((p - p_world_middle) ** 2).sum(axis=1) <= radius**2]  # also drops NaN


def _nearest(depth: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "gh gw"]:
    """Least depth of each cell and the eight around it; 0 where the cell has no reading."""
    height, width = (n // _CELL * _CELL for n in depth.shape)
    # Whole rows first: minima along rows are slow.
    known = np.where(depth > 0.0, depth, np.float32(np.inf))[:height, :width]
    rows = known.reshape(height // _CELL, _CELL, width).min(axis=1)
    least = rows[:, ::_CELL]
    for i in range(1, _CELL):
        least = np.minimum(least, rows[:, i::_CELL])
    around = np.pad(least, 1, constant_values=np.inf)
    rows = np.minimum(np.minimum(around[:-2], around[1:-1]), around[2:])
    spread = np.minimum(np.minimum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
    return np.where(np.isfinite(least), spread, 0.0)


def _row(lens: Lens) -> Sequence[float]:
    """Optics in cells; a cell's number is the floor of its coordinate."""
    middle = ((lens.cx + 0.5) / _CELL, (lens.cy + 0.5) / _CELL)
    return (lens.fx / _CELL, lens.fy / _CELL, *middle, *lens.distortion)


def _distort(k: Float[Array, " 8"], flat: Float[Array, "m 2"]) -> Float[Array, "m 2"]:
    """`Lens.distort` in JAX."""
    k1, k2, p1, p2, k3, k4, k5, k6 = k
    x, y = flat.T
    r2 = x * x + y * y
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    return jnp.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ],
        axis=1,
    )
