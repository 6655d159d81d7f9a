"""Makes RealDex-Sim: grasps for the 52 objects, synthesised, settled and strictly tested.

    python -m experiments.make_dataset                 # the shipped set: 200 / 60 / 60 per object
    python -m experiments.make_dataset --preset small  # a few grasps of six objects, minutes
    python -m experiments.make_dataset --preset small --hand allegro --out runs/allegro
    python -m experiments.make_dataset --preset wide   # training objects in three sizes, many cores
    python -m experiments.make_frames                  # pictures of its motions, four cameras

One process per core, each with one object at a time; every batch is saved with its settings, so an
interrupted run goes on where it stopped and gives the same grasps, and one with other settings is
refused. A process that is killed costs its batch at hand; another goes on with its object. On an
accelerator use one process and a larger batch. Exit status: 0 if every object has its quota, 1 if
not, 2 if it could not be done.
Takes 14 minutes on 2 cores.
"""

import contextlib
import dataclasses
import io
import json
import os
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments import commands, workers
from realdex_jax.data import folder, npz, schema, store
from realdex_jax.data.object_files import Surface
from realdex_jax.data.schema import GraspSet
from realdex_jax.errors import DatasetError, HandError, UnknownObjectError
from realdex_jax.evaluation.results import commit as commit_now
from realdex_jax.geometry import sdf
from realdex_jax.hand.load import known as known_hands
from realdex_jax.hand.load import load
from sim import native, objects
from sim.physics import Physics, StrictPhysics
from sim.synthesis import SynthesisConfig
from sim.validation import Tally, distinct, holds, synthesise

PresetName = Literal["full", "small", "wide"]

HARD = 0.4
"""While a smaller share of an object's starts is strictly valid, some of the next ones are drawn
around the grasps it already has."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the synthesis run."""

    out: Path = Path("runs/realdex_sim")
    """Folder of the dataset; progress is kept beside it in `<out>.parts`."""
    hand: str = store.HAND
    """The hand that grasps."""
    seed: int = 0
    train: int = 200
    """Distinct grasps per training object."""
    test: int = 60
    """Distinct grasps per validation and test object."""
    batch: int = 128
    """Starts optimised together."""
    max_batches: int = 200
    """Give up on an object after this many batches, and say so; the shipped set needed 7."""
    processes: int = 0
    """Worker processes; 0 means one per core."""
    objects: tuple[str, ...] = ()
    """Only these objects; all if empty."""
    points: int = 4096
    """Surface points stored per object."""
    scales: tuple[float, ...] = (1.0,)
    """Sizes of each training object, every one with grasps of its own; others keep their size."""
    masses: tuple[float, ...] = ()
    """Masses (kg) at which every grasp passes the strict test, beside that of the test itself."""


PRESETS: dict[PresetName, Settings] = {
    "full": Settings(),
    "small": Settings(
        out=Path("runs/realdex_sim_small"),
        train=20,
        test=10,
        objects=("beer_can", "body_wash", "duck_toy", "yogurt", "cosmetics", "small_sprayer"),
    ),
    "wide": Settings(
        out=Path("runs/realdex_sim_wide"), train=150, max_batches=40, scales=(0.8, 1.0, 1.25)
    ),
}
"""full: the shipped set, 14 minutes with two processes on two cores. small: minutes.
wide: not run to its end yet; by one batch of each new size about two core-hours, spread over as
many cores as there are, and ten minutes for the slowest object. A process takes 1.3 GB."""


