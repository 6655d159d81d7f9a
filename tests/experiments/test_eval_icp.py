"""ICP over depth, for comparison: it lays surfaces onto each other, and takes over their errors."""

import json
import sys

import numpy as np
import pytest
from rich.console import Console

from experiments import eval_icp
from experiments.eval_icp import EvalIcp, Surface
from sim import objects

QUIET = Console(quiet=True)


def mug(seed: int) -> Surface:
    made = objects.make("mug").surface(6000, seed=seed)
    return Surface(np.asarray(made.points, float), np.asarray(made.normals, float))


def test_a_surface_is_laid_onto_other_points_of_itself():
    config = EvalIcp(place_mm=1.0, turn_deg=0.3)
    rng = np.random.default_rng(0)
    start = eval_icp.astray(config, rng, np.zeros(3))
    assert eval_icp.error(start, np.zeros(3))[0] > 0.5
    T = eval_icp.icp(mug(0), mug(1), start)
    mm, deg = eval_icp.error(T, np.zeros(3))
    # Points are 3 mm apart on a wall with curves; its handle alone tells the turn.
    assert mm < 0.15
    assert deg < 0.15


def test_settings_that_make_no_sense_end_in_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["eval_icp", "--out", str(tmp_path), "--seeds", "0"])
    with pytest.raises(SystemExit) as caught:
        eval_icp.main()
    assert caught.value.code == 2
    assert "--seeds 0" in capsys.readouterr().out


@pytest.mark.slow
def test_what_depth_is_wrong_by_icp_hands_on(tmp_path):
    found = eval_icp.run(EvalIcp(seeds=1, out=tmp_path), QUIET)
    assert json.loads((tmp_path / "results.json").read_text())["config"]["seeds"] == 1

    def mm(way: str) -> float:
        return float(np.median(np.array(found[way])[:, 0]))

    assert len(found["ICP (neighbours)"]) == 3
    assert mm("board (neighbours)") < 1.0
    assert mm("ICP (neighbours)") < 1.0
    assert mm("ICP (neighbours, depth 2 mm long)") > 1.5
    assert mm("ICP (hand's mesh, depth 2 mm long)") > mm("board (hand's mesh)")
