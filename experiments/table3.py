"""RealDex's Table 3 anew: three generators, judged on the same work.

    python -m experiments.eval_sim --table3                       # trains what is missing first
    python -m experiments.eval_sim --table3 --ycb FOLDER --dexgraspnet FOLDER
    python -m experiments.eval_sim --table3 --preset smoke        # minutes, to see that it works

Every generator is trained with the same encoders, data and number of updates, three seeds each.
Objects are RealDex-Sim's test part and, where given, YCB's scans and a sample of DexGraspNet. Each
model proposes grasps of each object; they are measured as they come (raw), refined, and as chosen
in physics. Figures are means over objects; their spread is that of the training seeds.

Every object, model and stage is saved in `<out>/parts`, so an interrupted run goes on where it
stopped.
"""

import collections
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console

from experiments import chain, commands, protocol, train_pose
from experiments.protocol import Entry, Measured
from realdex_jax.data import dexgraspnet
from realdex_jax.errors import ConfigError
from realdex_jax.evaluation import figures, report, results, tables
from realdex_jax.evaluation.results import METRICS, Results, Row
from realdex_jax.hand.load import HandModel, load
from realdex_jax.models import generator as generators
from realdex_jax.models import grasp_model
from realdex_jax.models.grasp_model import GraspModel
from realdex_jax.refine import RefineConfig
from realdex_jax.training import loop
from sim.physics import Physics, StrictPhysics

STAGES = ("raw", "refined", "physics")
BRIEF = (
    "sim_disp_0146_cm",
    "held",
    "robust_success",
    "penetration_cm",
    "self_intersection_cm3",
    "diversity",
    "functional_share",
    "distinct_count",
    "ms_per_grasp",
)
"""Metrics of the printed table; the report has all."""
PLOTS = ("robust_success", "held", "sim_disp_0146_cm", "penetration_cm", "diversity")
"""Metrics that the report draws."""
SCALE = 0.1
"""Size (m) at which DexGraspNet's objects are taken: the middle one of its five."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How much is trained and measured."""

    training: Literal["small", "smoke"] = "small"
    """Preset of the training; see `experiments.train_pose`."""
    seeds: int = 3
    """Training seeds, from 0."""
    grasps: int = 10
    """Grasps measured per object, model and stage."""
    latents: int = 100
    """Grasps proposed, of which the last stage chooses."""
    objects: int | None = None
    """Only the first so many objects of each source."""


PRESETS: dict[str, Protocol] = {
    "paper": Protocol(),
    "smoke": Protocol(training="smoke", seeds=2, grasps=4, latents=16, objects=1),
}


@dataclasses.dataclass(frozen=True)
class Table3:
    """Command line of `eval_sim --table3`."""

    preset: Literal["paper", "smoke"] = "paper"
    """paper: three seeds, ten grasps per object. smoke: one object a source, tiny models."""
    steps: int | None = None
    """Updates of each training instead of the preset's."""
    seeds: int | None = None
    """Training seeds instead of the preset's."""
    data: str = "realdex-sim"
    """Dataset that models are trained on, and whose test part is measured on."""
    ycb: Path | None = None
    """Folder of YCB's meshes; any folder of meshes in metres will do."""
    dexgraspnet: Path | None = None
    """Folder with DexGraspNet's `dataset` and `meshdata`."""
    camera: chain.Camera = "scan"
    """scan: clouds of whole surfaces. kinect: what one virtual depth camera sees."""
    models: Path = Path("runs/table3/models")
    """Folder of the trained models, `<generator>-<seed>/model.safetensors`."""
    out: Path = Path("runs/table3")
    """Folder of report and results."""

    def protocol(self) -> Protocol:
        """The preset with the command line's changes.

        Raises:
            ConfigError: Fewer than one seed.
        """
        base = PRESETS[self.preset]
        seeds = base.seeds if self.seeds is None else self.seeds
        if seeds < 1:
            raise ConfigError(f"--seeds {seeds}; at least one is needed")
        return dataclasses.replace(base, seeds=seeds)


@dataclasses.dataclass(frozen=True)
class Source:
    """Objects of one kind."""

    data: str
    split: str
    entries: Sequence[Entry]


