import pathlib

import numpy as np
import pytest
import trimesh

from experiments import protocol
from experiments.protocol import Measured, Taken
from realdex_jax.data import schema
from realdex_jax.errors import DatasetError


def test_entries_come_with_mesh_and_grasps(tiny_dataset: pathlib.Path) -> None:
    name, (entry,) = protocol.entries_of_data(str(tiny_dataset), "test")
    assert name == "tiny"
    assert entry.shape.name == "cosmetics"
    assert entry.grasps is not None
    assert len(entry.grasps) == 6


def test_an_unknown_split_lists_the_known_ones(tiny_dataset: pathlib.Path) -> None:
    with pytest.raises(DatasetError, match="train, val, test"):
        protocol.entries_of_data(str(tiny_dataset), "tests")


def test_a_folder_brings_objects_and_reasons(tmp_path: pathlib.Path) -> None:
    trimesh.creation.box((0.06, 0.06, 0.1)).export(tmp_path / "block.stl")
    (tmp_path / "broken.obj").write_text("this is no mesh")
    entries, refused = protocol.entries_of_folder(tmp_path, scale=1.0)
    assert [entry.shape.name for entry in entries] == ["block"]
    assert entries[0].grasps is None
    assert len(refused) == 1
    assert refused[0].startswith("broken.obj: ")


def test_a_pick_depends_on_its_seed_only(tiny_dataset: pathlib.Path) -> None:
    _, (entry,) = protocol.entries_of_data(str(tiny_dataset), "test")
    assert entry.grasps is not None
    picks = [protocol.pick(entry.grasps, 4, seed).tolist() for seed in (0, 0, 1)]
    assert picks[0] == picks[1] != picks[2]
    assert len(set(picks[0])) == 4
    assert len(protocol.pick(entry.grasps, 100, 0)) == 6


def test_rows_pool_grasps_and_count_objects_once(tiny_dataset: pathlib.Path) -> None:
    _, (entry,) = protocol.entries_of_data(str(tiny_dataset), "test")
    assert entry.grasps is not None
    two = schema.take(entry.grasps, slice(2))

    def measured(stage: str, seed: int, held: list[float], diversity: float) -> Measured:
        values = {"held": np.array(held), "diversity": np.array([diversity])}
        return Measured(Taken(stage, entry, seed, two), values, {})

    found = protocol.rows(
        [measured("raw", 0, [0, 1], 0.1), measured("raw", 1, [1, 1], 0.3)],
        "tiny",
        "test",
        ("raw", "refined"),
        "cvae",
    )
    assert [row.stage for row in found] == ["raw"]
    assert (found[0].objects, found[0].grasps) == (1, 4)
    assert (found[0].metrics["held"].mean, found[0].metrics["held"].n) == (0.75, 4)
    assert found[0].metrics["diversity"].n == 2
