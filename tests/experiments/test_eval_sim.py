import json
import pathlib
import sys

import jax
import numpy as np
import pytest
import trimesh
from rich.console import Console

from experiments import eval_sim
from realdex_jax.evaluation import results
from realdex_jax.models import grasp_model
from realdex_jax.models.cvae import Statistics
from realdex_jax.models.grasp_model import GraspModel, NetworkConfig


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
    assert [row["stage"] for row in raw["rows"]] == ["raw", "refined", "filtered", "physics"]
    assert raw["rows"][0]["data"] == "mine"
    physics = raw["rows"][3]["metrics"]
    if physics:
        assert physics["held"]["mean"] == 1.0, "a dropped grasp was delivered"


@pytest.mark.slow
def test_the_demo_runs_on_what_is_shipped(tmp_path: pathlib.Path) -> None:
    from experiments import demo

    demo.run(demo.Demo(preset="smoke", out=tmp_path), Console())
    found = results.load(tmp_path / "results.json")
    assert [row.stage for row in found.rows] == list(results.STAGES)
    assert (tmp_path / "report.html").stat().st_size > 20_000
