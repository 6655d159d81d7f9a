"""What a trajectory is between its points: its course, its extremes, parts of it, its digest."""

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from robot.interface import RobotError, Trajectory

STEP = 0.02
"""Seconds between the points of trajectories made here."""
AHEAD_S, BRAKE_S = 0.3, 0.5
"""Seconds of a trajectory in each command, and of the stop behind it."""
_BRAKE_STEP = 0.05


def sample(
    trajectory: Trajectory, t: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "n j"], Float[np.ndarray, "n j"]]:
    """Positions (rad) and velocities (rad/s) at any times; before and after it rests.

    Args:
        trajectory: At least two points, time rising.
        t: Seconds since its start.
    """
    time = np.asarray(trajectory.t, np.float64)
    t = np.asarray(t, np.float64)
    i = np.clip(np.searchsorted(time, t, side="right") - 1, 0, len(time) - 2)
    h = (time[i + 1] - time[i])[:, None]
    u = np.clip((t - time[i])[:, None] / h, 0.0, 1.0)
    q0, q1 = trajectory.q[i], trajectory.q[i + 1]
    m0, m1 = h * trajectory.qd[i], h * trajectory.qd[i + 1]
    rise = q1 - q0
    b, c = 3.0 * rise - 2.0 * m0 - m1, m0 + m1 - 2.0 * rise
    inside = ((t >= time[0]) & (t <= time[-1]))[:, None]
    return q0 + u * (m0 + u * (b + u * c)), inside * (m0 + u * (2.0 * b + 3.0 * u * c)) / h


@dataclass(frozen=True, eq=False)
class Extremes:
    """Greatest magnitudes on each of the k - 1 pieces between points, per joint."""

    low: Float[np.ndarray, "s j"]
    """Lowest position, radians."""
    high: Float[np.ndarray, "s j"]
    """Highest position."""
    rate: Float[np.ndarray, "s j"]
    """Speed, rad/s."""
    acceleration: Float[np.ndarray, "s j"]
    """Acceleration, rad/s^2."""
    jerk: Float[np.ndarray, "s j"]
    """Jerk, rad/s^3: of the piece, and of the jump of acceleration at its start if that took as
    long as the shorter of the two pieces. A jump from and to rest counts at the ends."""


def extremes(trajectory: Trajectory, from_rest: bool = True) -> Extremes:
    """What the cubics reach between the points as well as at them.

    Args:
        trajectory: At least two points, time rising, finite.
        from_rest: Whether there is no acceleration before the first point; else the first piece
            goes on with what was.
    """
    h = np.diff(np.asarray(trajectory.t, np.float64))[:, None]
    q = np.asarray(trajectory.q, np.float64)
    v = np.asarray(trajectory.qd, np.float64)
    q0, q1, m0, m1 = q[:-1], q[1:], h * v[:-1], h * v[1:]
    rise = q1 - q0
    b, c = 3.0 * rise - 2.0 * m0 - m1, m0 + m1 - 2.0 * rise  # q0 + m0 u + b u^2 + c u^3

    safe = np.where(np.abs(c) < 1e-15, 1.0, c)
    turn = np.where(np.abs(c) < 1e-15, 0.5, -b / (3.0 * safe))  # acceleration zero: speed extreme
    turn = np.clip(turn, 0.0, 1.0)
    rate = np.abs(np.stack([m0, m1, m0 + turn * (2.0 * b + 3.0 * turn * c)])).max(0) / h

    root = np.sqrt(np.maximum(b * b - 3.0 * c * m0, 0.0))
    # Both roots of m0 + 2 b u + 3 c u^2 in the form that bears c = 0.
    w = -(b + np.where(b >= 0.0, root, -root))
    first = np.where(np.abs(c) < 1e-15, 0.0, w / (3.0 * safe))
    second = np.where(np.abs(w) < 1e-15, 0.0, m0 / np.where(np.abs(w) < 1e-15, 1.0, w))
    at = np.clip(np.stack([first, second]), 0.0, 1.0)
    inner = q0 + at * (m0 + at * (b + at * c))
    both = np.concatenate([np.stack([q0, q1]), inner])

    start, end = 2.0 * b / h**2, (2.0 * b + 6.0 * c) / h**2
    before = np.concatenate([np.zeros_like(start[:1]) if from_rest else start[:1], end[:-1]])
    shorter = np.minimum(h, np.concatenate([h[:1], h[:-1]]))
    jerk = np.maximum(np.abs(6.0 * c / h**3), np.abs(start - before) / shorter)
    jerk[-1] = np.maximum(jerk[-1], np.abs(end[-1]) / h[-1])
    acceleration = np.maximum(np.abs(start), np.abs(end))
    return Extremes(both.min(0), both.max(0), rate, acceleration, jerk)


