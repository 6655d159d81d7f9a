"""Azure Kinects through pyk4a: the only file that imports it, and only when a camera is opened.

Depth is delivered in the depth lens's own picture, colour as RGB; nothing is resampled here. The
SDK counts no exposures, so a frame's number is the time since the first over the period, as the
camera's clock has it and, where that was set, as arrivals have it: what is missing shows as a gap.
"""

from __future__ import annotations

import collections
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from capture.device import CaptureError, Frame, Optics, OverError, UnpluggedError
from realdex_jax.geometry.lens import Lens
from realdex_jax.geometry.view import STAGGER_S

INSTALL = """pyk4a cannot be imported ({reason}). Azure Kinects need Microsoft's SDK 1.4 and pyk4a
built against it; the wheels of pyk4a-bundle are made for numpy 1 and do not load beside jax:
    1. install the SDK with its headers: on Ubuntu the packages libk4a1.4, libk4a1.4-dev, k4a-tools;
       elsewhere unpack it and name its folders in LIBRARY_PATH, LD_LIBRARY_PATH, C_INCLUDE_PATH
    2. pip install 'numpy>=2' setuptools wheel
    3. pip install --no-build-isolation --no-binary pyk4a pyk4a==1.5.0
    4. copy the SDK's 99-k4a.rules to /etc/udev/rules.d and plug the cameras in anew
Without cameras use --rig virtual, or replay a recording."""

Resolution = Literal["720P", "1080P", "1440P", "1536P", "2160P", "3072P"]
SIZES: dict[Resolution, tuple[int, int]] = {
    "720P": (1280, 720),
    "1080P": (1920, 1080),
    "1440P": (2560, 1440),
    "1536P": (2048, 1536),
    "2160P": (3840, 2160),
    "3072P": (4096, 3072),
}
"""Columns and rows of the colour pictures."""
DEPTH_SIZE = (640, 576)
"""Of depth, narrow and unbinned."""
RATES = {5: "FPS_5", 15: "FPS_15", 30: "FPS_30"}
_LOST_AFTER_S = 0.9
"""Seconds without a capture, from a camera that gave some, after which it counts as unplugged."""
_OLDEST_NS = 10 * 10**9
"""Nanoseconds before now that a driver may say a frame arrived; else now counts."""
_HEARD = 64
"""Frames among which the quickest tells how long one is on its way at least."""
_LATE_US = 500_000.0
"""Microseconds that a frame may be on its way longer than the quickest; more is the clock's doing.
"""


def sdk() -> Any:
    """The module pyk4a.

    Raises:
        CaptureError: It cannot be imported; the message says how to install it.
    """
    try:
        import pyk4a
    except Exception as error:  # a library that is missing, or one built for another numpy
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise CaptureError(INSTALL.format(reason=reason)) from error
    return pyk4a


