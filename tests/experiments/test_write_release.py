"""RealDex-Sim in the release's layout: written, and read back by the reader of the release."""

import dataclasses
import json
import pathlib
import shutil
import sys
import zipfile

import numpy as np
import pytest
from rich.console import Console
from scipy.spatial.transform import Rotation

from experiments import (
    convert,
    converted,
    data_table,
    motion_data,
    train_motion,
    train_pose,
    write_release,
)
from experiments.convert import Convert
from experiments.export_lerobot import ExportLerobot, export
from experiments.motion_data import MotionData
from experiments.train_motion import TrainMotion
from experiments.train_pose import TrainPose
from experiments.write_release import WriteRelease
from realdex_jax.data import archive, motion_set, realdex, realdex_objects, schema, store
from realdex_jax.data import realdex_layout as layout
from realdex_jax.data.motion_set import MotionSet
from realdex_jax.errors import ConfigError, DatasetError
from sim import objects

QUIET = Console(quiet=True)


def same_poses(found: np.ndarray, stored: np.ndarray) -> None:
    """Poses equal to 1e-6 m and rad; orientations compared as rotations."""
    np.testing.assert_allclose(found[:, :25], stored[:, :25], rtol=0, atol=1e-6)
    turn = Rotation.from_rotvec(found[:, 25:]) * Rotation.from_rotvec(stored[:, 25:]).inv()
    assert turn.magnitude().max() < 1e-6


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Two grasps of each of the 52 objects."""
    out = tmp_path_factory.mktemp("release") / "sim"
    done = write_release.write(WriteRelease(limit=2, out=out), QUIET)
    assert (len(done.objects), done.sequences, done.notes) == (52, 104, ())
    return out


@pytest.mark.parametrize("kind", ["recordings", "sequences"])
def test_realdex_sim_comes_back(written: pathlib.Path, kind: str) -> None:
    dataset = store.open_dataset("realdex-sim")
    assert realdex.recognise(written)
    source = realdex.open_source(written, kind=kind)
    assert source.units == tuple(sorted(dataset.objects))
    splits = source.splits(source.units)
    assert {k: sorted(v) for k, v in splits.items()} == {
        k: sorted(v) for k, v in dataset.splits.items()
    }
    for name in source.units:
        unit = source.read(name)
        stored = schema.take(dataset.grasps(name), slice(0, 2))
        assert unit.grasps is not None
        same_poses(np.asarray(unit.grasps.phi), np.asarray(stored.phi))
        # Stored as float16, so as exact as they were.
        np.testing.assert_allclose(unit.grasps.q_pregrasp, stored.q_pregrasp, rtol=0, atol=1e-6)
        assert unit.motions is None  # a hand that closes on the spot reaches for nothing
        assert unit.mesh is not None


def test_clouds_come_back(written: pathlib.Path) -> None:
    for name in ("duck_toy", "tea_cup"):
        source = realdex.open_source(written, kind="sequences")
        for item in source.found[name]:
            if item.kind == "sequence":
                cloud = realdex_objects.cloud(source._frames(source.files, item))
                points = objects.make(name).surface(2048).points
                np.testing.assert_allclose(cloud, points, rtol=0, atol=1e-5)
        found, _ = realdex_objects.read_model(layout.files(written), f"models/{name}.obj")
        text = [line.split() for line in found.decode().splitlines() if line.startswith("v ")]
        vertices = np.array([words[1:] for words in text], float)
        np.testing.assert_allclose(vertices, objects.make(name).vertices, rtol=0, atol=1e-8)


def test_archives_are_like_the_downloads(
    tmp_path: pathlib.Path, tiny_dataset: pathlib.Path
) -> None:
    config = WriteRelease(data=str(tiny_dataset), archives=True, out=tmp_path / "a")
    write_release.write(config, QUIET)
    sums = archive.read_md5(config.out / "md5.txt")
    assert sorted(sums) == ["block.zip", "brick.zip"]
    assert all(archive.check_md5(config.out / name, sums) for name in sums)
    names = archive.open_archive(config.out / "block.zip").names
    assert "storage/bags/block/block_1/final_data.npy" in names
    again = dataclasses.replace(config, out=tmp_path / "b")
    write_release.write(again, QUIET)
    for name in sums:
        assert (config.out / name).read_bytes() == (again.out / name).read_bytes()
    # A download converts as it came, to the same grasps as the folder that it unpacks to.
    for what, source in (("zips", config.out), ("folder", tmp_path / "unpacked")):
        if what == "folder":
            write_release.write(dataclasses.replace(config, archives=False, out=source), QUIET)
        report = convert.run(Convert(source, tmp_path / what, jobs=1), QUIET)
        assert report.refused == {}
        store.verify(report.dataset)
    first, second = (store.open_dataset(tmp_path / what) for what in ("zips", "folder"))
    assert sorted(first.objects) == sorted(second.objects) == ["block", "brick"]
    for name in first.objects:
        same_poses(np.asarray(first.grasps(name).phi), np.asarray(second.grasps(name).phi))


def test_a_hostile_download_is_refused_and_the_others_convert(
    tmp_path: pathlib.Path, tiny_dataset: pathlib.Path
) -> None:
    source = tmp_path / "deep" / "downloads"
    config = WriteRelease(str(tiny_dataset), what="recordings", archives=True, out=source)
    write_release.write(config, QUIET)
    (source / realdex.MARK).unlink()
    (source / "md5.txt").unlink()
    # Names of the release's own objects, without a mark of ours.
    for name in ("box", "yogurt", "soba"):
        with (
            zipfile.ZipFile(source / "block.zip") as good,
            zipfile.ZipFile(source / f"{name}.zip", "w") as made,
        ):
            for member in good.namelist():
                made.writestr(member.replace("block", name), good.read(member))
            if name == "box":
                made.writestr("../../escaped.txt", "out")
        shutil.copy(source / "models" / "block.obj", source / "models" / f"{name}.obj")
    for name in ("block", "brick"):
        (source / f"{name}.zip").unlink()
        (source / "models" / f"{name}.obj").unlink()
    report = convert.run(Convert(source, tmp_path / "data", jobs=1, points=64), QUIET)
    assert list(report.refused) == ["box"]
    assert "'../../escaped.txt' leaves the folder" in report.refused["box"]
    assert sorted(report.dataset.objects) == ["soba", "yogurt"]
    store.verify(report.dataset)
    assert not list(tmp_path.rglob("escaped.txt"))


def _motions(names: tuple[str, ...], data: str = "realdex-sim") -> MotionSet:
    """A reach of 20 frames to each object."""
    dataset = store.open_dataset(data)
    phi = []
    for name in names:
        goal = np.asarray(dataset.grasps(name).phi[0], np.float64)
        poses = np.repeat(goal[None], 20, axis=0)
        poses[:, 22:25] += np.linspace(1, 0, 20)[:, None] * np.array([0.0, -0.2, 0.2])
        phi.append(poses.astype(np.float32))
    at_rest = np.tile([1.0, 0, 0, 0, 0, 0, 0], (len(names), 1))
    return motion_set.of_poses(
        names, range(len(names)), phi, at_rest, np.stack([p[-1, :22] for p in phi])
    )


def test_motions_come_back(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _motions(("duck_toy", "tea_cup"))
    monkeypatch.setattr(write_release, "_motions", lambda config, console: [made])
    out = tmp_path / "sim"
    write_release.write(WriteRelease(limit=0, out=out), QUIET)
    source = realdex.open_source(out)
    assert source.units == ("duck_toy", "tea_cup")
    for index, name in enumerate(source.units):
        unit = source.read(name)
        assert unit.motions is not None
        assert len(unit.motions) == 1
        same_poses(unit.motions.poses(0), made.poses(index))
        assert unit.grasps is not None
        same_poses(np.asarray(unit.grasps.phi), made.poses(index)[-1:])


@pytest.fixture
def moving(
    tmp_path: pathlib.Path, tiny_dataset: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[pathlib.Path, MotionSet]:
    """A release of two boxes with a grasp and a motion of each, and the motions."""
    made = _motions(("block", "brick"), str(tiny_dataset))
    monkeypatch.setattr(write_release, "_motions", lambda config, console: [made])
    out = tmp_path / "sim"
    config = WriteRelease(str(tiny_dataset), limit=1, what="recordings", out=out)
    write_release.write(config, QUIET)
    return out, made


def test_motions_of_a_converted_release_are_opened_by_its_folder(
    tmp_path: pathlib.Path, moving: tuple[pathlib.Path, MotionSet]
) -> None:
    source, made = moving
    data = convert.run(Convert(source, tmp_path / "data", jobs=1, points=64), QUIET).dataset
    found = motion_data.open_motions(str(tmp_path / "data"))
    assert (found.name, found.shapes) == ("data", True)
    assert {k: v.names for k, v in found.parts.items()} == {"train": ("brick",), "test": ("block",)}
    for part, index in (("train", 1), ("test", 0)):
        same_poses(found.part(part).poses(0), made.poses(index))
    with pytest.raises(ConfigError, match="no part 'val' with motions in data; known: train, test"):
        found.part("val")
    row = data_table.summary(data).splitlines()[2].split("|")
    assert [cell.strip() for cell in row[3:5]] == ["realdex", "2"]
    assert [cell.strip() for cell in row[7:9]] == ["2", str(len(made.phi))]
    still = store.open_dataset("realdex-sim").path
    with pytest.raises(DatasetError, match="realdex-sim has grasps, but no motions"):
        motion_data.open_motions(str(still))


def test_motions_of_a_converted_release_go_to_training_and_export(
    tmp_path: pathlib.Path,
    moving: tuple[pathlib.Path, MotionSet],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, made = moving
    convert.run(Convert(source, tmp_path / "data", jobs=1, points=64), QUIET)
    given: list[MotionData] = []
    # Training compiles for a minute; what it is given is the same for every source.
    monkeypatch.setattr(train_motion, "train", lambda recipe, data, run, count: given.append(data))
    train_motion.main(TrainMotion(data=str(tmp_path / "data"), run=tmp_path / "run"))
    (data,) = given
    assert (len(data.part("train")), len(data.part("train").phi)) == (1, 20)
    grids = data.grids("train")
    assert grids is not None
    pytest.importorskip("pyarrow", reason="the extra `lerobot` is not installed")
    config = ExportLerobot(data=str(tmp_path / "data"), out=tmp_path / "export")
    info = json.loads((export(config, QUIET) / "meta" / "info.json").read_text())
    assert (info["total_episodes"], info["total_frames"]) == (2, len(made.phi))
    assert info["splits"] == {"train": "0:1", "test": "1:2"}


@pytest.mark.slow
@pytest.mark.long
def test_training_runs_on_a_release(
    tmp_path: pathlib.Path, written: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # As it lies there, without a word about converting.
    command = TrainPose(preset="smoke", data=str(written), steps=2, run=tmp_path / "direct")
    assert train_pose.main(command) == 0
    assert f"{written}: realdex, 52 units; converting into" in capsys.readouterr().out
    assert (tmp_path / "direct" / "model.safetensors").is_file()
    data = store.open_dataset(converted.place(str(written)))
    assert data.recipe["counts"]["objects"] == 52
    assert data.recipe["refused"] == {}
    assert data.recipe["empty"] == data.recipe["unsplit"] == []
    store.verify(data)
    ours = store.open_dataset("realdex-sim")
    for part, names in ours.splits.items():
        assert sorted(data.splits[part]) == sorted(names)
    stored = schema.take(ours.grasps("mug"), slice(0, 2))
    same_poses(np.asarray(data.grasps("mug").phi), np.asarray(stored.phi))


def test_only_its_own_folder_is_replaced(
    tmp_path: pathlib.Path,
    tiny_dataset: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*words: object) -> None:
        monkeypatch.setattr(sys, "argv", ["write_release", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "300")
        write_release.main()

    out = tmp_path / "out"
    words = ("--data", tiny_dataset, "--out", out)
    run(*words, "--what", "sequences")
    assert "9 sequences of 2 objects" in capsys.readouterr().out
    assert not (out / "bags").exists()
    run(*words, "--what", "recordings", "--limit", 1)
    assert "2 sequences of 2 objects" in capsys.readouterr().out
    assert not (out / "sequences").exists()
    mine = out / "bags" / "block" / "notes.txt"
    mine.write_text("kept")
    with pytest.raises(SystemExit) as stop:
        run(*words)
    assert stop.value.code == 2
    assert "bags/block/notes.txt in it is none of its files" in capsys.readouterr().out
    assert mine.read_text() == "kept"
    mine.unlink()
    (out / realdex.MARK).unlink()
    with pytest.raises(SystemExit) as stop:
        run(*words)
    assert stop.value.code == 2
    assert "neither an empty folder nor a release" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_mistakes_are_named(tmp_path: pathlib.Path, tiny_dataset: pathlib.Path) -> None:
    config = WriteRelease(data=str(tiny_dataset), out=tmp_path / "out")
    for change, error, match in (
        ({"limit": -1}, ConfigError, "limit is -1"),
        ({"limit": 0}, ConfigError, "nothing to write"),
        ({"points": 3}, ConfigError, "points is 3"),
        ({"motions": "mine"}, ConfigError, "known: realdex-sim"),
        ({"data": "absent"}, DatasetError, "absent"),
    ):
        with pytest.raises(error, match=match):
            write_release.write(dataclasses.replace(config, **change), QUIET)
    assert not list(tmp_path.iterdir())
