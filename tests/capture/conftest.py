"""A small virtual rig whose pictures cost nothing, as most tests need only that they differ."""

import numpy as np
import pytest

from capture import virtual
from capture.virtual import Loop
from sim import clocks, film
from sim.film import VirtualRig


def noise_loop(cameras: VirtualRig, seed: int = 0) -> Loop:
    """Seven colour and five depth pictures of each camera: smooth, with noise."""
    rng = np.random.default_rng(seed)
    colour, depth = [], []
    for pair in cameras.lenses:
        h, w = pair.colour.height, pair.colour.width
        slope = np.linspace(0, 180, w)[None, :, None] + np.linspace(0, 40, h)[:, None, None]
        many = slope + rng.normal(0, 4, (7, h, w, 3)) + 5 * np.arange(7)[:, None, None, None]
        colour.append(list(np.clip(many, 0, 255).astype(np.uint8)))
        h, w = pair.depth.height, pair.depth.width
        far = 700 + np.linspace(0, 400, w)[None] + rng.normal(0, 2, (5, h, w))
        far[:, : h // 4] = 0
        depth.append(list(far.astype(np.uint16)))
    return Loop(colour, depth)


@pytest.fixture(scope="session")
def small_rig() -> VirtualRig:
    """Four cameras of 160 x 90 and 80 x 72 pixels."""
    return film.around_table(0, 160, 80, timing=clocks.draw(4, 0))


@pytest.fixture(scope="session")
def small_loop(small_rig: VirtualRig) -> Loop:
    """Their pictures."""
    return noise_loop(small_rig)


@pytest.fixture
def quick(small_rig: VirtualRig, small_loop: Loop):
    """Makes devices that give 30 frames each, as fast as they are asked."""

    def make(count: int | None = 30, pace: virtual.Pace = "free", **faults):
        given = {int(name.removeprefix("cam")): value for name, value in faults.items()}
        return virtual.devices(small_rig, small_loop, pace=pace, count=count, faults=given)

    return make
