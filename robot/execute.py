"""From an object's cloud to the lifted object, on a simulated robot or a real one.

    python -m robot.execute --object mug                    # a simulated robot, started and ended
    python -m robot.execute --object mug --runs 5 --out runs/mine
    python -m robot.execute --faults "freeze at=8 for=0.5"  # what goes wrong, see docs/ros2.md
    python -m robot.execute --robot ros2 --preset shadow_ur10e --object mug
        --object-pose 1 0 0 0 0 0 0.05                      # plans and checks; nothing moves
    python -m robot.execute --robot ros2 ... --execute      # asks for a typed word, then drives

Cloud (the four virtual cameras) -> grasps -> those that hold -> the most human-like -> motions ->
plan -> preflight in physics -> execution. The first grasp whose plan passes is driven. Writes
`out/<object>_<seed>/`: `log.jsonl` (every command that was sent), `predicted.mp4`, `seen.mp4`, and
`out/results.json` and `out/report.html` over all runs. Ctrl-C stops the robot and waits until its
joint states show that it stands. Where nobody tells the object's pose, as on a real robot, a run
ends "held, lift not observed" or "nothing held", by whether thumb and fingers fall short of their
set points. A run that cannot be started ends "not started", with its reason, and the next begins.
The exit code is 0 if every run lifted its object, 1 if not, 2 after a mistake, 3 if a stop was not
confirmed, 4 if all that is missing is that somebody saw the lift.

This program is no safety function: keep the emergency stop in reach.

Takes two minutes on 2 cores, and one for each further run.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console

from experiments import chain, commands, compiled, motion_chain, selection
from realdex_jax.data import schema
from realdex_jax.errors import ConfigError, RealdexError
from realdex_jax.evaluation import page, report
from realdex_jax.generate import GenerateConfig
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand.load import HandModel, load
from realdex_jax.models import grasp_model, motion_model
from realdex_jax.models.grasp_model import GraspModel
from realdex_jax.models.motion_model import MotionModel
from realdex_jax.select.local import LocalScorer
from realdex_jax.select.scorer import Task
from robot import account, candidate, drive, film, grip, limits, preflight, presets, simulated
from robot.account import Ending, Run, Told
from robot.candidate import Chosen
from robot.client import Ros2Robot
from robot.drive import Outcome
from robot.executor import Order, Phase, State
from robot.film import Film
from robot.plan import Plan, PlanConfig
from sim import objects, video

WORD = "move"
"""What is to be typed before a real robot moves."""


@dataclasses.dataclass(frozen=True)
class Execute:
    """Command line of this script."""

    object: tuple[str, ...] = ("mug",)
    """Parametric objects, one after the other."""
    robot: Literal["simulated", "ros2"] = "simulated"
    """simulated: started here, on this machine alone. ros2: whatever answers to the preset."""
    preset: str = "simulated"
    """Names and topics, of `robot/presets.toml`."""
    presets: Path = presets.FILE
    """File of presets."""
    execute: bool = False
    """Drive a robot that is not the simulated one; a word must be typed, too."""
    object_pose: tuple[float, ...] = ()
    """T_world_object, quaternion wxyz and position (m), for `--robot ros2`; drawn if simulated."""
    cloud: chain.Camera = "rig"
    """rig: four virtual depth cameras around the table. kinect: one. scan: the whole surface."""
    runs: int = 1
    """Of each object, with seeds that follow each other."""
    seed: int = 0
    """Of the first run: where the object stands, clouds, grasps."""
    count: int = 64
    """Grasps generated."""
    top: int = 8
    """Grasps that are tried, the most human-like first."""
    model: str = "realdex-sim-small"
    """Grasp model."""
    motion: str = "realdex-sim-motion"
    """Motion model."""
    speed: float = 1.0
    """Share of the planned speed."""
    guarded: bool = False
    """No part of the robot moves faster than 250 mm/s."""
    faults: tuple[str, ...] = ()
    """Of the simulated robot, each like "freeze at=8 for=0.5"."""
    domain_id: int | None = None
    """Of ROS 2; for the simulated robot a free one if not given."""
    video: bool = True
    """Draw what was predicted and what was seen."""
    out: Path = Path("runs/execute")
    """Folder of everything written."""


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    config = commands.read(Execute, __doc__)
    console = Console()
    with commands.ending(console):
        runs = run(config, console)
    if not all(one.confirmed for one in runs):
        sys.exit(3)
    endings = {one.ending for one in runs}
    if endings == {"held, lift not observed"}:
        sys.exit(4)
    sys.exit(0 if endings == {"lifted"} else 1)


def run(config: Execute, console: Console) -> list[Run]:
    """Runs all objects and seeds, prints and writes what came of it.

    Raises:
        RealdexError: Settings that make no sense, an object that is none, or ROS 2 is not here.
    """
    _check(config)
    commands.make_folder(config.out)
    shapes = [objects.make(name) for name in config.object]
    hand = load()
    model, mover = (
        grasp_model.load_model(config.model),
        motion_model.load_model(hand, config.motion),
    )
    found: list[Run] = []
    clips: list[report.Clip] = []
    seeds = range(config.seed, config.seed + config.runs)
    about = page.origin(commands.line(), config, seeds)
    for shape in shapes:
        for seed in seeds:
            compiled.make_room()
            console.rule(f"{shape.name}, seed {seed}")
            one, shown = _one(config, hand, model, mover, shape, seed, console)
            found.append(one)
            clips += shown
            account.save(config.out, found, clips, about)
            if one.ending == "cancelled":
                break
    account.show(found, console)
    console.print(f"report: {config.out / 'report.html'}", highlight=False)
    return found


def _check(config: Execute) -> None:
    if min(config.runs, config.count, config.top) < 1 or config.seed < 0:
        raise ConfigError(
            f"--runs {config.runs}, --count {config.count}, --top {config.top}, --seed "
            f"{config.seed}; at least 1, 1, 1 and 0"
        )
    if not 0.0 < config.speed <= 1.0:
        raise ConfigError(f"--speed {config.speed}; more than 0, at most 1")
    if config.robot == "simulated":
        if config.object_pose or config.preset != "simulated":
            raise ConfigError("--object-pose and --preset are for --robot ros2")
        # It moves without anybody's leave: nothing here may reach a real robot.
        presets.read_simulated(config.preset, config.presets)
        if config.domain_id == simulated.usual_domain():
            raise ConfigError(
                f"--domain-id {config.domain_id} is where other programs of ROS 2 are; leave it "
                "out for a free one, or give another"
            )
        return
    presets.read(config.preset, config.presets)
    if config.faults:
        raise ConfigError("--faults are the simulated robot's")
    pose = np.array(config.object_pose)
    if (
        pose.shape != (7,)
        or not np.isfinite(pose).all()
        or abs(np.linalg.norm(pose[:4]) - 1) > 1e-3
    ):
        raise ConfigError(
            f"--object-pose {' '.join(map(str, config.object_pose)) or '(none)'}: --robot ros2 "
            "needs seven numbers, a unit quaternion wxyz and a position (m)"
        )
    if len(config.object) * config.runs != 1:
        raise ConfigError("--robot ros2 drives one run of one object at a time")


@dataclasses.dataclass(eq=False)
class _Course:
    """What there is of a run, filled in as it goes: what was driven is told, whatever is raised."""

    tried: int = 0
    clips: list[report.Clip] = dataclasses.field(default_factory=list)
    chosen: Chosen | None = None
    seen: Film | None = None
    outcome: Outcome | None = None
    """None until it was driven."""


def _one(
    config: Execute,
    hand: HandModel,
    model: GraspModel,
    mover: MotionModel,
    shape: ObjectShape,
    seed: int,
    console: Console,
) -> tuple[Run, list[report.Clip]]:
    """One run, whatever comes of it: no error of it keeps the others from theirs."""
    folder = config.out / f"{shape.name}_{seed}"
    if (folder / "log.jsonl").exists():
        raise ConfigError(f"{folder} holds the log of a run; name another folder with --out")
    told, course = Told(shape.name, seed, console), _Course()
    try:
        before = _drive(config, hand, model, mover, shape, seed, folder, told, course)
        if before is not None:
            return before, course.clips
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        if course.outcome is None:
            if isinstance(error, ConfigError) or not isinstance(error, RealdexError):
                raise
            console.print(why, style="yellow", highlight=False, markup=False)
            return told.ended("not started", why, tried=course.tried), course.clips
        console.print(f"after the drive: {why}", style="yellow", highlight=False, markup=False)
    assert course.outcome is not None
    assert course.chosen is not None
    assert course.seen is not None
    console.print(course.outcome.text(), highlight=False, markup=False)
    course.clips += _seen_clip(config, hand, shape, seed, course.seen, folder, console)
    ending, reason = _ending(course.outcome, course.seen, course.chosen.plan)
    risen_m, confirmed = course.seen.risen_m(), course.outcome.confirmed
    return told.ended(ending, reason, risen_m, confirmed, course.tried), course.clips


def _drive(
    config: Execute,
    hand: HandModel,
    model: GraspModel,
    mover: MotionModel,
    shape: ObjectShape,
    seed: int,
    folder: Path,
    told: Told,
    course: _Course,
) -> Run | None:
    """All up to the end of the drive, into `course`; or how the run ended before that."""
    console = told.console
    cloud = chain.seen(hand, shape, config.cloud, seed)
    told.spent("cloud")
    on_table = GenerateConfig(table=True)
    made = chain.generated(hand, model, cloud, config.count, seed, on_table)
    told.spent("grasps")
    pool = selection.pool(hand, shape, made.refined)
    best = selection.choose(LocalScorer(), Task(shape.name), pool, config.top)
    told.spent("selection")
    if not best.best:
        reason = f"none of {config.count} holds the object in physics"
        return told.ended("no grasp holds", reason)
    grasps = schema.take(pool.grasps, np.array(best.best))
    given = np.array(config.object_pose) if config.object_pose else None
    try:
        what, phi = motion_chain.reach(hand, mover, shape, grasps, seed, given)
    except RealdexError as error:
        return told.ended("no plan passes", f"motions: {error}")
    told.spent("motions")
    with contextlib.ExitStack() as stack:
        real = stack.enter_context(_connected(config)) if config.robot == "ros2" else None
        chosen, reasons = candidate.first(
            hand,
            shape,
            what.motions,
            phi,
            what.lengths,
            candidate.at_home if real is None else real.state,
            PlanConfig(speed=config.speed, guarded=config.guarded),
        )
        told.spent("plan and preflight")
        for reason in reasons:
            console.print(f"  {reason}", style="yellow", highlight=False, markup=False)
        if chosen is None:
            return told.ended("no plan passes", "; ".join(reasons), tried=len(reasons))
        tried = course.tried = max(len(reasons), chosen.rank + 1)
        subject = best.scores[best.best[chosen.rank]]
        console.print(chosen.verdict.text(), highlight=False, markup=False)
        console.print(
            f"  grasp {chosen.rank + 1}: {subject.explanation}", highlight=False, markup=False
        )
        course.clips += _clips(config, hand, chosen, folder / "predicted.mp4", "predicted")
        if real is not None and not allowed(config, float(chosen.plan.trajectory.t[-1]), console):
            return told.ended("refused", "not told to move", tried=tried)
        robot = real or stack.enter_context(_simulated(config, chosen))
        if real is None:
            told.spent("robot")
        # Minutes may have passed since the first verdict.
        verdict = candidate.verdict(
            hand,
            shape,
            chosen.wxyz_xyz_world_object,
            chosen.plan,
            robot.state(),
            guarded=config.guarded,
        )
        order = Order(chosen.plan, verdict)
        if not order.verdict.passed:
            reason = "; ".join(order.verdict.faults)
            return told.ended("refused", reason, tried=tried)
        course.chosen = chosen
        with film.filming(robot.state, robot.object_pose) as course.seen:
            course.outcome = drive.run(
                robot,
                order,
                State(),
                log=folder / "log.jsonl",
                on_phase=lambda state: console.print(f"  {state.phase} {state.reason}"),
            )
        told.spent("execution")
    return None


def _seen_clip(
    config: Execute,
    hand: HandModel,
    shape: ObjectShape,
    seed: int,
    seen: Film,
    folder: Path,
    console: Console,
) -> list[report.Clip]:
    """The film of what was seen; without it a run is no less a run."""
    motion = seen.motion()
    if motion is None or not config.video:
        return []
    try:
        path = video.write_mp4(folder / "seen.mp4", video.draw(hand, shape, motion, every=2), 7.5)
        return [report.Clip(shape.name, f"seed {seed}, seen", video.as_html(path))]
    except RealdexError as error:
        console.print(f"no film of what was seen: {error}", style="yellow", markup=False)
        return []


def _ending(outcome: Outcome, seen: Film, driven: Plan) -> tuple[Ending, str]:
    """How a run that was driven ended, and why: by the object, or else by the fingers alone."""
    if outcome.reason.startswith("refused"):
        return "refused", outcome.reason
    if not outcome.completed:
        return ("fault" if outcome.phase is Phase.FAULT else "cancelled"), outcome.reason
    if seen.observed or not seen.q:
        return ("lifted" if seen.lifted else "not lifted"), outcome.reason
    digits = grip.pressing(driven.trajectory.q[-1], seen.q[-1])
    told = f"nobody sees the object; short of their set points are: {', '.join(digits) or 'none'}"
    return ("held, lift not observed" if grip.holds(digits) else "nothing held"), told


@contextlib.contextmanager
def _connected(config: Execute, domain_id: int | None = None) -> Iterator[Ros2Robot]:
    read = presets.read_simulated if config.robot == "simulated" else presets.read
    preset = read(config.preset, config.presets)
    robot = Ros2Robot(preset, config.domain_id if domain_id is None else domain_id)
    try:
        robot.wait()
        yield robot
    finally:
        robot.close()


@contextlib.contextmanager
def _simulated(config: Execute, chosen: Chosen) -> Iterator[Ros2Robot]:
    """A simulated robot with the object where the plan wants it, and the connection to it."""
    domain_id = simulated.free_domain() if config.domain_id is None else config.domain_id
    words = ["--presets", str(config.presets), "--object", chosen.shape.name, "--object-pose"]
    words += [f"{x:.9f}" for x in chosen.wxyz_xyz_world_object]
    if config.faults:
        words += ["--faults", *config.faults]
    start = dict(zip(limits.NAMES, limits.HOME.tolist(), strict=True))
    with (
        simulated.running(*words, domain_id=domain_id, start=start),
        _connected(config, domain_id) as robot,
    ):
        yield robot


def allowed(config: Execute, seconds: float, console: Console) -> bool:
    """Whether a person at the terminal lets a real robot move for so many seconds."""
    if not config.execute:
        console.print("nothing moves without --execute", style="yellow")
        return False
    if not sys.stdin.isatty():
        console.print("nothing moves without a person at the terminal", style="yellow")
        return False
    console.print(f"The robot {config.preset} will move for {seconds:.0f} s. Is everybody clear?")
    return console.input(f"Type {WORD!r} to go on: ").strip() == WORD


def _clips(
    config: Execute, hand: HandModel, chosen: Chosen, path: Path, caption: str
) -> list[report.Clip]:
    if not config.video:
        return []
    made = preflight.write_video(path, hand, chosen.shape, chosen.verdict)
    if made is None:
        return []
    return [report.Clip(chosen.shape.name, caption, video.as_html(made))]


if __name__ == "__main__":
    main()
