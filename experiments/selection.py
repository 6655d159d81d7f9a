"""Choosing the grasps a person would make among those that hold: features, pictures, scores."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from realdex_jax.data import object_files, schema
from realdex_jax.data.schema import GraspSet
from realdex_jax.errors import DatasetError
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand.load import HandModel
from realdex_jax.select import features, scorer
from realdex_jax.select.local import LocalScorer
from realdex_jax.select.scorer import Score, Scorer, Subject, Task
from sim import displacement, objects, validation
from sim.physics import Physics

SURFACE_POINTS = 4096
"""Surface points that features are measured on: up to 7 mm apart on the objects at hand. With ten
times as many a grasp touches with a tenth of a link more."""
HELD = 0.5
"""A grasp has the object by the part for it from this value of `features.HOLD` on."""


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """Grasps of one object that hold it in physics, to choose from."""

    shape: ObjectShape
    grasps: GraspSet
    """Those that hold the object in all six directions, in the order they were given."""
    index: Int[np.ndarray, " b"]
    """Where they stood among those given."""
    features: dict[str, Float[np.ndarray, " b"]]
    """Measured features by name."""

    def __len__(self) -> int:
        """How many there are."""
        return len(self.index)


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What a scorer made of a pool."""

    scores: tuple[Score, ...]
    """One for each grasp of the pool."""
    best: tuple[int, ...]
    """Indices into the pool, best first."""


def pool(
    hand: HandModel, shape: ObjectShape, grasps: GraspSet, physics: Physics | None = None
) -> Pool:
    """Tests grasps in the still-hand test and measures those that hold in all six directions."""
    phi = np.asarray(grasps.phi, np.float32)
    physics = physics or Physics()
    moved = displacement.displacement(hand, shape, phi, physics, directions=6)
    index = np.flatnonzero(moved.held_six)
    found = measure(hand, shape, phi[index], moved.d_1s_cm[index], physics)
    return Pool(shape, schema.take(grasps, index), index, found)


def save(path: Path, pool_: Pool) -> Path:
    """Writes a pool, for `load`."""
    columns = {f"feature.{name}": values for name, values in pool_.features.items()}
    columns |= {"index": pool_.index}
    return object_files.save_grasps(path, dataclasses.replace(pool_.grasps, columns=columns))


def load(path: Path, shape: ObjectShape) -> Pool:
    """Reads the pool of an object.

    Raises:
        DatasetError: No such file, or it holds something else.
    """
    grasps = object_files.load_grasps(path)
    columns = grasps.columns or {}
    found = {
        name.removeprefix("feature."): np.asarray(values, float)
        for name, values in columns.items()
        if name.startswith("feature.")
    }
    if not found or "index" not in columns:
        raise DatasetError(f"{path}: grasps without features; it is no pool that a selection left")
    return Pool(shape, grasps, np.asarray(columns["index"], int), found)


def measure(
    hand: HandModel,
    shape: ObjectShape,
    phi: Float[np.ndarray, "b phi"],
    d_1s_cm: Float[np.ndarray, "b 6"],
    physics: Physics,
) -> dict[str, Float[np.ndarray, " b"]]:
    """Features of grasps, with the margin that physics left them: displacements in six ways."""
    surface = shape.surface(SURFACE_POINTS)
    part = objects.held_part(shape, surface)
    where, enough = part or (None, HELD)
    found = features.measure(hand, phi, surface.points, surface.normals, where, enough)
    worst = d_1s_cm.max(axis=1) / (100.0 * physics.held)
    return {**found, features.STABILITY: np.clip(1.0 - worst, 0.0, 1.0)}


def by_part(found: dict[str, Float[np.ndarray, " b"]]) -> Bool[np.ndarray, " b"] | None:
    """Which grasps have the object by the part that people take it by; None if none is known."""
    held = found.get(features.HOLD)
    return None if held is None else held >= HELD


def local_scores(found: dict[str, Float[np.ndarray, " b"]]) -> Float[np.ndarray, " b"]:
    """What the local scorer says of grasps."""
    subjects = [Subject(str(i), features=one) for i, one in enumerate(each(found))]
    return np.array([score.value for score in LocalScorer().score(Task(""), subjects)])


def each(found: dict[str, Float[np.ndarray, " b"]]) -> list[dict[str, float]]:
    """The features of each grasp."""
    count = len(next(iter(found.values()), ()))
    return [{name: float(values[i]) for name, values in found.items()} for i in range(count)]


def choose(
    scorer_: Scorer,
    task: Task,
    pool_: Pool,
    count: int,
    pictures: Sequence[bytes] = (),
) -> Chosen:
    """Scores a pool and takes its best grasps, no two the same while there are others.

    Args:
        scorer_: Gives the scores.
        task: What is to be done with the object.
        pool_: The grasps.
        count: Number wanted; fewer if the pool is smaller.
        pictures: A PNG of each grasp, for scorers that look.
    """
    if not len(pool_):
        return Chosen((), ())
    part = objects.held_label(pool_.shape)
    subjects = [
        Subject(f"{pool_.shape.name} {i}", pictures[k] if pictures else b"", found, part)
        for k, (i, found) in enumerate(zip(pool_.index, each(pool_.features), strict=True))
    ]
    scores = scorer_.score(task, subjects)
    ranked = np.array(scorer.best(scores, len(scores), scorer_.name))
    phi = np.asarray(pool_.grasps.phi)[ranked]
    new = validation.distinct(phi, pool_.shape.symmetry)
    again = np.setdiff1d(np.arange(len(ranked)), new)
    order = ranked[np.concatenate([new, again]).astype(int)][:count]
    return Chosen(tuple(scores), tuple(order.tolist()))
