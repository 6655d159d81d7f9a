"""The executor: a pure state machine that drives a checked plan, and stops at the first doubt.

    idle -> approaching -> grasping -> lifting -> holding
    any of the last four -> stopping -> idle (after a cancel) or fault

It never sends a trajectory whole. Ten times a second it sends what lies just ahead and a stop on
the path behind it, so a client that dies or a link that is cut means a robot that brakes by itself.
Nothing is sent without a fresh joint state. A stop is believed only when joint states show it. All
of this is software on a PC and no safety function: the robot's own limits and its emergency stop
are.
"""

import dataclasses
import enum
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from robot import curve, limits, watch
from robot.interface import JointState, Trajectory
from robot.plan import Plan
from robot.preflight import Verdict
from robot.watch import Seen, WatchConfig


class Phase(enum.StrEnum):
    """What the executor does."""

    IDLE = "idle"
    APPROACHING = "approaching"
    GRASPING = "grasping"
    LIFTING = "lifting"
    HOLDING = "holding"
    STOPPING = "stopping"
    FAULT = "fault"


MOVING = (Phase.APPROACHING, Phase.GRASPING, Phase.LIFTING, Phase.HOLDING)
"""Phases in which commands go out; their names are those of `plan.STAGES`."""
NOT_CONFIRMED = "STOP NOT CONFIRMED, press the emergency stop"
"""What a run says where joint states do not show that the robot stands."""


@dataclass(frozen=True)
class ExecutorConfig:
    """When it sends, and when it stops."""

    watch: WatchConfig = dataclasses.field(default_factory=WatchConfig)
    """What a joint state must be to be believed."""
    stale_s: float = 0.05
    """Most seconds since the last good joint state, which comes at 100 Hz."""
    resend_s: float = 0.1
    """Seconds between two commands."""
    ahead_s: float = curve.AHEAD_S
    """Seconds of the plan in each command ..."""
    brake_s: float = curve.BRAKE_S
    """... and of the stop behind it, should no other command come."""
    late_s: float = 0.15
    """Most seconds between two steps of this machine: beyond, the stop behind may have begun."""
    arm_error_rad: float = 0.05
    """Most that a joint of the arm may be off its set point ..."""
    send_error_rad: float = 0.02
    """... and the same when a command is sent, as the preflight has it: a controller that takes any
    start goes to where the command begins at once."""
    hand_error_rad: float = 0.35
    """The same for what the hand's motors drive, in the approach."""
    grasp_error_rad: float = 1.2
    """The same once fingers press on something."""
    frozen_s: float = 0.025
    """States of a part that go on coming with the same values for so long ..."""
    frozen_rad: float = 0.01
    """... while set points move by this much are no states."""
    max_age_s: float = 2.0
    """Most seconds from the verdict to the start: the world may have changed since."""
    still_rate: float = 0.01
    """rad/s below which a joint stands ..."""
    still_s: float = 0.2
    """... if it does for so long, and moved no further than the rate allows ..."""
    still_rad: float = 0.004
    """... give or take this."""
    told_rad: float = 0.002
    """Radians that the last command must move a joint further than twice what was measured, until a
    joint that stands counts as stopped: sensors are better than this."""
    stop_within_s: float = 0.5
    """Seconds in which a stop is confirmed, or reported as not confirmed."""
    repeat_s: float = 0.25
    """Seconds between two requests to stop, until it is confirmed: one that came while joints still
    brake, as told by the first, would only make it longer."""


@dataclass(frozen=True, eq=False)
class Order:
    """What to drive, and the leave to do so."""

    plan: Plan
    verdict: Verdict


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the machine is told at one step."""

    now_s: float
    """The time, by this machine's monotonic clock, seconds."""
    joint: JointState | None
    """The last joint state."""
    faults: tuple[str, ...] = ()
    """What controllers or the client report."""
    start: Order | None = None
    """Asks to drive a plan."""
    cancel: str = ""
    """Asks to stop, and says who."""
    reset: bool = False
    """Asks to leave `FAULT`."""


@dataclass(frozen=True, eq=False)
class Send:
    """A command: what controllers should follow from now on."""

    trajectory: Trajectory


