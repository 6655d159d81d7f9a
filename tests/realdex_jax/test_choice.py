"""The choice among ways: the first one that is free."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realdex_jax import choice, touch
from realdex_jax.geometry import sdf
from realdex_jax.hand import joints
from realdex_jax.hand.load import load

HAND = load("shadow")
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
LOW, HIGH = 0.2, 0.6


def quick(f, *given):
    """f of what is given, compiled in a hurry: compiling is most of these tests' time."""
    return jax.jit(f).lower(*given).compile(compiler_options=QUICK)(*given)


def ball(radius):
    """A ball around the origin."""
    return sdf.sample(
        lambda p: np.linalg.norm(p, axis=1) - radius, np.array([[-radius] * 3, [radius] * 3]), 8000
    )


BALLS = [ball(0.04), ball(0.08)]


@pytest.fixture(scope="module")
def way_heights():
    """Heights of the palm over the frames, in three ways: straight on, over the balls, higher."""
    u = np.linspace(0.0, 1.0, 9)
    return np.stack([LOW + h * np.sin(np.pi * u) for h in (0.0, 0.3, HIGH)])


def posed(x, z):
    """Resting hands with the palm at x and height z."""
    x, z = jnp.broadcast_arrays(*(jnp.asarray(v, jnp.float32) for v in (x, z)))
    phi = jnp.broadcast_to(jnp.asarray(np.append(joints.REST, np.zeros(6))), (*x.shape, 28))
    return phi.at[..., 22].set(x).at[..., 24].set(z).astype(jnp.float32)


@pytest.fixture(scope="module")
def chosen(way_heights):
    """The way taken past the little ball, past nothing, into the great ball, through everything."""
    placed = (
        jnp.tile(jnp.eye(1, 7), (4, 1))
        .at[:, 4:]
        .set(jnp.array([[0.0, 0.0, LOW], [5.0, 0.0, LOW], [0.5, 0.0, LOW], [0.0, 0.0, LOW]]))
    )
    target = jnp.array([0, 0, 1, 0])
    x = np.linspace(-0.5, 0.5, 9)
    goal = posed(x[-1], jnp.full(4, LOW))
    sunk = jnp.array([0.0, 0.0, 0.0, -1.0])

    def come(way):
        z = jnp.asarray(way_heights, jnp.float32)[way] + sunk[:, None] * (1.0 - 0.1 * way)
        return posed(x, z)

    def of(grids, placed, goal):
        phi = choice.choose(HAND, come, 3, grids, target, goal, placed, 1e-3)
        depth = jnp.stack(
            [choice.deeper(HAND, grids, target, come(k), goal, placed) for k in range(3)]
        )
        return phi, depth

    given = (sdf.stack(BALLS), placed, goal)
    return quick(of, *given)


def test_the_most_usual_free_way_is_taken(chosen, way_heights):
    phi, depth = (np.asarray(x) for x in chosen)
    # In the third the hand ends deep inside its ball: as deep on the way is no fault.
    np.testing.assert_allclose(phi[0, :, 24], way_heights[1], atol=1e-6)
    np.testing.assert_allclose(phi[1, :, 24], way_heights[0], atol=1e-6)
    np.testing.assert_allclose(phi[2, :, 24], way_heights[0], atol=1e-6)
    assert depth[0, 0] > 0.02
    assert depth[0, 1:3].max() <= 1e-3
    assert (depth[:, 1] < 0.0).all()


def test_without_a_free_way_the_least_deep_one_is_taken(chosen, way_heights):
    phi, depth = (np.asarray(x) for x in chosen)
    assert depth[:, 3].min() > 1e-3
    assert depth[:, 3].argmin() == 2  # not the most usual one
    np.testing.assert_allclose(phi[3, :, 24], way_heights[2] - 0.8, atol=1e-5)


def test_depths_among_several_objects_are_those_in_each(rng):
    b, t = 3, 4
    phi = posed(0.0, 0.0) + jnp.asarray(0.1 * rng.normal(size=(b, t, 28)), jnp.float32)
    quaternion = rng.normal(size=(b, 4))
    quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    placed = np.concatenate([quaternion, 0.05 * rng.normal(size=(b, 3))], axis=1)
    placed = jnp.asarray(placed, jnp.float32)
    which = jnp.array([1, 0, 1])
    among = quick(
        lambda *given: touch.sphere_depths_among(HAND, *given), sdf.stack(BALLS), which, phi, placed
    )
    for i in range(b):
        world = jnp.broadcast_to(placed[i], (t, 7))
        alone = quick(
            lambda *given: touch.sphere_depths(HAND, *given), BALLS[int(which[i])], phi[i], world
        )
        for x, y in zip(among, alone, strict=True):
            # The same sums in another order, of numbers below a metre.
            np.testing.assert_allclose(x[:, i], y, atol=1e-6)
