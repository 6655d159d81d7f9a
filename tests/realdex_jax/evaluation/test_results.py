import copy
import dataclasses
import json
import pathlib

import numpy as np
import pytest

from realdex_jax.evaluation import results
from realdex_jax.evaluation.results import Row, stat


@pytest.fixture
def found() -> results.Results:
    rows = [
        Row("realdex-sim", "test", "cvae", "raw", 6, 60, {"held": stat(np.arange(60) % 2)}),
        Row("realdex-sim", "test", "cvae", "physics", 6, 0, {"held": stat([])}),
    ]
    return results.collect("python -m x", [0, 1], {"still": {"friction": 1.0}}, rows, ["a note"])


def raw(found: results.Results) -> dict:
    return json.loads(json.dumps(dataclasses.asdict(found)))


def test_a_saved_file_reads_back_the_same(found: results.Results, tmp_path: pathlib.Path) -> None:
    path = results.save(found, tmp_path / "deep" / "results.json")
    again = results.load(path)
    assert again.notes == ("a note",)
    assert again == dataclasses.replace(again, rows=found.rows)
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]


def test_a_file_without_notes_is_read(found: results.Results, tmp_path: pathlib.Path) -> None:
    document = raw(found)
    del document["notes"]
    (tmp_path / "old.json").write_text(json.dumps(document))
    assert results.load(tmp_path / "old.json").notes == ()


def test_the_file_says_where_its_numbers_come_from(found: results.Results) -> None:
    assert found.commit
    assert "cores" in found.device
    assert found.versions["mujoco"] == "3.17.0"


def test_stat_leaves_out_what_was_not_measured() -> None:
    found = stat([1.0, np.nan, 3.0])
    assert (found.mean, found.n) == (2.0, 2)
    assert found.sd == pytest.approx(2**0.5)
    assert stat([5.0]) == results.Stat(5.0, None, 1)
    assert stat([]) == results.Stat(None, None, 0)


def change(path: str, value: object):
    def apply(document: dict) -> None:
        *parents, last = path.split("/")
        node = document
        for name in parents:
            node = node[int(name)] if isinstance(node, list) else node[name]
        if value is None:
            del node[last]
        else:
            node[last] = value

    return apply


@pytest.mark.parametrize(
    ("mutate", "message"),
    [
        (change("physics", {}), "physics is empty"),
        (change("commit", None), "commit"),
        (change("extra", 1), "extra"),
        (change("seeds", "0"), "seeds is str"),
        (change("rows/0/stage", "best"), "known: dataset, raw"),
        (change("rows/0/metrics/win", {"mean": 1, "sd": 0, "n": 1}), "unknown metric"),
        (change("rows/0/metrics/held", {"mean": 1.5, "sd": 0, "n": 1}), "between 0 and 1"),
        (change("rows/0/metrics/held", {"mean": None, "sd": 0, "n": 1}), "mean None of 1"),
        (change("rows/0/metrics/held", {"mean": float("nan"), "sd": 0, "n": 1}), "not finite"),
        (change("rows/0/grasps", True), "grasps is bool"),
        (change("notes", "one"), "notes is str"),
        (change("notes", [1]), "every note must be text"),
    ],
)
def test_a_broken_contract_is_named(found: results.Results, mutate, message: str) -> None:
    document = copy.deepcopy(raw(found))
    mutate(document)
    with pytest.raises(results.ResultsError, match=message):
        results.validate(document)


def test_a_failed_write_leaves_the_old_file(
    found: results.Results, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = results.save(found, tmp_path / "results.json")
    before = path.read_text()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results.os, "fdopen", full)
    with pytest.raises(results.ResultsError, match="No space left"):
        results.save(dataclasses.replace(found, command="other"), path)
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_missing_and_broken_files_are_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(results.ResultsError, match="no results file"):
        results.load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(results.ResultsError, match="not JSON"):
        results.load(tmp_path / "bad.json")
