"""The pose vector: inverse laws, and gradients at the singular points of axis-angle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from realdex_jax import pose


def test_join_inverts_split():
    rng = np.random.default_rng(0)
    axis = rng.normal(size=(50, 3))
    axis *= rng.uniform(0.01, 3.1, (50, 1)) / np.linalg.norm(axis, axis=-1, keepdims=True)
    phi = np.concatenate([rng.normal(size=(50, 25)), axis], axis=-1).astype(np.float32)
    q, T_object_hand = pose.split(jnp.asarray(phi))
    np.testing.assert_allclose(pose.join(q, T_object_hand), phi, atol=2e-5)


@pytest.mark.parametrize("angle", [0.0, 1e-7, 1e-3, np.pi - 1e-4, np.pi])
def test_gradient_is_finite_at_singular_angles(angle):
    phi = jnp.zeros(28).at[27].set(angle)

    def moved(phi):
        _, T_object_hand = pose.split(phi)
        return T_object_hand.apply(jnp.array([0.1, 0.2, 0.3])).sum()

    gradient = jax.grad(moved)(phi)
    assert bool(jnp.isfinite(gradient).all())
    # d/dt of R(t) p about z: -0.2 cos - 0.1 sin + 0.1 cos - 0.2 sin.
    expected = (0.1 - 0.2) * np.cos(angle) - (0.1 + 0.2) * np.sin(angle)
    np.testing.assert_allclose(gradient[27], expected, atol=1e-4)


def test_between_is_a_straight_line_and_a_constant_turn(rng):
    first, last = rng.normal(size=(2, 5, 28)).astype(np.float32)
    share = rng.uniform(size=5).astype(np.float32)
    given = [jnp.asarray(x) for x in (first, last, share)]
    found = np.asarray(pose.between(*given))
    flat = first + share[:, None] * (last - first)
    np.testing.assert_allclose(found[:, :25], flat[:, :25], atol=1e-6)
    for i in range(5):
        turns = Rotation.from_rotvec([first[i, 25:], last[i, 25:]])
        expected = Slerp([0.0, 1.0], turns)(share[i])
        off = (Rotation.from_rotvec(found[i, 25:]).inv() * expected).magnitude()
        assert off < 1e-5  # single precision
    np.testing.assert_allclose(pose.between(*given[:2], jnp.zeros(5)), first, atol=1e-6)
