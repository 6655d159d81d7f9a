"""Makes RealDex-Sim: grasps for the 52 objects, synthesised, settled and strictly tested.

    python -m experiments.make_dataset                 # the shipped set: 200 / 60 / 60 per object
    python -m experiments.make_dataset --preset small  # a few grasps of six objects, minutes

One process per core, each with one object at a time; every batch is saved, so an interrupted run
goes on where it stopped and gives the same grasps. On an accelerator use one process and a larger
batch.
"""

import concurrent.futures
import dataclasses
import io
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from realdex_jax.data import schema, store
from realdex_jax.data.schema import GraspSet
from realdex_jax.data.store import Surface
from realdex_jax.geometry import sdf
from realdex_jax.hand.load import load
from sim import objects
from sim.physics import Physics, StrictPhysics
from sim.synthesis import SynthesisConfig
from sim.validation import Tally, distinct, holds, synthesise

OUT = Path("runs/realdex_sim")


@dataclasses.dataclass(frozen=True)
class MakeDataset:
    """Settings of the synthesis run."""

    out: Path = OUT
    """Folder of the dataset; progress is kept beside it in `<out>.parts`."""
    seed: int = 0
    train: int = 200
    """Distinct grasps per training object."""
    test: int = 60
    """Distinct grasps per validation and test object."""
    batch: int = 128
    """Starts optimised together."""
    max_batches: int = 60
    """Give up on an object after this many batches, and say so."""
    processes: int = 0
    """Worker processes; 0 means one per core."""
    objects: tuple[str, ...] = ()
    """Only these objects; all if empty."""
    points: int = 4096
    """Surface points stored per object."""


PRESETS: dict[str, MakeDataset] = {
    "full": MakeDataset(),
    "small": MakeDataset(
        out=Path("runs/realdex_sim_small"),
        train=20,
        test=10,
        objects=("beer_can", "body_wash", "duck_toy", "yogurt", "cosmetics", "small_sprayer"),
    ),
}


def main(preset: Literal["full", "small"] = "full", config: MakeDataset | None = None) -> None:
    """Runs the synthesis and writes the dataset.

    Args:
        preset: Named settings to start from.
        config: Settings; replaces the preset where given.
    """
    run(config or PRESETS[preset])


def run(config: MakeDataset) -> dict[str, Any]:
    """Synthesises all objects and writes the dataset folder; returns its recipe."""
    console = Console()
    split_of = {name: split for split, names in objects.SPLITS.items() for name in names}
    names = config.objects or objects.names()
    quota = {n: config.train if split_of[n] == "train" else config.test for n in names}
    parts = config.out.with_name(config.out.name + ".parts")
    parts.mkdir(parents=True, exist_ok=True)
    # Workers share the cores: one thread each, whatever they run.
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "")
        + " --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    )
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(parts / "compiled"))
    began = time.perf_counter()
    jobs = {n: (n, quota[n], config, parts) for n in names}
    results: dict[str, Any] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    workers = config.processes or os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")
    with (
        Progress(*columns, console=console) as progress,
        concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool,
    ):
        task = progress.add_task("objects", total=len(jobs))
        running = {pool.submit(make_object, *job): name for name, job in jobs.items()}
        for done in concurrent.futures.as_completed(running):
            name = running[done]
            results[name] = done.result()
            row = results[name]
            console.print(
                f"{name}: {row['distinct']} distinct of {row['starts']} starts "
                f"({row['valid'] / max(row['starts'], 1):.2f} strictly valid)"
            )
            progress.advance(task)
    wall = time.perf_counter() - began
    recipe = _recipe(config, results, workers, wall)
    kept = {n: _first(store.read_npz(parts / f"{n}.npz"), quota[n]) for n in names}
    store.write_dataset(
        config.out,
        name="realdex-sim",
        version="1.0",
        grasps=kept,
        splits={s: [n for n in group if n in kept] for s, group in objects.SPLITS.items()},
        recipe=recipe,
        surfaces={n: _surface(n, config.points) for n in names},
    )
    _print(console, results)
    short = [n for n in names if len(kept[n]) < quota[n]]
    if short:
        console.print(f"[red]below quota: {', '.join(short)}[/red]")
        sys.exit(1)
    return recipe


def make_object(name: str, quota: int, config: MakeDataset, parts: Path) -> dict[str, Any]:
    """Synthesises one object until its quota of distinct grasps; resumes from its part file."""
    hand, shape = load("shadow"), objects.make(name)
    settings = SynthesisConfig(batch=config.batch)
    path, note = parts / f"{name}.npz", parts / f"{name}.json"
    gate = Physics().describe()

    def save(grasps: GraspSet) -> None:
        _save(path, grasps)
        state = {"tally": dataclasses.asdict(tally), "batches": batches, "gate": gate}
        _write(note, json.dumps(state).encode())

    tally, batches, grasps = Tally(), 0, None
    if note.exists():
        old = json.loads(note.read_text())
        tally, batches = Tally(**old["tally"]), old["batches"]
        grasps = _grasp_set(store.read_npz(path))
        if old.get("gate") != gate:  # made under another last gate: test again
            held, _ = holds(hand, shape, grasps, threads=1)
            grasps = schema.take(grasps, np.flatnonzero(held))
            save(grasps)
    grid = None
    while batches < config.max_batches and (grasps is None or len(grasps) < quota):
        grid = sdf.build(shape) if grid is None else grid
        seed = batch_seed(config.seed, name, batches)
        fresh, counts = synthesise(hand, shape, seed, grid=grid, config=settings, threads=1)
        both = fresh if grasps is None else schema.concatenate([grasps, fresh])
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


def _recipe(
    config: MakeDataset, results: dict[str, Any], workers: int, wall: float
) -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(config).items()}
    return {
        "command": "python -m experiments.make_dataset",
        "commit": commit or "unknown",
        "settings": settings,
        "synthesis": dataclasses.asdict(SynthesisConfig(batch=config.batch)),
        "physics": {"still": Physics().describe(), "strict": StrictPhysics().describe()},
        "processes": workers,
        "last_run_seconds": round(wall, 1),
        "objects": results,
    }


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
    fresh.write_bytes(content)
    fresh.replace(path)


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
    tyro.cli(main)
