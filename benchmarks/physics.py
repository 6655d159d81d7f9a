"""Grasps a second of the still-hand test: one simulated second under gravity per grasp.

Uses stored grasps of the embedded dataset, which hold: a dropped object leaves the hand and makes
its steps cheap, so poor grasps would flatter the rate.
"""

import functools

from benchmarks.timing import Timing, time_calls
from realdex_jax.data import store
from realdex_jax.hand.load import load
from sim import objects
from sim.displacement import displacement
from sim.physics import Physics

GRASPS = 128
TARGET = 300.0
"""Grasps a second that four cores must reach."""


def measure(
    names: tuple[str, ...] = objects.SPLITS["test"],
    grasps: int = GRASPS,
    repeats: int = 3,
    data: str = "realdex-sim",
) -> list[Timing]:
    """Times the native backend per object, on all cores."""
    hand, physics = load(), Physics()
    dataset = store.open_dataset(data)
    calls = {}
    for name in names:
        stored = dataset.grasps(name).phi
        phi = stored[[i % len(stored) for i in range(grasps)]]
        calls[name] = functools.partial(
            displacement, hand, objects.make(name), phi, physics, "native", directions=1
        )
    return time_calls(calls, grasps, repeats, warm_up=1)
