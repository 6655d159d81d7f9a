"""Clocks of the rig in terms of each other, by stamps alone: cameras to the main one.

`motion_sync` finds the robot's clock, which no cable leads to. Times are integers (ns) where they
are stamps, so that none loses digits, and seconds where they are differences.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from capture.device import FPS, CaptureError
from capture.recording import Recording, Stamps
from realdex_jax.errors import RealdexError
from realdex_jax.geometry.view import STAGGER_S

_ROUNDS, _OUTLYING = 5, 4.0
_LEAST = 3


class SyncError(RealdexError):
    """Clocks that cannot be brought together."""


@dataclasses.dataclass(frozen=True)
class ClockMap:
    """What one clock says when another says something; both go evenly."""

    from_ns: int
    """A time by the one clock, amid those that it was found from."""
    to_ns: int
    """What the other says then."""
    drift_ppm: float
    """How much faster the other goes, millionths."""
    offset_error_s: float
    """Standard error at `from_ns`, seconds."""
    drift_error_ppm: float

    @property
    def offset_s(self) -> float:
        """By how much the other is ahead at `from_ns`, seconds."""
        return 1e-9 * (self.to_ns - self.from_ns)

    def __call__(self, ns: Int[np.ndarray, "*t"]) -> Int[np.ndarray, "*t"]:
        """What the other clock says, ns."""
        away = np.asarray(ns, np.int64) - self.from_ns
        gained = np.rint(1e-6 * self.drift_ppm * away).astype(np.int64)
        return np.asarray(away + self.to_ns + gained, np.int64)

    def error_s(self, ns: Int[np.ndarray, "*t"]) -> Float[np.ndarray, "*t"]:
        """Standard error of `__call__`, seconds."""
        away = 1e-9 * (np.asarray(ns, np.int64) - self.from_ns)
        return np.asarray(np.hypot(self.offset_error_s, 1e-6 * self.drift_error_ppm * away))

    def inverse(self) -> ClockMap:
        """The one clock in terms of the other."""
        rate = 1.0 + 1e-6 * self.drift_ppm
        drift = 1e6 * (1.0 / rate - 1.0)
        return ClockMap(self.to_ns, self.from_ns, drift, self.offset_error_s, self.drift_error_ppm)


def follow(main: Stamps, other: Stamps, *, delay_s: float = 0.0, fps: float = FPS) -> ClockMap:
    """The main camera's clock in terms of another's on its sync cable.

    Frames of one pulse are found by arrival; numbers may be apart by as many as the one started
    earlier. Of each such pair, stamps tell what the clocks said at moments a known delay apart.

    Args:
        main: Stamps of the main camera.
        other: Stamps of the other.
        delay_s: How much later the other exposes, seconds.
        fps: Pulses a second.

    Raises:
        SyncError: Fewer than three frames of both, or arrivals that fit no pulse.
    """
    if min(len(main.number), len(other.number)) < _LEAST:
        raise SyncError(
            f"{len(main.number)} frames of the main camera and {len(other.number)} of the other; "
            f"at least {_LEAST} of each"
        )
    period = 1e9 / fps
    # Arrival of the main camera's frame of each number, also of those that were dropped.
    arrivals = np.interp(
        other.number.astype(np.float64),
        main.number.astype(np.float64),
        (main.host_ns - main.host_ns[0]).astype(np.float64),
    )
    inside = (other.number >= main.number[0]) & (other.number <= main.number[-1])
    if not inside.any():
        raise SyncError("no frame numbers in common; were the cameras started together?")
    away = (other.host_ns - main.host_ns[0]).astype(np.float64) - 1e9 * delay_s - arrivals
    late = float(np.median(away[inside])) / period
    shift = round(late)
    if abs(late - shift) > 0.4:
        raise SyncError(
            f"frames arrive {late - shift:+.2f} of a frame off the main camera's pulses; "
            "is the sync cable in, and the rate right?"
        )
    _, i, j = np.intersect1d(main.number, other.number + shift, return_indices=True)
    if len(i) < _LEAST:
        raise SyncError(f"{len(i)} pulses that both cameras took; at least {_LEAST}")
    delay = round(1e9 * delay_s)
    return fit(other.device_ns[j], main.device_ns[i] + delay)


def by_arrival(one: Stamps) -> ClockMap:
    """This machine's clock in terms of a device's, by when its frames or states arrived.

    The common delay from exposure to arrival stays in: the answer is late by about its median.
    """
    if len(one.number) < _LEAST:
        raise SyncError(f"{len(one.number)} stamps; at least {_LEAST}")
    return fit(one.device_ns, one.host_ns)


def fit(from_ns: Int[np.ndarray, " n"], to_ns: Int[np.ndarray, " n"]) -> ClockMap:
    """The line through pairs of stamps, outliers left out.

    Args:
        from_ns: By the one clock.
        to_ns: By the other at the same moments.

    Raises:
        SyncError: Fewer than three pairs, or all at one time.
    """
    if len(from_ns) < _LEAST or np.ptp(from_ns) == 0:
        raise SyncError(f"{len(from_ns)} pairs of stamps; at least {_LEAST}, at different times")
    middle = int(from_ns[0]) + int(np.mean(from_ns - from_ns[0]))
    x = 1e-9 * (from_ns - middle)
    start = int(to_ns[0]) - int(from_ns[0])
    y = 1e-9 * (to_ns - from_ns - start)
    A = np.stack([np.ones_like(x), x], axis=1)
    used = np.ones(len(x), bool)
    # A line that outliers do not pull: it begins with the median of slopes over half the way.
    half = len(x) // 2
    far = np.abs(x[half:] - x[: len(x) - half]) > 1e-9
    rise, run = y[half:] - y[: len(x) - half], x[half:] - x[: len(x) - half]
    slope = np.median(rise[far] / run[far]) if far.any() else 0.0
    found = np.array([np.median(y - slope * x), slope])
    for _ in range(_ROUNDS):
        off = np.abs(y - A @ found)
        scale = 1.4826 * float(np.median(off)) + 1e-9
        used = off <= _OUTLYING * scale
        if used.sum() < _LEAST:
            used[:] = True
        found = np.linalg.lstsq(A[used], y[used], rcond=None)[0]
    rest = y[used] - A[used] @ found
    variance = float(rest @ rest) / max(len(rest) - 2, 1)
    error = np.sqrt(np.maximum(variance * np.diag(np.linalg.inv(A[used].T @ A[used])), 0.0))
    to = middle + start + round(1e9 * float(found[0]))
    return ClockMap(middle, to, 1e6 * float(found[1]), float(error[0]), 1e6 * float(error[1]))


def camera_clocks(
    recording: Recording, *, wired: bool = True, stagger_s: float = STAGGER_S, fps: float = FPS
) -> dict[int, ClockMap]:
    """The main camera's clock in terms of each camera's.

    Args:
        recording: The recording; camera 0 is the main one.
        wired: Whether the cameras were on the sync cable; else only arrivals tell, to a few
            milliseconds.
        stagger_s: Camera i exposes so many times this later, seconds.
        fps: Frames a second.

    Raises:
        CaptureError: Camera 0 is missing.
        SyncError: As of `follow`.
    """
    if 0 not in recording.cameras:
        raise CaptureError(f"{recording.path}: cameras {recording.cameras}; 0 must be there")
    main = recording.stamps(0)
    made = {0: fit(main.device_ns, main.device_ns)}
    for c in recording.cameras:
        if c == 0:
            continue
        other = recording.stamps(c)
        if wired:
            made[c] = follow(main, other, delay_s=c * stagger_s, fps=fps)
        else:
            made[c] = chained(by_arrival(other), by_arrival(main).inverse())
    return made


def chained(first: ClockMap, second: ClockMap) -> ClockMap:
    """The last clock in terms of the first: `first`, then `second`."""
    at = np.array(first.to_ns)
    rate = 1.0 + 1e-6 * second.drift_ppm
    drift = 1e6 * ((1.0 + 1e-6 * first.drift_ppm) * rate - 1.0)
    error = float(np.hypot(first.offset_error_s, float(second.error_s(at))))
    drift_error = float(np.hypot(first.drift_error_ppm, second.drift_error_ppm))
    return ClockMap(first.from_ns, int(second(at)), drift, error, drift_error)


def by_speed(
    time_seen_s: Float[np.ndarray, " n"],
    speed_seen: Float[np.ndarray, " n"],
    time_robot_s: Float[np.ndarray, " m"],
    speed_robot: Float[np.ndarray, " m"],
    window_s: float = 1.0,
) -> tuple[float, float]:
    """By how much the robot's clock is ahead, where its speed goes with what cameras see move.

    Any measures of speed will do that rise and fall together; units do not matter.

    Args:
        time_seen_s: Rising, seconds.
        speed_seen: How much the pictures change, then.
        time_robot_s: Rising, by the robot's clock, seconds.
        speed_robot: How fast it is, then.
        window_s: Most that it may be ahead or behind, seconds.

    Returns:
        The offset (s), between samples by a parabola, and the correlation there.

    Raises:
        SyncError: Nothing moves, or the two overlap too little.
    """
    step = float(np.median(np.diff(time_seen_s))) / 4.0
    offsets = step * np.arange(-np.ceil(window_s / step), np.ceil(window_s / step) + 1)
    score = np.full(len(offsets), -np.inf)
    for i, offset in enumerate(offsets.tolist()):
        at = time_seen_s + offset
        inside = (at >= time_robot_s[0]) & (at <= time_robot_s[-1])
        if inside.sum() < max(8, len(at) // 2):
            continue
        a, b = speed_seen[inside], np.interp(at[inside], time_robot_s, speed_robot)
        if min(a.std(), b.std()) > 1e-12:
            score[i] = np.corrcoef(a, b)[0, 1]
    best = int(np.argmax(score))
    if not np.isfinite(score[best]):
        raise SyncError("no motion that both cameras and robot saw; record some, over a second")
    offset = float(offsets[best])
    if 0 < best < len(score) - 1 and np.isfinite(score[best - 1 : best + 2]).all():
        low, mid, high = score[best - 1 : best + 2]
        bend = low - 2.0 * mid + high
        offset += step * 0.5 * float(low - high) / float(bend) if bend < 0.0 else 0.0
    return offset, float(score[best])
