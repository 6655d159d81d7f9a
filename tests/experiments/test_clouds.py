"""Clouds of recordings as files: on the true surfaces, of ours and of RealDex's layout."""

import dataclasses
import json

import numpy as np
import pytest
import trimesh
from rich.console import Console
from scenes import IDEAL, beside_a_mug

from capture import cloud_file, recorder, virtual
from capture.cloud import Cloud
from capture.device import CaptureError
from capture.recording import Storage
from capture.streams import RecorderConfig
from capture.virtual import VirtualJoints
from experiments import clouds, footage, record, virtual_rig
from experiments.clouds import Clouds
from experiments.record import ToRealdex
from experiments.virtual_rig import Made
from realdex_jax.data import rigid
from realdex_jax.errors import ConfigError
from realdex_jax.geometry import sdf
from realdex_jax.hand.load import load
from sim import film, objects
from sim.clocks import Clock
from sim.film import Film
from sim.sequence import JOINTS

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def made():
    scene = beside_a_mug()
    rig = film.around_table(5, 160, 160)
    return Film(rig, load("shadow"), objects.make("mug"), scene, noise=IDEAL)


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    """Two frames with the robot, and what is true of them."""
    path = tmp_path_factory.mktemp("clouds") / "a"
    devices = virtual.devices(made.rig, virtual.rendered(made), pace="free", count=2)
    q = made.sequence.robot()
    robot = VirtualJoints(JOINTS, made.sequence.time_s, q, Clock(), devices[0].pulse, pace="free")
    config = RecorderConfig(storage=Storage(colour="png"), patient=True, floor_bytes=0)
    recorder.record(devices, path, None, config, joints=robot)
    virtual_rig.save_truth(path, Made(made, Clock()), live=False)
    return path


def read(path):
    """By another reader of PLY."""
    found = trimesh.load(path)
    return np.asarray(found.vertices), np.asarray(found.colors)[:, :3]


def test_a_cloud_reads_back(tmp_path):
    rng = np.random.default_rng(0)
    p, n = rng.normal(size=(2, 50, 3))
    colour = rng.integers(0, 256, (50, 3)).astype(np.uint8)
    (tmp_path / "a.ply").write_bytes(cloud_file.ply(Cloud(p, n, colour, np.ones(50, np.int64), {})))
    found, shades = read(tmp_path / "a.ply")
    np.testing.assert_allclose(found, p, atol=1e-6)
    np.testing.assert_array_equal(shades, colour)


def test_clouds_of_our_recording_lie_on_the_surfaces(made, folder, tmp_path):
    args = Clouds(folder, out=tmp_path / "c", first=1)
    files = clouds.run(args, QUIET)
    assert [f.name for f in files] == ["1.ply"]
    p, _ = read(files[0])
    place = made.sequence.object_at(np.array([1 / 15]))[0]
    near = np.linalg.norm(p - place[4:], axis=1) < 0.15
    assert near.sum() > 500
    made._stage.place(
        made.sequence.hand_at(np.array([1 / 15]))[0].astype(np.float32),
        place,
        np.array([0.05, 0.02, 0.0]),
    )
    on_mug = np.abs(sdf.exact_distance(objects.make("mug"), rigid.apply(rigid.inverse(place), p)))
    off = np.minimum(np.minimum(on_mug, np.abs(p[:, 2])), np.abs(made._stage.hand_distance(p)))
    # Readings are 7 mm apart, without noise.
    assert np.median(off[near]) < 2e-3
    rows = json.loads((tmp_path / "c" / "clouds.json").read_text())["frames"]
    assert rows["1"]["points"] == len(p)
    assert rows["1"]["seconds"]["merged"] > 0.0
    # What is there stays, unless it was asked for otherwise.
    written = files[0].stat().st_mtime_ns
    clouds.run(dataclasses.replace(args, first=0), QUIET)
    assert files[0].stat().st_mtime_ns == written
    assert (tmp_path / "c" / "0.ply").is_file()
    with pytest.raises(CaptureError, match="asked for otherwise"):
        clouds.run(dataclasses.replace(args, upstream_compatible=True), QUIET)
    with pytest.raises(ConfigError, match="frames are 0 to 1"):
        clouds.run(dataclasses.replace(args, first=2), QUIET)
    cut = clouds.run(Clouds(folder, out=tmp_path / "d", first=1, cut_robot=True), QUIET)
    without, _ = read(cut[0])
    assert np.abs(made._stage.hand_distance(without)).min() > 0.0
    assert len(without) < len(read(files[0])[0]) - 200


def test_clouds_of_realdexs_layout(folder, tmp_path):
    record.convert(ToRealdex(folder, tmp_path / "mug_1"), QUIET)
    files = clouds.run(Clouds(tmp_path / "mug_1", count=1), QUIET)
    assert files == [tmp_path / "mug_1" / "merged_pcd" / "0.ply"]
    p, _ = read(files[0])
    # Pictures of 160 x 90 pixels: windows of five are 8 cm of the table.
    assert len(p) > 1000
    assert np.median(np.abs(p[p[:, 2] < 0.01, 2])) < 2e-3
    old = clouds.run(
        Clouds(tmp_path / "mug_1", out=tmp_path / "o", count=1, upstream_compatible=True), QUIET
    )
    assert len(read(old[0])[0]) > 500
    with pytest.raises(ConfigError, match="in RealDex's layout and has them"):
        clouds.run(Clouds(tmp_path / "mug_1", calibration=tmp_path), QUIET)


def test_the_viewer_has_the_same_clouds_and_the_object(made, folder, tmp_path):
    config = Clouds(folder, out=tmp_path / "out")
    shown = footage.Recorded(folder)
    files = clouds.run(config, QUIET)
    assert footage.is_recording(folder)
    assert not footage.is_recording(tmp_path)
    assert (shown.count, sorted(shown.eyes)) == (len(files), [0, 1, 2, 3])
    lens = made.rig.lenses[0].colour
    assert shown.eyes[0].aspect == pytest.approx(lens.width / lens.height)
    for k, file in enumerate(files):
        shot = shown.shot(k)
        p, colour = read(file)
        np.testing.assert_allclose(shot.p_world, p, atol=1e-6)
        np.testing.assert_array_equal(shot.colour, colour)
        assert sorted(shot.pictures) == [0, 1, 2, 3]
        assert shot.pictures[0].shape[1] == 360
        true = virtual_rig.read_truth(folder)
        then = rigid.interpolate(
            true["time_s"], true["wxyz_xyz_world_object"], true["exposure_s_0"][k : k + 1]
        )
        np.testing.assert_allclose(shot.wxyz_xyz_world_object, then[0], atol=1e-6)
