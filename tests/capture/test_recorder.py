"""The recorder: every frame on disk or counted, whatever goes wrong, and the others go on."""

import _thread
import dataclasses
import errno
import json
import os
import re
import threading
import time

import cameras
import numpy as np
import pytest

from capture import codecs, recorder, recording, streams, virtual
from capture.chunks import DiskError
from capture.device import CaptureError, OverError
from capture.recording import FrameWriter, JointState, Recording, Storage
from capture.streams import RecorderConfig
from capture.virtual import Faults, VirtualJoints
from sim.clocks import Clock

EXACT = Storage(colour="png", sync_s=0.2)
PATIENT = RecorderConfig(storage=EXACT, patient=True, floor_bytes=0)
LIVE = RecorderConfig(storage=Storage(), floor_bytes=0)


def same(recorded: Recording, camera: int, loop, codec="png") -> int:
    """Checks that each frame is what the generator made; returns how many there are."""
    stamps = recorded.stamps(camera)
    for k, number in enumerate(stamps.number.tolist()):
        frame = recorded.frame(camera, k)
        colour, depth = loop(camera, number)
        assert (frame.depth == depth).all()
        if codec == "jpeg":
            size = colour.shape[1], colour.shape[0]
            colour = codecs.decode_colour(codecs.encode_colour(colour), size, "generator")
        assert (frame.colour == colour).all()
        assert (frame.camera, frame.number) == (camera, number)
    return len(stamps.number)


def test_all_frames_are_on_disk_as_the_generator_made_them(quick, small_loop, small_rig, tmp_path):
    devices = quick(30)
    told = []
    summary = recorder.record(
        devices,
        tmp_path / "a",
        None,
        PATIENT,
        note={"object": "mug"},
        tell=lambda *x: told.append(x),
    )
    assert summary.ended == "over"
    assert summary.good
    recorded = Recording(tmp_path / "a")
    assert recorded.cameras == (0, 1, 2, 3)
    assert not recorded.torn
    for camera in range(4):
        assert same(recorded, camera, small_loop) == 30
        assert recorded.stamps(camera).dropped == 0
        assert recorded.note(camera) == {"object": "mug"}
        was, now = devices[camera].optics, recorded.optics(camera)
        assert (was.colour, was.depth) == (now.colour, now.depth)
        np.testing.assert_allclose(now.wxyz_xyz_colour_depth, was.wxyz_xyz_colour_depth, atol=1e-15)
        made = [small_rig.clocks.device_ns(camera, k) for k in range(30)]
        assert recorded.stamps(camera).device_ns.tolist() == made
    assert recorded.joints() is None
    assert told
    sums = json.loads((tmp_path / "a" / recording.MANIFEST).read_text())
    assert sums == recording.manifest(tmp_path / "a")
    assert sums["streams"]["cam2"]["frames"] == 30


def test_four_cameras_at_15_hz_lose_nothing(quick, small_loop, tmp_path):
    devices = quick(45, "wall")
    summary = recorder.record(devices, tmp_path / "a", None, LIVE)
    assert summary.lost == sum(d.dropped for d in devices) == 0
    assert {c.written for c in summary.counts.values()} == {45}
    assert summary.ended == "over"
    # 44 periods, and what starting and finishing take.
    assert 44 / 15 < summary.seconds < 44 / 15 + 1.0
    assert same(Recording(tmp_path / "a"), 3, small_loop, "jpeg") == 45
    host = Recording(tmp_path / "a").stamps(1).host_ns
    assert 1e-9 * (host[-1] - host[0]) == pytest.approx(44 / 15, abs=0.1)


def test_drops_are_counted_exactly(quick, tmp_path):
    rng = np.random.default_rng(1)
    faults = {
        f"cam{c}": Faults(drops=frozenset(rng.integers(0, 55, 12).tolist())) for c in range(3)
    }
    devices = quick(60, **faults)
    summary = recorder.record(devices, tmp_path / "a", None, PATIENT)
    assert not summary.good
    for device in devices:
        count = summary.counts[device.camera]
        assert (
            count.dropped
            == device.dropped
            == len(faults.get(f"cam{device.camera}", Faults()).drops)
        )
        stamps = Recording(tmp_path / "a").stamps(device.camera)
        assert stamps.number.tolist() == list(device.delivered)
        assert stamps.dropped == device.dropped
    assert summary.lost == sum(d.dropped for d in devices)


