"""In which manner motions come to their goals."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax.data import motion_set, ways, windows
from realdex_jax.errors import DatasetError
from realdex_jax.hand import joints
from sim.reach import reach

USUAL, WIDE, ABOVE = range(3)
COUNTS = {USUAL: 120, WIDE: 24, ABOVE: 12}


@pytest.fixture(scope="module")
def truth():
    """The manner of every motion, mixed."""
    return np.random.default_rng(1).permutation(np.repeat(list(COUNTS), list(COUNTS.values())))


@pytest.fixture(scope="module")
def motions(truth):
    """Reaches between random ends: as usual, with wider fingers, or from above."""
    rng = np.random.default_rng(0)
    n = len(truth)
    lengths = rng.integers(60, 71, n)
    start, goal = np.zeros((2, n, 28), np.float32)
    start[:, 22:25] = [-0.36, 0.0, 0.3] + 0.05 * rng.normal(size=(n, 3))
    start[:, 25:28] = 0.2 * rng.normal(size=(n, 3))
    q = joints.REST + 0.05 * rng.normal(size=(n, 22))
    goal[:, :22] = np.clip(q, joints.LOWER + 0.02, joints.UPPER)
    goal[:, 22:25] = [0.0, 0.0, 0.1] + 0.03 * rng.normal(size=(n, 3))
    goal[:, 25:28] = [0.0, 1.0, 0.0] + 0.2 * rng.normal(size=(n, 3))
    back = Rotation.from_rotvec(goal[:, 25:28]).apply([0.0, 1.0, -1.0]) / np.sqrt(2.0)
    direction = np.where((truth == ABOVE)[:, None], [0.0, 0.0, 1.0], back)
    opening = np.where(truth == WIDE, 0.6, 0.2) + 0.01 * rng.normal(size=n)
    found = jax.jit(reach, static_argnums=5)(
        start, goal, direction.astype(np.float32), opening.astype(np.float32), lengths, 70
    )
    return motion_set.of_poses(
        ("thing",),
        np.zeros(n, np.int32),
        [np.asarray(phi)[:k] for phi, k in zip(found, lengths, strict=True)],
        np.tile(np.eye(1, 7, dtype=np.float32), (n, 1)),
        goal[:, :22],
    )


def test_ways_are_found_in_the_motions_alone_the_usual_one_first(motions, truth):
    way = ways.find(motions, 3)
    np.testing.assert_array_equal(way, truth)
    np.testing.assert_array_equal(ways.find(motions, 1), 0)


def test_ways_do_not_depend_on_where_the_room_is(motions, truth):
    R_room_world = Rotation.from_rotvec([0.0, 0.0, 1.1])
    phi = motions.phi.copy()
    phi[:, 22:25] = np.array([0.5, -0.2, 0.0]) + R_room_world.apply(phi[:, 22:25])
    phi[:, 25:28] = (R_room_world * Rotation.from_rotvec(phi[:, 25:28])).as_rotvec()
    np.testing.assert_array_equal(ways.find(dataclasses.replace(motions, phi=phi), 3), truth)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (np.arange(29), "29 motions are too few to tell 3 ways apart; at least 10"),
        (np.zeros(40, int), "only 1 ways in 40 motions; 3 are wanted"),
    ],
)
def test_few_or_equal_motions_are_refused(motions, chosen, message):
    some = motion_set.take(motions, chosen)
    with pytest.raises(DatasetError, match=message):
        ways.find(some, 3)
    np.testing.assert_array_equal(ways.find(some, 1), 0)


def test_a_window_knows_the_way_of_its_motion(motions, truth):
    which = np.array([3, 50, 3])
    of = windows.at(motions, which, np.array([0, 10, 20]), truth)
    np.testing.assert_array_equal(of.way, truth[which])
    np.testing.assert_array_equal(windows.at(motions, which, which).way, 0)
    drawn = windows.batch(motions, 64, 0, 0, truth)
    for goal, way in zip(drawn.goal, drawn.way, strict=True):
        motion = int(np.flatnonzero((motions.phi[motions.first[1:] - 1] == goal).all(1))[0])
        assert way == truth[motion]
