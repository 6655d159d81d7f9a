"""An object followed from frame to frame, with a pose, a score and a flag for each.

A pair of `init` and `step`. The next pose is expected where the object was, where it goes on to at
its speed, or where the hand would carry it, whichever fits best, and ICP does the rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
from jaxtyping import Array, Bool, Float

from capture import observation, quality, registration
from capture.object_model import Model
from capture.observation import Observation
from capture.quality import Limits, Quality
from capture.registration import IcpConfig
from realdex_jax import pytree
from realdex_jax.hand.load import HandModel

_AGAIN = IcpConfig(steps=12, wide=0.05, trim=0.1, prior=(0.2, 1.0))


@dataclasses.dataclass(frozen=True)
class TrackingConfig:
    """How an object is followed."""

    icp: IcpConfig = dataclasses.field(default_factory=IcpConfig)
    limits: Limits = dataclasses.field(default_factory=Limits)
    points: int = 1024
    """Points of the object that are aligned."""
    around: float = 0.03
    """Metres about the model in which points may be the object's."""
    window: tuple[float, float] = (0.1, 0.3)
    """Metres about the object that are looked at, and while it is lost."""
    damping: float = 0.8
    """Share of the last motion that is expected to go on; less than one, or what the cameras cannot
    tell, as the turn of a bottle, would wander off."""
    again: IcpConfig = _AGAIN
    """How a lost object is looked for."""
    apart: tuple[float, float] = (0.04, 0.5)
    """An object that is found again so far (m, rad) from where it was last seen, or from where the
    hand took it, stays flagged: it may be another side of it that fits."""


@pytree.dataclass
class State:
    """What is remembered from frame to frame."""

    T_world_object: jaxlie.SE3
    T_before_now: jaxlie.SE3
    """The last motion, in the object's frame."""
    T_world_object_good: jaxlie.SE3
    """Where the object was last seen well."""
    T_world_hand_good: jaxlie.SE3
    """Where the hand was then."""
    lost: Bool[Array, ""]


@pytree.dataclass
class Tracked:
    """A frame's outcome, or those of t frames stacked."""

    T_world_object: jaxlie.SE3
    quality: Quality
    lost: Bool[Array, "*t"]
    """The pose is not to be relied on."""


class Moment(NamedTuple):
    """What a frame gives the tracker."""

    seen: Observation
    phi: Float[Array, " 28"]
    """The hand in the world."""


def init(T_world_object: jaxlie.SE3, phi: Float[Array, " 28"]) -> State:
    """The state of a frame whose pose is known."""
    hand = palm(phi)
    still = jaxlie.SE3.identity()
    return State(T_world_object, still, T_world_object, hand, jnp.array(False))


def window(config: TrackingConfig, model: Model, state: State) -> tuple[np.ndarray, float]:
    """Middle and radius (m) of the ball whose points the next frame is followed with."""
    middle = np.asarray(state.T_world_object.apply(model.p_object_middle), np.float64)
    margin = config.window[1] if state.lost else config.window[0]
    return middle, float(model.radius) + margin


def palm(phi: Float[Array, " 28"]) -> jaxlie.SE3:
    """T_world_hand of a pose in the world."""
    return jaxlie.SE3.from_rotation_and_translation(jaxlie.SO3.exp(phi[25:]), phi[22:25])


