"""Analytic signed distances of the posed hand, and its self-penetration.

The hand is a union of capsules and boxes. Distances are exact per primitive outside and inside;
the union's distance is the minimum, exact outside and a lower bound on the depth inside.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from realdex_jax.hand.kinematics import Links
from realdex_jax.hand.load import MIN_HOPS, HandModel

FAR = 1.0
"""Distance (m) reported for links that carry no primitive."""


def geom_poses(
    hand: HandModel, links: Links
) -> tuple[Float[Array, "*b g 3 3"], Float[Array, "*b g 3"]]:
    """Orientations and centres of the primitives in the frame of `links`."""
    g = hand.geoms
    R_link = links.R[..., g.link, :, :]
    R = jnp.einsum("...gij,gjk->...gik", R_link, g.R_link_geom)
    return R, links.p[..., g.link, :] + jnp.einsum("...gij,gj->...gi", R_link, g.p_link_geom)


def signed_distance_per_geom(
    hand: HandModel, links: Links, p: Float[Array, "*b n 3"]
) -> Float[Array, "*b n g"]:
    """Signed distance (m) of each point to each primitive, negative inside.

    Args:
        hand: The hand.
        links: Link poses with batch shape `*b`.
        p: Points in the frame of `links`, metres.
    """
    return jnp.stack(_by_geom(hand, *geom_poses(hand, links), p), axis=-1)


def signed_distance(
    hand: HandModel, links: Links, p: Float[Array, "*b n 3"]
) -> Float[Array, "*b n"]:
    """Signed distance (m) of points to the posed hand, negative inside.

    The nearest primitive is found first, without a gradient; only the distance to that one is
    differentiated, which is the same and several times faster than a minimum over all.

    Args:
        hand: The hand.
        links: Link poses with batch shape `*b`.
        p: Points in the frame of `links`, metres.
    """
    # The barriers keep XLA from computing poses and index anew for every point.
    R, centre = jax.lax.optimization_barrier(geom_poses(hand, links))
    nearest = jax.lax.optimization_barrier(_nearest(hand, *jax.lax.stop_gradient((R, centre, p))))
    pose = jnp.concatenate([R.reshape(*R.shape[:-2], 9), centre], axis=-1)
    mine = jnp.take_along_axis(pose, nearest[..., None], axis=-2)
    offset = p - mine[..., 9:]
    local = jnp.stack([(offset * mine[..., k:9:3]).sum(-1) for k in range(3)], axis=-1)
    size = jnp.asarray(hand.geoms.size, p.dtype)[nearest]
    beyond = local[..., 2] - jnp.clip(local[..., 2], -size[..., 1], size[..., 1])
    capsule = _root(local[..., 0] ** 2 + local[..., 1] ** 2 + beyond**2) - size[..., 0]
    is_box = jnp.asarray(hand.geoms.is_box)[nearest]
    return jnp.where(is_box, _box_distance(local, size), capsule)


def _nearest(hand: HandModel, R: Array, centre: Array, p: Array) -> Int[Array, "*b n"]:
    """Index of the primitive with the least signed distance."""
    first, *others = _by_geom(hand, R, centre, p)
    least, index = first, jnp.zeros(first.shape, jnp.int32)
    for i, distance in enumerate(others, start=1):
        index = jnp.where(distance < least, i, index)
        least = jnp.minimum(distance, least)
    return index


def _by_geom(hand: HandModel, R: Array, centre: Array, p: Array) -> list[Array]:
    """Distance of points to each primitive, each (*b n): one component at a time vectorises."""
    g = hand.geoms
    out = []
    for i in range(len(g.link)):
        offset = [p[..., k] - centre[..., i, k, None] for k in range(3)]
        x, y, z = ([R[..., i, j, k, None] * offset[j] for j in range(3)] for k in range(3))
        local = [a + b + c for a, b, c in (x, y, z)]
        if g.is_box[i]:
            over = [jnp.abs(local[k]) - g.size[i, k] for k in range(3)]
            u, v, w = (jnp.maximum(side, 0.0) ** 2 for side in over)
            outside = _root(u + v + w)
            out.append(outside + jnp.minimum(functools.reduce(jnp.maximum, over), 0.0))
        else:
            radius, half = (float(x) for x in g.size[i, :2])
            beyond = local[2] - jnp.clip(local[2], -half, half)
            out.append(_root(local[0] ** 2 + local[1] ** 2 + beyond**2) - radius)
    return out


def signed_distance_per_link(
    hand: HandModel, links: Links, p: Float[Array, "*b n 3"]
) -> Float[Array, "*b n l"]:
    """Signed distance (m) of points to each link; `FAR` for links without primitives."""
    d = signed_distance_per_geom(hand, links, p)
    out = []
    for link in range(len(hand.parents)):
        mine = np.flatnonzero(hand.geoms.link == link)
        out.append(d[..., mine].min(-1) if len(mine) else jnp.full(d.shape[:-1], FAR, d.dtype))
    return jnp.stack(out, axis=-1)


def self_penetration(hand: HandModel, links: Links) -> Float[Array, "*b pairs"]:
    """Depth (m, >= 0) of each pair of primitives on links at least `MIN_HOPS` joints apart.

    Capsule pairs are exact. A capsule against a box is sampled at five points of its axis.
    """
    R, centre = geom_poses(hand, links)
    g = hand.geoms
    both, mixed = _pairs(hand)
    a, b = both[:, 0], both[:, 1]
    distance = segment_distance(
        centre[..., a, :],
        R[..., a, :, :][..., 2] * g.size[a, 1, None],
        centre[..., b, :],
        R[..., b, :, :][..., 2] * g.size[b, 1, None],
    )
    depth = jnp.maximum(g.size[a, 0] + g.size[b, 0] - distance, 0.0)
    if not len(mixed):
        return depth
    c, box = mixed[:, 0], mixed[:, 1]
    axis = R[..., c, :, :][..., 2] * g.size[c, 1, None]
    at = jnp.linspace(-1.0, 1.0, 5, dtype=axis.dtype)[:, None]
    offset = (centre[..., c, :] - centre[..., box, :])[..., None, :] + at * axis[..., None, :]
    local = jnp.einsum("...kji,...ksj->...ksi", R[..., box, :, :], offset)
    d = _box_distance(local, g.size[box][:, None, :]).min(-1)
    return jnp.concatenate([depth, jnp.maximum(g.size[c, 0] - d, 0.0)], axis=-1)


@functools.cache
def _pairs(hand: HandModel) -> tuple[np.ndarray, np.ndarray]:
    """(capsule, capsule) and (capsule, box) index pairs that may touch."""
    g = hand.geoms
    both, mixed = [], []
    for a in range(len(g.link)):
        for b in range(a + 1, len(g.link)):
            if hand.hops[g.link[a], g.link[b]] < MIN_HOPS or (g.is_box[a] and g.is_box[b]):
                continue  # boxes are the palm and its metacarpal: neighbours
            if g.is_box[a] or g.is_box[b]:
                mixed.append((b, a) if g.is_box[a] else (a, b))
            else:
                both.append((a, b))
    return np.array(both).reshape(-1, 2), np.array(mixed).reshape(-1, 2)


def _safe_norm(x: Array, axis: int = -1) -> Array:
    """Euclidean norm whose gradient at zero is zero, not NaN."""
    return _root((x * x).sum(axis))


def _root(square: Array) -> Array:
    """Square root whose gradient at zero is zero, not infinite."""
    tiny = square < 1e-16
    return jnp.where(tiny, 0.0, jnp.sqrt(jnp.where(tiny, 1.0, square)))


def _box_distance(local: Array, half: Array | np.ndarray) -> Array:
    """Signed distance of points in a box's frame."""
    over = jnp.abs(local) - half
    return _safe_norm(jnp.maximum(over, 0.0)) + jnp.minimum(over.max(-1), 0.0)


