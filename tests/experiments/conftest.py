import pathlib

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax.data import store
from realdex_jax.data.schema import GraspSet
from realdex_jax.hand import joints


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A dataset of two embedded objects with a few rough grasps each; test split: cosmetics."""
    rng = np.random.default_rng(0)

    def grasps(count: int) -> GraspSet:
        phi = np.zeros((count, 28), np.float32)
        spread = 0.05 * rng.normal(size=(count, 22))
        phi[:, :22] = np.clip(joints.REST + spread, joints.LOWER, joints.UPPER)
        R_object_hand = Rotation.from_matrix([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
        phi[:, 22:25] = -R_object_hand.apply([0.0, -0.045, 0.085])
        phi[:, 25:] = R_object_hand.as_rotvec()
        return GraspSet(phi=phi, q_pregrasp=phi[:, :22], q_squeeze=phi[:, :22])

    path = tmp_path_factory.mktemp("data") / "tiny"
    store.write_dataset(
        path,
        name="tiny",
        version="1",
        grasps={"cosmetics": grasps(6), "yogurt": grasps(3)},
        splits={"train": ["yogurt"], "val": [], "test": ["cosmetics"]},
        recipe={"command": "test"},
    )
    return path
