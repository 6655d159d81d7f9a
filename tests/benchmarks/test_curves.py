"""Curves of cost: every size is timed, and how steeply they grow is reckoned from the last two."""

import pytest

from benchmarks import curves
from benchmarks.curves import Curve


@pytest.mark.slow
def test_every_program_is_timed_at_every_size() -> None:
    found = curves.measure(hands=(2, 8), points=(16, 64), repeats=1)
    assert {curve.axis for curve in found} == {"hands", "points"}
    for curve in found:
        assert curve.sizes == ((2, 8) if curve.axis == "hands" else (16, 64))
        assert min(curve.seconds) > 0.0
    panels = curves.plot(found).axes
    assert sorted(panel.get_xlabel() for panel in panels) == ["hands", "points"]
    assert sum(len(panel.lines) for panel in panels) == len(found)


def test_the_exponent_is_that_of_the_largest_sizes() -> None:
    assert Curve("a", "hands", (1, 10, 100), (5.0, 1.0, 100.0)).exponent == pytest.approx(2.0)
