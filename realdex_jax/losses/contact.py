"""Contact maps: a value per object point, one where the hand touches, falling with distance."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from realdex_jax.hand import collision
from realdex_jax.hand.kinematics import Links
from realdex_jax.hand.load import HandModel

SHARPNESS = 60.0
"""Per metre; the contact value is 0.28 at 3 cm."""

BINS = 10
"""Equal bins over [0, 1] that the contact network tells apart."""


def contact_value(distance: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """RealDex's contact value c = 2 - 2 sigmoid(60 d) of a distance (m).

    Points inside the hand count as touching: the distance is taken as zero there.
    """
    return 2.0 - 2.0 * jax.nn.sigmoid(SHARPNESS * jnp.maximum(distance, 0.0))


def contact_map(
    hand: HandModel, links: Links, points: Float[Array, "*b n 3"]
) -> Float[Array, "*b n"]:
    """Contact value of object points for a posed hand.

    Args:
        hand: The hand.
        links: Its links in the object frame.
        points: Object points, metres.
    """
    return contact_value(collision.signed_distance(hand, links, points))


def to_bins(value: Float[Array, "*b"]) -> Int[Array, "*b"]:
    """Bin of each contact value; one belongs to the last bin (the release puts it in the first)."""
    return jnp.clip(jnp.floor(value * BINS), 0, BINS - 1).astype(jnp.int32)


def expectation(logits: Float[Array, "*b 10"]) -> Float[Array, "*b"]:
    """Expected contact value of a predicted distribution, each bin at its middle."""
    middle = (jnp.arange(BINS, dtype=logits.dtype) + 0.5) / BINS
    return jax.nn.softmax(logits) @ middle


def cross_entropy(logits: Float[Array, "*b n 10"], value: Float[Array, "*b n"]) -> Float[Array, ""]:
    """Mean cross entropy (nats) of predicted bins against the bins of `value`."""
    log_p = jax.nn.log_softmax(logits)
    one_hot = jax.nn.one_hot(to_bins(value), BINS, dtype=log_p.dtype)
    return -(log_p * one_hot).sum(-1).mean()


def map_error(value: Float[Array, "*b n"], target: Float[Array, "*b n"]) -> Float[Array, ""]:
    """Mean squared difference of two contact maps (L_cmap of Eq. 4)."""
    return ((value - target) ** 2).mean()