def test_a_stalled_driver_loses_what_it_cannot_hold_and_numbers_tell(quick, tmp_path):
    devices = quick(30, "wall", cam2=Faults(stalls={5: 0.9}))
    summary = recorder.record(devices, tmp_path / "a", None, LIVE)
    slow = devices[2]
    # 0.9 s are 13 or 14 frames, of which the driver holds 4.
    assert 8 <= slow.dropped <= 11
    assert summary.counts[2].dropped == slow.dropped
    assert summary.lost == slow.dropped
    mine = [e for e in summary.events if e.camera == 2]
    assert [e.kind for e in mine] == ["silent", "back"]
    assert "no frame for 0." in mine[0].text


def test_a_disk_of_5_mb_a_second_costs_frames_that_are_counted_and_no_memory(tmp_path, monkeypatch):
    """Four cameras make about twice what the disk takes; what waits is bounded by the queues."""
    rate, written, lock, writev = 5e6, [0, 0.0], threading.Lock(), os.writev

    def slow(fd, parts):
        with lock:  # one disk
            took = writev(fd, parts)
            written[0] += took
            written[1] = max(written[1], time.monotonic()) + took / rate
            time.sleep(max(written[1] - time.monotonic(), 0.0))
        return took

    rig = cameras.rig(640, 320)
    loop = cameras.noise_loop(rig)
    monkeypatch.setattr(os, "writev", slow)
    config, count = dataclasses.replace(LIVE, queue_frames=3), 24
    devices = virtual.devices(rig, loop, pace="wall", count=count)
    began = time.monotonic()
    summary = recorder.record(devices, tmp_path / "a", None, config)
    assert written[0] <= rate * (time.monotonic() - began) * 1.01
    assert summary.ended == "over"
    assert sum(c.overflowed for c in summary.counts.values()) > 0
    assert summary.lost > 8  # a machine that makes them late loses fewer
    recorded = Recording(tmp_path / "a")
    assert not recorded.torn
    for device in devices:
        found, stamps = summary.counts[device.camera], recorded.stamps(device.camera)
        assert found.received == len(device.delivered) == count - device.dropped
        assert found.written == len(stamps.number) == count - found.lost
        assert found.dropped == device.dropped
        # Frames lost after the last one on disk are no gap there: the summary knows of them.
        assert stamps.dropped <= found.lost
        assert same(recorded, device.camera, loop, "jpeg") == found.written


def test_an_unplugged_camera_is_told_within_a_second_and_the_others_go_on(quick, tmp_path):
    devices = quick(40, "wall", cam1=Faults(unplug_at=12))
    seen = []
    summary = recorder.record(
        devices, tmp_path / "a", None, LIVE, tell=lambda s, _, new: seen.extend((s, e) for e in new)
    )
    ((when, event),) = seen
    assert (event.kind, event.camera) == ("unplugged", 1)
    assert "unplugged at frame 12" in event.text
    assert when < 12 / 15 + 1.0
    assert [summary.counts[c].written for c in range(4)] == [40, 12, 40, 40]
    assert not summary.good
    assert summary.ended == "unplugged"
    lines = (tmp_path / "a" / recording.EVENTS).read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["unplugged"]


def test_a_driver_that_raises_or_hangs_is_one_camera_less(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "JOIN_S", 0.3)
    devices = quick(15, "wall")
    devices[1].read = lambda timeout_s: 1 / 0
    hung = threading.Event()
    devices[2].read = lambda timeout_s: hung.wait(60) and None
    config = dataclasses.replace(LIVE, start_s=0.5)
    summary = recorder.record(devices, tmp_path / "a", 1.5, config)
    hung.set()
    assert {(e.kind, e.camera) for e in summary.events} == {("driver", 1), ("silent", 2)}
    assert "ZeroDivisionError: division by zero" in str([e.text for e in summary.events])
    assert [summary.counts[c].written for c in (0, 3)] == [15, 15]
    assert summary.ended == "time"


