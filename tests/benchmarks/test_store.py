"""The store's benchmark measures what it says."""

import pytest

from benchmarks import store


@pytest.mark.slow
@pytest.mark.long
def test_a_small_one_is_converted_and_drawn_from():
    found = store.measure(objects=8, grasps=25, seconds=3.0, processes=2)
    assert (found.units, found.grasps, found.processes) == (40, 200, 2)
    assert found.dataset_bytes > 40 * 4096 * 12
    # A process that has imported jax has some hundred MB.
    assert 1e8 < found.convert_peak_bytes < store.TARGET_BYTES
    assert found.cold_per_second > 0
    assert found.per_second > 0