class KinectDevice:
    """One camera of a rig on the sync cable; a `capture.device.Device`."""

    def __init__(
        self,
        camera: int,
        device_id: int,
        *,
        count: int = 1,
        resolution: Resolution = "1080P",
        fps: int = 15,
        exposure_us: int = 8330,
        white_balance: int = 4500,
        depth_delay_us: int = 0,
    ) -> None:
        """Opens nothing yet.

        Args:
            camera: Its number in the rig; 0 is the main one.
            device_id: The SDK's index of it.
            count: Cameras of the rig; one alone has no cable.
            resolution: Of colour.
            fps: 5, 15 or 30.
            exposure_us: Of colour, microseconds; on a cable it must not change by itself.
            white_balance: Of colour, kelvin.
            depth_delay_us: Of the depth's exposure to colour's, of the main camera.

        Raises:
            CaptureError: Settings that no camera has, or pyk4a is not there.
        """
        if resolution not in SIZES or fps not in RATES or (resolution == "3072P" and fps == 30):
            raise CaptureError(
                f"camera {camera}: {resolution} at {fps} a second; known: {', '.join(SIZES)} and "
                f"{', '.join(map(str, RATES))}, 3072P up to 15"
            )
        if not 0 <= camera < count:
            raise CaptureError(f"camera {camera} of a rig of {count}; numbers are 0 to {count - 1}")
        self._camera, self._fps, self._id = camera, fps, device_id
        self._exposure, self._white_balance = exposure_us, white_balance
        self._k4a = k4a = sdk()
        alone, stagger = count == 1, round(1e6 * STAGGER_S)
        if alone:
            mode = k4a.WiredSyncMode.STANDALONE
        else:
            mode = k4a.WiredSyncMode.MASTER if camera == 0 else k4a.WiredSyncMode.SUBORDINATE
        config = k4a.Config(
            color_resolution=getattr(k4a.ColorResolution, f"RES_{resolution}"),
            color_format=k4a.ImageFormat.COLOR_MJPG,
            depth_mode=k4a.DepthMode.NFOV_UNBINNED,
            camera_fps=getattr(k4a.FPS, RATES[fps]),
            synchronized_images_only=True,
            depth_delay_off_color_usec=depth_delay_us,
            wired_sync_mode=mode,
            subordinate_delay_off_master_usec=0 if alone else stagger * camera,
            disable_streaming_indicator=False,
        )
        self._device = k4a.PyK4A(config=config, device_id=device_id)
        self._optics: Optics | None = None
        self._size = SIZES[resolution]
        self._count = _Counter(fps)
        self._opened = self._running = False
        self._heard = 0.0

    @property
    def camera(self) -> int:
        """Its number in the rig."""
        return self._camera

    @property
    def optics(self) -> Optics:
        """Its lenses, as the camera has them stored; opens it.

        Raises:
            CaptureError: The camera cannot be opened.
        """
        if self._optics is None:
            self._open()
            self._optics = read_optics(self._k4a, self._device.calibration, self._size, DEPTH_SIZE)
        return self._optics

    def start(self) -> None:
        """Begins to expose; subordinates before the main camera.

        Raises:
            CaptureError: It is used by another program, or not plugged in.
        """
        # The property setters of the SDK's colour controls: manual, or exposures would wander in
        # and out of each other.
        manual = {"exposure": self._exposure, "whitebalance": self._white_balance}
        for name in manual:
            # Without the property, setting it would make an attribute that changes nothing.
            if getattr(getattr(type(self._device), name, None), "fset", None) is None:
                raise CaptureError(
                    f"camera {self._camera}: pyk4a has no PyK4A.{name} to be set, and automatic "
                    "exposure would wander; install the version that docs/capture.md names"
                )
        self._open()
        try:
            self._device.start()
            self._running = True
            for name, value in manual.items():
                setattr(self._device, name, value)
        except Exception as error:
            raise self._failed("cannot start", error) from error
        self._heard, self._count = 0.0, _Counter(self._fps)

    def read(self, timeout_s: float) -> Frame | None:
        """The next frame; None if none came in that time.

        Raises:
            UnpluggedError: The camera is gone.
        """
        if not self._running:
            return None
        try:
            capture = self._device.get_capture(timeout=max(int(1000 * timeout_s), 1))
        except Exception as error:
            if not _is_timeout(error):
                raise UnpluggedError(str(self._failed("is gone", error))) from error
            silent = time.monotonic() - self._heard
            if self._heard and silent > _LOST_AFTER_S:
                raise UnpluggedError(
                    f"camera {self._camera} gives no frames for {silent:.1f} s"
                ) from error
            return None
        if capture.color is None or capture.depth is None:
            return None
        self._heard = time.monotonic()
        stamp_us, host_ns = int(capture.depth_timestamp_usec), _arrival(capture)
        number = self._count.number(stamp_us, host_ns)
        return _frame(capture, self._camera, number, stamp_us, host_ns)

    def stop(self) -> None:
        """Ends the exposures and lets go of the camera; may be called twice."""
        if self._opened:
            running, self._opened, self._running = self._running, False, False
            try:
                if running:
                    self._device.stop()
                if self._device.opened:
                    self._device.close()
            except Exception as error:
                raise self._failed("does not stop", error) from error

    def _open(self) -> None:
        if not self._opened:
            try:
                self._device.open()
            except Exception as error:
                raise self._failed("cannot be opened", error) from error
            self._opened = True

    def _failed(self, what: str, error: Exception) -> CaptureError:
        reason = f"{type(error).__name__} {error}".strip()
        return CaptureError(
            f"camera {self._camera} (device {self._id}) {what} ({reason}); is it plugged in, on a "
            "USB 3 port of its own, and used by no other program?"
        )


