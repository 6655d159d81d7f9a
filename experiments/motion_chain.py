"""From a grasp to the lifted object: motion, trajectory optimisation, lift, and what to show."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from experiments import motion_data, motion_protocol
from experiments.motion_protocol import Asked, World
from realdex_jax import rollout, touch
from realdex_jax.data import motion_set
from realdex_jax.data.motion import RATE, Motion
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
from sim.demonstrate import Attempts
from sim.physics import LiftPhysics

_REDRAWS = 10


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
    what, phi = reach(hand, model, shape, grasps, seed)
    lifted = motion_protocol.lifts(hand, what, shape, phi, np.arange(len(what.motions)))
    return CarriedOut(shape, what, phi, lifted)


def reach(
    hand: HandModel,
    model: MotionModel,
    shape: ObjectShape,
    grasps: GraspSet,
    seed: int,
    wxyz_xyz_world_object: Float[np.ndarray, " 7"] | None = None,
) -> tuple[Asked, Float[np.ndarray, "b f 28"]]:
    """A drawn situation for every grasp, and the mended motion to it in the world.

    Args:
        hand: The hand.
        model: What makes the motions.
        shape: The object, standing on its lowest point.
        grasps: Its grasps, in the object frame.
        seed: Of the situations.
        wxyz_xyz_world_object: Where the object stands; see `situations`.

    Raises:
        DatasetError: A grasp that makes no sense, or a start inside the object.
    """
    what, world, grids = situations(hand, shape, grasps, seed, wxyz_xyz_world_object)
    motion_protocol.check(hand, what, world)
    phi = made(hand, model, grids, what)
    return what, motion_protocol.mend(hand, what, world, phi, TrajectoryConfig())


def made(
    hand: HandModel, model: MotionModel, grids: SdfGrids | None, what: Asked
) -> Float[np.ndarray, "b f 28"]:
    """A model's motions, padded like the demonstrations: after its last frame each one rests."""
    motions = what.motions
    given = (what.true[:, 0], what.true[:, -1], what.lengths)
    given = (*given, motions.wxyz_xyz_world_object, motions.target)
    seen = grids if motion_model.needs_grids(model.config) else None
    phi = np.asarray(
        _generate(
            hand,
            model.config,
            what.padded_frames,
            model.params,
            seen,
            *(jnp.asarray(x) for x in given),
        )
    )
    frames = np.minimum(np.arange(what.frames), what.lengths[:, None] - 1)
    return np.take_along_axis(phi, frames[..., None], axis=1)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _generate(
    hand: HandModel,
    config: motion_model.Config,
    frames: int,
    params: Any,
    grids: SdfGrids | None,
    start: Array,
    goal: Array,
    steps: Array,
    placed: Array,
    target: Array,
) -> Array:
    """`rollout.generate` with parameters as an argument: seeds share a compiled program."""
    model = MotionModel(config=config, params=params)
    return rollout.generate(hand, model, grids, start, goal, steps, placed, target, frames=frames)


def situations(
    hand: HandModel,
    shape: ObjectShape,
    grasps: GraspSet,
    seed: int,
    wxyz_xyz_world_object: Float[np.ndarray, " 7"] | None = None,
) -> tuple[Asked, World, SdfGrids]:
    """One drawn situation per grasp: nothing is demonstrated, the goal alone is known.

    Args:
        hand: The hand.
        shape: The object.
        grasps: Its grasps, in the object frame.
        seed: Of what is drawn.
        wxyz_xyz_world_object: Where the object stands; if None as an operator would put it for each
            grasp.
    """
    rng = np.random.default_rng(seed)
    grid = sdf.build(shape)
    drawn = _clear(hand, shape, grasps, grid, rng, wxyz_xyz_world_object)
    lengths = np.asarray(drawn.lengths)
    frames = int(lengths.max())
    phi = np.repeat(np.asarray(drawn.goal)[:, None], frames, axis=1)
    phi[:, 0] = drawn.start
    motions = motion_set.of_poses(
        (shape.name,),
        np.zeros(len(grasps), np.int32),
        [p[:n] for p, n in zip(phi, lengths, strict=True)],
        np.asarray(drawn.wxyz_xyz_world_object),
        np.asarray(grasps.q_squeeze, np.float32),
    )
    world = World({shape.name: shape}, {shape.name: grid})
    grids = sdf.stack([motion_data.coarse(shape)])
    return motion_protocol.asked(motions), world, grids


def _clear(
    hand: HandModel,
    shape: ObjectShape,
    grasps: GraspSet,
    grid: sdf.SdfGrid,
    rng: np.random.Generator,
    wxyz_xyz_world_object: Float[np.ndarray, " 7"] | None,
) -> Attempts:
    """Situations whose start is clear of the object; one start in a thousand is drawn again."""
    config = demonstrate.DemonstrationConfig()
    again = functools.partial(
        demonstrate.draw,
        shape,
        grasps,
        len(grasps),
        rng,
        config,
        in_order=True,
        wxyz_xyz_world_object=wxyz_xyz_world_object,
    )
    drawn = again()
    for _ in range(_REDRAWS):
        placed = jnp.asarray(drawn.wxyz_xyz_world_object)
        depths = touch.depths(hand, grid, jnp.asarray(drawn.start), placed)
        inside = np.asarray(jnp.maximum(*depths)) > 0.0
        if not inside.any():
            break
        fresh = again()
        drawn = jax.tree.map(
            lambda new, old: np.where(inside.reshape(-1, *[1] * (old.ndim - 1)), new, old),  # noqa: B023
            fresh,
            drawn,
        )
    return drawn


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
    # The simulation begins in a frame of the motion: those before it are as planned.
    planned = max(len(phi) - 1 - round(physics.replay * RATE), 0)
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
