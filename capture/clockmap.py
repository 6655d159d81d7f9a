"""Lines through pairs of stamps: what one clock says when another says something.

Clocks may step, but not drift by more than quartz does. Times are integers (ns) where they are
stamps, so that none loses digits, and seconds where they are differences.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from capture.recording import Stamps
from realdex_jax.errors import RealdexError

STEP_S = 0.05
"""A clock that goes wrong by more at once, and stays so, has stepped, seconds."""
MOST_DRIFT_PPM = 500.0
"""No quartz is off another by more, millionths."""
_ROUNDS, _OUTLYING = 5, 4.0
LEAST = 3
"""Pairs of stamps that make a line."""
WINDOW = 9
"""Pairs on either side of a step that tell it from one that came late."""
_MOST_OUT, _OUT_S = 0.2, 0.001
"""Share of pairs that may be off the line by more than so many seconds."""
STAMP_S = 1e-4
"""What a few pairs are at least taken to be off by where their drift is judged, seconds."""


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


@dataclasses.dataclass(frozen=True)
class SteppedClock:
    """What one clock says when another says something that stepped now and then."""

    first: tuple[int, ...]
    """Number of the frame (or state) from which on each map holds, rising."""
    maps: tuple[ClockMap, ...]
    """One for each stretch between steps."""

    def __call__(self, stamps: Stamps) -> Int[np.ndarray, " n"]:
        """What the one clock said at stamps of the other, ns.

        The number tells the stretch: after a step backward the other clock says the same twice.
        """
        part = np.searchsorted(self.first[1:], stamps.number, side="right")
        made = np.zeros(len(part), np.int64)
        for k, one in enumerate(self.maps):
            made[part == k] = one(stamps.device_ns[part == k])
        return made

    @property
    def steps(self) -> tuple[tuple[int, float], ...]:
        """Number of the first frame after each step, and by how much the clock stepped, seconds."""
        ahead = [one.offset_s for one in self.maps]
        return tuple(
            (number, before - after)
            for number, before, after in zip(self.first[1:], ahead[:-1], ahead[1:], strict=True)
        )


def chained(first: ClockMap, second: ClockMap) -> ClockMap:
    """The last clock in terms of the first: `first`, then `second`."""
    at = np.array(first.to_ns)
    rate = 1.0 + 1e-6 * second.drift_ppm
    drift = 1e6 * ((1.0 + 1e-6 * first.drift_ppm) * rate - 1.0)
    error = float(np.hypot(first.offset_error_s, float(second.error_s(at))))
    drift_error = float(np.hypot(first.drift_error_ppm, second.drift_error_ppm))
    return ClockMap(first.from_ns, int(second(at)), drift, error, drift_error)


def stretches(
    from_ns: Int[np.ndarray, " n"], to_ns: Int[np.ndarray, " n"], step_s: float = STEP_S
) -> Int[np.ndarray, " n"]:
    """In which stretch between steps of the one clock against the other each pair of stamps is.

    A step is a change that stays for three pairs at least; a pair that came late is none.

    Args:
        from_ns: By the one clock.
        to_ns: By the other at the same moments.
        step_s: Smaller changes are no steps, seconds.
    """
    away = to_ns - from_ns
    level = 1e-9 * (away - away[:1])
    sudden = np.flatnonzero(np.abs(np.diff(level)) > 0.5 * step_s) + 1
    sudden = sudden[(sudden >= LEAST) & (sudden <= len(level) - LEAST)]
    starts: list[int] = []
    for group in np.split(sudden, np.flatnonzero(np.diff(sudden) >= LEAST) + 1):
        found = [(*_change(level, k), k) for k in group.tolist()]
        # Of changes side by side the one that leaves least on either side unexplained.
        found = [one for one in found if one[1] > step_s]
        if found:
            starts.append(min(found)[2])
    return np.searchsorted(np.array(starts, np.int64), np.arange(len(level)), side="right")


def _change(level: Float[np.ndarray, " n"], k: int) -> tuple[float, float]:
    """What a step before pair k would leave unexplained there, and how large it would be."""
    sides = level[max(k - WINDOW, 0) : k], level[k : k + WINDOW]
    middles = [float(np.median(side)) for side in sides]
    rest = sum(float(np.abs(x - m).sum()) for x, m in zip(sides, middles, strict=True))
    return rest, abs(middles[1] - middles[0])


def jump(ns: Int[np.ndarray, " n"], k: int) -> float:
    """By how much times after the k-th are larger than those before it, seconds."""
    away = 1e-9 * (ns - ns[0])
    return float(np.median(away[k:]) - np.median(away[:k]))


def fit(
    from_ns: Int[np.ndarray, " n"],
    to_ns: Int[np.ndarray, " n"],
    scatter_s: float | None = np.inf,
) -> ClockMap:
    """The line through pairs of stamps, outliers left out.

    Args:
        from_ns: By the one clock.
        to_ns: By the other at the same moments.
        scatter_s: Most that they may scatter about it, seconds; None for arrivals, of which any
            number may be late.

    Raises:
        SyncError: Fewer than three pairs, or all at one time; a clock that stepped, drifts by more
            than `MOST_DRIFT_PPM`, or has many pairs off the line.
    """
    if len(from_ns) >= LEAST and scatter_s is not None:
        part = stretches(from_ns, to_ns)
        if part.any():
            k = int(np.argmax(part))
            off = jump(to_ns - from_ns, k)
            raise SyncError(
                f"one of two clocks steps by {off:+.3f} s at pair {k} of {len(part)}; a line is "
                "through pairs without a step"
            )
    return _lines(from_ns, to_ns, np.zeros(len(from_ns), np.int64), scatter_s)[0]


def by_stretch(
    stamps: Stamps,
    part: Int[np.ndarray, " n"],
    used: Int[np.ndarray, " m"],
    to_ns: Int[np.ndarray, " m"],
    scatter_s: float | None,
) -> SteppedClock:
    """Lines for the stretches of a clock, through those of its stamps that have a partner."""
    found = _lines(stamps.device_ns[used], to_ns, part[used], scatter_s)
    if len(found) <= part.max():
        lost = sorted(set(part.tolist()) - set(found))[0]
        number = int(stamps.number[np.argmax(part == lost)])
        raise SyncError(
            f"after the step of the clock at frame {number} no frame has a partner of the main "
            "camera; what follows has no time"
        )
    first = [int(stamps.number[np.argmax(part == k)]) for k in sorted(found)]
    return SteppedClock(tuple(first), tuple(found[k] for k in sorted(found)))


def _lines(
    from_ns: Int[np.ndarray, " n"],
    to_ns: Int[np.ndarray, " n"],
    part: Int[np.ndarray, " n"],
    scatter_s: float | None,
) -> dict[int, ClockMap]:
    """A line for each stretch; all have one slope, as a step does not change a crystal."""
    if len(from_ns) < LEAST or np.ptp(from_ns) == 0:
        raise SyncError(f"{len(from_ns)} pairs of stamps; at least {LEAST}, at different times")
    rows = {k: np.flatnonzero(part == k) for k in np.unique(part).tolist()}
    x, y = np.zeros((2, len(from_ns)))
    middle, start, slopes = {}, {}, []
    for k, mine in rows.items():
        first = int(from_ns[mine[0]])
        middle[k] = first + int(np.mean(from_ns[mine] - first))
        start[k] = int(to_ns[mine[0]]) - first
        x[mine] = 1e-9 * (from_ns[mine] - middle[k])
        y[mine] = 1e-9 * (to_ns[mine] - from_ns[mine] - start[k])
        half = len(mine) // 2
        rise, run = (v[mine[half:]] - v[mine[: len(mine) - half]] for v in (y, x))
        slopes.append((rise / np.where(np.abs(run) > 1e-9, run, np.inf))[np.abs(run) > 1e-9])
    # A line that outliers do not pull: it begins with the median of slopes over half the way.
    every = np.concatenate(slopes)
    slope = float(np.median(every)) if len(every) else 0.0
    height = {k: float(np.median(y[mine] - slope * x[mine])) for k, mine in rows.items()}
    used, scale, spread = np.ones(len(x), bool), 0.0, 0.0
    centre = dict.fromkeys(rows, 0.0)
    for _ in range(_ROUNDS):
        off = np.abs(y - slope * x - np.array([height[k] for k in part.tolist()]))
        scale = 1.4826 * float(np.median(off)) + 1e-9
        used = off <= _OUTLYING * scale
        if used.sum() < LEAST:
            used[:] = True
        near = {k: mine[used[mine]] for k, mine in rows.items()}
        near = {k: mine if len(mine) else rows[k] for k, mine in near.items()}
        centre = {k: float(x[mine].mean()) for k, mine in near.items()}
        level = {k: float(y[mine].mean()) for k, mine in near.items()}
        spread = sum(float(((x[mine] - centre[k]) ** 2).sum()) for k, mine in near.items())
        along = sum(float((x[mine] - centre[k]) @ (y[mine] - level[k])) for k, mine in near.items())
        slope = along / spread if spread > 0.0 else 0.0
        height = {k: level[k] - slope * centre[k] for k in rows}
    rest = (y - slope * x - np.array([height[k] for k in part.tolist()]))[used]
    variance = float(rest @ rest) / max(len(rest) - 1 - len(rows), 1)
    slope_error = float(np.sqrt(variance / spread)) if spread > 0.0 else 0.0
    _check(x, y, slope, spread, scale, scatter_s, part, height)
    found = {}
    for k, mine in rows.items():
        count = max(int(used[mine].sum()), 1)
        error = np.sqrt(variance / count + (slope_error * centre[k]) ** 2)
        to = middle[k] + start[k] + round(1e9 * height[k])
        found[k] = ClockMap(middle[k], to, 1e6 * slope, float(error), 1e6 * slope_error)
    return found


def _check(
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    slope: float,
    spread: float,
    scale: float,
    scatter_s: float | None,
    part: Int[np.ndarray, " n"],
    height: dict[int, float],
) -> None:
    """Refuses lines that two clocks cannot make."""
    most = MOST_DRIFT_PPM
    if spread > 0.0:
        # Of a few pairs side by side the slope says little.
        most += 1e6 * _OUTLYING * max(scale, STAMP_S) / np.sqrt(spread)
    if abs(1e6 * slope) > most:
        raise SyncError(
            f"the clocks drift by {1e6 * slope:+.0f} millionths; no two are apart by more than "
            f"{most:.0f}. Are stamps of one device, and in nanoseconds?"
        )
    if scatter_s is None:
        return
    if scale > scatter_s:
        raise SyncError(
            f"stamps scatter by {1e3 * scale:.1f} ms about their line; at most "
            f"{1e3 * scatter_s:.1f} on the cable. Is it in, and are frames of one pulse?"
        )
    off = np.abs(y - slope * x - np.array([height[k] for k in part.tolist()]))
    out = float((off > max(_OUTLYING * scale, _OUT_S)).mean())
    if out > _MOST_OUT:
        raise SyncError(
            f"{100 * out:.0f} % of {len(x)} pairs of stamps are off their line by more than "
            f"{1e3 * max(_OUTLYING * scale, _OUT_S):.1f} ms; at most {100 * _MOST_OUT:.0f} % may be"
        )
