"""The loss of SAGA's motion infilling and its update."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from realdex_jax.data.clips import Clips
from realdex_jax.losses import saga as losses
from realdex_jax.losses.saga import SagaWeights
from realdex_jax.models import saga as networks
from realdex_jax.models.saga import Ends, SagaConfig
from realdex_jax.training import update
from realdex_jax.training.state import Optimisation, TrainState
from realdex_jax.training.update import Scalars


def loss(
    params: Any,
    clips: Clips,
    key: PRNGKeyArray,
    *,
    config: SagaConfig,
    weights: SagaWeights,
) -> tuple[Float[Array, ""], Scalars]:
    """Weighted sum of all terms on a batch; see `losses.saga`.

    Both networks learn together, the second on the palm's way of the first.

    Args:
        params: The networks' parameters.
        clips: The batch, `config.instants` instants each.
        key: Randomness of the latents.
        config: The networks' sizes.
        weights: Weights of the terms.
    """
    phi = jnp.asarray(clips.phi)
    ends = Ends(start=phi[:, 0], goal=phi[:, -1], frames=jnp.asarray(clips.frames))
    true = networks.departure(ends, phi)
    guess, (palm, local) = networks.saga(config).rebuild(params, ends, true, key)
    terms = {
        "palm": weights.palm * losses.l1(guess.palm, true.palm),
        "palm_velocity": weights.palm_velocity * losses.velocity(guess.palm, true.palm),
        "palm_kl": weights.palm_kl * losses.robust_kl(palm.mean, palm.log_variance),
        "joints": weights.joints * losses.l1(guess.joints, true.joints),
        "joints_velocity": weights.joints_velocity * losses.velocity(guess.joints, true.joints),
        "joints_kl": weights.joints_kl * losses.robust_kl(local.mean, local.log_variance),
    }
    return jnp.stack(list(terms.values())).sum(), terms


def make_step(
    *, config: SagaConfig, weights: SagaWeights, optimisation: Optimisation
) -> Callable[[TrainState, Clips], tuple[TrainState, Scalars]]:
    """The jitted update, as `update.make_step` describes it; the terms are weighted."""

    def of(params: Any, clips: Clips, key: PRNGKeyArray, _step: Array) -> tuple[Array, Scalars]:
        return loss(params, clips, key, config=config, weights=weights)

    return update.make_step(of, optimisation)
