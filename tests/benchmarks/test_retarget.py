"""The retargeting benchmark measures what it says."""

import pytest

from benchmarks import retarget


@pytest.mark.slow
def test_rates_and_misses_are_of_the_same_runs():
    timings, misses = retarget.measure(poses=40, repeats=2)
    assert [t.name for t in timings] == [m.name for m in misses]
    assert all(t.items == 40 and t.per_second > 0 for t in timings)
    assert all(0.0 <= m.median_mm < retarget.TARGET_MM for m in misses)
    assert all(m.median_mm <= m.worst_mm for m in misses)
