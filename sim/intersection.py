"""How deep the hand is inside an object, and how much of the hand is inside itself.

Both are measured on the hand's primitives. Depth follows the usual definition: the deepest point of
a dense sample of the object's surface inside the hand. Volume is a Monte Carlo estimate over
primitive pairs of links more than two joints apart; nearer links overlap by construction.
"""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy.stats import qmc

from realdex_jax.errors import PhysicsError
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand import kinematics
from realdex_jax.hand.collision import (
    MIN_HOPS,
    geom_poses,
    signed_distance,
)
from realdex_jax.hand.load import HandModel
from sim.displacement import link_poses
from sim.physics import Physics
from sim.scene import still_scene

POINTS = 8192
"""Surface points of the object: about 2 mm apart on a mug."""

SAMPLES = 512
"""Monte Carlo points per primitive; the noise is about 0.1 cm3 for a hand that intersects by 2
cm3."""

_BATCH = 16  # poses per compiled call


def penetration_depth(
    hand: HandModel,
    shape: ObjectShape,
    phi: Float[Array | np.ndarray, "n phi"],
    *,
    method: Literal["points", "contacts"] = "points",
    points: int = POINTS,
) -> Float[np.ndarray, " n"]:
    """Greatest depth (m) of the object inside the hand; 0 where they do not touch.

    Args:
        hand: The hand the poses are of.
        shape: The object.
        phi: Poses, the palm in the object frame.
        method: "points" = object surface points against the hand's signed distance, as the
            published metric. "contacts" = MuJoCo's contact depth between primitives and convex
            pieces, which also sees a fingertip that enters between the points.
        points: Number of surface points; always the same ones.

    Raises:
        PhysicsError: A pose is not finite or of the wrong shape, or the method is unknown.
    """
    match method:
        case "points":
            surface = jnp.asarray(shape.surface(points).points, jnp.float32)
            return _in_batches(lambda part: _point_depth(hand, part, surface), _checked(hand, phi))
        case "contacts":
            return _contact_depth(hand, shape, _checked(hand, phi))
        case _:
            raise PhysicsError(f"no method {method!r}; known: points, contacts")


def self_intersection_volume(
    hand: HandModel, q: Float[Array | np.ndarray, "n j"], *, samples: int = SAMPLES, seed: int = 0
) -> Float[np.ndarray, " n"]:
    """Volume (cm3) that primitives of far links share, summed over pairs of primitives.

    Args:
        hand: The hand.
        q: Joint angles, radians.
        samples: Points per primitive.
        seed: Seed of the points; they are the same for every pose.

    Raises:
        PhysicsError: An angle is not finite, or the shape is wrong.
    """
    q = np.asarray(q, np.float32)
    if q.ndim != 2 or q.shape[1] != len(hand.joints) or not np.isfinite(q).all():
        raise PhysicsError(f"q must be finite (n, {len(hand.joints)}), got {q.shape}")
    local = jnp.asarray(_interior_points(hand, samples, seed))
    return _in_batches(lambda part: _shared_volume(hand, part, local), q)


def _checked(hand: HandModel, phi: Array | np.ndarray) -> Float[np.ndarray, "n phi"]:
    phi = np.asarray(phi, np.float32)
    width = hand.joints.pose_size
    if phi.ndim != 2 or phi.shape[1] != width or not np.isfinite(phi).all():
        raise PhysicsError(f"phi must be finite (n, {width}), got {phi.shape}")
    return phi


def _in_batches(
    function: Callable[[Array], Array], values: Float[np.ndarray, "n width"]
) -> Float[np.ndarray, " n"]:
    """Calls with few batch sizes, so that little is compiled; the last row fills the rest."""
    size = min(_BATCH, 1 << max(len(values) - 1, 1).bit_length())
    out = [np.empty(0)]
    for start in range(0, len(values), size):
        rows = np.minimum(np.arange(start, start + size), len(values) - 1)
        out.append(np.asarray(function(jnp.asarray(values[rows])), np.float64))
    return np.concatenate(out)[: len(values)]


@functools.partial(jax.jit, static_argnums=0)
def _point_depth(
    hand: HandModel, phi: Float[Array, "b phi"], surface: Float[Array, "n 3"]
) -> Float[Array, " b"]:
    links = kinematics.posed(hand, phi)
    p = jnp.broadcast_to(surface, (*phi.shape[:1], *surface.shape))
    return jnp.maximum(-signed_distance(hand, links, p).min(-1), 0.0)


