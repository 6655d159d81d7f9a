"""The picture benchmark measures what it says."""

from benchmarks import pictures


def test_each_object_is_timed_for_its_grasps():
    timings = pictures.measure(names=1, grasps=2, repeats=1)
    assert [t.items for t in timings] == [2]
    assert timings[0].per_second > 0.0
