"""Records several cameras at once: one thread reads each, another encodes and writes.

Between the two is a short queue. What does not fit is dropped and counted, as is what a camera
itself lost: the numbers of its frames tell. Nothing waits for a camera that is slow, silent or
gone, and whatever ends a recording, frames that were closed stay readable.
"""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from capture import recording
from capture.chunks import DiskError
from capture.device import CaptureError, Device
from capture.streams import (
    JOIN_S,
    Count,
    Event,
    JointSource,
    Log,
    RecorderConfig,
    RobotStream,
    Stream,
)

Ended = Literal["time", "over", "interrupted", "disk", "unplugged"]

_LOOK_S = 0.05
"""Seconds between two looks at all threads."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """How a recording went."""

    path: Path
    ended: Ended
    seconds: float
    counts: Mapping[int, Count]
    """By camera."""
    events: tuple[Event, ...]
    joint_states: int = 0
    """States of the robot that are on disk."""
    joint_drops: int = 0
    """States of the robot that never came: gaps in their numbers."""

    @property
    def lost(self) -> int:
        """Frames of all cameras that are not on disk and should be."""
        return sum(count.lost for count in self.counts.values())

    @property
    def good(self) -> bool:
        """Whether it ended as wanted, with every frame and every state of the robot."""
        missing = self.lost or self.joint_drops
        return self.ended in ("time", "over") and not missing and not self.events


Tell = Callable[[float, Mapping[int, Count], Sequence[Event]], object]
"""Told seconds, counts and the new events, several times a second."""


def record(
    devices: Sequence[Device],
    folder: Path,
    seconds: float | None = None,
    config: RecorderConfig | None = None,
    *,
    joints: JointSource | None = None,
    note: Mapping[str, Any] | None = None,
    tell: Tell = lambda *_: None,
    stop: threading.Event | None = None,
) -> Summary:
    """Records until the time is over, the cameras are, the disk is full, or Ctrl-C.

    Args:
        devices: Cameras, not started.
        folder: New or empty.
        seconds: How long; None goes on until something ends it.
        config: Settings; defaults if None.
        joints: The robot's joints, if wanted.
        note: JSON that every file of the recording carries.
        tell: Told how it goes.
        stop: Set by another thread to end it, as the time does.

    Raises:
        DiskError: The disk is too full, or the folder cannot be written to.
        CaptureError: The folder is not empty, cameras share a number, or one cannot start.
    """
    config = config or RecorderConfig()
    _check(devices, folder, config)
    log = Log(folder)
    streams: list[Stream] = []
    robot: RobotStream | None = None
    touched: list[Device] = []
    begin = time.monotonic()
    ended: Ended = "interrupted"
    try:
        for device in devices:  # one by one: those before one that fails are closed below
            touched.append(device)  # asking a camera for its optics opens it
            streams += [Stream(device, folder, config, log, note)]
        robot = RobotStream(joints, folder, config, log) if joints is not None else None
        # The main camera last: the others must be listening when it makes its first pulse.
        for device in sorted(devices, key=lambda d: -d.camera):
            device.start()
        begin = time.monotonic()
        for part in [*streams, *([robot] if robot else [])]:
            part.begin()
        ended = _watch(streams, robot, log, begin, seconds, config, folder, tell, stop)
    except KeyboardInterrupt:
        ended = "interrupted"
    finally:
        elapsed = time.monotonic() - begin
        _finish(streams, robot, touched, log)
        for stream in streams:
            stream.sum_up()
        if robot is not None:
            robot.sum_up(max((s.last_ns for s in streams), default=0))
    if log.disk.is_set():
        ended = "disk"
    counts = {s.device.camera: s.count for s in streams}
    tell(elapsed, counts, log.fresh())
    states = (robot.written, robot.dropped) if robot is not None else (0, 0)
    summary = Summary(folder, ended, elapsed, counts, log.all(), *states)
    try:
        # Files were closed just now, so their records end where they say.
        recording.write_manifest(folder, verify=False)
    except DiskError:
        log.add(None, "disk", "no room for the summary; it can be made again by repair")
    return dataclasses.replace(summary, events=log.all())


def _check(devices: Sequence[Device], folder: Path, config: RecorderConfig) -> None:
    """Refuses what cannot be recorded, before anything is started."""
    numbers = [device.camera for device in devices]
    if not numbers or len(set(numbers)) != len(numbers):
        raise CaptureError(
            f"cameras {numbers}; there must be one at least, each with its own number"
        )
    if config.queue_frames < 1 or config.fps <= 0:
        raise CaptureError(
            f"a queue of {config.queue_frames} frames at {config.fps} a second; both must be "
            "positive"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise CaptureError(f"{folder} is not empty; choose a new folder for each recording")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise DiskError(f"{folder}: {error.strerror}; choose another folder") from error
    if free < config.floor_bytes:
        raise DiskError(
            f"{folder}: {free / 2**30:.2f} GiB free, at least {config.floor_bytes / 2**30:.2f} "
            "must stay free; make room or choose another folder"
        )


def _watch(
    streams: Sequence[Stream],
    robot: RobotStream | None,
    log: Log,
    begin: float,
    seconds: float | None,
    config: RecorderConfig,
    folder: Path,
    tell: Tell,
    stop: threading.Event | None,
) -> Ended:
    """Looks after the threads until something ends the recording."""
    looked = told = begin
    while True:
        now = time.monotonic()
        for stream in streams:
            stream.listen(now)
        if robot is not None:
            robot.listen(now, max(s.last_ns for s in streams))
        if now - told >= 0.2:
            told = now
            tell(now - begin, {s.device.camera: s.count for s in streams}, log.fresh())
        if now - looked >= 1.0:
            looked = now
            free = shutil.disk_usage(folder).free
            if free < config.floor_bytes:
                log.fail(f"{free / 2**30:.2f} GiB free; recording ends to leave them")
        if log.disk.is_set():
            return "disk"
        if all(s.count.gone for s in streams) and not (
            # Without a clock the robot may be behind, and is waited for as far as frames go.
            config.patient and robot is not None and robot.behind(max(s.last_ns for s in streams))
        ):
            return "over" if all(s.over for s in streams) else "unplugged"
        if (seconds is not None and now - begin >= seconds) or (stop is not None and stop.is_set()):
            return "time"
        log.disk.wait(_LOOK_S)


def _finish(
    streams: Sequence[Stream], robot: RobotStream | None, touched: Sequence[Device], log: Log
) -> None:
    """Stops cameras, lets queues run empty, closes files. Ctrl-C again gives the queues up."""
    parts = [*streams, *([robot] if robot else [])]
    # Daemons, as readers are: a driver that hangs while it stops must not keep the files open.
    stops = [
        (device.camera, threading.Thread(target=_stop, args=(device, log), daemon=True))
        for device in touched
    ]
    late: set[int] = set()
    while True:
        try:
            for part in parts:
                part.stopping.set()
            for part in parts:
                part.join_reader()
            for _, stop in stops:
                if stop.ident is None:
                    stop.start()
            until = time.monotonic() + JOIN_S
            for camera, stop in stops:
                stop.join(max(until - time.monotonic(), 0.0))
                if stop.is_alive() and camera not in late:
                    late.add(camera)
                    log.add(camera, "driver", f"does not stop within {JOIN_S:g} s")
            for part in parts:
                part.join_writer()
            return
        except KeyboardInterrupt:
            log.hurry.set()


def _stop(device: Device, log: Log) -> None:
    try:
        device.stop()
    except Exception as error:  # a driver may raise anything, and the others must be stopped too
        log.add(device.camera, "driver", f"does not stop: {error}")
