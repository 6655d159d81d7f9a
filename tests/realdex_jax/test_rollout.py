"""What a motion may begin and end with."""

import numpy as np
import pytest

from realdex_jax import rollout
from realdex_jax.errors import DatasetError
from realdex_jax.geometry import sdf
from realdex_jax.hand import joints
from realdex_jax.hand.load import load
from sim import objects


@pytest.fixture
def ends():
    start, goal = np.zeros((2, 3, 28), np.float32)
    start[:, 22:25], goal[:, :22] = (-0.3, 0.0, 0.3), joints.REST
    return start, goal, np.full(3, 20)


def test_sound_ends_pass(ends):
    rollout.check_ends(*ends)


@pytest.mark.parametrize("which", [0, 1])
def test_poses_that_are_not_finite_or_beyond_limits_are_named(ends, which):
    name = ("start", "goal")[which]
    ends[which][1, 24] = np.nan
    with pytest.raises(DatasetError, match=f"{name} of motion 1 is not finite"):
        rollout.check_ends(*ends)
    ends[which][1, 24] = 0.1
    ends[which][2, 3] = 3.0
    with pytest.raises(DatasetError, match=f"{name} of motion 2: FFJ1 = 3.000 rad"):
        rollout.check_ends(*ends)


def test_too_few_frames_and_odd_shapes_are_refused(ends):
    start, goal, steps = ends
    with pytest.raises(DatasetError, match="5 frames; a motion has at least 6"):
        rollout.check_ends(start, goal, np.full(3, 5))
    with pytest.raises(DatasetError, match="one of each per motion"):
        rollout.check_ends(start, goal[:2], steps)
    with pytest.raises(DatasetError, match=r"start has shape \(3, 27\)"):
        rollout.check_ends(start[:, :27], goal, steps)


def test_a_start_inside_object_or_table_is_refused(ends):
    start, _, _ = ends
    shape = objects.make("yogurt")
    grid = sdf.sample(lambda p: sdf.exact_distance(shape, p), shape.bounds, 30_000)
    placed = np.tile(np.array([1.0, 0, 0, 0, 0, 0, -shape.bounds[0, 2]], np.float32), (3, 1))
    rollout.check_clear(load(), grid, start, placed)
    inside = start.copy()
    inside[1, 22:25] = (0.0, 0.0, 0.05)
    with pytest.raises(DatasetError, match=r"start of motion 1 is \d+\.\d mm inside the object"):
        rollout.check_clear(load(), grid, inside, placed)
    under = start.copy()
    under[2, 24] = 0.0
    with pytest.raises(DatasetError, match=r"start of motion 2 is .* inside the table"):
        rollout.check_clear(load(), grid, under, placed)
