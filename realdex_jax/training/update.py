"""The jitted update that every objective shares."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from realdex_jax.training.state import (
    Optimisation,
    TrainState,
    keep_finite,
    step_key,
    transformation,
)

Scalars = dict[str, Float[Array, ""]]
Loss = Callable[[Any, Any, PRNGKeyArray, Int[Array, ""]], tuple[Float[Array, ""], Scalars]]
"""(parameters, batch, key, updates made so far) -> loss and its terms."""


def make_step(
    loss: Loss, optimisation: Optimisation
) -> Callable[[TrainState, Any], tuple[TrainState, Scalars]]:
    """The jitted update; the state is donated.

    Args:
        loss: What to make small.
        optimisation: How.

    Returns:
        A function from state and batch to the next state and its scalars: "loss", "gradient"
        (norm), "finite" (0 or 1) and the terms. If loss, gradient or update is not finite, the
        state comes back unchanged.
    """
    update = transformation(optimisation)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Scalars]:
        (value, terms), gradient = jax.value_and_grad(loss, has_aux=True)(
            state.params, batch, step_key(state), state.step
        )
        norm = optax.tree.norm(gradient)
        updates, optimiser = update.update(gradient, state.optimiser, state.params)
        finite = jnp.isfinite(value) & jnp.isfinite(norm) & jnp.isfinite(optax.tree.norm(updates))
        params = optax.apply_updates(state.params, updates)
        new = TrainState(step=state.step + 1, params=params, optimiser=optimiser, key=state.key)
        scalars = {"loss": value, "gradient": norm, "finite": finite.astype(jnp.float32), **terms}
        return keep_finite(new, state, finite), scalars

    return jax.jit(step, donate_argnums=0)
