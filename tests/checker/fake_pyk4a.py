"""A stand-in for pyk4a with the names and types that the adapter uses, and cameras that obey."""

import enum
import io
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


class Capture:
    def __init__(self, number, stamp, jpeg=True):
        picture = np.full((720, 1280, 3), (200, 100, 30), np.uint8)
        if jpeg:
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "JPEG", quality=95)
            self.color = np.frombuffer(buffer.getvalue(), np.uint8)
        else:
            self.color = np.dstack([picture[..., ::-1], np.full((720, 1280), 255, np.uint8)])
        self.depth = np.full((576, 640), 800 + number, np.uint16)
        self.depth_timestamp_usec = stamp
        self.color_timestamp_usec = stamp - 100


class PyK4A:
    """Cameras are opened, started, read and stopped in that order, or raise."""

    made: ClassVar[list["PyK4A"]] = []
    stamps = (1_000_000, 1_066_667, 1_133_350, 1_333_340)
    """Of the captures; between the last two, two are missing."""
    fails: ClassVar[dict[str, Exception]] = {}

    def __init__(self, config=None, device_id=0):
        self.config, self.device_id, self.calls = config, device_id, []
        self.opened = self.running = False
        self.left = list(enumerate(self.stamps))
        PyK4A.made.append(self)

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
        self.running = False

    def close(self):
        self._call("close")
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
        return Capture(*self.left.pop(0), jpeg=self.device_id % 2 == 0)


class PyK4APlayback:
    def __init__(self, path):
        self.path, self.left = path, list(enumerate(PyK4A.stamps))

    def open(self):
        if self.path.read_bytes()[:4] != b"\x1aE\xdf\xa3":
            raise K4AException("cannot open")

    @property
    def configuration(self):
        return {"camera_fps": FPS.FPS_15, "color_resolution": ColorResolution.RES_720P}

    @property
    def calibration(self):
        return Calibration()

    def get_next_capture(self):
        if not self.left:
            raise EOFError
        return Capture(*self.left.pop(0))

    def close(self):
        self.left = []


def connected_device_count():
    return 4
