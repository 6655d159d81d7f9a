"""The synthesis run: settings, seeds, resume, mistakes, and a dataset that opens."""

import dataclasses
import errno
import json
import os
import pathlib
import sys
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from experiments import data_table, make_dataset, protocol
from experiments.make_dataset import MakeDataset, Settings
from realdex_jax.data import schema, store
from realdex_jax.errors import DatasetError
from realdex_jax.hand.load import load
from sim import objects
from sim.physics import Physics, StrictPhysics
from sim.robustness import robustness
from sim.validation import Tally


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """A run sets these for its workers."""
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    for name in ("OPENBLAS_NUM_THREADS", "JAX_PLATFORMS"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("COLUMNS", "2000")


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["experiments/make_dataset.py", *map(str, words)])
    make_dataset.main()


def begin(config: Settings, name: str, count: int, **changes: Any) -> pathlib.Path:
    """Part files as a run with `config` leaves them after `count` grasps; returns the note."""
    parts = config.out.with_name(config.out.name + ".parts")
    parts.mkdir(parents=True, exist_ok=True)
    stored = store.open_dataset("realdex-sim").grasps(objects.parse(name)[0])
    grasps = schema.take(stored, slice(0, count))
    make_dataset._save(parts / f"{name}.npz", grasps)
    state = {
        "settings": make_dataset.made_with(config),
        "tally": dataclasses.asdict(Tally(128, count, count, count, count, 1.0, 1.0)),
        "batches": 1,
        "gate": Physics().describe(),
    }
    note = parts / f"{name}.json"
    note.write_text(json.dumps(state | changes))
    return note


def test_the_command_line_changes_the_preset_and_keeps_the_rest():
    small = make_dataset.PRESETS["small"]
    assert MakeDataset().settings() == make_dataset.PRESETS["full"]
    assert MakeDataset(preset="small", seed=3).settings() == dataclasses.replace(small, seed=3)
    changed = MakeDataset(preset="small", processes=0, objects=("mug",)).settings()
    assert (changed.objects, changed.processes, changed.train) == (("mug",), 0, 20)
    fields = {f.name for f in dataclasses.fields(MakeDataset)} - {"preset"}
    assert fields == {f.name for f in dataclasses.fields(Settings)}


def test_objects_of_the_presets_exist():
    for preset in make_dataset.PRESETS.values():
        assert set(preset.objects) <= set(objects.names())


def test_the_default_can_rebuild_the_shipped_data():
    recipe = store.open_dataset("realdex-sim").recipe
    default = make_dataset.PRESETS["full"]
    # What has become a setting since then has the value that it had before.
    since = {"scales": (1.0,), "masses": (), "hand": "shadow"}
    shipped = {**recipe["settings"], "objects": tuple(recipe["settings"]["objects"]), **since}
    assert {**dataclasses.asdict(default), "out": str(default.out)} == shipped
    assert max(row["batches"] for row in recipe["objects"].values()) <= default.max_batches
    assert recipe["synthesis"] == make_dataset.made_with(default)["synthesis"]


def test_training_objects_come_in_every_size_and_others_in_their_own():
    config = Settings(objects=("yogurt", "mug"), scales=(0.8, 1.0, 1.25))
    expected = {"train": ("mug@0.80", "mug", "mug@1.25"), "val": ("yogurt",), "test": ()}
    assert make_dataset.variants(objects.SPLITS, config) == expected
    assert make_dataset.variants(objects.SPLITS, Settings()) == dict(objects.SPLITS)
    wide = make_dataset.variants(objects.SPLITS, make_dataset.PRESETS["wide"])
    assert [len(wide[part]) for part in ("train", "val", "test")] == [120, 6, 6]
    assert {objects.parse(name)[0] for name in wide["train"]} == set(objects.SPLITS["train"])


def test_batch_seeds_depend_on_object_and_batch_not_on_order():
    seeds = {make_dataset.batch_seed(0, name, i) for name in ("mug", "bowl") for i in range(50)}
    assert len(seeds) == 100
    assert make_dataset.batch_seed(0, "mug", 3) == make_dataset.batch_seed(0, "mug", 3)
    assert make_dataset.batch_seed(1, "mug", 3) != make_dataset.batch_seed(0, "mug", 3)


