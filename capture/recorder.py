"""Records several cameras at once: one thread reads each, another encodes and writes.

Between the two is a short queue. What does not fit is dropped and counted, as is what a camera
itself lost: the numbers of its frames tell. Nothing waits for a camera that is slow, silent or
gone, and whatever ends a recording, frames that were closed stay readable.
"""

from __future__ import annotations

import dataclasses
import json
import queue
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from capture import recording
from capture.chunks import DiskError
from capture.device import FPS, CaptureError, Device, Frame, OverError, UnpluggedError
from capture.recording import EVENTS, FrameWriter, JointState, JointWriter, Storage

Ended = Literal["time", "over", "interrupted", "disk", "unplugged"]

_LOOK_S = 0.05
"""Seconds between two looks at all threads."""
_READ_S = 0.2
"""Longest wait for one frame, seconds; also how soon a reader sees that it should stop."""
_JOIN_S = 5.0
"""Longest wait for a driver that does not come back, seconds."""


@runtime_checkable
class JointSource(Protocol):
    """Whence the robot's joints come; used by one thread."""

    @property
    def names(self) -> tuple[str, ...]:
        """The joints, in the order of states."""
        ...

    def read(self, timeout_s: float) -> JointState | None:
        """The next state; None if none came in that time.

        Raises:
            OverError: No more will come.
        """
        ...


@dataclasses.dataclass(frozen=True)
class RecorderConfig:
    """Settings of a recorder."""

    storage: Storage = dataclasses.field(default_factory=Storage)
    """How frames are stored."""
    queue_frames: int = 16
    """Frames of each camera that may wait to be written; one of 1280 x 720 takes 3.5 MB."""
    patient: bool = False
    """Let cameras wait where the queue is full: for those that have no clock, as in a replay."""
    floor_bytes: int = 2 * 2**30
    """Free space at which recording ends, so that the machine lives on."""
    silent_s: float = 0.7
    """Seconds without a frame after which a camera is reported."""
    start_s: float = 10.0
    """Seconds that a camera may take to its first frame before it is reported."""
    step_s: float = 0.05
    """A camera's clock that goes wrong by more between two frames is reported, seconds."""
    fps: float = FPS
    """Frames a second that the cameras should give."""


@dataclasses.dataclass(frozen=True)
class Event:
    """Something to tell about."""

    host_ns: int
    """When, by the monotonic clock."""
    camera: int | None
    """Of which camera; None of the robot or of all."""
    kind: str
    """unplugged, silent, back, clock, order, disk, late or driver."""
    text: str
    """In words."""


@dataclasses.dataclass
class Count:
    """Frames of one camera so far."""

    received: int = 0
    """Frames that its reader got."""
    written: int = 0
    """Frames that are closed on disk."""
    dropped: int = 0
    """Frames that never came: gaps in the numbers."""
    overflowed: int = 0
    """Frames that came, and found the queue full."""
    unwritten: int = 0
    """Frames that waited when the disk failed, or the user would not wait."""
    bytes: int = 0
    """On disk."""
    gone: bool = False
    """Whether it is over or unplugged."""

    @property
    def lost(self) -> int:
        """All frames that are not on disk and should be."""
        return self.dropped + self.overflowed + self.unwritten


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

    @property
    def lost(self) -> int:
        """Frames of all cameras that are not on disk and should be."""
        return sum(count.lost for count in self.counts.values())

    @property
    def good(self) -> bool:
        """Whether it ended as wanted, with every frame."""
        return self.ended in ("time", "over") and not self.lost and not self.events


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
    log = _Log(folder)
    streams: list[_Stream] = []
    robot: _Robot | None = None
    started: list[Device] = []
    begin = time.monotonic()
    ended: Ended = "interrupted"
    try:
        for device in devices:  # one by one: those before one that fails are closed below
            streams += [_Stream(device, folder, config, log, note)]
        robot = _Robot(joints, folder, config, log) if joints is not None else None
        # The main camera last: the others must be listening when it makes its first pulse.
        for device in sorted(devices, key=lambda d: -d.camera):
            device.start()
            started.append(device)
        begin = time.monotonic()
        for part in [*streams, *([robot] if robot else [])]:
            part.begin()
        ended = _watch(streams, robot, log, begin, seconds, config, folder, tell, stop)
    except KeyboardInterrupt:
        ended = "interrupted"
    finally:
        elapsed = time.monotonic() - begin
        _finish(streams, robot, started, log)
    if log.disk.is_set():
        ended = "disk"
    counts = {s.device.camera: s.count for s in streams}
    tell(elapsed, counts, log.fresh())
    summary = Summary(
        folder, ended, elapsed, counts, log.all(), robot.written if robot is not None else 0
    )
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
    streams: Sequence[_Stream],
    robot: _Robot | None,
    log: _Log,
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
    streams: Sequence[_Stream], robot: _Robot | None, started: Sequence[Device], log: _Log
) -> None:
    """Stops cameras, lets queues run empty, closes files. Ctrl-C again gives the queues up."""
    parts = [*streams, *([robot] if robot else [])]
    while True:
        try:
            for part in parts:
                part.stopping.set()
            for part in parts:
                part.join_reader()
            for device in started:
                _stop(device, log)
            for part in parts:
                part.join_writer()
            return
        except KeyboardInterrupt:
            log.hurry.set()