class MkvDevice:
    """An `.mkv` file of the SDK's recorder; a `capture.device.Device`."""

    def __init__(self, path: Path, camera: int) -> None:
        """Opens the file.

        Raises:
            CaptureError: pyk4a is not there, or the file is no such recording.
        """
        if not path.is_file():
            raise CaptureError(f"{path}: no such file")
        self._path, self._camera, self._k4a = path, camera, sdk()
        self._running = self._open = False
        try:
            self._playback = self._k4a.PyK4APlayback(path)
            self._playback.open()
            self._open = True
            settings = self._playback.configuration
            fps = {0: 5, 1: 15, 2: 30}[int(settings["camera_fps"])]
            # The SDK counts from 1; 0 is no colour at all.
            size = dict(enumerate(SIZES.values(), 1))[int(settings["color_resolution"])]
            self._optics = read_optics(self._k4a, self._playback.calibration, size, DEPTH_SIZE)
            self.wired = settings["wired_sync_mode"] != self._k4a.WiredSyncMode.STANDALONE
            """Whether its clock was set by the pulse of a sync cable."""
            self._first = self._next()
            offset_us = int(settings["start_timestamp_offset_usec"])
        except CaptureError:
            self.stop()
            raise
        except Exception as error:
            self.stop()
            raise CaptureError(
                f"{path}: cannot be replayed ({type(error).__name__} {error}); it must be a "
                "recording of the Azure Kinect SDK with colour and depth"
            ) from error
        first_us = int(self._first.depth_timestamp_usec) if self._first is not None else 0
        # Files begin at 0 and say what is to be added; some versions of the SDK add it themselves.
        self._shift_us = offset_us if first_us < offset_us else 0
        self.begin_us = self.first_us = first_us + self._shift_us
        """Stamp of its first frame, and of the pulse that counts as number 0: `films` makes that
        the same for all cameras of a rig. Microseconds."""
        self._fps, self._count = fps, _Counter(fps)

    @property
    def camera(self) -> int:
        """Its number in the rig."""
        return self._camera

    @property
    def optics(self) -> Optics:
        """Its lenses."""
        return self._optics

    def start(self) -> None:
        """Begins at the first frame."""
        self._running, self._count = True, _Counter(self._fps, self.begin_us)

    def read(self, timeout_s: float) -> Frame | None:
        """The next frame; captures without a picture are passed over.

        Its arrival is its stamp, from `begin_us` on, as the file does not say more.

        Raises:
            OverError: The file is over.
        """
        del timeout_s  # a file has no clock
        if not self._running:
            return None
        try:
            capture, self._first = self._first or self._next(), None
        except Exception as error:
            raise UnpluggedError(f"{self._path}: {type(error).__name__} {error}") from error
        if capture is None:
            raise OverError(f"{self._path} is over")
        stamp_us = int(capture.depth_timestamp_usec) + self._shift_us
        number = self._count.number(stamp_us)
        return _frame(capture, self._camera, number, stamp_us, 1000 * (stamp_us - self.begin_us))

    def stop(self) -> None:
        """Closes the file; may be called twice."""
        self._running = False
        if self._open:
            self._open = False
            self._playback.close()

    def _next(self) -> Any:
        """The next capture with both pictures; None at the end."""
        try:
            while True:
                capture = self._playback.get_next_capture()
                if capture.color is not None and capture.depth is not None:
                    return capture
        except EOFError:
            return None


