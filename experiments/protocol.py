"""Measuring grasps as RealDex's Table 3 does: every metric on the same grasps, one row a stage."""

import dataclasses
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from experiments import converted, selection
from realdex_jax.data import object_files, pieces, schema, store
from realdex_jax.data.schema import GraspSet
from realdex_jax.data.store import Dataset
from realdex_jax.errors import DatasetError, RealdexError
from realdex_jax.evaluation import closure, grasp, spread
from realdex_jax.evaluation.results import METRICS, STAGES, Row, stat
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand.load import HandModel, load
from realdex_jax.select import features
from sim import displacement, intersection, meshes, objects, robustness, validation
from sim.physics import Physics, StrictPhysics

CONTACT_POINTS = 4096
"""Surface points of the contact metrics: up to 7 mm apart on the objects at hand."""
_HALF_PRECISION = 2e-3
"""Radians by which angles differ that were the same before they were stored as float16."""


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """One object to be evaluated on."""

    shape: ObjectShape
    grasps: GraspSet | None
    """Stored grasps, if the data has any."""
    hand: str = store.HAND
    """Name of the hand that these were made with."""


@dataclasses.dataclass(frozen=True, eq=False)
class Taken:
    """Grasps of one object and seed at one stage, to be measured."""

    stage: str
    entry: Entry
    seed: int
    grasps: GraspSet
    ms_per_grasp: float | None = None
    candidates: int | None = None
    """Grasps that a stage chose these from, if it chose ..."""
    passed: int | None = None
    """... and how many of all candidates passed the contact filter."""


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """The metrics of one `Taken`, each with one value a grasp (one in all if `Metric.whole`)."""

    taken: Taken
    values: dict[str, np.ndarray]
    seconds: dict[str, float]
    backend: str | None = None
    """What simulated the still-hand test; None without grasps."""


def entries_of_data(
    source: str, split: str, scheme: str = store.SCHEME, hand: str = store.HAND
) -> tuple[str, list[Entry], list[str]]:
    """Name of a dataset, its objects of one split with mesh and grasps, and notes for the reader.

    The notes name the objects that cannot be used and say what was done to the others' meshes.

    Raises:
        DatasetError: No such dataset of this hand, scheme or split, or no object of it that can
            be used.
    """
    dataset = store.open_dataset(converted.place(source), scheme, hand)
    if split not in dataset.splits:
        known = ", ".join(dataset.splits)
        raise DatasetError(f"no split {split!r} in {dataset.name}; known: {known}")
    names = dataset.splits[split]
    if not names:
        raise DatasetError(f"split {split!r} of {dataset.name} has no objects")
    entries: list[Entry] = []
    notes: list[str] = []
    refused: list[str] = []
    for name in names:
        try:
            shape, findings = shape_of(dataset, name)
            entries.append(Entry(shape, dataset.grasps(name), dataset.replay_hand))
        except RealdexError as error:
            refused.append(str(error))
        else:
            notes += [f"{name}: {finding}" for finding in findings]
    if not entries:
        raise DatasetError(f"no object of split {split!r} can be used; first: {refused[0]}")
    return dataset.name, entries, [f"left out: {reason}" for reason in refused] + notes


def entries_of_folder(
    folder: Path, scale: float | None, limit: int | None = None
) -> tuple[list[Entry], list[str]]:
    """Objects from a folder of meshes, and notes for the reader, as in `entries_of_data`.

    The object frame is the file's own, in metres, so that grasps fit the file.

    Raises:
        MeshError: No usable mesh.
    """
    found = meshes.shapes_from_folder(folder, scale=scale, recentre=False, limit=limit)
    notes = [
        f"left out: {reason.removeprefix(f'{path.parent}/')}" for path, reason in found.refused
    ]
    notes += [f"{name}: {finding}" for name, finding in found.findings]
    return [Entry(shape, None) for shape in found.shapes], notes


def shape_of(dataset: Dataset, name: str) -> tuple[ObjectShape, tuple[str, ...]]:
    """An object's shape, and what a reader must know about its mesh.

    Raises:
        RealdexError: It has no mesh, or one that cannot be used.
    """
    path = dataset.path / "objects" / name / "mesh.obj"
    if path.is_file():
        shape = pieces.read_shape(path, name)
        if shape is not None:
            return shape, ()
        imported = meshes.import_mesh(path, name=name, recentre=False)
        return imported.shape, imported.notable
    # Only our dataset means our parametric objects; anyone may call a scanned mug "mug".
    if dataset.name in store.EMBEDDED and name.partition("@")[0] in objects.names():
        return objects.make(name), ()
    raise DatasetError(f"{dataset.name}: no mesh for {name!r}; looked for {path}")


