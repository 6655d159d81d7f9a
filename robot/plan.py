"""From a motion of the hand to a stamped trajectory of arm and hand.

The arm's path is solved in closed form on all eight branches at once, for many motions at once, and
the branch is chosen by clearance, distance from singular poses and the way from where the robot is.
Time is given by stretching: every part begins and ends at rest, has the course of its own motion or
that of minimum jerk, and takes as long as rates, accelerations and jerks need. All in numpy but the
batched kinematics.
"""

import functools
import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy.interpolate import BSpline, make_interp_spline

from realdex_jax import arm, pose, pytree
from realdex_jax.data.motion import RATE
from realdex_jax.hand.load import HandModel
from realdex_jax.trajectory import minimum_jerk
from robot import clearance, curve, limits
from robot.interface import JointState, RobotError, Trajectory

STAGES = ("approaching", "grasping", "lifting", "holding")
"""Parts of an execution, in order; the states of the executor have the same names."""


@dataclass(frozen=True)
class PlanConfig:
    """How a motion is driven."""

    share: float = 0.75
    """Of the limits of `limits.py`; the rest is for what a stop on the path needs. No joint is
    faster than `limits.STOP_RATE`, from which a stop is at rest within 0.1 s."""
    speed: float = 1.0
    """Share of the planned speed: 0.5 takes twice as long."""
    guarded: bool = False
    """No part moves faster than 250 mm/s."""
    stretch: float = 1.5
    """Least slowing of the motion against its own time."""
    open_s: float = 1.5
    """Least seconds in which the fingers come to the motion's first posture; the arm stands."""
    approach_s: float = 3.0
    """Least seconds from where the arm is to the motion's first pose."""
    squeeze_s: float = 1.0
    """Least seconds of the squeeze."""
    lift_m: float = 0.10
    """Height of the lift, metres."""
    lift_s: float = 2.0
    """Least seconds of the lift."""
    hold_s: float = 2.0
    """Seconds of the hold."""
    arm_clear_m: float = 0.002
    """Metres the arm keeps from itself, its pedestal and the table."""
    regular: float = 0.08
    """Least sine of elbow and second wrist joint: below, the arm is near a singular pose."""


_ROUND = 32


@dataclass(frozen=True, eq=False)
class Plan:
    """A trajectory and what it is for."""

    trajectory: Trajectory
    """Of all joints, order `limits.NAMES`."""
    ends: tuple[float, ...]
    """When each of `STAGES` ends, seconds; the last is the trajectory's end."""
    branch: int
    """Row of `arm.BRANCHES` that the arm moves on."""

    def stage(self, t: float) -> str:
        """The stage at a time (s); the last one after the end."""
        return STAGES[min(int(np.searchsorted(self.ends, t, side="right")), len(STAGES) - 1)]


@pytree.dataclass
class ArmPaths:
    """The arm's ways to follow each of b motions, on the eight branches of `arm.inverse`."""

    q: Float[Array | np.ndarray, "b 8 t 6"]
    """Joint angles, radians, continuous."""
    serves: Bool[Array | np.ndarray, "b 8"]
    """In reach, within limits and without a change of branch."""
    clear_m: Float[Array | np.ndarray, "b 8"]
    """Least distance of the arm from itself, its pedestal and the table."""
    regular: Float[Array | np.ndarray, "b 8"]
    """Least sine of elbow and second wrist joint on the way."""


@jax.jit
def arm_paths(phi: Float[Array, "b t 28"]) -> ArmPaths:
    """Solves the arm for many motions.

    Args:
        phi: Poses of the hand in the world.
    """
    _, T_world_palm = pose.split(phi)
    R, p = T_world_palm.rotation().as_matrix(), T_world_palm.translation()
    q, serves = arm.branches(R, p - clearance.P_BASE)
    of_self, of_table = clearance.arm_clearance(q)
    regular = jnp.abs(jnp.sin(q[..., [2, 4]])).min((-1, -2))
    return ArmPaths(q, serves, jnp.minimum(of_self, of_table).min(-1), regular)