@dataclasses.dataclass(frozen=True)
class MakeDataset:
    """Command line of this script."""

    preset: PresetName = "full"
    """full: the shipped set. small: a few grasps of six objects. wide: the training objects in
    three sizes."""
    out: Path | None = None
    """Folder of the dataset instead of the preset's; progress is kept in `<out>.parts`."""
    hand: str | None = None
    """The hand that grasps instead of the preset's: shadow, or any other that has its own joints
    (docs/extending.md)."""
    seed: int | None = None
    """Seed instead of the preset's."""
    train: int | None = None
    """Distinct grasps per training object instead of the preset's."""
    test: int | None = None
    """Distinct grasps per validation and test object instead of the preset's."""
    batch: int | None = None
    """Starts optimised together instead of the preset's."""
    max_batches: int | None = None
    """Batches after which an object is given up, instead of the preset's."""
    processes: int | None = None
    """Worker processes; 0 means one per core."""
    objects: tuple[str, ...] | None = None
    """These objects instead of the preset's."""
    points: int | None = None
    """Surface points stored per object instead of the preset's."""
    scales: tuple[float, ...] | None = None
    """Sizes of each training object instead of the preset's, e.g. 0.8 1.0 1.25."""
    masses: tuple[float, ...] | None = None
    """Further masses (kg) that every grasp holds, instead of the preset's, e.g. 0.05 0.2."""

    def settings(self) -> Settings:
        """The preset with the command line's changes."""
        given = {k: v for k, v in vars(self).items() if k != "preset" and v is not None}
        return dataclasses.replace(PRESETS[self.preset], **given)


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    config = commands.read(MakeDataset, __doc__, plan=plan)
    console = Console()
    with commands.ending(console, "stopped; the same command goes on"):
        recipe = run(config.settings(), commands.line(), console)
    short = [n for n, row in recipe["objects"].items() if row["distinct"] < row["quota"]]
    if short:
        console.print(f"[red]below quota: {', '.join(short)}[/red]")
        sys.exit(1)


def plan(config: MakeDataset) -> Iterator[str]:
    """What a dry run says."""
    settings = config.settings()
    _check(settings)
    folder.check_target(settings.out)
    parts = _parts(settings)
    splits = variants(objects.SPLITS, settings)
    names = [name for group in splits.values() for name in group]
    begun = [name for name in names if resume(parts, name, settings) is not None]
    wanted = sum(
        len(group) * (settings.train if part == "train" else settings.test)
        for part, group in splits.items()
    )
    count = settings.processes or native.cores()
    yield f"{len(names)} objects, {wanted} grasps, in {count} processes; {len(begun)} are begun"
    yield f"results go to {settings.out}, progress to {parts}"


def run(config: Settings, command: str, console: Console) -> dict[str, Any]:
    """Synthesises all objects and writes the dataset folder; returns its recipe.

    Args:
        config: The settings.
        command: How the run was started, for the recipe.
        console: Where progress goes.

    Raises:
        RealdexError: Settings that make no sense, something else than a dataset at `out`, or parts
            of a run with other settings.
    """
    _check(config)
    hand = load(config.hand)
    splits = variants(objects.SPLITS, config)
    part_of = {name: part for part, group in splits.items() for name in group}
    names = sorted(part_of)
    folder.check_target(config.out)
    parts = _parts(config)
    parts.mkdir(parents=True, exist_ok=True)
    for name in names:  # before the hours, not after
        resume(parts, name, config)
    commit = commit_now()
    quota = {n: config.train if part_of[n] == "train" else config.test for n in names}
    count = config.processes or native.cores()
    workers.share_cores(accelerator=count == 1)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(parts / "compiled"))
    began = time.perf_counter()
    jobs = {n: (n, quota[n], config, parts) for n in names}
    results: dict[str, Any] = {}
    with (
        commands.progress(console) as progress,
        contextlib.closing(workers.each(jobs, make_object, count)) as finished,
    ):
        task = progress.add_task("objects", total=len(jobs))
        for done in finished:
            results[done.name] = row = done.value()
            died = f", begun again {done.deaths} times" if done.deaths else ""
            console.print(
                f"{done.name}: {row['distinct']} distinct of {row['starts']} starts "
                f"({row['valid'] / max(row['starts'], 1):.2f} strictly valid){died}"
            )
            progress.advance(task)
    recipe = {
        "command": command,
        "commit": commit,
        "settings": {k: str(v) if isinstance(v, Path) else v for k, v in vars(config).items()},
        "synthesis": dataclasses.asdict(SynthesisConfig(batch=config.batch)),
        "physics": {"still": Physics().describe(), "strict": StrictPhysics.of(hand).describe()},
        "processes": count,
        "last_run_seconds": round(time.perf_counter() - began, 1),
        "objects": results,
    }
    kept = {n: _first(npz.read(parts / f"{n}.npz"), quota[n]) for n in names}
    store.write_dataset(
        config.out,
        name="realdex-sim",
        version="1.0",
        grasps=kept,
        splits=splits,
        recipe=recipe,
        surfaces={n: _surface(n, config.points) for n in names},
        schemes={
            scheme: _among(variants(whole, config), part_of)
            for scheme, whole in objects.SCHEMES.items()
        },
        hand=config.hand,
    )
    _print(console, results)
    return recipe


