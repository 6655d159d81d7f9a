"""Brakes: what their cubics ask for, by the extremes of curves; and the half second of a stop."""

import numpy as np
import pytest

from robot import brake, curve, limits, presets
from robot.executor import ExecutorConfig
from robot.interface import Trajectory

A, J = limits.STOP_ACCELERATION, limits.STOP_JERK
SLACK = 1.0 + 1e-9
CYCLE_S = 0.01


def followed(qd, brake_s, later_s, place=0.0, rate=0.0):
    """Extremes of what a controller does that hears of a stop so much later, elsewhere."""
    q = limits.HOME
    rest = brake.rest(q, qd, brake_s, -np.inf * np.ones(30), np.inf * np.ones(30))
    ends = np.stack([q + later_s * qd + place, rest])
    rates = np.stack([qd + rate, np.zeros(30)])
    way = Trajectory(limits.NAMES, np.array([0.0, brake_s]), ends, rates)
    return curve.extremes(way, from_rest=False)


@pytest.mark.parametrize("later_s", [0.0, limits.REACTION_S, 2.0 * limits.REACTION_S])
def test_a_brake_stays_within_accelerations_and_jerks(rng, later_s):
    for _ in range(200):
        qd = rng.uniform(-1.0, 1.0, 30) * limits.MAX_RATE * rng.random()
        brake_s = float(brake.seconds(qd, A, J).max())
        found = followed(qd, brake_s, later_s)
        assert (found.acceleration[0] <= A * SLACK).all()
        assert (found.jerk[0] <= J * SLACK).all()
        assert (found.rate[0] <= np.abs(qd) * SLACK + 1e-12).all()  # it never speeds up


def test_it_is_no_longer_than_it_must_be():
    """A tenth shorter, and the one that comes at once or late asks for too much."""
    brake_s = limits.BRAKE_S * 0.9
    found = [followed(limits.STOP_RATE, brake_s, x) for x in (0.0, 2.0 * limits.REACTION_S)]
    arm = [one.acceleration[0][limits.ARM] for one in found]
    assert np.max(arm, axis=0) == pytest.approx(1.166 * A[limits.ARM], rel=0.01)


def test_where_the_robot_may_be_elsewhere_it_takes_longer(rng):
    for _ in range(100):
        qd, d, w = (rng.uniform(-1, 1, 30) * x for x in (0.5, 0.05, 0.3))
        brake_s = float(brake.seconds(qd, A, J, np.abs(d), np.abs(w)).max())
        for sign in (-1.0, 1.0):
            found = followed(qd, brake_s, 0.0, sign * d, sign * w)
            assert (found.acceleration[0] <= A * SLACK).all()


def test_a_stop_is_at_rest_a_tenth_of_a_second_after_the_request():
    """Until it is followed at the latest, and the brake from the greatest speed of a plan."""
    assert 2.0 * limits.REACTION_S + brake.seconds(limits.STOP_RATE, A, J).max() <= 0.1
    assert (J * limits.BRAKE_S >= A / SLACK).all()  # jerk alone asks for no longer one


def test_only_stops_are_harder_than_plans():
    assert (limits.MAX_ACCELERATION < A).all()
    assert (limits.MAX_JERK < J).all()
    for name in ("shadow_ur10e", "plain_ur", "simulated"):
        preset = presets.read(name)
        assert preset.brake_s <= limits.BRAKE_S
        for part in preset.parts:
            rows = [limits.NAMES.index(joint) for joint in part.ours]
            assert (part.deceleration == A[rows]).all()


def test_half_a_second_is_enough_for_a_stop_from_the_greatest_speed():
    """Until it is followed, the brake, until it is seen, standing, and a step at either end."""
    config = ExecutorConfig()
    needed = brake.seconds(limits.STOP_RATE, A, J)
    assert needed[limits.ARM] == pytest.approx(limits.BRAKE_S)
    assert (needed <= limits.BRAKE_S * SLACK).all()
    reaction_s = 2.0 * limits.REACTION_S
    assert reaction_s + limits.BRAKE_S + config.still_s + 2 * CYCLE_S <= config.stop_within_s
    assert config.repeat_s > reaction_s + needed.max()  # asked again while it brakes: longer


def test_a_rest_is_within_limits():
    q, qd = np.array([0.99, -0.99, 1.02, 0.0]), np.array([1.0, -1.0, 0.0, 0.2])
    rest = brake.rest(q, qd, 0.2, -np.ones(4), np.ones(4))
    np.testing.assert_allclose(rest, [1.0, -1.0, 1.02, 0.022])
