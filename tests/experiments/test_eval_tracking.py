"""The tracker's evaluation: what it counts, and what it writes."""

import json

import numpy as np
import pytest
from rich.console import Console

from experiments import eval_tracking
from experiments.eval_tracking import EvalTracking, Judged
from experiments.tracking_trial import DISTURBANCES, Trial
from realdex_jax.errors import ConfigError

COUNT = 10


def trial(way_mm=1.0, lost=(), flagged=()) -> Trial:
    way = np.full(COUNT, way_mm / 1000.0)
    way[list(lost)] = 0.05
    flags = np.zeros(COUNT, bool)
    flags[list(flagged)] = True
    turn, cpu, wall = np.full(COUNT, 0.01), np.full(COUNT, 0.03), np.full(COUNT, 0.04)
    return Trial(way, turn, way / 2, np.ones(COUNT), flags, cpu, wall)


def judged(disturbed: Trial) -> Judged:
    trials = {kind: disturbed if kind == "hide" else trial() for kind in DISTURBANCES}
    return Judged("mug", 0, trials, ((0.001, 0.01, 2.0), (0.2, 0.01, 2.0)))


def test_losses_flags_and_targets_are_counted() -> None:
    # Two losses; of the first one frame is missed at its beginning, and one frame is a false alarm.
    state = eval_tracking.summary([judged(trial(lost=(2, 3, 7), flagged=(3, 7, 9)))])
    hidden = state["disturbed"]["hide"]
    assert hidden["lost_frames"] == 3
    assert hidden["flagged"] == pytest.approx(2 / 3)
    assert (hidden["losses"], hidden["flagged_at_once"]) == (2, 0.5)
    assert hidden["false_flags"] == pytest.approx(1 / 7)
    assert state["proposals"]["right"] == 0.5
    total = state["objects"]["all"]
    assert total["way_mm"] == {"median": pytest.approx(1.0), "worst": pytest.approx(1.0)}
    assert total["frames_per_s"] == pytest.approx(25.0)
    assert state["met"] == {
        "way_mm": True,
        "turn_deg": True,
        "frames_per_s": True,
        "flagged": False,
    }


def test_files_are_written_and_the_verdict_given(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(eval_tracking, "judge", lambda *_: judged(trial(lost=(2,), flagged=(2,))))
    config = EvalTracking(seeds=3, objects=("mug",), out=tmp_path)
    console = Console(record=True, width=160)
    assert eval_tracking.run(config, "the command", console)
    assert "targets: way_mm met" in console.export_text()
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["format"] == eval_tracking.FORMAT
    assert len(found["scenes"]) == 3
    page = (tmp_path / "report.html").read_text()
    assert "<h1>Object tracking</h1>" in page
    assert "the command" in page
    assert (tmp_path / "tracking.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_is_refused(tmp_path) -> None:
    for config, message in (
        (EvalTracking(seeds=0, out=tmp_path), "--seeds 0; must be 1 to 100"),
        (EvalTracking(per_seed=0, out=tmp_path), "--per-seed 0; must be positive"),
        (EvalTracking(cached=True, out=tmp_path), "--cached: no scene in"),
    ):
        with pytest.raises(ConfigError, match=message):
            eval_tracking.run(config, "", Console(quiet=True))
