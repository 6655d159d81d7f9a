"""The rig's clocks: exposures in order and apart, stamps as wrong as they are said to be."""

import numpy as np
import pytest

from sim import clocks
from sim.clocks import STAGGER, Clock, Clocks
from sim.kinect import CameraError


def test_a_clock_says_what_offset_and_drift_make_of_true_time():
    clock = Clock(offset_s=-0.25, drift_ppm=40.0)
    true = np.array([0.0, 1.0, 3600.0])
    assert clock.says(true).tolist() == [-250_000_000, 750_040_000, 3_599_894_000_000]
    # Half a nanosecond of rounding, and what doubles lose near an hour.
    np.testing.assert_allclose(clock.true(clock.says(true)), true, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_wired_cameras_follow_the_pulse_apart_and_in_order(seed):
    timing = clocks.draw(4, seed)
    at = np.array([[timing.exposure_s(c, k) for c in range(4)] for k in range(200)])
    np.testing.assert_allclose(np.diff(at, axis=1), STAGGER, atol=1e-12)
    assert (np.diff(at[:, 0]) > 0.9 / 15).all()
    # The pulse is the main clock's: by it, frames come at the rate asked for.
    rate = timing.cameras[0].rate * (at[-1, 0] - at[0, 0]) / 199
    assert rate == pytest.approx(1 / 15, abs=4 * 20e-6 / 199)


def test_stamps_tell_each_cameras_offset_and_drift():
    timing = clocks.draw(4, 5, offset_s=0.3, drift_ppm=100.0)
    frames = np.arange(0, 6000, 20)
    for c, clock in enumerate(timing.cameras):
        true = np.array([timing.exposure_s(c, int(k)) for k in frames])
        says = 1e-9 * np.array([timing.device_ns(c, int(k)) for k in frames])
        slope, offset = np.polyfit(true, says, 1)
        # Three hundred stamps of 50 us over 400 s: both to four standard deviations of the fit.
        assert 1e6 * (slope - 1) == pytest.approx(clock.drift_ppm, abs=4 * 0.025)
        assert offset == pytest.approx(clock.offset_s, abs=4 * 6e-6)
        assert np.std(says - offset - slope * true) == pytest.approx(50e-6, rel=0.2)
    assert len({c.offset_s for c in timing.cameras}) == 4
    assert max(abs(c.drift_ppm) for c in timing.cameras) <= 100.0


def test_without_the_cable_every_camera_goes_by_its_own_clock():
    timing = clocks.draw(3, 1, wired=False)
    begin = [timing.exposure_s(c, 0) for c in range(3)]
    assert np.ptp(begin) > 1e-3
    late = [timing.exposure_s(c, 15 * 3600) - begin[c] for c in range(3)]
    expected = [3600.0 / c.rate for c in timing.cameras]
    np.testing.assert_allclose(late, expected, atol=2e-4)


def test_the_same_seed_gives_the_same_times_in_any_order():
    a, b = clocks.draw(2, 9), clocks.draw(2, 9)
    forwards = [a.device_ns(1, k) for k in range(20)]
    assert [b.device_ns(1, k) for k in reversed(range(20))] == forwards[::-1]
    assert clocks.draw(2, 10).device_ns(1, 0) != forwards[0]


def test_what_cannot_be_is_refused():
    with pytest.raises(CameraError, match="100 us apart; they must be 160 us"):
        Clocks((Clock(),), stagger_s=100e-6)
    with pytest.raises(CameraError, match="0 cameras at 15"):
        Clocks(())
    with pytest.raises(CameraError, match="exposure 0 of camera 2; cameras are 0 to 0"):
        Clocks((Clock(),)).exposure_s(2, 0)
