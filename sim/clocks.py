"""When the cameras of a rig expose, and what their clocks say then.

The main camera's crystal makes a pulse for each frame; the others follow it over the sync cable,
each a little later than the one before, so that no depth camera sees another's light. Every camera
stamps by a clock of its own. True time is in seconds from the scene's beginning.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from realdex_jax.geometry.view import STAGGER_S as STAGGER
from sim.kinect import CameraError

_OFFSET, _DRIFT = 0.5, 50.0
"""Largest offset (s) and drift (parts per million) that `draw` gives a clock."""
_PULSE, _STAMP, _PHASE = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class Clock:
    """A clock that is off and goes wrong, evenly."""

    offset_s: float = 0.0
    """What it says at true time 0, seconds."""
    drift_ppm: float = 0.0
    """How much too fast it goes, millionths."""

    @property
    def rate(self) -> float:
        """Its seconds for each true one."""
        return 1.0 + 1e-6 * self.drift_ppm

    def says(self, true_s: Float[np.ndarray, "*t"]) -> Int[np.ndarray, "*t"]:
        """What it says at true times, nanoseconds."""
        ns = np.rint(1e9 * (self.offset_s + self.rate * np.asarray(true_s)))
        return np.asarray(ns, np.int64)

    def true(self, clock_ns: Int[np.ndarray, "*t"]) -> Float[np.ndarray, "*t"]:
        """The true times (s) at which it says so: `says` undone."""
        return np.asarray((1e-9 * np.asarray(clock_ns) - self.offset_s) / self.rate)


@dataclasses.dataclass(frozen=True)
class Clocks:
    """The exposures of a rig."""

    cameras: tuple[Clock, ...]
    """One clock for each camera; 0 is the main one, whose clock makes the pulses."""
    fps: float = 15.0
    """Frames a second, by the main camera's clock."""
    stagger_s: float = STAGGER
    """Camera i exposes i times this after the pulse, seconds."""
    pulse_jitter_s: float = 20e-6
    """Standard deviation of the pulses, the same for all cameras, seconds."""
    stamp_jitter_s: float = 50e-6
    """Standard deviation of a stamp about the middle of its exposure, seconds; a camera's own."""
    wired: bool = True
    """Without the sync cable every camera goes by its own clock and begins when it likes."""
    seed: int = 0
    """Of jitter and beginnings."""

    def __post_init__(self) -> None:
        """Refuses exposures that would be in each other's light, or make no sense."""
        if not self.cameras or self.fps <= 0 or min(self.pulse_jitter_s, self.stamp_jitter_s) < 0:
            raise CameraError(
                f"{len(self.cameras)} cameras at {self.fps} frames a second, jitter "
                f"{self.pulse_jitter_s} and {self.stamp_jitter_s} s; there must be a camera and a "
                "positive rate, and jitter cannot be negative"
            )
        if self.stagger_s < STAGGER:
            raise CameraError(
                f"depth exposures {1e6 * self.stagger_s:g} us apart; they must be "
                f"{1e6 * STAGGER:g} us apart at least, or the cameras see each other's light"
            )

    def exposure_s(self, camera: int, number: int) -> float:
        """True time of the middle of a camera's exposure, seconds.

        Raises:
            CameraError: There is no such camera, or the number is negative.
        """
        self._check(camera, number)
        leader = 0 if self.wired else camera
        pulse = number / self.fps / self.cameras[leader].rate
        shift = self.pulse_jitter_s * _normal(self.seed, _PULSE, leader, number)
        # Held to a tenth of a frame, so that exposures stay in order whatever the settings.
        pulse += float(np.clip(shift, -0.1 / self.fps, 0.1 / self.fps))
        if self.wired:
            return pulse + camera * self.stagger_s
        begin = np.random.default_rng([self.seed, _PHASE, camera]).random()
        return pulse + float(begin) / self.fps

    def device_ns(self, camera: int, number: int) -> int:
        """The stamp that a camera gives an exposure, nanoseconds by its own clock.

        Raises:
            CameraError: As `exposure_s`.
        """
        noise = self.stamp_jitter_s * _normal(self.seed, _STAMP, camera, number)
        moment = self.exposure_s(camera, number) + float(noise)
        return int(self.cameras[camera].says(np.array(moment)))

    def _check(self, camera: int, number: int) -> None:
        if not 0 <= camera < len(self.cameras) or number < 0:
            raise CameraError(
                f"exposure {number} of camera {camera}; cameras are 0 to {len(self.cameras) - 1}, "
                "exposures count from 0"
            )


def draw(
    count: int,
    seed: int,
    *,
    offset_s: float = _OFFSET,
    drift_ppm: float = _DRIFT,
    wired: bool = True,
    fps: float = 15.0,
) -> Clocks:
    """Clocks of a rig, evenly spread.

    Args:
        count: How many cameras.
        seed: Of the draw, and of all jitter.
        offset_s: Largest offset of a clock to either side, seconds.
        drift_ppm: Largest drift of a clock to either side, millionths.
        wired: Whether there is a sync cable.
        fps: Frames a second.
    """
    rng = np.random.default_rng([seed, count])
    spread = rng.uniform(-1.0, 1.0, (count, 2)) * [offset_s, drift_ppm]
    clocks = tuple(Clock(float(a), float(b)) for a, b in spread)
    return Clocks(clocks, fps=fps, wired=wired, seed=seed)


def _normal(seed: int, kind: Literal[0, 1], camera: int, number: int) -> float:
    """A normal number that depends on nothing but its arguments."""
    return float(np.random.default_rng([seed, kind, camera, number]).normal())
