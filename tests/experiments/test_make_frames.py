"""The virtual rig's run: what it writes reads back, and goes on after a stop."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from rich.console import Console
from scipy.spatial.transform import Rotation

from experiments import make_frames, motion_data
from experiments.make_frames import MakeFrames, Settings
from realdex_jax.data import motion_set, realdex_raw, store
from realdex_jax.data.realdex_raw import Recording
from realdex_jax.errors import ConfigError, DatasetError
from realdex_jax.geometry import sdf
from realdex_jax.hand.load import load
from sim import objects, rig
from sim.demonstrate import Tally
from sim.stage import load_stage

NAME = "yogurt"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Two motions straight down to stored grasps, in place of demonstrations."""
    folder, dataset = tmp_path_factory.mktemp("cache"), store.open_dataset("realdex-sim")
    height = -objects.make(NAME).bounds[0, 2]
    world = np.array([1, 0, 0, 0, 0.02, -0.01, height], np.float32)
    grasps = dataset.grasps(NAME)
    ways = []
    for phi in grasps.phi[:2]:
        way = np.repeat(phi[None], 8, axis=0)
        way[:, 22:25] += world[4:]
        way[:, 24] += np.linspace(0.1, 0.0, 8, dtype=np.float32)
        ways.append(way)
    for count in (1, 2):
        found = motion_set.of_poses(
            (NAME,), [0] * count, ways[:count], np.stack([world] * count), grasps.q_squeeze[:count]
        )
        where = motion_data.folder_of(dataset, folder)
        motion_set.save(where / f"{NAME}-{count}.npz", found)
        (where / f"{NAME}-{count}.json").write_text(json.dumps(dataclasses.asdict(Tally(1))))
    return folder


def settings(tmp_path, **changes) -> Settings:
    given = {"objects": (NAME,), "motions": 1, "frames": 2, "width": 160, **changes}
    return Settings(out=tmp_path / "frames", **given)


def run(config, cache):
    return make_frames.run(config, "test", Console(quiet=True), cache)


def contents(folder):
    return {
        p.relative_to(folder): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != "frames.json"
    }


def test_what_the_rig_takes_is_read_as_a_recording(tmp_path, cache):
    config = settings(tmp_path, motions=2, frames=3, width=640)
    written = run(config, cache)
    assert realdex_raw.recordings(config.out) == written
    recording = Recording(written[1])
    assert recording.object_name == NAME
    np.testing.assert_allclose(np.diff(recording.time_ns) * 1e-9, 1 / 15, atol=1e-9)
    assert recording.together().dropped == {0: 0, 1: 0, 2: 0, 3: 0}
    assert recording.segments() == ((0, 3),)

    track = recording.hand(load("shadow"))
    motion = motion_set.load(
        motion_data.folder_of(store.open_dataset("realdex-sim"), cache) / f"{NAME}-2.npz"
    )
    assert track.valid.all()
    expected = motion.poses(1)[-3:]
    np.testing.assert_allclose(track.phi[:, :25], expected[:, :25], atol=1e-6)
    turn = Rotation.from_rotvec(track.phi[:, 25:]).inv() * Rotation.from_rotvec(expected[:, 25:])
    assert turn.magnitude().max() < 1e-6
    placed, tracked = recording.object_track()
    assert tracked.all()
    np.testing.assert_allclose(placed[2], motion.wxyz_xyz_world_object[1], atol=1e-6)

    # Depth lies on the object, the table or the hand: 5 mm are five deviations of the noise, and
    # what the hand's capsules differ from its meshes. The rest are edges that fly.
    stage = load_stage(load("shadow"), objects.make(NAME))
    stage.place(expected[2], placed[2], np.array([0.02, -0.01, 0.0]))
    for camera in range(4):
        p = recording.world_points(camera, 2)
        p = p[np.linalg.norm(p - placed[2, 4:], axis=1) < 0.1]
        of_object = sdf.exact_distance(stage.shape, p - placed[2, 4:])
        near = np.minimum(np.abs(of_object), np.abs(p[:, 2]))
        near = np.minimum(near, np.abs(stage.hand_distance(p)))
        assert len(p) > 1000
        assert (near < 0.005).mean() > 0.97
        assert np.median(near) < 0.001


def test_an_interrupted_run_ends_with_the_same_files(tmp_path, cache, monkeypatch):
    whole = run(settings(tmp_path / "a"), cache)[0]
    config, taken, photograph = settings(tmp_path / "b"), [], rig.photograph

    def stopping(*args):
        if len(taken) == 5:
            raise KeyboardInterrupt
        taken.append(1)
        return photograph(*args)

    monkeypatch.setattr(rig, "photograph", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(config, cache)
    counted = []
    monkeypatch.setattr(rig, "photograph", lambda *args: counted.append(1) or photograph(*args))
    again = run(config, cache)[0]
    assert len(counted) == 2 * 4 - 5
    assert contents(whole) == contents(again)
    # More motions follow without touching those that are there.
    run(dataclasses.replace(config, motions=2), cache)
    assert len(counted) == 2 * 4 - 5 + 2 * 4
    assert contents(whole) == contents(again)


def test_other_settings_and_foreign_folders_are_refused(tmp_path, cache):
    config = settings(tmp_path)
    make_frames.begin(config, store.open_dataset("realdex-sim"), "test")
    for change, message in (
        (
            {"width": 320},
            r"frames\.json: .* width = 160, this run has 320; .* choose another --out",
        ),
        ({"seed": 1}, "seed = 0, this run has 1"),
        ({"frames": 3}, "frames = 2, this run has 3"),
    ):
        with pytest.raises(DatasetError, match=message):
            run(dataclasses.replace(config, **change), cache)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(DatasetError, match="is not a folder of recordings"):
        run(dataclasses.replace(config, out=other), cache)
    assert [p.name for p in other.iterdir()] == ["thesis.txt"]
    with pytest.raises(DatasetError, match="no object 'teapot'; known: "):
        run(dataclasses.replace(config, objects=("teapot",)), cache)
    with pytest.raises(ConfigError, match="motions is 0; must be 1 or more"):
        run(dataclasses.replace(config, motions=0), cache)


def test_the_command_line_changes_the_preset_and_mistakes_end_in_a_line(
    tmp_path, monkeypatch, capsys
):
    small = make_frames.PRESETS["small"]
    assert MakeFrames().settings() == make_frames.PRESETS["full"]
    assert MakeFrames(preset="small", frames=0).settings() == dataclasses.replace(small, frames=0)
    fields = {f.name for f in dataclasses.fields(MakeFrames)} - {"preset"}
    assert fields == {f.name for f in dataclasses.fields(Settings)}
    assert set(small.objects) <= set(objects.names())
    words = ["make_frames", "--out", str(tmp_path / "x"), "--width", "100"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as caught:
        make_frames.main()
    assert caught.value.code == 2
    assert "CameraError: pictures 100 wide; must be a multiple of 16" in capsys.readouterr().out


@pytest.mark.slow
def test_real_demonstrations_are_recorded(tmp_path):
    config = settings(tmp_path, objects=("mug",), frames=0, width=64)
    recording = Recording(run(config, tmp_path / "cache")[0])
    assert len(recording.time_ns) >= 60
    assert recording.hand(load("shadow")).valid.all()
    assert "ra_flange-rh_forearm.txt" in {p.name for p in (recording.path / "TF").iterdir()}