def order(
    paths: ArmPaths, q_now: Float[np.ndarray, " 6"], config: PlanConfig = PlanConfig()
) -> list[list[tuple[int, Float[np.ndarray, "t 6"]]]]:
    """Per motion the branches that may be driven, the best first, with the arm's path on each.

    Whole turns are added so that the path begins as near to `q_now` as limits allow. A branch is
    good if its way from `q_now` is short, it keeps clear (beyond 10 cm more is no better), and it
    is far from singular poses.

    Args:
        paths: What `arm_paths` found.
        q_now: Where the arm is, radians.
        config: What is kept clear.
    """
    found = []
    all_q = np.asarray(paths.q, np.float64)
    clear, regular = np.asarray(paths.clear_m), np.asarray(paths.regular)
    may = np.asarray(paths.serves) & (clear >= config.arm_clear_m) & (regular >= config.regular)
    for b in range(len(all_q)):
        ways = []
        for branch in np.flatnonzero(may[b]):
            q = _nearest_turns(all_q[b, branch], q_now)
            away = (np.abs(q[0] - q_now) / limits.MAX_RATE[limits.ARM]).max()
            cost = away - 20.0 * min(clear[b, branch], 0.1) - 2.0 * min(regular[b, branch], 0.5)
            ways.append((cost, int(branch), q))
        ways.sort(key=lambda way: way[0])
        found.append([(branch, q) for _, branch, q in ways])
    return found


def plan(
    hand: HandModel,
    phi: Float[Array | np.ndarray, "t 28"],
    q_squeeze: Float[Array | np.ndarray, " 22"],
    q_now: Float[np.ndarray, " 30"],
    config: PlanConfig = PlanConfig(),
) -> Plan:
    """Opens the hand, goes to the motion's start, follows it, squeezes, lifts, holds.

    Args:
        hand: The hand.
        phi: The motion, at 15 frames a second, in the world whose table is z = 0.
        q_squeeze: Joint targets (rad) that press on the object.
        q_now: Where the robot is, radians, order `limits.NAMES`.
        config: How it is driven.

    Raises:
        RobotError: The arm cannot follow, or not clear of itself, table and pedestal, or cannot
            come to the motion's start, or the robot's joints are beyond their limits.
    """
    phi, q_squeeze = np.asarray(phi, np.float64), np.asarray(q_squeeze, np.float64)
    q_now = within(q_now)
    if len(phi) < 6 or not (np.isfinite(phi).all() and np.isfinite(q_squeeze).all()):
        raise RobotError(f"a motion of {len(phi)} frames; it needs 6, all finite, and a squeeze")
    lift = _lift(phi[-1], config)
    whole = np.concatenate([phi, lift[1:]])
    # Rounded up in length, at rest: a program is compiled for each length.
    still = np.repeat(whole[-1:], -len(whole) % _ROUND, axis=0)
    paths = arm_paths(jnp.asarray(np.concatenate([whole, still])[None], jnp.float32))
    ways = order(paths, q_now[limits.ARM], config)[0]
    if not ways:
        raise RobotError(_why_none(paths, config))
    blocked = ""
    for branch, q_arm in ways:
        q = np.zeros((len(whole), len(limits.NAMES)))
        q[:, limits.ARM] = q_arm[: len(whole)]
        q[:, limits.HAND] = whole[:, : pose.JOINTS]
        q[len(phi) :, limits.HAND] = q_squeeze
        q = limits.coupled(q)
        opened = q_now.copy()
        opened[limits.HAND] = q[0, limits.HAND]
        opened[limits.WRIST] = 0.0
        way, blocked = _approach(hand, opened, q[0], config)
        if way is None:
            continue
        made = _timed(hand, [q_now, *way], q[: len(phi)], q[len(phi) - 1 :], branch, config)
        if made.trajectory.t[-1] <= limits.MAX_DURATION_S:
            return made
        blocked = (
            f"a free one takes {made.trajectory.t[-1]:.0f} s at {config.speed:g} of the speed, "
            f"allowed {limits.MAX_DURATION_S:g}"
        )
    raise RobotError(f"no free way from where the arm is to the motion's start: {blocked}")


def at(state: JointState) -> Float[np.ndarray, " 30"]:
    """Angles of a state in the order of `limits.NAMES`, radians.

    Raises:
        RobotError: A joint is missing or named twice.
    """
    if sorted(state.names) != sorted(limits.NAMES):
        missing = [n for n in limits.NAMES if n not in state.names]
        more = [n for n in state.names if n not in limits.NAMES or state.names.count(n) > 1]
        raise RobotError(
            f"joint state: missing {missing or 'none'}, unknown or twice {more or 'none'}"
        )
    return np.asarray(state.q, np.float64)[[state.names.index(n) for n in limits.NAMES]]


def within(q: Float[np.ndarray, " 30"]) -> Float[np.ndarray, " 30"]:
    """Measured angles (rad) put within the limits, which sensors may pass by a hundredth.

    Raises:
        RobotError: They pass them by more, or are not finite.
    """
    q = np.asarray(q, np.float64)
    inside = np.clip(q, limits.LOWER, limits.UPPER)
    off = np.abs(q - inside)
    if not (off <= limits.START_TOLERANCE).all():
        j = int(np.argmax(np.nan_to_num(off, nan=np.inf)))
        raise RobotError(
            f"{limits.NAMES[j]} is at {q[j]:.4f} rad; limits {limits.LOWER[j]:.4f} to "
            f"{limits.UPPER[j]:.4f}"
        )
    return inside