def scaled(trajectory: Trajectory, speed: float) -> Trajectory:
    """The same path at another speed.

    Args:
        trajectory: Any.
        speed: Share of its own; more than 1 may exceed limits, which the gate finds.

    Raises:
        RobotError: The speed is not positive.
    """
    if not (np.isfinite(speed) and speed > 0.0):
        raise RobotError(f"speed {speed}; it must be positive, 1 is the trajectory's own")
    return Trajectory(
        trajectory.names, trajectory.t / speed, trajectory.q, np.asarray(trajectory.qd) * speed
    )


def window(trajectory: Trajectory, at: float, ahead: float, brake: float) -> Trajectory:
    """The part of a trajectory that lies just ahead, and a stop on the path behind it.

    What is sent to controllers: if nothing more comes, they end at rest without leaving the path.

    Args:
        trajectory: The whole.
        at: Seconds since its start.
        ahead: Seconds of it at its own speed.
        brake: Seconds the stop then takes; half as much of the trajectory is passed in it.
    """
    end = float(trajectory.t[-1])
    at = min(max(at, 0.0), end - STEP)
    ahead = min(ahead, end - at)
    steps = max(int(np.ceil(ahead / STEP - 1e-9)), 1)
    t = np.linspace(0.0, ahead, steps + 1)
    q, qd = sample(trajectory, at + t)
    if at + ahead >= end - 1e-9:
        qd[-1] = 0.0
        return Trajectory(trajectory.names, t, q, qd)
    u = np.linspace(0.0, 1.0, int(np.ceil(brake / _BRAKE_STEP)) + 1)[1:]
    share = 1.0 - u * u * (3.0 - 2.0 * u)
    passed = brake * (u - u**3 + u**4 / 2.0)
    q_brake, qd_brake = sample(trajectory, at + ahead + passed)
    return Trajectory(
        names=trajectory.names,
        t=np.concatenate([t, ahead + brake * u]),
        q=np.concatenate([q, q_brake]),
        qd=np.concatenate([qd, share[:, None] * qd_brake]),
    )


def joined(parts: list[Trajectory]) -> Trajectory:
    """Trajectories one after another; each begins where and as the one before ends."""
    t, q, qd = [np.zeros(1)], [parts[0].q[:1]], [parts[0].qd[:1]]
    for part in parts:
        t.append(t[-1][-1] + part.t[1:])
        q.append(part.q[1:])
        qd.append(part.qd[1:])
    return Trajectory(parts[0].names, np.concatenate(t), np.concatenate(q), np.concatenate(qd))


def digest(trajectory: Trajectory) -> str:
    """SHA-256 of names and numbers: what a verdict is bound to."""
    found = hashlib.sha256("\n".join(trajectory.names).encode())
    for value in (trajectory.t, trajectory.q, trajectory.qd):
        plain = np.ascontiguousarray(value, "<f8")
        found.update(repr(plain.shape).encode())
        found.update(plain.tobytes())
    return found.hexdigest()
