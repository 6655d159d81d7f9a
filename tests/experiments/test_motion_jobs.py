"""Training and judging motions, from the command line's functions to the files they leave."""

import dataclasses
import json
import os
import signal

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments import eval_motion, motion_data, train_motion
from experiments.eval_motion import EvalMotion
from experiments.train_motion import TrainMotion
from realdex_jax.errors import CheckpointError, ConfigError, DatasetError, TrainingError
from realdex_jax.evaluation import results
from realdex_jax.training import checkpoint, loop


@pytest.fixture(scope="session")
def door(request):
    shared = request.getfixturevalue("shared")
    path = shared / "data" / "adroit_door" / "door_human_demos.npz"
    if not path.is_file():
        pytest.skip("no Adroit demonstrations at ../shared/data/adroit_door")
    return motion_data.open_motions(str(path))


def test_the_door_demonstrations_are_split_leaving_five_out(door):
    assert len(door.parts["train"]) == 20
    assert len(door.parts["test"]) == 5
    assert not door.shapes
    assert door.grids("train") is None
    for part in door.parts.values():
        assert (part.lengths() >= 6).all()
        # A reach ends before the handle moves: less than the 2 to 3 s of a whole demonstration.
        assert part.lengths().max() < 45
    again = {door.name: door.digest}
    assert len(again[door.name]) == 64


def test_a_source_that_is_not_there_names_the_choices(tmp_path):
    with pytest.raises(DatasetError, match="known: realdex-sim, realdex-sim-small"):
        motion_data.open_motions(str(tmp_path / "nothing.npz"))


def test_settings_that_make_no_sense_are_refused(door, tmp_path):
    with pytest.raises(TrainingError, match="at least one step"):
        TrainMotion(steps=0).recipe()
    with pytest.raises(TrainingError, match="between 0 and 1"):
        TrainMotion(rate=2.0).recipe()
    for name, what in (("aware", "an aware model"), ("penalised", "the penetration term")):
        with pytest.raises(TrainingError, match=f"{what} needs the objects' shapes"):
            train_motion.train(TrainMotion(model=name, steps=2).recipe(), door, tmp_path)


@pytest.mark.parametrize("name", train_motion.MODELS)
def test_a_recipe_is_known_by_what_it_trains(name):
    recipe = TrainMotion(model=name, steps=7, rate=1e-4, seed=3).recipe()
    kept = json.loads(json.dumps(dataclasses.asdict(recipe)))
    assert train_motion.name_of(recipe.model, kept["weights"]) == name
    assert train_motion.name_of(recipe.model, {}) is None


def test_shares_are_even_and_complete():
    shares = motion_data._shares(["a", "b", "c"], 8)
    assert shares == [("a", 3), ("b", 3), ("c", 2)]


@pytest.mark.slow
@pytest.mark.long
def test_models_train_and_are_judged_on_recordings(door, shared, tmp_path):
    path = shared / "data" / "adroit_door" / "door_human_demos.npz"
    models = []
    for name, seed in (("motion_net", 0), ("motion_net", 1), ("saga", 0)):
        recipe = TrainMotion(model=name, steps=12, seed=seed).recipe()
        recipe = dataclasses.replace(recipe, batch=8, log_every=4)
        run = tmp_path / f"{name}-{seed}"
        assert train_motion.train(recipe, door, run) is not None
        lines = [json.loads(line) for line in (run / "scalars.jsonl").read_text().splitlines()]
        assert lines[-1]["step"] == 12
        assert np.isfinite(lines[-1]["loss"])
        models.append(run / "model.safetensors")
    with pytest.raises(TrainingError, match="another config"):
        train_motion.train(TrainMotion(steps=13).recipe(), door, tmp_path / "saga-0")
    config = EvalMotion(models=tuple(models), data=str(path), out=tmp_path / "eval")
    found = eval_motion.run(config, "python -m experiments.eval_motion", Console(quiet=True))
    assert [(row.method, row.stage) for row in found.rows] == [
        ("demonstration", "dataset"),
        ("saga", "raw"),
        ("motion_net", "raw"),
    ]
    net = found.rows[2]
    assert net.metrics["mpjpe_cm"].n == 2  # seeds
    assert net.grasps == 10
    assert found.rows[0].metrics["mpjpe_cm"].mean == pytest.approx(0.0, abs=1e-4)
    assert "lift_success" not in net.metrics  # no shape, no lift
    saved = results.load(tmp_path / "eval" / "results.json")
    assert saved.seeds == (0, 1)
    assert "<table>" in (tmp_path / "eval" / "report.html").read_text()
    with pytest.raises(ConfigError, match="known: train, val, test"):
        eval_motion.run(dataclasses.replace(config, split="x"), "c", Console(quiet=True))
    bad = dataclasses.replace(config, models=(tmp_path / "none.safetensors",))
    with pytest.raises(CheckpointError, match="no motion model"):
        eval_motion.run(bad, "c", Console(quiet=True))


@pytest.mark.slow
@pytest.mark.long
def test_an_interrupted_training_goes_on_exactly(door, tmp_path, monkeypatch):
    recipe = dataclasses.replace(TrainMotion(steps=8).recipe(), batch=8, log_every=2)
    whole = train_motion.train(recipe, door, tmp_path / "whole")
    original = loop.run

    def interrupted(state, step, batch_at, *args, **kwargs):
        def batch_then_signal(i):
            if i == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            return batch_at(i)

        return original(state, step, batch_then_signal, *args, **kwargs)

    monkeypatch.setattr(loop, "run", interrupted)
    assert train_motion.train(recipe, door, tmp_path / "parts") is None
    monkeypatch.undo()
    assert checkpoint.latest(tmp_path / "parts") == 5
    resumed = train_motion.train(recipe, door, tmp_path / "parts")
    jax.tree.map(np.testing.assert_array_equal, whole.params, resumed.params)
