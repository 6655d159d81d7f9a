"""Motion from a start pose to a grasp: a model fed with its own answers, under one scan.

A model that makes whole motions at once is asked once; `generate` is for either kind.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from realdex_jax import choice, pose, pytree, touch
from realdex_jax.data import schema
from realdex_jax.data.windows import FUTURE, PAST, Windows
from realdex_jax.errors import ConfigError, DatasetError
from realdex_jax.geometry.sdf import SdfGrid, SdfGrids
from realdex_jax.hand import kinematics
from realdex_jax.hand.load import HandModel, require_shadow
from realdex_jax.models import motion_model
from realdex_jax.models.motion_model import MotionModel

MAX_START_DEPTH = 0.002
"""Metres a hand may be inside object or table when a motion begins."""

Predict = Callable[[Windows], Float[Array, "b 10 28"]]
"""The ten poses that follow a window."""


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
    """How a model is fed with its own answers, and when a way counts as free.

    Where an answer overlaps the one before, the motion passes from the older to the newer, as in
    the temporal ensemble of ACT (Zhao et al. 2023): no seams.
    """

    stride: int = 5
    """Frames after which a model is asked again; an answer has ten."""
    arrived: float = 0.002
    """Metres: mean distance of the keypoints from the goal's at which a motion ends."""
    allowed: float = 0.0015
    """Metres by which the hand may be deeper in object or table than at the goal on a way that
    counts as free."""


@pytree.dataclass
class Rollout:
    """Motions that a model made."""

    phi: Float[Array, "b t 28"]
    """Poses in the world; after the end of a motion its last pose is repeated."""
    length: Int[Array, " b"]
    """Frames until the goal was reached, or all."""
    arrived: Bool[Array, " b"]
    """Whether it was reached."""


