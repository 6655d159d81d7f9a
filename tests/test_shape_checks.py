"""The checks of shapes must fire where users' mistakes are made: also while jit traces."""

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from realdex_jax import pose
from realdex_jax.errors import HandError
from realdex_jax.hand import kinematics
from realdex_jax.hand.load import load


@pytest.mark.parametrize("run", [pose.rotation_from_columns, jax.jit(pose.rotation_from_columns)])
def test_a_wrong_shape_is_caught(run) -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match=r"\*b 6"):
        run(jnp.zeros((4, 5)))


def test_a_pose_of_another_hand_is_caught() -> None:
    """The length of a pose is the hand's: 22 joints for Shadow."""
    with pytest.raises(HandError, match=r"21 joint angles for hand .shadow., which has 22"):
        kinematics.posed(load(), jnp.zeros((4, 27)))


def test_axes_must_agree_between_arguments_under_jit() -> None:
    T_object_hand = pose.split(jnp.zeros((4, 28)))[1]
    with pytest.raises((jaxtyping.TypeCheckError, TypeError)):
        jax.jit(lambda q: pose.join(q, T_object_hand))(jnp.zeros((5, 22)))


def test_a_reused_key_is_caught() -> None:
    def careless(key: jax.Array) -> jax.Array:
        return jax.random.normal(key, (2,)) + jax.random.uniform(key, (2,))

    with pytest.raises(jax.errors.KeyReuseError):
        jax.jit(careless)(jax.random.key(0))
