"""The export from the command line: where grasps come from, what is left out, mistakes."""

import dataclasses
import pathlib
import sys
from collections.abc import Callable

import numpy as np
import pytest
import trimesh
from rich.console import Console

from experiments import export, protocol
from experiments.export import Export
from experiments.protocol import Entry, Measured, Taken
from realdex_jax.data import dexgraspbench, schema, store
from realdex_jax.data.schema import GraspSet
from realdex_jax.errors import ConfigError, DatasetError, MeshError, RealdexError
from sim import objects


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["experiments/export.py", *map(str, words)])
    monkeypatch.setenv("COLUMNS", "300")
    export.main()


def delivered(folder: pathlib.Path, name: str, grasps: GraspSet) -> None:
    """A file as evaluations deliver it."""
    made = dataclasses.replace(objects.make("cosmetics"), name=name)
    taken = Taken("physics", Entry(made, None), 0, grasps)
    held = {"held": np.ones(len(grasps)), "diversity": np.ones(1)}
    protocol.deliver([Measured(taken, held, {})], folder)


def test_stored_grasps_are_exported_and_come_back(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run(monkeypatch, "--split", "test", "--out", out, "--limit", 3)
    dataset = store.open_dataset("realdex-sim")
    folders = dexgraspbench.grasp_folders(out)
    assert [folder.parent.name for folder in folders] == sorted(dataset.splits["test"])
    for folder in folders:
        found = dexgraspbench.read_grasps(folder)
        stored = schema.take(dataset.grasps(found.object.name), slice(0, 3))
        np.testing.assert_allclose(found.grasps.phi, stored.phi, rtol=0, atol=1e-6)  # float32
        assert np.array_equal(found.grasps.q_pregrasp, stored.q_pregrasp)
        assert np.array_equal(found.grasps.q_squeeze, stored.q_squeeze)
        assert (pathlib.Path(found.object.path) / "info" / "simplified.json").is_file()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"18 grasps of 6 objects in {out}; in DexGraspBench's folder: python ")
    assert last.endswith(f"grasp_dir={out.resolve()}/graspdata")


def test_delivered_grasps_are_exported_on_the_meshes_they_are_for(
    tmp_path: pathlib.Path,
    open_palm: Callable[[int], GraspSet],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mesh = trimesh.creation.box((40.0, 40.0, 100.0))
    mesh.apply_translation((10.0, 20.0, 50.0))  # the file's frame is not at its middle
    (tmp_path / "mine").mkdir()
    for name in ("block", "brick"):
        mesh.export(tmp_path / "mine" / f"{name}.obj")
    delivered(tmp_path / "grasps", "block", open_palm(4))
    delivered(tmp_path / "grasps", "stranger", open_palm(2))
    out = tmp_path / "out"
    words = ("--grasps", tmp_path / "grasps", "--objects", tmp_path / "mine", "--scale", 0.001)
    run(monkeypatch, *words, "--out", out, "--obj-root", "assets/object/mine")
    (folder,) = dexgraspbench.grasp_folders(out)
    found = dexgraspbench.read_grasps(folder)
    np.testing.assert_allclose(found.grasps.phi, open_palm(4).phi, rtol=0, atol=1e-6)
    assert found.object.path == "assets/object/mine/block"
    assert found.object.scale == pytest.approx(np.linalg.norm([0.02, 0.02, 0.05]))
    np.testing.assert_allclose(found.object.p_object_mesh, [0.01, 0.02, 0.05], atol=1e-9)
    printed = capsys.readouterr().out
    assert f"no object for {tmp_path}/grasps/stranger.npz" in printed
    assert "no grasps for brick" in printed
    assert "with objects/ copied to assets/object/mine: python src/main.py" in printed


def test_grasps_of_a_run_on_a_dataset_find_its_objects(
    tiny_dataset: pathlib.Path, tmp_path: pathlib.Path, open_palm: Callable[[int], GraspSet]
) -> None:
    delivered(tmp_path / "grasps", "block", open_palm(2))
    config = Export(data=str(tiny_dataset), grasps=tmp_path / "grasps", out=tmp_path / "out")
    assert export.export(config, Console()) == export.Exported(("block",), 2)


def test_objects_of_an_earlier_export_stay_and_are_named(
    tiny_dataset: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Export(data=str(tiny_dataset), split="train", out=tmp_path / "out")
    export.export(config, Console())
    assert "earlier" not in capsys.readouterr().out
    export.export(dataclasses.replace(config, split="test", limit=2), Console())
    assert "of an earlier export: brick" in capsys.readouterr().out
    counts = [len(list(f.iterdir())) for f in dexgraspbench.grasp_folders(tmp_path / "out")]
    assert counts == [2, 3]


def test_an_object_that_fails_is_left_out_and_the_others_are_not(
    tiny_dataset: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def sometimes(folder, shape, grasps, *, obj_root):
        if shape.name in bad:
            raise DatasetError("no [space] left")
        return really(folder, shape, grasps, obj_root=obj_root)

    really, bad = dexgraspbench.write_grasps, {"body_lotion"}
    monkeypatch.setattr(dexgraspbench, "write_grasps", sometimes)
    exported = export.export(Export(out=tmp_path / "out", limit=1), Console(width=300))
    assert len(exported.objects) == exported.grasps == 5
    printed = capsys.readouterr().out
    assert "left out: body_lotion: DatasetError: no [space] left" in printed
    bad.add("block")
    config = Export(data=str(tiny_dataset), out=tmp_path / "none")
    with pytest.raises(RealdexError, match=r"no object of 1 could be written; first: block"):
        export.export(config, Console())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "nowhere"), "no dataset at nowhere"),
        (("--split", "exam"), "no split 'exam'"),
        (("--limit", "0"), "limit is 0; it must be at least one"),
        (("--objects", "meshes"), "--objects needs --grasps"),
        (("--grasps", "nowhere"), "--grasps nowhere: no <object>.npz there"),
        (("--grasps", "nowhere", "--objects", "/no/such"), "--grasps nowhere: no <object>.npz"),
    ],
)
def test_a_mistake_ends_in_one_line(
    words: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: pathlib.Path,
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *words, "--out", tmp_path / "out")
    assert stopped.value.code == 2
    printed = capsys.readouterr().out
    assert message in printed
    assert printed.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_else_is_left_alone(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "--out", tmp_path)
    assert stopped.value.code == 2
    assert "neither an empty folder nor an export" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_grasps_that_fit_no_object_are_named(
    tmp_path: pathlib.Path, open_palm: Callable[[int], GraspSet]
) -> None:
    delivered(tmp_path / "grasps", "stranger", open_palm(1))
    with pytest.raises(ConfigError, match=r"no grasps in .* \(stranger\) are for these objects"):
        export.export(Export(grasps=tmp_path / "grasps", out=tmp_path / "out"), Console())
    missing = Export(grasps=tmp_path / "grasps", objects=tmp_path / "no", out=tmp_path / "out")
    with pytest.raises(MeshError, match="no: no such folder"):
        export.export(missing, Console())