def test_parts_of_the_same_settings_go_on_and_others_are_refused(tmp_path):
    config = Settings(out=tmp_path / "data", seed=0, batch=32)
    parts = begin(config, "yogurt", 5).parent
    assert make_dataset.resume(parts, "mug", config) is None
    more = dataclasses.replace(config, train=300, max_batches=9, processes=2, points=64)
    part = make_dataset.resume(parts, "yogurt", more)
    assert part is not None
    assert (part.batches, part.tally.starts, part.gate) == (1, 128, Physics().describe())
    for change, message in (
        ({"seed": 3}, r"yogurt\.json was made with seed = 0, this run has 3; go on with"),
        ({"batch": 64}, r"synthesis\.batch = 32, this run has 64; .*delete .*data\.parts"),
    ):
        with pytest.raises(DatasetError, match=message):
            make_dataset.resume(parts, "yogurt", dataclasses.replace(config, **change))


def test_parts_from_before_masses_were_a_setting_go_on_and_other_masses_are_refused(tmp_path):
    config = Settings(out=tmp_path / "data")
    old = make_dataset.made_with(config)
    del old["masses"]
    parts = begin(config, "yogurt", 5, settings=old).parent
    assert make_dataset.resume(parts, "yogurt", config) is not None
    heavy = dataclasses.replace(config, masses=(0.05, 0.2))
    with pytest.raises(DatasetError, match=r"masses = \[\], this run has \[0\.05, 0\.2\]"):
        make_dataset.resume(parts, "yogurt", heavy)
    begin(heavy, "yogurt", 5)
    assert make_dataset.resume(parts, "yogurt", heavy) is not None
    with pytest.raises(DatasetError, match=r"masses = \[0\.05, 0\.2\], this run has \[\]"):
        make_dataset.resume(parts, "yogurt", config)


def test_parts_of_other_constants_or_without_settings_are_refused(tmp_path):
    config = Settings(out=tmp_path / "data")
    old = make_dataset.made_with(config)
    old["synthesis"]["gap"] = 1.0
    parts = begin(config, "yogurt", 5, settings=old).parent
    with pytest.raises(DatasetError, match=r"synthesis\.gap = 1\.0, this run has 100\.0"):
        make_dataset.resume(parts, "yogurt", config)
    begin(config, "yogurt", 5, settings=None)
    with pytest.raises(DatasetError, match="does not say with which settings"):
        make_dataset.resume(parts, "yogurt", config)
    for text in ("{", "[]", "{}"):
        (parts / "yogurt.json").write_text(text)
        with pytest.raises(DatasetError, match="is damaged"):
            make_dataset.resume(parts, "yogurt", config)


def test_a_finished_run_is_written_without_git_and_with_its_command(tmp_path, monkeypatch):
    out = tmp_path / "my data"
    begin(Settings(out=out), "cosmetics", 6)
    monkeypatch.setenv("PATH", str(tmp_path))  # no git there
    run(
        monkeypatch,
        *("--objects", "cosmetics", "--test", 5, "--points", 64),
        *("--processes", 1, "--out", out),
    )
    data = store.open_dataset(out)
    store.verify(data)
    assert len(data.grasps("cosmetics")) == 5
    assert data.recipe["commit"] == "unknown"
    assert data.recipe["command"] == (
        "python -m experiments.make_dataset --objects cosmetics --test 5 --points 64 --processes 1 "
        f"--out '{out}'"
    )
    assert data.recipe["objects"]["cosmetics"]["starts"] == 128
    assert f"--out '{out}'` at commit `unknown`" in data_table.table(data)


def test_sizes_are_objects_of_the_training_part_of_every_scheme_that_trains_on_them(
    tmp_path, monkeypatch
):
    out = tmp_path / "data"
    for name in ("body_wash", "body_wash@0.80", "mug", "mug@0.80", "cosmetics"):
        begin(Settings(out=out), name, 6)
    run(
        monkeypatch,
        *("--objects", "body_wash", "mug", "cosmetics", "--scales", 0.8, 1, "--train", 5),
        *("--test", 4, "--points", 512, "--processes", 1, "--out", out),
    )
    data = store.open_dataset(out)
    store.verify(data)
    assert data.splits == {
        "train": ("body_wash@0.80", "body_wash", "mug@0.80", "mug"),
        "val": (),
        "test": ("cosmetics",),
    }
    assert [len(data.grasps(name)) for name in data.objects] == [5, 5, 5, 5, 4]
    whole, small = (np.ptp(data.surface(n).points, axis=0) for n in ("mug", "mug@0.80"))
    np.testing.assert_allclose(small, 0.8 * whole, atol=2e-4)  # points are stored as float16
    assert data.recipe["settings"]["scales"] == [0.8, 1.0]
    assert "| mug@0.80 | train | 128 |" in data_table.table(data)
    # Under the other scheme mugs are held out: a test object is met in its own size only.
    assert store.open_dataset(out, "category").splits == {
        "train": ("body_wash@0.80", "body_wash", "cosmetics"),
        "val": (),
        "test": ("mug",),
    }
    _, entries, notes = protocol.entries_of_data(str(out), "train")
    assert [entry.shape for entry in entries] == [objects.make(n) for n in data.splits["train"]]
    assert notes == []


