"""How near the robot comes to itself, its table and its pedestal, and how fast its parts move.

By capsules of the arm and primitives of the hand, over many configurations at once.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from realdex_jax import arm, pytree
from realdex_jax.hand import collision, kinematics
from realdex_jax.hand.kinematics import Links
from realdex_jax.hand.load import HandModel
from realdex_jax.hand.spheres import spheres
from sim.demonstrate import P_WORLD_BASE

P_BASE = np.array(P_WORLD_BASE, np.float32)
"""Where the arm's base is in the world, metres; its axes are the world's."""
PEDESTAL_RADIUS = 0.09
"""Of what the base stands on, metres."""
_FINGER = 0.012
"""Half the thickness of a finger, metres: joints and tips with it stand for the hand where it meets
what is thick."""
_CORNER = 0.005
"""Metres that edges of the palm stand out of the spheres that cover it."""
_MOVING = np.flatnonzero(arm.CAPSULE_LINK > 0)
_OFF_PEDESTAL = np.flatnonzero(arm.CAPSULE_LINK > 2)
_OF_UPPER_ARM = np.flatnonzero(arm.CAPSULE_LINK == 2)[2:]  # the first turn about the shoulder
_FOREARM = np.flatnonzero(arm.LINKS.index("rh_forearm") == arm.CAPSULE_LINK)


_CHUNK = 256
"""Configurations a compiled program takes at a time; fixed, so that it compiles once."""


@pytree.dataclass
class Clearance:
    """Least distances, metres, negative where parts overlap."""

    arm_self: Float[Array | np.ndarray, "*b"]
    """Between links of the arm, two joints apart or more, and from the arm to its pedestal."""
    arm_table: Float[Array | np.ndarray, "*b"]
    """From arm and forearm to the table."""
    hand_table: Float[Array | np.ndarray, "*b"]
    """From the hand to the table."""
    hand_self: Float[Array | np.ndarray, "*b"]
    """Depth of the hand in itself, negated: zero where it does not touch itself."""
    hand_arm: Float[Array | np.ndarray, "*b"]
    """From the hand to the arm and to the pedestal."""


def arm_clearance(q: Float[Array, "*b 6"]) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
    """`Clearance.arm_self` and `Clearance.arm_table` for the arm's joints alone (rad)."""
    p_a, p_b, radius = arm.capsules(arm.forward(q))
    low = jnp.minimum(p_a[..., 2], p_b[..., 2]) + P_BASE[2] - radius
    middle, half = (p_a + p_b) / 2, (p_b - p_a) / 2
    a, b = arm.PAIRS.T
    between = collision.segment_distance(
        middle[..., a, :], half[..., a, :], middle[..., b, :], half[..., b, :]
    )
    of_self = (between - radius[a] - radius[b]).min(-1)
    off = np.concatenate([_OF_UPPER_ARM, _OFF_PEDESTAL])
    standing = _to_pedestal(middle[..., off, :], half[..., off, :]) - radius[off]
    return jnp.minimum(of_self, standing.min(-1)), low[..., _MOVING].min(-1)


def clearance(hand: HandModel, q: Float[np.ndarray, "b 30"]) -> Clearance:
    """Of the whole robot.

    Args:
        hand: The hand.
        q: Joint angles in the order of `limits.NAMES`, radians.
    """
    found = _in_chunks(functools.partial(_look, hand), q)
    return Clearance(**{f.name: found[f.name] for f in dataclasses.fields(Clearance)})


def speeds(
    hand: HandModel, q: Float[np.ndarray, "b 30"], qd: Float[np.ndarray, "b 30"]
) -> Float[np.ndarray, " b"]:
    """What no point on the surface of any part is faster than, m/s.

    Of each capsule and sphere: how fast the ends of its axis are, and how fast its link turns times
    its radius. That is a bound for all it contains.

    Args:
        hand: The hand.
        q: Joint angles, radians.
        qd: Their velocities, rad/s.
    """
    return _in_chunks(functools.partial(_fastest, hand), q, qd)["fastest"]


def _in_chunks(
    look: Callable[..., dict[str, Array]], *columns: Float[np.ndarray, "b 30"]
) -> dict[str, np.ndarray]:
    """Something that takes `_CHUNK` configurations, of any number of them."""
    count = len(columns[0])
    padded = [np.concatenate([x, np.repeat(x[-1:], -count % _CHUNK, axis=0)]) for x in columns]
    chunks = [x.astype(np.float32).reshape(-1, _CHUNK, x.shape[1]) for x in padded]
    found = [look(*map(jnp.asarray, chunk)) for chunk in zip(*chunks, strict=True)]
    return {name: np.concatenate([np.asarray(x[name]) for x in found])[:count] for name in found[0]}


