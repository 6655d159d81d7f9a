"""What a trajectory is between its points, against SciPy's Hermite splines."""

import dataclasses

import numpy as np
import pytest
from scipy.interpolate import CubicHermiteSpline

from robot import curve, limits
from robot.interface import RobotError, Trajectory


def random_trajectory(rng, points=12, joints=4):
    t = np.concatenate([[0.0], np.cumsum(rng.uniform(0.05, 0.3, points - 1))])
    q, qd = rng.normal(size=(points, joints)), rng.normal(size=(points, joints))
    return Trajectory(tuple(f"j{i}" for i in range(joints)), t, q, qd)


def test_sample_is_scipys_spline(rng):
    made = random_trajectory(rng)
    spline = CubicHermiteSpline(made.t, made.q, made.qd)
    t = np.linspace(0.0, made.t[-1], 501)
    q, qd = curve.sample(made, t)
    np.testing.assert_allclose(q, spline(t), atol=1e-12)
    np.testing.assert_allclose(qd, spline(t, 1), atol=1e-10)
    outside, rest = curve.sample(made, np.array([-1.0, made.t[-1] + 1.0]))
    np.testing.assert_allclose(outside, made.q[[0, -1]])
    np.testing.assert_array_equal(rest, 0.0)


def test_extremes_are_what_dense_samples_approach(rng):
    for _ in range(20):
        made = random_trajectory(rng)
        spline = CubicHermiteSpline(made.t, made.q, made.qd)
        found = curve.extremes(made)
        for i in range(len(made.t) - 1):
            t = np.linspace(made.t[i], made.t[i + 1] - 1e-9, 400)
            np.testing.assert_allclose(found.high[i], spline(t).max(0), atol=1e-4)
            np.testing.assert_allclose(found.low[i], spline(t).min(0), atol=1e-4)
            np.testing.assert_allclose(found.rate[i], np.abs(spline(t, 1)).max(0), rtol=1e-3)
            np.testing.assert_allclose(
                found.acceleration[i], np.abs(spline(t, 2)).max(0), rtol=1e-4, atol=1e-6
            )
            assert (found.jerk[i] >= np.abs(spline(t[:1], 3))[0] - 1e-6).all()


def test_straight_lines_have_their_own_speed():
    made = Trajectory(("a",), np.array([0.0, 1.0]), np.array([[0.0], [2.0]]), np.full((2, 1), 2.0))
    found = curve.extremes(made, from_rest=False)
    assert found.rate == pytest.approx(2.0)
    assert found.acceleration == pytest.approx(0.0, abs=1e-9)
    assert found.low == pytest.approx(0.0)
    assert found.high == pytest.approx(2.0)


def test_windows_lie_on_the_path_and_end_at_rest(short_plan):
    whole = short_plan.trajectory
    dense, _ = curve.sample(whole, np.linspace(0.0, whole.t[-1], 20001))
    for at in np.linspace(0.0, whole.t[-1], 37):
        part = curve.window(whole, float(at), 0.3, 0.5)
        assert part.t[0] == 0.0
        assert (np.diff(part.t) > 0).all()
        assert np.abs(part.qd[-1]).max() < 1e-9
        early = part.t <= 0.3
        begin = min(at, whole.t[-1] - curve.STEP)
        np.testing.assert_allclose(
            part.q[early], curve.sample(whole, begin + part.t[early])[0], atol=1e-9
        )
        for t in np.linspace(0.3, float(part.t[-1]), 7):
            q, _ = curve.sample(part, np.array([t]))
            assert np.abs(dense - q).max(1).min() < 1e-3


def test_digest_tells_the_least_change(short_plan):
    made = short_plan.trajectory
    digest = curve.digest(made)
    assert digest == curve.digest(dataclasses.replace(made, q=made.q.copy()))
    other = made.q.copy()
    other[100, 3] = np.nextafter(other[100, 3], 9.0)
    assert digest != curve.digest(dataclasses.replace(made, q=other))
    names = (limits.NAMES[1], limits.NAMES[0], *limits.NAMES[2:])
    assert digest != curve.digest(dataclasses.replace(made, names=names))


@pytest.mark.parametrize("speed", [0.0, -1.0, np.nan, np.inf])
def test_speeds_that_are_none_are_refused(short_plan, speed):
    with pytest.raises(RobotError, match="must be positive"):
        curve.scaled(short_plan.trajectory, speed)
