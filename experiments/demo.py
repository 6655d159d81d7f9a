"""The main job from end to end: grasps for the six held-out objects, reached for and lifted.

Grasps are proposed from clouds, refined, filtered and tested in physics, and those chosen that a
person would most likely make; then each is reached for from a drawn start with a generated motion,
and the object is lifted.

    python -m experiments.demo                # the same as: make demo
    python -m experiments.demo --retrain      # trains the small model first

Writes `runs/demo/report.html`, `runs/demo/results.json`, the grasps, and videos of lifts.
Takes 5 minutes on 2 cores.
"""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import track

from experiments import commands, eval_sim, motion_chain, train_pose
from experiments.eval_sim import EvalSim, Evaluation
from experiments.protocol import Taken
from realdex_jax.evaluation.report import Clip
from realdex_jax.evaluation.results import Results, Stat, stat
from realdex_jax.hand.load import HandModel, load
from realdex_jax.models import motion_model
from realdex_jax.models.motion_model import MotionModel
from sim.physics import LiftPhysics

MOTION_MODEL = "realdex-sim-motion"
"""The shipped model that makes the motions."""


@dataclasses.dataclass(frozen=True)
class Demo:
    """Command line of this script."""

    retrain: bool = False
    """Train the small model instead of taking the shipped one."""
    preset: eval_sim.PresetName = "paper"
    """How much to evaluate; see `experiments.eval_sim`."""
    out: Path = Path("runs/demo")
    """Folder of model, results and report."""


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    config = commands.read(Demo, __doc__, plan=plan)
    console = Console()
    with commands.ending(console):
        run(config, console)


def plan(config: Demo) -> Iterator[str]:
    """What a dry run says."""
    if config.retrain:
        yield from train_pose.plan(train_pose.TrainPose(run=config.out / "train"))
    yield from eval_sim.plan(EvalSim(preset=config.preset, out=config.out))
    yield "then every selected grasp is reached for, and lifted in physics"


def run(config: Demo, console: Console) -> None:
    """Trains if asked, evaluates, publishes."""
    start = time.perf_counter()
    model = "realdex-sim-small"
    training = 0.0
    if config.retrain:
        recipe = train_pose.TrainPose().recipe()
        if train_pose.train(recipe, "realdex-sim", config.out / "train") is None:
            raise KeyboardInterrupt
        model = str(config.out / "train" / "model.safetensors")
        training = time.perf_counter() - start
    evaluation = eval_sim.evaluate(
        EvalSim(model=model, preset=config.preset, out=config.out),
        commands.line(),
        console,
    )
    evaluation = _lifted(evaluation, config.out, console)
    if training:
        evaluation.seconds["training"] = training
    eval_sim.publish(evaluation, config.out, None, "Grasps for objects never seen", console)
    if evaluation.stopped:
        raise KeyboardInterrupt
    console.print(f"done in {time.perf_counter() - start:.0f} s", highlight=False)


def _lifted(evaluation: Evaluation, out: Path, console: Console) -> Evaluation:
    """Adds to the last stage how often its grasps, reached for, lift the object; and videos."""
    hand = load()
    model = motion_model.load_model(hand, MOTION_MODEL)
    takens = [m.taken for m in evaluation.measured if m.taken.stage == "selected"]
    takens = [taken for taken in takens if len(taken.grasps)]
    if not takens:
        return evaluation
    began = time.perf_counter()
    lifted: list[float] = []
    each: list[str] = []
    clips: list[Clip] = []
    for taken in track(takens, description="reach and lift", console=console):
        success, clip = _reach(hand, model, taken, out / "videos")
        lifted += success
        each.append(f"{taken.entry.shape.name} {sum(success):.0f}/{len(success)}")
        clips += [clip] if taken.seed == 0 else []
    evaluation.seconds["reach and lift"] = time.perf_counter() - began
    note = f"lifted after generated motions, by object: {', '.join(each)}"
    return dataclasses.replace(
        evaluation, found=_with_lift(evaluation, stat(lifted), note), clips=clips
    )


def _reach(
    hand: HandModel, model: MotionModel, taken: Taken, folder: Path
) -> tuple[list[float], Clip]:
    """Which grasps of one object are lifted, and a video of the first that is."""
    shape = taken.entry.shape
    done = motion_chain.carry_out(hand, model, shape, taken.grasps, taken.seed)
    i = int(done.lifted.argmax())
    verdict = "lifted" if done.lifted[i] else "not lifted"
    clip = motion_chain.clip(hand, done, i, f"grasp {i}: {verdict}", folder)
    return done.lifted.astype(float).tolist(), clip


def _with_lift(evaluation: Evaluation, lifted: Stat, note: str) -> Results:
    rows = [
        dataclasses.replace(row, metrics={**row.metrics, "lift_success": lifted})
        if row.stage == "selected"
        else row
        for row in evaluation.found.rows
    ]
    return dataclasses.replace(
        evaluation.found,
        rows=rows,
        physics={**evaluation.found.physics, "lift": LiftPhysics().describe()},
        notes=[*evaluation.found.notes, note],
    )


if __name__ == "__main__":
    main()
