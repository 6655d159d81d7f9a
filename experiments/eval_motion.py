"""Evaluates motions: Table 4's protocol, penetration on the way, and the lift in physics.

    python -m experiments.eval_motion --models runs/motion/*/model.safetensors
    python -m experiments.eval_motion --data PATH/door.npz --models runs/door/*/model.safetensors
    python -m experiments.eval_motion --models ... --grasps runs/demo/grasps

Every model is given the first pose, the goal and the number of frames of each test motion. Models
of one kind that differ by their training seed share a row: mean and spread over seeds. Rows marked
"refined" went through the trajectory optimisation. With `--grasps`, generated grasps are reached
for with generated motions, too, and lifted. Writes `results.json`, `report.html` and videos.
Takes minutes on 2 cores, demonstrations included the first time.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from experiments import commands, motion_chain, motion_data, motion_protocol, train_motion
from experiments.motion_protocol import Asked, Judged, World
from realdex_jax.data import motion_set, object_files
from realdex_jax.data.motion import Motion
from realdex_jax.data.motion_set import MotionSet
from realdex_jax.errors import ConfigError, PhysicsError
from realdex_jax.evaluation import report, results, tables
from realdex_jax.evaluation.report import Clip, Picture
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand.load import HandModel, load
from realdex_jax.models import motion_model
from realdex_jax.models.motion_model import MotionModel
from realdex_jax.training import loop
from realdex_jax.trajectory import TrajectoryConfig
from sim import demonstrate, objects, video
from sim.physics import LiftPhysics
from sim.render import RenderError

_USUAL = 1e-3
"""Centimetres from the usual way within which a demonstration took it; rounding."""
ORDER = (
    "saga",
    "goal",
    "untimed",
    "stepwise",
    "motion_net",
    "sees",
    "penalised",
    "chooses",
    "aware",
)
"""Methods as the table shows them; see `train_motion.MODELS`."""


@dataclasses.dataclass(frozen=True)
class EvalMotion:
    """Command line of this script."""

    models: tuple[Path, ...] = ()
    """Trained models (`model.safetensors`); none evaluates the demonstrations alone."""
    data: str = "realdex-sim"
    """realdex-sim, realdex-sim-small, a file of door demonstrations, or a dataset with motions."""
    split: str = "test"
    """Part of the motions."""
    mend: tuple[str, ...] = ("motion_net", "aware")
    """Methods that get a second row with the trajectory optimisation."""
    each: int | None = None
    """Only the first so many motions of every object; all if not given."""
    grasps: Path | None = None
    """Folder of generated grasps (`<object>.npz`, as eval_sim and demo leave it) to reach for."""
    videos: int = 1
    """Videos per object in the report."""
    out: Path = Path("runs/eval_motion")
    """Folder of report, results and videos."""
    json: Path | None = None
    """File of the results instead of `out/results.json`."""


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    config = commands.read(EvalMotion, __doc__, plan=plan)
    console = Console()
    with commands.ending(console):
        commands.make_folder(config.out)
        run(config, commands.line(), console)


def plan(config: EvalMotion) -> Iterator[str]:
    """What a dry run says."""
    _check(config)
    loaded = [_opened(load("shadow"), path) for path in config.models]
    _check_alike(loaded)
    count = "all motions" if config.each is None else f"{config.each} motions of every object"
    yield f"{count} of part {config.split} of {config.data}, by {len(loaded)} models"
    for one in loaded:
        mended = ", and with the trajectory optimisation" if one.method in config.mend else ""
        yield f"{one.method}, seed {one.seed}: {one.path}{mended}"


def run(config: EvalMotion, command: str, console: Console) -> results.Results:
    """Evaluates and publishes; returns what was found.

    Raises:
        RealdexError: Settings, models or data that cannot be used.
        KeyboardInterrupt: Stopped by a signal, after what was done is published.
    """
    _check(config)
    hand = load("shadow")
    loaded = [_opened(hand, path) for path in config.models]
    _check_alike(loaded)
    data = motion_data.open_motions(config.data, tell=console.print)
    what = motion_protocol.asked(_first(data.part(config.split), config.each))
    world = motion_protocol.world_of(data, config.split)
    motion_protocol.check(hand, what, world)
    needed = any(motion_model.needs_grids(one.model.config) for one in loaded)
    grids = data.grids(config.split) if needed else None
    seconds: dict[str, float] = {}
    judged = _references(hand, what, world, habit=data.tally is not None)
    stages = [(one, stage) for one in loaded for stage in ("raw", "refined")]
    with loop.stop_on_signals(console.print) as stop:
        kept: dict[int, np.ndarray] = {}
        for one, stage in track(stages, description="models", console=console):
            mended = one.method in config.mend and bool(world.shapes)
            if stop.signal:
                break
            if stage == "refined" and not mended:
                continue
            began = time.perf_counter()
            if stage == "raw":
                kept[id(one)] = phi = motion_chain.made(hand, one.model, grids, what)
            else:
                phi = motion_protocol.mend(hand, what, world, kept[id(one)], TrajectoryConfig())
            spent = f"{one.method} {stage}"
            seconds[spent] = seconds.get(spent, 0.0) + time.perf_counter() - began
            judged.append(
                motion_protocol.judge(
                    hand, what, world, phi, method=one.method, stage=stage, seed=one.seed
                )
            )
    rows = _rows(data.name, config.split, what, judged)
    notes = [
        "Rows of models: mean over motions, then mean and spread over training seeds "
        f"({_seeds_of(judged)}); the demonstrations' spread is over motions.",
        "raw: as the model made it; refined: after the trajectory optimisation. Refined motions "
        "and SAGA's end at the goal by construction: their verts.offset is zero.",
    ]
    if data.tally:
        notes.append(motion_data.told(data.tally))
    if stop.signal:
        done = sum(j.stage != "dataset" for j in judged)
        notes.append(f"stopped by {stop.signal}: {done} rows of single models were done")
    if world.shapes:
        lifts = (
            "Demonstrations were kept because they lift, so their row says nothing about lifting"
        )
        if not data.tally:
            lifts = "These are recordings: what a grasp presses with is not in them"
        notes.append(
            f"{lifts}; every lift follows the last 2 s of a motion and squeezes as the goal's "
            "grasp does."
        )
        if data.tally:
            notes.append(_habit_note(judged))
        notes += _lift_notes(what, judged)
    if config.grasps is not None and not stop.signal:
        best = max(loaded, key=lambda one: (ORDER.index(one.method), -one.seed))
        notes.append(_reach_generated(hand, best, config.grasps, console))
    seeds = sorted({j.seed for j in judged if j.stage != "dataset"})
    physics = LiftPhysics().describe() if world.shapes else {"test": "none"}
    found = results.collect(command, seeds, physics, rows, notes, config=config)
    where = tables.save(found, config.json or config.out / "results.json")
    # Saved before what may still fail.
    clips, pictures = _shown(hand, what, world, judged, config, console)
    page = report.html_report(
        found, title="Motions", pictures=pictures, clips=clips, seconds=seconds
    )
    path = report.save_html(page, config.out / "report.html")
    console.print(report.terminal_table(found, "Motions"))
    for note in found.notes:
        console.print(note, style="yellow", highlight=False, markup=False)
    console.print(f"results: {where}\nreport:  {path}", highlight=False)
    if stop.signal:
        raise KeyboardInterrupt
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
    """A model and what its file says of it."""

    path: Path
    model: MotionModel
    method: str
    seed: int
    recipe: dict[str, Any]
    """Configuration without the seed, and the data's digest."""


