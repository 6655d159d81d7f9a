"""The choice among ways: the first one that is free."""

import functools

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
LOW = 0.2
ALLOWED = 1e-3
FREE, BLOCKED, PRESSED, GRAZING, SCRAPING, SUNK = range(6)
"""What stands in the straight way: nothing; the little ball; the great ball, in which the grasp
ends; the table by half a millimetre; by one and a half; in every way, the table."""


def quick(f, *given):
    """f of what is given, compiled in a hurry: compiling is most of these tests' time."""
    return jax.jit(f).lower(*given).compile(compiler_options=QUICK)(*given)


def ball(radius):
    """A ball around the origin."""
    return sdf.sample(
        lambda p: np.linalg.norm(p, axis=1) - radius, np.array([[-radius] * 3, [radius] * 3]), 8000
    )


BALLS = [ball(0.04), ball(0.08)]


def posed(x, z):
    """Resting hands with the palm at x and height z."""
    x, z = jnp.broadcast_arrays(*(jnp.asarray(v, jnp.float32) for v in (x, z)))
    phi = jnp.broadcast_to(jnp.asarray(np.append(joints.REST, np.zeros(6))), (*x.shape, 28))
    return phi.at[..., 22].set(x).at[..., 24].set(z).astype(jnp.float32)


@pytest.fixture(scope="module")
def heights():
    """Heights (m) of the palm, (3 ways, 6 goals, 9 frames): straight on, over it, higher still."""
    u = np.linspace(0.0, 1.0, 9)
    z = LOW + np.array([0.0, 0.3, 0.6])[:, None, None] * np.sin(np.pi * u) + np.zeros((3, 6, 9))
    # Palm height at which the hand just touches the table.
    _, touching = quick(
        lambda phi: touch.depths(HAND, BALLS[0], phi, jnp.eye(1, 7)[0].at[4].set(9.0)), posed(0, 0)
    )
    z[0, GRAZING, 4] = float(touching) - 0.5e-3
    z[0, SCRAPING, 4] = float(touching) - 1.5e-3
    z[:, SUNK] -= np.array([1.0, 0.9, 0.8])[:, None]
    return z.astype(np.float32)


@pytest.fixture(scope="module")
def chosen(heights):
    """Motions taken, and depths of all: (6 goals, 9 frames, 28), (3 ways, 6 goals)."""
    placed = jnp.tile(jnp.eye(1, 7), (6, 1)).at[:, 4:].set(jnp.array([5.0, 0.0, LOW]))
    placed = placed.at[BLOCKED, 4].set(0.0).at[PRESSED, 4].set(0.5)
    target = jnp.zeros(6, jnp.int32).at[PRESSED].set(1)
    # The palm is there a frame before the end.
    x = np.append(np.linspace(-0.5, 0.5, 8), 0.5)
    goal, steps = posed(x[-1], jnp.full(6, LOW)), jnp.full(6, 9)

    def of(grids, placed, goal):
        def come(way):
            phi = posed(x, jnp.asarray(heights)[way])
            # One motion's second way is no motion at all.
            return jnp.where((way == 1) & (jnp.arange(6) == SUNK)[:, None, None], jnp.nan, phi)

        given = (target, goal, steps, placed)
        phi = choice.choose(HAND, come, 3, grids, *given, ALLOWED)
        each = [choice.deeper(HAND, grids, target, come(k), *given[1:]) for k in range(3)]
        return phi, jnp.stack(each)

    return quick(of, sdf.stack(BALLS), placed, goal)


@pytest.mark.parametrize(
    ("goal", "way"),
    [(FREE, 0), (BLOCKED, 1), (PRESSED, 0), (GRAZING, 0), (SCRAPING, 1), (SUNK, 2)],
)
def test_the_most_usual_free_way_is_taken_or_else_the_least_deep(goal, way, chosen, heights):
    phi, _ = chosen
    np.testing.assert_array_equal(phi[goal, :, 24], heights[way, goal])


def test_depths_are_those_beyond_the_grasp(chosen):
    depth = np.asarray(chosen[1])
    assert depth[0, BLOCKED] > 0.005
    assert abs(depth[0, PRESSED]) <= 1e-6  # deep in the ball, but no deeper than at the end
    # On the table: a millimetre is the sum of palm height and sphere, known to a few floats.
    np.testing.assert_allclose(depth[0, [GRAZING, SCRAPING]], [0.5e-3, 1.5e-3], atol=1e-6)
    assert (depth[1:, GRAZING] < 0.0).all()  # the least deep is another one than the one taken


def test_frames_after_the_last_do_not_count():
    phi = posed(0.0, np.array([[LOW, LOW, LOW, -1.0]]))
    given = (sdf.stack(BALLS), jnp.zeros(1, jnp.int32), phi, posed(0.0, np.array([LOW])))
    placed = jnp.eye(1, 7).at[:, 4].set(5.0)
    of = functools.partial(choice.deeper, HAND)
    for steps, inside in ((3, False), (4, True)):
        assert bool(quick(of, *given, jnp.array([steps]), placed)[0] > 0.0) == inside


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