def test_a_clock_step_is_told_and_costs_nothing(quick, tmp_path):
    devices = quick(30, cam3=Faults(step=(11, -3.2)))
    summary = recorder.record(devices, tmp_path / "a", None, PATIENT)
    (event,) = summary.events
    assert (event.kind, event.camera, event.text) == ("clock", 3, "steps by -3.200 s at frame 11")
    assert summary.lost == 0
    assert len(Recording(tmp_path / "a").stamps(3).number) == 30


def test_a_full_disk_ends_it_and_every_closed_frame_is_readable(
    quick, small_loop, tmp_path, monkeypatch
):
    writev, room = os.writev, [400_000]
    lock = threading.Lock()

    def scarce(fd, parts):
        with lock:
            took = min(room[0], sum(map(len, parts)))
            room[0] -= took
        if not took:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return writev(fd, [b"".join(parts)[:took]])

    monkeypatch.setattr(os, "writev", scarce)
    devices = quick(200)
    summary = recorder.record(devices, tmp_path / "a", None, PATIENT)
    assert summary.ended == "disk"
    assert "No space left on device" in summary.events[0].text
    recorded = Recording(tmp_path / "a")
    assert not recorded.torn
    for camera, count in summary.counts.items():
        assert same(recorded, camera, small_loop) == count.written
        assert count.received == count.written + count.unwritten + count.overflowed
    assert sum(c.written for c in summary.counts.values()) > 10
    assert recording.repair(tmp_path / "a") == {}


def test_free_space_is_looked_at_before_and_during(quick, small_loop, tmp_path, monkeypatch):
    config = dataclasses.replace(LIVE, floor_bytes=2**60)
    with pytest.raises(DiskError, match=r"GiB free, at least 1073741824\.00 must stay free"):
        recorder.record(quick(), tmp_path / "a", None, config)
    usage = recorder.shutil.disk_usage(tmp_path)
    left = iter([2**33, 2**33])
    monkeypatch.setattr(
        recorder.shutil, "disk_usage", lambda _: usage._replace(free=next(left, 2**29))
    )
    config = dataclasses.replace(LIVE, floor_bytes=2**30)
    summary = recorder.record(quick(None, "wall"), tmp_path / "b", 20, config)
    assert summary.ended == "disk"
    assert summary.events[0].text == "0.50 GiB free; recording ends to leave them"
    assert 1.0 < summary.seconds < 3.5
    assert same(Recording(tmp_path / "b"), 0, small_loop, "jpeg") == summary.counts[0].written > 10


