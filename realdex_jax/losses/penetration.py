"""Penetration terms, which RealDex's limitation section asks for."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from realdex_jax.hand import collision
from realdex_jax.hand.kinematics import Links
from realdex_jax.hand.load import HandModel


def in_hand(hand: HandModel, links: Links, points: Float[Array, "*b n 3"]) -> Float[Array, "*b"]:
    """Mean depth (m) of object points inside the hand; points outside count as zero.

    Args:
        hand: The hand.
        links: Its links in the object frame.
        points: Object points, metres.
    """
    return depth(collision.signed_distance(hand, links, points))


def depth(distance: Float[Array, "*b n"]) -> Float[Array, "*b"]:
    """Mean depth (m) of points at signed distances to the hand."""
    return jnp.maximum(-distance, 0.0).mean(-1)


def in_itself(hand: HandModel, links: Links) -> Float[Array, "*b"]:
    """Summed depth (m) over pairs of primitives that overlap."""
    return collision.self_penetration(hand, links).sum(-1)
