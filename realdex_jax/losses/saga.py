"""Losses of SAGA's motion infilling (Wu et al. 2022), as its released code has them."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from realdex_jax.losses import pose


@dataclasses.dataclass(frozen=True)
class SagaWeights:
    """The released weights; those of contact labels and of the ends have no meaning here."""

    palm: float = 1.0
    """Palm's way, L1."""
    palm_velocity: float = 1.0
    """Its change from one instant to the next, L1."""
    palm_kl: float = 0.5
    """Divergence of its posterior from the prior."""
    joints: float = 1.0
    """Joints, L1."""
    joints_velocity: float = 1.0
    """Their change, L1."""
    joints_kl: float = 0.5
    """Divergence of their posterior."""


def l1(x: Float[Array, "b t c"], true: Float[Array, "b t c"]) -> Float[Array, ""]:
    """Mean absolute difference."""
    return jnp.abs(x - true).mean()


def velocity(x: Float[Array, "b t c"], true: Float[Array, "b t c"]) -> Float[Array, ""]:
    """Mean absolute difference of the changes from one instant to the next."""
    return l1(jnp.diff(x, axis=1), jnp.diff(true, axis=1))


def robust_kl(mean: Float[Array, "b z"], log_variance: Float[Array, "b z"]) -> Float[Array, ""]:
    """Divergence from N(0, 1) per number of the latent, nats, its square flattened at zero.

    sqrt(1 + k^2) - 1 presses less the nearer the posterior is to the prior, so that it does not
    collapse.
    """
    k = pose.kl(mean, log_variance) / mean.shape[-1]
    return jnp.sqrt(1.0 + k**2) - 1.0
