"""Losses of GOAL's MNet (Taheri et al. 2022) for a hand, as its released code has them."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from realdex_jax import pose

Terms = dict[str, Float[Array, ""]]

_NEAR_NOW = 0.3
_NEAR_THEN = 0.4
_FALL = 10.0


@dataclasses.dataclass(frozen=True)
class GoalWeights:
    """The released weights after their annealing, the first ten of its 300 epochs.

    Those of the feet have no meaning here.
    """

    vertices: float = 10.0
    """Surface points of the predicted poses, L1, metres."""
    offsets: float = 13.0
    """The same of the head for offsets."""
    pose: float = 2.5
    """Rotation matrices, L2."""
    translation: float = 1.25
    """Palm place, L1, metres."""
    near_vertices: float = 3.5
    """`vertices`, weighted toward the goal: the original's right hand."""
    near_offsets: float = 7.0
    """`offsets`, weighted toward the goal: the same."""
    nearing: float = 10.0
    """The keypoints' displacement from the goal, L1, metres, weighted toward the goal."""


def pose_terms(
    predicted: Float[Array, "*b 28"], true: Float[Array, "*b 28"], weights: GoalWeights
) -> Terms:
    """L2 on rotation matrices, L1 on the palm's place.

    A hinge that is off by an angle a has a matrix that is off by 4 (1 - cos a), squared and summed.
    """
    q, T = pose.split(predicted)
    q_true, T_true = pose.split(true)
    R, R_true = (x.rotation().as_matrix() for x in (T, T_true))
    hinges = 4.0 * (1.0 - jnp.cos(q - q_true)).sum(-1)
    entries = 9 * (pose.JOINTS + 1)
    square = (hinges + ((R - R_true) ** 2).sum((-1, -2))) / entries
    return {
        "pose": weights.pose * square.mean(),
        "translation": weights.translation * jnp.abs(T.translation() - T_true.translation()).mean(),
    }


def near_now(p: Float[Array, "*b k 3"], p_goal: Float[Array, "*#b k 3"]) -> Float[Array, "*b"]:
    """Weight of a window by how far (m) the hand is from its goal now."""
    return _weight(p, p_goal, _NEAR_NOW)


def near_then(p: Float[Array, "*b k 3"], p_goal: Float[Array, "*#b k 3"]) -> Float[Array, "*b"]:
    """Weight of a coming frame by how far (m) the hand is from its goal then."""
    return _weight(p, p_goal, _NEAR_THEN)


def _weight(p: Array, p_goal: Array, near: float) -> Array:
    distance = jnp.sqrt(((p - p_goal) ** 2).sum(-1)).min(-1)
    return (distance < near) + jnp.exp(-_FALL * distance)


def l1(
    p: Float[Array, "*b k 3"], p_true: Float[Array, "*b k 3"], weight: Float[Array, "*#b"]
) -> Float[Array, ""]:
    """Weighted mean of absolute differences, metres."""
    return (weight[..., None, None] * jnp.abs(p - p_true)).mean()