@dataclass(frozen=True)
class Stop:
    """A command: hold."""

    reason: str


Command = Send | Stop


@dataclass(frozen=True, eq=False)
class State:
    """All that the machine remembers."""

    phase: Phase = Phase.IDLE
    reason: str = ""
    """Why it is in this phase: of `IDLE`, `STOPPING` and `FAULT`."""
    refusal: str = ""
    """Why the last request was refused; empty where it was not."""
    seen: Seen | None = None
    order: Order | None = None
    """What is driven, or was last."""
    started_s: float = 0.0
    sent_s: float = 0.0
    """When the last command to move was sent."""
    stepped_s: float = -np.inf
    cancelled: bool = False
    """Whether the stop was asked for, and nothing else went wrong."""
    asked_s: float = 0.0
    """When the stop was first asked for."""
    repeated_s: float = 0.0
    """When it was last asked for."""
    still_s: float = np.inf
    """Since when the joints stand."""
    still_q: Float[np.ndarray, " 30"] | None = None
    """Where they stood then."""
    confirmed: bool = True
    """Whether joint states have shown that the robot stands, where it was asked to stop."""
    done: bool = False
    """Whether the plan has been driven to its end."""


def step(
    state: State, inputs: Inputs, config: ExecutorConfig = ExecutorConfig()
) -> tuple[State, tuple[Command, ...]]:
    """One step of the machine, 100 a second.

    Args:
        state: `State()` at first, then what the last step returned.
        inputs: What is known now.
        config: When it sends and stops.

    Returns:
        The next state, and commands for the robot in this order.
    """
    seen, trouble = watch.look(state.seen, inputs.joint, inputs.now_s, config.watch)
    gap = inputs.now_s - state.stepped_s
    state = dataclasses.replace(state, seen=seen, refusal="", stepped_s=inputs.now_s)
    if state.phase in MOVING:
        return _move(state, inputs, trouble, gap, config)
    if state.phase is Phase.IDLE:
        return _idle(state, inputs, trouble, config)
    return _stand(state, inputs, trouble, config)


_CUBIC = 0.002
"""Share by which the cubics between points may be faster than the motion they follow."""


def _fresh(state: State, now_s: float, config: ExecutorConfig) -> str:
    """Empty where the joints are known now; else what is wrong."""
    if state.seen is None:
        return "no joint state yet"
    age = now_s - state.seen.came_s
    if not age <= config.stale_s + 1e-9:
        return f"joint states stale: the last is {1000 * age:.0f} ms old"
    return ""


def _idle(
    state: State, inputs: Inputs, trouble: str, config: ExecutorConfig
) -> tuple[State, tuple[Command, ...]]:
    order = inputs.start
    if order is None:
        return state, ()
    refused = _refused(state, order, inputs, trouble, config)
    if refused:
        return dataclasses.replace(state, refusal=refused, reason=f"refused: {refused}"), ()
    now = inputs.now_s
    started = dataclasses.replace(
        state,
        phase=Phase.APPROACHING,
        reason="",
        order=order,
        started_s=now,
        sent_s=now,
        done=False,
        confirmed=False,
        cancelled=False,
    )
    window = curve.window(order.plan.trajectory, 0.0, config.ahead_s, config.brake_s)
    return started, (Send(window),)


