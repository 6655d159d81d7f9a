"""Objects and real data for the physics tests."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest


@pytest.fixture(scope="session")
def cube():
    """A block of 4 x 4 x 4 cm, as the least that physics needs of an object."""
    corners = 0.02 * np.array(list(itertools.product((-1.0, 1.0), repeat=3)))
    return SimpleNamespace(name="cube", pieces=(corners,))


@pytest.fixture(scope="session")
def dexgraspnet_root():
    """The released DexGraspNet sample."""
    root = Path(__file__).parents[2] / ".." / "shared" / "data" / "dexgraspnet"
    if not root.is_dir():
        pytest.skip("no DexGraspNet sample at ../shared/data/dexgraspnet")
    return root
