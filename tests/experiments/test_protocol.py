import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np
import pytest
import trimesh

from experiments import protocol
from experiments.protocol import Measured, Taken
from realdex_jax.data import object_files, schema, store
from realdex_jax.data.schema import GraspSet
from realdex_jax.errors import DatasetError, DecompositionError
from realdex_jax.evaluation.results import METRICS
from realdex_jax.hand import load
from sim import objects


def test_entries_come_with_mesh_and_grasps(tiny_dataset: pathlib.Path) -> None:
    name, (entry,), notes = protocol.entries_of_data(str(tiny_dataset), "test")
    assert name == "tiny"
    assert entry.shape.name == "block"
    assert notes == []
    assert entry.grasps is not None
    assert len(entry.grasps) == 6


def test_an_unknown_split_lists_the_known_ones(tiny_dataset: pathlib.Path) -> None:
    with pytest.raises(DatasetError, match="train, val, test"):
        protocol.entries_of_data(str(tiny_dataset), "tests")


def test_a_folder_brings_objects_and_reasons(tmp_path: pathlib.Path) -> None:
    trimesh.creation.box((0.06, 0.06, 0.1)).export(tmp_path / "block.stl")
    (tmp_path / "broken.obj").write_text("this is no mesh")
    entries, notes = protocol.entries_of_folder(tmp_path, scale=1.0)
    assert [entry.shape.name for entry in entries] == ["block"]
    assert entries[0].grasps is None
    assert len(notes) == 1
    assert notes[0].startswith("left out: broken.obj: ")


def test_a_hull_in_place_of_a_mesh_is_told(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise DecompositionError("took more than 120 s")

    monkeypatch.setattr(protocol.meshes, "decompose", fail)
    trimesh.creation.box((0.05, 0.07, 0.11)).export(tmp_path / "block.stl")
    _, notes = protocol.entries_of_folder(tmp_path, scale=1.0)
    assert notes == [
        "block: WARNING: one convex hull stands for the whole object (took more than 120 s)"
    ]


def named_mug(path: pathlib.Path, name: str, grasps: GraspSet) -> str:
    splits = {"train": [], "val": [], "test": ["mug"]}
    store.write_dataset(
        path, name=name, version="1", grasps={"mug": grasps}, splits=splits, recipe={}
    )
    return str(path)


def test_a_users_mug_without_a_mesh_is_not_ours(
    tmp_path: pathlib.Path, open_palm: Callable[[int], GraspSet]
) -> None:
    with pytest.raises(DatasetError, match="no mesh for 'mug'"):
        protocol.entries_of_data(named_mug(tmp_path / "a", "my scans", open_palm(2)), "test")
    remade = named_mug(tmp_path / "b", "realdex-sim", open_palm(2))
    _, (entry,), _ = protocol.entries_of_data(remade, "test")
    assert entry.shape is objects.make("mug")


def test_an_object_that_cannot_be_read_is_left_out(
    tiny_dataset: pathlib.Path, tmp_path: pathlib.Path, open_palm: Callable[[int], GraspSet]
) -> None:
    mesh = (tiny_dataset / "objects" / "block" / "mesh.obj").read_bytes()
    store.write_dataset(
        tmp_path / "two",
        name="two",
        version="1",
        grasps={"block": open_palm(2), "mug": open_palm(2)},
        splits={"train": [], "val": [], "test": ["block", "mug"]},
        recipe={},
        meshes={"block": mesh},
    )
    _, entries, notes = protocol.entries_of_data(str(tmp_path / "two"), "test")
    assert [entry.shape.name for entry in entries] == ["block"]
    assert len(notes) == 1
    assert notes[0].startswith("left out: two: no mesh for 'mug'")


def test_remarks_count_what_passed_and_name_what_fills_up(
    tiny_dataset: pathlib.Path, open_palm: Callable[[int], GraspSet]
) -> None:
    _, (entry,), _ = protocol.entries_of_data(str(tiny_dataset), "test")
    still = open_palm(10)
    pressing = dataclasses.replace(still, q_squeeze=np.asarray(still.q_squeeze) + 0.1)
    takens = [Taken("raw", entry, 0, still)]
    takens += [
        Taken("filtered", entry, seed, pressing, candidates=100, passed=passed)
        for seed, passed in enumerate((7, 31))
    ]
    raw, share, filled = protocol.remarks(takens)
    assert raw.startswith("raw: ")
    assert "near 0 by construction" in raw
    assert share == "candidates that passed the filter: 0.19 (block 38 of 200)"
    assert filled == (
        "block: 17 of 20 filtered grasps passed the filter; the best of the others fill up"
    )
    assert len(protocol.remarks(takens[2:])) == 1, "enough passed: nothing filled up"


def test_a_pick_depends_on_its_seed_only(tiny_dataset: pathlib.Path) -> None:
    _, (entry,), _ = protocol.entries_of_data(str(tiny_dataset), "test")
    assert entry.grasps is not None
    picks = [protocol.pick(entry.grasps, 4, seed).tolist() for seed in (0, 0, 1)]
    assert picks[0] == picks[1] != picks[2]
    assert len(set(picks[0])) == 4
    assert len(protocol.pick(entry.grasps, 100, 0)) == 6


def test_rows_pool_grasps_and_count_objects_once(tiny_dataset: pathlib.Path) -> None:
    _, (entry,), _ = protocol.entries_of_data(str(tiny_dataset), "test")
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


def test_every_metric_has_a_value_a_grasp_or_one_in_all(
    tiny_dataset: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    _, (entry,), _ = protocol.entries_of_data(str(tiny_dataset), "test")
    assert entry.grasps is not None
    taken = Taken("raw", entry, 0, schema.take(entry.grasps, slice(3)), ms_per_grasp=5.0)
    found = protocol.measure(load.load(), taken)
    sizes = {name: len(values) for name, values in found.values.items()}
    assert sizes == {name: 1 if METRICS[name].whole else 3 for name in sizes}
    assert {"q1", "valid_q1", "q1_bench", "held", "penetration_cm"} <= set(sizes)
    whole = {name for name, metric in METRICS.items() if metric.whole}
    assert whole <= set(sizes)
    assert all(np.isfinite(values).all() for values in found.values.values())
    (path,) = protocol.deliver([found], tmp_path)
    columns = object_files.load_grasps(path).columns
    assert set(columns) == (set(sizes) - whole) | {"seed", "stage"}
