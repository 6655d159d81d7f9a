"""The gate between a plan and a robot: what any trajectory must be before its first command.

Every refusal names the joint, the time, the value and the limit. Nothing is mended here. A gate on
a PC is not a safety function: the robot's own limits and its emergency stop are.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from realdex_jax.hand.load import HandModel
from robot import clearance, curve, limits
from robot.curve import Extremes
from robot.interface import JointState, RobotError, Trajectory


@dataclass(frozen=True)
class GateConfig:
    """What is allowed beside the limits of `limits.py`."""

    guarded: bool = False
    """No part may move faster than 250 mm/s."""
    max_age_s: float = 0.05
    """Seconds since the robot's state came: at 100 Hz five states are lost by then."""
    min_step_s: float = 1e-3
    """Least seconds between two points."""
    max_step_s: float = 0.25
    """Most seconds between two points: a cubic over longer is not what its points look like."""
    max_duration_s: float = limits.MAX_DURATION_S
    """Most seconds of a trajectory."""
    clear_m: float = 0.0
    """Least metres between the arm's links, and from the arm to table and pedestal."""
    hand_table_m: float = -0.001
    """Least metres between hand and table: fingers may touch it."""
    hand_self_m: float = -0.006
    """Depth, negated, that the hand's primitives may be in one another: targets of a squeeze press
    fingers together that in truth stop at each other."""


@dataclass(frozen=True)
class Refusal:
    """One reason why a trajectory must not be sent."""

    rule: str
    """What is broken, in a word or two."""
    joint: str
    """Name of the joint, or of the part, or "-"."""
    t: float
    """When in the trajectory, seconds; NaN where time has no part in it."""
    value: float | str
    """What was found."""
    limit: float | str
    """What is allowed."""

    def __str__(self) -> str:
        """One line with all of it."""
        when = "" if np.isnan(self.t) else f" at {self.t:.3f} s"
        value, limit = (
            f"{x:.6g}" if isinstance(x, float) else str(x) for x in (self.value, self.limit)
        )
        return f"{self.rule}: {self.joint}{when} is {value}, allowed {limit}"


def check(
    hand: HandModel,
    trajectory: Trajectory,
    state: JointState | None,
    now_s: float,
    config: GateConfig = GateConfig(),
) -> tuple[Refusal, ...]:
    """All reasons against a trajectory, at most one of each rule; none where it may be sent.

    What makes others meaningless (shapes, names, numbers, times) is told alone.

    Args:
        hand: The hand.
        trajectory: What would be sent.
        state: The robot's present state.
        now_s: The time, by the clock of `JointState.received_s`.
        config: What is allowed.
    """
    for rule in (_shapes, _names, _finite, functools.partial(_times, config=config)):
        broken = tuple(rule(trajectory))
        if broken:
            return broken
    found = [*_course(trajectory), *_start(trajectory, state, now_s, config)]
    found += _space(hand, trajectory, config)
    return tuple(found)


def ensure(
    hand: HandModel,
    trajectory: Trajectory,
    state: JointState | None,
    now_s: float,
    config: GateConfig = GateConfig(),
) -> None:
    """As `check`.

    Raises:
        RobotError: Naming every refusal.
    """
    found = check(hand, trajectory, state, now_s, config)
    if found:
        raise RobotError("trajectory refused: " + "; ".join(map(str, found)))


def _shapes(trajectory: Trajectory) -> Iterator[Refusal]:
    k, j = len(trajectory.t), len(limits.NAMES)
    for name, want in (("t", (k,)), ("q", (k, j)), ("qd", (k, j))):
        value = np.asarray(getattr(trajectory, name))
        if value.shape != want or not np.issubdtype(value.dtype, np.floating):
            yield Refusal("shape", name, np.nan, f"{value.dtype}{value.shape}", f"float{want}")
    if k < 2:
        yield Refusal("points", "t", np.nan, k, "2 or more")


def _names(trajectory: Trajectory) -> Iterator[Refusal]:
    names = tuple(trajectory.names)
    if names == limits.NAMES:
        return
    for i, wanted in enumerate(limits.NAMES):
        have = names[i] if i < len(names) else "missing"
        if have != wanted:
            yield Refusal("names", f"joint {i}", np.nan, have, wanted)
            return
    yield Refusal("names", f"joint {len(limits.NAMES)}", np.nan, names[len(limits.NAMES)], "none")


