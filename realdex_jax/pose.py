"""The pose vector phi: 22 joint angles, palm translation, palm orientation as axis-angle.

Translation (m) and orientation (rad) are those of the palm in the object frame, so that
`p_object = T_object_hand @ p_hand`.
"""

import jax.numpy as jnp
import jaxlie
from jaxtyping import Array, Float

JOINTS = 22
SIZE = 28


def split(phi: Float[Array, "*b 28"]) -> tuple[Float[Array, "*b 22"], jaxlie.SE3]:
    """Splits a pose into joint angles (rad) and `T_object_hand`."""
    rotation = jaxlie.SO3.exp(phi[..., 25:28])
    return phi[..., :22], jaxlie.SE3.from_rotation_and_translation(rotation, phi[..., 22:25])


def join(q: Float[Array, "*b 22"], T_object_hand: jaxlie.SE3) -> Float[Array, "*b 28"]:
    """Joins joint angles (rad) and `T_object_hand`: `split` undone, below half turns."""
    return jnp.concatenate(
        [q, T_object_hand.translation(), T_object_hand.rotation().log()], axis=-1
    )
