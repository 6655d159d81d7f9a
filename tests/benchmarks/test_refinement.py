"""The refinement benchmark measures what it says."""

import pytest

from benchmarks import refinement
from realdex_jax.refine import RefineConfig


@pytest.mark.slow
@pytest.mark.long
def test_settings_are_set_against_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"one": RefineConfig(choices=1, steps=1), "two": RefineConfig(choices=2, steps=20)}
    monkeypatch.setattr(refinement, "SETTINGS", settings)
    one, two = refinement.compare(grasps=4, limit=1)
    assert (one.name, two.name) == ("one", "two")
    assert one.per_ms is None
    assert min(one.ms_per_grasp, two.ms_per_grasp) > 0.0
    assert two.per_ms == pytest.approx(
        (two.robust - one.robust) / max(two.ms_per_grasp - one.ms_per_grasp, 1e-9)
    )


@pytest.mark.slow
@pytest.mark.long
def test_the_parts_of_the_chain_add_up() -> None:
    timings = refinement.whole(grasps=8, limit=1)
    names = [t.name for t in timings]
    assert names == ["surface", "sample", "refine", "judge", "physics stage", "all"]
    assert timings[-1].median_s == pytest.approx(sum(t.median_s for t in timings[:-1]))