@functools.partial(jax.jit, static_argnums=0)
def _fastest(
    hand: HandModel, q: Float[Array, "b 30"], qd: Float[Array, "b 30"]
) -> dict[str, Array]:
    _, (v, R_rate) = jax.jvp(functools.partial(_carried, hand), (q,), (qd,))
    turn = jnp.sqrt(0.5 * (R_rate**2).sum((-1, -2)))  # R_rate is a cross product times R
    cover, (_, _, radius) = spheres(hand), arm.capsules(arm.forward(q[:1, :6]))
    link = np.concatenate([arm.CAPSULE_LINK, arm.CAPSULE_LINK, len(arm.LINKS) + cover.link])
    out = jnp.concatenate([radius, radius, cover.radius + _CORNER])
    return {"fastest": (jnp.linalg.norm(v, axis=-1) + turn[:, link] * out).max(-1)}


def _carried(hand: HandModel, q: Float[Array, "b 30"]) -> tuple[Array, Array]:
    """Ends of the arm's capsules and centres of the hand's spheres, and all links' orientations."""
    links_of_arm = arm.forward(q[:, :6])
    p_a, p_b, _ = arm.capsules(links_of_arm)
    R, centre = _covered(hand, palm(q), kinematics.forward(hand, q[:, 8:]))
    points = jnp.concatenate([p_a, p_b, centre], axis=1)
    return points, jnp.concatenate([links_of_arm.R, R], axis=1)


def _covered(hand: HandModel, palm_pose: tuple[Array, Array], links: Links) -> tuple[Array, Array]:
    """Orientations of the hand's links, and centres of its spheres (m), in the robot's base."""
    R_palm, p_palm = palm_pose
    R = jnp.einsum("bij,bljk->blik", R_palm, links.R)
    p = jnp.einsum("bij,blj->bli", R_palm, links.p) + p_palm[:, None]
    cover = spheres(hand)
    return R, p[:, cover.link] + jnp.einsum("bsij,sj->bsi", R[:, cover.link], cover.p_link)


@functools.partial(jax.jit, static_argnums=0)
def _look(hand: HandModel, q: Float[Array, "b 30"]) -> dict[str, Array]:
    """The fields of `Clearance`: one program, for it takes seconds to compile."""
    of_self, of_table = arm_clearance(q[:, :6])
    R_palm, p_palm = palm(q)
    links = kinematics.forward(hand, q[:, 8:])
    _, centre = _covered(hand, (R_palm, p_palm), links)
    cover = spheres(hand)
    p_a, p_b, radius = arm.capsules(arm.forward(q[:, :6]))
    # The forearm carries the hand; the rest of the arm can be met by the whole of it.
    others = np.setdiff1d(np.arange(len(arm.CAPSULE_LINK)), _FOREARM)
    middle, half = (p_a + p_b)[:, others] / 2, (p_b - p_a)[:, others] / 2
    joints_of_hand = jnp.einsum("bij,bnj->bni", R_palm, kinematics.keypoints(hand, links))
    joints_of_hand = joints_of_hand + p_palm[:, None]
    still = jnp.zeros_like(joints_of_hand)
    to_arm = collision.segment_distance(
        joints_of_hand[:, :, None], still[:, :, None], middle[:, None], half[:, None]
    )
    to_arm = (to_arm - radius[others]).min(-1)
    to_pedestal = _to_pedestal(joints_of_hand, still)
    return {
        "arm_self": of_self,
        "arm_table": of_table,
        "hand_table": (centre[..., 2] + P_BASE[2] - cover.radius).min(-1),
        "hand_self": -collision.self_penetration(hand, links).max(-1),
        "hand_arm": jnp.minimum(to_arm, to_pedestal).min(-1) - _FINGER,
    }


@jax.jit
def palm(q: Float[Array, "*b 30"]) -> tuple[Float[Array, "*b 3 3"], Float[Array, "*b 3"]]:
    """`T_base_palm` with the wrist as it is: rotation and origin (m)."""
    links = arm.forward(q[..., :6])
    R, p = links.R[..., -1, :, :], links.p[..., -1, :]
    p = p + (R * arm.P_FOREARM_WRIST).sum(-1)
    s, c = jnp.sin(q[..., 6:8]), jnp.cos(q[..., 6:8])
    x, y, z = R[..., 0], R[..., 1], R[..., 2]
    x, z = _turned(z, x, s[..., :1], c[..., :1])[::-1]  # about y
    p = p + (arm.P_FOREARM_PALM - arm.P_FOREARM_WRIST)[2] * z
    y, z = _turned(y, z, s[..., 1:], c[..., 1:])  # about x
    return jnp.stack([x, y, z], axis=-1), p


def _turned(a: Array, b: Array, sin: Array, cos: Array) -> tuple[Array, Array]:
    """Two axes after a turn from the first to the second."""
    return cos * a + sin * b, cos * b - sin * a


def _to_pedestal(middle: Array, half: Array) -> Array:
    """Distance of segments (base frame) to the pedestal's side or top."""
    length = float(P_BASE[2]) - PEDESTAL_RADIUS
    axis = np.array([0.0, 0.0, length / 2], np.float32)
    at = np.array([0.0, 0.0, -PEDESTAL_RADIUS - length / 2], np.float32)
    shape = middle.shape
    return (
        collision.segment_distance(
            middle, half, jnp.broadcast_to(at, shape), jnp.broadcast_to(axis, shape)
        )
        - PEDESTAL_RADIUS
    )
