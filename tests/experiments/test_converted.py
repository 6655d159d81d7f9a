"""Foreign data where a dataset is asked for: converted once, and again when a file changes."""

import functools
import os
import pathlib
import re

import pytest
from rich.console import Console

from experiments import convert, converted, protocol, train_pose, write_release
from experiments.train_pose import TrainPose
from experiments.write_release import WriteRelease
from realdex_jax.data import store
from realdex_jax.errors import DatasetError


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: pathlib.Path) -> pathlib.Path:
    """Two objects in the layout of the RealDex release."""
    out = tmp_path_factory.mktemp("release") / "tiny"
    config = WriteRelease(data=str(tiny_dataset), what="recordings", out=out)
    write_release.write(config, Console(quiet=True))
    return out


def test_a_release_is_converted_once_and_again_when_a_file_changes(
    release: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def place() -> str:
        return converted.place(str(release), told.append, cache=tmp_path, jobs=1)

    found = place()
    data = store.open_dataset(found)
    assert re.match(rf"{release}: realdex, 2 units; converting into {tmp_path}", told[0])
    assert (data.name, {k: len(v) for k, v in data.splits.items()}) == (
        "tiny",
        {"train": 1, "val": 0, "test": 1},
    )
    assert len(data.grasps("block")) == 6
    assert place() == found
    assert len(told) == 1
    final = next(release.rglob("final_data.npy"))
    os.utime(final, ns=(10**18, 10**18))
    assert place() == found
    assert len(told) == 2
    assert store.open_dataset(found).digest == data.digest
    # What is damaged in the cache is made again, and work of another version is no obstacle.
    (pathlib.Path(found) / store.INDEX).write_text("{}")
    for path in sorted(pathlib.Path(found).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    monkeypatch.setattr(convert, "_finish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        place()
    monkeypatch.undo()
    monkeypatch.setattr(convert, "commit_now", lambda: "another")
    assert store.open_dataset(place()).digest == data.digest


def test_what_is_a_dataset_or_nothing_is_left_to_whoever_opens_it(
    tiny_dataset: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for data in ("realdex-sim", str(tiny_dataset), str(tmp_path), str(tmp_path / "absent")):
        assert converted.place(data, cache=tmp_path / "cache") == data
    assert not (tmp_path / "cache").exists()


def test_two_layouts_at_once_are_refused(
    release: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converted.formats, "recognise", lambda _: ("grab", "realdex"))
    with pytest.raises(DatasetError, match=r"looks like grab and realdex; .* --format grab"):
        converted.place(str(release), cache=tmp_path)


def test_training_takes_a_release_as_it_lies(
    release: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one = functools.partial(converted.place, jobs=1)
    monkeypatch.setattr(train_pose.converted, "place", one)
    given: list[str] = []
    monkeypatch.setattr(
        train_pose, "train", lambda recipe, data, *_: given.append(data) or object()
    )
    monkeypatch.setattr(train_pose.training_page, "leave", lambda run, _: run)
    assert train_pose.main(TrainPose(preset="smoke", data=str(release), run=tmp_path / "run")) == 0
    data = store.open_dataset(given[0])
    assert data.path.parent == tmp_path / "realdex_jax" / "converted"
    assert len(data.splits["train"]) == 1
    _, entries, _ = protocol.entries_of_data(str(release), "test")
    assert [entry.shape.name for entry in entries] == ["block"]
