"""The recorder's command lines: what they write, what they say, how they end."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from rich.console import Console
from scenes import beside_a_mug

from capture import kinect, realdex, recorder, virtual
from capture.device import CaptureError
from capture.recording import Recording
from experiments import motion_data, record, soak, virtual_rig
from experiments.record import Record, ToRealdex
from realdex_jax.data import motion_set, realdex_raw, rigid, store
from realdex_jax.errors import ConfigError, DatasetError
from realdex_jax.hand.load import load
from sim import film, sequence
from sim.clocks import Clock
from sim.demonstrate import Tally

SMALL = {"width": 160, "depth_width": 80, "frames": 3, "lift": 0.0, "floor_gb": 0.0}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One motion in place of demonstrations, where they are looked for."""
    folder = tmp_path_factory.mktemp("cache")
    scene, dataset = beside_a_mug(), store.open_dataset("realdex-sim")
    phi = scene.phi[:16].astype(np.float32)
    world = scene.wxyz_xyz_world_object[:1].astype(np.float32)
    found = motion_set.of_poses(("mug",), [0], [phi], world, phi[-1:, :22])
    where = motion_data.folder_of(dataset, folder / "realdex_jax" / "motions")
    motion_set.save(where / "mug-1.npz", found)
    (where / "mug-1.json").write_text(json.dumps(dataclasses.asdict(Tally(1))))
    return folder


