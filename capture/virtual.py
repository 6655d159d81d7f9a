"""A rig that is not there: cameras that give rendered frames, at their own pace or at the clock's.

Like a real driver each keeps the newest few frames and no more: whoever reads too late loses some,
and the numbers tell. Faults can be asked for, and what was lost is known exactly.
"""

from __future__ import annotations

import array
import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8, UInt16

from capture.device import Frame, Optics, OverError, UnpluggedError
from capture.recording import JointState
from sim.clocks import Clock, Clocks
from sim.film import Film, VirtualRig
from sim.lenses import Lenses

Pictures = tuple[UInt8[np.ndarray, "h w 3"], UInt16[np.ndarray, "H W"]]
"""Colour and depth (mm) of one exposure."""
Source = Callable[[int, int], Pictures]
"""Gives the pictures of (camera, number)."""
Pace = Literal["wall", "free"]

HELD = 4
"""Frames that a driver keeps for who reads late."""
_LATENCY = 0.02
"""From the middle of an exposure to its arrival, seconds."""
ROBOT_RATE = 125.0
"""States of a robot a second."""


@dataclasses.dataclass(frozen=True)
class Faults:
    """What goes wrong with one camera."""

    drops: frozenset[int] = frozenset()
    """Numbers of frames that never come."""
    unplug_at: int | None = None
    """Number of the frame at which the cable comes out."""
    stalls: Mapping[int, float] = dataclasses.field(default_factory=dict)
    """Seconds that the driver hangs before it gives a frame, by its number."""
    step: tuple[int, float] | None = None
    """Number of the frame from which on its clock is off, and by how much, seconds."""


class Pulse:
    """The beginning that cameras share: when the main one starts."""

    def __init__(self) -> None:
        """Not begun yet."""
        self.begun = threading.Event()
        self.start_s = 0.0
        """True time 0 by this machine's monotonic clock, seconds."""

    def begin(self) -> None:
        """Starts true time; the second time is without effect."""
        if not self.begun.is_set():
            self.start_s = time.monotonic()
            self.begun.set()


class VirtualDevice:
    """A camera; a `capture.device.Device`."""

    def __init__(
        self,
        camera: int,
        optics: Optics,
        source: Source,
        clocks: Clocks,
        pulse: Pulse,
        *,
        pace: Pace = "wall",
        count: int | None = None,
        faults: Faults | None = None,
    ) -> None:
        """Not started yet.

        Args:
            camera: Its number.
            optics: Its lenses.
            source: Its pictures.
            clocks: When it exposes.
            pulse: Shared by all cameras of a rig.
            pace: At wall, frames come when they are exposed; free, whenever they are asked for,
                with the stamps that they would have had.
            count: Exposures after which it is over; None is never.
            faults: What goes wrong; nothing if None.
        """
        self._camera, self._optics, self._source = camera, optics, source
        self._clocks, self._pace, self._count = clocks, pace, count
        self.pulse = pulse
        """Shared by all cameras of the rig."""
        self._faults = faults or Faults()
        self._number, self._running = 0, False
        self.delivered = array.array("q")
        """Numbers of the frames that were given out."""
        self.lost = array.array("q")
        """Numbers of those before them that were not."""

    @property
    def camera(self) -> int:
        """Its number in the rig."""
        return self._camera

    @property
    def optics(self) -> Optics:
        """Its lenses."""
        return self._optics

    @property
    def dropped(self) -> int:
        """Frames lost before the last one that was given out: what a recorder can know of."""
        last = self.delivered[-1] if self.delivered else -1
        return sum(number < last for number in self.lost)

    def start(self) -> None:
        """Listens for the pulse; the main camera makes it."""
        self._running = True
        if self._camera == 0:
            self.pulse.begin()

    def read(self, timeout_s: float) -> Frame | None:
        """The next frame; None if none came in that time.

        Raises:
            UnpluggedError: The cable came out, or as its kind `OverError`, the sequence is over.
        """
        until = time.monotonic() + timeout_s
        if not self._running or not self.pulse.begun.wait(timeout_s):
            return None
        while True:
            self._skip()
            number = self._number
            if self._faults.unplug_at is not None and number >= self._faults.unplug_at:
                if not self._wait(number, until):
                    return None
                raise UnpluggedError(f"camera {self._camera} is unplugged at frame {number}")
            if self._count is not None and number >= self._count:
                raise OverError(f"camera {self._camera}: over after {self._count} frames")
            if number in self._faults.drops:
                self._lose(number)
                continue
            if not self._wait(number, until):
                return None
            time.sleep(self._faults.stalls.get(number, 0.0) if self._pace == "wall" else 0.0)
            colour, depth = self._source(self._camera, number)
            self._number = number + 1
            self.delivered.append(number)
            return Frame(
                self._camera, number, self._stamp(number), self._arrival(number), colour, depth
            )

    def stop(self) -> None:
        """Ends the exposures; may be called twice."""
        self._running = False

    def _due(self, number: int) -> float:
        """Arrival of a frame by the monotonic clock, seconds."""
        exposed = self._clocks.exposure_s(self._camera, number)
        return self.pulse.start_s + exposed + _LATENCY

    def _arrival(self, number: int) -> int:
        if self._pace == "wall":
            return time.monotonic_ns()
        return int(1e9 * self._due(number))

    def _stamp(self, number: int) -> int:
        stamp = self._clocks.device_ns(self._camera, number)
        step = self._faults.step
        return stamp + (int(1e9 * step[1]) if step is not None and number >= step[0] else 0)

    def _wait(self, number: int, until: float) -> bool:
        """Until a frame is there; False if that takes too long."""
        if self._pace == "free":
            return True
        left = self._due(number) - time.monotonic()
        if time.monotonic() + left > until:
            time.sleep(max(until - time.monotonic(), 0.0))
            return False
        time.sleep(max(left, 0.0))
        return True

    def _skip(self) -> None:
        """Loses the frames that newer ones pushed out of the driver's memory."""
        if self._pace == "free":
            return
        end = min(x for x in (self._count, self._faults.unplug_at, 2**62) if x is not None)
        now = time.monotonic()
        while self._number + HELD < end and self._due(self._number + HELD) <= now:
            self._lose(self._number)

    def _lose(self, number: int) -> None:
        self.lost.append(number)
        self._number = number + 1


