"""Evaluates grasps in simulation: ten per held-out object, every stage of the chain, one table.

    python -m experiments.eval_sim                            # the six test objects
    python -m experiments.eval_sim --objects FOLDER           # your meshes, never trained on
    python -m experiments.eval_sim --stages dataset           # the stored grasps themselves
    python -m experiments.eval_sim --hand allegro --stages dataset --data FOLDER
    python -m experiments.eval_sim --camera kinect            # clouds that one depth camera sees
    python -m experiments.eval_sim --preset smoke             # a minute, to see that it works
    python -m experiments.eval_sim --table3 --help            # three generators side by side

Writes `results.json`, `report.html` and `grasps/<object>.npz` (the last stage's grasps, in the
mesh's own frame), and prints a table; tables come with every physics constant. Ctrl-C ends after
the object at hand and reports those that are done.
Takes 3 minutes on 2 cores; with --table3 one to two hours.
"""

import collections
import contextlib
import dataclasses
import functools
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.progress import (
    Progress,
    TaskID,
)

from experiments import chain, commands, converted, protocol, workers
from experiments.protocol import Entry, Measured, Taken
from experiments.workers import Done
from realdex_jax.data import schema, store
from realdex_jax.errors import ConfigError, MeshError, RealdexError
from realdex_jax.evaluation import report, results, tables
from realdex_jax.evaluation.report import Clip, Picture
from realdex_jax.generate import GenerateConfig
from realdex_jax.hand import load as load_hand
from realdex_jax.hand.load import HandModel, load
from realdex_jax.models import generator as generators
from realdex_jax.models import grasp_model
from realdex_jax.models.grasp_model import GraspModel
from realdex_jax.training import loop
from sim import native, render
from sim.physics import Physics, StrictPhysics

