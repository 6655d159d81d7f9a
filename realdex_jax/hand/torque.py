"""Joint torques of contact forces, and the pre-grasp and squeeze postures they give."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from realdex_jax.hand import kinematics
from realdex_jax.hand.joints import SHADOW, JointTable
from realdex_jax.hand.load import HandModel

SQUEEZE_GAIN = 20.0
"""Squeeze targets add this many times the torque of unit-scale forces over the position gain."""
STIFFNESS = 5.0
"""Position gain (N m / rad) the squeeze is meant for; the strict test's actuators."""
OPENING = 0.1
"""Radians by which the busiest joint backs off before the grasp."""
_BUSY = 0.2
"""Share of the largest torque from which a joint counts as one that closes the hand."""


def joint_torque(
    hand: HandModel,
    q: Float[Array, "*b j"],
    links: Sequence[int],
    p_hand: Float[Array, "*b k 3"],
    force_hand: Float[Array, "*b k 3"],
) -> Float[Array, "*b j"]:
    """Torques with which the hand exerts `force_hand` at points fixed to links: J^T f.

    Args:
        hand: The hand.
        q: Joint angles, radians.
        links: Link of each of the k points.
        p_hand: Points in the palm frame, metres.
        force_hand: Forces on the object, in the palm frame, newtons.

    Returns:
        Torques, N m, order `hand.joints`.
    """
    at = list(links)

    def power(q: Array) -> Array:
        posed = kinematics.forward(hand, q)
        fixed = kinematics.forward(hand, jax.lax.stop_gradient(q))
        R = fixed.R[..., at, :, :]
        p_link = jnp.einsum("...kji,...kj->...ki", R, p_hand - fixed.p[..., at, :])
        p = jnp.einsum("...kij,...kj->...ki", posed.R[..., at, :, :], p_link) + posed.p[..., at, :]
        return (p * force_hand).sum()

    return jax.grad(power)(q)


def squeeze(
    q: Float[Array, "*b j"], torque: Float[Array, "*b j"], table: JointTable = SHADOW
) -> Float[Array, "*b j"]:
    """Joint targets (rad) that press with `SQUEEZE_GAIN` times the given torques."""
    return jnp.clip(q + SQUEEZE_GAIN * torque / STIFFNESS, table.lower, table.upper)


def pregrasp(
    q: Float[Array, "*b j"],
    torque: Float[Array, "*b j"],
    wider: float | Float[Array, ""] = 0.0,
    table: JointTable = SHADOW,
) -> Float[Array, "*b j"]:
    """Joint angles (rad) from which the hand closes: every joint backed off against its torque.

    The joint with the largest torque opens by `OPENING`, the others in proportion; J1 stays below
    J2.

    Args:
        q: Joint angles of the grasp, radians.
        torque: Torques of its contact forces, N m.
        wider: Radians by which all joints that close the hand open further, about alike: for an
            object whose surface may be nearer than it seems.
        table: The hand's joints.
    """
    share = torque / jnp.maximum(jnp.abs(torque).max(-1, keepdims=True), 1e-9)
    return within_limits(q - OPENING * share - wider * jnp.tanh(share / _BUSY), table)


def within_limits(q: Float[Array, "*b j"], table: JointTable = SHADOW) -> Float[Array, "*b j"]:
    """Joint angles clipped to the limits, with J1 <= J2 on the coupled fingers."""
    q = jnp.clip(q, table.lower, table.upper)
    # A maximum over a static permutation instead of an indexed update: no scatter in the gradient.
    bound = np.arange(len(table))
    for j2, j1 in table.coupled:
        bound[j1] = j2
    return jnp.minimum(q, q[..., bound])
