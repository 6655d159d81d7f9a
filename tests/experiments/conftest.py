import pathlib
from collections.abc import Callable

import pytest

from realdex_jax.data import store
from realdex_jax.data.schema import GraspSet


@pytest.fixture(scope="session")
def tiny_dataset(
    tmp_path_factory: pytest.TempPathFactory, open_palm: Callable[[int], GraspSet]
) -> pathlib.Path:
    """A dataset of two embedded objects with a few rough grasps each; test split: cosmetics."""
    path = tmp_path_factory.mktemp("data") / "tiny"
    store.write_dataset(
        path,
        name="tiny",
        version="1",
        grasps={"cosmetics": open_palm(6), "yogurt": open_palm(3)},
        splits={"train": ["yogurt"], "val": [], "test": ["cosmetics"]},
        recipe={"command": "test"},
    )
    return path