def films(paths: Sequence[Path]) -> list[MkvDevice]:
    """The cameras of a rig that the SDK's recorder has recorded, a file each.

    Their clocks began with the pulse of the sync cable, so stamps say which frames belong together
    and what a camera missed before its first.

    Args:
        paths: The files; camera 0 first.

    Raises:
        CaptureError: As of `MkvDevice`; or one of several was not on the cable.
    """
    made: list[MkvDevice] = []
    try:
        for camera, path in enumerate(paths):
            made.append(MkvDevice(path, camera))
            if len(paths) > 1 and not made[-1].wired:
                raise CaptureError(
                    f"{path}: recorded without the sync cable, so its clock does not tell which "
                    "frames of the other files are of the same moment; replay it alone"
                )
    except CaptureError:
        for device in made:
            device.stop()
        raise
    begin_us = min((device.first_us for device in made), default=0)
    for device in made:
        device.begin_us = begin_us
    return made


class _Counter:
    """Numbers of exposures, out of their time stamps and arrivals.

    The camera's clock tells how many periods went by, unless it was set. That shows in how long a
    frame seems to have been on its way: less than any before it where the clock was set forward, as
    none arrives before it was exposed; and where it was set back, more than any is held up.
    """

    def __init__(self, fps: int, begin_us: int | None = None) -> None:
        """Counts from the first frame, or from the exposure with a stamp (us)."""
        self._period_us, self._begin_us = 1e6 / fps, begin_us
        self._last: int | None = None
        self._number = 0
        self._arrived_us = 0.0
        self._ways: collections.deque[float] = collections.deque(maxlen=_HEARD)
        """How long frames seemed to be on their way, by two clocks: to a constant."""

    def number(self, stamp_us: int, host_ns: int | None = None) -> int:
        """The number of the exposure with this stamp.

        Args:
            stamp_us: By the camera's clock, microseconds.
            host_ns: Arrival, if it is known by another clock than the camera's, nanoseconds.
        """
        if self._last is None:
            since = stamp_us - (stamp_us if self._begin_us is None else self._begin_us)
            self._number = round(since / self._period_us)
            passed = 0.0
        else:
            passed = float(stamp_us - self._last)
        if host_ns is not None:
            passed = self._as_arrived(passed, stamp_us, 1e-3 * host_ns)
        if self._last is not None:
            # From frame to frame, so that the drift of the clock never adds up to a frame.
            self._number += max(round(passed / self._period_us), 1)
        self._last = stamp_us
        return self._number

    def _as_arrived(self, passed_us: float, stamp_us: int, arrived_us: float) -> float:
        """Time since the last exposure: as the stamps say, or arrivals, where the clock was set."""
        way = arrived_us - stamp_us
        least, last = min(self._ways, default=way), self._ways[-1] if self._ways else way
        ahead, behind = least - way > 0.5 * self._period_us, way - least > _LATE_US
        if self._ways and (ahead or behind or passed_us <= 0.0):
            # What the last frame was late by had gone by before it arrived.
            passed_us = arrived_us - self._arrived_us + last - least
            self._ways.clear()
        self._ways.append(way)
        self._arrived_us = arrived_us
        return passed_us


def read_optics(
    k4a: Any, calibration: Any, colour_size: tuple[int, int], depth_size: tuple[int, int]
) -> Optics:
    """The lenses out of a camera's own calibration.

    Args:
        k4a: The module pyk4a.
        calibration: Its Calibration.
        colour_size: Columns and rows of colour.
        depth_size: Columns and rows of depth.

    Raises:
        CaptureError: The calibration has another model of distortion.
    """
    kinds = k4a.CalibrationType
    R, t = calibration.get_extrinsic_parameters(kinds.DEPTH, kinds.COLOR)
    wxyz = Rotation.from_matrix(np.asarray(R, np.float64).reshape(3, 3)).as_quat(scalar_first=True)
    p = np.asarray(t, np.float64).ravel()
    # The SDK has millimetres, pyk4a metres since some version; the lenses are 3 cm apart.
    p = p / 1000.0 if np.linalg.norm(p) > 1.0 else p
    pose = np.concatenate([wxyz, p])
    if not np.isfinite(pose).all() or not 0.005 < np.linalg.norm(p) < 0.2:
        raise CaptureError(f"the depth lens is {p.tolist()} m from the colour lens; about 0.03")
    return Optics(
        _lens(calibration, kinds.COLOR, colour_size),
        _lens(calibration, kinds.DEPTH, depth_size),
        pose,
    )


