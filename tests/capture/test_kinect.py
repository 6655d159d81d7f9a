"""The adapter of pyk4a: against the real package where it loads, and a stand-in anywhere."""

import builtins
import importlib
import inspect
import json
import sys

import fake_pyk4a
import numpy as np
import pytest

from capture import kinect, recorder, replay
from capture.device import CaptureError, Device, OverError, UnpluggedError
from capture.kinect import KinectDevice
from capture.recording import Recording
from capture.streams import RecorderConfig


@pytest.fixture
def fake(monkeypatch):
    """The stand-in in the package's place."""
    monkeypatch.setitem(sys.modules, "pyk4a", fake_pyk4a)
    monkeypatch.setattr(fake_pyk4a.PyK4A, "made", [])
    monkeypatch.setattr(fake_pyk4a.PyK4A, "fails", {})
    monkeypatch.setattr(fake_pyk4a.PyK4A, "arrivals", None)
    return fake_pyk4a


def real():
    """The package itself, if it can be loaded here."""
    try:
        return importlib.import_module("pyk4a")
    except Exception as error:
        pytest.skip(
            f"pyk4a cannot be imported here ({type(error).__name__}); see capture/kinect.py"
        )


@pytest.mark.parametrize("module", [real, lambda: fake_pyk4a], ids=["package", "stand-in"])
def test_the_package_has_what_the_adapter_uses(module):
    k4a = module()
    for resolution in kinect.SIZES:
        assert int(k4a.ColorResolution[f"RES_{resolution}"]) > 0
    order = [int(k4a.ColorResolution[f"RES_{r}"]) for r in kinect.SIZES]
    assert order == list(range(1, len(order) + 1))
    assert [int(k4a.FPS[name]) for name in kinect.RATES.values()] == [0, 1, 2]
    for enum, names in (
        ("WiredSyncMode", ("STANDALONE", "MASTER", "SUBORDINATE")),
        ("DepthMode", ("NFOV_UNBINNED",)),
        ("ImageFormat", ("COLOR_MJPG",)),
        ("CalibrationType", ("DEPTH", "COLOR")),
    ):
        assert set(names) <= set(getattr(k4a, enum).__members__)
    assert issubclass(k4a.K4ATimeoutException, k4a.K4AException)
    config = k4a.Config(
        color_resolution=k4a.ColorResolution.RES_720P,
        color_format=k4a.ImageFormat.COLOR_MJPG,
        depth_mode=k4a.DepthMode.NFOV_UNBINNED,
        camera_fps=k4a.FPS.FPS_15,
        synchronized_images_only=True,
        depth_delay_off_color_usec=0,
        wired_sync_mode=k4a.WiredSyncMode.SUBORDINATE,
        subordinate_delay_off_master_usec=480,
        disable_streaming_indicator=False,
    )
    assert config.subordinate_delay_off_master_usec == 480
    assert list(inspect.signature(k4a.PyK4A).parameters)[:2] == ["config", "device_id"]
    assert "timeout" in inspect.signature(k4a.PyK4A.get_capture).parameters
    for owner, names in (
        (k4a.PyK4A, ("open", "start", "stop", "close", "calibration")),
        (k4a.PyK4APlayback, ("open", "close", "configuration", "calibration", "get_next_capture")),
        (k4a.PyK4ACapture, ("color", "depth")),
        (k4a.PyK4ACapture, ("depth_timestamp_usec", "depth_system_timestamp_nsec")),
    ):
        assert all(hasattr(owner, name) for name in names)
    # A name that is not there would be set all the same, and exposure stay automatic.
    for name in ("exposure", "whitebalance"):
        assert getattr(k4a.PyK4A, name).fset is not None
    assert "opened" in dir(k4a.PyK4A(config))
    for name, count in (
        ("get_camera_matrix", 2),
        ("get_distortion_coefficients", 2),
        ("get_extrinsic_parameters", 3),
    ):
        assert len(inspect.signature(getattr(k4a.Calibration, name)).parameters) == count
    assert callable(k4a.connected_device_count)


