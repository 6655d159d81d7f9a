"""Trains a motion model: MotionNet, its variant that looks around, or a baseline.

    python -m experiments.train_motion                       # MotionNet on RealDex-Sim
    python -m experiments.train_motion --model aware         # looks for a free way
    python -m experiments.train_motion --model goal          # GOAL's MNet, same data and budget
    python -m experiments.train_motion --model saga          # SAGA's infilling of whole motions
    python -m experiments.train_motion --model penalised     # one part of "aware" alone
    python -m experiments.train_motion --data realdex-sim-small --preset smoke

Ctrl-C or SIGTERM saves and stops; the next start with the same `--run` continues exactly. The run's
folder gets `config.json`, `checkpoints/`, `scalars.jsonl`, `tensorboard/` and `model.safetensors`.
Takes 5 to 8 minutes on 1 core.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
from rich.console import Console

from experiments import commands, motion_data, training_page
from experiments.motion_data import MotionData
from realdex_jax.data import clips, ways, windows
from realdex_jax.data.clips import Clips
from realdex_jax.data.motion_set import MotionSet
from realdex_jax.data.windows import Windows
from realdex_jax.errors import TrainingError
from realdex_jax.geometry.sdf import SdfGrids
from realdex_jax.hand.load import HandModel, load
from realdex_jax.losses.goal import GoalWeights
from realdex_jax.losses.motion import MotionWeights
from realdex_jax.losses.saga import SagaWeights
from realdex_jax.models import motion_model
from realdex_jax.models import weights as weights_file
from realdex_jax.models.goal import GoalConfig
from realdex_jax.models.motion_model import MotionModel
from realdex_jax.models.motion_net import MotionNetConfig
from realdex_jax.models.saga import SagaConfig
from realdex_jax.training import (
    checkpoint,
    devices,
    goal_objective,
    log,
    loop,
    motion_objective,
    saga_objective,
)
from realdex_jax.training import state as states
from realdex_jax.training.devices import Cluster
from realdex_jax.training.loop import Schedule, StopRequest
from realdex_jax.training.state import Optimisation, TrainState

ModelName = Literal[
    "motion_net", "aware", "goal", "saga", "chooses", "sees", "penalised", "stepwise", "untimed"
]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One training run."""

    model: motion_model.Config = dataclasses.field(default_factory=MotionNetConfig)
    """Kind and sizes of the network."""
    optimisation: Optimisation = dataclasses.field(
        default_factory=lambda: Optimisation(steps=5000, rate=2e-3, warmup=100)
    )
    """Length, rates and clipping."""
    weights: MotionWeights | GoalWeights | SagaWeights = dataclasses.field(
        default_factory=MotionWeights
    )
    """Weights of the loss terms; their type says which objective is used."""
    batch: int = 128
    """Windows, or whole motions for a model that fills them in, of a batch."""
    noise: float = 0.005
    """Noise on the frames a model sees, as `windows.shaken` takes it."""
    seed: int = 0
    """Seed of parameters, batches and noise."""
    log_every: int = 50
    """Steps between two lines of the log."""
    save_every: int = 1000
    """Steps between two checkpoints."""


_PENALTY = MotionWeights(penetration=100.0)
_WAYS = 6

MODELS: dict[ModelName, Recipe] = {
    "motion_net": Recipe(),
    "aware": Recipe(model=MotionNetConfig(aware=True, ways=_WAYS), weights=_PENALTY),
    "goal": Recipe(model=GoalConfig(), weights=GoalWeights()),
    "saga": Recipe(
        model=SagaConfig(),
        weights=SagaWeights(),
        batch=32,
        optimisation=Optimisation(steps=3000, rate=2e-3, warmup=100),
    ),
    "chooses": Recipe(model=MotionNetConfig(ways=_WAYS)),
    "sees": Recipe(model=MotionNetConfig(aware=True)),
    "penalised": Recipe(weights=_PENALTY),
    "stepwise": Recipe(model=MotionNetConfig(toward=False)),
    "untimed": Recipe(model=MotionNetConfig(toward=False, timed=False)),
}
"""Same data for each, and about as many frames learnt from: 5,000 batches of 128 windows of ten
frames, or 3,000 batches of 32 whole motions."""


