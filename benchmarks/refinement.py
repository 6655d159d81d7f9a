"""What the refinement wins for its time: share of robust grasps per millisecond, by setting.

The shipped model proposes grasps of the validation objects; every setting refines them and the
strict test judges them. Times are those of compiled calls, proposals included: more choices cost
samples. The first setting makes one step, so what it reaches is that of the proposals with the
squeeze that contact forces give them.
"""

import dataclasses

import jax
import numpy as np

from benchmarks import timing
from benchmarks.timing import Timing
from experiments import chain, protocol
from realdex_jax import generate
from realdex_jax.generate import GenerateConfig
from realdex_jax.hand.load import load
from realdex_jax.models import grasp_model
from realdex_jax.refine import RefineConfig
from sim.displacement import displacement
from sim.physics import Physics
from sim.robustness import robustness

GRASPS = 32
SETTINGS: dict[str, RefineConfig] = {
    "one step": RefineConfig(choices=1, steps=1),
    "best of 8, one step": RefineConfig(steps=1),
    "25 steps": RefineConfig(choices=1, steps=25, progress=0.0),
    "100 steps": RefineConfig(choices=1, steps=100, progress=0.0),
    "200 steps": RefineConfig(choices=1, steps=200, progress=0.0),
    "200 steps, stopped early": RefineConfig(choices=1),
    "best of 8, 200 steps": RefineConfig(progress=0.0),
    "best of 8, stopped early": RefineConfig(),
}
"""The last is the default."""


@dataclasses.dataclass(frozen=True)
class Gain:
    """What one setting reaches."""

    name: str
    ms_per_grasp: float
    """Sampling and refinement, milliseconds."""
    held: float
    robust: float
    per_ms: float | None
    """Robust share won over the first setting, per millisecond more; None for the first."""


def compare(grasps: int = GRASPS, limit: int | None = None) -> list[Gain]:
    """Refines the same objects' proposals with each setting."""
    hand, model = load(), grasp_model.load_model("realdex-sim-small")
    _, entries, _ = protocol.entries_of_data("realdex-sim", "val")
    out: list[Gain] = []
    for name, refine in SETTINGS.items():
        config = GenerateConfig(refine=refine)
        seconds, held, robust = [], [], []
        for entry in entries[:limit]:
            cloud = entry.shape.surface(chain.CLOUD_POINTS, 0).points

            # Once to compile, once to measure; a key may be used once.
            _, found = (
                generate.generate(model, cloud, grasps, jax.random.key(0), config, hand=hand)
                for _ in range(2)
            )
            seconds.append(found.seconds["sample"] + found.seconds["refine"])
            phi = np.asarray(found.refined.phi)
            held.append(displacement(hand, entry.shape, phi, directions=1).held.mean())
            robust.append(robustness(hand, entry.shape, found.refined).success.mean())
        ms = 1e3 * float(np.mean(seconds)) / grasps
        won = None
        if out:
            won = (float(np.mean(robust)) - out[0].robust) / max(ms - out[0].ms_per_grasp, 1e-9)
        out.append(Gain(name, ms, float(np.mean(held)), float(np.mean(robust)), won))
    return out


WHOLE = 100
TARGET = 20.0
"""Seconds that so many grasps of a new object may take, compiled, on four cores."""
STAGES = ("raw", "refined", "filtered", "physics")


def whole(grasps: int = WHOLE, limit: int | None = None) -> list[Timing]:
    """Times each part of the chain, all grasps tested in physics, over the validation objects."""
    hand, model = load(), grasp_model.load_model("realdex-sim-small")
    _, entries, _ = protocol.entries_of_data("realdex-sim", "val")
    rows: list[dict[str, float]] = []
    for i, entry in enumerate([entries[0], *entries[:limit]]):
        _, seconds = chain.propose(
            hand, model, entry, STAGES, seed=i, latents=grasps, grasps=grasps, physics=Physics()
        )
        rows.append({**seconds, "all": sum(seconds.values())})
    out = []
    for part in rows[0]:
        times = [row[part] for row in rows[1:]]  # the first one compiles
        low, median, high = timing.spread(times)
        out.append(Timing(part, median, low, high, grasps, len(times)))
    return out