def _stop(device: Device, log: _Log) -> None:
    try:
        device.stop()
    except Exception as error:  # a driver may raise anything, and the others must be stopped too
        log.add(device.camera, "driver", f"does not stop: {error}")


class _Log:
    """Events of all threads, on disk as they come."""

    def __init__(self, folder: Path) -> None:
        self.disk, self.hurry = threading.Event(), threading.Event()
        self._path, self._lock = folder / EVENTS, threading.Lock()
        self._events: list[Event] = []
        self._told = 0

    def add(self, camera: int | None, kind: str, text: str) -> None:
        """Notes an event."""
        event = Event(time.monotonic_ns(), camera, kind, text)
        line = json.dumps(dataclasses.asdict(event)) + "\n"
        with self._lock:
            self._events.append(event)
            try:
                with self._path.open("a") as file:
                    file.write(line)
            except OSError:
                # A full disk is told of in the summary.
                return

    def fail(self, text: str, camera: int | None = None) -> None:
        """Notes that the disk takes no more, which ends the recording."""
        self.add(camera, "disk", text)
        self.disk.set()

    def all(self) -> tuple[Event, ...]:
        """Events so far."""
        with self._lock:
            return tuple(self._events)

    def fresh(self) -> tuple[Event, ...]:
        """Events since this was last asked."""
        with self._lock:
            new = tuple(self._events[self._told :])
            self._told = len(self._events)
            return new


