"""The pose vector phi: a hand's joint angles, palm translation, palm orientation as axis-angle.

Translation (m) and orientation (rad) are those of the palm in the object frame, so that
`p_object = T_object_hand @ p_hand`.
"""

import jax.numpy as jnp
import jaxlie
from jaxtyping import Array, Float

JOINTS = 22
SIZE = 28
"""Of the Shadow Hand; another hand's are those of its `hand.joints`."""


def split(phi: Float[Array, "*b phi"]) -> tuple[Float[Array, "*b j"], jaxlie.SE3]:
    """Splits a pose into joint angles (rad) and `T_object_hand`."""
    rotation = jaxlie.SO3.exp(phi[..., -3:])
    return phi[..., :-6], jaxlie.SE3.from_rotation_and_translation(rotation, phi[..., -6:-3])


def join(q: Float[Array, "*b j"], T_object_hand: jaxlie.SE3) -> Float[Array, "*b phi"]:
    """Joins joint angles (rad) and `T_object_hand`: `split` undone, below half turns."""
    return jnp.concatenate(
        [q, T_object_hand.translation(), T_object_hand.rotation().log()], axis=-1
    )


def between(
    first: Float[Array, "*#b phi"], last: Float[Array, "*#b phi"], share: Float[Array, "*#b"]
) -> Float[Array, "*b phi"]:
    """Poses on the straight way: joints and place in a line, orientation at a constant turn.

    Args:
        first: Poses at share 0.
        last: Poses at share 1, in the same frame.
        share: How far along.
    """
    share = share[..., None]
    (q_a, T_a), (q_b, T_b) = split(first), split(last)
    turn = (T_a.rotation().inverse() @ T_b.rotation()).log()
    p_a, p_b = T_a.translation(), T_b.translation()
    R = T_a.rotation() @ jaxlie.SO3.exp(share * turn)
    T = jaxlie.SE3.from_rotation_and_translation(R, p_a + share * (p_b - p_a))
    return join(q_a + share * (q_b - q_a), T)


def rotation_from_columns(columns: Float[Array, "*b 6"]) -> Float[Array, "*b 3 3"]:
    """Rotation matrix of a network's six numbers (Zhou et al. 2019).

    Gram-Schmidt on two columns; they are offsets from the identity's, so zero is the identity.
    """
    x = _unit(columns[..., :3] + jnp.array([1.0, 0.0, 0.0]))
    y = columns[..., 3:] + jnp.array([0.0, 1.0, 0.0])
    y = _unit(y - (x * y).sum(-1, keepdims=True) * x)
    return jnp.stack([x, y, jnp.cross(x, y)], axis=-1)


def _unit(v: Float[Array, "*b 3"]) -> Float[Array, "*b 3"]:
    return v / jnp.sqrt((v * v).sum(-1, keepdims=True) + 1e-8)