def optics_of(pair: Lenses) -> Optics:
    """The lenses of a virtual camera as a device has them."""
    return Optics(pair.colour, pair.depth, pair.wxyz_xyz_colour_depth)


def devices(
    rig: VirtualRig,
    source: Source,
    *,
    pace: Pace = "wall",
    count: int | None = None,
    faults: Mapping[int, Faults] | None = None,
) -> list[VirtualDevice]:
    """The cameras of a virtual rig.

    Args:
        rig: The rig.
        source: The pictures: `rendered(film)`, or a `Loop` of such that were made before.
        pace: As of `VirtualDevice`.
        count: Exposures of each; None is endless.
        faults: What goes wrong, by camera.
    """
    pulse = Pulse()
    return [
        VirtualDevice(
            camera,
            optics_of(pair),
            source,
            rig.clocks,
            pulse,
            pace=pace,
            count=count,
            faults=(faults or {}).get(camera),
        )
        for camera, pair in enumerate(rig.lenses)
    ]


def rendered(film: Film) -> Source:
    """Pictures that are rendered when they are asked for: half a second each, or more."""

    def take(camera: int, number: int) -> Pictures:
        exposure = film(camera, number)
        return exposure.colour, exposure.depth

    return take


class Loop:
    """A few exposures of each camera, over and over: for more frames than can be rendered in time.

    Every depth picture has its number in its first four pixels, 16 bits each, so none is the same.
    """

    def __init__(
        self, colour: Sequence[Sequence[np.ndarray]], depth: Sequence[Sequence[np.ndarray]]
    ) -> None:
        """Takes pictures by camera.

        Args:
            colour: For each camera some pictures.
            depth: As many or not: of different numbers, more pairs are different.
        """
        self._colour, self._depth = colour, depth

    def __call__(self, camera: int, number: int) -> Pictures:
        """The pictures of an exposure."""
        colour = self._colour[camera][number % len(self._colour[camera])]
        depth = self._depth[camera][number % len(self._depth[camera])].copy()
        depth[0, :4] = [number >> shift & 0xFFFF for shift in (0, 16, 32, 48)]
        return colour, depth


def loop(film: Film, each: int) -> Loop:
    """The first exposures of each camera, rendered once."""
    cameras = range(len(film.rig.lenses))
    taken = [[film(camera, number) for number in range(each)] for camera in cameras]
    return Loop(
        [[x.colour for x in one] for one in taken], [[x.depth for x in one] for one in taken]
    )


class VirtualJoints:
    """A robot's joints over a sequence; a `capture.streams.JointSource`."""

    def __init__(
        self,
        names: tuple[str, ...],
        time_s: Float[np.ndarray, " t"],
        q: Float[np.ndarray, "t j"],
        clock: Clock,
        pulse: Pulse,
        *,
        pace: Pace = "wall",
        rate: float = ROBOT_RATE,
    ) -> None:
        """Not started; it begins with the cameras.

        Args:
            names: The joints.
            time_s: True times of the sequence, rising, seconds.
            q: Angles then, radians; in a line between.
            clock: The robot's clock.
            pulse: The cameras'; true time begins with it.
            pace: As of `VirtualDevice`.
            rate: States a second.
        """
        self._rate = rate
        self._names, self._time, self._q = names, time_s, q
        self._clock, self._pulse, self._pace = clock, pulse, pace
        self._number = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The joints, in the order of states."""
        return self._names

    def read(self, timeout_s: float) -> JointState | None:
        """The next state; None if none came in that time.

        Raises:
            OverError: The sequence is over.
        """
        if not self._pulse.begun.wait(timeout_s):
            return None
        true_s = self._number / self._rate
        if true_s > self._time[-1]:
            raise OverError("the robot's sequence is over")
        due = self._pulse.start_s + true_s
        if self._pace == "wall":
            left = due - time.monotonic()
            time.sleep(min(max(left, 0.0), timeout_s))
            if left > timeout_s:
                return None
        number, self._number = self._number, self._number + 1
        step = 0.5 / self._rate
        before, q, after = (self._at(true_s + d) for d in (-step, 0.0, step))
        device_ns = int(self._clock.says(np.array(true_s)))
        return JointState(number, device_ns, int(1e9 * due), q, (after - before) / (2 * step))

    def _at(self, true_s: float) -> Float[np.ndarray, " j"]:
        right = int(np.clip(np.searchsorted(self._time, true_s), 1, len(self._time) - 1))
        before, after = self._time[right - 1], self._time[right]
        share = min(max((true_s - before) / (after - before), 0.0), 1.0)
        return (1.0 - share) * self._q[right - 1] + share * self._q[right]
