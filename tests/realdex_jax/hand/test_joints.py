"""The joint table and its conversions."""

import numpy as np
import pytest

from realdex_jax.errors import JointError
from realdex_jax.hand import joints


def test_dexgraspnet_round_trip_and_the_four_flipped_joints():
    q = np.random.default_rng(0).uniform(joints.LOWER, joints.UPPER, (5, 22)).astype(np.float32)
    theirs = joints.to_dexgraspnet(q)
    np.testing.assert_array_equal(joints.from_dexgraspnet(theirs), q)
    flipped = {n for n, a, b in zip(joints.NAMES, q[0], theirs[0], strict=True) if a == -b != 0}
    assert flipped == {"FFJ4", "MFJ4", "THJ2", "THJ1"}
    assert joints.DEXGRASPNET_NAMES[0] == "robot0:FFJ3"
    assert joints.DEXGRASPNET_NAMES[-1] == "robot0:THJ0"


def test_reorder_takes_ros_names_in_any_order_and_drops_the_wrist():
    q = np.arange(22.0)
    names = [f"rh_{n}" for n in joints.NAMES]
    order = np.random.default_rng(1).permutation(22)
    shuffled = [names[i] for i in order]
    given = np.concatenate([q[order], [7.0, 8.0]])
    np.testing.assert_array_equal(joints.reorder(given, [*shuffled, "rh_WRJ2", "rh_WRJ1"]), q)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (joints.NAMES[:-1], "22 angles"),
        ((*joints.NAMES[:-1], "XXJ1"), "no angle for THJ1"),
        ((*joints.NAMES, "FFJ4"), "named twice: FFJ4"),
    ],
)
def test_reorder_names_what_is_wrong(names, message):
    count = 22 if len(names) < 22 else len(names)
    with pytest.raises(JointError, match=message):
        joints.reorder(np.zeros(count), names)


def test_rest_posture_is_within_the_limits_and_coupled():
    assert (joints.REST >= joints.LOWER).all()
    assert (joints.REST <= joints.UPPER).all()
    assert all(joints.REST[j1] <= joints.REST[j2] for j2, j1 in joints.COUPLED)
