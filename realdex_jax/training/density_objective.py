"""The losses of generators that learn a density: flow matching, and UniDexGrasp's two likelihoods.

The contact net is trained beside them as beside the cVAE; see `training.objective`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jaxlie
from jaxtyping import Array, Float, PRNGKeyArray

from realdex_jax.data.pipeline import Batch
from realdex_jax.hand import surface
from realdex_jax.hand.load import HandModel
from realdex_jax.hand.surface import SurfacePoints
from realdex_jax.models import flow, matching
from realdex_jax.models.cvae import Decoded, Statistics
from realdex_jax.models.flow import FlowConfig
from realdex_jax.models.grasp_model import NetworkConfig, Params
from realdex_jax.models.matching import MatchingConfig
from realdex_jax.training import objective, update
from realdex_jax.training.objective import Perturbation
from realdex_jax.training.state import Optimisation, TrainState
from realdex_jax.training.update import Scalars

ROTATIONS = 1024
"""Random rotations beside the true one, over which the density of rotations is normalised."""
PLACE_LOOKS, HOLD_LOOKS = 16, 4
"""Noises and times of each pose in a batch: clouds are the dear part, these are nearly free."""


@dataclasses.dataclass(frozen=True)
class DensityWeights:
    """Weights of the terms."""

    generator: float = 1.0
    """What the generator learns by: the flow's error, or a negative log likelihood."""
    rotation: float = 1.0
    """Negative log density of the rotation; UniDexGrasp's only."""
    place: float = 1.0
    """The first flow's error; flow matching's only."""
    contact_net: float = 0.3


def matching_errors(
    config: MatchingConfig,
    params: Any,
    points: Float[Array, "b n 3"],
    given: Decoded,
    key: PRNGKeyArray,
    statistics: Statistics,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean squared errors of the two velocities on straight lines from noise to poses (b k)."""
    net = matching.matching(config)
    key_place, key_moved, key_hold = jax.random.split(key, 3)
    b, k = given.t.shape[:2]

    feature = net.encode(params, points)
    end = _many(matching.from_place(given.R, given.t, statistics), PLACE_LOOKS)
    place = _error(lambda x, time: net.place(params, feature, x, time), end, key_place)

    # The palm as the first flow may leave it: the right one, moved.
    moved = jax.random.normal(key_moved, (b, k, matching.HOLD))
    _, R, t = matching.to_hold(moved, given.R, given.t, config)
    seen = _many(net.encode_seen(params, matching.seen_from(points, R, t)), HOLD_LOOKS)
    end = _many(matching.from_hold(given, R, t, config), HOLD_LOOKS)
    hold = _error(lambda x, time: net.hold(params, seen, x, time), end, key_hold)
    return place, hold


def _many(x: Float[Array, "b k d"], looks: int) -> Float[Array, "b l d"]:
    return jnp.repeat(x, looks, axis=1)


def _error(
    velocity: Callable[[Float[Array, "b k d"], Float[Array, "b k"]], Float[Array, "b k d"]],
    end: Float[Array, "b k d"],
    key: PRNGKeyArray,
) -> Float[Array, ""]:
    key_noise, key_time = jax.random.split(key)
    start = jax.random.normal(key_noise, end.shape)
    time = jax.random.uniform(key_time, end.shape[:-1])
    x = start + time[..., None] * (end - start)
    return ((velocity(x, time) - (end - start)) ** 2).mean()


def likelihoods(
    config: FlowConfig,
    params: Any,
    points: Float[Array, "b n 3"],
    given: Decoded,
    key: PRNGKeyArray,
    statistics: Statistics,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Negative log likelihoods of rotations and of the rest, a mean over poses (b k).

    The rotations' density is with respect to the uniform one.
    """
    net = flow.flow(config)
    b, k = given.t.shape[:2]
    R = jaxlie.SO3.sample_uniform(key, (b, ROTATIONS)).as_matrix()
    logits = net.rotation_logits(params, points, jnp.concatenate([given.R, R], axis=1))
    true, others = logits[:, :k], logits[:, k:]
    every = jnp.logaddexp(true, jax.nn.logsumexp(others, axis=1, keepdims=True))
    rotation = -(true - every + jnp.log(ROTATIONS + 1.0)).mean()
    x = flow.from_pose(given, statistics)
    rest = net.log_likelihood(params, flow.turned(points, given.R), x)
    return rotation, -rest.mean() / flow.NUMBERS


def loss(
    params: Params,
    batch: Batch,
    key: PRNGKeyArray,
    *,
    hand: HandModel,
    skin: SurfacePoints,
    config: NetworkConfig,
    statistics: Statistics,
    weights: DensityWeights,
    perturbation: Perturbation,
) -> tuple[Float[Array, ""], Scalars]:
    """Weighted sum of all terms on a batch; arguments as in `objective.loss`."""
    key_generator, key_noise = jax.random.split(key)
    shown = objective.show(
        params, batch, key_noise, hand=hand, skin=skin, config=config, perturbation=perturbation
    )
    terms = {"contact_net": shown.contact_net}
    points = jnp.asarray(batch.points)
    learnt = (params.generator, points, shown.given, key_generator, statistics)
    match config.generator:
        case MatchingConfig():
            terms["place"], terms["generator"] = matching_errors(config.generator, *learnt)
        case FlowConfig():
            terms["rotation"], terms["generator"] = likelihoods(config.generator, *learnt)
        case other:
            raise TypeError(f"{type(other)} learns no density")
    total = jnp.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()
    return total, terms


def make_step(
    *,
    hand: HandModel,
    config: NetworkConfig,
    statistics: Statistics,
    weights: DensityWeights,
    perturbation: Perturbation,
    optimisation: Optimisation,
) -> Callable[[TrainState, Batch], tuple[TrainState, Scalars]]:
    """The jitted update, as `update.make_step` describes it; the terms are not weighted."""
    of = functools.partial(
        loss,
        hand=hand,
        skin=surface.points(hand, config.hand_points),
        config=config,
        statistics=statistics,
        weights=weights,
        perturbation=perturbation,
    )
    return update.make_step(lambda params, batch, key, _step: of(params, batch, key), optimisation)
