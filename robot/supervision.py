"""Supervision of a robot whose set points are made while it moves: when it stops, and if it did.

What the executor is to a plan this is to teleoperation, by the same rules and times:

    idle -> going -> stopping -> idle (after a cancel) or fault;  fault -> idle only by reset

Pure. Nothing leads from `stopping` or `fault` back to `going`: whoever drives on asks `engage`
anew. The stop, its repetition, its confirmation and the reset are the executor's own.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from robot import curve, executor, limits, watch
from robot.executor import Command, ExecutorConfig, Inputs, Phase, State, Stop
from robot.interface import Trajectory
from robot.watch import Seen

_KEPT_S = 1.0
"""Seconds of set points that are remembered."""
_LOOKS = 11


@dataclass(frozen=True)
class SupervisionConfig:
    """When it stops."""

    executor: ExecutorConfig = dataclasses.field(default_factory=ExecutorConfig)
    """The executor's rules: stale, frozen and impossible states, errors, times of a stop."""
    slack_s: float = 0.1
    """Seconds by which joints may follow their set points late: a message's way, the drive, and
    the way back of what is measured."""


@dataclass(frozen=True, eq=False)
class Supervised:
    """All that is remembered."""

    stop: State = dataclasses.field(default_factory=State)
    """The executor's: phase, reason, what is known of the joints."""
    going: bool = False
    """Whether set points may be sent."""
    course: Trajectory | None = None
    """Where joints were told to be, by this machine's clock, with the brake behind the last."""
    looked_s: float = -np.inf
    """When the last step was."""
    owing: tuple[bool, ...] = (False, False)
    """Whether arm and hand must tell something new after the request to stop, before joints that
    stand show it: they had not changed though they should have, or were to move on."""

    @property
    def ended(self) -> bool:
        """Whether nothing is left to be done: it was never going, or its stop is over."""
        over = self.stop.phase is Phase.IDLE or (
            self.stop.phase is Phase.FAULT and self.stop.confirmed
        )
        return over and not self.going


def engage(
    before: Supervised, inputs: Inputs, config: SupervisionConfig = SupervisionConfig()
) -> tuple[Supervised, str]:
    """Lets set points be sent, if all is well and the robot stands.

    Returns:
        The new state, and why not; empty where they may.
    """
    rules = config.executor
    if before.going or before.stop.phase is not Phase.IDLE:
        return before, f"{'going' if before.going else before.stop.phase}: it must be reset first"
    seen, trouble = watch.look(before.stop.seen, inputs.joint, inputs.now_s, rules.watch)
    stop = dataclasses.replace(before.stop, seen=seen)
    wrong = "; ".join(inputs.faults) or inputs.cancel or trouble or _stale(seen, inputs, rules)
    if not wrong and seen is not None and np.abs(seen.qd).max() > 5.0 * rules.still_rate:
        j = int(np.abs(seen.qd).argmax())
        wrong = f"the robot moves: {limits.NAMES[j]} at {seen.qd[j]:.3f} rad/s"
    if wrong:
        return dataclasses.replace(before, stop=stop), wrong
    return Supervised(stop, going=True, looked_s=inputs.now_s), ""


def step(
    before: Supervised, inputs: Inputs, config: SupervisionConfig = SupervisionConfig()
) -> tuple[Supervised, tuple[Command, ...]]:
    """One step, 100 a second, whether or not a set point follows.

    Args:
        before: What is remembered.
        inputs: What is known now; `start` has no meaning here.
        config: When it stops.

    Returns:
        The new state, and stops for the robot.
    """
    rules, now = config.executor, inputs.now_s
    if not before.going:
        stop = before.stop
        if stop.seen is None or (stop.seen.changed_s <= stop.asked_s)[list(before.owing)].any():
            stop = dataclasses.replace(stop, still_s=np.inf, still_q=None)
        stop, commands = executor.step(stop, inputs, rules)
        return dataclasses.replace(before, stop=stop, looked_s=now), commands
    seen, trouble = watch.look(before.stop.seen, inputs.joint, now, rules.watch)
    wrong = "; ".join(inputs.faults) or trouble or _stale(seen, inputs, rules)
    if not wrong and now - before.looked_s > rules.late_s:
        wrong = f"this program was late: {1000 * (now - before.looked_s):.0f} ms between two steps"
    if not wrong and seen is not None:
        wrong = _frozen(seen, before.course, config) or _astray(seen, before.course, config)
    if not (wrong or inputs.cancel):
        stop = dataclasses.replace(before.stop, seen=seen, stepped_s=now)
        return dataclasses.replace(before, stop=stop, looked_s=now), ()
    reason = wrong or f"cancelled by {inputs.cancel}"
    stop = State(
        Phase.STOPPING,
        reason,
        seen=seen,
        stepped_s=now,
        asked_s=now,
        repeated_s=now,
        cancelled=not wrong,
        confirmed=False,
    )
    owing = _owing(seen, before.course, now, rules)
    return Supervised(stop, course=before.course, looked_s=now, owing=owing), (Stop(reason),)


