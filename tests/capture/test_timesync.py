"""Clocks by stamps: maps compose and invert, lines are least squares', pulses find each other."""

import numpy as np
import pytest

from capture import timesync
from capture.recording import Stamps
from capture.timesync import ClockMap, SyncError
from sim import clocks
from sim.clocks import Clock, Clocks

EPOCH = 1_764_000_000_000_000_000
"""Nanoseconds since 1970: what a double cannot hold to the microsecond's thousandth."""


def stamps(rig: Clocks, camera: int, count: int = 300, *, first: int = 0, seed: int = 0) -> Stamps:
    """Of a camera that counts from its own start, whose arrivals are late and uneven."""
    rng = np.random.default_rng([seed, camera])
    pulses = np.arange(count)
    exposed = np.array([rig.exposure_s(camera, k) for k in pulses])
    device = np.array([rig.device_ns(camera, k) for k in pulses])
    host = np.rint(1e9 * (exposed + 0.02 + rng.exponential(0.003, count))).astype(np.int64)
    kept = rng.random(count) > 0.05
    return Stamps(pulses[kept] - first, device[kept], host[kept] + 10**12)


def test_maps_invert_and_compose() -> None:
    one = ClockMap(EPOCH, EPOCH + 417_000_123, 83.0, 1e-4, 2.0)
    two = ClockMap(EPOCH + 10**9, 55_000_000_077, -41.0, 2e-4, 3.0)
    at = EPOCH + np.array([-(10**11), 0, 1, 10**9, 3 * 10**11])
    assert np.abs(one.inverse()(one(at)) - at).max() <= 2
    both = timesync.chained(one, two)
    assert np.abs(both(at) - two(one(at))).max() <= 2
    assert both.offset_error_s == pytest.approx(np.hypot(1e-4, 2e-4), rel=1e-3)


def test_a_line_is_that_of_least_squares_and_outliers_do_not_pull_it() -> None:
    rng = np.random.default_rng(0)
    x = np.arange(200) * 66_666_667 + EPOCH
    y = np.rint(1e-9 * 0 + (x - EPOCH) * (1 + 60e-6) + 5e8 + rng.normal(0, 5e4, 200)).astype(int)
    found = timesync.fit(x, y)
    slope, start = np.polyfit(1e-9 * (x - found.from_ns), 1e-9 * (y - (x - EPOCH)), 1)
    assert found.drift_ppm == pytest.approx(1e6 * slope, abs=0.5)
    assert found.to_ns + EPOCH - found.from_ns == pytest.approx(1e9 * start, abs=2e4)
    wrong = y.copy()
    wrong[::9] += 30_000_000
    assert np.abs(timesync.fit(x, wrong)(x) - found(x)).max() < 3e4


def test_standard_errors_are_those_of_many_draws() -> None:
    x = np.arange(60) * 66_666_667
    offs, errors = [], []
    for seed in range(300):
        y = np.rint(x + np.random.default_rng(seed).normal(0, 5e4, 60)).astype(np.int64)
        found = timesync.fit(x, y)
        offs.append([found.offset_s, found.drift_ppm])
        errors.append([found.offset_error_s, found.drift_error_ppm])
    # Of 300 draws a spread is known to 4 %.
    np.testing.assert_allclose(np.std(offs, axis=0), np.mean(errors, axis=0), rtol=0.15)


@pytest.mark.parametrize("first", [0, 7, -4])
def test_cameras_on_the_cable_follow_the_main_one(first: int) -> None:
    rig = clocks.draw(4, 11, drift_ppm=100.0)
    main = stamps(rig, 0)
    for camera in (1, 3):
        other = stamps(rig, camera, first=first)
        found = timesync.follow(main, other, delay_s=camera * clocks.STAGGER)
        true_s = np.linspace(0, 20, 50)
        wrong = found(rig.cameras[camera].says(true_s)) - rig.cameras[0].says(true_s)
        # 70 us of jitter of both over 270 frames: 4 us; three times that at the ends.
        assert np.abs(wrong).max() < 30_000


def test_cameras_without_a_cable_are_told_apart() -> None:
    half = Clocks((Clock(), Clock()), wired=True)
    main = stamps(half, 0)
    late = Stamps(main.number, main.device_ns, main.host_ns + int(0.5e9 / 15))
    with pytest.raises(SyncError, match="pulses"):
        timesync.follow(main, late)


def test_too_little_is_refused() -> None:
    rig = clocks.draw(2, 3)
    main = stamps(rig, 0)
    with pytest.raises(SyncError, match="at least 3"):
        timesync.follow(main, Stamps(*(x[:2] for x in (main.number, main.device_ns, main.host_ns))))
    with pytest.raises(SyncError, match="different times"):
        timesync.fit(np.zeros(5, np.int64), np.arange(5))
    still = np.zeros(100)
    with pytest.raises(SyncError, match="no motion"):
        timesync.by_speed(np.arange(100) / 15, still, np.arange(100) / 15, still)


def test_arrivals_tell_a_clock_to_their_jitter() -> None:
    rig = clocks.draw(1, 5)
    one = stamps(rig, 0)
    found = timesync.by_arrival(one)
    true_s = np.linspace(0, 20, 20)
    late = found(rig.cameras[0].says(true_s)) - 10**12 - 1e9 * true_s
    # 20 ms and the median or mean of 3 ms on top.
    assert np.abs(late - 22.5e6).max() < 2e6


@pytest.mark.parametrize("offset", [-0.437, 0.0, 0.281])
def test_speeds_tell_the_offset_between_samples(offset: float) -> None:
    rng = np.random.default_rng(1)

    def speed(t: np.ndarray) -> np.ndarray:
        return np.abs(np.sin(1.3 * t) + 0.6 * np.sin(3.1 * t + 1.0))

    seen_s, robot_s = np.arange(0, 20, 1 / 15), np.arange(-2, 22, 1 / 125)
    seen = 40.0 * speed(seen_s) + rng.normal(0, 2.0, len(seen_s))
    found, correlation = timesync.by_speed(seen_s, seen, robot_s, speed(robot_s - offset))
    assert found == pytest.approx(offset, abs=0.004)  # a sixteenth of a frame
    assert correlation > 0.95