@jax.jit(static_argnames=("config", "hand"))
def step(
    config: TrackingConfig, hand: HandModel | None, model: Model, state: State, moment: Moment
) -> tuple[State, Tracked]:
    """Follows the object over one frame.

    Args:
        config: How.
        hand: The hand, whose points are left out; None if there is none.
        model: The object.
        state: As of the last frame.
        moment: The frame.
    """
    seen, T_hand = moment.seen, palm(moment.phi)
    if hand is not None:
        seen = observation.without(seen, hand, moment.phi)
    T = state.T_world_object
    goes_on = T @ jaxlie.SE3.exp(config.damping * state.T_before_now.log())
    was = state.T_world_object_good
    taken = T_hand @ state.T_world_hand_good.inverse() @ was
    near = _near(config, model, seen, T.apply(model.p_object_middle), config.around)
    guesses = jax.tree.map(lambda *x: jnp.stack(x), T, goes_on, taken)
    cost = jax.vmap(lambda guess: registration.misfit(model, near, guess, config.icp.wide))(guesses)
    # Where they are as good, it stays.
    best = jnp.argmin(cost + jnp.array([0.0, 1e-4, 1e-4]))
    start = jax.tree.map(lambda x: x[best], guesses)
    near = _near(config, model, seen, start.apply(model.p_object_middle), config.around)
    found = registration.align(config.icp, model, near, start, start)
    judged = _judge(config, model, seen, found)

    def again() -> tuple[jaxlie.SE3, Quality]:
        wide = config.again.trim
        far = _near(config, model, seen, start.apply(model.p_object_middle), wide)
        other = registration.align(config.again, model, far, start, start)
        middle = other.T_world_object.apply(model.p_object_middle)
        close = _near(config, model, seen, middle, config.around)
        T_other = other.T_world_object
        other = registration.align(config.icp, model, close, T_other, T_other)
        T_was = found.T_world_object
        rated = _judge(config, model, seen, other)
        better = rated.score > judged.score
        return jax.tree.map(
            lambda a, b: jnp.where(better, a, b), (other.T_world_object, rated), (T_was, judged)
        )

    T_now, judged = jax.lax.cond(
        judged.score < config.limits.good, again, lambda: (found.T_world_object, judged)
    )
    good = judged.score >= config.limits.good
    here = _close(config, was, T_now) | _close(config, taken, T_now)
    lost = ~good | ~here
    # A pose that is not good is no place to go on from.
    T_now_kept = _either(good, T_now, state.T_world_object)
    motion = _either(good & ~state.lost, T.inverse() @ T_now, jaxlie.SE3.identity())
    after = State(
        T_now_kept,
        motion,
        _either(lost, was, T_now),
        _either(lost, state.T_world_hand_good, T_hand),
        lost,
    )
    return after, Tracked(T_now, judged, lost)


def track(
    config: TrackingConfig,
    hand: HandModel | None,
    model: Model,
    state: State,
    moments: Iterable[Moment],
) -> Iterator[tuple[State, Tracked]]:
    """Follows the object over frames, each as soon as it is there."""
    for moment in moments:
        state, tracked = step(config, hand, model, state, moment)
        yield state, tracked


def rate(
    config: TrackingConfig,
    hand: HandModel | None,
    model: Model,
    T_world_object: jaxlie.SE3,
    moment: Moment,
) -> Tracked:
    """Judges a pose that was given, without changing it."""
    return _rate(config, hand, model, T_world_object, moment)


def poses(tracked: Iterable[Tracked]) -> Float[np.ndarray, "t 7"]:
    """T_world_object of frames: quaternion wxyz and position (m)."""
    rows = [np.asarray(t.T_world_object.wxyz_xyz, np.float64) for t in tracked]
    return np.stack(rows) if rows else np.zeros((0, 7))


@jax.jit(static_argnames=("config", "hand"))
def _rate(
    config: TrackingConfig,
    hand: HandModel | None,
    model: Model,
    T: jaxlie.SE3,
    moment: Moment,
) -> Tracked:
    seen = moment.seen
    if hand is not None:
        seen = observation.without(seen, hand, moment.phi)
    near = _near(config, model, seen, T.apply(model.p_object_middle), config.around)
    still = dataclasses.replace(config.icp, steps=0)
    found = registration.align(still, model, near, T, T)
    judged = _judge(config, model, seen, found)
    return Tracked(T, judged, judged.score < config.limits.good)


def _near(
    config: TrackingConfig, model: Model, seen: Observation, p_world: Array, around: float
) -> Observation:
    inside = registration.about(seen, p_world, model.radius + around)
    return registration.thinned(inside, config.points)


def _judge(
    config: TrackingConfig, model: Model, seen: Observation, found: registration.Aligned
) -> Quality:
    return quality.judge(
        config.limits,
        model,
        seen,
        found.T_world_object,
        found.inliers,
        found.rms,
        found.information,
    )


def _close(config: TrackingConfig, a: jaxlie.SE3, b: jaxlie.SE3) -> Bool[Array, ""]:
    off = a.inverse() @ b
    way = jnp.linalg.norm(off.translation())
    turn = 2.0 * jnp.arccos(jnp.clip(jnp.abs(off.rotation().wxyz[0]), 0.0, 1.0))
    return (way < config.apart[0]) & (turn < config.apart[1])


def _either(which: Array, a: jaxlie.SE3, b: jaxlie.SE3) -> jaxlie.SE3:
    return jax.tree.map(lambda x, y: jnp.where(which, x, y), a, b)