def _contact_depth(
    hand: HandModel, shape: ObjectShape, phi: Float[np.ndarray, "n phi"]
) -> Float[np.ndarray, " n"]:
    scene = still_scene(hand, shape, Physics())
    p, wxyz = link_poses(hand, phi)
    data = mujoco.MjData(scene.model)
    depth = np.zeros(len(p))
    for i in range(len(p)):
        data.mocap_pos[:] = p[i, scene.links]
        data.mocap_quat[:] = wxyz[i, scene.links]
        mujoco.mj_fwdPosition(scene.model, data)
        if data.ncon:
            depth[i] = max(0.0, -data.contact.dist.min())
    return depth


@functools.partial(jax.jit, static_argnums=0)
def _shared_volume(
    hand: HandModel, q: Float[Array, "b j"], local: Float[Array, "g k 3"]
) -> Float[Array, " b"]:
    R, centre = geom_poses(hand, kinematics.forward(hand, q))
    p = centre[..., None, :] + jnp.einsum("bgij,gkj->bgki", R, local)
    # A capsule is a rounded segment, a box a block without rounding: one test serves both, and
    # compiles in a fraction of the time of one distance per primitive.
    half, radius = _blocks(hand)
    seen = jnp.einsum("bhji,bgkhj->bgkhi", R, p[:, :, :, None, :] - centre[:, None, None, :, :])
    over = jnp.maximum(jnp.abs(seen) - half, 0.0)
    inside = (over * over).sum(-1) <= radius**2
    volume, member, far = _pair_tables(hand)
    per_link = inside.astype(jnp.float32) @ member  # primitives of each link around each point
    own = (per_link * member[:, None, :]).sum(-1)
    # A point in two primitives of its own link stands for half its volume.
    shared = ((per_link > 0) & far[:, None, :]).sum(-1) / jnp.maximum(own, 1.0)
    # Each pair was counted from both sides.
    return (shared.mean(-1) * volume).sum(-1) / 2.0 * 1e6


def _blocks(hand: HandModel) -> tuple[Float[np.ndarray, "g 3"], Float[np.ndarray, " g"]]:
    """Half extents and rounding radius of each primitive, metres."""
    g = hand.geoms
    segment = np.stack([0 * g.size[:, 1], 0 * g.size[:, 1], g.size[:, 1]], axis=1)
    return np.where(g.is_box[:, None], g.size, segment), np.where(g.is_box, 0.0, g.size[:, 0])


@functools.cache
def _pair_tables(
    hand: HandModel,
) -> tuple[Float[np.ndarray, " g"], Float[np.ndarray, "g l"], Bool[np.ndarray, "g l"]]:
    """Volume (m3) of each primitive, its link as one-hot row, and which links are far from it."""
    g = hand.geoms
    radius, half = g.size[:, 0], g.size[:, 1]
    capsule = np.pi * radius**2 * (2.0 * half) + 4.0 / 3.0 * np.pi * radius**3
    volume = np.where(g.is_box, 8.0 * g.size.prod(axis=1), capsule).astype(np.float32)
    member = np.eye(len(hand.parents), dtype=np.float32)[g.link]
    return volume, member, hand.hops[g.link] >= MIN_HOPS


@functools.cache
def _interior_points(hand: HandModel, count: int, seed: int) -> Float[np.ndarray, "g k 3"]:
    """Evenly spread points inside each primitive, in its own frame (m)."""
    g = hand.geoms
    # A capsule fills at least half of its bounding box, so four times the points are enough.
    unit = 2.0 * qmc.Halton(3, rng=seed).random(4 * count + 64) - 1.0
    out = []
    for is_box, size in zip(g.is_box, g.size, strict=True):
        if is_box:
            out.append((unit * size)[:count])
            continue
        radius, half = float(size[0]), float(size[1])
        p = unit * (radius, radius, radius + half)
        along = np.maximum(np.abs(p[:, 2]) - half, 0.0)
        out.append(p[p[:, 0] ** 2 + p[:, 1] ** 2 + along**2 < radius**2][:count])
    return np.stack(out).astype(np.float32)
