"""Numbers of exposures: as they were made, whatever clocks, arrivals and losses do."""

import numpy as np
import pytest

from capture.exposures import Counter

FPS = 15
LATE_US = 20_000.0
"""Most that a frame is on its way longer than the quickest; with half a period, what is told."""


def session(rng: np.random.Generator, count: int = 3000):
    """True numbers, stamps (us) and arrivals (ns) of the frames that come."""
    kept = np.ones(count, bool)
    for begin in rng.integers(1, count, 40):
        kept[begin : begin + rng.integers(1, 25)] = False
    true_us = 1e6 / FPS * np.arange(count) * (1.0 + 1e-4 * rng.uniform(-1, 1))
    stamps = true_us + 50.0 * rng.normal(size=count) + rng.uniform(0, 1e9)
    for at in rng.integers(1, count, 12):
        # A step back by little just where frames are lost is not told from fewer lost frames.
        near = 0.08 if kept[at - 1] and kept[at] else 1.0
        stamps[at:] += 1e6 * rng.choice([-1.0, 1.0]) * rng.uniform(near, 40.0)
    arrivals = 1e3 * (true_us + 30_000.0 + LATE_US * rng.beta(1.0, 6.0, count) + 5e12)
    return np.flatnonzero(kept), stamps[kept].round().astype(int), arrivals[kept].astype(int)


@pytest.mark.parametrize("seed", range(8))
def test_numbers_are_those_of_the_pulses_whatever_is_lost_and_set(seed):
    numbers, stamps, arrivals = session(np.random.default_rng(seed))
    counter = Counter(FPS)
    found = [
        counter.number(stamp, host)
        for stamp, host in zip(stamps.tolist(), arrivals.tolist(), strict=True)
    ]
    np.testing.assert_array_equal(found, numbers - numbers[0])
    # Stamps alone count steps as losses.
    alone = Counter(FPS)
    assert [alone.number(stamp) for stamp in stamps.tolist()] != found


def test_drift_adds_up_to_no_frame():
    """Ten minutes in which the two clocks part by five frames."""
    counter, rate = Counter(FPS), 1.0 + 600e-6
    stamps = (np.arange(600 * FPS) * 1e6 / FPS * rate).tolist()
    found = [counter.number(round(s), round(1e3 * s / rate)) for s in stamps]
    assert found == list(range(len(stamps)))


def test_a_beginning_that_is_told_counts_what_was_missed():
    counter = Counter(FPS, begin_us=1_000_000)
    assert [counter.number(1_000_000 + k * 66_667) for k in (3, 4, 7)] == [3, 4, 7]
    assert Counter(FPS, begin_us=1_000_000).number(1_000_150) == 0