def _lens(calibration: Any, kind: Any, size: tuple[int, int]) -> Lens:
    K = np.asarray(calibration.get_camera_matrix(kind), np.float64)
    distortion = np.asarray(calibration.get_distortion_coefficients(kind), np.float64).ravel()
    if K.shape != (3, 3) or distortion.shape != (8,):
        raise CaptureError(
            f"calibration with a matrix of {K.shape} and {len(distortion)} coefficients of "
            "distortion; known: 3 x 3, and k1 k2 p1 p2 k3 k4 k5 k6"
        )
    k1, k2, p1, p2, k3, k4, k5, k6 = distortion.tolist()
    fx, fy, cx, cy = (float(K[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return Lens(*size, fx, fy, cx, cy, (k1, k2, p1, p2, k3, k4, k5, k6))


def _frame(capture: Any, camera: int, number: int, stamp_us: int, host_ns: int) -> Frame:
    """A capture with both pictures as a frame."""
    depth = np.ascontiguousarray(capture.depth, np.uint16)
    return Frame(camera, number, 1000 * stamp_us, host_ns, _rgb(np.asarray(capture.color)), depth)


def _arrival(capture: Any) -> int:
    """When a frame arrived, by the monotonic clock: as the driver noted it, if it did.

    A reader that comes late does not change that.
    """
    now = time.monotonic_ns()
    age = time.perf_counter_ns() - int(capture.depth_system_timestamp_nsec)
    return now - age if 0 <= age < _OLDEST_NS else now


def _rgb(colour: np.ndarray) -> np.ndarray:
    """Colour as RGB, whether it comes as JPEG bytes or as BGRA."""
    if colour.ndim == 3:
        return np.ascontiguousarray(colour[..., 2::-1])
    with Image.open(io.BytesIO(colour.tobytes()), formats=("JPEG",)) as picture:
        return np.array(picture.convert("RGB"))


def _is_timeout(error: Exception) -> bool:
    return type(error).__name__ == "K4ATimeoutException"


def connected() -> int:
    """How many cameras are plugged in.

    Raises:
        CaptureError: pyk4a is not there.
    """
    return int(sdk().connected_device_count())


def devices(
    count: int | None = None,
    *,
    main: int = 0,
    resolution: Resolution = "1080P",
    fps: int = 15,
    exposure_us: int = 8330,
) -> list[KinectDevice]:
    """The cameras that are plugged in, the main one first.

    Args:
        count: How many there must be; None takes all.
        main: The SDK's index of the one whose sync-out port the cable begins at.
        resolution: Of colour.
        fps: 5, 15 or 30.
        exposure_us: Of colour, microseconds.

    Raises:
        CaptureError: pyk4a is not there, or too few cameras are plugged in.
    """
    found = connected()
    wanted = found if count is None else count
    if not 0 < wanted <= found or not 0 <= main < found:
        raise CaptureError(
            f"{found} cameras are plugged in, {wanted} wanted and device {main} for the main one; "
            "look at power and USB, and at what k4aviewer shows"
        )
    ids = [main, *(i for i in range(found) if i != main)][:wanted]
    return [
        KinectDevice(
            camera,
            device_id,
            count=wanted,
            resolution=resolution,
            fps=fps,
            exposure_us=exposure_us,
        )
        for camera, device_id in enumerate(ids)
    ]
