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
        assert found.steps == ()
        true_s = np.linspace(0, 20, 50)
        wrong = found.maps[0](rig.cameras[camera].says(true_s)) - rig.cameras[0].says(true_s)
        # 70 us of jitter of both over 270 frames: 4 us; three times that at the ends.
        assert np.abs(wrong).max() < 30_000


def stepped(one: Stamps, share: float, step_s: float, *, from_stamps: bool = False) -> Stamps:
    """The same stamps of a clock that steps; on a Kinect numbers are counted from them."""
    after = np.arange(len(one.number)) >= int(share * len(one.number))
    number = one.number + after * (round(15 * step_s) if from_stamps else 0)
    return Stamps(number, one.device_ns + after * round(1e9 * step_s), one.host_ns)


@pytest.fixture(scope="module")
def minute() -> tuple[Clocks, dict[int, Stamps]]:
    """Of four cameras."""
    rig = clocks.draw(4, 11, drift_ppm=100.0)
    return rig, {c: stamps(rig, c, 900) for c in range(4)}


@pytest.mark.parametrize("share", [0.2, 0.5])
@pytest.mark.parametrize("step_s", [1.0, -1.0, -3.2])
@pytest.mark.parametrize("camera", [0, 2])
def test_a_clock_that_steps_costs_nothing(
    minute: tuple[Clocks, dict[int, Stamps]], camera: int, step_s: float, share: float
) -> None:
    rig, every = minute
    moved = stepped(every[camera], share, step_s, from_stamps=step_s > 0)
    told = every | {camera: moved}
    made = {0: timesync.steady(told[0])}
    made |= {c: timesync.follow(told[0], told[c], delay_s=c * clocks.STAGGER) for c in (1, 2)}
    assert [c for c in made if made[c].steps] == [camera]
    number, by = made[camera].steps[0]
    assert number == moved.number[int(share * len(moved.number))]
    assert by == pytest.approx(step_s, abs=0.01)
    for c, clock in made.items():
        # As the main clock would have said had it not stepped, at the true time of each stamp.
        true_s = rig.cameras[c].true(every[c].device_ns)
        wrong = clock(told[c]) - rig.cameras[0].says(true_s)
        # 50 us of jitter of each stamp; a step of the main clock is known to a third of that.
        assert np.abs(wrong - np.median(wrong)).max() < 400_000
        assert abs(np.median(wrong)) < 60_000
        assert (np.diff(clock(told[c])) > 0).all()


def test_what_comes_late_is_no_step() -> None:
    rig = clocks.draw(2, 11)
    main = stamps(rig, 0)
    late = main.host_ns.copy()
    late[50] += 400_000_000
    late[120:123] += np.array([300, 240, 180]) * 1_000_000
    late[-1] += 200_000_000
    assert not timesync.stretches(main.device_ns, late).any()
    # A driver that keeps a frame more from then on: numbers go on as stamps do.
    kept = late + (np.arange(len(late)) >= 90) * 67_000_000
    assert not timesync.between_steps(Stamps(main.number, main.device_ns, kept)).any()
    twice = stepped(stepped(main, 0.3, -0.2), 0.6, 0.7)
    part = timesync.between_steps(Stamps(twice.number, twice.device_ns, late))
    assert np.flatnonzero(np.diff(part)).tolist() == [
        int(share * len(part)) - 1 for share in (0.3, 0.6)
    ]


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_one_line_through_a_step_is_refused(share: float) -> None:
    x = np.arange(900) * 66_666_667 + EPOCH
    y = x - (np.arange(900) >= share * 900) * 3_200_000_000
    with pytest.raises(SyncError, match=rf"steps by -3\.200 s at pair {int(share * 900)} of 900"):
        timesync.fit(x, y)


def test_lines_that_no_clocks_make_are_refused() -> None:
    x = np.arange(600) * 66_666_667 + EPOCH
    with pytest.raises(SyncError, match=r"drift by \+800 millionths; no two .* more than 50"):
        timesync.fit(x, x + np.rint(8e-4 * (x - EPOCH)).astype(np.int64))
    off = np.zeros(600, np.int64)
    off[::4] = 20_000_000
    with pytest.raises(SyncError, match="25 % of 600 pairs of stamps are off their line"):
        timesync.fit(x, x + off)
    assert abs(timesync.fit(x, x + off, None).offset_s) < 1e-4  # of arrivals any may be late
    rng = np.random.default_rng(0)
    jitter = np.rint(rng.normal(0, 5e6, 600)).astype(np.int64)
    timesync.fit(x, x + jitter)
    with pytest.raises(
        SyncError, match=r"stamps scatter by [45]\.\d ms .* at most 2\.0 on the cable"
    ):
        timesync.fit(x, x + jitter, 0.002)


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
    late = found.maps[0](rig.cameras[0].says(true_s)) - 10**12 - 1e9 * true_s
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
