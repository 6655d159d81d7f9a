"""The loss of MotionNet (RealDex's Eq. 5) and its update."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jaxlie
from jaxtyping import Array, Float, PRNGKeyArray

from realdex_jax.data import windows as windowing
from realdex_jax.data.windows import FUTURE, Windows
from realdex_jax.geometry import sdf
from realdex_jax.geometry.sdf import SdfGrids
from realdex_jax.hand import kinematics, surface
from realdex_jax.hand.load import HandModel
from realdex_jax.losses import motion as losses
from realdex_jax.losses.motion import MotionWeights
from realdex_jax.models import motion_model
from realdex_jax.models.motion_features import HAND_POINTS
from realdex_jax.models.motion_model import MotionModel
from realdex_jax.training import update
from realdex_jax.training.state import Optimisation, TrainState
from realdex_jax.training.update import Scalars


def loss(
    model: MotionModel,
    windows: Windows,
    key: PRNGKeyArray,
    *,
    hand: HandModel,
    grids: SdfGrids | None,
    weights: MotionWeights,
    noise: float,
) -> tuple[Float[Array, ""], Scalars]:
    """Weighted sum of all terms on a batch; see `losses.motion`.

    Args:
        model: The model.
        windows: The batch.
        key: Randomness of the input noise.
        hand: The hand.
        grids: Distance grids, for an aware model and the penetration term.
        weights: Weights of the terms.
        noise: Size of the noise on the inputs, as `windows.shaken` takes it.
    """
    predicted = motion_model.predict(hand, model, grids, windowing.shaken(key, windows, noise))
    coming = jnp.asarray(windows.coming)
    terms = losses.pose_terms(predicted, coming, weights)
    # Points of every second frame: they are most of the work, and neighbours say the same.
    p = points(hand, predicted[:, 1::2])
    fixed = jnp.concatenate([coming[:, 1::2], jnp.asarray(windows.goal)[:, None]], axis=1)
    p_true, p_goal = jnp.split(points(hand, fixed), [FUTURE // 2], axis=1)
    terms |= losses.point_terms(p, p_true, p_goal, weights)
    if weights.penetration > 0.0 and grids is not None:
        depth, true_depth = (_depth(windows, x, grids) for x in (p, p_true))
        # Only what the demonstration itself does not do: at the goal the fingers press.
        terms["penetration"] = weights.penetration * jnp.maximum(depth - true_depth, 0.0).mean()
    return jnp.stack(list(terms.values())).sum(), terms


def points(hand: HandModel, phi: Float[Array, "*b 28"]) -> Float[Array, "*b 64 3"]:
    """Surface points of posed hands, in the poses' frame, metres."""
    skin = surface.points(hand, HAND_POINTS)
    return surface.pose_points(skin, kinematics.posed(hand, phi))[0]


def _depth(windows: Windows, p_world: Array, grids: SdfGrids) -> Array:
    """Depth (m) of points (b t k 3) in the object or under the table."""
    T_object_world = jaxlie.SE3(jnp.asarray(windows.wxyz_xyz_world_object)).inverse()
    p_object = jax.vmap(lambda T, p: T @ p)(T_object_world, p_world.reshape(len(p_world), -1, 3))
    distance = sdf.distance_among(grids, jnp.asarray(windows.target), p_object)
    nearest = jnp.minimum(distance.reshape(p_world.shape[:-1]), p_world[..., 2])
    return jnp.maximum(-nearest, 0.0)


def make_step(
    *,
    hand: HandModel,
    config: motion_model.Config,
    grids: SdfGrids | None,
    weights: MotionWeights,
    noise: float,
    optimisation: Optimisation,
) -> Callable[[TrainState, Windows], tuple[TrainState, Scalars]]:
    """The jitted update, as `update.make_step` describes it; the terms are weighted."""

    def of(
        params: Any, batch: tuple[Windows, SdfGrids | None], key: PRNGKeyArray, _step: Array
    ) -> tuple[Array, Scalars]:
        model = MotionModel(config=config, params=params)
        windows, grids = batch
        return loss(model, windows, key, hand=hand, grids=grids, weights=weights, noise=noise)

    # The grids travel with the batch: as constants they would be compiled in.
    step = update.make_step(of, optimisation)
    return lambda state, windows: step(state, (windows, grids))
