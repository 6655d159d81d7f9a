"""Reaches and demonstrations: shape, timing, clearance, and that they lift."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax import touch
from realdex_jax.data import motion, store
from realdex_jax.geometry import sdf
from realdex_jax.hand import joints
from realdex_jax.hand.load import load
from sim import demonstrate, objects, reach
from sim.intersection import penetration_depth


@pytest.fixture(scope="module")
def yogurt():
    grasps = store.open_dataset("realdex-sim").grasps("yogurt")
    return objects.make("yogurt"), grasps


@pytest.fixture(scope="module")
def shown(yogurt):
    shape, grasps = yogurt
    return demonstrate.demonstrate(load(), shape, grasps, 12, 0)


def test_minimum_jerk_has_its_known_speed_and_rests_at_both_ends():
    u = np.linspace(0.0, 1.0, 1001)
    s = np.asarray(reach.minimum_jerk(jnp.asarray(u)))
    speed = np.gradient(s, u)
    # Flash and Hogan: the peak speed is 1.875 times the mean one, half way.
    assert speed.max() == pytest.approx(1.875, rel=1e-3)
    assert abs(u[speed.argmax()] - 0.5) < 0.01
    assert max(abs(speed[0]), abs(speed[-1])) < 1e-2
    np.testing.assert_array_equal(reach.minimum_jerk(jnp.array([-1.0, 2.0])), [0.0, 1.0])


def test_a_reach_begins_and_ends_where_asked_and_closes_last():
    start, goal = np.zeros((2, 28), np.float32)
    start[22:25], goal[22:25] = (-0.3, 0.1, 0.3), (0.0, 0.0, 0.1)
    start[25:], goal[25:] = (1.2, 0.3, 0.1), (1.0, -0.4, 0.2)
    goal[:22] = joints.REST
    phi = np.asarray(
        reach.reach(
            *(jnp.asarray(x) for x in (start, goal, np.array([0.0, 0.0, 1.0], np.float32))),
            jnp.asarray(0.4),
            jnp.asarray(80),
            100,
        )
    )
    np.testing.assert_allclose(phi[0], start, atol=1e-6)
    np.testing.assert_allclose(phi[79], goal, atol=1e-5)
    np.testing.assert_array_equal(phi[79:], np.repeat(phi[79:80], 21, 0))
    # It comes from above: the last centimetres are straight down.
    arriving = phi[60, 22:25] - goal[22:25]
    assert arriving[2] > 5 * np.abs(arriving[:2]).max()
    turned = (Rotation.from_rotvec(phi[:, 25:]) * Rotation.from_rotvec(goal[25:]).inv()).magnitude()
    assert turned[65] < 1e-3
    # The hand opens, is widest before it arrives, and closes while the palm rests.
    knuckle, thumb = joints.NAMES.index("FFJ3"), joints.NAMES.index("THJ4")
    bend = phi[:80, knuckle]
    assert bend[:65].max() < goal[knuckle] - 0.2
    assert np.linalg.norm(phi[69, 22:25] - goal[22:25]) < 1e-4
    assert goal[knuckle] - bend[69] > 0.1
    assert phi[35, thumb] > 0.95 * goal[thumb]  # opposed early
    q = phi[:, :22]
    assert all((q[:, j1] <= q[:, j2] + 1e-6).all() for j2, j1 in joints.COUPLED)


@pytest.mark.slow
def test_demonstrations_are_valid_clear_and_nearly_all_lift(yogurt, shown):
    shape, _ = yogurt
    motions, tally = shown
    assert len(motions) == 12
    assert tally.attempts >= tally.reachable >= tally.clean >= tally.lifted >= 12
    assert tally.clean > 0.3 * tally.attempts
    assert tally.lifted > 0.7 * tally.clean
    grid, hand = sdf.build(shape), load()
    for i in range(len(motions)):
        motion.validate(motions.motion(i))
        phi = motions.poses(i)
        assert 60 <= len(phi) <= 120
        assert (phi[0, :22] == 0.0).all()
        world = np.tile(motions.wxyz_xyz_world_object[i], (len(phi), 1))
        in_object, in_table = touch.depths(hand, grid, jnp.asarray(phi), jnp.asarray(world))
        config = demonstrate.DemonstrationConfig()
        # The grid that judged was coarser, by about half a millimetre.
        assert float(in_object.max()) < config.max_depth + 0.0007
        assert float(in_table.max()) < config.max_table + 1e-6


def test_most_demonstrations_take_the_usual_way(shown):
    motions, _ = shown
    lengths = motions.lengths()
    ends = (np.stack([motions.poses(i)[k] for i in range(len(motions))]) for k in (0, -1))
    usual = demonstrate.habitual(*ends, lengths, 120)
    off = np.array([np.abs(usual[i, :n] - motions.poses(i)).max() for i, n in enumerate(lengths)])
    # The goal is stored in single precision, so a reach to it is the same to rounding or another.
    assert ((off < 1e-5) | (off > 1e-2)).all()
    assert (off < 1e-5).mean() > 0.5


@pytest.mark.slow
def test_depth_agrees_with_the_exact_one_of_the_primitives(yogurt, shown):
    shape, _ = yogurt
    motions, _ = shown
    hand, grid = load(), sdf.build(shape)
    phi = np.stack([motions.poses(i)[-1] for i in range(6)])
    # Push the palms toward the object, so that some are in it.
    R = Rotation.from_rotvec(phi[:, 25:])
    phi[:, 22:25] += R.apply([0.0, -1.0, 0.0]) * np.linspace(0.0, 0.02, 6)[:, None]
    placed = motions.wxyz_xyz_world_object[:6]
    ours, _ = touch.depths(hand, grid, jnp.asarray(phi), jnp.asarray(placed))
    R_world_object = Rotation.from_quat(placed[:, :4], scalar_first=True)
    local = phi.copy()
    local[:, 22:25] = R_world_object.inv().apply(phi[:, 22:25] - placed[:, 4:])
    local[:, 25:] = (R_world_object.inv() * R).as_rotvec()
    exact = np.asarray(penetration_depth(hand, shape, local))
    # Spheres inscribed in the primitives dip by up to 0.9 mm, the grid is 1.5 mm apart.
    np.testing.assert_allclose(np.maximum(ours, 0.0), exact, atol=0.002)
    assert exact.max() > 0.008


@pytest.mark.slow
def test_the_same_seed_shows_the_same_and_an_impossible_object_nothing(yogurt, shown):
    shape, grasps = yogurt
    again, tally = demonstrate.demonstrate(load(), shape, grasps, 12, 0)
    np.testing.assert_array_equal(again.phi, shown[0].phi)
    assert tally == shown[1]
    below = np.array(grasps.phi)
    below[:, 24] -= 0.5  # every grasp under the table
    hopeless = store.GraspSet(below, grasps.q_pregrasp, grasps.q_squeeze, grasps.columns)
    none, tally = demonstrate.demonstrate(load(), shape, hopeless, 3, 0, max_batches=1)
    assert len(none) == 0
    assert tally.clean == 0
