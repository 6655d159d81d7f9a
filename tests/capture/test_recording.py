"""Recordings: what was written is read, also by replay, and malformed ones are refused by name."""

import dataclasses
import json
import time

import numpy as np
import pytest

from capture import chunks, recorder, recording, replay, virtual
from capture.chunks import Record, Writer
from capture.device import CaptureError, Device, OverError
from capture.recording import Recording, Storage
from capture.streams import RecorderConfig
from capture.virtual import Faults, VirtualJoints
from sim.clocks import Clock

PATIENT = RecorderConfig(storage=Storage(chunk_bytes=60_000), patient=True, floor_bytes=0)


@pytest.fixture(scope="module")
def recorded(small_rig, small_loop, tmp_path_factory):
    """A recording of 20 frames with gaps, several files and joints."""
    folder = tmp_path_factory.mktemp("recording") / "a"
    faults = {2: Faults(drops=frozenset({0, 7, 8}))}
    devices = virtual.devices(small_rig, small_loop, pace="free", count=20, faults=faults)
    q = np.array([[0.0, 1.0], [1.0, 0.0]])
    joints = VirtualJoints(
        ("a", "b"), np.array([0.0, 1.0]), q, Clock(), devices[0].pulse, pace="free"
    )
    recorder.record(devices, folder, None, PATIENT, joints=joints)
    return folder


def test_streams_go_on_over_several_files(recorded):
    assert len(list(recorded.glob("cam0-*.rec"))) > 2
    found = Recording(recorded)
    assert found.stamps(0).number.tolist() == list(range(20))
    assert found.stamps(2).number.tolist() == [k for k in range(20) if k not in (0, 7, 8)]
    assert found.stamps(2).dropped == 3
    assert found.frame(2, 6).number == 9
    rate = np.diff(found.stamps(1).host_ns) * 1e-9
    np.testing.assert_allclose(rate, 1 / 15, atol=1e-3)


def test_a_replay_is_what_was_recorded_and_can_be_recorded_again(recorded, tmp_path):
    devices = replay.devices(recorded)
    assert all(isinstance(d, Device) for d in devices)
    joints = replay.ReplayJoints(Recording(recorded))
    config = dataclasses.replace(PATIENT, storage=Storage(colour="png"))
    summary = recorder.record(devices, tmp_path / "b", None, config, joints=joints)
    assert summary.ended == "over"
    assert summary.counts[2].dropped == 3
    a, b = Recording(recorded), Recording(tmp_path / "b")
    for camera in a.cameras:
        for one, two in zip(
            dataclasses.astuple(a.stamps(camera)),
            dataclasses.astuple(b.stamps(camera)),
            strict=True,
        ):
            assert (one == two).all()
        for k in range(len(a.stamps(camera).number)):
            was, now = a.frame(camera, k), b.frame(camera, k)
            assert (was.depth == now.depth).all()
            assert (was.colour == now.colour).all()
    assert (a.joints().q == b.joints().q).all()
    with pytest.raises(OverError, match="camera 3 is over"):
        devices[3].start(), [devices[3].read(0.1) for _ in range(21)]


def test_a_replay_at_the_clocks_pace_takes_as_long(recorded):
    device = replay.devices(recorded, pace="wall")[1]
    device.start()
    began, frames = time.monotonic(), []
    while len(frames) < 12:
        if (frame := device.read(0.03)) is not None:
            frames.append(frame.number)
    assert 11 / 15 < time.monotonic() - began < 11 / 15 + 5.0  # the machine may be busy
    assert frames == list(range(12))
    device.stop()
    assert device.read(0.0) is None


def test_a_missing_file_in_the_middle_is_a_gap(recorded, tmp_path):
    for path in recorded.glob("cam1-*.rec"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "cam1-00001.rec").unlink()
    found = Recording(tmp_path)
    assert found.cameras == (1,)
    assert 0 < found.stamps(1).dropped < 19
    assert found.frame(1, len(found.stamps(1).number) - 1).number == 19


def test_the_summary_comes_from_the_files_and_is_never_trusted(recorded, tmp_path):
    for path in recorded.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    told = json.loads((tmp_path / recording.MANIFEST).read_text())
    assert told == recording.manifest(tmp_path)
    (tmp_path / recording.MANIFEST).write_text('{"format": 1, "streams": {"cam0": {"frames": 99}}}')
    assert len(Recording(tmp_path).stamps(0).number) == 20
    last = max(tmp_path.glob("cam0-*.rec"))
    last.write_bytes(last.read_bytes()[:-5])
    assert list(Recording(tmp_path).torn) == [last]
    assert list(recording.repair(tmp_path)) == [last]
    assert recording.repair(tmp_path) == {}
    again = json.loads((tmp_path / recording.MANIFEST).read_text())
    assert again["streams"]["cam0"]["frames"] == 19
    assert again["streams"]["cam1"] == told["streams"]["cam1"]