def _parts(config: Settings) -> Path:
    return config.out.parent / f"{config.out.name}.parts"


def variants(parts: Mapping[str, Sequence[str]], config: Settings) -> dict[str, tuple[str, ...]]:
    """The asked objects of each part; those of "train" in every size of the settings."""

    def sizes(part: str) -> tuple[float, ...]:
        return config.scales if part == "train" else (objects.ORIGINAL,)

    return {
        part: tuple(
            objects.variant(name, size)
            for name in group
            if name in config.objects or not config.objects
            for size in sizes(part)
        )
        for part, group in parts.items()
    }


def _among(
    parts: Mapping[str, Sequence[str]], names: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """What there is of each part; sizes are made of the training objects of `SPLITS` only."""
    return {part: tuple(n for n in group if n in names) for part, group in parts.items()}


def _check(config: Settings) -> None:
    hands = [name for name in known_hands() if name == load(name).joints.hand]
    if config.hand not in hands:
        raise HandError(
            f"no hand {config.hand!r} with joints of its own; known: {', '.join(hands)}"
        )
    known = objects.names()
    for name in config.objects:
        if name not in known:
            raise UnknownObjectError(f"no object {name!r}; known: {', '.join(known)}")
    for what in ("train", "test", "batch", "max_batches", "points"):
        if getattr(config, what) < 1:
            raise DatasetError(f"{what} is {getattr(config, what)}; it must be at least one")
    if config.seed < 0 or config.processes < 0:
        raise DatasetError(
            f"seed is {config.seed}, processes {config.processes}; neither may be negative"
        )
    for what in ("scales", "masses"):
        values = getattr(config, what)
        if len(set(values)) != len(values):
            raise DatasetError(f"{what} are {', '.join(map(str, values))}; each may be named once")
    if not config.scales:
        raise DatasetError("no scales; give at least one, 1 for the objects as they are")
    for scale in config.scales:
        objects.variant("any object", scale)
    for mass in config.masses:
        if not 0 < mass < np.inf:
            raise DatasetError(f"mass {mass} kg is not positive")
        if mass == StrictPhysics().mass:
            raise DatasetError(f"{mass} kg is the strict test's own mass; leave it out of masses")


@dataclasses.dataclass(frozen=True)
class Part:
    """How far one object has come."""

    tally: Tally = dataclasses.field(default_factory=Tally)
    batches: int = 0
    gate: Any = None
    """Constants of the last gate."""


def made_with(config: Settings) -> dict[str, Any]:
    """The settings that decide an object's grasps, as they read from JSON."""
    decisive = {
        "hand": config.hand,
        "seed": config.seed,
        "synthesis": dataclasses.asdict(SynthesisConfig(batch=config.batch)),
        "strict": StrictPhysics.of(load(config.hand)).describe(),
        "hard": HARD,
        "masses": list(config.masses),
    }
    return json.loads(json.dumps(decisive))


def resume(parts: Path, name: str, config: Settings) -> Part | None:
    """Reads how far an object has come; None if it was not begun.

    Raises:
        DatasetError: It was begun with other settings, or its note is damaged.
    """
    note = parts / f"{name}.json"
    way_on = f"go on with the old settings, choose another --out, or delete {parts}"
    try:
        old = json.loads(note.read_text(encoding="utf-8"))
        before, now = old.get("settings"), made_with(config)
        if before is not None:
            # Older parts do not name what they had no choice in.
            before = {"masses": [], "hand": store.HAND, **before}
        part = Part(Tally(**old["tally"]), int(old["batches"]), old.get("gate"))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{note} is damaged: {error!r}; delete {parts}") from error
    if before is None:
        raise DatasetError(f"{note} does not say with which settings it was made; {way_on}")
    if before != now:
        was, wanted = _flat(before), _flat(now)
        key = next(k for k in (*wanted, *was) if was.get(k) != wanted.get(k))
        raise DatasetError(
            f"{note} was made with {key} = {was.get(key)}, this run has {wanted.get(key)}; {way_on}"
        )
    return part


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    pairs = ((f"{prefix}.{k}" if prefix else str(k), v) for k, v in tree.items())
    return {k: v for name, branch in pairs for k, v in _flat(branch, name).items()}


def make_object(name: str, quota: int, config: Settings, parts: Path) -> dict[str, Any]:
    """Synthesises one object until its quota of distinct grasps; resumes from its part file."""
    hand, shape = load(config.hand), objects.make(name)
    settings = SynthesisConfig(batch=config.batch)
    path, note = parts / f"{name}.npz", parts / f"{name}.json"
    gate = Physics().describe()

    def save(grasps: GraspSet) -> None:
        _save(path, grasps)
        state = {
            "settings": made_with(config),
            "tally": dataclasses.asdict(tally),
            "batches": batches,
            "gate": gate,
        }
        _write(note, json.dumps(state).encode())

    tally, batches, grasps = Tally(), 0, None
    if part := resume(parts, name, config):
        tally, batches = part.tally, part.batches
        grasps = _grasp_set(npz.read(path))
        if part.gate != gate:  # made under another last gate: test again
            held, _ = holds(hand, shape, grasps, threads=1)
            grasps = schema.take(grasps, np.flatnonzero(held))
            save(grasps)
    grid = None
    while batches < config.max_batches and (grasps is None or len(grasps) < quota):
        if grid is None:
            began = time.perf_counter()
            grid = sdf.build(shape)
            tally += Tally(seconds_optimise=time.perf_counter() - began)
        hard = tally.valid < HARD * tally.starts
        fresh, counts = synthesise(
            hand,
            shape,
            batch_seed(config.seed, name, batches),
            grid=grid,
            config=settings,
            known=np.asarray(grasps.phi) if grasps is not None and hard else None,
            masses=config.masses,
            threads=1,
        )
        # A batch without grasps may lack columns, and joining keeps only those that all have.
        sets = [s for s in (grasps, fresh) if s is not None and len(s)] or [fresh]
        both = schema.concatenate(sets) if len(sets) > 1 else sets[0]
        known = range(0 if grasps is None else len(grasps))
        grasps = schema.take(both, distinct(np.asarray(both.phi), shape.symmetry, tuple(known)))
        tally, batches = tally + counts, batches + 1
        save(grasps)
    count = 0 if grasps is None else len(grasps)
    return {**dataclasses.asdict(tally), "batches": batches, "distinct": count, "quota": quota}


def batch_seed(seed: int, name: str, batch: int) -> int:
    """Seed of one batch, the same wherever and in whatever order objects run."""
    words = [seed, batch, *name.encode()]
    return int(np.random.SeedSequence(words).generate_state(1)[0] >> 1)


def _surface(name: str, count: int) -> Surface:
    sample = objects.make(name).surface(count, seed=0)
    return Surface(sample.points.astype(np.float32), sample.normals.astype(np.float32))


def _grasp_set(arrays: dict[str, np.ndarray]) -> GraspSet:
    columns = {k.removeprefix("column."): v for k, v in arrays.items() if k.startswith("column.")}
    return GraspSet(arrays["phi"], arrays["q_pregrasp"], arrays["q_squeeze"], columns)


def _first(arrays: dict[str, np.ndarray], quota: int) -> GraspSet:
    return schema.take(_grasp_set(arrays), slice(0, quota))


def _save(path: Path, grasps: GraspSet) -> None:
    arrays: dict[str, Any] = {
        "phi": grasps.phi,
        "q_pregrasp": grasps.q_pregrasp,
        "q_squeeze": grasps.q_squeeze,
        **{f"column.{k}": v for k, v in grasps.columns.items()},
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    _write(path, buffer.getvalue())


def _write(path: Path, content: bytes) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_bytes(content)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _print(console: Console, results: dict[str, Any]) -> None:
    table = Table(title="RealDex-Sim synthesis")
    for column in ("object", "starts", "promising", "settled", "valid", "kept", "distinct"):
        table.add_column(column, justify="left" if column == "object" else "right")
    for name, r in sorted(results.items()):
        table.add_row(
            name,
            str(r["starts"]),
            *(
                f"{r[k] / max(r['starts'], 1):.2f}"
                for k in ("promising", "settled", "valid", "kept")
            ),
            str(r["distinct"]),
        )
    console.print(table)
    starts, valid = (sum(r[k] for r in results.values()) for k in ("starts", "valid"))
    busy = sum(r["seconds_optimise"] + r["seconds_physics"] for r in results.values())
    mean = np.mean([r["valid"] / max(r["starts"], 1) for r in results.values()])
    console.print(
        f"{valid} strictly valid of {starts} starts ({valid / max(starts, 1):.2f}; mean over "
        f"objects {mean:.2f}), {valid / max(busy, 1e-9):.1f} per process-second"
    )


if __name__ == "__main__":
    main()