def _check(config: EvalMotion) -> None:
    """Settings that leave nothing to do, or would be ignored.

    Raises:
        ConfigError: Names the setting, the rule and the choices.
    """
    if config.each is not None and config.each < 1:
        raise ConfigError(f"--each {config.each}; at least one motion of every object is needed")
    unknown = sorted(set(config.mend) - set(ORDER))
    if unknown:
        raise ConfigError(f"--mend {', '.join(unknown)}; known: {', '.join(ORDER)}")
    if config.grasps is not None and not config.models:
        raise ConfigError("--grasps needs a model that makes the motions: give --models")


def _check_alike(loaded: Sequence[Loaded]) -> None:
    """Models that share a row must differ by their seed alone.

    Raises:
        ConfigError: Two of them differ otherwise, or are of the same seed.
    """
    first: dict[str, Loaded] = {}
    for one in loaded:
        other = first.setdefault(one.method, one)
        if other.recipe != one.recipe:
            raise ConfigError(
                f"{other.path} and {one.path} are both {one.method}, but of other settings or "
                "data; evaluate them apart"
            )
    pairs = [(one.method, one.seed) for one in loaded]
    if len(set(pairs)) < len(pairs):
        raise ConfigError("two models of one kind have the same training seed; give each once")


def _opened(hand: HandModel, path: Path) -> Loaded:
    """Opens a model.

    Raises:
        ConfigError: Its settings are those of no known method: it would have no row.
    """
    model = motion_model.load_model(hand, path)
    recipe = motion_model.load_recipe(path)
    settings = dict(recipe.get("config", {}))
    method = train_motion.name_of(model.config, settings.get("weights", {}))
    if method is None:
        raise ConfigError(
            f"{path}: its network and loss are none of those of {', '.join(train_motion.MODELS)}; "
            "train it anew, or add its settings to `train_motion.MODELS`"
        )
    # As read, so that files with and without the newer settings compare.
    settings["model"] = dataclasses.asdict(model.config)
    seed = int(settings.pop("seed", 0))
    alike = {"config": settings, "data": recipe.get("data_digest")}
    return Loaded(path, model, method, seed, alike)


def _first(motions: MotionSet, each: int | None) -> MotionSet:
    """The first motions of every object."""
    if each is None:
        return motions
    chosen = [np.flatnonzero(motions.target == i)[:each] for i in range(len(motions.names))]
    return motion_set.take(motions, np.concatenate(chosen))


