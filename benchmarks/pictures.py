"""Pictures of grasps a second, as the scorers get them, without a graphics library."""

import functools

import numpy as np

from benchmarks.timing import Timing, time_calls
from realdex_jax.data import store
from realdex_jax.hand.load import load
from sim import objects, render

SIZE = (320, 240)
TARGET = 10.0
"""Pictures a second that four cores must reach."""


def measure(names: int = 3, grasps: int = 16, repeats: int = 3) -> list[Timing]:
    """Times pictures of stored grasps; some objects of the test split, one timing each."""
    data = store.open_dataset("realdex-sim")
    timings = []
    for name in data.splits["test"][:names]:
        phi = np.asarray(data.grasps(name).phi, np.float32)[:grasps]
        draw = functools.partial(render.render_grasps, load(), objects.make(name), phi, SIZE)
        timings += time_calls({name: draw}, len(phi), repeats, warm_up=1)
    return timings
