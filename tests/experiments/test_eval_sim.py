import dataclasses
import json
import os
import pathlib
import signal
import sys
from collections.abc import Callable

import jax
import numpy as np
import pytest
import trimesh
from rich.console import Console

from experiments import eval_sim, inspect, protocol, view
from experiments.eval_sim import EvalSim
from experiments.inspect import Inspect
from experiments.protocol import Taken
from experiments.view import View
from realdex_jax.data import object_files, schema, store
from realdex_jax.data.schema import GraspSet
from realdex_jax.errors import CloudError, ConfigError, DatasetError, RealdexError
from realdex_jax.evaluation import results
from realdex_jax.hand.load import HandModel, load
from realdex_jax.models import grasp_model
from realdex_jax.models.cvae import Statistics
from realdex_jax.models.grasp_model import GraspModel, NetworkConfig
from sim import displacement


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A model file with fresh parameters: its grasps are bad, its path through the code is not."""
    config = NetworkConfig()
    statistics = Statistics(np.zeros(3, np.float32), np.full(3, 0.06, np.float32))
    model = GraspModel(config, grasp_model.init(config, jax.random.key(0)), statistics)
    path = tmp_path_factory.mktemp("model") / "untrained.safetensors"
    grasp_model.save_model(path, model, {"steps": 0})
    return path


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["experiments/eval_sim.py", *map(str, words)])
    eval_sim.main()


def test_stored_grasps_give_a_valid_file_and_a_report(
    tiny_dataset: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = tmp_path / "numbers.json"
    run(
        monkeypatch,
        *("--data", tiny_dataset, "--stages", "dataset", "--grasps", 3, "--seeds", 2),
        *("--out", tmp_path / "out", "--json", where),
    )
    found = results.load(where)
    (row,) = found.rows
    assert (row.stage, row.objects, row.grasps) == ("dataset", 1, 6)
    assert {"held", "robust_success", "penetration_cm", "contact_number"} <= set(row.metrics)
    assert list(found.seeds) == [0, 1]
    assert set(found.physics) == {"still", "strict"}
    assert "--grasps 3" in found.command
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png;base64") == 1
    assert "still.contact.sliding" in page
    assert found.physics["still"]["backend"] in ("native", "mjx")
    (note,) = found.notes
    assert "near 0 by construction" in note
    assert note in page


def test_stored_grasps_are_measured_with_the_hand_they_were_made_with(
    tiny_dataset: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = store.open_dataset(tiny_dataset)
    mesh = (tiny_dataset / "objects" / "block" / "mesh.obj").read_bytes()
    store.write_dataset(
        tmp_path / "data",
        name="tiny",
        version="1",
        grasps={name: old.grasps(name) for name in old.objects},
        splits=old.splits,
        recipe={"converted_from": "dexgraspnet", "source": {"replay_hand": "dexgraspnet"}},
        meshes=dict.fromkeys(old.objects, mesh),
    )
    used: list[str] = []

    def spy(hand: HandModel, *_: object, **__: object) -> None:
        used.append(hand.name)
        raise RealdexError("seen")  # enough: what follows compiles for seconds

    monkeypatch.setattr(displacement, "displacement", spy)
    words = ("--data", tmp_path / "data", "--stages", "dataset", "--grasps", 2)
    with pytest.raises(SystemExit):
        run(monkeypatch, *words, "--out", tmp_path / "out")
    assert used == ["dexgraspnet"]
    _, (entry,), _ = protocol.entries_of_data(str(tmp_path / "data"), "test")
    stored, made = (Taken(stage, entry, 0, old.grasps("block")) for stage in ("dataset", "raw"))
    assert (
        "measured with the hand 'dexgraspnet', which these grasps" in protocol.remarks([stored])[0]
    )
    # Generated grasps are our hand's, whatever the dataset.
    assert protocol.hand_of(made, load("shadow")).name == "shadow"
    # Pictures and the viewer show the same hand.
    assert view.collect(View(str(tmp_path / "data"))).hand == "dexgraspnet"
    drawn: list[str] = []

    def draw(hand: HandModel, shape: object, phi: np.ndarray) -> list[np.ndarray]:
        drawn.append(hand.name)
        return [np.zeros((8, 8, 3), np.uint8)] * len(phi)

    monkeypatch.setattr(inspect.render, "render_grasps", draw)
    config = Inspect(str(tmp_path / "data"), out=tmp_path / "page", objects=1, grasps=2)
    inspect.run(config, Console(quiet=True))
    assert drawn == ["dexgraspnet"]


def test_a_scheme_chooses_the_objects_and_is_named_in_the_table(
    tiny_dataset: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = store.open_dataset(tiny_dataset)
    mesh = (tiny_dataset / "objects" / "block" / "mesh.obj").read_bytes()
    store.write_dataset(
        tmp_path / "data",
        name="tiny",
        version="1",
        grasps={name: old.grasps(name) for name in old.objects},
        splits=old.splits,
        recipe={},
        meshes=dict.fromkeys(old.objects, mesh),
        schemes={"other": {"train": ["block"], "test": ["brick"]}},
    )
    words = ("--data", tmp_path / "data", "--stages", "dataset", "--grasps", 3)
    run(monkeypatch, *words, "--scheme", "other", "--out", tmp_path / "out")
    (row,) = results.load(tmp_path / "out" / "results.json").rows
    assert (row.split, row.objects, row.grasps) == ("other test", 1, 3)
    with pytest.raises(DatasetError, match="no split scheme 'x' in tiny; known: object, other"):
        protocol.entries_of_data(str(tmp_path / "data"), "test", "x")


@pytest.fixture
def good_then_bad(
    tiny_dataset: pathlib.Path,
    tmp_path: pathlib.Path,
    open_palm: Callable[[int], GraspSet],
    monkeypatch: pytest.MonkeyPatch,
) -> pathlib.Path:
    """A dataset whose split val makes a stand-in for the generation fail on its last object."""
    mesh = (tiny_dataset / "objects" / "block" / "mesh.obj").read_bytes()
    names = ("good", "z_bad")
    store.write_dataset(
        tmp_path / "two",
        name="two",
        version="1",
        grasps={name: open_palm(3) for name in (*names, "y_bad")},
        splits={"train": [], "val": names, "test": ["y_bad"]},
        recipe={},
        meshes=dict.fromkeys((*names, "y_bad"), mesh),
    )

    def propose(hand, model, entry, stages, *, seed, latents, grasps, physics, config, camera):
        if entry.shape.name.endswith("bad"):
            raise CloudError("nothing [here] to grasp")
        some = schema.take(entry.grasps, slice(grasps))
        return [
            Taken(stage, entry, seed, some, candidates=latents, passed=1) for stage in stages
        ], {"refine": 1.0}

    monkeypatch.setattr(eval_sim.chain, "propose", propose)
    return tmp_path / "two"


def test_an_object_that_fails_is_left_out_and_the_others_are_not(
    good_then_bad: pathlib.Path,
    untrained: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    run(
        monkeypatch,
        *("--data", good_then_bad, "--split", "val", "--stages", "dataset", "filtered"),
        *("--grasps", 2, "--model", untrained, "--out", tmp_path / "out"),
    )
    found = results.load(tmp_path / "out" / "results.json")
    assert [(row.stage, row.objects) for row in found.rows] == [("dataset", 1), ("filtered", 1)]
    expected = (
        "left out: z_bad: CloudError: nothing [here] to grasp",
        "candidates that passed the filter: 0.01 (good 1 of 100)",
        "good: 1 of 2 filtered grasps passed the filter; the best of the others fill up",
    )
    printed, page = capsys.readouterr().out, (tmp_path / "out" / "report.html").read_text()
    for note in expected:
        assert note in found.notes
        assert note in printed
        assert note in page
    kept = object_files.load_grasps(tmp_path / "out" / "grasps" / "good.npz")
    assert [path.name for path in (tmp_path / "out" / "grasps").iterdir()] == ["good.npz"]
    stored = store.open_dataset(good_then_bad).grasps("good")
    assert np.array_equal(kept.phi, stored.phi[:2])
    assert set(kept.columns["stage"]) == {results.STAGES.index("filtered")}
    assert kept.columns["held"].mean() == found.rows[1].metrics["held"].mean


def test_a_stop_reports_the_objects_that_are_done(
    good_then_bad: pathlib.Path, untrained: pathlib.Path, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    def stopped(*args: object, **kwargs: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return measure(*args, **kwargs)

    measure = eval_sim._measure
    monkeypatch.setattr(eval_sim, "_measure", stopped)
    config = EvalSim(
        data=str(good_then_bad),
        split="val",
        stages=("filtered",),
        grasps=1,
        model=str(untrained),
        out=tmp_path,
    )
    evaluation = eval_sim.evaluate(config, "test", Console())
    assert evaluation.found.rows[0].objects == 1
    assert "stopped by SIGINT after 1 of 2 objects" in evaluation.found.notes
    assert evaluation.stopped  # the command publishes it, and ends with 130


def test_a_folder_that_cannot_be_written_is_named_before_any_work(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--out .*file"):
        eval_sim.evaluate(EvalSim(out=tmp_path / "file"), "test", Console())


def test_no_object_left_is_an_error(
    good_then_bad: pathlib.Path, untrained: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    config = EvalSim(
        data=str(good_then_bad), model=str(untrained), stages=("filtered",), out=tmp_path / "out"
    )
    with pytest.raises(RealdexError, match=r"no object is left of 1; first: y_bad: CloudError"):
        eval_sim.evaluate(config, "test", Console())


def test_the_physics_names_the_backend(
    tiny_dataset: pathlib.Path, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    def elsewhere(*args: object, **kwargs: object) -> displacement.Displacement:
        return dataclasses.replace(native(*args, **kwargs), backend="mjx")

    native = displacement.displacement
    monkeypatch.setattr(displacement, "displacement", elsewhere)
    config = EvalSim(data=str(tiny_dataset), stages=("dataset",), grasps=1, out=tmp_path)
    found = eval_sim.evaluate(config, "test", Console()).found
    assert found.physics["still"]["backend"] == "mjx"


@pytest.mark.parametrize("change", [{"seeds": 0}, {"grasps": 0}, {"stages": ()}])
def test_settings_that_leave_nothing_to_do_are_refused(change: dict) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        eval_sim.evaluate(EvalSim(**change), "test", Console())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "nowhere"), "no dataset at nowhere"),
        (("--objects", "/no/such/folder"), "no such folder"),
        (("--seeds", "0", "--stages", "dataset"), "at least one"),
    ],
)
def test_a_mistake_ends_in_one_line(
    words: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: pathlib.Path,
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *words, "--out", tmp_path)
    assert stopped.value.code == 2
    printed = capsys.readouterr().out
    assert message in printed
    assert "Traceback" not in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_whole_chain_on_a_folder_of_meshes(
    untrained: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    trimesh.creation.cylinder(0.03, 0.12).export(folder / "stick.stl")
    run(
        monkeypatch,
        *("--objects", folder, "--scale", 1, "--model", untrained, "--preset", "smoke"),
        *("--out", tmp_path / "out"),
    )
    raw = json.loads((tmp_path / "out" / "results.json").read_text())
    results.validate(raw)
    stages = ["raw", "refined", "filtered", "physics", "selected"]
    assert [row["stage"] for row in raw["rows"]] == stages
    assert raw["rows"][0]["data"] == "mine"
    for row in raw["rows"][3:]:
        if row["metrics"]:
            assert row["metrics"]["held"]["mean"] == 1.0, "a dropped grasp was delivered"


@pytest.mark.slow
def test_the_demo_runs_on_what_is_shipped(tmp_path: pathlib.Path) -> None:
    from experiments import demo

    demo.run(demo.Demo(preset="smoke", out=tmp_path), Console())
    found = results.load(tmp_path / "results.json")
    assert [row.stage for row in found.rows] == list(results.STAGES)
    assert (tmp_path / "report.html").stat().st_size > 20_000


def test_there_are_as_many_proposals_as_grasps_to_measure() -> None:
    assert EvalSim(grasps=300).protocol().latents == 300
    with pytest.raises(ConfigError, match="--latents 8 are fewer than the 10"):
        eval_sim.evaluate(EvalSim(latents=8), "test", Console())
