"""A small virtual rig whose pictures cost nothing, as most tests need only that they differ."""

import cameras
import pytest

from capture import virtual
from capture.virtual import Loop
from sim.film import VirtualRig


@pytest.fixture(scope="session")
def small_rig() -> VirtualRig:
    """Four cameras of 160 x 90 and 80 x 72 pixels."""
    return cameras.rig()


@pytest.fixture(scope="session")
def small_loop(small_rig: VirtualRig) -> Loop:
    """Their pictures."""
    return cameras.noise_loop(small_rig)


@pytest.fixture
def quick(small_rig: VirtualRig, small_loop: Loop):
    """Makes devices that give 30 frames each, as fast as they are asked."""

    def make(count: int | None = 30, pace: virtual.Pace = "free", **faults):
        given = {int(name.removeprefix("cam")): value for name, value in faults.items()}
        return virtual.devices(small_rig, small_loop, pace=pace, count=count, faults=given)

    return make
