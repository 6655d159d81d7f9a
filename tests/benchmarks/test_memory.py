"""The memory benchmark measures both jobs, each in its own process."""

import pytest

from benchmarks import memory


@pytest.mark.slow
@pytest.mark.long
def test_both_jobs_are_measured() -> None:
    made, measured = memory.measure(grasps=16)
    assert (made.name, measured.name) == ("generation and refinement", "evaluation")
    for peak in (made, measured):
        assert peak.grasps == 16
        assert 2**28 < peak.peak_bytes < memory.TARGET_BYTES
        assert peak.seconds > 0.0
