"""The benchmark of the whole work measures what it says."""

import pytest

from benchmarks import throughput


@pytest.mark.slow
@pytest.mark.long
def test_what_is_made_is_counted() -> None:
    drops = throughput.drops((4,), repeats=1)
    assert [(t.name, t.items) for t in drops] == [("native, 4 at once", 4)]
    made = throughput.generation((4,), repeats=1)
    assert [t.name for t in made] == [
        "raw, 4 at once",
        "refined, best of 1, 4 at once",
        "refined, best of 8, 4 at once",
    ]
    (found,) = throughput.validated(4, ("body_lotion",))
    assert found.made == 4
    assert 0 <= found.held <= 4
    assert found.per_second == pytest.approx(found.held / (found.generation_s + found.physics_s))
    (steps,) = throughput.training(2, ("smoke",))
    assert steps.items == 2
    assert steps.median_s > 0.0
