"""The pose vector: inverse laws, and gradients at the singular points of axis-angle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