def _refused(
    state: State, order: Order, inputs: Inputs, trouble: str, config: ExecutorConfig
) -> str:
    """Why an order must not be started; empty where it may."""
    plan, verdict = order.plan, order.verdict
    if not verdict.passed:
        return "the preflight did not pass: " + "; ".join(verdict.faults)
    if verdict.digest != curve.digest(plan.trajectory):
        return "the preflight's verdict is about another trajectory"
    fast = curve.extremes(plan.trajectory).rate.max(0) / limits.STOP_RATE
    j = int(fast.argmax())
    if fast[j] > 1.0 + _CUBIC:
        return (
            f"the plan drives {limits.NAMES[j]} at {fast[j] * limits.STOP_RATE[j]:.3f} rad/s, a "
            f"stop is at rest in time from {limits.STOP_RATE[j]:.3f}"
        )
    age = inputs.now_s - verdict.made_s
    if not 0.0 <= age <= config.max_age_s:
        return f"the verdict is {age:.1f} s old, allowed {config.max_age_s:.1f}"
    wrong = "; ".join(inputs.faults) or inputs.cancel or trouble
    wrong = wrong or _fresh(state, inputs.now_s, config)
    if wrong or state.seen is None:
        return wrong
    off = np.abs(state.seen.q - plan.trajectory.q[0])
    j = int(off.argmax())
    if off[j] > limits.START_TOLERANCE:
        return (
            f"{limits.NAMES[j]} is at {state.seen.q[j]:.4f} rad, the plan starts at "
            f"{plan.trajectory.q[0, j]:.4f}; allowed {limits.START_TOLERANCE} off"
        )
    j = int(np.abs(state.seen.qd).argmax())
    if abs(state.seen.qd[j]) > 5.0 * config.still_rate:
        return f"the robot moves: {limits.NAMES[j]} at {state.seen.qd[j]:.3f} rad/s"
    return ""


def _move(
    state: State, inputs: Inputs, trouble: str, gap: float, config: ExecutorConfig
) -> tuple[State, tuple[Command, ...]]:
    now, order = inputs.now_s, state.order
    assert order is not None
    if inputs.start is not None:
        state = dataclasses.replace(state, refusal="already driving a plan")
    elif inputs.reset:
        state = dataclasses.replace(state, refusal="nothing to reset")
    sends = now - state.sent_s >= config.resend_s - 1e-6
    wrong = "; ".join(inputs.faults) or trouble or _fresh(state, now, config)
    wrong = wrong or _frozen(state, config) or _astray(state, sends, config)
    if not wrong and not -1e-9 <= gap <= config.late_s:
        wrong = f"this program was late: {1000 * gap:.0f} ms between two steps"
    if wrong or inputs.cancel:
        reason = wrong or f"cancelled by {inputs.cancel}"
        stopping = dataclasses.replace(
            state,
            phase=Phase.STOPPING,
            reason=reason,
            cancelled=not wrong,
            asked_s=now,
            repeated_s=now,
            still_s=np.inf,
            confirmed=False,
        )
        return stopping, (Stop(reason),)
    t = now - state.started_s
    phase = Phase(order.plan.stage(t))
    end = float(order.plan.trajectory.t[-1])
    state = dataclasses.replace(state, phase=phase, done=t >= end)
    if t >= end or not sends:
        return state, ()
    window = curve.window(order.plan.trajectory, t, config.ahead_s, config.brake_s)
    return dataclasses.replace(state, sent_s=now), (Send(window),)


def _astray(state: State, sends: bool, config: ExecutorConfig) -> str:
    """What is too far from its set point, more so before a command; empty where nothing is."""
    assert state.order is not None
    assert state.seen is not None
    at = np.array([state.seen.came_s - state.started_s])
    q, _ = curve.sample(state.order.plan.trajectory, at)
    error = np.abs(limits.DRIVEN @ (state.seen.q - q[0]))
    near = config.hand_error_rad if state.phase is Phase.APPROACHING else config.grasp_error_rad
    of_arm = min(config.arm_error_rad, config.send_error_rad) if sends else config.arm_error_rad
    allowed = np.where(np.arange(len(error)) < limits.ARM.stop, of_arm, near)
    over = error - allowed
    j = int(over.argmax())
    if over[j] <= 0.0:
        return ""
    return (
        f"{limits.DRIVEN_NAMES[j]} is {error[j]:.3f} rad off its set point, allowed {allowed[j]:g}"
    )


def _frozen(state: State, config: ExecutorConfig) -> str:
    """Whether states of a part go on coming that do not change though its set points do."""
    assert state.order is not None
    if state.seen is None:
        return ""
    for part, changed_s in zip(limits.PARTS, state.seen.changed_s.tolist(), strict=True):
        lasts = state.seen.came_s - changed_s
        if lasts < config.frozen_s:
            continue
        times = np.array([changed_s, state.seen.came_s]) - state.started_s
        q, _ = curve.sample(state.order.plan.trajectory, times)
        if np.abs(q[1] - q[0])[part].max() > config.frozen_rad:
            names = f"{limits.NAMES[part.start]} ..."
            return f"joint states of {names} frozen for {1000 * lasts:.0f} ms"
    return ""