def _finite(trajectory: Trajectory) -> Iterator[Refusal]:
    bad = np.flatnonzero(~np.isfinite(trajectory.t))
    if len(bad):
        yield Refusal("finite", "t", np.nan, float(trajectory.t[bad[0]]), "finite")
        return
    for name in ("q", "qd"):
        value = np.asarray(getattr(trajectory, name))
        rows, columns = np.nonzero(~np.isfinite(value))
        if len(rows):
            k, j = rows[0], columns[0]
            yield _at("finite", j, float(trajectory.t[k]), float(value[k, j]), "finite")


def _times(trajectory: Trajectory, config: GateConfig) -> Iterator[Refusal]:
    t = np.asarray(trajectory.t, np.float64)
    if t[0] != 0.0:
        yield Refusal("first time", "t", 0.0, float(t[0]), 0.0)
    step = np.diff(t)
    if step.min() < config.min_step_s:
        k = int(step.argmin())
        least = f"{config.min_step_s:g} or more after the one before"
        yield Refusal("time step", "t", float(t[k + 1]), float(step[k]), least)
    elif step.max() > config.max_step_s:
        k = int(step.argmax())
        yield Refusal("time step", "t", float(t[k + 1]), float(step[k]), config.max_step_s)
    if t[-1] > config.max_duration_s:
        yield Refusal("duration", "t", float(t[-1]), float(t[-1]), config.max_duration_s)


def _course(trajectory: Trajectory) -> Iterator[Refusal]:
    """Limits, rates, accelerations, jerks, between the points too; rest at both ends."""
    t = np.asarray(trajectory.t, np.float64)
    for rule, over, value, limit in _broken(curve.extremes(trajectory), 0.0):
        k, j = np.unravel_index(int(over.argmax()), over.shape)
        yield _at(rule, int(j), float(t[k]), float(value[k, j]), float(limit[j]))
    for k, when in ((0, "start at rest"), (-1, "end at rest")):
        j = int(np.abs(trajectory.qd[k]).argmax())
        if abs(trajectory.qd[k, j]) > 1e-6:
            yield _at(when, j, float(t[k]), float(trajectory.qd[k, j]), 0.0)