@dataclasses.dataclass(frozen=True)
class _Cell:
    """What one model's grasps of one object measured."""

    source: Source
    kind: str
    seed: int
    values: Mapping[str, Mapping[str, list[float]]]
    """By stage and metric."""
    seconds: Mapping[str, float]


def main(words: Sequence[str] | None = None) -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    config = commands.read(Table3, __doc__, words, "experiments.eval_sim --table3")
    console = Console()
    with commands.ending(console, "stopped; the same command continues"):
        found, seconds = run(config, commands.line(), console)
        _publish(found, seconds, config.out, console)


def run(config: Table3, command: str, console: Console) -> tuple[Results, dict[str, float]]:
    """Trains what is missing and measures everything.

    Returns:
        One row a source, generator and stage, and the seconds by part of the work.

    Raises:
        RealdexError: Data or meshes that cannot be used.
        KeyboardInterrupt: Stopped by a signal; what was done is kept.
    """
    protocol_ = config.protocol()
    found, notes = sources(config, protocol_.objects)
    paths = _trained(config, protocol_)
    hand, physics, strict = load(), Physics(), StrictPhysics()
    cells: list[_Cell] = []
    compiled: set[str] = set()
    every = [(source, entry) for source in found for entry in source.entries]
    with commands.progress(console) as bar, loop.stop_on_signals(bar.console.print) as stop:
        task = bar.add_task("", total=len(paths) * len(every))
        for (kind, seed), path in paths.items():
            model = grasp_model.load_model(path)
            made = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
            for source, entry in every:
                if stop.signal is not None:
                    raise KeyboardInterrupt
                name = entry.shape.name
                bar.update(task, description=f"{kind} {seed}: {name}")
                settings: dict[str, Any] = {"model": made, "camera": config.camera, "seed": seed}
                settings |= {"refine": dataclasses.asdict(RefineConfig())}
                settings |= {"grasps": protocol_.grasps, "latents": protocol_.latents}
                part = config.out / "parts" / f"{source.data}-{name}-{kind}-{seed}.json"
                kept = _kept(part, settings)
                if kept is None:
                    kept = _measured(
                        hand, model, entry, seed, protocol_, config.camera, physics, strict
                    )
                    if kind not in compiled:  # its time says nothing about a grasp
                        compiled.add(kind)
                        kept["seconds"] = {}
                        for values in kept["values"].values():
                            values.pop("ms_per_grasp", None)
                    text = json.dumps({"settings": settings, **kept})
                    results.write_whole(part, text)
                cells.append(_Cell(source, kind, seed, kept["values"], kept["seconds"]))
                bar.advance(task)
    seconds: dict[str, float] = collections.defaultdict(float)
    for cell in cells:
        for name, value in cell.seconds.items():
            seconds[name] += value
    described = {"still": physics.describe(), "strict": strict.describe()}
    notes.append(
        "mean over objects and grasps; ± is the standard deviation of that mean over "
        f"{protocol_.seeds} training seeds"
    )
    notes += _distinct(cells)
    collected = results.collect(
        command,
        list(range(protocol_.seeds)),
        described,
        rows(cells),
        notes,
        spread="seeds",
        config=config,
    )
    return collected, dict(seconds)


def sources(config: Table3, limit: int | None = None) -> tuple[list[Source], list[str]]:
    """Objects to measure on, and notes about those left out.

    Raises:
        RealdexError: No usable object.
    """
    name, entries, notes = protocol.entries_of_data(config.data, "test")
    found = [Source(name, "test", entries[:limit])]
    if config.ycb is not None:
        entries, more = protocol.entries_of_folder(config.ycb, None, limit)
        found.append(Source("ycb", "unseen", entries))
        notes += more
    if config.dexgraspnet is not None:
        entries = [
            Entry(scaled.shape, None)
            for code in dexgraspnet.codes(config.dexgraspnet)[:limit]
            for scaled in dexgraspnet.read(config.dexgraspnet, code)
            if abs(scaled.scale - SCALE) < 1e-6
        ]
        found.append(Source("dexgraspnet", "unseen", entries))
    return found, notes


