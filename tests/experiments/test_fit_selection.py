"""Weights that are fitted to grasps of known outcome, and the page that shows them."""

import json

import charts
import numpy as np
import pytest
from rich.console import Console

from experiments import fit_page, fit_selection
from experiments.fit_selection import FitSelection
from realdex_jax.errors import ConfigError
from realdex_jax.evaluation import tables
from realdex_jax.select import prompt


def grasps(count, seed):
    """Answers of which only the second tells which grasps are good; the last is never known."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=(count, 6))
    y = x[:, 1] + rng.normal(0.0, 0.15, count) > 0.5
    x[:, 5] = np.nan
    return x, y


def test_the_question_that_tells_weighs_most():
    x, y = grasps(400, 0)
    found = fit_selection.fit(x, y)
    assert max(found.weights, key=found.weights.__getitem__) == "part"
    assert found.weights["part"] > 0.4
    assert sum(found.weights.values()) == pytest.approx(1.0, abs=5e-3)  # three digits each
    better = found.mean[y][:, None] > found.mean[~y]
    assert found.ordered == pytest.approx(better.mean())
    assert found.ordered > 0.8
    # The curve's chances are those that the grasps had.
    chance = 1 / (1 + np.exp(-found.slope * (found.mean - found.middle)))
    assert chance.mean() == pytest.approx(y.mean(), abs=0.02)
    with pytest.raises(ConfigError, match="a fit needs both kinds"):
        fit_selection.fit(x, np.ones(400, bool))


def test_the_page_shows_weights_answers_and_what_the_score_tells(tmp_path, monkeypatch):
    made = iter(range(100))
    monkeypatch.setattr(fit_selection, "_graded", lambda *_: grasps(40, next(made)))
    fit_selection.run(FitSelection(every=10, out=tmp_path), Console(quiet=True))
    raw = json.loads((tmp_path / "results.json").read_text())
    assert raw["grasps"] == 40 * next(made)
    page = (tmp_path / "report.html").read_text()
    marks, words = charts.marks(page), charts.words(page)
    assert sum(name.startswith("weight-") for name in marks) == len(prompt.ASPECTS)
    assert marks["answers-good"] == marks["answers-others"] == 5  # of the sixth nothing is known
    assert marks["grasps-good"] == raw["good"]
    assert marks["grasps-others"] == raw["grasps"] - raw["good"]
    assert marks["shares"] == 10
    assert marks["curve"] == 1
    for name in prompt.ASPECTS:
        assert words.count(name) == 1
        assert f"{raw['weights'][name]:.2f}" in words


def test_parts_by_score_have_all_grasps_and_intervals_hold_their_share():
    _, y = grasps(100, 1)
    parts = fit_page.spans(np.linspace(0.0, 5.0, 100), y)
    assert parts[:, 2].tolist() == [17, 17, 17, 17, 16, 16]
    assert parts[:, 1].sum() == y.sum()
    assert (np.diff(parts[:, 0]) > 0).all()
    assert fit_page.spans(np.zeros(3), y[:3])[:, 2].tolist() == [3]
    # Newcombe (1998), Two-sided confidence intervals for the single proportion, table I.
    for good, of, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
    ):
        assert tables.share_interval(good, of) == pytest.approx((low, high), abs=1e-4)
