"""Trajectory optimisation: it arrives, smooths, clears, and leaves good motions alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realdex_jax import touch, trajectory
from realdex_jax.geometry import sdf
from realdex_jax.hand import joints
from realdex_jax.hand.load import load
from realdex_jax.trajectory import TrajectoryConfig
from sim import objects, reach

CONFIG = TrajectoryConfig(steps=60)


@pytest.fixture(scope="module")
def scene():
    shape = objects.make("body_lotion")
    placed = jnp.array([[1.0, 0, 0, 0, 0, 0, -shape.bounds[0, 2]]])
    grid = sdf.sample(lambda p: sdf.exact_distance(shape, p), shape.bounds, 60_000)
    return grid, placed


def along(x_goal: float) -> tuple[np.ndarray, np.ndarray]:
    """A straight-down reach whose palm ends `x_goal` metres beside the object's axis."""
    start, goal = np.zeros((2, 1, 28), np.float32)
    start[0, 22:25], goal[0, 22:25] = (-0.3, 0.0, 0.3), (x_goal, 0.0, 0.1)
    # Fingers forward, palm side down.
    start[0, 25:] = goal[0, 25:] = (-np.pi / 2 + np.pi, 0.0, 0.0)
    goal[0, :22] = 0.5 * joints.REST
    phi = reach.reach(
        *(jnp.asarray(x) for x in (start, goal)),
        jnp.array([[0.0, 0.0, 1.0]]),
        jnp.array([0.2]),
        jnp.array([60]),
        70,
    )
    return np.asarray(phi), goal


def mend(grid, placed, phi, goal):
    """The mended motion of 60 frames."""
    given = (jnp.asarray(x) for x in (phi, goal))
    return np.asarray(trajectory.optimise(load(), grid, *given, jnp.array([60]), placed, CONFIG))


def worst(grid, phi, placed):
    world = jnp.broadcast_to(placed[:, None], (*phi.shape[:2], 7))
    in_object, in_table = touch.depths(load(), grid, jnp.asarray(phi), world)
    return float(in_object.max()), float(in_table.max())


@pytest.mark.slow
def test_a_clear_smooth_motion_that_arrives_hardly_changes(scene):
    grid, placed = scene
    phi, goal = along(-0.3)
    assert max(worst(grid, phi, placed)) < 0.0
    mended = mend(grid, placed, phi, goal)
    np.testing.assert_array_equal(mended[:, 0], phi[:, 0])
    np.testing.assert_array_equal(mended[:, 59:], np.repeat(goal[:, None], 11, 1))
    # The smoother rounds the reach's own jerk a little: a millimetre, a hundredth of a radian.
    assert np.abs(mended - phi)[..., 22:25].max() < 0.001
    assert np.abs(mended - phi)[..., :22].max() < 0.02


def test_a_motion_that_stops_short_and_shakes_arrives_and_is_smooth(rng):
    phi, goal = along(-0.3)
    shaken = phi + rng.normal(size=phi.shape).astype(np.float32) * 0.004
    shaken[:, 30:, 22] -= 0.01
    shaken[:, 0] = phi[:, 0]
    lengths = jnp.array([60])
    smooth = np.asarray(
        trajectory.arrived(*(jnp.asarray(x) for x in (shaken, goal)), lengths, CONFIG)
    )
    # Held to the goal by a weight of 1e4 against jerk.
    np.testing.assert_allclose(smooth[:, 59], goal, atol=1e-3)

    def jerk(x):
        return np.abs(np.diff(x[0, :60, :25], n=3, axis=0)).mean()

    assert jerk(smooth) < 0.05 * jerk(shaken)


def test_a_motion_through_the_object_is_pushed_out(scene):
    grid, placed = scene
    phi, goal = along(-0.18)
    through = phi.copy()
    through[:, 20:50, 22] += 0.18 * np.sin(np.linspace(0, np.pi, 30))  # a detour into the object
    through[:, 20:50, 24] = 0.12
    before = worst(grid, through, placed)[0]
    assert before > 0.01
    mended = mend(grid, placed, through, goal)
    assert worst(grid, mended, placed)[0] < 0.35 * before
    q = mended[..., :22]
    assert (q >= joints.LOWER - 1e-5).all()
    assert (q <= joints.UPPER + 1e-5).all()


@pytest.mark.slow
def test_the_gradient_of_the_cost_is_its_slope(scene, rng):
    grid, placed = scene
    # Beside the object and partly under the table: distances to the object jump between the cells
    # of its grid, those to the table do not.
    phi, _ = along(-0.3)
    phi = phi[:, 40:52].copy()
    phi[..., 24] = 0.02
    change = (0.002 * rng.normal(size=phi.shape)).astype(np.float32)
    direction = rng.normal(size=phi.shape).astype(np.float32)
    direction /= np.linalg.norm(direction)

    def of(c):
        lengths = jnp.array([12])
        return trajectory.cost(load(), CONFIG, grid, jnp.asarray(phi), c, lengths, placed)

    slope = float((jax.grad(of)(jnp.asarray(change)) * direction).sum())
    step = 1e-3  # smaller ones drown in single precision
    above, below = (float(of(jnp.asarray(change + s * direction))) for s in (step, -step))
    assert slope == pytest.approx((above - below) / (2 * step), rel=0.02)
