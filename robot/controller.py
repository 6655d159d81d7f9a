"""A joint trajectory controller: follows cubics through points, and holds when it cannot.

As ROS 2's `joint_trajectory_controller`, which a simulated robot stands in for, but for two of its
holes: tolerances are set, and a hold brakes from the wanted state instead of stepping back to the
measured one. Pure: a state goes in, a state comes out. Times are the controller's own clock, which
a speed slider may slow down.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from robot import limits
from robot.interface import Trajectory

_CLOSE = 0.01
"""Points less than this (s) from now are passed over: a cubic so short would be a jump."""


@dataclasses.dataclass(frozen=True)
class ControllerConfig:
    """Names and tolerances of one controller."""

    names: tuple[str, ...]
    """Joints, in the order of every `q`."""
    start_rad: float = 0.01
    """Most that a trajectory's first point may be from where the joints are told to be."""
    path_rad: float = math.inf
    """Most that a joint may be from where it is told to be; UR's driver has 0.2."""
    goal_rad: float = math.inf
    """The same at the end of a trajectory; UR's driver has 0.1 ..."""
    goal_s: float = 0.5
    """... after this many seconds."""
    brake_s: float = limits.BRAKE_S
    """Least seconds in which a hold comes to rest ..."""
    deceleration: float = math.inf
    """... if that asks for no more than this, rad/s^2."""
    max_rate: tuple[float, ...] = ()
    """What joints are able to, rad/s; a trajectory that asks for more is refused. Empty: anything.
    """
    pairs: tuple[tuple[int, int], ...] = ()
    """Joints on one tendon: only the speed of their sum is asked of the robot."""


@dataclasses.dataclass(frozen=True, eq=False)
class ControllerState:
    """What is followed: points by the controller's clock; one point is a hold."""

    t: Float[np.ndarray, " k"]
    """Times of the points, seconds, rising."""
    q: Float[np.ndarray, "k j"]
    """Positions, radians."""
    qd: Float[np.ndarray, "k j"]
    """Velocities, radians per second."""
    has_goal: bool = False
    """Whether a trajectory is followed whose end is still to be judged."""


def init(q: Float[np.ndarray, " j"], now_s: float = 0.0) -> ControllerState:
    """Holds joints where they are (rad)."""
    q = np.asarray(q, np.float64)[None]
    return ControllerState(t=np.array([now_s]), q=q, qd=np.zeros_like(q))


def wanted(
    state: ControllerState, now_s: float
) -> tuple[Float[np.ndarray, " j"], Float[np.ndarray, " j"]]:
    """Where joints should be (rad) and how fast (rad/s); at rest before and after the points."""
    t = state.t
    if now_s >= t[-1] or len(t) == 1:
        return state.q[-1].copy(), np.zeros_like(state.q[-1])
    if now_s <= t[0]:
        return state.q[0].copy(), state.qd[0].copy()
    i = int(np.searchsorted(t, now_s, side="right")) - 1
    return cubic(t[i : i + 2], state.q[i : i + 2], state.qd[i : i + 2], now_s)


def cubic(
    t: Float[np.ndarray, " 2"], q: Float[np.ndarray, "2 j"], qd: Float[np.ndarray, "2 j"], at: float
) -> tuple[Float[np.ndarray, " j"], Float[np.ndarray, " j"]]:
    """Position and velocity of the cubic between two points, at a time between them."""
    h = t[1] - t[0]
    u = (at - t[0]) / h
    m0, m1, rise = h * qd[0], h * qd[1], q[1] - q[0]
    b, c = 3.0 * rise - 2.0 * m0 - m1, m0 + m1 - 2.0 * rise
    return q[0] + u * (m0 + u * (b + u * c)), (m0 + u * (2.0 * b + 3.0 * u * c)) / h


def accept(
    config: ControllerConfig,
    state: ControllerState,
    trajectory: Trajectory,
    start_s: float,
    now_s: float,
) -> tuple[ControllerState, str]:
    """Replaces what is followed, from the wanted state on: position and velocity never jump.

    Args:
        config: Names and tolerances.
        state: The state.
        trajectory: Joints in any order. A first point at 0 says where it begins; one later is
            gone to from wherever the joints are.
        start_s: When the trajectory's time is 0; points before now are passed over.
        now_s: The time.

    Returns:
        The new state, or the old one with the reason of the refusal.
    """
    reason = refusal(config, trajectory)
    if reason:
        return state, reason
    order = [trajectory.names.index(name) for name in config.names]
    t = np.asarray(trajectory.t, np.float64) + start_s
    q = np.asarray(trajectory.q, np.float64)[:, order]
    qd = np.asarray(trajectory.qd, np.float64)[:, order]
    if t[-1] <= now_s and len(t) > 1:
        return state, f"it ended {now_s - t[-1]:.3f} s ago"
    q_now, qd_now = wanted(state, now_s)
    if trajectory.t[0] == 0.0 and len(t) > 1:
        at = max(now_s, t[0])
        i = int(np.searchsorted(t, at, side="right")) - 1
        begins, _ = cubic(t[i : i + 2], q[i : i + 2], qd[i : i + 2], at)
        off = np.abs(begins - wanted(state, at)[0])
        if off.max() > config.start_rad:
            j = int(off.argmax())
            return state, (
                f"it begins with {config.names[j]} at {begins[j]:.4f} rad, the joint is at "
                f"{wanted(state, at)[0][j]:.4f}; at most {config.start_rad} apart"
            )
    later = t > now_s + _CLOSE
    if not later.any():  # nothing but an end, and for now: as soon as a brake allows
        t[-1], later[-1] = now_s + config.brake_s, True
    new = ControllerState(
        t=np.concatenate([[now_s], t[later]]),
        q=np.concatenate([q_now[None], q[later]]),
        qd=np.concatenate([qd_now[None], qd[later]]),
        has_goal=True,
    )
    too_fast = _too_fast(config, new)
    return (state, too_fast) if too_fast else (new, "")