def measure(
    hand: HandModel,
    taken: Taken,
    physics: Physics | None = None,
    strict: StrictPhysics | None = None,
) -> Measured:
    """Runs every metric on one set of grasps.

    Args:
        hand: The hand that grasps are generated for; stored ones are measured with their own.
        taken: The grasps.
        physics: Of the still-hand test; the default if None.
        strict: Of the strict test; the default if None.
    """
    hand = hand_of(taken, hand)
    shape, grasps = taken.entry.shape, taken.grasps
    phi = np.asarray(grasps.phi, np.float32)
    values: dict[str, np.ndarray] = {}
    seconds: dict[str, float] = {}
    if not len(phi):
        return Measured(taken, values, seconds)
    start = time.perf_counter()
    moved = displacement.displacement(hand, shape, phi, physics, directions=6)
    values["sim_disp_0146_cm"] = moved.d_0146_cm
    values["sim_disp_1s_capped_cm"] = moved.d_1s_cm[:, 0]
    values["held"] = moved.held.astype(float)
    values["held_six"] = moved.held_six.astype(float)
    seconds["displacement"] = time.perf_counter() - start

    start = time.perf_counter()
    outcome = robustness.robustness(hand, shape, grasps, strict)
    values["robust_success"] = outcome.success.astype(float)
    seconds["robustness"] = time.perf_counter() - start

    start = time.perf_counter()
    values["penetration_cm"] = 100.0 * intersection.penetration_depth(hand, shape, phi)
    values["self_intersection_cm3"] = intersection.self_intersection_volume(hand, phi[:, :-6])
    surface = shape.surface(CONTACT_POINTS)
    gaps = grasp.link_distance(hand, phi, surface.points)
    values["contact_number"] = grasp.contact_number(hand, gaps).astype(float)
    values["contact_distance_mm"] = grasp.contact_distance_mm(hand, gaps)
    functional = objects.functional(shape, surface)
    if functional.any():
        near = grasp.touched(hand, phi, surface.points)
        values["functional_share"] = grasp.functional_share(near, functional)
    found_by_eye = selection.measure(hand, shape, phi, moved.d_1s_cm, physics or Physics())
    by_part = selection.by_part(found_by_eye)
    if by_part is not None:
        values["part_held"] = by_part.astype(float)
    if features.POSTURE in found_by_eye:  # what people do is known of hands like theirs
        values["human_score"] = selection.local_scores(found_by_eye)
    found = closure.contacts(hand, shape, phi)
    values["q1"] = closure.q1(found, shape.bounds.mean(axis=0))
    values["valid_q1"] = closure.valid_q1(values["q1"], values["penetration_cm"] / 100.0)
    values["q1_bench"] = closure.q1_bench(hand, found)
    whole: dict[str, float] = {"distinct_count": len(validation.distinct(phi, shape.symmetry))}
    if len(phi) > 1:
        poses = spread.spread(phi)
        whole["diversity"] = spread.diversity(phi)
        whole["joint_entropy"] = spread.joint_entropy(phi, hand.joints)[0]
        whole["pca_first_share"] = float(spread.explained_variance(phi)[0])
        whole["rotation_spread_deg"] = poses.rotation_deg
        whole["translation_spread_cm"] = poses.translation_cm
    if taken.ms_per_grasp is not None:
        whole["ms_per_grasp"] = taken.ms_per_grasp
    values |= {name: np.array([value]) for name, value in whole.items()}
    seconds["geometry"] = time.perf_counter() - start
    return Measured(taken, values, seconds, moved.backend)


def hand_of(taken: Taken, hand: HandModel) -> HandModel:
    """The hand of some grasps: of stored ones that of their dataset, else the given one.

    Raises:
        HandError: The dataset names a hand that there is not.
    """
    return load(taken.entry.hand) if taken.stage == "dataset" else hand


