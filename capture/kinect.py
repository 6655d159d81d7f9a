"""Azure Kinects through pyk4a: the only file that imports it, and only when a camera is opened.

Depth is delivered in the depth lens's own picture, colour as RGB; nothing is resampled here. The
SDK counts no exposures, so a frame's number is the time since the first over the period, as the
camera's clock has it and, where that was set, as arrivals have it: what is missing shows as a gap.
"""

from __future__ import annotations

import io
import time
from typing import Any, Literal

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from capture.device import CaptureError, Frame, Optics, UnpluggedError
from capture.exposures import Counter
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
_OLDEST_NS = 60 * 10**9
"""Nanoseconds before now that a driver may say a frame arrived; else now counts."""


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
        self._count = Counter(fps)
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
        self._heard, self._count = 0.0, Counter(self._fps)

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
        return to_frame(capture, self._camera, number, stamp_us, host_ns)

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


def to_frame(capture: Any, camera: int, number: int, stamp_us: int, host_ns: int) -> Frame:
    """A frame out of a capture that has both pictures.

    Args:
        capture: As pyk4a gives it.
        camera: The camera's number.
        number: Of the exposure.
        stamp_us: By the camera's clock, microseconds.
        host_ns: Arrival by the monotonic clock.
    """
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
