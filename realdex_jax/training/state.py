"""The training state: a record with nothing hidden in it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from realdex_jax import pytree
from realdex_jax.errors import TrainingError
from realdex_jax.models.weights import flat


@dataclasses.dataclass(frozen=True)
class Optimisation:
    """Adam with decoupled weight decay and a one-cycle rate."""

    steps: int = 3000
    """Number of updates."""
    rate: float = 1e-3
    """Peak learning rate."""
    warmup: int = 100
    """Steps of linear warm-up."""
    weight_decay: float = 1e-4
    clip: float = 1.0
    """Largest global norm of a gradient."""


def changed(base: Optimisation, steps: int | None, rate: float | None) -> Optimisation:
    """A recipe's optimisation with what a command line gives instead.

    Raises:
        TrainingError: A number of steps or a rate that makes no sense.
    """
    steps = base.steps if steps is None else steps
    if steps < 1:
        raise TrainingError(f"--steps {steps}; a run has at least one step")
    rate = base.rate if rate is None else rate
    if not 0.0 < rate < 1.0:
        raise TrainingError(f"--rate {rate}; a learning rate lies between 0 and 1")
    # A short run warms up over a tenth of its steps, not over a preset's that outlasts it.
    warmup = min(base.warmup, steps // 10)
    return dataclasses.replace(base, steps=steps, rate=rate, warmup=warmup)


@pytree.dataclass
class TrainState:
    """All that a resumed run needs; data order follows from the step."""

    step: Int[Array, ""]
    """Number of updates made."""
    params: Any
    optimiser: Any
    """State of the optax transformation."""
    key: PRNGKeyArray
    """Root key; a step's key is `fold_in(key, step)`."""


def transformation(config: Optimisation) -> optax.GradientTransformation:
    """The optax chain.

    Raises:
        TrainingError: The warm-up is longer than the run.
    """
    if not 0 <= config.warmup < config.steps:
        raise TrainingError(f"warm-up of {config.warmup} steps in a run of {config.steps}")
    rate = optax.warmup_cosine_decay_schedule(
        0.0, config.rate, config.warmup, config.steps, end_value=0.01 * config.rate
    )
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(rate, weight_decay=config.weight_decay),
    )


def create(params: PyTree, config: Optimisation, key: PRNGKeyArray) -> TrainState:
    """The state before the first step."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        optimiser=transformation(config).init(params),
        key=key,
    )


def step_key(state: TrainState) -> PRNGKeyArray:
    """The key of this step; the state's own key is never consumed."""
    return jax.random.fold_in(state.key, state.step)


def keep_finite(new: TrainState, old: TrainState, finite: Array) -> TrainState:
    """`new` if `finite`, else `old` with its step unchanged: bad numbers never enter the state."""

    def choose(a: Array, b: Array) -> Array:
        return jax.lax.select(finite, a, b)

    fields = ("step", "params", "optimiser")
    chosen = {f: jax.tree.map(choose, getattr(new, f), getattr(old, f)) for f in fields}
    return TrainState(**chosen, key=old.key)


def not_finite(state: PyTree) -> list[str]:
    """Names of the arrays of a state that hold numbers that are not finite."""
    floats = {k: v for k, v in flat(state).items() if jnp.issubdtype(v.dtype, jnp.inexact)}
    good = jax.device_get(_all_finite(floats))
    return [name for name, fine in good.items() if not fine]


@jax.jit
def _all_finite(arrays: dict[str, Array]) -> dict[str, Array]:
    return jax.tree.map(lambda x: jnp.isfinite(x).all(), arrays)