def rows(cells: Sequence[_Cell]) -> list[Row]:
    """One row a source, generator and stage; a metric's spread is that over training seeds."""
    out = []
    groups: dict[tuple[str, str, str, str], list[_Cell]] = collections.defaultdict(list)
    for cell in cells:
        for stage in cell.values:
            groups[cell.source.data, cell.source.split, cell.kind, stage].append(cell)
    for (data, split, kind, stage), mine in groups.items():
        metrics = {}
        for name in METRICS:
            each = [
                np.concatenate(
                    [c.values[stage].get(name, []) for c in mine if c.seed == seed] or [[]]
                )
                for seed in sorted({c.seed for c in mine})
            ]
            means = [float(np.nanmean(x)) for x in each if np.isfinite(x).any()]
            if means:
                metrics[name] = results.stat(means)
        out.append(
            Row(
                data=data,
                split=split,
                method=kind,
                stage=stage,
                objects=len({id(c.values) for c in mine}) // len({c.seed for c in mine}),
                grasps=sum(len(c.values[stage].get("held", [])) for c in mine),
                metrics=metrics,
            )
        )
    order = {name: i for i, name in enumerate(dict.fromkeys(c.source.data for c in cells))}
    return sorted(out, key=lambda row: (order[row.data], list(generators.KINDS).index(row.method)))


def _trained(config: Table3, protocol_: Protocol) -> dict[tuple[str, int], Path]:
    """Files of all models, trained where they are missing, by generator and seed."""
    paths = {}
    for seed in range(protocol_.seeds):
        for kind in generators.KINDS:
            run_ = config.models / f"{kind}-{seed}"
            path = paths[kind, seed] = run_ / "model.safetensors"
            if path.is_file():
                continue
            recipe = train_pose.TrainPose(
                generator=kind,  # pyright: ignore[reportArgumentType]
                preset=protocol_.training,
                steps=config.steps,
                seed=seed,
            ).recipe()
            if train_pose.train(recipe, config.data, run_) is None:
                raise KeyboardInterrupt
    return paths


def _measured(
    hand: HandModel,
    model: GraspModel,
    entry: Entry,
    seed: int,
    protocol_: Protocol,
    camera: chain.Camera,
    physics: Physics,
    strict: StrictPhysics,
) -> dict[str, Any]:
    """Proposes, measures, and gives plain lists."""
    takens, seconds = chain.propose(
        hand,
        model,
        entry,
        STAGES,
        seed=seed,
        latents=protocol_.latents,
        grasps=protocol_.grasps,
        physics=physics,
        camera=camera,
    )
    found: list[Measured] = [protocol.measure(hand, taken, physics, strict) for taken in takens]
    for m in found:
        for name, value in m.seconds.items():
            seconds[name] = seconds.get(name, 0.0) + value
    return {
        "values": {
            m.taken.stage: {k: np.asarray(v, float).tolist() for k, v in m.values.items()}
            for m in found
        },
        "seconds": seconds,
    }


def _kept(part: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """What an earlier run measured with the same settings; None if nothing."""
    try:
        old = json.loads(part.read_text(encoding="utf-8"))
        return old if old.pop("settings") == settings else None
    except (OSError, ValueError, KeyError, AttributeError):
        return None


def _distinct(cells: Sequence[_Cell]) -> list[str]:
    """On how many objects a generator delivers enough distinct grasps."""
    notes = []
    for kind in dict.fromkeys(cell.kind for cell in cells):
        counts = [
            c.values["physics"].get("distinct_count", [0.0])[0] for c in cells if c.kind == kind
        ]
        enough = np.mean(np.array(counts) >= 10)
        notes.append(f"{kind}: ten distinct grasps after physics on {enough:.2f} of the objects")
    return notes


def _publish(found: Results, seconds: Mapping[str, float], out: Path, console: Console) -> None:
    console.print(report.brief_table(found, BRIEF, "Table 3"))
    for note in found.notes:
        console.print(note, style="yellow", highlight=False, markup=False)
    where = tables.save(found, out / "results.json")
    plots = [name for name in PLOTS if any(name in row.metrics for row in found.rows)]
    page = report.html_report(
        found, title="Three generators", plots=figures.bars(found.rows, plots), seconds=seconds
    )
    path = report.save_html(page, out / "report.html")
    console.print(f"results: {where}\nreport:  {path}", highlight=False)
