"""Records to messages and back, with stand-ins of ROS's types: what is lost, what is refused."""

from types import SimpleNamespace as Bag

import numpy as np
import pytest

from robot import messages
from robot.interface import JointState, RobotError, Trajectory


def stamp():
    return Bag(sec=0, nanosec=0)


def empty(kind):
    return {
        "states": lambda: Bag(header=Bag(stamp=stamp()), name=[], position=[], velocity=[]),
        "trajectory": lambda: Bag(header=Bag(stamp=stamp()), joint_names=[], points=[]),
        "pose": lambda: Bag(
            header=Bag(stamp=stamp(), frame_id=""), pose=Bag(orientation=Bag(), position=Bag())
        ),
        "text": lambda: Bag(data=""),
    }[kind]()


def point():
    return Bag(positions=[], velocities=[], time_from_start=Bag(sec=0, nanosec=0))


def there_and_back(kind, record, stamp_s):
    message = empty(kind)
    messages.encode(kind, record, stamp_s, message, point)
    return messages.decode(kind, message)


def test_states(rng):
    state = JointState(0.0, 0.0, ("a", "b"), *rng.normal(size=(2, 2)))
    back, stamp_s = there_and_back("states", state, 1_700_000_000.25)
    assert back.names == state.names
    assert stamp_s == back.stamp_s == 1_700_000_000.25
    np.testing.assert_array_equal(back.q, state.q)
    np.testing.assert_array_equal(back.qd, state.qd)


def test_trajectories(rng):
    t = np.array([0.0, 0.999_999_999_6, 1.5, 20.123_456_789])
    sent = Trajectory(("a", "b", "c"), t, *rng.normal(size=(2, 4, 3)))
    back, stamp_s = there_and_back("trajectory", sent, 3.5)
    assert (back.names, stamp_s) == (sent.names, 3.5)
    np.testing.assert_allclose(back.t, t, atol=0.6e-9)  # whole nanoseconds
    np.testing.assert_array_equal(back.q, sent.q)
    np.testing.assert_array_equal(back.qd, sent.qd)


def test_poses_and_texts():
    pose = np.array([0.5, -0.5, 0.5, 0.5, 1.0, 2.0, 3.0])
    back, _ = there_and_back("pose", pose, 1.0)
    np.testing.assert_array_equal(back, pose)
    assert there_and_back("text", "stuck", 0.0)[0] == "stuck"


def test_what_has_not_one_value_for_each_joint_is_nan():
    message = empty("states")
    message.name, message.position = ["a", "b"], [1.0, 2.0]
    state, _ = messages.decode("states", message)
    np.testing.assert_array_equal(state.q, [1, 2])
    assert np.isnan(state.qd).all()
    message = empty("trajectory")
    message.joint_names = ["a", "b"]
    message.points = [point()]
    message.points[0].positions = [1.0, 2.0, 3.0]
    trajectory, _ = messages.decode("trajectory", message)
    assert np.isnan(trajectory.q).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("field", ["t", "q", "qd"])
def test_nothing_that_is_not_finite_leaves(field, value):
    arrays = {"t": np.array([0.0, 1.0]), "q": np.zeros((2, 1)), "qd": np.zeros((2, 1))}
    arrays[field][1] = value
    message = empty("trajectory")
    with pytest.raises(RobotError, match="finite"):
        messages.encode("trajectory", Trajectory(("a",), **arrays), 0.0, message, point)
    assert message.points == []
