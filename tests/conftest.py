"""Settings and fixtures that every test runs under."""

import os
import pathlib
from collections.abc import Iterator

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from experiments import compiled

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """Switches on the check that a random key is consumed once; a user's cache is left alone."""
    jax.config.update("jax_debug_key_reuse", True)
    os.environ.setdefault(compiled.FOLDER, "")


SLOW_SECONDS = 1500
"""A slow test may take this long before it counts as stuck; others have the limit in pyproject."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives slow tests more time."""
    for item in items:
        if "slow" in item.keywords and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))


@pytest.fixture(scope="module", autouse=True)
def _room_to_compile() -> Iterator[None]:
    """Keeps a long session from running out of memory mappings."""
    yield
    compiled.make_room()


@pytest.fixture
def rng() -> np.random.Generator:
    """A NumPy generator with a fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def repository() -> pathlib.Path:
    """The root of the working tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of real samples beside the repository; tests that need it skip without it."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the folder of real samples is not beside this repository")
    return folder


@pytest.fixture(scope="session")
def open_palm():  # the type is a record of the package: imported late, after the shape hook
    """Makes rough grasps: an upright object before the half-open hand, a little different each."""
    from realdex_jax.data.schema import GraspSet
    from realdex_jax.hand import joints

    def make(count: int) -> GraspSet:
        rng = np.random.default_rng(0)
        phi = np.zeros((count, 28), np.float32)
        spread = 0.05 * rng.normal(size=(count, 22))
        phi[:, :22] = np.clip(joints.REST + spread, joints.LOWER, joints.UPPER)
        R_object_hand = Rotation.from_matrix([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
        phi[:, 22:25] = -R_object_hand.apply([0.0, -0.045, 0.085])
        phi[:, 25:] = R_object_hand.as_rotvec()
        return GraspSet(phi=phi, q_pregrasp=phi[:, :22], q_squeeze=phi[:, :22])

    return make