class _Stream:
    """One camera: its two threads and what they count."""

    def __init__(
        self,
        device: Device,
        folder: Path,
        config: RecorderConfig,
        log: _Log,
        note: Mapping[str, Any] | None,
    ) -> None:
        self.device, self.count, self.over = device, Count(), False
        self.stopping = threading.Event()
        self._config, self._log = config, log
        self._queue: queue.Queue[Frame | None] = queue.Queue(config.queue_frames)
        self._writer = FrameWriter(folder, device.camera, device.optics, config.storage, note)
        self._heard, self._waits, self._silent = time.monotonic(), config.start_s, False
        self._last: tuple[int, int] | None = None
        self._arrived = 0
        name = f"camera {device.camera}"
        # Daemons: a driver that hangs must not keep the program from ending.
        self._reader = threading.Thread(target=self._read, name=f"{name} in", daemon=True)
        self._worker = threading.Thread(target=self._write, name=f"{name} out", daemon=True)
        self._begun = False

    def begin(self) -> None:
        self._heard, self._begun = time.monotonic(), True
        self._worker.start()
        self._reader.start()

    @property
    def last_ns(self) -> int:
        """Arrival of the last frame by the monotonic clock; 0 before the first."""
        return self._arrived

    def listen(self, now: float) -> None:
        """Reports a camera that gives no frames; also one whose driver does not come back."""
        quiet = now - self._heard
        if not self._silent and not self.count.gone and quiet > self._waits:
            self._silent = True
            self._log.add(self.device.camera, "silent", f"no frame for {quiet:.1f} s")

    def join_reader(self) -> None:
        if self._begun:
            self._reader.join(_JOIN_S)

    def join_writer(self) -> None:
        if not self._begun:
            self._close()
            return
        while self._worker.is_alive():
            # Again and again, as the queue may be full; without a reader nobody else fills it.
            try:
                self._queue.put(None, timeout=_LOOK_S)
            except queue.Full:
                continue
            self._worker.join()

    def _read(self) -> None:
        while not self.stopping.is_set():
            try:
                frame = self.device.read(_READ_S)
            except OverError:
                self.over = self.count.gone = True
                return
            except UnpluggedError as error:
                self._lose("unplugged", str(error))
                return
            except Exception as error:  # of a driver: the other cameras go on
                self._lose("driver", f"{type(error).__name__}: {error}")
                return
            if frame is not None:
                self._take(frame)

    def _lose(self, kind: str, text: str) -> None:
        self._log.add(self.device.camera, kind, text)
        self.count.gone = True

    def _take(self, frame: Frame) -> None:
        self._heard, self._waits = time.monotonic(), self._config.silent_s
        if self._silent:
            self._silent = False
            self._log.add(self.device.camera, "back", f"frames again, from {frame.number} on")
        last = self._last[0] if self._last else -1
        if frame.number <= last:
            self._log.add(
                self.device.camera, "order", f"frame {frame.number} after {last} is left out"
            )
            return
        self._compare_clock(frame)
        self.count.dropped += frame.number - last - 1
        self.count.received += 1
        self._last, self._arrived = (frame.number, frame.device_ns), frame.host_ns
        while True:
            try:
                self._queue.put(frame, block=self._config.patient, timeout=_READ_S)
            except queue.Full:
                if self._config.patient and not self.stopping.is_set():
                    self._heard = time.monotonic()
                    continue
                self.count.overflowed += 1
            return

    def _compare_clock(self, frame: Frame) -> None:
        if self._last is None:
            return
        number, device_ns = self._last
        frames = frame.number - number
        off = 1e-9 * (frame.device_ns - device_ns) - frames / self._config.fps
        if abs(off) > self._config.step_s:
            self._log.add(
                self.device.camera, "clock", f"steps by {off:+.3f} s at frame {frame.number}"
            )

    def _write(self) -> None:
        while (frame := self._queue.get()) is not None:
            if self._log.disk.is_set() or self._log.hurry.is_set():
                self.count.unwritten += 1
                continue
            try:
                self._writer.append(frame)
            except DiskError as error:
                self.count.unwritten += 1
                self._log.fail(str(error), self.device.camera)
            except Exception as error:  # a frame that cannot be encoded costs itself alone
                self.count.unwritten += 1
                self._log.add(
                    self.device.camera, "driver", f"frame {frame.number} is left out: {error}"
                )
            else:
                self.count.written += 1
                self.count.bytes = self._writer.stream.bytes
        self._close()

    def _close(self) -> None:
        try:
            self._writer.stream.close()
        except DiskError as error:
            self._log.fail(str(error), self.device.camera)


class _Robot:
    """The robot's joints: one thread, as states are small."""

    def __init__(
        self, source: JointSource, folder: Path, config: RecorderConfig, log: _Log
    ) -> None:
        self.stopping, self.written = threading.Event(), 0
        self._source, self._log = source, log
        self._writer = JointWriter(folder, source.names, config.storage)
        self._thread = threading.Thread(target=self._run, name="joints", daemon=True)
        self._arrived = 0

    def begin(self) -> None:
        self._thread.start()

    def behind(self, host_ns: int) -> bool:
        """Whether states that came before then are still to be read."""
        return self._thread.is_alive() and self._arrived < host_ns

    def join_reader(self) -> None:
        if self._thread.ident is not None:
            self._thread.join(_JOIN_S)

    def join_writer(self) -> None:
        if self._thread.ident is None:
            self._writer.stream.close()

    def _run(self) -> None:
        try:
            while not self.stopping.is_set():
                state = self._source.read(_READ_S)
                if state is not None:
                    self._writer.append(state)
                    self.written += 1
                    self._arrived = state.host_ns
        except OverError:
            pass
        except DiskError as error:
            self._log.fail(str(error))
        except Exception as error:  # of a driver: the cameras go on
            self._log.add(None, "driver", f"joints: {type(error).__name__}: {error}")
        finally:
            try:
                self._writer.stream.close()
            except DiskError as error:
                self._log.fail(str(error))
