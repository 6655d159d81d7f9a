"""All stamps by one clock: true times but for a constant, whatever clocks did meanwhile."""

import numpy as np
import pytest

from capture import realdex, recorder, timeline, virtual
from capture.clockmap import SyncError
from capture.device import CaptureError
from capture.motion_sync import RobotSync
from capture.recording import Recording, Storage
from capture.streams import RecorderConfig
from capture.virtual import Faults, VirtualJoints
from realdex_jax.data import realdex_raw
from realdex_jax.hand.load import load
from sim import clocks, film
from sim.clocks import Clock
from sim.demonstrate import P_WORLD_BASE
from sim.sequence import JOINTS

HAND = load("shadow")
BASE = np.array([1.0, 0, 0, 0, *P_WORLD_BASE])
COUNT = 45


def nothing(rig):
    """Pictures of nothing, as large as the cameras': stamps alone matter here."""
    lens = rig.lenses[0]
    colour = np.zeros((lens.colour.height, lens.colour.width, 3), np.uint8)
    depth = np.zeros((lens.depth.height, lens.depth.width), np.uint16)
    return lambda camera, number: (colour, depth)


@pytest.fixture(scope="module")
def rig():
    return film.around_table(5, 64, 80, timing=clocks.draw(4, 5, drift_ppm=80.0))


@pytest.fixture(scope="module")
def recorded(rig, tmp_path_factory):
    """Three seconds; the main clock steps forward, camera 2's back, camera 1 loses frames."""
    folder = tmp_path_factory.mktemp("stepping") / "a"
    faults = {
        0: Faults(step=(30, 1.0)),
        1: Faults(drops=frozenset({7, 8, 20})),
        2: Faults(step=(18, -3.2)),
    }
    devices = virtual.devices(rig, nothing(rig), pace="free", count=COUNT, faults=faults)
    time_s, q = np.array([0.0, 3.2]), np.zeros((2, 30))
    robot = VirtualJoints(JOINTS, time_s, q, Clock(0.3, 60.0), devices[0].pulse, pace="free")
    config = RecorderConfig(storage=Storage(colour="png"), patient=True, floor_bytes=0)
    recorder.record(devices, folder, None, config, joints=robot)
    return Recording(folder)


@pytest.fixture(scope="module")
def places(rig):
    return dict(enumerate(rig.wxyz_xyz_world_cam))


def exposed(rig, recorded, camera):
    numbers = recorded.stamps(camera).number.tolist()
    return np.array([rig.clocks.exposure_s(camera, k) for k in numbers])


def test_stamps_are_true_times_but_for_a_constant(rig, recorded):
    found = timeline.of_cameras(recorded)
    assert {c: len(clock.steps) for c, clock in found.clocks.items()} == {0: 1, 1: 0, 2: 1, 3: 0}
    assert found.clocks[2].steps[0][0] == 18
    begin = found.camera_ns[0][0]
    rate = rig.clocks.cameras[0].rate
    for c, ns in found.camera_ns.items():
        off = 1e-9 * (ns - begin) - rate * exposed(rig, recorded, c)
        # 50 us of jitter of each stamp, and of the first one; lines of 45 stamps know it better.
        assert np.abs(off).max() < 4e-4
        assert (np.diff(ns) > 0).all()
    # The recording machine's clock, to what a first frame is late by.
    assert begin == recorded.stamps(0).host_ns[0]


def test_frames_of_one_moment_are_found(recorded):
    together = timeline.of_cameras(recorded).together()
    assert together[0].tolist() == list(range(COUNT))
    assert together[3].tolist() == list(range(COUNT))
    assert np.flatnonzero(together[1] < 0).tolist() == [7, 8, 20]
    assert together[1][[6, 9, 21]].tolist() == [6, 7, 18]


def test_a_recording_with_steps_becomes_realdexs_layout(recorded, places, tmp_path):
    assert realdex.to_realdex(recorded, tmp_path / "mug_1", places) == 4 * COUNT - 3
    together = realdex_raw.Recording(tmp_path / "mug_1").together()
    assert together.dropped == {0: 0, 1: 3, 2: 0, 3: 0}
    assert np.abs(together.offset[together.index >= 0]).max() < 1.5e-3


def test_what_was_made_of_something_else_is_refused(rig, recorded, places, tmp_path):
    folder = tmp_path / "mug_1"
    placed = np.repeat(np.eye(7)[:1], COUNT, axis=0)
    realdex.to_realdex(recorded, folder, places, wxyz_xyz_world_object=placed)
    track = folder / realdex_raw.TRACK
    kept = track.read_text()
    # Again it is no other, and a track that is there stays as somebody made it.
    placed[:, 4] = 1.0
    assert realdex.to_realdex(recorded, folder, places, wxyz_xyz_world_object=placed) == 0
    assert track.read_text() == kept
    with pytest.raises(CaptureError, match=r"mug_1 was made with another calibration \('a'\)"):
        realdex.to_realdex(recorded, folder, places, wxyz_xyz_world_base=BASE)
    other = tmp_path / "b"
    devices = virtual.devices(rig, nothing(rig), pace="free", count=4)
    config = RecorderConfig(storage=Storage(colour="png"), patient=True, floor_bytes=0)
    recorder.record(devices, other, None, config)
    with pytest.raises(CaptureError, match="was made of another recording"):
        realdex.to_realdex(Recording(other), folder, places)
    (folder / realdex.SOURCE).unlink()
    with pytest.raises(CaptureError, match=r"not empty and has no source\.json"):
        realdex.to_realdex(recorded, folder, places)
    # Another rig's calibration does not change that of the recordings beside it.
    moved = {c: place + 0.01 * c * np.eye(7)[4] for c, place in places.items()}
    before = realdex_raw.Recording(folder).wxyz_xyz_world_cam(3)
    realdex.to_realdex(Recording(other), tmp_path / "mug_2", moved)
    np.testing.assert_array_equal(realdex_raw.Recording(folder).wxyz_xyz_world_cam(3), before)
    found = realdex_raw.Recording(tmp_path / "mug_2").wxyz_xyz_world_cam(3)
    np.testing.assert_allclose(found, moved[3], atol=1e-9)


def test_arrivals_tell_the_robots_clock_where_motion_does_not(rig, recorded, places):
    cameras = timeline.of_cameras(recorded)
    found = timeline.with_robot(recorded, cameras, places, HAND, BASE)
    assert found.robot is None
    assert found.why.startswith("the robot moves at 0 of 45 moments; 12 at least")
    with pytest.raises(SyncError, match="moves at 0 of 45"):
        timeline.with_robot(recorded, cameras, places, HAND, BASE, "motion")
    # Its states arrive at once, frames after 20 ms: they seem to be 20 ms earlier than they are.
    off = 1e-9 * (found.robot_ns - found.camera_ns[0][0])
    true_s = np.arange(len(found.robot_ns)) / 125.0
    np.testing.assert_allclose(off, true_s - 0.02, atol=1e-3)


def test_the_robots_clock_is_undone() -> None:
    nothing = np.zeros(0)
    sync = RobotSync(
        0.183, 80.0, 30.0, 0.0, 0.0, 0.0, nothing, nothing, nothing, nothing, nothing, 0.0, 0.0
    )
    at = np.array([0.0, 30.0, 3600.0])
    np.testing.assert_allclose(sync.main_s(sync.robot_s(at)), at, atol=1e-9)
