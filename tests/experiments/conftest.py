import pathlib
from collections.abc import Callable, Iterator

import pytest
import trimesh

from realdex_jax.data import store
from realdex_jax.data.schema import GraspSet


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Imported meshes are kept in a folder of the tests, not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_dataset(
    tmp_path_factory: pytest.TempPathFactory, open_palm: Callable[[int], GraspSet]
) -> pathlib.Path:
    """A dataset of two boxes with a few rough grasps each; test split: block."""
    path = tmp_path_factory.mktemp("data") / "tiny"
    block = trimesh.creation.box((0.04, 0.04, 0.1)).export(file_type="obj").encode()
    store.write_dataset(
        path,
        name="tiny",
        version="1",
        grasps={"block": open_palm(6), "brick": open_palm(3)},
        splits={"train": ["brick"], "val": [], "test": ["block"]},
        recipe={"command": "test"},
        meshes={"block": block, "brick": block},
    )
    return path