def _broken(
    found: Extremes, rough_rad: float
) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Of each limit that is passed: its name, by how much, what was found, and the limit."""
    for rule, over, value, limit in (
        ("lower limit", limits.LOWER - rough_rad - found.low, found.low, limits.LOWER),
        ("upper limit", found.high - limits.UPPER - rough_rad, found.high, limits.UPPER),
        ("rate", found.rate - limits.MAX_RATE, found.rate, limits.MAX_RATE),
        (
            "acceleration",
            found.acceleration - limits.MAX_ACCELERATION,
            found.acceleration,
            limits.MAX_ACCELERATION,
        ),
        ("jerk", found.jerk - limits.MAX_JERK, found.jerk, limits.MAX_JERK),
    ):
        if over.max() > _SLACK:
            yield rule, over, value, limit


def _start(
    trajectory: Trajectory, state: JointState | None, now_s: float, config: GateConfig
) -> Iterator[Refusal]:
    if state is None:
        yield Refusal("state", "robot", np.nan, "no state yet", "a fresh state")
        return
    age = now_s - state.received_s
    if not 0.0 <= age <= config.max_age_s:
        yield Refusal("state age", "robot", np.nan, float(age), config.max_age_s)
    if len(state.names) != len(state.q) or sorted(state.names) != sorted(limits.NAMES):
        odd = sorted({n for n in state.names if state.names.count(n) > 1 or n not in limits.NAMES})
        lack = [n for n in limits.NAMES if n not in state.names]
        told = f"lacks {lack or 'none'}, unknown or twice {odd or 'none'}"
        yield Refusal("state names", "robot", np.nan, told, "each joint once")
        return
    q = np.asarray(state.q, np.float64)[[state.names.index(n) for n in limits.NAMES]]
    off = np.abs(trajectory.q[0] - q)
    j = int(np.nan_to_num(off, nan=np.inf).argmax())
    if not off[j] <= limits.START_TOLERANCE:
        yield _at("start", j, 0.0, float(trajectory.q[0, j] - q[j]), limits.START_TOLERANCE)


def _space(hand: HandModel, trajectory: Trajectory, config: GateConfig) -> Iterator[Refusal]:
    """Collisions wherever the robot has moved on by some millimetres; speeds of all parts."""
    t = np.asarray(trajectory.t, np.float64)
    fine = np.union1d(t, np.arange(0.0, t[-1], _FINE_S))
    q, qd = curve.sample(trajectory, fine)
    looks = _looks(fine, q)
    if len(looks) > _MOST_LOOKS:
        yield Refusal("looks for collisions", "robot", np.nan, len(looks), _MOST_LOOKS)
        return
    q_looks, _ = curve.sample(trajectory, looks)
    found = clearance.clearance(hand, q_looks)
    for name, least in (
        ("arm_self", config.clear_m),
        ("arm_table", config.clear_m),
        ("hand_table", config.hand_table_m),
        ("hand_self", config.hand_self_m),
        ("hand_arm", config.clear_m),
    ):
        value = np.asarray(getattr(found, name))
        k = int(value.argmin())
        if not value[k] >= least:
            part = name.replace("_", " to ")
            yield Refusal("collision", part, float(looks[k]), float(value[k]), least)
    if config.guarded:
        speed = clearance.speeds(hand, q, qd)
        k = int(speed.argmax())
        if not speed[k] <= limits.GUARDED_SPEED:
            fast = float(speed[k])
            yield Refusal("guarded speed", "robot", float(fine[k]), fast, limits.GUARDED_SPEED)


def _looks(fine: Float[np.ndarray, " m"], q: Float[np.ndarray, "m 30"]) -> Float[np.ndarray, " n"]:
    """Times between which no joint turns far: none while it rests, many where it is fast."""
    turned = np.abs(np.diff(q, axis=0))
    of_arm = turned[:, limits.ARM].sum(1) / _ARM_TURN
    of_hand = turned[:, limits.WRIST.start :].max(1) / _HAND_TURN
    way = np.concatenate([[0.0], np.cumsum(np.maximum(of_arm, of_hand))])
    count = int(np.ceil(way[-1]))
    return np.append(np.interp(np.linspace(0.0, way[-1], count + 1), way, fine), fine[-1])


def windows(trajectory: Trajectory, ahead_s: float, brake_s: float) -> tuple[Refusal, ...]:
    """Reasons against what would be sent of a trajectory that passes `check`, at any time of it.

    A command is a part of the trajectory with a brake behind it (`curve.window`), which needs more
    of the limits than the trajectory itself. One of each rule is told, the worst.

    Args:
        trajectory: The whole.
        ahead_s: Seconds of it in each command.
        brake_s: Seconds of the brake.
    """
    worst: dict[str, tuple[float, Refusal]] = {}
    for at in np.arange(0.0, float(trajectory.t[-1]), _FINE_S):
        window = curve.window(trajectory, float(at), ahead_s, brake_s)
        found = curve.extremes(window, from_rest=False)
        for rule, over, value, limit in _broken(found, _ROUGH_RAD):
            k, j = np.unravel_index(int(over.argmax()), over.shape)
            if over[k, j] > worst.get(rule, (_SLACK, None))[0]:
                when = float(at + window.t[k])
                told = _at(f"command's {rule}", int(j), when, float(value[k, j]), float(limit[j]))
                worst[rule] = float(over[k, j]), told
    return tuple(told for _, told in worst.values())


_FINE_S = 0.01
"""Seconds in which a cubic within the limits is as good as straight: speeds of parts within a
thousandth of a metre per second."""
_ARM_TURN, _HAND_TURN = 0.015, 0.1
"""Radians, summed over the arm's joints and of any of the hand's, between two looks: a centimetre
and a half of the fingertips at most."""
_MOST_LOOKS = 8192
_SLACK, _ROUGH_RAD = 1e-6, 1e-4
"""What rounding may pass a limit by; radians that cubics through other points may leave a path."""


def _at(rule: str, joint: int, t: float, value: float, limit: float | str) -> Refusal:
    return Refusal(rule, limits.NAMES[joint], t, value, limit)
