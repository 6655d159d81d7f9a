"""Losses of predicted motion: RealDex's Eq. 5, and penetration for the aware variant."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from realdex_jax import pose

Terms = dict[str, Float[Array, ""]]


@dataclasses.dataclass(frozen=True)
class MotionWeights:
    """Weights of the terms; the paper gives none."""

    joints: float = 1.0
    """Mean absolute error of joint angles, radians."""
    translation: float = 20.0
    """The same of the palm's place, metres."""
    rotation: float = 4.0
    """Mean angle (rad) between palm orientations."""
    points: float = 500.0
    """Mean squared distance of hand points, square metres."""
    displacement: float = 500.0
    """Mean squared error of the displacement to the target, weighted toward the target."""
    near: float = 0.05
    """Metres of displacement over which that weight falls by e."""
    penetration: float = 0.0
    """Mean depth (m) of hand points in object and table; only for the aware variant."""


def pose_terms(
    predicted: Float[Array, "*b 28"], true: Float[Array, "*b 28"], weights: MotionWeights
) -> Terms:
    """L1 on the pose: joints, palm place, palm turn."""
    q, T = pose.split(predicted)
    q_true, T_true = pose.split(true)
    R = T.rotation().as_matrix()
    R_true = T_true.rotation().as_matrix()
    # The chord of the angle: the same to first order, smooth where the angle is zero.
    chord = jnp.sqrt(((R - R_true) ** 2).sum((-1, -2)) / 2.0 + 1e-10)
    return {
        "joints": weights.joints * jnp.abs(q - q_true).mean(),
        "translation": weights.translation
        * jnp.abs(T.translation() - T_true.translation()).sum(-1).mean(),
        "rotation": weights.rotation * chord.mean(),
    }


def point_terms(
    p: Float[Array, "*b k 3"],
    p_true: Float[Array, "*b k 3"],
    p_goal: Float[Array, "*#b k 3"],
    weights: MotionWeights,
) -> Terms:
    """L2 on hand points and on their displacements to the target.

    The two differ by the weight of a point alone: an error counts more the nearer the point should
    be to the target, as in GOAL.

    Args:
        p: Predicted points, metres; any one frame.
        p_true: Where they should be.
        p_goal: Where they are at the goal.
        weights: The weights.
    """
    square = ((p - p_true) ** 2).sum(-1)
    left = jnp.sqrt(((p_goal - p_true) ** 2).sum(-1) + 1e-12)
    return {
        "points": weights.points * square.mean(),
        "displacement": weights.displacement * (jnp.exp(-left / weights.near) * square).mean(),
    }