def _nearest_turns(
    q: Float[np.ndarray, "t 6"], q_now: Float[np.ndarray, " 6"]
) -> Float[np.ndarray, "t 6"]:
    """The path with whole turns added so that it begins near `q_now`, within the limits."""
    turn = 2.0 * np.pi
    wanted = np.round((q_now - q[0]) / turn)
    margin = 1e-3
    most = np.floor((arm.UPPER - margin - q.max(0)) / turn)
    least = np.ceil((arm.LOWER + margin - q.min(0)) / turn)
    return q + turn * np.clip(wanted, np.minimum(least, 0.0), np.maximum(most, 0.0))


def _lift(last: Float[np.ndarray, " 28"], config: PlanConfig) -> Float[np.ndarray, "l 28"]:
    """Poses straight up from the grasp with minimum jerk, 15 a second."""
    frames = max(round(config.lift_s * RATE), 6)
    phi = np.repeat(last[None], frames + 1, axis=0)
    phi[:, 24] += config.lift_m * minimum_jerk(np.linspace(0.0, 1.0, frames + 1))
    return phi


def _why_none(paths: ArmPaths, config: PlanConfig) -> str:
    serves = np.asarray(paths.serves[0])
    if not serves.any():
        return (
            "the arm cannot follow the motion on any branch: out of reach, or through a pose where "
            "branches meet"
        )
    clear, regular = (np.asarray(x)[0][serves] for x in (paths.clear_m, paths.regular))
    best = int(clear.argmax())
    return (
        f"{serves.sum()} of the arm's branches follow the motion, none clear: the best comes "
        f"within {1000 * clear[best]:.0f} mm of itself, pedestal or table (allowed "
        f"{1000 * config.arm_clear_m:.0f}), with a least sine of {regular[best]:.2f} of elbow and "
        f"second wrist joint (allowed {config.regular})"
    )


_UP = 0.2


def _approach(
    hand: HandModel, start: np.ndarray, goal: np.ndarray, config: PlanConfig
) -> tuple[list[np.ndarray] | None, str]:
    """Points of a free way, joints in straight lines between; else None and what is in the way."""
    raised = [q for q in (_raised(start), _raised(goal)) if q is not None]
    ways = [[start, goal]]
    ways += [[start, q, goal] for q in raised]
    ways += [[start, *raised, goal]] if len(raised) == 2 else []
    if np.abs(start - goal)[limits.ARM].max() < 1e-6:
        return [start], ""
    told = ""
    for way in ways:
        told = _blocked(hand, way, config) or ""
        if not told:
            return way, ""
    return None, told


def _raised(q: np.ndarray) -> np.ndarray | None:
    """The arm with the palm `_UP` higher, on the branch it is on."""
    there, reached = _above(jnp.asarray(q, jnp.float32))
    there = np.asarray(there, np.float64)[np.asarray(reached)]
    if not len(there):
        return None
    now = q[limits.ARM]
    there = there + 2.0 * np.pi * np.round((now - there) / (2.0 * np.pi))
    nearest = there[np.abs(there - now).max(1).argmin()]
    if np.abs(nearest - now).max() > 0.8 or (np.abs(nearest) > arm.UPPER).any():
        return None
    up = q.copy()
    up[limits.ARM] = nearest
    return up


@jax.jit
def _above(q: Float[Array, " 30"]) -> tuple[Float[Array, "8 6"], Bool[Array, " 8"]]:
    R, p = clearance.palm(q)
    return arm.inverse(R, p + jnp.array([0.0, 0.0, _UP]))


_LOOKS = 60
"""Configurations looked at on each straight line."""


def _blocked(hand: HandModel, way: list[np.ndarray], config: PlanConfig) -> str | None:
    """What the robot meets on straight lines through points."""
    share = np.linspace(0.0, 1.0, _LOOKS)[:, None]
    lines = [a + share * (b - a) for a, b in itertools.pairwise(way)]
    found = clearance.clearance(hand, np.concatenate(lines))
    start = jax.tree.map(lambda x: float(x[0]), found)
    for name in ("arm_self", "arm_table", "hand_table", "hand_arm"):
        # A robot that stands nearer may leave, not come nearer still.
        least = min(config.arm_clear_m, getattr(start, name) - 1e-4)
        value = np.asarray(getattr(found, name))
        if value.min() < least:
            where = int(value.argmin())
            return f"{name.replace('_', ' to ')} {value.min():.3f} m at look {where}"
    return None


