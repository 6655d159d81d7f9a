"""The trajectory controller's laws: nothing jumps, a hold holds, what does not fit is refused."""

import dataclasses
import re

import numpy as np
import pytest
from scipy.interpolate import CubicHermiteSpline

from robot import controller
from robot.controller import ControllerConfig
from robot.interface import Trajectory

CONFIG = ControllerConfig(names=("a", "b", "c"))


def swing(q0, q1, seconds=2.0, points=6, names=("a", "b", "c"), first=0.0):
    u = np.linspace(0.0, 1.0, points)[:, None]
    w, wd = u * u * (3 - 2 * u), 6 * u * (1 - u) / seconds
    q0, q1 = np.asarray(q0, float), np.asarray(q1, float)
    return Trajectory(names, first + seconds * u[:, 0], q0 + w * (q1 - q0), wd * (q1 - q0))


def test_between_points_runs_the_cubic_of_scipy(rng):
    t = np.cumsum(rng.uniform(0.05, 0.5, 9))
    q, qd = rng.normal(size=(2, 9, 3))
    state = controller.ControllerState(t, q, qd)
    spline = CubicHermiteSpline(t, q, qd)
    for at in rng.uniform(t[0], t[-1] - 1e-6, 200):
        found = controller.wanted(state, at)
        np.testing.assert_allclose(found[0], spline(at), atol=1e-12)
        np.testing.assert_allclose(found[1], spline(at, 1), atol=1e-10)


def test_a_trajectory_is_followed_to_its_end_in_any_order_of_joints():
    shuffled = swing([3, 1, 2], [4, 1, 2.5], names=("c", "a", "b"))
    state, reason = controller.accept(
        CONFIG, controller.init(np.array([1.0, 2, 3])), shuffled, 5, 5
    )
    assert reason == ""
    q, qd = controller.wanted(state, 5.0 + 2.0)
    np.testing.assert_allclose(q, [1, 2.5, 4])
    assert not qd.any()
    q, qd = controller.wanted(state, 100.0)
    np.testing.assert_allclose(q, [1, 2.5, 4])


def test_replacing_never_jumps(rng):
    """Position and velocity are continuous at every replacement, at whatever time and place."""
    state, now = controller.init(np.zeros(3)), 0.0
    for _ in range(300):
        before = controller.wanted(state, now)
        if rng.random() < 0.2:
            state = controller.hold(CONFIG, state, now)
        else:
            goal = rng.normal(size=3)
            state, reason = controller.accept(
                CONFIG, state, swing(goal, goal + 1.0, first=rng.uniform(0.02, 1.0)), now, now
            )
            assert reason == ""
        after = controller.wanted(state, now)
        np.testing.assert_allclose(after[0], before[0], atol=1e-12)
        np.testing.assert_allclose(after[1], before[1], atol=1e-12)
        now += rng.uniform(0.0, 0.4)


def test_windows_of_one_trajectory_are_that_trajectory():
    """Sent piece by piece, each late by a little but stamped, they make the same course."""
    whole = swing([0, 0, 0], [1, -1, 2], points=101)
    state = controller.init(np.zeros(3))
    for k in range(0, 80, 5):
        part = Trajectory(whole.names, whole.t[k:] - whole.t[k], whole.q[k:], whole.qd[k:])
        now = float(whole.t[k]) + 0.004
        state, reason = controller.accept(CONFIG, state, part, float(whole.t[k]), now)
        assert reason == ""
        for at in np.linspace(now, now + 0.1, 7):
            i = np.searchsorted(whole.t, at) - 1
            expected, _ = controller.cubic(
                whole.t[i : i + 2], whole.q[i : i + 2], whole.qd[i : i + 2], at
            )
            # A new cubic is fitted from now to the next point: off by less than a hundredth.
            np.testing.assert_allclose(controller.wanted(state, at)[0], expected, atol=1e-4)


def test_a_start_elsewhere_is_refused():
    state = controller.init(np.zeros(3))
    same, reason = controller.accept(CONFIG, state, swing([0, 0.0101, 0], [1, 1, 1]), 0.0, 0.0)
    assert same is state
    assert "begins with b at 0.0101 rad, the joint is at 0.0000; at most 0.01" in reason
    _, reason = controller.accept(CONFIG, state, swing([0, 0.0099, 0], [1, 1, 1]), 0.0, 0.0)
    assert reason == ""
    # Late by more than the start allows: where it should be by now is elsewhere.
    _, reason = controller.accept(CONFIG, state, swing([0, 0, 0], [1, 1, 1]), -0.5, 0.0)
    assert "begins with a" in reason
    _, reason = controller.accept(CONFIG, state, swing([0, 0, 0], [1, 1, 1]), -5.0, 0.0)
    assert "it ended 3.000 s ago" in reason