def test_a_folder_that_is_used_or_read_only_is_refused(quick, tmp_path, monkeypatch):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(CaptureError, match="is not empty; choose a new folder"):
        recorder.record(quick(), tmp_path, None, PATIENT)
    with pytest.raises(DiskError, match="Not a directory"):
        recorder.record(quick(), tmp_path / "thesis.txt" / "a", None, PATIENT)
    opened = os.open

    def read_only(path, flags, *mode, **more):
        if flags & os.O_CREAT and str(path).endswith("cam1-00000.rec"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(path, flags, *mode, **more)

    monkeypatch.setattr(os, "open", read_only)
    devices = quick()
    with pytest.raises(DiskError, match=r"cam1-00000\.rec: Read-only file system"):
        recorder.record(devices, tmp_path / "b", None, PATIENT)
    assert not any(d.delivered for d in devices)


def test_cameras_must_have_numbers_of_their_own_and_start(quick, tmp_path):
    devices = quick()
    with pytest.raises(CaptureError, match=r"cameras \[0, 0\]; there must be one at least"):
        recorder.record([devices[0], devices[0]], tmp_path / "a", None, PATIENT)
    with pytest.raises(CaptureError, match=r"cameras \[\]"):
        recorder.record([], tmp_path / "a", None, PATIENT)
    order, stopped = [], []
    for device in devices:
        start, stop = device.start, device.stop
        device.start = lambda d=device, s=start: (order.append(d.camera), s())
        device.stop = lambda d=device, s=stop: (stopped.append(d.camera), s())

    def refuses():
        raise CaptureError("camera 0 is used by another program")

    devices[0].start = refuses
    with pytest.raises(CaptureError, match="used by another program"):
        recorder.record(devices, tmp_path / "b", None, PATIENT)
    # The main camera last; all that were touched are let go, also the one that would not start.
    assert order == [3, 2, 1]
    assert sorted(stopped) == [0, 1, 2, 3]


def test_cameras_that_were_only_asked_for_their_optics_are_let_go(quick, tmp_path, monkeypatch):
    """A Kinect opens when it is asked for its lenses."""
    devices, stopped = quick(), []
    for device in devices:
        device.stop = lambda d=device: stopped.append(d.camera)

    def refuses(folder, camera, *more):
        if camera == 2:
            raise CaptureError("camera 2 cannot be opened")
        return FrameWriter(folder, camera, *more)

    monkeypatch.setattr(streams, "FrameWriter", refuses)
    with pytest.raises(CaptureError, match="camera 2 cannot be opened"):
        recorder.record(devices, tmp_path / "a", None, PATIENT)
    assert sorted(stopped) == [0, 1, 2]


def test_a_camera_that_hangs_while_it_stops_holds_nothing_up(
    quick, small_loop, tmp_path, monkeypatch
):
    monkeypatch.setattr(recorder, "JOIN_S", 0.3)
    devices, hung, stopped = quick(12), threading.Event(), []
    for device in devices:
        device.stop = lambda d=device: stopped.append(d.camera)
    devices[2].stop = lambda: hung.wait(60)
    began = time.monotonic()
    summary = recorder.record(devices, tmp_path / "a", None, PATIENT)
    hung.set()
    assert time.monotonic() - began < 10.0
    assert sorted(stopped) == [0, 1, 3]
    assert [(e.kind, e.camera, e.text) for e in summary.events] == [
        ("driver", 2, "does not stop within 0.3 s")
    ]
    assert same(Recording(tmp_path / "a"), 2, small_loop) == 12


def test_frames_whose_sync_fails_are_counted_as_on_disk(quick, small_loop, tmp_path, monkeypatch):
    calls = []

    def failing(fd):
        calls.append(fd)
        if len(calls) > 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", failing)
    config = dataclasses.replace(PATIENT, storage=Storage(colour="png", sync_s=0.0))
    summary = recorder.record(quick(40), tmp_path / "a", None, config)
    assert summary.ended == "disk"
    assert "Input/output error; a power cut may cost" in summary.events[0].text
    recorded = Recording(tmp_path / "a")
    for camera, count in summary.counts.items():
        assert same(recorded, camera, small_loop) == count.written
        assert count.received == count.written + count.unwritten + count.overflowed
    assert sum(c.written for c in summary.counts.values()) >= 3


def test_ctrl_c_ends_it_cleanly(quick, small_loop, tmp_path):
    devices = quick(None, "wall")
    timer = threading.Timer(1.2, _thread.interrupt_main)
    timer.start()
    summary = recorder.record(devices, tmp_path / "a", 60, LIVE)
    timer.join()
    assert summary.ended == "interrupted"
    assert summary.lost == 0
    recorded = Recording(tmp_path / "a")
    assert not recorded.torn
    for camera, count in summary.counts.items():
        assert same(recorded, camera, small_loop, "jpeg") == count.written >= 10
    assert (tmp_path / "a" / recording.MANIFEST).exists()


def test_another_thread_can_end_it(quick, tmp_path):
    stop = threading.Event()
    threading.Timer(0.6, stop.set).start()
    summary = recorder.record(quick(None, "wall"), tmp_path / "a", None, LIVE, stop=stop)
    assert (summary.ended, summary.lost) == ("time", 0)


def test_the_robots_joints_are_recorded_beside(quick, tmp_path):
    devices = quick(15)
    time_s, names = np.array([0.0, 0.4, 0.8]), ("a", "b")
    q = np.array([[0.0, 1.0], [1.0, 1.0], [1.0, -1.0]])
    clock = Clock(offset_s=2.0, drift_ppm=80.0)
    source = VirtualJoints(names, time_s, q, clock, devices[0].pulse, pace="free")
    summary = recorder.record(devices, tmp_path / "a", None, PATIENT, joints=source)
    series = Recording(tmp_path / "a").joints()
    assert series is not None
    assert series.names == names
    assert summary.joint_states == len(series.q) == 101
    true = np.arange(101) / 125
    np.testing.assert_allclose(series.q[:, 0], np.minimum(2.5 * true, 1.0), atol=1e-12)
    np.testing.assert_allclose(series.qd[10:40, 0], 2.5, atol=1e-9)
    np.testing.assert_allclose(clock.true(series.stamps.device_ns), true, atol=2e-9)
    assert series.stamps.dropped == 0


class Joints:
    """States with some numbers missing, some waits, and an end."""

    names = ("a",)

    def __init__(self, numbers, waits=None, over=False) -> None:
        self.left, self.waits, self.over = list(numbers), dict(waits or {}), over

    def read(self, timeout_s):
        if not self.left:
            if self.over:
                raise OverError("over")
            time.sleep(timeout_s)
            return None
        number = self.left[0]
        wait = self.waits.pop(number, 0.004)
        if wait > timeout_s:
            self.waits[number] = wait - timeout_s
            time.sleep(timeout_s)
            return None
        time.sleep(wait)
        self.left.pop(0)
        now = time.monotonic_ns()
        return JointState(number, now, now, np.zeros(1), np.zeros(1))


def test_states_that_the_robot_lost_are_counted(quick, tmp_path):
    source = Joints([0, 1, 2, 5, 6, 4, 9, 10])
    summary = recorder.record(quick(9, "wall"), tmp_path / "a", None, LIVE, joints=source)
    assert (summary.joint_states, summary.joint_drops) == (7, 4)
    assert not summary.good
    order = [e.text for e in summary.events if e.kind == "order"]
    assert order == ["state 4 of the joints after 6 is left out"]
    series = Recording(tmp_path / "a").joints()
    assert series is not None
    # A number that fell would have ended the file for its readers.
    assert series.stamps.number.tolist() == [0, 1, 2, 5, 6, 9, 10]
    assert series.stamps.dropped == 4


def test_a_robot_that_falls_silent_or_ends_too_early_is_told(quick, tmp_path):
    config = dataclasses.replace(LIVE, silent_s=0.3)
    source = Joints(range(40), waits={3: 0.7})
    summary = recorder.record(quick(18, "wall"), tmp_path / "a", None, config, joints=source)
    mine = [e for e in summary.events if e.camera is None]
    assert [e.kind for e in mine[:2]] == ["silent", "back"]
    assert "no joints for 0." in mine[0].text
    assert summary.joint_drops == 0
    assert not summary.good
    short = Joints(range(10), over=True)
    summary = recorder.record(quick(12, "wall"), tmp_path / "b", None, config, joints=short)
    texts = [e.text for e in summary.events if (e.kind, e.camera) == ("silent", None)]
    assert re.fullmatch(r"joints end at state 9, \d\.\d s too early", texts[-1])
    assert not summary.good
    never = Joints([], over=True)
    summary = recorder.record(quick(4, "wall"), tmp_path / "c", None, config, joints=never)
    assert "joints end before the first" in [e.text for e in summary.events]


def test_what_gave_nothing_in_a_short_recording_is_told(quick, tmp_path):
    """Ten seconds may go by to a first frame; a recording may be shorter."""
    devices = quick(4, "wall")
    devices[3].read = time.sleep
    summary = recorder.record(devices, tmp_path / "a", 0.5, LIVE, joints=Joints([]))
    assert [(e.kind, e.camera, e.text) for e in summary.events] == [
        ("silent", 3, "gave no frame"),
        ("silent", None, "no joints came"),
    ]
    assert not summary.good


@pytest.fixture(autouse=True)
def no_thread_stays():
    """A test that leaves a thread behind would slow the next."""
    before = set(threading.enumerate())
    yield
    until = time.monotonic() + 2.0
    while set(threading.enumerate()) - before and time.monotonic() < until:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before
