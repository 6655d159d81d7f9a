"""Trains the grasp model: contact net and generator together.

    python -m experiments.train_pose                         # flow matching on RealDex-Sim
    python -m experiments.train_pose --generator cvae        # RealDex's; flow: UniDexGrasp's
    python -m experiments.train_pose --preset paper --data PATH --run runs/mine
    python -m experiments.train_pose --data ~/realdex        # the release's downloads as they are
    python -m experiments.train_pose --run runs/mine         # the same again continues a stopped
    run

Ctrl-C or SIGTERM saves and stops; the next start with the same `--run` continues exactly. The run's
folder gets `config.json`, `checkpoints/`, `scalars.jsonl`, `tensorboard/` and `model.safetensors`.
Takes 8 minutes on 2 cores.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
from rich.console import Console

from experiments import commands, converted, functional_prior, training_page
from realdex_jax.data import pipeline, store
from realdex_jax.data.pipeline import Batch, Sampling, Stored
from realdex_jax.errors import TrainingError
from realdex_jax.hand import load
from realdex_jax.hand.load import HandModel
from realdex_jax.models import generator as generators
from realdex_jax.models import grasp_model
from realdex_jax.models import weights as weights_file
from realdex_jax.models.contact_net import ContactNetConfig
from realdex_jax.models.cvae import CvaeConfig, Statistics
from realdex_jax.models.grasp_model import GraspModel, NetworkConfig
from realdex_jax.training import checkpoint, density_objective, devices, log, loop, objective
from realdex_jax.training import state as states
from realdex_jax.training.density_objective import DensityWeights
from realdex_jax.training.devices import Cluster
from realdex_jax.training.loop import Schedule, StopRequest
from realdex_jax.training.objective import Perturbation, Weights
from realdex_jax.training.state import Optimisation, TrainState
from realdex_jax.training.update import Scalars


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One training run; presets say what each costs and reaches."""

    network: NetworkConfig = dataclasses.field(default_factory=NetworkConfig)
    """Sizes of the networks."""
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    """What a batch is made of."""
    optimisation: Optimisation = dataclasses.field(default_factory=Optimisation)
    """Length, rates and clipping."""
    weights: Weights | DensityWeights = dataclasses.field(default_factory=Weights)
    """Weights of the loss terms; their type says which objective is used."""
    perturbation: Perturbation = dataclasses.field(default_factory=Perturbation)
    """How far the hands shown to the contact net are moved."""
    scheme: str = store.SCHEME
    """Split scheme whose training part is trained on."""
    functional: float = 4.0
    """How much more often grasps on handles, triggers and pumps are drawn; see
    `experiments.functional_prior`."""
    seed: int = 0
    """Seed of parameters, batches and noise."""
    log_every: int = 20
    """Steps between two lines of the log."""
    save_every: int = 500
    """Steps between two checkpoints."""


PAPER = Recipe(
    network=NetworkConfig(
        contact=ContactNetConfig((64, 128, 1024), (64, 128, 1024), (512, 256, 128)),
        generator=CvaeConfig(
            object_encoder=(64, 128, 1024),
            hand_encoder=(64, 128, 1024),
            posterior=(512, 256),
            decoder=1024,
            blocks=2,
        ),
        points=1024,
        hand_points=1024,
    ),
    sampling=Sampling(objects=32, grasps=1, points=1024),
    optimisation=Optimisation(steps=25_000, rate=5e-4, weight_decay=1e-4),
    weights=objective.PAPER,
    functional=0.0,
)
"""Sizes, batch and weights of RealDex's release, whose rate reaches its floor at 24,000 steps.

    python -m experiments.train_pose --preset paper

For an accelerator; not run to its end yet, so no time and no expected metric are given.
"""

PRESETS: dict[str, Recipe] = {
    "small": Recipe(),
    "paper": PAPER,
    "smoke": Recipe(
        optimisation=Optimisation(steps=20, warmup=2),
        sampling=Sampling(objects=2, grasps=2),
        log_every=5,
        save_every=10,
    ),
}
"""small: `python -m experiments.train_pose`, 8 minutes on 2 CPU cores; the shipped models are this
run with seed 0, and docs/grasps.md says what three seeds reach.
smoke: seconds, to see that everything works; what it trains is of no use."""


