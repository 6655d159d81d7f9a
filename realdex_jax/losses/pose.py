"""Pose terms of RealDex's Eq. 4: KL divergence, reconstruction, chamfer distance of hand points."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


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
    return _one_way(a, b) + _one_way(b, a)


def _one_way(a: Float[Array, "*b n 3"], b: Float[Array, "*b m 3"]) -> Float[Array, "*b"]:
    nearest = jnp.take_along_axis(b, _nearest(a, b)[..., None], axis=-2)
    return ((a - nearest) ** 2).sum(-1).mean(-1)


def _nearest(a: Float[Array, "*b n 3"], b: Float[Array, "*b m 3"]) -> Int[Array, "*b n"]:
    """Index of the point of `b` nearest to each of `a`; the first of equally near ones.

    Two minima, of squares and of the indices where they are reached, are several times faster than
    XLA's `argmin` on a CPU, and no matrix is kept: the gradient passes through n points.
    """
    a, b = jax.lax.stop_gradient(a), jax.lax.stop_gradient(b)
    # Differences, not |a|^2 + |b|^2 - 2ab: in float32 that form loses everything below a
    # millimetre.
    x, y, z = (a[..., :, None, i] - b[..., None, :, i] for i in range(3))
    square = x**2 + y**2 + z**2
    count = b.shape[-2]
    number = jnp.arange(count, dtype=jnp.int32)
    found = jnp.where(square <= square.min(-1, keepdims=True), number, count).min(-1)
    return jnp.minimum(found, count - 1)  # where nothing is a number
