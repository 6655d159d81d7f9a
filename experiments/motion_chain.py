"""From a grasp to the lifted object: motion, trajectory optimisation, lift, and what to show."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from experiments import motion_data, motion_protocol
from experiments.motion_protocol import Asked, World
from realdex_jax import rollout
from realdex_jax.data.motion import RATE, Motion
from realdex_jax.data.motion_set import MotionSet
from realdex_jax.data.schema import GraspSet
from realdex_jax.evaluation.report import Clip
from realdex_jax.geometry import sdf
from realdex_jax.geometry.sdf import SdfGrids
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand.load import HandModel
from realdex_jax.models import motion_model
from realdex_jax.models.motion_model import MotionModel
from realdex_jax.trajectory import TrajectoryConfig
from sim import demonstrate, lift, video
from sim.physics import LiftPhysics


@dataclasses.dataclass(frozen=True, eq=False)
class CarriedOut:
    """Generated motions to grasps of one object, mended, and whether they lifted it."""

    shape: ObjectShape
    what: Asked
    phi: Float[np.ndarray, "b f 28"]
    """Motions in the world."""
    lifted: Bool[np.ndarray, " b"]


def carry_out(
    hand: HandModel, model: MotionModel, shape: ObjectShape, grasps: GraspSet, seed: int
) -> CarriedOut:
    """Reaches for every grasp from a drawn start, mends the motion, and lifts.

    Args:
        hand: The hand.
        model: What makes the motions.
        shape: The object, standing on its lowest point.
        grasps: Its grasps, in the object frame.
        seed: Seed of the situations.

    Raises:
        DatasetError: A grasp that makes no sense, or a start inside the object.
    """
    what, world, grids = situations(shape, grasps, seed)
    motion_protocol.check(hand, what, world)
    phi = made(hand, model, grids, what, seed)
    phi = motion_protocol.mend(hand, what, world, phi, TrajectoryConfig())
    lifted = motion_protocol.lifts(hand, what, shape, phi, np.arange(len(what.motions)))
    return CarriedOut(shape, what, phi, lifted)


def made(
    hand: HandModel, model: MotionModel, grids: SdfGrids | None, what: Asked, seed: int
) -> np.ndarray:
    """A model's motions, padded like the demonstrations."""
    motions = what.motions
    start, goal = what.true[:, 0], what.true[:, -1]
    make = jax.jit(functools.partial(_generate, hand, model.config, frames=what.frames))
    phi = make(
        model.params,
        grids if getattr(model.config, "aware", False) else None,
        jnp.asarray(start),
        jnp.asarray(goal),
        jnp.asarray(what.lengths),
        jnp.asarray(motions.wxyz_xyz_world_object),
        jnp.asarray(motions.target),
        jax.random.key(seed),
    )
    return np.asarray(phi)


def _generate(
    hand: HandModel,
    config: motion_model.Config,
    params: Any,
    grids: SdfGrids | None,
    start: jax.Array,
    goal: jax.Array,
    steps: jax.Array,
    placed: jax.Array,
    target: jax.Array,
    key: jax.Array,
    *,
    frames: int,
) -> jax.Array:
    """`rollout.generate` with parameters as an argument: seeds share a compiled program."""
    model = MotionModel(config=config, params=params)
    return rollout.generate(
        hand, model, grids, start, goal, steps, placed, target, frames=frames, key=key
    )


def situations(shape: ObjectShape, grasps: GraspSet, seed: int) -> tuple[Asked, World, SdfGrids]:
    """One drawn situation per grasp: nothing is demonstrated, the goal alone is known."""
    rng = np.random.default_rng(seed)
    drawn = demonstrate.draw(
        shape, grasps, len(grasps), rng, demonstrate.DemonstrationConfig(), in_order=True
    )
    lengths = np.asarray(drawn.lengths)
    frames = int(lengths.max())
    phi = np.repeat(np.asarray(drawn.goal)[:, None], frames, axis=1)
    phi[:, 0] = drawn.start
    motions = MotionSet(
        names=(shape.name,),
        target=np.zeros(len(grasps), np.int32),
        first=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        phi=np.concatenate([p[:n] for p, n in zip(phi, lengths, strict=True)]),
        wxyz_xyz_world_object=np.asarray(drawn.wxyz_xyz_world_object),
        q_squeeze=np.asarray(grasps.q_squeeze, np.float32),
    )
    grid = sdf.build(shape)
    world = World({shape.name: shape}, {shape.name: grid})
    grids = sdf.stack([motion_data.coarse(shape)])
    return motion_protocol.asked(motions), world, grids


def whole(
    hand: HandModel,
    shape: ObjectShape,
    phi: np.ndarray,
    q_squeeze: np.ndarray,
    placed: np.ndarray,
) -> Motion:
    """A motion and the lift that follows it, as one record: planned first, simulated then."""
    physics = LiftPhysics()
    happened = lift.replay(hand, shape, phi, q_squeeze, placed, physics=physics)
    planned = max(len(phi) - round(physics.replay * RATE), 0)
    world = np.concatenate(
        [
            np.repeat(np.asarray(placed)[None], planned, axis=0),
            np.asarray(happened.wxyz_xyz_world_object),
        ]
    )
    both = np.concatenate([phi[:planned], np.asarray(happened.phi)])
    return Motion(
        time=(np.arange(len(both)) / RATE).astype(np.float32),
        phi=both.astype(np.float32),
        wxyz_xyz_world_object=world.astype(np.float32),
    )


def clip(hand: HandModel, done: CarriedOut, i: int, caption: str, folder: Path) -> Clip:
    """A video of one motion and its lift, also written to `folder/<object>_<i>.mp4`."""
    motions = done.what.motions
    phi = done.phi[i, : done.what.lengths[i]]
    seen = whole(hand, done.shape, phi, motions.q_squeeze[i], motions.wxyz_xyz_world_object[i])
    path = video.write_mp4(
        folder / f"{done.shape.name}_{i}.mp4", video.draw(hand, done.shape, seen)
    )
    return Clip(done.shape.name, caption, video.as_html(path))