def _references(hand: HandModel, what: Asked, world: World, habit: bool) -> list[Judged]:
    """What was demonstrated, and the demonstrator's usual way where there is one."""
    shown = {"demonstration": what.true}
    if habit:
        first, last = what.true[:, 0], what.true[:, -1]
        shown["habit"] = demonstrate.habitual(first, last, what.lengths, what.frames)
    return [
        motion_protocol.judge(hand, what, world, phi, method=name, stage="dataset", seed=0)
        for name, phi in shown.items()
    ]


def _rows(data: str, split: str, what: Asked, judged: Sequence[Judged]) -> list[results.Row]:
    order = ("demonstration", "habit", *ORDER)
    kinds = sorted({(order.index(j.method), j.stage) for j in judged})
    return [
        motion_protocol.row(
            data,
            split,
            what,
            [j for j in judged if (order.index(j.method), j.stage) == kind],
        )
        for kind in kinds
    ]


def _seeds_of(judged: Sequence[Judged]) -> str:
    count = {m: len({j.seed for j in judged if j.method == m}) for m in ORDER}
    return ", ".join(f"{m} {n}" for m, n in count.items() if n) or "no model"


def _habit_note(judged: Sequence[Judged]) -> str:
    """How much of each method's error is in motions that leave the demonstrator's usual way."""
    error = next(j.values["mpjpe_cm"] for j in judged if j.method == "habit")
    usual = error < _USUAL
    share = f"{usual.mean():.2f} of the motions take the demonstrator's usual way (row habit)"
    if usual.all() or not usual.any():
        return share
    parts = []
    for method, stage in dict.fromkeys((j.method, j.stage) for j in judged):
        mine = [j.values["mpjpe_cm"] for j in judged if (j.method, j.stage) == (method, stage)]
        if stage != "dataset":
            each = (np.mean([v[which].mean() for v in mine]) for which in (usual, ~usual))
            parts.append(f"{method} {stage} " + " and ".join(f"{x:.2f}" for x in each))
    return (
        f"{share}, which is off by {error[~usual].mean():.2f} cm in the others; MPJPE in these and "
        f"in the others: {', '.join(parts) or 'no model'}"
    )


def _lift_notes(what: Asked, judged: Sequence[Judged]) -> list[str]:
    """How often each object is lifted, by method."""
    notes = []
    for method, stage in dict.fromkeys((j.method, j.stage) for j in judged):
        mine = [j for j in judged if (j.method, j.stage) == (method, stage)]
        rates = motion_protocol.per_object(what, mine, "lift_success")
        each = ", ".join(f"{name} {rate:.2f}" for name, rate in rates.items())
        notes.append(f"lifted, {method} {stage}: {each}")
    return notes


def _reach_generated(hand: HandModel, one: Loaded, folder: Path, console: Console) -> str:
    """Reaches for generated grasps with generated motions; how many are lifted, by object."""
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise ConfigError(f"no grasps (<object>.npz) in {folder}")
    done = [
        motion_chain.carry_out(
            hand, one.model, objects.make(path.stem), object_files.load_grasps(path), seed=0
        )
        for path in track(files, description="generated grasps", console=console)
    ]
    each = ", ".join(f"{d.shape.name} {d.lifted.sum()}/{len(d.lifted)}" for d in done)
    good, n = sum(int(d.lifted.sum()) for d in done), sum(len(d.lifted) for d in done)
    return f"generated grasps lifted after {one.method} motions: {good}/{n} ({each})"


def _shown(
    hand: HandModel,
    what: Asked,
    world: World,
    judged: Sequence[Judged],
    config: EvalMotion,
    console: Console,
) -> tuple[list[Clip], list[Picture]]:
    """Videos and strips of the last method's motions, first seed."""
    if not world.shapes or not config.videos:
        return [], []
    made = [j for j in judged if j.stage != "dataset"] or judged
    last = next(j for j in reversed(made) if j.seed == min(k.seed for k in made))
    clips, pictures = [], []
    for name, shape in world.shapes.items():
        mine = np.flatnonzero(what.motions.target == what.motions.names.index(name))
        for i in mine[: config.videos]:
            caption = f"{last.method} {last.stage}, motion {i}: {_verdict(last, int(i))}"
            try:
                drawn = video.draw(hand, shape, _whole(hand, shape, what, last, int(i)))
                path = video.write_mp4(config.out / "videos" / f"{name}_{i}.mp4", drawn)
            except (PhysicsError, RenderError) as error:
                console.print(f"no video of {name}: {error}", style="yellow", markup=False)
                continue
            clips.append(Clip(name, caption, video.as_html(path)))
            pictures.append(Picture(name, caption, video.strip(drawn)))
    return clips, pictures


def _whole(hand: HandModel, shape: ObjectShape, what: Asked, judged: Judged, i: int) -> Motion:
    motions = what.motions
    phi = judged.phi[i, : what.lengths[i]]
    return motion_chain.whole(
        hand, shape, phi, motions.q_squeeze[i], motions.wxyz_xyz_world_object[i]
    )


def _verdict(judged: Judged, i: int) -> str:
    lifted = "lifted" if judged.values["lift_success"][i] else "not lifted"
    return f"MPJPE {judged.values['mpjpe_cm'][i]:.2f} cm, {lifted}"


if __name__ == "__main__":
    main()
