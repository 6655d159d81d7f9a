"""The main job from end to end: grasps for the six held-out objects, tested, drawn, reported.

    make demo
    make demo ARGS=--retrain      # train the small model first instead of taking the shipped one

Writes `runs/demo/report.html` and `runs/demo/results.json`.
"""

import dataclasses
import sys
import time
from pathlib import Path

import tyro
from rich.console import Console
from rich.markup import escape

from experiments import eval_sim, train_pose
from experiments.eval_sim import EvalSim
from realdex_jax.errors import RealdexError


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
    config = tyro.cli(Demo, description=__doc__)
    console = Console()
    try:
        run(config, console)
    except RealdexError as error:
        console.print(f"[red]{type(error).__name__}[/]: {escape(str(error))}", highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("stopped")
        sys.exit(130)


def run(config: Demo, console: Console) -> None:
    """Trains if asked, evaluates, publishes."""
    start = time.perf_counter()
    model = "realdex-sim-small"
    training = 0.0
    if config.retrain:
        train_pose.train(train_pose.PRESETS["small"], "realdex-sim", config.out / "train")
        model = str(config.out / "train" / "model.safetensors")
        training = time.perf_counter() - start
    evaluation = eval_sim.evaluate(
        EvalSim(model=model, preset=config.preset, out=config.out),
        eval_sim.command_line(),
        console,
    )
    if training:
        evaluation.seconds["training"] = training
    eval_sim.publish(evaluation, config.out, None, "Grasps for objects never seen", console)
    console.print(f"done in {time.perf_counter() - start:.0f} s", highlight=False)


if __name__ == "__main__":
    main()