def _too_fast(config: ControllerConfig, state: ControllerState) -> str:
    if not config.max_rate:
        return ""
    mean, at = np.diff(state.q, axis=0) / np.diff(state.t)[:, None], state.qd.copy()
    for rate in (mean, at):
        for i, j in config.pairs:
            rate[:, [i, j]] = 0.5 * rate[:, [i, j]].sum(1, keepdims=True)
    asked = np.maximum(np.abs(mean).max(0), np.abs(at).max(0))
    j = int((asked / config.max_rate).argmax())
    if asked[j] <= config.max_rate[j] * 1.001:
        return ""
    told = f"{asked[j]:.2f} rad/s of {config.names[j]}"
    return f"it asks for {told}, which is able to {config.max_rate[j]:.2f}"


def refusal(config: ControllerConfig, trajectory: Trajectory) -> str:
    """Why a trajectory cannot be followed, whatever the state; empty if it can."""
    names, k = trajectory.names, len(trajectory.t)
    if sorted(names) != sorted(config.names):
        missing = [n for n in config.names if n not in names]
        more = [n for n in names if n not in config.names or names.count(n) > 1]
        return f"joints missing: {missing or 'none'}; unknown or twice: {more or 'none'}"
    if k == 0:
        return "it has no points"
    for what in ("q", "qd"):
        value = np.asarray(getattr(trajectory, what))
        if value.shape != (k, len(names)):
            return f"{what} has shape {value.shape}; it must be {(k, len(names))}"
        if not np.isfinite(value).all():
            row, j = np.argwhere(~np.isfinite(value))[0]
            return f"{what} of {names[j]} at point {row} is {value[row, j]}"
    t = np.asarray(trajectory.t)
    if not np.isfinite(t).all() or t[0] < 0.0 or not (np.diff(t) > 0.0).all():
        return f"its times do not rise from 0: {t[:5].tolist()} ..."
    if np.any(np.asarray(trajectory.qd)[-1] != 0.0):
        return "it does not end at rest"
    return ""


def hold(config: ControllerConfig, state: ControllerState, now_s: float) -> ControllerState:
    """Drops the goal and comes to rest: each joint at a constant deceleration."""
    q, qd = wanted(state, now_s)
    if not qd.any():
        return init(q, now_s)
    brake_s = max(config.brake_s, float(np.abs(qd).max()) / config.deceleration)
    return ControllerState(
        t=np.array([now_s, now_s + brake_s]),
        q=np.stack([q, q + 0.5 * brake_s * qd]),
        qd=np.stack([qd, np.zeros_like(qd)]),
    )


def judge(
    config: ControllerConfig, state: ControllerState, now_s: float, q: Float[np.ndarray, " j"]
) -> tuple[ControllerState, str]:
    """Compares measured joints (rad) with the wanted ones while there is a goal.

    Returns:
        The state, which holds if a tolerance is broken; and what was: empty if none.
    """
    if not state.has_goal:
        return state, ""
    over = now_s - state.t[-1]
    tolerance = config.path_rad if over < config.goal_s else config.goal_rad
    off = np.abs(np.asarray(q) - wanted(state, now_s)[0])
    j = int(np.argmax(np.where(np.isfinite(off), off, np.inf)))
    # Not "greater": a NaN is beyond every tolerance.
    if not off[j] <= tolerance:
        what = "path" if over < config.goal_s else "goal"
        broken = f"{config.names[j]} is {off[j]:.3f} rad off, {what} tolerance {tolerance}"
        return _yield(config, state, now_s, np.asarray(q, np.float64)), broken
    if over >= config.goal_s:
        return dataclasses.replace(state, has_goal=False), ""
    return state, ""


def _yield(
    config: ControllerConfig, state: ControllerState, now_s: float, q: Float[np.ndarray, " j"]
) -> ControllerState:
    """Goes to where the joints are: what keeps them from where they should be is not pressed on."""
    if not np.isfinite(q).all():
        return hold(config, state, now_s)
    q_now, qd_now = wanted(state, now_s)
    return ControllerState(
        t=np.array([now_s, now_s + 2.0 * config.brake_s]),
        q=np.stack([q_now, q]),
        qd=np.stack([qd_now, np.zeros_like(q)]),
    )