@dataclasses.dataclass(frozen=True)
class TrainMotion:
    """Command line of this script."""

    model: ModelName = "motion_net"
    """motion_net: the paper's. aware: it also chooses among the ways of coming, sees distances to
    object and table, and pays for penetration. goal, saga: the paper's baselines. Parts, to see
    what each brings: chooses, sees, penalised (of aware); stepwise (motion_net without the way to
    the goal), untimed (nor the time)."""
    preset: Literal["full", "smoke"] = "full"
    """full: minutes on a CPU. smoke: 20 steps, to see that everything works."""
    data: str = "realdex-sim"
    """realdex-sim, realdex-sim-small, a file of door demonstrations, or a dataset with motions."""
    run: Path = Path("runs/train_motion")
    """Folder of the run; an unfinished one is continued."""
    steps: int | None = None
    """Number of updates instead of the preset's."""
    rate: float | None = None
    """Peak learning rate instead of the preset's."""
    seed: int = 0
    """Seed of parameters, batches and noise."""
    devices: int | None = None
    """Devices of this process over which a batch is spread; all by default."""
    coordinator: str | None = None
    """For several processes: address (host:port) of the first, or auto under Slurm, Open MPI or on
    TPUs. All get the same command, and share the run's folder."""
    processes: int | None = None
    """How many processes train together."""
    process: int | None = None
    """Which of them this is, from 0."""

    def recipe(self) -> Recipe:
        """The preset with the command line's changes.

        Raises:
            TrainingError: A number of steps or a rate that makes no sense.
        """
        base = MODELS[self.model]
        steps = 20 if self.preset == "smoke" and self.steps is None else self.steps
        optimisation = states.changed(base.optimisation, steps, self.rate)
        return dataclasses.replace(base, optimisation=optimisation, seed=self.seed)


def train(
    recipe: Recipe, data: MotionData, run: Path, count: int | None = None
) -> MotionModel | None:
    """Trains, or continues, a run.

    Args:
        recipe: What to train.
        data: The motions.
        run: The run's folder.
        count: Devices of this process; all by default.

    Returns:
        The trained model, also written to `run/model.safetensors`; None if a signal stopped the
        run before its end.

    Raises:
        TrainingError: The run's folder belongs to another recipe or other data, a loss is not
            finite, or an aware model was asked for where no shapes are known.
    """
    with loop.stop_on_signals(print) as stop:
        return _train(recipe, data, run, stop, count)


def _train(
    recipe: Recipe, data: MotionData, run: Path, stop: StopRequest, count: int | None = None
) -> MotionModel | None:
    # ---- data
    motions = data.part("train")
    spread = devices.spread(recipe.batch, count)
    grids = spread.whole(_grids(recipe, data))
    print(f"{data.name}: {len(motions)} motions, {len(motions.phi)} frames")

    # ---- model and state
    hand = load("shadow")
    key_init, key_run = jax.random.split(jax.random.key(recipe.seed))
    params = motion_model.init(hand, recipe.model, key_init)
    state = spread.whole(states.create(params, recipe.optimisation, key_run))
    print(f"{weights_file.parameter_count(params):,} parameters on {devices.told(spread)}")

    # ---- resume
    described = checkpoint.describe(dataclasses.asdict(recipe), data.digest)
    checkpoint.claim(run, described)
    if checkpoint.latest(run) is not None:
        state = checkpoint.restore(run, state)
        print(f"continuing {run} at step {int(state.step)}")

    # ---- update
    update = _update(recipe, hand, grids)
    batch_at = _batches(recipe, motions)

    # ---- loop
    steps = recipe.optimisation.steps
    schedule = Schedule(steps, log_every=recipe.log_every, save_every=recipe.save_every)

    def names_of(batch: Windows | Clips) -> str:
        return ", ".join(sorted({motions.names[int(i)] for i in batch.target}))

    def shown(rate: float) -> str:
        return f"{rate:.1f} steps/s, {rate * recipe.batch:.0f} samples/s"

    with log.hooks(run, steps, int(state.step), shown) as hooks:
        state, complete = loop.run(
            state,
            lambda state, batch: update(state, spread.batch(batch)),
            lambda step: spread.mine(batch_at(step)),
            schedule,
            hooks,
            stop=stop,
            names_of=names_of,
            agree=devices.any_process,
        )

    # ---- result
    if not complete:
        by = stop.signal or "another process"
        print(f"stopped by {by} at step {int(state.step)}; the same command continues")
        return None
    model = MotionModel(config=recipe.model, params=jax.device_get(state.params))
    if devices.is_first():
        motion_model.save_model(run / "model.safetensors", model, described)
        print(f"model written to {run / 'model.safetensors'}")
    return model


