"""A stand-in for pyk4a with the names and types that the adapter uses, and cameras that obey."""

import enum
import functools
import io
import json
import time
from typing import ClassVar

import numpy as np
from PIL import Image


class ColorResolution(enum.IntEnum):
    OFF = 0
    RES_720P = 1
    RES_1080P = 2
    RES_1440P = 3
    RES_1536P = 4
    RES_2160P = 5
    RES_3072P = 6


class FPS(enum.IntEnum):
    FPS_5 = 0
    FPS_15 = 1
    FPS_30 = 2


class DepthMode(enum.IntEnum):
    OFF = 0
    NFOV_2X2BINNED = 1
    NFOV_UNBINNED = 2


class ImageFormat(enum.IntEnum):
    COLOR_MJPG = 0
    COLOR_BGRA32 = 3


class WiredSyncMode(enum.IntEnum):
    STANDALONE = 0
    MASTER = 1
    SUBORDINATE = 2


class CalibrationType(enum.IntEnum):
    UNKNOWN = -1
    DEPTH = 0
    COLOR = 1


class K4AException(Exception):  # noqa: N818 - the package's own name
    pass


class K4ATimeoutException(K4AException):
    pass


class Config:
    def __init__(self, **fields):
        assert set(fields) <= {
            "color_resolution",
            "color_format",
            "depth_mode",
            "camera_fps",
            "synchronized_images_only",
            "depth_delay_off_color_usec",
            "wired_sync_mode",
            "subordinate_delay_off_master_usec",
            "disable_streaming_indicator",
        }
        self.__dict__.update(fields)


class Calibration:
    def get_camera_matrix(self, camera):
        f = 504.5 if camera == CalibrationType.DEPTH else 608.25
        return np.array([[f, 0, 320.5], [0, f - 0.5, 330.25], [0, 0, 1]])

    def get_distortion_coefficients(self, camera):
        return np.arange(8) / 100.0 + int(camera)

    def get_extrinsic_parameters(self, source, target):
        assert (source, target) == (CalibrationType.DEPTH, CalibrationType.COLOR)
        a = np.deg2rad(-6.0)
        R = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
        return np.array(R), np.array([-0.032, -0.002, 0.004])


class PyK4ACapture:
    """Pictures of a camera; as in the package, all are properties."""

    def __init__(self, number, stamp, arrived_ns=0, jpeg=True):
        self._number, self._stamp, self._arrived_ns, self._jpeg = number, stamp, arrived_ns, jpeg

    @property
    def color(self):
        return _colour(self._jpeg)

    @property
    def depth(self):
        return np.full((576, 640), 800 + self._number, np.uint16)

    @property
    def depth_timestamp_usec(self):
        return self._stamp

    @property
    def depth_system_timestamp_nsec(self):
        return self._arrived_ns


@functools.cache
def _colour(jpeg):
    picture = np.full((720, 1280, 3), (200, 100, 30), np.uint8)
    if jpeg:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=95)
        return np.frombuffer(buffer.getvalue(), np.uint8)
    return np.dstack([picture[..., ::-1], np.full((720, 1280), 255, np.uint8)])


class PyK4A:
    """Cameras are opened, started, read and stopped in that order, or raise."""

    made: ClassVar[list["PyK4A"]] = []
    stamps = (1_000_000, 1_066_667, 1_133_350, 1_333_340)
    """Of the captures; between the last two, two are missing."""
    arrivals: ClassVar[tuple[int, ...] | None] = None
    """When they arrive by the host's clock (us, to a constant); with their stamps if None."""
    fails: ClassVar[dict[str, Exception]] = {}
    _KNOWN = frozenset(
        {"config", "device_id", "calls", "opened", "running", "left", "exposure", "whitebalance"}
    )

    def __init__(self, config=None, device_id=0):
        self.config, self.device_id, self.calls = config, device_id, []
        self.opened = self.running = False
        arrivals = self.arrivals or self.stamps
        # All have arrived by now: what counts is what the driver noted.
        began = time.perf_counter_ns() - 1000 * (arrivals[-1] - arrivals[0])
        ns = [began + 1000 * (a - arrivals[0]) for a in arrivals]
        self.left = list(zip(range(len(ns)), self.stamps, ns, strict=True))
        PyK4A.made.append(self)

    def __setattr__(self, name, value):
        assert name.lstrip("_") in self._KNOWN
        super().__setattr__(name, value)

    @property
    def exposure(self):
        return self._exposure

    @exposure.setter
    def exposure(self, value):
        self._call("exposure")
        self._exposure = value

    @property
    def whitebalance(self):
        return self._whitebalance

    @whitebalance.setter
    def whitebalance(self, value):
        self._call("whitebalance")
        self._whitebalance = value

    def _call(self, name):
        self.calls.append(name)
        if name in self.fails:
            raise self.fails[name]

    def open(self):
        self._call("open")
        assert not self.opened
        self.opened = True

    def start(self):
        self._call("start")
        assert self.opened
        self.running = True

    def stop(self):
        self._call("stop")
        assert self.running
        self.opened = self.running = False

    def close(self):
        self._call("close")
        assert self.opened
        self.opened = False

    @property
    def calibration(self):
        assert self.opened
        return Calibration()

    def get_capture(self, timeout=-1):
        assert self.running
        assert timeout > 0
        self._call("get_capture")
        if not self.left:
            raise K4ATimeoutException("timeout")
        return PyK4ACapture(*self.left.pop(0), jpeg=self.device_id % 2 == 0)


class PyK4APlayback:
    """A file of four bytes and what is said of it in JSON: `missed`, frames before its first one;
    `relative`, whether stamps begin at 0; `alone`, without the cable."""

    def __init__(self, path):
        self.path, self.left = path, []

    def open(self):
        content = self.path.read_bytes()
        if content[:4] != b"\x1aE\xdf\xa3":
            raise K4AException("cannot open")
        self.said = {"missed": 0, "relative": False, "alone": False}
        self.said |= json.loads(content[4:] or b"{}")
        left = list(enumerate(PyK4A.stamps))[self.said["missed"] :]
        self.offset = left[0][1] - 150  # colour came first
        less = self.offset if self.said["relative"] else 0
        self.left = [(number, stamp - less) for number, stamp in left]

    @property
    def configuration(self):
        main = self.path.name.startswith("cam0")
        wired = WiredSyncMode.MASTER if main else WiredSyncMode.SUBORDINATE
        return {
            "camera_fps": FPS.FPS_15,
            "color_resolution": ColorResolution.RES_720P,
            "wired_sync_mode": WiredSyncMode.STANDALONE if self.said["alone"] else wired,
            "start_timestamp_offset_usec": self.offset,
        }

    @property
    def calibration(self):
        return Calibration()

    def get_next_capture(self):
        if not self.left:
            raise EOFError
        return PyK4ACapture(*self.left.pop(0))

    def close(self):
        self.left = []


def connected_device_count():
    return 4
