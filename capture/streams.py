"""The threads of a recorder: one that reads a camera, one that encodes and writes its frames."""

from __future__ import annotations

import dataclasses
import json
import queue
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from capture.chunks import DiskError, UnsyncedError
from capture.device import FPS, Device, Frame, OverError, UnpluggedError
from capture.recording import EVENTS, FrameWriter, JointState, JointWriter, Storage

_READ_S = 0.2
"""Longest wait for one frame, seconds; also how soon a reader sees that it should stop."""
JOIN_S = 5.0
"""Longest wait for a driver that does not come back, seconds."""
_ROOM_S = 0.05
"""Longest wait for room in a queue before another look at what else there is, seconds."""


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
    """unplugged, silent, back, clock, order, disk or driver."""
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


class Log:
    """Events of all threads, on disk as they come."""

    def __init__(self, folder: Path) -> None:
        """Of a recording in a folder."""
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


class Stream:
    """One camera: its two threads and what they count."""

    def __init__(
        self,
        device: Device,
        folder: Path,
        config: RecorderConfig,
        log: Log,
        note: Mapping[str, Any] | None,
    ) -> None:
        """Opens the file; arguments and errors are those of `recorder.record`."""
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
        """Starts both threads."""
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
        if self._config.patient:
            return  # a camera without a clock takes its time
        if not self._silent and not self.count.gone and quiet > self._waits:
            self._silent = True
            self._log.add(self.device.camera, "silent", f"no frame for {quiet:.1f} s")

    def sum_up(self) -> None:
        """Reports a camera that gave no frame in a recording too short to miss one before."""
        if self._begun and not (self.count.received or self.count.gone or self._silent):
            self._log.add(self.device.camera, "silent", "gave no frame")

    def join_reader(self) -> None:
        """Waits for the reader, but not for a driver that hangs."""
        if self._begun:
            self._reader.join(JOIN_S)

    def join_writer(self) -> None:
        """Waits until the queue is empty and the file closed."""
        if not self._begun:
            self._close()
            return
        while self._worker.is_alive():
            # Again and again, as the queue may be full; without a reader nobody else fills it.
            try:
                self._queue.put(None, timeout=_ROOM_S)
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
            except UnsyncedError as error:
                self._wrote()
                self._log.fail(str(error), self.device.camera)
            except DiskError as error:
                self.count.unwritten += 1
                self._log.fail(str(error), self.device.camera)
            except Exception as error:  # a frame that cannot be encoded costs itself alone
                self.count.unwritten += 1
                self._log.add(
                    self.device.camera, "driver", f"frame {frame.number} is left out: {error}"
                )
            else:
                self._wrote()
        self._close()

    def _wrote(self) -> None:
        self.count.written += 1
        self.count.bytes = self._writer.stream.bytes

    def _close(self) -> None:
        try:
            self._writer.stream.close()
        except DiskError as error:
            self._log.fail(str(error), self.device.camera)


class RobotStream:
    """The robot's joints: one thread, as states are small."""

    def __init__(self, source: JointSource, folder: Path, config: RecorderConfig, log: Log) -> None:
        """Opens the file; arguments and errors are those of `recorder.record`."""
        self.stopping, self.written, self.dropped = threading.Event(), 0, 0
        self._source, self._config, self._log = source, config, log
        self._writer = JointWriter(folder, source.names, config.storage)
        self._thread = threading.Thread(target=self._run, name="joints", daemon=True)
        self._last, self._arrived = -1, 0
        self._heard, self._waits = time.monotonic(), config.start_s
        self._silent = self._over = self._failed = False

    def begin(self) -> None:
        """Starts the thread."""
        self._heard = time.monotonic()
        self._thread.start()

    def behind(self, host_ns: int) -> bool:
        """Whether states that came before then are still to be read."""
        return self._thread.is_alive() and self._arrived < host_ns

    def listen(self, now: float, last_ns: int) -> None:
        """Reports a robot that gives no states, or gave its last one long before the cameras.

        Args:
            now: By the monotonic clock, seconds.
            last_ns: Arrival of the cameras' last frame by the same clock.
        """
        if self._silent:
            return
        if self._over:
            short = 1e-9 * (last_ns - self._arrived)
            if short > self._config.silent_s:
                self._silent = True
                told = f"at state {self._last}, {short:.1f} s too early"
                told = told if self.written else "before the first"
                self._log.add(None, "silent", f"joints end {told}")
            return
        quiet = now - self._heard
        if not self._config.patient and self._thread.is_alive() and quiet > self._waits:
            self._silent = True
            self._log.add(None, "silent", f"no joints for {quiet:.1f} s")

    def sum_up(self, last_ns: int) -> None:
        """Reports at the end what `listen` had no time to; the argument is the same."""
        if self._over:
            self.listen(time.monotonic(), last_ns)
        elif self._thread.ident is not None and not (self.written or self._silent or self._failed):
            self._log.add(None, "silent", "no joints came")

    def join_reader(self) -> None:
        """Waits for the thread, but not for a driver that hangs."""
        if self._thread.ident is not None:
            self._thread.join(JOIN_S)

    def join_writer(self) -> None:
        """Closes a file that was never written to."""
        if self._thread.ident is None:
            self._writer.stream.close()

    def _run(self) -> None:
        try:
            while not self.stopping.is_set():
                state = self._source.read(_READ_S)
                if state is not None:
                    self._take(state)
        except OverError:
            self._over = True
        except DiskError as error:
            self._failed = True
            self._log.fail(str(error))
        except Exception as error:  # of a driver: the cameras go on
            self._failed = True
            self._log.add(None, "driver", f"joints: {type(error).__name__}: {error}")
        finally:
            try:
                self._writer.stream.close()
            except DiskError as error:
                self._log.fail(str(error))

    def _take(self, state: JointState) -> None:
        self._heard, self._waits = time.monotonic(), self._config.silent_s
        if self._silent:
            self._silent = False
            self._log.add(None, "back", f"joints again, from state {state.number} on")
        if state.number <= self._last:
            told = f"state {state.number} of the joints after {self._last} is left out"
            self._log.add(None, "order", told)
            return
        self.dropped += state.number - self._last - 1
        self._last, self._arrived = state.number, state.host_ns
        try:
            self._writer.append(state)
        except UnsyncedError:
            self.written += 1
            raise
        self.written += 1