def rollout(
    hand: HandModel,
    predict: Predict,
    start: Float[Array, "b 28"],
    goal: Float[Array, "b 28"],
    steps: Int[Array, " b"],
    wxyz_xyz_world_object: Float[Array, "b 7"],
    target: Int[Array, " b"],
    way: Int[Array, " b"] | None = None,
    *,
    frames: int,
    config: RolloutConfig = RolloutConfig(),
) -> Rollout:
    """Makes motions that begin at rest.

    Args:
        hand: The hand.
        predict: The model.
        start: First poses, in the world.
        goal: Grasps, in the world.
        steps: Frames that each motion should take, the first one included.
        wxyz_xyz_world_object: Where the objects rest.
        target: Index of each object, for a model that looks it up.
        way: In which manner each motion comes, for a model that knows several; None is the usual.
        frames: Frames computed, at least the largest of `steps`; a constant of the trace.
        config: Stride and threshold.

    Raises:
        HandError: A hand with other joints than Shadow's.
    """
    require_shadow(hand, "a motion model")
    b = start.shape[0]
    seen = jnp.broadcast_to(start[:, None], (b, PAST + 1, pose.SIZE))
    last = (steps - 1).astype(jnp.float32)
    rounds = -(-(frames - 1) // config.stride)
    p_goal = kinematics.keypoints(hand, kinematics.posed(hand, goal))

    overlap = FUTURE - config.stride
    trust = jnp.minimum(jnp.arange(1, FUTURE + 1) / (overlap + 1), 1.0)

    def advance(
        carry: tuple[Array, Array, Array], i: Array
    ) -> tuple[tuple[Array, Array, Array], tuple[Array, Array]]:
        seen, older, done = carry
        windows = Windows(
            seen=seen,
            coming=jnp.zeros((b, FUTURE, pose.SIZE)),
            goal=goal,
            phase=jnp.minimum(i * config.stride / last, 1.0),
            step=1.0 / last,
            wxyz_xyz_world_object=wxyz_xyz_world_object,
            target=target,
            way=jnp.zeros_like(target) if way is None else way,
        )
        answer = predict(windows)
        # The first answer overlaps none.
        answer = pose.between(older, answer, jnp.where(i > 0, trust, 1.0))
        older = jnp.roll(answer, -config.stride, axis=1)
        fresh = answer[:, : config.stride]
        fresh = jnp.where(done[:, None, None], seen[:, -1:], fresh)
        gap = kinematics.keypoints(hand, kinematics.posed(hand, fresh[:, -1])) - p_goal
        near = jnp.sqrt((gap**2).sum(-1)).mean(-1) < config.arrived
        seen = jnp.concatenate([seen, fresh], axis=1)[:, -(PAST + 1) :]
        return (seen, older, done | near), (fresh, jnp.broadcast_to(done[:, None], fresh.shape[:2]))

    first = (seen, jnp.repeat(seen[:, :1], FUTURE, axis=1), jnp.zeros(b, bool))
    (_, _, done), (parts, rested) = jax.lax.scan(
        advance, first, jnp.arange(rounds, dtype=jnp.float32)
    )
    phi = jnp.moveaxis(parts, 0, 1).reshape(b, -1, pose.SIZE)
    moving = ~jnp.moveaxis(rested, 0, 1).reshape(b, -1)
    phi = jnp.concatenate([start[:, None], phi], axis=1)[:, :frames]
    length = jnp.minimum(1 + moving.sum(-1), frames)
    return Rollout(phi=phi, length=length, arrived=done)


def generate(
    hand: HandModel,
    model: MotionModel,
    grids: SdfGrids | None,
    start: Float[Array, "b 28"],
    goal: Float[Array, "b 28"],
    steps: Int[Array, " b"],
    wxyz_xyz_world_object: Float[Array, "b 7"],
    target: Int[Array, " b"],
    *,
    frames: int,
    config: RolloutConfig = RolloutConfig(),
    key: PRNGKeyArray | None = None,
) -> Float[Array, "b t 28"]:
    """Motions of any kind of model, in the world; after its end a motion's last pose is repeated.

    A model that knows several ways is asked for all of them. The most usual one is taken on which
    no part of the hand gets deeper into object or table, by `config.allowed`, than it is at the
    goal; if there is none, the one with the least depth.

    Args:
        hand: The hand; a constant of the trace, like `frames` and `config`.
        model: The model.
        grids: Distance grids of the objects; only a model that is told of them needs them.
        start: First poses, in the world; the hand rests.
        goal: Grasps, in the world.
        steps: Frames that each motion should take, the first one included.
        wxyz_xyz_world_object: Where the objects rest.
        target: Index of each object among the grids.
        frames: Frames computed, at least the largest of `steps`.
        config: Stride and thresholds.
        key: For a model that can draw motions; None asks for its usual one.

    Raises:
        ConfigError: The model is told of its surroundings, but there are no grids.
    """
    if motion_model.fills(model.config):
        return motion_model.fill(model, start, goal, steps, frames=frames, key=key)

    def predict(windows: Windows) -> Array:
        return motion_model.predict(hand, model, grids, windows)

    def come(way: Int[Array, ""]) -> Float[Array, "b t 28"]:
        manner = jnp.broadcast_to(way, target.shape)
        given = (start, goal, steps, wxyz_xyz_world_object, target, manner)
        return rollout(hand, predict, *given, frames=frames, config=config).phi

    ways = motion_model.ways(model.config)
    if ways == 1:
        return come(jnp.zeros((), jnp.int32))
    if grids is None:
        raise ConfigError("this model chooses among ways: it needs distance grids")

    around = (grids, target, goal, steps, wxyz_xyz_world_object)
    return choice.choose(hand, come, ways, *around, config.allowed)


def check_ends(start: np.ndarray, goal: np.ndarray, steps: np.ndarray) -> None:
    """Checks what a user asks for, before anything moves.

    Raises:
        DatasetError: Wrong shapes, poses that are not finite, joint angles beyond their limits, or
            fewer frames than a window has.
    """
    for name, phi in (("start", start), ("goal", goal)):
        if phi.ndim != 2 or phi.shape[1] != pose.SIZE:
            raise DatasetError(f"{name} has shape {phi.shape}; it must be (b, {pose.SIZE})")
        bad = np.flatnonzero(~np.isfinite(phi).all(1))
        if len(bad):
            raise DatasetError(f"{name} of motion {bad[0]} is not finite ({len(bad)} such)")
        schema.check_limits(phi[:, : pose.JOINTS], name, "motion")
    if len(start) != len(goal) or np.shape(steps) != (len(start),):
        raise DatasetError(
            f"{len(start)} starts, {len(goal)} goals and steps of shape {np.shape(steps)}; there "
            "must be one of each per motion"
        )
    if len(steps) and np.min(steps) < PAST + 1:
        raise DatasetError(f"{np.min(steps)} frames; a motion has at least {PAST + 1}")


def check_clear(
    hand: HandModel,
    grid: SdfGrid,
    start: Float[np.ndarray, "b 28"],
    wxyz_xyz_world_object: Float[np.ndarray, "b 7"],
) -> None:
    """Checks that motions around one object begin outside it and above the table.

    Raises:
        DatasetError: A hand begins more than `MAX_START_DEPTH` inside the object or the table.
    """
    depths = touch.depths(hand, grid, jnp.asarray(start), jnp.asarray(wxyz_xyz_world_object))
    for what, depth in zip(("the object", "the table"), map(np.asarray, depths), strict=True):
        if depth.size and depth.max() > MAX_START_DEPTH:
            raise DatasetError(
                f"start of motion {int(depth.argmax())} is {1e3 * depth.max():.1f} mm inside "
                f"{what}; a motion begins outside, {1e3 * MAX_START_DEPTH:.0f} mm are forgiven"
            )