def test_a_cancelled_goal_brakes_evenly_and_holds():
    state, _ = controller.accept(
        CONFIG, controller.init(np.zeros(3)), swing([0] * 3, [1, -2, 0]), 0, 0
    )
    q, qd = controller.wanted(state, 1.0)
    held = controller.hold(CONFIG, state, 1.0)
    assert not held.has_goal
    end = 1.0 + CONFIG.brake_s
    for u in np.linspace(0.0, 1.0, 9):
        speed = controller.wanted(held, 1.0 + u * CONFIG.brake_s)[1]
        np.testing.assert_allclose(speed, (1 - u) * qd, atol=1e-12)
    np.testing.assert_allclose(controller.wanted(held, end)[0], q + 0.5 * CONFIG.brake_s * qd)
    np.testing.assert_array_equal(controller.wanted(held, 9.0)[0], controller.wanted(held, end)[0])
    # A second hold changes nothing.
    again = controller.hold(CONFIG, held, 2.0)
    np.testing.assert_array_equal(controller.wanted(again, 9.0)[0], controller.wanted(held, 9.0)[0])


def broken(field, value):
    return dataclasses.replace(swing([0, 0, 0], [1, 1, 1]), **{field: value})


def with_nan(field):
    value = getattr(swing([0, 0, 0], [1, 1, 1]), field).copy()
    value[2] = np.nan
    return broken(field, value)


@pytest.mark.parametrize(
    ("trajectory", "told"),
    [
        (with_nan("q"), "q of a at point 2 is nan"),
        (with_nan("qd"), "qd of a at point 2 is nan"),
        (with_nan("t"), "times do not rise"),
        (broken("names", ("a", "b", "d")), r"missing: \['c'\]; unknown or twice: \['d'\]"),
        (broken("names", ("a", "b", "b")), r"missing: \['c'\]; unknown or twice: \['b', 'b'\]"),
        (broken("t", np.array([0, 0.1, 0.1, 0.2, 0.3, 0.4])), "times do not rise"),
        (broken("t", np.array([-0.1, 0.1, 0.12, 0.2, 0.3, 0.4])), "times do not rise"),
        (broken("qd", np.ones((6, 3))), "does not end at rest"),
        (Trajectory(("a", "b", "c"), np.zeros(0), *np.zeros((2, 0, 3))), "no points"),
    ],
)
def test_what_cannot_be_followed_is_refused(trajectory, told):
    state = controller.init(np.zeros(3))
    same, reason = controller.accept(CONFIG, state, trajectory, 0.0, 0.0)
    assert same is state
    assert re.search(told, reason)


def test_speeds_a_joint_is_not_able_to_are_refused():
    config = dataclasses.replace(CONFIG, max_rate=(1.0, 1.0, 1.0))
    state = controller.init(np.zeros(3))
    _, reason = controller.accept(config, state, swing([0, 0, 0], [0, 1.3, 0]), 0.0, 0.0)
    assert reason == ""  # its greatest speed is 0.975 rad/s
    _, reason = controller.accept(config, state, swing([0, 0, 0], [0, 1.4, 0]), 0.0, 0.0)
    assert "rad/s of b, which is able to 1.00" in reason
    # Two joints on one tendon may change places as fast as they like.
    config = dataclasses.replace(config, pairs=((0, 1),))
    _, reason = controller.accept(config, state, swing([0, 0, 0], [-4, 4, 0]), 0.0, 0.0)
    assert reason == ""


def test_tolerances_abort_and_give_way():
    config = dataclasses.replace(CONFIG, path_rad=0.2, goal_rad=0.1)
    state, _ = controller.accept(
        config, controller.init(np.zeros(3)), swing([0] * 3, [1] * 3), 0, 0
    )
    q, _ = controller.wanted(state, 1.0)
    assert controller.judge(config, state, 1.0, q + 0.19) == (state, "")
    after, told = controller.judge(config, state, 1.0, q - np.array([0, 0.3, 0]))
    assert told == "b is 0.300 rad off, path tolerance 0.2"
    np.testing.assert_allclose(controller.wanted(after, 9.0)[0], q - np.array([0, 0.3, 0]))
    after, told = controller.judge(config, state, 1.0, np.array([0.5, np.nan, 0.5]))
    assert "b is nan" in told
    assert np.isfinite(controller.wanted(after, 9.0)[0]).all()
    late = 2.0 + config.goal_s
    _, told = controller.judge(config, state, late, np.array([1, 1, 0.85]))
    assert told == "c is 0.150 rad off, goal tolerance 0.1"
    done, told = controller.judge(config, state, late, np.array([1, 1, 0.95]))
    assert told == ""
    assert not done.has_goal
    assert controller.judge(config, done, 99.0, np.zeros(3)) == (done, "")