Stage = Literal["dataset", "raw", "refined", "filtered", "physics", "selected"]
PresetName = Literal["paper", "spread", "smoke"]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How much is evaluated."""

    grasps: int = 10
    """Grasps per object, seed and stage."""
    seeds: int = 1
    """Number of seeds, from 0."""
    latents: int = 100
    """Latents drawn per object; the filter chooses among their grasps."""
    objects: int | None = None
    """Only the first so many objects."""
    pictures: int = 1
    """Pictures per object and stage in the report."""


PRESETS: dict[PresetName, Protocol] = {
    "paper": Protocol(),
    "spread": Protocol(seeds=5, pictures=0),
    "smoke": Protocol(grasps=4, latents=16, objects=2),
}


@dataclasses.dataclass(frozen=True)
class EvalSim:
    """Command line of this script."""

    data: str = "realdex-sim"
    """Name or folder of a dataset."""
    split: str = "test"
    """Its split."""
    scheme: str = store.SCHEME
    """Which of its split schemes: object is the paper's, category holds out whole categories."""
    objects: Path | None = None
    """A folder of meshes, or one mesh (.obj .stl .ply .glb), instead of a dataset."""
    scale: float | None = None
    """Factor to metres for `--objects`; metres if not given."""
    hand: str = store.HAND
    """The hand of the dataset. The stages but "dataset" need a model, and there is one for shadow
    only."""
    model: str = "realdex-sim-small"
    """Name of a shipped model, or a `.safetensors` file."""
    camera: chain.Camera = "scan"
    """scan: clouds of whole surfaces. rig: what four virtual depth cameras around the table bring,
    and the flat underside that stands on it. kinect: what one virtual depth camera sees, another
    view for every seed."""
    spare: int = GenerateConfig.spare
    """Grasps refined for each one wanted where hidden sides are filled in (`--camera kinect`); the
    one is kept that depends least on them. One keeps all and takes an eighth of the time."""
    stages: tuple[Stage, ...] = ("dataset", "raw", "refined", "filtered", "physics", "selected")
    """Stages to evaluate."""
    preset: PresetName = "paper"
    """paper: ten grasps per object. spread: five seeds. smoke: two objects, four grasps."""
    seeds: int | None = None
    """Number of seeds instead of the preset's."""
    grasps: int | None = None
    """Grasps per object instead of the preset's."""
    latents: int | None = None
    """Proposals per object instead of the preset's; raw and refined take the first of them."""
    out: Path = Path("runs/eval_sim")
    """Folder of report and results."""
    json: Path | None = None
    """File of the results instead of `out/results.json`."""
    processes: int = 1
    """Processes, each with one object at a time and 1.5 GB; 0 means one per core."""

    def protocol(self) -> Protocol:
        """The preset with the command line's changes."""
        base = PRESETS[self.preset]
        grasps = base.grasps if self.grasps is None else self.grasps
        return dataclasses.replace(
            base,
            seeds=base.seeds if self.seeds is None else self.seeds,
            grasps=grasps,
            latents=max(base.latents, grasps) if self.latents is None else self.latents,
        )

    def generation(self) -> GenerateConfig:
        """How grasps are generated, as far as the command line says."""
        return GenerateConfig(spare=self.spare)


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """Everything an evaluation found."""

    found: results.Results
    measured: list[Measured]
    pictures: list[Picture]
    seconds: dict[str, float]
    clips: list[Clip] = dataclasses.field(default_factory=list)
    stopped: bool = False
    """Whether a signal ended it before all objects were done."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Chain:
    """What all objects of one evaluation share."""

    hand: HandModel
    model: GraspModel | None
    stages: list[str]
    protocol: Protocol
    physics: Physics
    strict: StrictPhysics
    camera: chain.Camera
    generation: GenerateConfig


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    if "--table3" in sys.argv[1:]:
        from experiments import table3  # it imports this module

        table3.main([word for word in sys.argv[1:] if word != "--table3"])
        return
    config = commands.read(EvalSim, __doc__, plan=plan)
    console = Console()
    with commands.ending(console):
        evaluation = evaluate(config, commands.line(), console)
        publish(evaluation, config.out, config.json, "Grasps in simulation", console)
        if evaluation.stopped:
            raise KeyboardInterrupt


def plan(config: EvalSim) -> Iterator[str]:
    """What a dry run says.

    Raises:
        RealdexError: Settings, objects, data or a model that the job would refuse at once.
    """
    protocol_ = _checked(config)
    if config.objects is None:
        converted.check(config.data, config.scheme, config.hand)
    elif not config.objects.exists():
        raise MeshError(f"{config.objects}: no such folder or file")
    if set(config.stages) != {"dataset"}:
        grasp_model.load_model(config.model)
    objects = (
        "all objects" if protocol_.objects is None else f"the first {protocol_.objects} objects"
    )
    yield (
        f"{objects} of {config.objects or config.data}, {protocol_.seeds} seeds, stages "
        f"{', '.join(config.stages)}: {protocol_.latents} proposals each, of which "
        f"{protocol_.grasps} are measured at every stage"
    )


def _checked(config: EvalSim) -> Protocol:
    protocol_ = config.protocol()
    if min(protocol_.seeds, protocol_.grasps) < 1 or not config.stages:
        raise ConfigError(
            f"{protocol_.seeds} seeds, {protocol_.grasps} grasps, {len(config.stages)} stages; "
            "each must be at least one"
        )
    if protocol_.latents < protocol_.grasps:
        raise ConfigError(
            f"--latents {protocol_.latents} are fewer than the {protocol_.grasps} grasps measured"
        )
    if config.hand not in load_hand.known():
        known = ", ".join(load_hand.known())
        raise ConfigError(f"no hand {config.hand!r}; known: {known}")
    if config.hand != store.HAND and set(config.stages) != {"dataset"}:
        raise ConfigError(
            f"--hand {config.hand}: no model generates grasps for it, so its only stage is "
            "dataset (--stages dataset); with shadow there are all"
        )
    if config.spare < 1:
        raise ConfigError(f"--spare {config.spare}; 1 keeps every grasp, more choose among so many")
    return protocol_


def evaluate(config: EvalSim, command: str, console: Console) -> Evaluation:
    """Takes grasps at every stage, measures and draws them.

    An object that fails is left out, with a note.

    Raises:
        ConfigError: Settings that leave nothing to do.
        RealdexError: Data, meshes or model that cannot be used, or no object is left.
    """
    protocol_ = _checked(config)
    commands.make_folder(config.out)
    with console.status("reading objects; a mesh that is new is decomposed, which takes a while"):
        data, split, entries, notes = _entries(config)
    entries = entries[: protocol_.objects]
    stages: list[str] = [stage for stage in results.STAGES if stage in config.stages]
    if "dataset" in stages and all(entry.grasps is None for entry in entries):
        stages.remove("dataset")
        notes.append("No stored grasps for these objects: no dataset row.")
        if not stages:
            raise ConfigError("no stored grasps for these objects, and no stage but dataset asked")
    run = _chain(
        config.hand, config.model, tuple(stages), protocol_, config.camera, config.generation()
    )
    hand, model = run.hand, run.model

    if config.processes < 0:
        raise ConfigError(f"--processes {config.processes}; 0 means one per core")
    processes = min(config.processes or native.cores(), len(entries))
    seconds: dict[str, float] = collections.defaultdict(float)
    measured: list[Measured] = []
    failed: list[str] = []
    stopped = False
    steps = protocol_.seeds * (len(stages) + (model is not None))
    with commands.progress(console) as bar, loop.stop_on_signals(bar.console.print) as stop:
        task = bar.add_task("", total=steps * len(entries))
        if processes == 1:
            one = (_alone(run, entry, seconds, bar, task) for entry in entries)
        else:
            one = _apart(config, stages, entries, processes, seconds)
        with contextlib.closing(one) as finished:
            for index, done in enumerate(finished, 1):
                if isinstance(done.error, RealdexError):
                    failed.append(f"{done.name}: {type(done.error).__name__}: {done.error}")
                else:
                    measured += done.value()
                bar.update(task, completed=steps * index)
                if stop.signal is not None and index < len(entries):
                    stopped = True
                    notes.append(
                        f"stopped by {stop.signal} after {index} of {len(entries)} objects"
                    )
                    break
    order = {entry.shape.name: i for i, entry in enumerate(entries)}
    measured.sort(key=lambda m: order[m.taken.entry.shape.name])
    if not measured and failed:
        raise RealdexError(f"no object is left of {len(entries)}; first: {failed[0]}")
    notes += [f"left out: {reason}" for reason in failed]
    if not measured:
        console.print("no object was done; nothing to report")
        raise KeyboardInterrupt
    start = time.perf_counter()
    pictures = draw(hand, measured, protocol_.pictures)
    seconds["pictures"] += time.perf_counter() - start
    notes += protocol.remarks([m.taken for m in measured])
    if config.spare > 1 and config.camera == "kinect":
        notes.append(f"of each {config.spare} refined grasps the steadiest is kept")
    if config.camera != "scan":
        count = {"kinect": "one virtual depth camera sees", "rig": "four of them see"}
        notes.append(f"clouds: what {count[config.camera]} of each object")
    notes += _short(measured, stages, protocol_.grasps)
    backends = sorted({m.backend for m in measured if m.backend})
    still = {**run.physics.describe(), "backend": ", ".join(backends) or "none"}
    method = generators.kind_of(run.model.config.generator) if run.model else "stored"
    found = results.collect(
        command,
        list(range(protocol_.seeds)),
        {"still": still, "strict": run.strict.describe()},
        protocol.rows(measured, data, split, stages, method),
        notes,
        config=config,
    )
    return Evaluation(found, measured, pictures, dict(seconds), stopped=stopped)


def _alone(
    run: _Chain, entry: Entry, seconds: dict[str, float], bar: Progress, task: TaskID
) -> Done[list[Measured]]:
    """One object in this process."""
    try:
        return Done(entry.shape.name, _measure(run, entry, seconds, bar, task))
    except RealdexError as error:
        return Done(entry.shape.name, None, error)


def _apart(
    config: EvalSim,
    stages: Sequence[str],
    entries: Sequence[Entry],
    processes: int,
    seconds: dict[str, float],
) -> Generator[Done[list[Measured]], None, None]:
    """All objects in other processes, in the order in which they are done; adds to `seconds`."""
    workers.share_cores()
    fixed = config.protocol(), config.camera, config.generation()
    asked = (config.hand, config.model, tuple(stages), *fixed)
    jobs = {entry.shape.name: (asked, entry) for entry in entries}
    for done in workers.each(jobs, _measure_apart, processes):
        measured, spent = done.result or ([], {})
        _add(seconds, spent)
        yield Done(done.name, measured, done.error, done.deaths)


def _measure_apart(
    asked: tuple[str, str, tuple[str, ...], Protocol, chain.Camera, GenerateConfig], entry: Entry
) -> tuple[list[Measured], dict[str, float]]:
    run, seconds = _kept_chain(*asked), collections.defaultdict[str, float](float)
    with Progress(disable=True) as bar:
        return _measure(run, entry, seconds, bar, bar.add_task("")), dict(seconds)


def _chain(
    hand: str,
    model: str,
    stages: tuple[str, ...],
    protocol_: Protocol,
    camera: chain.Camera,
    generation: GenerateConfig,
) -> _Chain:
    asked = set(stages) - {"dataset"}
    loaded = grasp_model.load_model(model) if asked else None
    loaded_hand = load(hand)
    tests = Physics(), StrictPhysics.of(loaded_hand)
    return _Chain(loaded_hand, loaded, list(stages), protocol_, *tests, camera, generation)


_kept_chain = functools.cache(_chain)
"""A process compiles once for all its objects."""


def _measure(
    run: _Chain, entry: Entry, seconds: dict[str, float], bar: Progress, task: TaskID
) -> list[Measured]:
    """All seeds and stages of one object; adds to `seconds` and advances the bar."""
    measured: list[Measured] = []
    name, count = entry.shape.name, run.protocol.grasps
    for seed in range(run.protocol.seeds):
        takens: list[Taken] = []
        if "dataset" in run.stages and entry.grasps is not None:
            index = protocol.pick(entry.grasps, count, seed)
            takens.append(Taken("dataset", entry, seed, schema.take(entry.grasps, index)))
        if run.model is not None:
            bar.update(task, description=f"{name}: generate")
            proposed, spent = chain.propose(
                run.hand,
                run.model,
                entry,
                [stage for stage in run.stages if stage != "dataset"],
                seed=seed,
                latents=run.protocol.latents,
                grasps=count,
                physics=run.physics,
                config=run.generation,
                camera=run.camera,
            )
            # The first call also compiles; its time says nothing about a grasp.
            warm = bool(seconds["refine"])
            takens += proposed if warm else [_untimed(taken) for taken in proposed]
            _add(seconds, spent)
            bar.advance(task)
        for taken in takens:
            bar.update(task, description=f"{name}: {taken.stage}")
            measured.append(protocol.measure(run.hand, taken, run.physics, run.strict))
            _add(seconds, measured[-1].seconds)
            bar.advance(task)
    return measured


def _short(measured: Sequence[Measured], stages: Sequence[str], wanted: int) -> list[str]:
    """A note for each stage that could not deliver all grasps."""
    notes = []
    for stage in stages:
        mine = [m.taken for m in measured if m.taken.stage == stage]
        short = [taken for taken in mine if len(taken.grasps) < wanted]
        if short:
            notes.append(
                f"{stage}: fewer than {wanted} grasps on "
                + ", ".join(f"{taken.entry.shape.name} ({len(taken.grasps)})" for taken in short)
            )
    return notes


def publish(
    evaluation: Evaluation, out: Path, json: Path | None, title: str, console: Console
) -> None:
    """Prints the table and writes results, report and grasps."""
    console.print(report.terminal_table(evaluation.found))
    for note in evaluation.found.notes:
        console.print(note, style="yellow", highlight=False, markup=False)
    where = tables.save(evaluation.found, json or out / "results.json")
    page = report.html_report(
        evaluation.found,
        title=title,
        pictures=evaluation.pictures,
        clips=evaluation.clips,
        seconds=evaluation.seconds,
    )
    path = report.save_html(page, out / "report.html")
    console.print(f"results: {where}\nreport:  {path}", highlight=False)
    if protocol.deliver(evaluation.measured, out / "grasps"):
        console.print(f"grasps:  {out / 'grasps'}", highlight=False)


def draw(hand: HandModel, measured: Sequence[Measured], each: int) -> list[Picture]:
    """Pictures of the first grasps of every object and stage, of the first seed."""
    pictures = []
    for m in sorted(measured, key=lambda m: m.taken.entry.shape.name):
        if m.taken.seed:
            continue
        for index in range(min(each, len(m.taken.grasps))):
            shape = m.taken.entry.shape
            mine = protocol.hand_of(m.taken, hand)
            image = render.render_grasp(mine, shape, np.asarray(m.taken.grasps.phi[index]))
            pictures.append(Picture(shape.name, protocol.caption(m, index), image))
    return pictures


def _entries(config: EvalSim) -> tuple[str, str, list[Entry], list[str]]:
    """Name and split to print, the objects, and notes about their meshes."""
    if config.objects is None:
        data, entries, notes = protocol.entries_of_data(
            config.data, config.split, config.scheme, config.hand
        )
        named = "" if config.scheme == store.SCHEME else f"{config.scheme} "
        return data, named + config.split, entries, notes
    entries, notes = protocol.entries_of_folder(
        config.objects, config.scale, config.protocol().objects
    )
    return config.objects.name, "unseen", entries, notes


def _untimed(taken: Taken) -> Taken:
    return dataclasses.replace(taken, ms_per_grasp=None)


def _add(total: dict[str, float], part: dict[str, float]) -> None:
    for name, value in part.items():
        total[name] += value


if __name__ == "__main__":
    main()
