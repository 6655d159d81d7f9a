"""Metrics of motions: RealDex's Table 4, and what it lacks (datasets reference, section 2.6)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from realdex_jax import pose, touch
from realdex_jax.data.motion import RATE
from realdex_jax.geometry.sdf import SdfGrid
from realdex_jax.hand import joints, kinematics, surface
from realdex_jax.hand.load import HandModel

VERTICES = 512
"""Surface points that stand for the hand's mesh."""
LIMIT_TOLERANCE = 1e-3
"""Radians."""


def keypoints(hand: HandModel, phi: Float[Array, "*b 28"]) -> Float[Array, "*b 27 3"]:
    """22 joint origins and five fingertips in the poses' frame, metres."""
    return kinematics.keypoints(hand, kinematics.posed(hand, phi))


def local(hand: HandModel, phi: Float[Array, "*b 28"]) -> Float[Array, "*b 27 3"]:
    """The keypoints in the palm frame, metres."""
    return kinematics.keypoints(hand, kinematics.forward(hand, phi[..., : pose.JOINTS]))


def vertices(hand: HandModel, phi: Float[Array, "*b 28"]) -> Float[Array, "*b v 3"]:
    """Surface points in the poses' frame, metres."""
    return surface.pose_points(surface.points(hand, VERTICES), kinematics.posed(hand, phi))[0]


@functools.partial(jax.jit, static_argnums=0)
def measured(
    hand: HandModel,
    phi: Float[Array, "b t 28"],
    phi_true: Float[Array, "b t 28"],
    lengths: Int[Array, " b"],
) -> dict[str, Float[Array, " b"]]:
    """Metrics that need no object, per motion.

    Args:
        hand: The hand.
        phi: Motions in the world.
        phi_true: What was demonstrated.
        lengths: Frames of each that count, at least four; the rest is padding.

    Returns:
        "mpjpe_cm": mean distance of the keypoints (the paper does not name its joints) over all
        frames, the given first one included. "ave_cm2": mean over keypoints of the difference of
        their variances over time (Ghosh et al. 2021; the variance of a place is that of its
        three coordinates summed). "ave_local_cm2": the same in the palm frame, fingers alone.
        "verts_offset_mm": mean distance of surface points in the last frame. "jerk_m_s3": mean
        size of the keypoints' third derivative. "limit_violations" and "velocity_violations":
        shares of frames with a joint beyond its limits, or faster than the hand can.
    """
    return jax.vmap(functools.partial(_of_one, hand))(phi, phi_true, lengths)


def _of_one(
    hand: HandModel, phi: Float[Array, "t 28"], phi_true: Float[Array, "t 28"], length: Array
) -> dict[str, Array]:
    t = phi.shape[0]
    p, p_true = keypoints(hand, phi), keypoints(hand, phi_true)
    counts = (jnp.arange(t) < length).astype(phi.dtype)
    distance = 100.0 * jnp.sqrt(((p - p_true) ** 2).sum(-1)).mean(-1)

    def variance(x: Array) -> Array:
        mean = (counts[:, None, None] * x).sum(0) / length
        square = ((100.0 * (x - mean)) ** 2).sum(-1)
        return (counts[:, None] * square).sum(0) / (length - 1)

    third = jnp.sqrt(((jnp.diff(p, n=3, axis=0) * RATE**3) ** 2).sum(-1)).mean(-1)
    inner = jnp.arange(t - 3) < length - 3
    offset = vertices(hand, phi[length - 1]) - vertices(hand, phi_true[length - 1])
    q = phi[:, : pose.JOINTS]
    beyond = jnp.maximum(joints.LOWER - q, q - joints.UPPER).max(-1) > LIMIT_TOLERANCE
    fast = (jnp.abs(jnp.diff(q, axis=0)) * RATE > joints.MAX_RATE).any(-1)
    return {
        "mpjpe_cm": (counts * distance).sum() / length,
        "ave_cm2": jnp.abs(variance(p) - variance(p_true)).mean(),
        "ave_local_cm2": jnp.abs(
            variance(local(hand, phi)) - variance(local(hand, phi_true))
        ).mean(),
        "verts_offset_mm": 1000.0 * jnp.sqrt((offset**2).sum(-1)).mean(),
        "jerk_m_s3": (inner * third).sum() / inner.sum(),
        "limit_violations": (counts * beyond).sum() / length,
        "velocity_violations": (counts[1:] * fast).sum() / (length - 1),
    }


@functools.partial(jax.jit, static_argnums=0)
def against_object(
    hand: HandModel,
    grid: SdfGrid,
    phi: Float[Array, "b t 28"],
    phi_last_true: Float[Array, "b 28"],
    wxyz_xyz_world_object: Float[Array, "b 7"],
) -> dict[str, Float[Array, " b"]]:
    """Metrics of motions around one object.

    Args:
        hand: The hand.
        grid: The object's distance grid.
        phi: Motions in the world, the last frame repeated where they are shorter.
        phi_last_true: Demonstrated last poses.
        wxyz_xyz_world_object: Where the object rests.

    Returns:
        "worst_mm": deepest along the way, in object or table; "min_dist_mm": how far the last
        frame's least distance to the object is from the demonstration's.
    """
    world = jnp.broadcast_to(wxyz_xyz_world_object[:, None], (*phi.shape[:2], 7))
    in_object, in_table = touch.depths(hand, grid, phi, world)
    last, _ = touch.depths(hand, grid, phi[:, -1], wxyz_xyz_world_object)
    true, _ = touch.depths(hand, grid, phi_last_true, wxyz_xyz_world_object)
    worst = jnp.maximum(in_object, in_table).max(-1)
    return {
        "worst_mm": 1000.0 * jnp.maximum(worst, 0.0),
        "min_dist_mm": 1000.0 * jnp.abs(last - true),
    }


def padded(phi: list[Float[np.ndarray, "_ 28"]], frames: int) -> Float[np.ndarray, "b f 28"]:
    """Motions of one length: the last frame is repeated.

    Args:
        phi: At least one motion, none longer than `frames`.
        frames: The common length.
    """
    return np.stack([np.concatenate([x, np.repeat(x[-1:], frames - len(x), 0)]) for x in phi])
