"""The command that runs benchmarks: only those named, each kept when it is measured."""

import json

import pytest
from rich.console import Console

from benchmarks import run
from benchmarks.run import Bench
from realdex_jax.errors import ConfigError


def test_those_named_run_and_are_written_one_by_one(tmp_path, monkeypatch):
    path = tmp_path / "bench.json"
    seen = []

    def first(console, bench, cores):
        seen.append("first")
        return {"first": cores}

    def second(console, bench, cores):
        assert json.loads(path.read_text())["first"] == cores
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "BENCHMARKS", {"left": pytest.fail, "a": first, "b": second})
    with pytest.raises(KeyboardInterrupt):
        run.run(Bench(only=("b", "a"), json=path), Console(quiet=True))
    assert seen == ["first"]
    assert {"command", "commit", "device", "versions", "first"} <= json.loads(
        path.read_text()
    ).keys()


def test_a_name_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"--only speed: known are kinematics, distances"):
        run.run(Bench(only=("speed",), json=tmp_path / "x"), Console(quiet=True))