@pytest.fixture
def here(cache, monkeypatch):
    """That folder as the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return cache


def run(args: Record) -> tuple[recorder.Summary, str]:
    console = Console(record=True, width=200, force_terminal=False)
    return record.run(args, console), console.export_text()


def test_a_virtual_rig_is_recorded_to_the_motions_end_and_converted(here, tmp_path):
    summary, said = run(Record(tmp_path / "a", **SMALL))
    assert summary.good
    assert "complete" in said
    assert "camera 3: 3 frames, none lost" in said
    recorded = Recording(tmp_path / "a")
    assert recorded.note(0)["rig"] == "virtual"
    truth = virtual_rig.read_truth(tmp_path / "a")
    np.testing.assert_allclose(truth["exposure_s_2"], np.arange(3) / 15, atol=2e-3)
    for camera in range(4):
        offset, drift = truth["clock"][camera]
        says = 1e9 * (offset + (1 + 1e-6 * drift) * truth[f"exposure_s_{camera}"])
        np.testing.assert_allclose(recorded.stamps(camera).device_ns, says, atol=3e5)
    series = recorded.joints()
    assert series is not None
    assert len(series.q) > 15

    console = Console(record=True, width=200, force_terminal=False)
    assert record.convert(ToRealdex(tmp_path / "a", tmp_path / "d" / "mug_1"), console) == 12
    assert "robot's clock by arrivals alone, which may be tens of" in console.export_text()
    assert record.convert(ToRealdex(tmp_path / "a", tmp_path / "d" / "mug_1"), console) == 0
    found = realdex_raw.Recording(tmp_path / "d" / "mug_1")
    np.testing.assert_allclose(
        found.wxyz_xyz_world_cam(2)[4:], truth["wxyz_xyz_world_cam"][2, 4:], atol=1e-9
    )
    # The truth is not in the way of who annotates.
    assert not (found.path / realdex_raw.TRACK).exists()
    rows = np.loadtxt(found.path / realdex.TRUE_TRACK)
    np.testing.assert_allclose(rows[:, :3], truth["wxyz_xyz_world_object"][:3, 4:], atol=1e-6)
    # With a calibration of one's own, camera 0 is the world unless it is said where it is.
    args = ToRealdex(
        tmp_path / "a", tmp_path / "e" / "mug_1", calibration=tmp_path / "d" / "calibration_data"
    )
    record.convert(args, console)
    assert "the robot is left out: nobody says where its base is" in console.export_text()
    other = realdex_raw.Recording(tmp_path / "e" / "mug_1")
    np.testing.assert_allclose(other.wxyz_xyz_world_cam0, np.eye(7)[0], atol=1e-12)
    # With what `experiments.calibrate` writes, the arm's base is: of this rig 1.1 m behind.
    results = tmp_path / "calibration"
    shutil.copytree(tmp_path / "d" / "calibration_data", results / "calibration_data")
    base = np.array([1.0, 0, 0, 0, *truth["p_world_base"]])
    cam0 = rigid.compose(rigid.inverse(base), truth["wxyz_xyz_world_cam"][0])
    (results / "global_name_position").mkdir()
    text = json.dumps({"cam0_rgb_camera_link": rigid.matrix(cam0).ravel().tolist()})
    (results / "global_name_position" / "0.txt").write_text(text)
    record.convert(ToRealdex(tmp_path / "a", tmp_path / "f" / "mug_1", results), console)
    placed, whole = (realdex_raw.Recording(tmp_path / x / "mug_1") for x in ("f", "d"))
    moved = rigid.compose(base, sequence.palms(placed.hand(load("shadow")).phi))
    expected = sequence.palms(whole.hand(load("shadow")).phi)
    np.testing.assert_allclose(moved[:, 4:], expected[:, 4:], atol=1e-6)
    rows = np.loadtxt(placed.path / realdex.TRUE_TRACK)
    expected = truth["wxyz_xyz_world_object"][:3, 4:] - base[4:]
    np.testing.assert_allclose(rows[:, :3], expected, atol=1e-6)


def test_live_and_replayed(here, tmp_path):
    summary, _ = run(Record(tmp_path / "a", live=True, seconds=1.0, **SMALL))
    assert summary.ended == "time"
    assert summary.lost == 0
    again, said = run(
        Record(tmp_path / "b", rig="replay", source=tmp_path / "a", floor_gb=0.0, colour="png")
    )
    assert again.ended == "over"
    assert {c: n.written for c, n in again.counts.items()} == {
        c: n.written for c, n in summary.counts.items()
    }
    assert "complete" in said
    # The robot as well, with its stamps.
    then, now = (Recording(tmp_path / x).joints() for x in "ab")
    assert then is not None
    assert now is not None
    assert now.names == then.names
    count, last = len(now.q), Recording(tmp_path / "b").stamps(0).host_ns[-1]
    assert count > 60
    assert count == len(then.q) or now.stamps.host_ns[-1] >= last
    np.testing.assert_array_equal(now.q, then.q[:count])
    np.testing.assert_array_equal(now.stamps.device_ns, then.stamps.device_ns[:count])


def test_cameras_and_a_robot_on_ros_are_recorded_together(tmp_path, monkeypatch):
    rig = film.around_table(5, 64, 80)
    lenses = rig.lenses[0]
    colour = np.zeros((lenses.colour.height, lenses.colour.width, 3), np.uint8)
    depth = np.zeros((lenses.depth.height, lenses.depth.width), np.uint16)
    cameras = virtual.devices(rig, lambda *_: (colour, depth))
    said = []

    class Joints(virtual.VirtualJoints):
        def __init__(self, preset):
            said.append(preset.name)
            time_s, q = np.array([0.0, 60.0]), np.zeros((2, len(preset.joints)))
            super().__init__(preset.joints, time_s, q, Clock(), cameras[0].pulse)

        def wait(self):
            said.append("heard")

        def close(self):
            said.append("closed")

    monkeypatch.setattr(kinect, "devices", lambda *_, **__: cameras)
    monkeypatch.setattr(record, "RobotJoints", Joints)
    args = Record(tmp_path / "a", rig="kinect", robot="shadow_ur10e", seconds=0.7, floor_gb=0.0)
    summary, _ = run(args)
    assert summary.joint_states > 40
    assert said == ["shadow_ur10e", "heard", "closed"]
    series = Recording(tmp_path / "a").joints()
    assert series is not None
    assert series.names == sequence.JOINTS
    _, told = run(dataclasses.replace(args, out=tmp_path / "b", robot=None, seconds=0.2))
    assert "no joints are recorded; --robot NAME" in told
    assert Recording(tmp_path / "b").joints() is None


def test_what_cannot_be_is_refused(here, tmp_path):
    for changes, error, message in (
        ({"seconds": -1.0}, ConfigError, r"seconds is -1\.0; must be positive"),
        ({"quality": 0}, ConfigError, "quality is 0; must be 1 to 100"),
        ({"rig": "replay"}, ConfigError, "needs --source"),
        ({"object": "teapot"}, DatasetError, "no object 'teapot'; known: air_duster"),
        ({"motion": -1}, ConfigError, "motion is -1; cannot be negative"),
        ({"width": 100}, ValueError, "colour pictures 100 wide"),
        ({"robot": "shadow_ur10e"}, ConfigError, "--robot shadow_ur10e with --rig virtual"),
    ):
        with pytest.raises(error, match=message):
            run(Record(tmp_path / "a", **(SMALL | changes)))
    with pytest.raises(CaptureError, match=r"no truth\.npz, which only virtual recordings have"):
        virtual_rig.read_truth(tmp_path)


@pytest.mark.slow
def test_ctrl_c_and_terminate_end_a_recording_cleanly_and_repair_finds_nothing(
    here, tmp_path, repository
):
    command = [sys.executable, "-m", "experiments.record", str(tmp_path / "a"), "--live"]
    for name, value in SMALL.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    env = {**os.environ, "XDG_CACHE_HOME": str(here)}
    with subprocess.Popen(
        command, cwd=repository, env=env, stdout=subprocess.PIPE, text=True
    ) as started:
        until = time.monotonic() + 60
        while not list(tmp_path.glob("a/cam*.rec")) and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(1.0)
        started.send_signal(signal.SIGTERM)
        said = started.communicate(timeout=30)[0]
    assert "stopped by hand" in said
    assert "none lost" in said
    assert started.returncode == 1
    recorded = Recording(tmp_path / "a")
    assert not recorded.torn
    assert len(recorded.stamps(0).number) > 5
    console = Console(record=True, width=200)
    record.repair(tmp_path / "a", console)
    assert f"cam0: {len(recorded.stamps(0).number)} whole, 0 missing" in console.export_text()


def test_a_short_soak_loses_nothing(tmp_path):
    report = soak.soak(tmp_path / "a", 2.0, fps=15, width=160)
    assert report.lost == 0
    assert report.frames >= 4 * 28
    # A robot of 500 states a second, less what starting takes.
    assert 850 < report.joint_states < 500 * 60 * report.minutes + 25
    assert "0 frames lost" in soak.told(report)