@dataclasses.dataclass(frozen=True)
class TrainPose:
    """Command line of this script."""

    generator: Literal["cvae", "flow", "matching"] | None = None
    """matching: flow matching; the default but for the paper's preset. cvae: RealDex's. flow:
    UniDexGrasp's rotation density and normalising flow. All with the same encoders, data and number
    of updates."""
    preset: Literal["small", "paper", "smoke"] = "small"
    """small: minutes on a CPU. paper: the release's sizes, for an accelerator. smoke: 20 steps."""
    data: str = "realdex-sim"
    """Name or folder of a dataset; or a folder or download in a layout that `experiments.convert`
    reads, which is converted into the cache first."""
    scheme: str = store.SCHEME
    """Which of its split schemes: object is the paper's, category holds out whole categories."""
    run: Path = Path("runs/train_pose")
    """Folder of the run; an unfinished one is continued."""
    steps: int | None = None
    """Number of updates instead of the preset's."""
    rate: float | None = None
    """Peak learning rate instead of the preset's."""
    kl: float | None = None
    """Weight of the KL term instead of the preset's."""
    seed: int = 0
    """Seed of parameters, batches and noise."""
    strict: bool = False
    """Check every file first, and end at an object that cannot be read instead of training without
    it."""
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
        base = PRESETS[self.preset]
        optimisation = states.changed(base.optimisation, self.steps, self.rate)
        network, weights = base.network, base.weights
        kind = self.generator or ("cvae" if self.preset == "paper" else "matching")
        if kind != "cvae":
            if self.preset == "paper":
                raise TrainingError("the paper's preset is the cVAE's; use small or smoke")
            if self.kl is not None:
                raise TrainingError(
                    f"--kl {self.kl}: the {kind} generator has no KL term; --generator cvae has"
                )
            config = generators.named(kind)()
            network = dataclasses.replace(network, generator=config)
            weights = DensityWeights()
        elif self.kl is not None:
            weights = dataclasses.replace(weights, kl=self.kl)
        return dataclasses.replace(
            base,
            network=network,
            optimisation=optimisation,
            weights=weights,
            scheme=self.scheme,
            seed=self.seed,
        )


def train(
    recipe: Recipe, data: str, run: Path, strict: bool = False, count: int | None = None
) -> GraspModel | None:
    """Trains, or continues, a run.

    Args:
        recipe: What to train.
        data: Name or folder of a dataset.
        run: The run's folder.
        strict: Check every file first, and end at an object that cannot be read. If not, the next
            one stands in for it, in every run alike.
        count: Devices of this process; all by default.

    Returns:
        The trained model, also written to `run/model.safetensors`; None if a signal stopped the
        run before its end.

    Raises:
        TrainingError: The run's folder belongs to another recipe or dataset, or a loss is not
            finite.
        DatasetError: No object can be used; or, if strict, one cannot.
    """
    with loop.stop_on_signals(print) as stop:  # from here on: a stop while compiling is a stop, too
        return _train(recipe, data, run, strict, stop, count)