def _timed(
    hand: HandModel,
    way: list[np.ndarray],
    reach: Float[np.ndarray, "t 30"],
    lift: Float[np.ndarray, "l 30"],
    branch: int,
    config: PlanConfig,
) -> Plan:
    """Joins the parts; each at rest at both ends."""
    stretched = functools.partial(_stretched, hand, config=config)
    parts = []
    for i, (a, b) in enumerate(itertools.pairwise(way)):
        parts.append(stretched(_straight(a, b), config.open_s if i == 0 else config.approach_s))
    own = (len(reach) + _DEGREE) / RATE
    parts.append(stretched(_through(reach), config.stretch * own))
    ends = [sum(float(part.t[-1]) for part in parts)]
    squeezed = reach[-1].copy()
    squeezed[limits.HAND] = lift[1, limits.HAND]
    parts.append(stretched(_straight(reach[-1], squeezed), config.squeeze_s))
    ends.append(ends[-1] + float(parts[-1].t[-1]))
    parts.append(stretched(_through(np.concatenate([squeezed[None], lift[1:]])), config.lift_s))
    ends.append(ends[-1] + float(parts[-1].t[-1]))
    last = parts[-1].q[-1:]
    rest = np.zeros_like(last)
    hold = config.hold_s / config.speed
    steps = max(round(hold / curve.STEP), 1)
    parts.append(
        Trajectory(
            limits.NAMES,
            np.arange(steps + 1) * curve.STEP,
            np.repeat(last, steps + 1, axis=0),
            np.repeat(rest, steps + 1, axis=0),
        )
    )
    whole = curve.joined(parts)
    ends.append(float(whole.t[-1]))
    return Plan(whole, tuple(ends), branch)


@dataclass(frozen=True, eq=False)
class _Part:
    """Positions over a share of time from 0 to 1, at rest at both, with three derivatives."""

    spline: BSpline


def _straight(a: np.ndarray, b: np.ndarray) -> _Part:
    """A line with minimum jerk: a polynomial of degree five."""
    ends = np.stack([a, b])
    rest = np.zeros_like(a)
    held = [(1, rest), (2, rest)]
    return _Part(make_interp_spline([0.0, 1.0], ends, k=5, bc_type=(held, held)))


def _through(q: Float[np.ndarray, "t 30"]) -> _Part:
    """A quintic B-spline with the frames as its control points, evenly in time.

    It stays between its control points, so within limits and with J1 <= J2, where a spline through
    frames that rest at a limit would swing beyond; and it smooths. A frame is passed at a distance
    of a quarter of its second difference; the arm's frames are moved by that beforehand, so that
    the palm is where it should be.
    """
    held = np.concatenate([q[:1]] * _DEGREE + [q] + [q[-1:]] * _DEGREE)  # at rest at both ends
    near = np.stack([np.convolve(x, _WEIGHTS, "same") for x in held[:, limits.ARM].T], axis=1)
    inner = slice(_DEGREE, -_DEGREE)
    held[inner, limits.ARM] += (held[:, limits.ARM] - near)[inner]
    pieces = len(held) - _DEGREE
    knots = np.arange(-_DEGREE, len(held) + 1) / pieces
    return _Part(BSpline(knots, held, _DEGREE))


_DEGREE = 5
_WEIGHTS = np.array([1.0, 26.0, 66.0, 26.0, 1.0]) / 120.0
"""What control points weigh where the middle one of them counts most."""
_FINE = 8


def _stretched(hand: HandModel, part: _Part, least_s: float, *, config: PlanConfig) -> Trajectory:
    """The part in as many seconds as it needs, at least `least_s`; both before `speed`."""
    pieces = len(part.spline.t) - 2 * _DEGREE - 1
    u = np.linspace(0.0, 1.0, max(pieces * _FINE, 200) + 1)
    first, second, third = (np.abs(part.spline(u, nu=k)).max(0) for k in (1, 2, 3))
    needed = max(
        (first / np.minimum(config.share * limits.MAX_RATE, limits.STOP_RATE)).max(),
        np.sqrt((second / (config.share * limits.MAX_ACCELERATION)).max()),
        np.cbrt((third / (config.share * limits.MAX_JERK)).max()),
    )
    if config.guarded:
        fastest = float(clearance.speeds(hand, part.spline(u), part.spline(u, nu=1)).max())
        needed = max(needed, fastest / (config.share * limits.GUARDED_SPEED))
    seconds = max(least_s, float(needed)) / config.speed
    steps = max(int(np.ceil(seconds / curve.STEP)), 2)
    seconds = steps * curve.STEP
    u = np.linspace(0.0, 1.0, steps + 1)
    qd = part.spline(u, nu=1) / seconds
    qd[[0, -1]] = 0.0
    return Trajectory(limits.NAMES, np.arange(steps + 1) * curve.STEP, part.spline(u), qd)
