"""Clocks of the rig in terms of each other, by stamps alone: cameras to the main one.

`motion_sync` finds the robot's clock, which no cable leads to. Times are integers (ns) where they
are stamps, so that none loses digits, and seconds where they are differences.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from capture.clockmap import (
    LEAST,
    STAMP_S,
    STEP_S,
    WINDOW,
    ClockMap,
    SteppedClock,
    SyncError,
    by_stretch,
    chained,
    fit,
    jump,
    stretches,
)
from capture.device import FPS, CaptureError
from capture.recording import Recording, Stamps
from realdex_jax.geometry.view import STAGGER_S

KEPT_S = 0.3
"""Most that a driver keeps frames or states for before it gives them, seconds."""
_SCATTER_S = 0.002
"""Most that stamps on the cable may scatter about their line; cameras do by 0.1 ms, seconds."""


def between_steps(one: Stamps, fps: float = FPS) -> Int[np.ndarray, " n"]:
    """In which stretch between steps of its clock each frame of a camera is.

    Frames that come later from some moment on, as a driver keeps more of them, are no step: their
    stamps go on as their numbers do.
    """
    part = stretches(one.device_ns, one.host_ns)
    starts = []
    for k in (np.flatnonzero(np.diff(part)) + 1).tolist():
        arrived, counted = _changes(one, k, fps)
        if abs(counted) > STEP_S or abs(arrived) > KEPT_S:
            starts.append(k)
    return np.searchsorted(np.array(starts, np.int64), np.arange(len(part)), side="right")


def _changes(one: Stamps, k: int, fps: float) -> tuple[float, float]:
    """By how much stamps change before frame k against arrivals and against numbers, seconds."""
    lo, hi = max(k - WINDOW, 0), k + WINDOW
    at, number = one.device_ns[lo:hi], one.number[lo:hi]
    counted = jump(at - np.rint(number * (1e9 / fps)).astype(np.int64), k - lo)
    return jump(at - one.host_ns[lo:hi], k - lo), counted


def steady(main: Stamps, fps: float = FPS) -> SteppedClock:
    """A camera's clock as it would have gone on without its steps, in terms of what it said.

    Arrivals tell that it stepped and by how many frames, stamps by how much to their jitter.

    Args:
        main: The camera's stamps.
        fps: Its frames a second.
    """
    part = between_steps(main, fps)
    gained = [0]
    for k in (np.flatnonzero(np.diff(part)) + 1).tolist():
        arrived, counted = _changes(main, k, fps)
        whole = round((arrived - counted) * fps)
        gained.append(gained[-1] + round(1e9 * (counted + whole / fps)))
    first, maps = [], []
    for k, off in enumerate(gained):
        rows = np.flatnonzero(part == k)
        first.append(int(main.number[rows[0]]))
        middle = int(main.device_ns[rows[len(rows) // 2]])
        error = STAMP_S * np.sqrt(k / WINDOW)
        maps.append(ClockMap(middle, middle - off, 0.0, float(error), 0.0))
    return SteppedClock(tuple(first), tuple(maps))


def follow(main: Stamps, other: Stamps, *, delay_s: float = 0.0, fps: float = FPS) -> SteppedClock:
    """The main camera's clock in terms of another's on its sync cable.

    Frames of one pulse are found by arrival; numbers may be apart by as many as the one started
    earlier. Of each such pair, stamps tell what the clocks said at moments a known delay apart.
    Where the main clock stepped itself, it is taken as if it had not (`steady`).

    Args:
        main: Stamps of the main camera.
        other: Stamps of the other.
        delay_s: How much later the other exposes, seconds.
        fps: Pulses a second.

    Raises:
        SyncError: Fewer than three frames of both, arrivals that fit no pulse, or stamps that make
            no line.
    """
    if min(len(main.number), len(other.number)) < LEAST:
        raise SyncError(
            f"{len(main.number)} frames of the main camera and {len(other.number)} of the other; "
            f"at least {LEAST} of each"
        )
    main_ns = steady(main, fps)(main)
    part_main, part = between_steps(main, fps), between_steps(other, fps)
    arrived = (other.host_ns - main.host_ns[0]) - round(1e9 * delay_s)
    arrivals = main.host_ns - main.host_ns[0]
    inside = (arrived >= arrivals[0] - 0.5e9 / fps) & (arrived <= arrivals[-1] + 0.5e9 / fps)
    if not inside.any():
        raise SyncError("no frame of both at one time; were the cameras started together?")
    # The main camera's number when each frame arrived, also between those that are there.
    late = np.interp(arrived.astype(np.float64), arrivals, main.number) - other.number
    within = part_main[np.clip(np.searchsorted(arrivals, arrived) - 1, 0, len(arrivals) - 1)]
    i, j = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    # A step may change numbers, too, where they are counted from stamps.
    for k, m in np.unique(np.stack([part, within])[:, inside], axis=1).T.tolist():
        mine = np.flatnonzero((part == k) & (within == m) & inside)
        off = float(np.median(late[mine]))
        if abs(off - round(off)) > 0.4 and len(mine) >= LEAST:
            raise SyncError(
                f"frames arrive {off - round(off):+.2f} of a frame off the main camera's pulses; "
                "is the sync cable in, and the rate right?"
            )
        theirs = np.flatnonzero(part_main == m)
        _, a, b = np.intersect1d(
            main.number[theirs], other.number[mine] + round(off), return_indices=True
        )
        i.append(theirs[a])
        j.append(mine[b])
    one, two = np.concatenate(i), np.concatenate(j)
    if len(one) < LEAST:
        raise SyncError(f"{len(one)} pulses that both cameras took; at least {LEAST}")
    to_ns = main_ns[one] + round(1e9 * delay_s)
    return by_stretch(other, part, two, to_ns, _SCATTER_S)


def by_arrival(one: Stamps, part: Int[np.ndarray, " n"] | None = None) -> SteppedClock:
    """This machine's clock in terms of a device's, by when its frames or states arrived.

    The common delay from exposure to arrival stays in: the answer is late by about its median.

    Args:
        one: The stamps.
        part: In which stretch between steps of its clock each is; by arrivals alone if None, which
            tell steps of more than 0.3 s.

    Raises:
        SyncError: Fewer than three stamps, or a drift that no clock has.
    """
    if len(one.number) < LEAST:
        raise SyncError(f"{len(one.number)} stamps; at least {LEAST}")
    if part is None:
        part = stretches(one.device_ns, one.host_ns, KEPT_S)
    return by_stretch(one, part, np.arange(len(part)), one.host_ns, None)


def camera_clocks(
    recording: Recording, *, wired: bool = True, stagger_s: float = STAGGER_S, fps: float = FPS
) -> dict[int, SteppedClock]:
    """The main camera's clock, as if it had not stepped, in terms of each camera's.

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
    if not len(main.number):
        raise SyncError(f"{recording.path}: camera 0 has no frame")
    made = {0: steady(main, fps)}
    for c in recording.cameras:
        if c == 0:
            continue
        other = recording.stamps(c)
        if not len(other.number):
            raise SyncError(f"{recording.path}: camera {c} has no frame")
        try:
            if min(len(main.number), len(other.number)) < LEAST:
                made[c] = _few(main, other)
            elif wired:
                made[c] = follow(main, other, delay_s=c * stagger_s, fps=fps)
            else:
                back = fit(made[0](main), main.host_ns, None).inverse()
                seen = by_arrival(other, between_steps(other, fps))
                made[c] = SteppedClock(seen.first, tuple(chained(m, back) for m in seen.maps))
        except SyncError as error:
            raise SyncError(f"{recording.path}, camera {c}: {error}") from error
    return made


def _few(main: Stamps, other: Stamps) -> SteppedClock:
    """A camera of hardly any frames, by the arrival of its first and the main camera's."""
    offset = int(other.host_ns[0] - main.host_ns[0]) - int(other.device_ns[0] - main.device_ns[0])
    at = int(other.device_ns[0])
    return SteppedClock((int(other.number[0]),), (ClockMap(at, at + offset, 0.0, np.inf, 0.0),))


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
