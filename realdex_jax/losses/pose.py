"""Pose terms of RealDex's Eq. 4: KL divergence, reconstruction, chamfer distance of hand points."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def kl(mean: Float[Array, "*b z"], log_variance: Float[Array, "*b z"]) -> Float[Array, ""]:
    """Divergence of N(mean, exp(log_variance)) from N(0, 1), nats.

    Summed over the latent, mean over the batch. Kingma and Welling 2014, appendix B. (The release
    sums over the batch too, so its weight depends on batch size.)
    """
    per_latent = 1.0 + log_variance - mean**2 - jnp.exp(log_variance)
    return -0.5 * per_latent.sum(-1).mean()


def joints(q: Float[Array, "*b 22"], target: Float[Array, "*b 22"]) -> Float[Array, ""]:
    """Mean squared error of joint angles, rad^2."""
    return ((q - target) ** 2).mean()


def translation(t: Float[Array, "*b 3"], target: Float[Array, "*b 3"]) -> Float[Array, ""]:
    """Mean squared error of palm positions, m^2."""
    return ((t - target) ** 2).mean()


def rotation(R: Float[Array, "*b 3 3"], target: Float[Array, "*b 3 3"]) -> Float[Array, ""]:
    """Mean squared chordal distance, |R - R'|_F^2 / 6.

    For small angles a third of the squared angle, so like a mean over axis-angle. It has no
    wrap-around, unlike the release's squared difference of axis-angle vectors.
    """
    return ((R - target) ** 2).sum((-2, -1)).mean() / 6.0


def hand_points(p: Float[Array, "*b m 3"], target: Float[Array, "*b m 3"]) -> Float[Array, ""]:
    """Mean squared distance of corresponding hand points, m^2."""
    return ((p - target) ** 2).sum(-1).mean()


def chamfer(a: Float[Array, "*b n 3"], b: Float[Array, "*b m 3"]) -> Float[Array, "*b"]:
    """Squared chamfer distance, m^2.

    Mean over each cloud of the squared distance to the other; the two directions are summed.
    """
    # Differences, not |a|^2 + |b|^2 - 2ab: in float32 that form loses everything below a
    # millimetre.
    square = ((a[..., :, None, :] - b[..., None, :, :]) ** 2).sum(-1)
    return square.min(-1).mean(-1) + square.min(-2).mean(-1)