def _grids(recipe: Recipe, data: MotionData) -> SdfGrids | None:
    """The objects' distance grids, where model or loss looks into them."""
    aware = motion_model.sees(recipe.model)
    if not aware and getattr(recipe.weights, "penetration", 0.0) == 0.0:
        return None
    if not data.shapes:
        what = "an aware model" if aware else "the penetration term"
        raise TrainingError(f"{what} needs the objects' shapes; {data.name} has none")
    return data.grids("train")


def name_of(config: motion_model.Config, weights: Mapping[str, Any]) -> ModelName | None:
    """Which of `MODELS` a trained model is, by its network and its loss.

    Args:
        config: The network's settings; a file that lacks the newer ones has their defaults.
        weights: The loss's weights, as the file's recipe holds them.

    Returns:
        The name, or None for settings that have none.
    """
    for name, base in MODELS.items():
        if base.model == config and dataclasses.asdict(base.weights) == dict(weights):
            return name
    return None


def _update(
    recipe: Recipe, hand: HandModel, grids: SdfGrids | None
) -> Callable[[TrainState, Any], tuple[TrainState, motion_objective.Scalars]]:
    """The jitted update of the recipe's objective."""
    match recipe.model, recipe.weights:
        case MotionNetConfig(), MotionWeights():
            return motion_objective.make_step(
                hand=hand,
                config=recipe.model,
                grids=grids,
                weights=recipe.weights,
                noise=recipe.noise,
                optimisation=recipe.optimisation,
            )
        case GoalConfig(), GoalWeights():
            return goal_objective.make_step(
                hand=hand,
                config=recipe.model,
                weights=recipe.weights,
                noise=recipe.noise,
                optimisation=recipe.optimisation,
            )
        case SagaConfig(), SagaWeights():
            return saga_objective.make_step(
                config=recipe.model, weights=recipe.weights, optimisation=recipe.optimisation
            )
        case model, weights:
            raise TrainingError(f"{type(weights).__name__} are no weights for {type(model)}")


def _batches(recipe: Recipe, motions: MotionSet) -> Callable[[int], Windows | Clips]:
    """What the model learns from at each step."""
    if isinstance(recipe.model, SagaConfig):
        whole = clips.stretch(motions, recipe.model.instants)
        return lambda step: clips.batch(whole, recipe.batch, recipe.seed, step)
    way = ways.find(motions, motion_model.ways(recipe.model))
    return lambda step: windows.batch(motions, recipe.batch, recipe.seed, step, way)


def plan(args: TrainMotion) -> Iterator[str]:
    """What a dry run says."""
    recipe = args.recipe()
    each = f"{recipe.batch} windows or motions"
    done = checkpoint.latest(args.run) or 0
    yield (
        f"{recipe.optimisation.steps - done} updates, each of {each} of {args.data}"
        + (f", from step {done} on" if done else "")
    )


def main(args: TrainMotion) -> int:
    """Trains; the exit status."""
    with commands.ending(Console(stderr=True), "stopped; the same command continues"):
        devices.join(Cluster(args.coordinator, args.processes, args.process))
        data = motion_data.open_motions(args.data, tell=print)
        done = train(args.recipe(), data, args.run, args.devices)
        if done is not None and devices.is_first():
            print(f"report: {training_page.leave(args.run, commands.line())}")
        return 0 if done is not None else 130


if __name__ == "__main__":
    sys.exit(main(commands.read(TrainMotion, __doc__, plan=plan)))
