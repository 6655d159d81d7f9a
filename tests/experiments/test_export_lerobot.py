"""The export of motions from the command line: where they come from, mistakes."""

import json
import pathlib
import sys

import numpy as np
import pytest
from rich.console import Console

from experiments import export_lerobot, motion_data
from experiments.export_lerobot import ExportLerobot, export
from experiments.motion_data import MotionData
from realdex_jax.data import lerobot, motion_set
from realdex_jax.data.motion_set import MotionSet
from realdex_jax.hand import joints

parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `lerobot` is not installed")


def reaches(count: int, name: str = "mug") -> MotionSet:
    """Hands that come down to an object from above and from different sides."""
    s = np.linspace(1.0, 0.0, 6, dtype=np.float32)
    phi = np.zeros((count, 6, 28), np.float32)
    phi[..., :22] = joints.REST
    angle = 2.0 * np.pi * np.arange(count)[:, None] / count
    phi[..., 22] = (0.12 + 0.2 * s) * np.cos(angle)
    phi[..., 23] = (0.12 + 0.2 * s) * np.sin(angle)
    phi[..., 24] = 0.15 + 0.1 * s
    at = np.tile(np.array([1, 0, 0, 0, 0, 0, 0.05], np.float32), (count, 1))
    return motion_set.of_poses((name,), [0] * count, list(phi), at, phi[:, -1, :22])


def index(out: pathlib.Path) -> dict:
    return json.loads((out / "meta" / "info.json").read_text())


def quiet() -> Console:
    return Console(quiet=True)


def test_a_file_of_motions_with_videos(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = motion_set.save(tmp_path / "mine.npz", reaches(3))
    out = tmp_path / "out"
    config = ExportLerobot(data=str(file), out=out, limit=2, videos=True, width=64)
    export(config, Console(width=300))
    info = index(out)
    assert (info["total_episodes"], info["total_frames"]) == (2, 12)
    assert info["splits"] == {"train": "0:2"}
    assert info["features"]["observation.images.side"]["shape"] == [48, 64, 3]
    assert (out / "videos/observation.images.side/chunk-000/file-000.mp4").is_file()
    assert "2 episodes, 12 frames in" in capsys.readouterr().out
    frames = parquet.read_table(out / "data/chunk-000/file-000.parquet")
    stored = np.array(frames["observation.state"].to_pylist())
    np.testing.assert_allclose(stored, reaches(3).phi[:12], rtol=0, atol=1e-6)


def test_the_camera_stands_still_and_sees_every_motion() -> None:
    motions = reaches(5)
    camera = export_lerobot._viewpoint(motions, 4 / 3)
    points = np.concatenate([motions.phi[:, 22:25], motions.wxyz_xyz_world_object[:, 4:]])
    p_cam = (points - camera.p_world) @ camera.R_world_cam
    slope = np.tan(np.deg2rad(16.0))
    assert (p_cam[:, 2] > 0).all()
    assert np.abs(p_cam[:, 1] / p_cam[:, 2]).max() < slope
    assert np.abs(p_cam[:, 0] / p_cam[:, 2]).max() < slope * 4 / 3
    pictures = [export_lerobot._camera(motions, 64).draw(i) for i in range(2)]
    first, second = (np.asarray(list(found)) for found in pictures)
    assert first.shape == second.shape == (6, 48, 64, 3)
    # The empty table looks the same in both: what differs is the hand.
    assert 0.0 < (np.abs(first[0].astype(int) - second[0]) > 24).any(-1).mean() < 0.5


def test_parts_of_a_source_become_parts_of_the_export(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {"train": reaches(4), "val": reaches(2, "bowl"), "test": reaches(3, "tea_cup")}
    found = MotionData("realdex-sim-small", "0", parts)
    monkeypatch.setattr(motion_data, "open_motions", lambda data, tell: found)
    export(ExportLerobot(out=tmp_path / "all", limit=3), quiet())
    assert index(tmp_path / "all")["splits"] == {"train": "0:3", "val": "3:5", "test": "5:8"}
    assert index(tmp_path / "all")["total_tasks"] == 3
    export(ExportLerobot(out=tmp_path / "one", part="test"), quiet())
    assert index(tmp_path / "one")["splits"] == {"test": "0:3"}


def test_the_door_recordings_are_exported_once_each(
    shared: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    file = shared / "data" / "adroit_door" / "door_human_demos.npz"
    if not file.is_file():
        pytest.skip(f"no {file}")
    export(ExportLerobot(data=str(file), out=tmp_path / "door"), quiet())
    info = index(tmp_path / "door")
    assert info["total_episodes"] == 25
    assert info["splits"] == {"train": "0:20", "test": "20:25"}
    frames = parquet.read_table(tmp_path / "door" / "data/chunk-000/file-000.parquet")
    source = motion_data.open_motions(str(file)).parts
    wanted = np.concatenate([source["train"].phi, source["test"].phi])
    stored = np.array(frames["observation.state"].to_pylist())
    np.testing.assert_allclose(stored, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "nowhere"), "no motions 'nowhere'"),
        (("--limit", "0"), "limit is 0"),
        (("--width", "100"), "--width 100; widths are multiples of 8"),
        (("--data", "mine.npz", "--part", "val"), "--part val: a file of motions has no parts"),
        (("--data", "mine.npz", "--videos"), "--videos: the shape of 'handle' is not known"),
        (("--data", "mine.npz", "--out", "taken"), "taken is neither an empty folder nor"),
    ],
)
def test_a_mistake_ends_in_one_line(
    words: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: pathlib.Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    motion_set.save("mine.npz", reaches(1, "handle"))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["experiments/export_lerobot.py", *words])
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as stopped:
        export_lerobot.main()
    assert stopped.value.code == 2
    assert message in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


def test_an_earlier_export_is_replaced(tmp_path: pathlib.Path) -> None:
    file = motion_set.save(tmp_path / "mine.npz", reaches(3))
    for limit in (3, 1):
        export(ExportLerobot(data=str(file), out=tmp_path / "out", limit=limit), quiet())
        assert index(tmp_path / "out")["total_episodes"] == limit
    assert (tmp_path / "out" / lerobot.MARK).is_file()