def test_other_folders_and_other_seeds_end_in_one_line_before_any_work(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine.txt").write_text("mine")
    begin(Settings(out=tmp_path / "begun"), "cosmetics", 2)
    before = sorted(tmp_path.rglob("*"))
    for words, message in (
        (("--out", tmp_path / "runs"), "neither an empty folder nor a dataset"),
        (("--out", tmp_path / "runs" / "mine.txt" / "x"), "NotADirectoryError"),
        (("--out", tmp_path / "begun", "--seed", 3), "made with seed = 0, this run has 3"),
        (("--out", tmp_path / "new", "--objects", "teapot"), "no object 'teapot'; known:"),
        (("--out", tmp_path / "new", "--preset", "small", "--train", 0), "train is 0"),
        (("--out", tmp_path / "new", "--seed", -1), "seed is -1"),
        (("--out", tmp_path / "new", "--scales", 0.8, 0.8), "scales are 0.8, 0.8; each may be"),
        (("--out", tmp_path / "new", "--scales", 0.805), "no size 0.805 of any object"),
        (("--out", tmp_path / "new", "--masses", 0.05, 0.05), "masses are 0.05, 0.05; each may"),
        (("--out", tmp_path / "new", "--masses", -0.2), "mass -0.2 kg is not positive"),
        (("--out", tmp_path / "new", "--masses", 0.1), "0.1 kg is the strict test's own mass"),
        (("--out", tmp_path / "begun", "--masses", 0.2), "made with masses = [], this run has"),
    ):
        with pytest.raises(SystemExit) as stopped:
            run(monkeypatch, *words)
        assert stopped.value.code == 2
        printed = capsys.readouterr().out
        assert message in printed
        assert printed.count("\n") == 1
        assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_leaves_the_old_part_and_no_temporary_file(tmp_path, monkeypatch):
    path = tmp_path / "mug.json"
    make_dataset._write(path, b"old")

    def full(self: pathlib.Path, content: bytes) -> None:
        with self.open("wb") as f:
            f.write(content[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        make_dataset._write(path, b"new")
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["mug.json"]
    assert path.read_bytes() == b"old"


def test_the_table_in_the_document_is_the_shipped_recipe(repository):
    document = (repository / "docs" / "dataset.md").read_text()
    assert data_table.table(store.open_dataset("realdex-sim")) in document


@pytest.mark.slow
@pytest.mark.long
def test_a_run_writes_a_dataset_and_resumes_without_repeating_work(tmp_path):
    config = Settings(
        out=tmp_path / "data",
        train=4,
        test=4,
        batch=32,
        processes=1,
        objects=("essential_oil", "yogurt", "cosmetics"),
        points=256,
    )
    console = Console()
    recipe = make_dataset.run(config, "test", console)
    dataset = store.open_dataset(config.out)
    assert all(len(dataset.grasps(name)) == 4 for name in dataset.objects)
    assert dataset.recipe["objects"] == recipe["objects"]
    again = make_dataset.run(config, "test", console)
    assert again["objects"] == recipe["objects"]  # nothing was tried again
    assert store.open_dataset(config.out).digest == dataset.digest
    more = make_dataset.run(dataclasses.replace(config, train=6), "test", console)
    note = json.loads((tmp_path / "data.parts" / "essential_oil.json").read_text())
    assert more["objects"]["essential_oil"]["starts"] == note["tally"]["starts"]
    assert len(store.open_dataset(config.out).grasps("essential_oil")) == 6


@pytest.mark.slow
@pytest.mark.long
def test_a_size_is_synthesised_on_its_own_and_holds_at_the_other_masses(tmp_path):
    config = Settings(
        out=tmp_path / "data",
        train=4,
        batch=32,
        processes=1,
        objects=("essential_oil",),
        points=256,
        scales=(0.8, 1.0),
        masses=(0.05, 0.2),
    )
    make_dataset.run(config, "test", Console())
    data = store.open_dataset(config.out)
    assert data.splits["train"] == ("essential_oil@0.80", "essential_oil")
    small, whole = (data.grasps(name) for name in data.splits["train"])
    assert not np.array_equal(small.phi, whole.phi)
    for grasps, name in ((small, "essential_oil@0.80"), (whole, "essential_oil")):
        for mass in (0.05, StrictPhysics().mass, 0.2):
            physics = dataclasses.replace(StrictPhysics(), mass=mass)
            # Targets are stored in half precision; a grasp at the edge may tip over.
            held = robustness(load(), objects.make(name), grasps, physics).success
            assert held.sum() >= 3, (name, mass)