@pytest.mark.parametrize("error", [ImportError("libk4a.so.1.4"), AttributeError("_ARRAY_API")])
def test_without_the_package_the_error_says_how_to_install_it(error, monkeypatch, tmp_path):
    imported = builtins.__import__

    def refuse(name, *more):
        if name == "pyk4a":
            raise error
        return imported(name, *more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    for opening in (
        lambda: KinectDevice(0, 0),
        kinect.devices,
        lambda: replay.devices(tmp_path),
    ):
        (tmp_path / "cam0.mkv").write_bytes(b"\x1aE\xdf\xa3")
        with pytest.raises(CaptureError, match=r"--no-binary pyk4a pyk4a") as raised:
            opening()
        assert str(error) in str(raised.value)
        assert "--rig virtual" in str(raised.value)
        assert "libk4a1.4-dev" in str(raised.value)


def test_the_rig_is_wired_staggered_and_manual(fake):
    made = kinect.devices(main=2, resolution="720P", exposure_us=8000)
    assert [d.camera for d in made] == [0, 1, 2, 3]
    assert all(isinstance(d, Device) for d in made)
    cameras = fake.PyK4A.made
    assert [c.device_id for c in cameras] == [2, 0, 1, 3]
    modes = [c.config.wired_sync_mode for c in cameras]
    assert modes == [fake.WiredSyncMode.MASTER] + 3 * [fake.WiredSyncMode.SUBORDINATE]
    assert [c.config.subordinate_delay_off_master_usec for c in cameras] == [0, 160, 320, 480]
    assert all(c.config.synchronized_images_only for c in cameras)
    assert {c.config.camera_fps for c in cameras} == {fake.FPS.FPS_15}
    made[1].start()
    assert (cameras[1].exposure, cameras[1].whitebalance) == (8000, 4500)
    made[1].stop()
    made[1].stop()
    assert cameras[1].calls == ["open", "start", "exposure", "whitebalance", "stop"]
    (alone,) = kinect.devices(1)
    assert fake.PyK4A.made[-1].config.wired_sync_mode == fake.WiredSyncMode.STANDALONE
    assert alone.camera == 0


def test_lenses_are_those_the_camera_has_stored(fake):
    optics = KinectDevice(0, 0, resolution="720P").optics
    assert (optics.colour.width, optics.colour.height) == (1280, 720)
    assert (optics.depth.width, optics.depth.height) == (640, 576)
    assert (optics.depth.fx, optics.depth.fy) == (504.5, 504.0)
    assert (optics.colour.cx, optics.colour.cy) == (320.5, 330.25)
    assert optics.depth.distortion == (0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07)
    np.testing.assert_allclose(optics.wxyz_xyz_colour_depth[4:], [-0.032, -0.002, 0.004])
    half = np.deg2rad(-3.0)
    expected = [np.cos(half), np.sin(half), 0, 0]
    np.testing.assert_allclose(optics.wxyz_xyz_colour_depth[:4], expected, atol=1e-12)


def test_millimetres_and_other_calibrations(fake, monkeypatch):
    extrinsic = fake.Calibration.get_extrinsic_parameters
    for scale, good in ((1000.0, True), (1e6, False), (0.0, False)):
        monkeypatch.setattr(
            fake.Calibration,
            "get_extrinsic_parameters",
            lambda self, a, b, s=scale: (extrinsic(self, a, b)[0], s * extrinsic(self, a, b)[1]),
        )
        if good:
            p = KinectDevice(0, 0).optics.wxyz_xyz_colour_depth[4:]
            np.testing.assert_allclose(p, [-0.032, -0.002, 0.004])
        else:
            with pytest.raises(CaptureError, match=r"from the colour lens; about 0\.03"):
                _ = KinectDevice(0, 0).optics
    monkeypatch.setattr(fake.Calibration, "get_extrinsic_parameters", extrinsic)
    monkeypatch.setattr(
        fake.Calibration, "get_distortion_coefficients", lambda self, kind: np.zeros(5)
    )
    with pytest.raises(CaptureError, match="5 coefficients of distortion; known"):
        _ = KinectDevice(0, 0).optics


@pytest.mark.parametrize("name", ["exposure", "whitebalance"])
def test_a_package_without_the_control_is_refused_and_one_that_fails_is_let_go(fake, name):
    """Else exposure would stay automatic without a word."""
    fake.PyK4A.fails[name] = fake.K4AException("control")
    device = KinectDevice(0, 0)
    with pytest.raises(CaptureError, match=r"camera 0 \(device 0\) cannot start .*control"):
        device.start()
    device.stop()
    assert fake.PyK4A.made[-1].calls[-1] == "stop"
    renamed = type("Renamed", (fake.PyK4A,), {name: None})
    fake_before, fake.PyK4A = fake.PyK4A, renamed
    try:
        with pytest.raises(CaptureError, match=rf"pyk4a has no PyK4A\.{name} to be set"):
            KinectDevice(0, 0).start()
    finally:
        fake.PyK4A = fake_before


def test_a_camera_that_was_only_asked_for_its_lenses_is_closed(fake):
    device = KinectDevice(0, 0, resolution="720P")
    assert device.optics.colour.width == 1280
    device.stop()
    device.stop()
    assert fake.PyK4A.made[-1].calls == ["open", "close"]


def recorded_steps(fake, folder, stamps, arrivals=None):
    """What a recorder makes of a camera's stamps: numbers, frames lost, and its clock's events."""
    fake.PyK4A.stamps, fake.PyK4A.arrivals = tuple(stamps), arrivals and tuple(arrivals)
    config = RecorderConfig(floor_bytes=0, start_s=5.0)
    summary = recorder.record([KinectDevice(0, 0, resolution="720P")], folder, None, config)
    events = [e.text for e in summary.events if e.kind == "clock"]
    return Recording(folder).stamps(0).number.tolist(), summary.counts[0].dropped, events


PULSES = [1_000_000 + round(k * 1e6 / 15) for k in range(12)]


@pytest.mark.parametrize("step_s", [1.0, -1.0, 0.06, -0.06, 20.0, -20.0])
def test_a_clock_that_is_set_costs_no_numbers_and_is_told(fake, tmp_path, monkeypatch, step_s):
    monkeypatch.setattr(kinect, "_LOST_AFTER_S", 0.05)
    monkeypatch.setattr(fake.PyK4A, "stamps", ())
    at = [30_000_000 + t + (round(1e6 * step_s) if k >= 5 else 0) for k, t in enumerate(PULSES)]
    numbers, dropped, events = recorded_steps(fake, tmp_path / "a", at, PULSES)
    assert numbers == list(range(12))
    assert dropped == 0
    assert events == [f"steps by {step_s:+.3f} s at frame 5"]
    # With frames lost at the same moment, both are told.
    gone = [k for k in range(12) if k not in (5, 6)]
    numbers, dropped, events = recorded_steps(
        fake, tmp_path / "b", [at[k] for k in gone], [PULSES[k] for k in gone]
    )
    if abs(step_s) >= 1.0:
        assert (numbers, dropped) == (gone, 2)
        assert events == [f"steps by {step_s:+.3f} s at frame 7"]


def test_frames_that_arrive_late_are_no_clock_that_was_set(fake, tmp_path, monkeypatch):
    """Arrivals in a burst after a gap: what is missing by the stamps is missing."""
    monkeypatch.setattr(kinect, "_LOST_AFTER_S", 0.05)
    monkeypatch.setattr(fake.PyK4A, "stamps", ())
    rng = np.random.default_rng(0)
    late = rng.uniform(0, 20_000, 12).round().astype(int)
    late[4:8] = [300_000, 240_000, 180_000, 120_000]
    gone = [k for k in range(12) if k not in (6, 7, 9)]
    numbers, dropped, events = recorded_steps(
        fake, tmp_path / "a", [PULSES[k] for k in gone], [PULSES[k] + late[k] for k in gone]
    )
    assert (numbers, dropped, events) == (gone, 3, [])


@pytest.mark.parametrize("device_id", [0, 1], ids=["jpeg", "bgra"])
def test_frames_are_numbered_by_the_cameras_clock(fake, device_id):
    device = KinectDevice(0, device_id, resolution="720P")
    assert device.read(0.01) is None
    device.start()
    frames = [device.read(0.1) for _ in range(4)]
    assert [f.number for f in frames] == [0, 1, 2, 5]
    assert [f.device_ns for f in frames] == [1000 * t for t in fake.PyK4A.stamps]
    assert frames[1].depth.dtype == np.uint16
    assert (frames[1].depth == 801).all()
    assert frames[0].colour.shape == (720, 1280, 3)
    assert np.abs(frames[0].colour[300, 400].astype(int) - [200, 100, 30]).max() <= 2
    assert frames[0].host_ns < frames[3].host_ns


def test_a_silent_or_broken_camera_is_unplugged(fake, monkeypatch):
    monkeypatch.setattr(kinect, "_LOST_AFTER_S", 0.05)
    device = KinectDevice(1, 1, count=2)
    device.start()
    for _ in range(4):
        device.read(0.1)
    assert device.read(0.001) is None
    kinect.time.sleep(0.06)
    with pytest.raises(UnpluggedError, match="camera 1 gives no frames for"):
        device.read(0.001)
    fake.PyK4A.fails["get_capture"] = fake.K4AException("no device")
    with pytest.raises(
        UnpluggedError, match=r"camera 1 \(device 1\) is gone \(K4AException no dev"
    ):
        device.read(0.001)


@pytest.mark.parametrize(
    ("step", "message"),
    [("open", "cannot be opened"), ("start", "cannot start"), ("stop", "does not stop")],
)
def test_what_a_camera_refuses_is_told_with_what_to_look_at(fake, step, message):
    fake.PyK4A.fails[step] = fake.K4AException("busy")
    device = KinectDevice(3, 7, count=4)
    with pytest.raises(CaptureError, match=rf"camera 3 \(device 7\) {message} .* USB 3 port"):
        device.start(), device.stop()


def test_settings_no_camera_has_are_refused(fake):
    with pytest.raises(CaptureError, match="3072P at 30 a second; known: 720P"):
        KinectDevice(0, 0, resolution="3072P", fps=30)
    with pytest.raises(CaptureError, match="camera 4 of a rig of 4; numbers are 0 to 3"):
        KinectDevice(4, 4, count=4)
    with pytest.raises(CaptureError, match="4 cameras are plugged in, 5 wanted"):
        kinect.devices(5)


def test_a_rig_of_stand_ins_is_recorded_with_its_gaps(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(kinect, "_LOST_AFTER_S", 0.1)
    devices = kinect.devices(2, resolution="720P")
    config = RecorderConfig(floor_bytes=0, start_s=5.0)
    summary = recorder.record(devices, tmp_path / "a", None, config)
    assert summary.ended == "unplugged"
    assert {(e.kind, e.camera) for e in summary.events} == {("unplugged", 0), ("unplugged", 1)}
    assert {c: (n.written, n.dropped) for c, n in summary.counts.items()} == {0: (4, 2), 1: (4, 2)}
    recorded = Recording(tmp_path / "a")
    assert recorded.stamps(1).number.tolist() == [0, 1, 2, 5]
    assert recorded.optics(0).depth == devices[0].optics.depth


def test_mkv_files_are_replayed(fake, tmp_path):
    for name in ("cam0.mkv", "cam1.mkv"):
        (tmp_path / name).write_bytes(b"\x1aE\xdf\xa3")
    devices = replay.devices(tmp_path)
    assert [d.camera for d in devices] == [0, 1]
    assert all(isinstance(d, Device) for d in devices)
    device = devices[1]
    assert device.optics.colour.width == 1280
    device.start()
    frames = [device.read(1.0) for _ in range(4)]
    assert [f.number for f in frames] == [0, 1, 2, 5]
    assert [f.host_ns for f in frames] == [1000 * (t - 1_000_000) for t in fake.PyK4A.stamps]
    with pytest.raises(OverError, match=r"cam1\.mkv is over"):
        device.read(1.0)
    device.stop()
    device.stop()
    (tmp_path / "cam1.mkv").write_bytes(b"RIFF")
    with pytest.raises(CaptureError, match=r"cam1\.mkv: cannot be replayed .* Azure Kinect SDK"):
        replay.devices(tmp_path / "cam1.mkv")
    with pytest.raises(CaptureError, match=r"none\.mkv: no such file"):
        replay.devices(tmp_path / "none.mkv")


@pytest.mark.parametrize("relative", [False, True])
def test_mkv_files_of_a_rig_keep_the_time_between_them(fake, tmp_path, relative):
    """A camera that missed the first two pulses is not paired two frames off."""
    missed = (1, 0, 2)
    for camera, count in enumerate(missed):
        said = json.dumps({"missed": count, "relative": relative})
        (tmp_path / f"cam{camera}.mkv").write_bytes(b"\x1aE\xdf\xa3" + said.encode())
    got = []
    for device in replay.devices(tmp_path):
        device.start()
        frames = [device.read(1.0) for _ in range(4 - missed[device.camera])]
        with pytest.raises(OverError):
            device.read(1.0)
        got.append({int(f.depth[0, 0]) - 800: f for f in frames})
    assert [sorted(f.number for f in frames.values()) for frames in got] == [
        [1, 2, 5],
        [0, 1, 2, 5],
        [2, 5],
    ]
    for pulse in (2, 3):  # the same exposure has the same number and time in all files
        assert len({frames[pulse].number for frames in got}) == 1
        assert np.ptp([frames[pulse].host_ns for frames in got]) == 0
        assert np.ptp([frames[pulse].device_ns for frames in got]) == 0


def test_mkv_files_without_the_cable_are_replayed_one_by_one(fake, tmp_path):
    for name in ("cam0.mkv", "cam1.mkv"):
        (tmp_path / name).write_bytes(b"\x1aE\xdf\xa3" + json.dumps({"alone": True}).encode())
    with pytest.raises(CaptureError, match=r"cam0\.mkv: recorded without the sync cable"):
        replay.devices(tmp_path)
    (device,) = replay.devices(tmp_path / "cam1.mkv")
    device.start()
    assert device.read(1.0).number == 0
