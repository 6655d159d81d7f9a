"""Recordings on disk as cameras: our own folders, and the SDK's `.mkv` files where pyk4a is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from capture import mkv
from capture.device import CaptureError, Device, Frame, Optics, OverError
from capture.recording import JointState, Recording

Pace = Literal["wall", "free"]


class ReplayDevice:
    """One camera of a recording; a `capture.device.Device`.

    Frames are those that were recorded, with their numbers: what was dropped then is a gap now.
    """

    def __init__(self, recording: Recording, camera: int, *, pace: Pace = "free") -> None:
        """Not started yet.

        Args:
            recording: The recording.
            camera: The camera's number.
            pace: At wall, frames come as far apart as they came then; free, when asked for.

        Raises:
            CaptureError: The camera is not in the recording.
        """
        self._recording, self._camera, self._pace = recording, camera, pace
        self._optics, self._stamps = recording.optics(camera), recording.stamps(camera)
        every = [recording.stamps(c).host_ns for c in recording.cameras]
        self._first_ns = min((int(host[0]) for host in every if len(host)), default=0)
        self._next, self._start_ns = 0, 0
        self._running = False

    @property
    def camera(self) -> int:
        """Its number in the rig."""
        return self._camera

    @property
    def optics(self) -> Optics:
        """Its lenses."""
        return self._optics

    def start(self) -> None:
        """Begins with the first frame again."""
        self._next, self._start_ns, self._running = 0, time.monotonic_ns(), True

    def read(self, timeout_s: float) -> Frame | None:
        """The next frame; None if none came in that time.

        Raises:
            OverError: There are no more.
            CaptureError: A frame cannot be decoded.
        """
        if not self._running:
            return None
        if self._next >= len(self._stamps.number):
            raise OverError(f"{self._recording.path}: camera {self._camera} is over")
        if self._pace == "wall":
            due = self._start_ns + int(self._stamps.host_ns[self._next]) - self._first_ns
            left = 1e-9 * (due - time.monotonic_ns())
            time.sleep(max(min(left, timeout_s), 0.0))
            if left > timeout_s:
                return None
        self._next += 1
        return self._recording.frame(self._camera, self._next - 1)

    def stop(self) -> None:
        """Ends it; may be called twice."""
        self._running = False


class ReplayJoints:
    """The robot's joints of a recording, at once; a `capture.streams.JointSource`."""

    def __init__(self, recording: Recording) -> None:
        """Reads them.

        Raises:
            CaptureError: There are none.
        """
        series = recording.joints()
        if series is None:
            raise CaptureError(f"{recording.path}: the robot's joints were not recorded")
        self._series, self._next = series, 0

    @property
    def names(self) -> tuple[str, ...]:
        """The joints, in the order of states."""
        return self._series.names

    def read(self, timeout_s: float) -> JointState | None:
        """The next state.

        Raises:
            OverError: There are no more.
        """
        del timeout_s  # nothing is waited for
        k, stamps = self._next, self._series.stamps
        if k >= len(stamps.number):
            raise OverError("the robot's joints are over")
        self._next += 1
        return JointState(
            int(stamps.number[k]),
            int(stamps.device_ns[k]),
            int(stamps.host_ns[k]),
            self._series.q[k],
            self._series.qd[k],
        )


def devices(path: Path, *, pace: Pace = "free") -> list[Device]:
    """The cameras of a recording.

    Args:
        path: A folder of ours, one of `.mkv` files that were recorded on one sync cable (camera 0
            first, by name), or one such file.
        pace: As of `ReplayDevice`; of `.mkv` files always free.

    Raises:
        CaptureError: Neither is there, or `.mkv` files are and pyk4a is not.
    """
    films = sorted(path.glob("*.mkv")) if path.is_dir() else [path] * (path.suffix == ".mkv")
    if films:
        return [*mkv.films(films)]
    if not path.is_dir():
        raise CaptureError(f"{path}: neither a folder of a recording nor an .mkv file")
    recording = Recording(path)
    return [ReplayDevice(recording, camera, pace=pace) for camera in recording.cameras]