def _train(
    recipe: Recipe,
    data: str,
    run: Path,
    strict: bool,
    stop: StopRequest,
    count: int | None = None,
) -> GraspModel | None:
    # ---- data
    dataset = store.open_dataset(data, recipe.scheme)
    hand = load.load("shadow")
    if strict:
        store.verify(dataset)
    stored = Stored(dataset, "train", strict=strict)
    source = functional_prior.preferred(hand, dataset, stored, recipe.functional)
    spread = devices.spread(recipe.sampling.objects, count)
    batches = pipeline.batches(source, recipe.sampling, recipe.seed)
    statistics = Statistics(*pipeline.translation_statistics(source))
    print(f"{dataset.name} {dataset.version}: {len(source)} objects")

    # ---- model and state
    key_init, key_run = jax.random.split(jax.random.key(recipe.seed))
    params = grasp_model.init(recipe.network, key_init)
    state = spread.whole(states.create(params, recipe.optimisation, key_run))
    print(f"{weights_file.parameter_count(params):,} parameters on {devices.told(spread)}")

    # ---- resume
    described = checkpoint.describe(dataclasses.asdict(recipe), dataset.digest)
    checkpoint.claim(run, described)
    if checkpoint.latest(run) is not None:
        state = checkpoint.restore(run, state)
        print(f"continuing {run} at step {int(state.step)}")

    # ---- update
    update = update_of(recipe, hand, statistics)

    # ---- loop
    steps = recipe.optimisation.steps
    schedule = Schedule(steps, log_every=recipe.log_every, save_every=recipe.save_every)

    def names_of(batch: Batch) -> str:
        return ", ".join(source[int(i)].name for i in batch.item)

    def shown(rate: float) -> str:
        per_second = rate * recipe.sampling.objects * recipe.sampling.grasps
        return f"{rate:.1f} steps/s, {per_second:.0f} grasps/s"

    with log.hooks(run, steps, int(state.step), shown) as hooks:
        state, complete = loop.run(
            state,
            lambda state, batch: update(state, spread.batch(batch)),
            lambda step: spread.mine(batches[step]),
            schedule,
            hooks,
            stop=stop,
            names_of=names_of,
            agree=devices.any_process,
        )

    # ---- result
    if stored.skipped:
        print(f"{len(stored.skipped)} objects cannot be read, first: {_first(stored.skipped)}")
    if not complete:
        by = stop.signal or "another process"
        print(f"stopped by {by} at step {int(state.step)}; the same command continues")
        return None
    model = GraspModel(recipe.network, jax.device_get(state.params), statistics)
    if devices.is_first():
        grasp_model.save_model(run / "model.safetensors", model, described)
        print(f"model written to {run / 'model.safetensors'}")
    return model


def _first(skipped: Mapping[str, str]) -> str:
    name, reason = next(iter(skipped.items()))
    return f"{name}: {reason}"


def update_of(
    recipe: Recipe, hand: HandModel, statistics: Statistics
) -> Callable[[TrainState, Batch], tuple[TrainState, Scalars]]:
    """The jitted update of the recipe's objective."""
    given: dict[str, Any] = {
        "hand": hand,
        "config": recipe.network,
        "statistics": statistics,
        "perturbation": recipe.perturbation,
        "optimisation": recipe.optimisation,
    }
    if isinstance(recipe.weights, DensityWeights):
        return density_objective.make_step(weights=recipe.weights, **given)
    return objective.make_step(weights=recipe.weights, **given)


def plan(args: TrainPose) -> Iterator[str]:
    """What a dry run says.

    Raises:
        RealdexError: Settings or data that the job would refuse at once.
    """
    recipe = args.recipe()
    converted.check(args.data, recipe.scheme)
    sampling = recipe.sampling
    each = f"{sampling.objects * sampling.grasps} grasps of {sampling.objects} objects"
    done = checkpoint.latest(args.run) or 0
    yield (
        f"{recipe.optimisation.steps - done} updates, each of {each} of {args.data}"
        + (f", from step {done} on" if done else "")
    )


def main(args: TrainPose) -> int:
    """Trains; the exit status."""
    with commands.ending(Console(stderr=True), "stopped; the same command continues"):
        devices.join(Cluster(args.coordinator, args.processes, args.process))
        recipe = args.recipe()  # its mistakes are told before a conversion, not after
        data = converted.place(args.data)
        done = train(recipe, data, args.run, args.strict, args.devices)
        if done is not None and devices.is_first():
            print(f"report: {training_page.leave(args.run, commands.line())}")
        return 0 if done is not None else 130  # as a shell says of what Ctrl-C ended


if __name__ == "__main__":
    sys.exit(main(commands.read(TrainPose, __doc__, plan=plan)))