def deliver(measured: Sequence[Measured], folder: Path) -> list[Path]:
    """Writes the grasps of each object's last generated stage, best first, with their metrics.

    One `<object>.npz` per object, in the format of a dataset's grasps: poses in the object's frame
    (the mesh file's own), and a column for every metric, the seed and the stage (its number).
    """
    last: dict[str, list[Measured]] = {}
    for m in measured:
        if m.taken.stage == "dataset" or not len(m.taken.grasps):
            continue
        mine = last.setdefault(m.taken.entry.shape.name, [])
        if mine and STAGES.index(m.taken.stage) > STAGES.index(mine[0].taken.stage):
            mine.clear()
        if not mine or m.taken.stage == mine[0].taken.stage:
            mine.append(m)
    paths = []
    for name, mine in last.items():
        sets = []
        for m in mine:
            count = len(m.taken.grasps)
            each = sorted(metric for metric in m.values if not METRICS[metric].whole)
            columns = {metric: m.values[metric].astype(np.float32) for metric in each}
            columns["seed"] = np.full(count, m.taken.seed)
            columns["stage"] = np.full(count, STAGES.index(m.taken.stage))
            sets.append(dataclasses.replace(m.taken.grasps, columns=columns))
        paths.append(object_files.save_grasps(folder / f"{name}.npz", schema.concatenate(sets)))
    return paths


def rows(
    measured: Sequence[Measured], data: str, split: str, stages: Iterable[str], method: str
) -> list[Row]:
    """One row a stage over all objects and seeds."""
    out = []
    for stage in stages:
        mine = [m for m in measured if m.taken.stage == stage]
        if not mine:
            continue
        names = [name for name in METRICS if any(name in m.values for m in mine)]
        out.append(
            Row(
                data=data,
                split=split,
                method="stored" if stage == "dataset" else method,
                stage=stage,
                objects=len({m.taken.entry.shape.name for m in mine}),
                grasps=sum(len(m.taken.grasps) for m in mine),
                metrics={
                    name: stat(np.concatenate([m.values[name] for m in mine if name in m.values]))
                    for name in names
                },
            )
        )
    return out


def remarks(takens: Sequence[Taken]) -> list[str]:
    """What a reader must know about the grasps of each stage, seeds taken together."""
    others = {t.entry.hand for t in takens if t.stage == "dataset"} - {store.HAND}
    notes = [
        f"dataset: measured with the hand {name!r}, which these grasps were made with"
        for name in sorted(others)
    ]
    for stage in dict.fromkeys(taken.stage for taken in takens):
        mine = [taken for taken in takens if taken.stage == stage and len(taken.grasps)]
        if mine and not any(_grips(taken.grasps) for taken in mine):
            notes.append(
                f"{stage}: these grasps carry no pre-grasp and no squeeze, so nothing commands a "
                "grip and robust is near 0 by construction"
            )
    chosen = [taken for taken in takens if taken.stage == "filtered"]
    shares: list[str] = []
    filled: list[str] = []
    for name in dict.fromkeys(taken.entry.shape.name for taken in chosen):
        mine = [taken for taken in chosen if taken.entry.shape.name == name]
        passed = sum(taken.passed or 0 for taken in mine)
        shares.append(f"{name} {passed} of {sum(taken.candidates or 0 for taken in mine)}")
        delivered = sum(len(taken.grasps) for taken in mine)
        good = sum(min(taken.passed or 0, len(taken.grasps)) for taken in mine)
        if good < delivered:
            filled.append(
                f"{name}: {good} of {delivered} filtered grasps passed the filter; "
                "the best of the others fill up"
            )
    if shares:
        passed, tried = (sum(getattr(t, f) or 0 for t in chosen) for f in ("passed", "candidates"))
        share = passed / max(tried, 1)
        notes.append(f"candidates that passed the filter: {share:.2f} ({', '.join(shares)})")
    return notes + filled


def _grips(grasps: GraspSet) -> bool:
    """Whether any grasp opens before or presses after the grasp itself."""
    q = np.asarray(grasps.phi)[:, :-6]
    around = np.stack([np.asarray(grasps.q_pregrasp), np.asarray(grasps.q_squeeze)])
    return bool(np.abs(around - q).max(initial=0.0) > _HALF_PRECISION)


def caption(measured: Measured, index: int) -> str:
    """One line about one grasp, for under its picture."""
    v = {name: values[index] for name, values in measured.values.items() if index < len(values)}
    verdict = "robust" if v["robust_success"] else ("held" if v["held"] else "dropped")
    return (
        f"{measured.taken.stage}: {verdict}, depth {10 * v['penetration_cm']:.1f} mm, "
        f"{v['contact_number']:.0f} links touch"
    )


def pick(grasps: GraspSet, count: int, seed: int) -> Int[np.ndarray, " k"]:
    """Indices of `count` grasps drawn at random without repetition; all if there are fewer."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.permutation(len(grasps))[:count])
