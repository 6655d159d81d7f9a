"""How motions are judged: Table 4's protocol, penetration on the way, and the lift."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from experiments.motion_data import MotionData
from realdex_jax import rollout, trajectory
from realdex_jax.data.motion_set import MotionSet
from realdex_jax.errors import DatasetError
from realdex_jax.evaluation import motion as metrics
from realdex_jax.evaluation.results import Row, Stat, stat
from realdex_jax.geometry import sdf
from realdex_jax.geometry.sdf import SdfGrid
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand.load import HandModel
from realdex_jax.trajectory import TrajectoryConfig
from sim.lift import lift

_CHUNK = 16  # motions mended together, so that memory stays bounded
_FRAMES_TOGETHER = 15  # lengths are rounded up to a second


@dataclasses.dataclass(frozen=True, eq=False)
class World:
    """What a set of motions happens among."""

    shapes: dict[str, ObjectShape]
    grids: dict[str, SdfGrid]
    """Fine grids, for judging and mending."""


@dataclasses.dataclass(frozen=True, eq=False)
class Asked:
    """What every method is given, and what was demonstrated; motions padded to one length."""

    motions: MotionSet
    true: Float[np.ndarray, "b f 28"]
    lengths: Int[np.ndarray, " b"]

    @property
    def frames(self) -> int:
        """The common length."""
        return self.true.shape[1]

    @property
    def padded_frames(self) -> int:
        """The common length, or a little more, so that few lengths are ever compiled."""
        return -(-self.frames // _FRAMES_TOGETHER) * _FRAMES_TOGETHER


@dataclasses.dataclass(frozen=True, eq=False)
class Judged:
    """One method with one training seed, on all motions."""

    method: str
    stage: str
    seed: int
    phi: Float[np.ndarray, "b f 28"]
    values: Mapping[str, Float[np.ndarray, " b"]]
    """Per motion, by name."""


def world_of(data: MotionData, part: str) -> World:
    """Shapes and grids of a part's objects; empty where they are not known."""
    if not data.shapes:
        return World({}, {})
    shapes = {name: data.shape(name) for name in data.parts[part].names}
    return World(shapes, {name: sdf.build(shape) for name, shape in shapes.items()})


def asked(motions: MotionSet) -> Asked:
    """Pads motions to one length."""
    lengths = motions.lengths().astype(np.int32)
    true = metrics.padded([motions.poses(i) for i in range(len(motions))], int(lengths.max()))
    return Asked(motions, true, lengths)


def check(hand: HandModel, what: Asked, world: World) -> None:
    """Checks starts, goals and lengths before anything moves.

    Raises:
        DatasetError: One of them makes no sense; see `rollout.check_ends` and `check_clear`.
    """
    start = what.true[:, 0]
    rollout.check_ends(start, what.true[:, -1], what.lengths)
    for name, mine in _by_object(what.motions) if world.grids else ():
        placed = what.motions.wxyz_xyz_world_object[mine]
        try:
            rollout.check_clear(hand, world.grids[name], start[mine], placed)
        except DatasetError as error:
            raise DatasetError(f"{name}: {error}") from error


def judge(
    hand: HandModel,
    what: Asked,
    world: World,
    phi: Float[np.ndarray, "b f 28"],
    *,
    method: str,
    stage: str,
    seed: int,
) -> Judged:
    """Measures one method's motions; those of an object that is not known, without it."""
    values = {
        name: np.asarray(v)
        for name, v in metrics.measured(
            hand, jnp.asarray(phi), jnp.asarray(what.true), jnp.asarray(what.lengths)
        ).items()
    }
    motions = what.motions
    if world.shapes:
        around = {name: np.full(len(motions), np.nan) for name in ("min_dist_mm", "worst_mm")}
        lifted = np.zeros(len(motions))
        for name, mine in _by_object(motions):
            placed = motions.wxyz_xyz_world_object[mine]
            found = metrics.against_object(
                hand,
                world.grids[name],
                jnp.asarray(phi[mine]),
                jnp.asarray(what.true[mine, -1]),
                jnp.asarray(placed),
            )
            for key, column in around.items():
                column[mine] = np.asarray(found[key])
            lifted[mine] = lifts(hand, what, world.shapes[name], phi, mine)
        values |= {**around, "lift_success": lifted}
    return Judged(method, stage, seed, phi, values)


def lifts(
    hand: HandModel, what: Asked, shape: ObjectShape, phi: np.ndarray, mine: Int[np.ndarray, " k"]
) -> Bool[np.ndarray, " k"]:
    """Whether the chosen motions, all around one object, end in a lift."""
    motions = what.motions
    return lift(
        hand,
        shape,
        [phi[i, : what.lengths[i]] for i in mine],
        motions.q_squeeze[mine],
        motions.wxyz_xyz_world_object[mine],
    ).success


def mend(
    hand: HandModel,
    what: Asked,
    world: World,
    phi: Float[np.ndarray, "b f 28"],
    config: TrajectoryConfig,
) -> Float[np.ndarray, "b f 28"]:
    """The motions after the trajectory optimisation."""
    mended = np.array(phi)
    motions = what.motions
    longer = what.padded_frames - what.frames
    phi = np.pad(phi, ((0, 0), (0, longer), (0, 0)), mode="edge")
    for name, mine in _by_object(motions):
        for start in range(0, len(mine), _CHUNK):
            part = mine[start : start + _CHUNK]
            # Chunks of one size compile once; what fills the last one up is thrown away.
            full = np.resize(part, _CHUNK)
            found = trajectory.optimise(
                hand,
                world.grids[name],
                jnp.asarray(phi[full]),
                jnp.asarray(what.true[full, -1]),
                jnp.asarray(what.lengths[full]),
                jnp.asarray(motions.wxyz_xyz_world_object[full]),
                config,
            )
            found = np.asarray(jax.block_until_ready(found))
            mended[part] = found[: len(part), : what.frames]
    return mended


def row(data: str, split: str, what: Asked, judged: Sequence[Judged]) -> Row:
    """A method's row: mean over motions, then mean and spread over training seeds.

    The demonstrations themselves have no seeds; their spread is that over motions.
    """
    first = judged[0]
    measured: dict[str, Stat] = {}
    for name in first.values:
        if name == "worst_mm":
            p95 = [float(np.percentile(j.values[name], 95)) for j in judged]
            measured["motion_penetration_p95_mm"] = stat(p95)
        elif first.stage == "dataset":
            measured[name] = stat(first.values[name])
        else:
            measured[name] = stat([float(j.values[name].mean()) for j in judged])
    return Row(
        data=data,
        split=split,
        method=first.method,
        stage=first.stage,
        objects=len(_by_object(what.motions)),
        grasps=sum(len(j.phi) for j in judged),
        metrics=measured,
    )


def per_object(what: Asked, judged: Sequence[Judged], name: str) -> dict[str, float]:
    """Mean of one metric per object, over all motions and seeds."""
    return {
        of: float(np.mean([j.values[name][mine].mean() for j in judged]))
        for of, mine in _by_object(what.motions)
    }


def _by_object(motions: MotionSet) -> list[tuple[str, Int[np.ndarray, " k"]]]:
    found = ((name, np.flatnonzero(motions.target == i)) for i, name in enumerate(motions.names))
    return [(name, mine) for name, mine in found if len(mine)]