def segment_distance(ca: Array, ha: Array, cb: Array, hb: Array, axis: int = -1) -> Array:
    """Distance between segments `c +- h` (Ericson, Real-Time Collision Detection, 5.1.9).

    Args:
        ca: Midpoints of the first segments, metres; components along `axis`, shapes broadcast.
        ha: Half vectors of the first segments, metres.
        cb: Midpoints of the second segments.
        hb: Half vectors of the second segments.
        axis: Axis of the components.
    """
    tiny = 1e-12

    def dot(x: Array, y: Array) -> Array:
        return (x * y).sum(axis)

    da, db, r = 2 * ha, 2 * hb, (ca - ha) - (cb - hb)
    a, e, f = dot(da, da), dot(db, db), dot(db, r)
    b, c = dot(da, db), dot(da, r)
    denominator = a * e - b * b
    s = jnp.where(denominator > tiny, (b * f - c * e) / jnp.maximum(denominator, tiny), 0.0)
    s = jnp.clip(s, 0.0, 1.0)
    t = (b * s + f) / jnp.maximum(e, tiny)
    s = jnp.where(t < 0, -c, jnp.where(t > 1, b - c, s * a)) / jnp.maximum(a, tiny)
    s, t = jnp.clip(s, 0.0, 1.0), jnp.clip(t, 0.0, 1.0)
    return _safe_norm(r + jnp.expand_dims(s, axis) * da - jnp.expand_dims(t, axis) * db, axis)
