"""The page of a training is made from what its folder holds."""

import json

from experiments import compare, training_page

LINES = (
    {"step": 20, "time": 1.0, "loss": 3.0, "finite": 1.0},
    {"step": 40, "time": 2.0, "loss": 2.5, "finite": 1.0},
    # Killed here, and begun again at step 20.
    {"step": 40, "time": 9.0, "loss": 2.0, "finite": 1.0, "kl": 0.5},
)
DESCRIBED = {
    "config": {"seed": 3, "optimisation": {"steps": 40}},
    "commit": "abc",
    "data_digest": "0123456789abcdef0123",
    "versions": {"optax": "9.9"},
}


def test_a_training_leaves_results_that_can_be_compared(tmp_path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(DESCRIBED))
    (run / "scalars.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    page = training_page.leave(run, "python -m x").read_text()
    assert "<h1>Training: run</h1>" in page
    assert "data:image/png;base64," in page
    assert "0123456789abcdef, begun at commit abc" in page
    raw = json.loads((run / "results.json").read_text())
    assert raw["seeds"] == [3]
    assert raw["config"] == DESCRIBED["config"]
    assert raw["versions"]["optax"] == "9.9"
    assert raw["steps"] == 40
    assert raw["last"] == {"loss": 2.0, "kl": 0.5}
    assert compare.read(run).other["last.loss"] == 2.0


def test_a_step_that_was_done_twice_counts_as_it_was_last(tmp_path) -> None:
    (tmp_path / "s").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    found = training_page.read(tmp_path / "s")
    assert found["step"] == [20, 40]
    assert found["loss"] == [3.0, 2.0]
