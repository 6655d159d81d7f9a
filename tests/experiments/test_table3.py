import json
import pathlib
import sys

import numpy as np
import pytest

from experiments import eval_sim, functional_prior, protocol, table3, train_pose
from experiments.table3 import Source
from realdex_jax.data import pipeline, store
from realdex_jax.data.pipeline import Item
from realdex_jax.errors import ConfigError
from realdex_jax.evaluation import results
from realdex_jax.hand.load import load


def cell(kind: str, seed: int, held: list[float], source: Source) -> table3._Cell:
    values = {"refined": {"held": held, "distinct_count": [float(len(held))]}}
    values["physics"] = {"distinct_count": [12.0 if kind == "flow" else 3.0]}
    return table3._Cell(source, kind, seed, values, {})


def test_the_spread_is_that_of_training_seeds() -> None:
    source = Source("toys", "test", [])
    cells = [
        cell("flow", 0, [1.0, 1.0], source),
        cell("flow", 0, [0.0], source),
        cell("flow", 1, [0.0, 1.0], source),
        cell("flow", 1, [0.0], source),
        cell("cvae", 0, [0.0], source),
    ]
    rows = table3.rows(cells)
    assert [(row.method, row.stage) for row in rows] == [
        ("cvae", "refined"),
        ("cvae", "physics"),
        ("flow", "refined"),
        ("flow", "physics"),
    ]
    held = rows[2].metrics["held"]
    assert held.mean == pytest.approx(0.5)  # of 2/3 and 1/3
    assert held.sd == pytest.approx(np.std([2 / 3, 1 / 3], ddof=1))
    assert held.n == 2
    assert (rows[2].objects, rows[2].grasps) == (2, 6)
    assert rows[0].metrics["held"].sd is None
    notes = table3._distinct(cells)
    assert notes == [
        "flow: ten distinct grasps after physics on 1.00 of the objects",
        "cvae: ten distinct grasps after physics on 0.00 of the objects",
    ]


def test_mistakes_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    with pytest.raises(ConfigError, match="--seeds 0; at least one is needed"):
        table3.Table3(seeds=0).protocol()
    words = ["eval_sim.py", "--table3", "--ycb", str(tmp_path / "none"), "--models", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        eval_sim.main()
    assert stop.value.code == 2
    assert "none" in capsys.readouterr().out.replace("\n", "")


@pytest.mark.slow
@pytest.mark.long
def test_the_whole_table_and_what_was_done_is_not_done_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    words = ["eval_sim.py", "--table3", "--preset", "smoke", "--seeds", "1", "--steps", "2"]
    words += ["--models", str(tmp_path / "models"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", words)
    eval_sim.main()
    found = results.load(tmp_path / "out" / "results.json")
    assert found.spread == "seeds"
    assert [(row.method, row.stage) for row in found.rows] == [
        (kind, stage) for kind in ("cvae", "flow", "matching") for stage in table3.STAGES
    ]
    for row in found.rows:
        assert {"held", "robust_success", "q1", "penetration_cm"} <= set(row.metrics) or (
            row.stage == "physics"  # nothing may have held
        )
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") == 1
    assert "sim.disp. 0.146 s (cm)" in page[page.index("<svg") :]

    def never(*_: object, **__: object) -> None:
        raise AssertionError("was measured before")

    monkeypatch.setattr(protocol, "measure", never)
    monkeypatch.setattr(train_pose, "train", never)
    eval_sim.main()
    # Another model at the same place is another matter, and so is a damaged file.
    part = next((tmp_path / "out" / "parts").glob("*flow*.json"))
    part.write_text(json.dumps({"settings": {}}))
    with pytest.raises(AssertionError, match="was measured before"):
        eval_sim.main()


def test_grasps_on_handles_are_drawn_more_often() -> None:
    dataset = store.open_dataset("realdex-sim")
    source = [i for i in pipeline.Stored(dataset, "train") if i.name in ("mug", "beer_can")]
    can, mug = functional_prior.preferred(load(), dataset, source, 4.0)
    assert can.share is None  # nothing on it is meant to be held by
    assert mug.share is not None
    assert mug.share.sum() == pytest.approx(1.0)
    assert 1.5 < mug.share.max() / mug.share.min() <= 5.0 + 1e-6
    assert functional_prior.preferred(load(), dataset, source, 0.0) is source


def test_shares_decide_how_often_a_grasp_is_drawn() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(64, 3))
    phi = np.tile(np.linspace(0.0, 1.0, 4, dtype=np.float32)[:, None], (1, 28))
    item = Item("x", points, points, phi, share=np.array([0.7, 0.3, 0.0, 0.0]))
    sampling = pipeline.Sampling(grasps=2, points=16)
    drawn = np.concatenate([pipeline.draw([item], sampling, rng)[1][0, :, 0] for _ in range(200)])
    assert set(np.round(drawn, 3)) == {0.0, np.float32(0.333)}
