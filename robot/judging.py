"""Whether a run under a fault was safe: by what was sent, by where the joints were, by its end."""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from robot import curve, executor, limits
from robot.cases import Case
from robot.drive import Outcome
from robot.executor import ExecutorConfig, Phase
from robot.interface import Trajectory

REST_S = 0.1
"""Within which of the request a stop that is obeyed has all joints at rest."""
SHOWN_S = 0.5
"""Within which of the request joint states have shown a stop, or it is told loudly."""
_STEP_RAD = 0.01
"""Most that a command may begin from where the one before it is by then."""
_ROUGH_RAD = 1e-4
"""Radians that the cubics of a command may leave the plan's, whose points lie elsewhere."""
_EXACT = 1.1
"""Share of an acceleration or a jerk that may be seen: a simulated robot follows from the beginning
of its cycle on, up to 10 ms before it is told, and may brake by itself since it was measured."""
_STEPS_RAD = 0.025
"""Most that a controller that takes any start may be moved at once: the executor sends to none that
is further than 0.02 from its set points, and it moves on meanwhile."""
_TICK_S = 0.01
_STANDS = 0.01
"""rad/s below which a joint stands."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sent:
    """A command to move."""

    at_s: float
    """When."""
    trajectory: Trajectory
    age_s: float
    """Of the last joint state then."""


@dataclasses.dataclass(frozen=True, eq=False)
class Stopped:
    """A request to stop."""

    at_s: float
    """When."""
    parts: tuple[Trajectory, ...]
    """What was published, one for each controller."""


@dataclasses.dataclass(frozen=True, eq=False)
class Course:
    """The joints' true course."""

    t: Float[np.ndarray, " n"]
    """Seconds, by the clock of the run."""
    q: Float[np.ndarray, "n 30"]
    """Radians."""
    qd: Float[np.ndarray, "n 30"]
    """rad/s."""


@dataclasses.dataclass(frozen=True)
class Judged:
    """One run on trial."""

    fault: str
    seed: int
    phase: str
    """In which it ended; `killed` where the client was."""
    reason: str
    confirmed: bool
    """Whether the stop was, or it came to the plan's end."""
    unsafe: tuple[str, ...]
    """What was wrong; empty where nothing was."""
    struck_s: float
    """When it went wrong, after the first command."""
    asked_s: float | None
    """From then until a stop was first asked for; None where it was not, or before."""
    stood_s: float | None
    """From the request, or without one from the strike, until the joints stood in truth; None where
    that is not known."""
    confirmed_s: float | None
    """From the request until joint states had shown it."""
    arm_share: float
    """Greatest share of the arm's allowed speed that was sent."""


def at_rest_in_time(one: Judged) -> bool:
    """Whether a stop was asked for and all joints were at rest within `REST_S` of that."""
    return one.asked_s is not None and one.stood_s is not None and one.stood_s <= REST_S + 1e-9


def shown_in_time(one: Judged) -> bool:
    """Whether joint states had shown the stop within `SHOWN_S` of the request."""
    return one.confirmed_s is not None and one.confirmed_s <= SHOWN_S + 1e-9


def of_sent(sent: Sequence[Sent]) -> list[str]:
    """What is wrong with what was sent: states too old, limits, steps, no rest at the end."""
    wrong: list[str] = []
    fresh = ExecutorConfig().stale_s + _TICK_S + 1e-9
    before: Sent | None = None
    for one in sent:
        window, at = one.trajectory, f"command at {one.at_s - sent[0].at_s:.2f} s"
        if not one.age_s <= fresh:
            wrong.append(f"{at}: on a state {1000 * one.age_s:.0f} ms old")
        if window.names != limits.NAMES or not all(
            np.isfinite(x).all() for x in (window.t, window.q, window.qd)
        ):
            wrong.append(f"{at}: joint names or numbers")
            continue
        found = curve.extremes(window, from_rest=False)
        for what, over in (
            ("upper limit", found.high - limits.UPPER - _ROUGH_RAD),
            ("lower limit", limits.LOWER - found.low - _ROUGH_RAD),
            ("rate", found.rate - limits.MAX_RATE),
            ("acceleration", found.acceleration - limits.MAX_ACCELERATION),
            ("jerk", found.jerk - limits.MAX_JERK),
        ):
            if over.max() > 1e-6:
                wrong.append(f"{at}: {what} passed by {over.max():.3g}")
        if np.abs(window.qd[-1]).max() > 1e-9:
            wrong.append(f"{at}: does not end at rest")
        if before is not None:
            was, _ = curve.sample(before.trajectory, np.array([one.at_s - before.at_s]))
            step = np.abs(was[0] - window.q[0]).max()
            if step > _STEP_RAD:
                wrong.append(f"{at}: begins {step:.3f} rad from the one before")
        before = one
    return wrong


def of_stops(stops: Sequence[Stopped], course: Course, *, follows: bool = True) -> list[str]:
    """What is wrong with stops as they were published.

    Args:
        stops: What was published.
        course: The joints' true course.
        follows: Whether the robot follows them from there: then rates, accelerations and jerks are
            judged, too, as if each were followed at once and a cycle later.
    """
    wrong: list[str] = []
    for stop in stops:
        i = max(int(np.searchsorted(course.t, stop.at_s + 1e-9)) - 1, 0)
        for one in stop.parts:
            at = f"stop of {one.names[0]} ... at {stop.at_s - course.t[0]:.2f} s"
            if not all(np.isfinite(x).all() for x in (one.t, one.q, one.qd)):
                wrong.append(f"{at}: numbers")
                continue
            if len(one.t) != 1 or np.any(one.qd):
                wrong.append(f"{at}: not one point at rest")
                continue
            rows = [limits.NAMES.index(name) for name in one.names]
            beyond = np.maximum(limits.LOWER[rows] - one.q[0], one.q[0] - limits.UPPER[rows]).max()
            if beyond > _ROUGH_RAD:
                wrong.append(f"{at}: a limit passed by {beyond:.3g}")
            if follows:
                wrong += [f"{at}: {told}" for told in _of_stop(one, rows, stop.at_s, course, i)]
    return wrong