def sent(before: Supervised, now_s: float, trajectory: Trajectory) -> Supervised:
    """Takes down what was sent at a time: a set point and the brake behind it.

    The brake of the command before is void from now on, its set point is still on the way.
    """
    course, t = before.course, now_s + np.asarray(trajectory.t, np.float64)
    if course is None:
        start = trajectory.q[:1] if before.stop.seen is None else before.stop.seen.q[None]
        course = Trajectory(limits.NAMES, np.array([now_s]), start, np.zeros_like(start))
        parts = [(course.t, course.q, course.qd)]
    else:
        here = np.array([now_s])
        behind = course.t <= now_s
        set_point = np.arange(len(course.t)) < len(course.t) - 1
        rows = (behind | set_point) & (course.t < t[0]) & (course.t > now_s - _KEPT_S)
        rows |= np.arange(len(rows)) == np.flatnonzero(behind)[-1]
        parts = [(course.t[rows], course.q[rows], course.qd[rows])]
        if now_s > parts[0][0][-1]:
            parts.append((here, *curve.sample(course, here)))
    parts.append((t, np.asarray(trajectory.q, np.float64), np.asarray(trajectory.qd, np.float64)))
    whole = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return dataclasses.replace(before, course=Trajectory(limits.NAMES, *whole))


def _stale(seen: Seen | None, inputs: Inputs, rules: ExecutorConfig) -> str:
    if seen is None:
        return "no joint state yet"
    age = inputs.now_s - seen.came_s
    if not age <= rules.stale_s + 1e-9:
        return f"joint states stale: the last is {1000 * age:.0f} ms old"
    return ""


def _wanted(course: Trajectory, begin_s: float, end_s: float) -> Float[np.ndarray, "n 30"]:
    """Set points (rad) between two times."""
    begin_s = max(begin_s, float(course.t[0]))
    return curve.sample(course, np.linspace(begin_s, max(begin_s, end_s), _LOOKS))[0]


def _frozen(seen: Seen, course: Trajectory | None, config: SupervisionConfig) -> str:
    """Whether states of a part go on coming that do not change though its set points do."""
    rules = config.executor
    for part, changed_s in zip(limits.PARTS, seen.changed_s.tolist(), strict=True):
        lasts = seen.came_s - changed_s
        if course is None or lasts < rules.frozen_s:
            continue
        wanted = _wanted(course, changed_s, seen.came_s - config.slack_s)[:, part]
        if np.ptp(wanted, axis=0).max() > rules.frozen_rad:
            names = f"{limits.NAMES[part.start]} ..."
            return f"joint states of {names} frozen for {1000 * lasts:.0f} ms"
    return ""


def _owing(
    seen: Seen | None, course: Trajectory | None, now_s: float, rules: ExecutorConfig
) -> tuple[bool, ...]:
    """Of each part whether it moves by its set points, before or after the request to stop."""
    if seen is None or course is None:
        return (False,) * len(limits.PARTS)
    ends = (float(course.t[-1]), now_s)
    ways = [_wanted(course, min(since, now_s), max(ends)) for since in seen.changed_s.tolist()]
    moved = [
        np.ptp(way[:, part], axis=0).max() for way, part in zip(ways, limits.PARTS, strict=True)
    ]
    return tuple(bool(way > rules.told_rad) for way in moved)


def _astray(seen: Seen, course: Trajectory | None, config: SupervisionConfig) -> str:
    """What is too far from all of its set points of late; empty where nothing is."""
    if course is None:
        return ""
    wanted = _wanted(course, seen.came_s - config.slack_s, seen.came_s) @ limits.DRIVEN.T
    measured = limits.DRIVEN @ seen.q
    error = np.maximum(wanted.min(0) - measured, measured - wanted.max(0))
    rules = config.executor
    of_arm = np.arange(len(error)) < limits.ARM.stop
    allowed = np.where(of_arm, rules.arm_error_rad, rules.grasp_error_rad)
    j = int((error - allowed).argmax())
    if error[j] <= allowed[j]:
        return ""
    name = limits.DRIVEN_NAMES[j]
    return f"{name} is {error[j]:.3f} rad off its set points, allowed {allowed[j]:g}"