OPTICS = {
    "colour": {"width": 64, "height": 48, "fx": 50.0, "fy": 50.0, "cx": 32.0, "cy": 24.0},
    "wxyz_xyz_colour_depth": [1, 0, 0, 0, 0, 0, 0],
}
OPTICS["colour"]["distortion"] = [0.0] * 8
OPTICS["depth"] = OPTICS["colour"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2; known: 1"),
        ({"camera": 1}, "its header is not that of a stream 'cam0'"),
        ({"camera": True}, "its header is not that of a stream"),
        ({"kind": "joints"}, "its header is not that of a stream"),
        ({"optics": None}, "T_colour_depth: must be 7 finite numbers"),
        ({"optics": OPTICS | {"colour": None}}, "colour lens: width None; 1 to 8192"),
        (
            {"optics": OPTICS | {"depth": OPTICS["depth"] | {"height": 10**6}}},
            "depth lens: height 1000000; 1 to 8192",
        ),
        ({"optics": OPTICS | {"depth": OPTICS["depth"] | {"fx": -1.0}}}, "focal lengths -1 and 50"),
        (
            {"optics": OPTICS | {"depth": OPTICS["depth"] | {"distortion": [0.0] * 5}}},
            "depth lens: distortion: must be 8",
        ),
        (
            {"optics": OPTICS | {"wxyz_xyz_colour_depth": [2, 0, 0, 0, 0, 0, 0]}},
            "T_colour_depth: quaternion of row 1 has length 2",
        ),
    ],
)
def test_a_malformed_header_is_refused_by_name(tmp_path, change, message):
    header = {"format": 1, "kind": "camera", "camera": 0, "optics": OPTICS} | change
    Writer(tmp_path, "cam0", header).close()
    with pytest.raises(CaptureError, match=message) as raised:
        Recording(tmp_path)
    assert "cam0-00000.rec" in str(raised.value)


def test_frames_that_do_not_fit_the_header_are_refused(tmp_path):
    writer = Writer(
        tmp_path, "cam0", {"format": 1, "kind": "camera", "camera": 0, "optics": OPTICS}
    )
    writer.append(Record(4, 0, 0, b"no picture", b"no depth"))
    writer.close()
    found = Recording(tmp_path)
    with pytest.raises(CaptureError, match=r"cam0-00000\.rec, frame 4: colour is neither PNG"):
        found.frame(0, 0)
    with pytest.raises(CaptureError, match="no frame 1 of camera 0; it has 1"):
        found.frame(0, 1)
    with pytest.raises(CaptureError, match=r"no camera 5; cameras: \(0,\)"):
        found.stamps(5)


def test_joints_that_do_not_fit_their_names_are_refused(tmp_path):
    writer = Writer(tmp_path, "joints", {"format": 1, "kind": "joints", "names": ["a", "b"]})
    writer.append(Record(0, 0, 0, bytes(16), bytes(8)))
    writer.close()
    with pytest.raises(CaptureError, match="record 0: 8 bytes for 2 joints; must be 16"):
        Recording(tmp_path).joints()


def test_what_is_no_recording_is_refused(tmp_path):
    for call in (Recording, recording.repair, replay.devices):
        with pytest.raises(CaptureError, match="no recording in it"):
            call(tmp_path)
    with pytest.raises(CaptureError, match=r"neither a folder of a recording nor an \.mkv"):
        replay.devices(tmp_path / "x.bag")
    (tmp_path / "cam0-00000.rec").write_bytes(b"")
    with pytest.raises(CaptureError, match="joints were not recorded"):
        replay.ReplayJoints(Recording(tmp_path))


def test_files_of_noise_and_mutated_ones_never_crash(recorded, tmp_path):
    content = (recorded / "cam0-00000.rec").read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "cam0-00000.rec"
    for i in range(300):
        mutated = bytearray(content)
        for at in rng.integers(0, len(content) if i % 2 else 900, rng.integers(1, 6)):
            mutated[at] = int(rng.integers(256))
        path.write_bytes(bytes(mutated[: int(rng.integers(1, len(mutated) + 1))]))
        try:
            found = Recording(tmp_path)
            for k in range(min(len(found.stamps(0).number) if found.cameras else 0, 2)):
                found.frame(0, k)
        except CaptureError:
            pass
        chunks.repair(path)
        for left in tmp_path.iterdir():
            left.unlink()
