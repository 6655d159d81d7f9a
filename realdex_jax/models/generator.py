"""The generators of grasps, one behind the other's interface: cloud and key in, poses out."""

from typing import Any

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from realdex_jax.errors import CheckpointError
from realdex_jax.models import cvae, flow, matching
from realdex_jax.models.cvae import CvaeConfig, Decoded, Statistics
from realdex_jax.models.flow import FlowConfig
from realdex_jax.models.matching import MatchingConfig

Config = CvaeConfig | FlowConfig | MatchingConfig

KINDS: dict[str, type] = {"cvae": CvaeConfig, "flow": FlowConfig, "matching": MatchingConfig}
"""Kinds by the name that files and tables use."""


def kind_of(config: Config) -> str:
    """Name of a configuration's kind."""
    return next(name for name, kind in KINDS.items() if type(config) is kind)


def named(kind: str) -> type:
    """Configuration of a kind.

    Raises:
        CheckpointError: No such kind.
    """
    if kind not in KINDS:
        raise CheckpointError(f"no generator {kind!r}; known: {', '.join(KINDS)}")
    return KINDS[kind]


def init(
    config: Config,
    key: PRNGKeyArray,
    points: Float[Array, "b n 3"],
    hand_points: Float[Array, "b k m 3"],
) -> Any:
    """Fresh parameters."""
    match config:
        case CvaeConfig():
            return jax.jit(cvae.cvae(config).init)(key, points, hand_points)
        case FlowConfig():
            return jax.jit(flow.flow(config).init)(key, points)
        case MatchingConfig():
            return jax.jit(matching.matching(config).init)(key, points)


def sample(
    config: Config,
    params: Any,
    points: Float[Array, "b n 3"],
    key: PRNGKeyArray,
    count: int,
    statistics: Statistics,
    temperature: Float[Array, ""],
) -> Decoded:
    """Draws poses (b k) of each cloud.

    Args:
        config: Which generator, and its sizes.
        params: Its parameters.
        points: Centred clouds, metres.
        key: Randomness.
        count: Number k of poses.
        statistics: Spread of palm positions in the training data.
        temperature: Size of the noise that poses are made of; 1 is the configuration's own.
    """
    b = len(points)
    match config:
        case CvaeConfig():
            z = temperature * jax.random.normal(key, (b, count, config.latent))
            return cvae.cvae(config).decode(params, points, z, statistics)
        case FlowConfig():
            return flow.sample(config, params, points, key, count, statistics, temperature)
        case MatchingConfig():
            return matching.sample(config, params, points, key, count, statistics, temperature)
