"""Whether a run under a fault was safe: by what was sent, by where the joints were, by its end."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from robot import curve, executor, limits
from robot.cases import Case
from robot.drive import Outcome
from robot.executor import ExecutorConfig, Phase
from robot.interface import Trajectory

_STEP_RAD = 0.01
"""Most that a command may begin from where the one before it is by then."""
_ROUGH_RAD = 1e-4
"""Radians that the cubics of a command may leave the plan's, whose points lie elsewhere."""
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
    """From then until the joints stood in truth; None where that is not known."""
    confirmed_s: float | None
    """From then until joint states had shown it."""
    arm_share: float
    """Greatest share of the arm's allowed speed that was sent."""


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


def arm_share(sent: Sequence[Sent]) -> float:
    """Greatest share of the arm's allowed speeds in what was sent."""
    rates = [curve.extremes(one.trajectory, from_rest=False).rate.max(0) for one in sent]
    share = np.array(rates).reshape(-1, len(limits.NAMES)) / limits.MAX_RATE
    return float(share[:, limits.ARM].max(initial=0.0))


def of_course(course: Course) -> list[str]:
    """What is wrong with where the joints really went, and that they stand in the end."""
    wrong = []
    beyond = np.maximum(limits.LOWER - course.q, course.q - limits.UPPER).max()
    if beyond > 1e-3:
        wrong.append(f"a joint was {beyond:.3f} rad beyond its limit")
    fast = (np.abs(course.qd) / limits.MAX_RATE)[:, limits.ARM].max()
    if fast > 1.001:
        wrong.append(f"a joint of the arm moved at {fast:.2f} of its allowed speed")
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
