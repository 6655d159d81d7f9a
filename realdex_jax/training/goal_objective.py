"""The loss of GOAL's MNet and its update."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jaxlie
from jaxtyping import Array, Float, PRNGKeyArray

from realdex_jax import pose
from realdex_jax.data import windows as windowing
from realdex_jax.data.windows import Windows
from realdex_jax.hand import kinematics, surface
from realdex_jax.hand.load import HandModel
from realdex_jax.losses import goal as losses
from realdex_jax.losses.goal import GoalWeights
from realdex_jax.models import goal as networks
from realdex_jax.models import motion_features
from realdex_jax.models.goal import CENTIMETRE, GoalConfig
from realdex_jax.models.motion_features import HAND_POINTS, LENGTH
from realdex_jax.training import update
from realdex_jax.training.state import Optimisation, TrainState
from realdex_jax.training.update import Scalars


def loss(
    params: Any,
    windows: Windows,
    key: PRNGKeyArray,
    *,
    hand: HandModel,
    config: GoalConfig,
    weights: GoalWeights,
    noise: float,
) -> tuple[Float[Array, ""], Scalars]:
    """Weighted sum of all terms on a batch; see `losses.goal`.

    Args:
        params: The network's parameters.
        windows: The batch.
        key: Randomness of the input noise and of the dropout.
        hand: The hand.
        config: The network's sizes.
        weights: Weights of the terms.
        noise: Size of the noise on the inputs, as `windows.shaken` takes it.
    """
    key_noise, key_drop = jax.random.split(key)
    windows = windowing.shaken(key_noise, windows, noise)
    seen = motion_features.features(hand, windows, None)
    answer = networks.goal(config).answer(params, seen, key_drop)

    # All in the present palm frame, metres.
    present = jnp.asarray(windows.seen)[:, -1]
    predicted = motion_features.poses_of(answer.poses, present.at[:, pose.JOINTS :].set(0.0))
    coming = _in_palm(present, jnp.asarray(windows.coming))
    # One pass through the hand for both: compiling it is most of the wait.
    (p, p_true), (_, k_true) = _points(hand, jnp.stack([predicted, coming]))
    p_now, k_now = seen.points[:, None] / LENGTH, seen.keypoints[:, -1:] / LENGTH
    k_goal = seen.goal_keypoints[:, None] / LENGTH
    p_offset = p_now + CENTIMETRE * answer.offsets
    gap = k_now - k_goal + CENTIMETRE * answer.nearing

    now, then = losses.near_now(k_now, k_goal), losses.near_then(k_true, k_goal)
    ones = jnp.ones_like(now)
    terms = losses.pose_terms(predicted, coming, weights) | {
        "vertices": weights.vertices * losses.l1(p, p_true, ones),
        "offsets": weights.offsets * losses.l1(p_offset, p_true, ones),
        "near_vertices": weights.near_vertices * losses.l1(p, p_true, now),
        "near_offsets": weights.near_offsets * losses.l1(p_offset, p_true, now),
        "nearing": weights.nearing * losses.l1(gap, k_true - k_goal, then),
    }
    return jnp.stack(list(terms.values())).sum(), terms


def _in_palm(present: Float[Array, "b 28"], phi: Float[Array, "b t 28"]) -> Float[Array, "b t 28"]:
    _, T_world_now = pose.split(present)
    q, T_world_hand = pose.split(phi)
    T_now_world = jaxlie.SE3(T_world_now.inverse().wxyz_xyz[:, None])
    return pose.join(q, T_now_world @ T_world_hand)


def _points(hand: HandModel, phi: Float[Array, "*b 28"]) -> tuple[Array, Array]:
    """Surface points (*b 64 3) and keypoints (*b 27 3) of posed hands, metres."""
    links = kinematics.posed(hand, phi)
    skin = surface.points(hand, HAND_POINTS)
    return surface.pose_points(skin, links)[0], kinematics.keypoints(hand, links)


def make_step(
    *,
    hand: HandModel,
    config: GoalConfig,
    weights: GoalWeights,
    noise: float,
    optimisation: Optimisation,
) -> Callable[[TrainState, Windows], tuple[TrainState, Scalars]]:
    """The jitted update, as `update.make_step` describes it; the terms are weighted."""

    def of(params: Any, windows: Windows, key: PRNGKeyArray, _step: Array) -> tuple[Array, Scalars]:
        return loss(params, windows, key, hand=hand, config=config, weights=weights, noise=noise)

    return update.make_step(of, optimisation)