def _of_stop(
    stop: Trajectory, rows: list[int], at_s: float, course: Course, i: int
) -> Iterator[str]:
    q, qd = course.q[i, rows], course.qd[i, rows]
    found = []
    for later in (0.0, _TICK_S):
        begins = q + (at_s - course.t[i] + later) * qd
        ends = np.array([0.0, stop.t[0]]), np.stack([begins, stop.q[0]])
        way = Trajectory(stop.names, *ends, np.stack([qd, np.zeros_like(qd)]))
        found.append(curve.extremes(way, from_rest=False))
    for what, most in (
        ("rate", 1.001 * limits.MAX_RATE),
        ("acceleration", _EXACT * limits.STOP_ACCELERATION),
        ("jerk", _EXACT * limits.STOP_JERK),
    ):
        share = np.max([getattr(one, what)[0] for one in found], axis=0) / most[rows]
        if share.max() > 1.0:
            name = stop.names[int(share.argmax())]
            yield f"{what} of {name} {share.max():.2f} times what is allowed"


def arm_share(sent: Sequence[Sent]) -> float:
    """Greatest share of the arm's allowed speeds in what was sent."""
    rates = [curve.extremes(one.trajectory, from_rest=False).rate.max(0) for one in sent]
    share = np.array(rates).reshape(-1, len(limits.NAMES)) / limits.MAX_RATE
    return float(share[:, limits.ARM].max(initial=0.0))


def of_course(
    course: Course, *, steps: bool = False, own: bool = True, braking_s: float = math.inf
) -> list[str]:
    """What is wrong with where the joints really went, and that they stand in the end.

    Args:
        course: Where they went.
        steps: Whether controllers take trajectories that begin elsewhere: then steps of
            what the executor allows are no fault of it.
        own: Whether nothing but the client moves the robot: then its accelerations are judged.
        braking_s: When it was first asked to stop, or held by itself: from then on by the limits of
            stops.
    """
    wrong = []
    beyond = np.maximum(limits.LOWER - course.q, course.q - limits.UPPER).max()
    if beyond > 1e-3:
        wrong.append(f"a joint was {beyond:.3f} rad beyond its limit")
    fast = (np.abs(course.qd) / limits.MAX_RATE)[:, limits.ARM].max()
    if steps:
        moved = np.abs(np.diff(course.q, axis=0))[:, limits.ARM].max(initial=0.0)
        if moved > _STEPS_RAD:
            wrong.append(f"a joint of the arm moved by {moved:.3f} rad in one cycle")
    elif fast > 1.001:
        wrong.append(f"a joint of the arm moved at {fast:.2f} of its allowed speed")
    if own and not steps:
        found = np.abs(np.diff(course.qd, axis=0)) / np.diff(course.t)[:, None]
        # Followed from the beginning of the cycle in which it comes.
        brakes = (course.t[1:] > braking_s - _TICK_S)[:, None]
        allowed = np.where(brakes, limits.STOP_ACCELERATION, limits.MAX_ACCELERATION)
        share = (found / allowed)[:, limits.ARM].max(axis=1, initial=0.0)
        if share.max(initial=0.0) > _EXACT:
            what = "a stop's" if brakes[share.argmax(), 0] else "its"
            wrong.append(
                f"a joint of the arm had {share.max():.2f} times {what} allowed acceleration"
            )
    if np.abs(course.qd[-1]).max() >= _STANDS:
        wrong.append("the robot did not stand in the end")
    return wrong


def of_end(case: Case, outcome: Outcome, course: Course | None, end_s: float) -> list[str]:
    """What is wrong with how a run ended.

    Args:
        case: What went wrong.
        outcome: What the client says.
        course: The joints' true course, if known.
        end_s: When the client said so.
    """
    wrong, refused = [], outcome.reason.startswith("refused")
    defined = (Phase.HOLDING, Phase.IDLE, Phase.FAULT)
    if outcome.phase not in defined:
        wrong.append(f"ended in {outcome.phase}")
    if not outcome.completed and not outcome.reason:
        wrong.append("ended without a reason")
    if not outcome.confirmed and executor.NOT_CONFIRMED not in outcome.text():
        wrong.append("a stop that was not confirmed was not loud")
    ended = "finish" if outcome.completed else "refuse" if refused else "stop"
    if case.must not in ("any", ended):
        wrong.append(f"it must {case.must}, but it ended {outcome.phase}: {outcome.reason}")
    if course is not None and outcome.confirmed and not outcome.completed:
        lately = (course.t > end_s - 0.15) & (course.t <= end_s)
        speed = np.abs(course.qd[lately]).max(initial=0.0)
        if speed >= 2.0 * _STANDS:
            wrong.append(f"a stop was confirmed while a joint moved at {speed:.3f} rad/s")
    return wrong


def stood_after(course: Course, since_s: float) -> float:
    """Seconds from a time until the joints stood for good; 0 if they stood before."""
    moved = course.t[(np.abs(course.qd) >= _STANDS).any(axis=1)]
    return max(float(moved[-1]) - since_s, 0.0) if len(moved) else 0.0
