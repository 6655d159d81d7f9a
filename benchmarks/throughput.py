"""What one device makes of the whole work: grasps, grasps that hold, drops, training steps.

On an accelerator the same work in larger pieces. Physics runs on the machine's cores and, where
there is an accelerator and Warp, on it as well: validated grasps need whichever is faster.
"""

import dataclasses
import functools
import importlib.util
import time
from collections.abc import Callable, Sequence
from typing import Literal, cast

import jax
import numpy as np

from benchmarks.timing import Timing, time_calls
from experiments import chain, train_pose
from realdex_jax import generate
from realdex_jax.data import pipeline, store
from realdex_jax.generate import GenerateConfig
from realdex_jax.hand.load import load
from realdex_jax.models import grasp_model
from realdex_jax.models.cvae import Statistics
from realdex_jax.refine import RefineConfig
from realdex_jax.training import state as states
from sim import objects
from sim.displacement import displacement

Preset = Literal["small", "paper", "smoke"]
Backend = Literal["native", "mjx"]
OBJECT = "bathroom_cleaner"
TARGETS = {"raw": 10_000.0, "validated": 500.0, "refined_s": 0.05, "paper_hours": 1.0}
"""Of one accelerator: raw and validated grasps a second, seconds for 64 refined ones of one
proposal each, hours of the paper's preset."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much at once."""

    generated: tuple[int, ...]
    """Grasps sampled and refined."""
    dropped: tuple[int, ...]
    """Grasps in physics."""
    validated: int
    """Grasps of each object made and then dropped."""
    steps: int
    """Training steps of which the rate is taken."""


CPU = Sizes(generated=(64, 256), dropped=(128,), validated=64, steps=10)
ACCELERATOR = Sizes(generated=(64, 1024, 8192), dropped=(256, 1024, 4096), validated=512, steps=200)


@dataclasses.dataclass(frozen=True)
class Validated:
    """Grasps of some objects that hold, and what they cost."""

    backend: Backend
    made: int
    held: int
    generation_s: float
    physics_s: float

    @property
    def per_second(self) -> float:
        """Grasps that hold, a second of both."""
        return self.held / (self.generation_s + self.physics_s)


def device() -> str:
    """The device's name."""
    return jax.devices()[0].device_kind


def sizes() -> Sizes:
    """Those for the device."""
    return CPU if jax.default_backend() == "cpu" else ACCELERATOR


def backends() -> tuple[Backend, ...]:
    """Physics worth timing here: Warp emulates its kernels on a CPU."""
    there = jax.default_backend() != "cpu" and importlib.util.find_spec("warp")
    return ("native", "mjx") if there else ("native",)


def drops(counts: Sequence[int], repeats: int = 3, data: str = "realdex-sim") -> list[Timing]:
    """The still-hand test of one simulated second, by backend and number of grasps."""
    hand, shape = load(), objects.make(OBJECT)
    stored = store.open_dataset(data).grasps(OBJECT).phi
    found = []
    for backend in backends():
        for count in counts:
            phi = stored[np.arange(count) % len(stored)]
            call = functools.partial(displacement, hand, shape, phi, backend=backend, directions=1)
            found += time_calls({f"{backend}, {count} at once": call}, count, repeats, warm_up=1)
    return found


def generation(counts: Sequence[int], repeats: int = 5) -> list[Timing]:
    """Sampling alone, and refinement of one proposal and of the default number, by grasps."""
    hand, model = load(), grasp_model.load_model("realdex-sim-small")
    cloud = objects.make(OBJECT).surface(chain.CLOUD_POINTS, 0).points
    prepared = generate.prepare(cloud, None, model, GenerateConfig(), jax.random.key(0))
    found = []
    for count in counts:
        calls: dict[str, Callable[[], object]] = {}
        for choices in (1, RefineConfig().choices):
            config = GenerateConfig(refine=RefineConfig(choices=choices))

            def raw(
                number: int = count * choices, config: GenerateConfig = config
            ) -> tuple[jax.Array, jax.Array]:
                key = jax.random.key(1)  # a new one each time: a key may be used once
                points, target = prepared.points, prepared.target.points
                return generate.sample(hand, model, points, target, key, number, config)

            refined = functools.partial(
                generate.refine, hand, prepared.target, *raw(), config.refine
            )
            if choices == 1:
                calls[f"raw, {count} at once"] = _finished(raw)
            calls[f"refined, best of {choices}, {count} at once"] = _finished(refined)
        found += time_calls(calls, count, repeats, warm_up=1)
    return found


def validated(grasps: int, names: Sequence[str] = objects.SPLITS["test"]) -> list[Validated]:
    """Generates grasps of each object from points all over it and drops them; compiled before."""
    hand, model = load(), grasp_model.load_model("realdex-sim-small")
    found = []
    for backend in backends():
        rows = []
        for name in (names[0], *names):
            shape = objects.make(name)
            cloud = shape.surface(chain.CLOUD_POINTS, 0).points
            start = time.perf_counter()
            made = generate.generate(model, cloud, grasps, jax.random.key(0), hand=hand)
            between = time.perf_counter()
            phi = np.asarray(made.refined.phi)
            held = displacement(hand, shape, phi, backend=backend, directions=1).held.sum()
            rows.append((int(held), between - start, time.perf_counter() - between))
        held, generation_s, physics_s = (sum(column) for column in zip(*rows[1:], strict=True))
        found.append(Validated(backend, grasps * len(names), int(held), generation_s, physics_s))
    return found


def training(
    steps: int, presets: Sequence[Preset] = ("paper", "small"), data: str = "realdex-sim"
) -> list[Timing]:
    """Updates of presets as `train_pose` makes them; items are updates."""
    found = []
    for preset in presets:
        recipe = train_pose.TrainPose(preset=preset).recipe()
        source = pipeline.Stored(store.open_dataset(data, recipe.scheme), "train")
        statistics = Statistics(*pipeline.translation_statistics(source))
        params = grasp_model.init(recipe.network, jax.random.key(0))
        state = states.create(params, recipe.optimisation, jax.random.key(1))
        update = train_pose.update_of(recipe, load(), statistics)
        batches = cast("Sequence[pipeline.Batch]", pipeline.batches(source, recipe.sampling, 0))
        state, _ = jax.block_until_ready(update(state, batches[0]))
        start = time.perf_counter()
        for step in range(1, steps + 1):
            state, _ = update(state, batches[step])
        jax.block_until_ready(state)
        taken = time.perf_counter() - start
        found.append(
            Timing(f"{preset}, {recipe.optimisation.steps} in all", taken, taken, taken, steps, 1)
        )
    return found


def _finished(call: Callable[[], object]) -> Callable[[], object]:
    return lambda: jax.block_until_ready(call())
