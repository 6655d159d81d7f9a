"""The rollout benchmark measures what it says."""

import pytest

from benchmarks import rollout


@pytest.mark.slow
@pytest.mark.long
def test_all_methods_are_timed_on_the_same_motions():
    timings = rollout.compare(motions=3, frames=12, repeats=2)
    assert [t.name for t in timings] == ["MotionNet", "MotionNet, aware", "GOAL", "SAGA"]
    assert all(t.items == 3 for t in timings)
    assert all(0.0 < t.low_s <= t.median_s <= t.high_s for t in timings)