def _stand(
    state: State, inputs: Inputs, trouble: str, config: ExecutorConfig
) -> tuple[State, tuple[Command, ...]]:
    """Stopping, or stopped by a fault."""
    now = inputs.now_s
    if inputs.start is not None:
        state = dataclasses.replace(state, refusal=f"{state.phase}: reset first; {state.reason}")
    state = _watch(state, now, trouble, config)
    stands = now - state.still_s >= config.still_s - 1e-9 and _shows(state, now, config)
    took = now - state.asked_s
    if state.phase is Phase.STOPPING:
        if inputs.faults and state.cancelled:
            more = f"{state.reason}; {'; '.join(inputs.faults)}"
            state = dataclasses.replace(state, cancelled=False, reason=more)
        if stands and took <= config.stop_within_s + 1e-9:
            phase = Phase.IDLE if state.cancelled else Phase.FAULT
            reason = f"{state.reason}; stop confirmed after {took:.2f} s"
            return dataclasses.replace(state, phase=phase, reason=reason, confirmed=True), ()
        if took > config.stop_within_s:
            reason = f"{NOT_CONFIRMED}: {state.reason}"
            state = dataclasses.replace(state, phase=Phase.FAULT, reason=reason)
    elif stands and not state.confirmed:
        reason = f"{state.reason}; it stands after {took:.2f} s"
        state = dataclasses.replace(state, confirmed=True, reason=reason)
    elif inputs.reset:
        wrong = "; ".join(inputs.faults) or trouble or _fresh(state, now, config)
        wrong = wrong or ("" if stands else "the robot does not stand")
        if not wrong:
            return dataclasses.replace(state, phase=Phase.IDLE, reason="reset"), ()
        state = dataclasses.replace(state, refusal=f"reset refused: {wrong}")
    if not state.confirmed and now - state.repeated_s >= config.repeat_s - 1e-6:
        return dataclasses.replace(state, repeated_s=now), (Stop(state.reason),)
    return state, ()


def _shows(state: State, now_s: float, config: ExecutorConfig) -> bool:
    """Whether standing shows a stop: a robot that still follows its last command would have moved.

    At the slow beginning of a motion a robot that never heard of the stop stands, too. And a part
    that by its last command should have moved since the request must have told something new since
    then: values that only repeat themselves are no place at which it stands.
    """
    if state.order is None or state.seen is None or state.still_q is None:
        return state.order is None
    at = state.sent_s - state.started_s
    window = curve.window(state.order.plan.trajectory, at, config.ahead_s, config.brake_s)
    times = np.array([state.asked_s, state.still_s, now_s, np.inf]) - state.sent_s
    q, _ = curve.sample(window, np.clip(times, 0.0, window.t[-1]))
    told = np.abs(q[2] - q[0]) > config.told_rad
    for part, changed_s in zip(limits.PARTS, state.seen.changed_s.tolist(), strict=True):
        if told[part].any() and changed_s <= state.asked_s:
            return False
    expected, left = np.abs(q[2] - q[1]), np.abs(q[3] - q[1])
    moved = np.abs(state.seen.q - state.still_q)
    return bool(((left <= config.still_rad) | (expected > 2.0 * moved + config.told_rad)).all())


def _watch(state: State, now_s: float, trouble: str, config: ExecutorConfig) -> State:
    """Since when the joints stand, by speeds and by places; doubt starts the time anew."""
    seen = state.seen
    doubt = bool(trouble or _fresh(state, now_s, config))
    if seen is None or doubt or (np.abs(seen.qd) >= config.still_rate).any():
        return dataclasses.replace(state, still_s=np.inf, still_q=None)
    if state.still_q is None:
        return dataclasses.replace(state, still_s=now_s, still_q=seen.q)
    most = config.still_rate * min(now_s - state.still_s, config.still_s) + config.still_rad
    if (np.abs(seen.q - state.still_q) > most).any():
        return dataclasses.replace(state, still_s=now_s, still_q=seen.q)
    return state
