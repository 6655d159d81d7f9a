"""The clouds' evaluation: a plane's distances, a small run, mistakes in one line."""

import json
import sys

import numpy as np
import pytest
from rich.console import Console

from experiments import eval_clouds
from experiments.eval_clouds import EvalClouds

QUIET = Console(quiet=True)


def test_distances_are_to_the_plane_that_most_points_are_in(rng):
    p = rng.uniform(-0.3, 0.3, (2000, 3))
    height = rng.normal(0, 0.001, 2000)
    normal = np.array([0.1, -0.2, 1.0]) / np.linalg.norm([0.1, -0.2, 1.0])
    p -= np.outer(p @ normal, normal)
    p += np.outer(height, normal)
    p[:, 2] += 0.02
    p[:100] += 0.05 * normal  # a box on the table
    off = eval_clouds.off_plane(p)
    np.testing.assert_allclose(off[100:], height[100:], atol=2e-4)
    assert np.median(off[:100]) > 0.045


@pytest.mark.slow
def test_a_small_run_measures_every_way(tmp_path):
    config = EvalClouds(seeds=1, width=160, depth_width=320, out=tmp_path)
    found = eval_clouds.run(config, QUIET)
    spread = {name: rows[0].spread_mm for name, rows in found.items()}
    assert spread["default"] < spread["not blended"] < spread["raw"] < spread["release's"]
    assert spread["default"] < 3.0
    assert found["default"][0].object_mm < 2.0
    text = json.loads((tmp_path / "results.json").read_text())
    assert text["clouds"]["raw"][0]["spread_mm"] == spread["raw"]
    assert text["seconds_by_stage"]["surfaces"][0] > 0
    assert (tmp_path / "clouds.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [(("--seeds", "0"), "--seeds 0"), (("--object", "teapot"), "teapot")],
)
def test_mistakes_end_in_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["eval_clouds", "--out", str(tmp_path), *words])
    with pytest.raises(SystemExit) as caught:
        eval_clouds.main()
    assert caught.value.code == 2
    assert message in capsys.readouterr().out
