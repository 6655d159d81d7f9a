"""The study from the command line: serving, counting, and mistakes."""

import contextlib
import csv
import json
import pathlib
import signal
import socket
import sys

import pytest
import raters
from raters import Rater, make_items

from experiments import user_study
from realdex_jax.data import schema, store
from realdex_jax.evaluation import results
from study import ballots, plan


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["experiments/user_study.py", *map(str, words)])
    monkeypatch.setenv("COLUMNS", "300")
    user_study.main()


def mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> str:
    """The one line that a mistake ends in."""
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *words)
    assert stopped.value.code == 2
    return capsys.readouterr().out.splitlines()[-1]


def test_a_study_is_served_stopped_and_counted(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    items, out = make_items(tmp_path / "items"), tmp_path / "out"
    words = ("--mode", "score", "--samples", "1", "--question", "How good?")
    with raters.serving(items, out, *words) as (address, process):
        assert address.startswith("http://127.0.0.1:")
        with contextlib.closing(Rater(address)) as one:
            page = one.begin()
            assert "How good?" in page.text
            page = one.answer(page, {"alpha": 5, "beta": 3, "gamma": 0})
            page = one.answer(page, {"alpha": 4, "beta": 3, "gamma": 1})
            one.finish(page)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "stopped; 2 answers of 1 people are in" in printed
        assert f"user_study tally --out {out}" in printed
    token = address.split("/s/")[1].strip("/")
    assert token not in printed
    run(monkeypatch, "tally", "--out", out)
    printed = capsys.readouterr().out
    assert "4.50" in printed
    assert "no interval with one rater" in printed
    table = (out / "table.md").read_text()
    assert "| alpha | **4.50** | – | 1 | 2 |" in table
    assert f"`python -m experiments.user_study tally --out {out}`" in table
    found = json.loads((out / "table.json").read_text())
    assert [row["mean"] for row in found["rows"]] == [4.5, 3.0, 0.5]
    assert found["commit"] == results.commit()
    with (out / "votes.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 6
    for path in out.iterdir():
        if path.name != ballots.FILE:
            assert token not in path.read_text(errors="replace")


def test_mistakes_end_in_one_line(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    items, out = make_items(tmp_path / "items"), tmp_path / "out"
    serve = ("serve", "--items", items, "--out", out)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = mistake(monkeypatch, capsys, *serve, "--port", port)
    assert line.startswith(f"ConfigError: cannot listen at 127.0.0.1, port {port}: ")
    assert "port 70000; ports are 0" in mistake(monkeypatch, capsys, *serve, "--port", 70000)
    assert "seed is -1" in mistake(monkeypatch, capsys, *serve, "--seed", -1)
    for question in ("", " ", "a\nb", "x" * 301):
        assert "ConfigError: --question" in mistake(
            monkeypatch, capsys, *serve, "--question", question
        )
    assert "StudyError: " in mistake(monkeypatch, capsys, *serve, "--mode", "score")
    (items / "mug" / "alpha" / "0.png").write_bytes(b"")
    line = mistake(monkeypatch, capsys, *serve)
    assert line.startswith(f"PlanError: {items}/mug/alpha/0.png: not a PNG picture")
    line = mistake(monkeypatch, capsys, "tally", "--out", tmp_path / "nowhere")
    assert line.startswith("StudyError: no study at ")
    line = mistake(monkeypatch, capsys, "tally", "--out", out)
    assert line.startswith("TallyError: ")
    assert line.endswith("no answers yet, of 0 people who began")


def test_another_host_is_warned_of(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    items = make_items(tmp_path / "items")
    words = ("serve", "--items", items, "--out", tmp_path / "out", "--host", "192.0.2.1")
    with pytest.raises(SystemExit):  # this machine does not have that address
        run(monkeypatch, *words)
    printed = capsys.readouterr().out
    assert "--host 192.0.2.1: other machines can reach this server" in printed
    assert "ConfigError: cannot listen at 192.0.2.1" in printed


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn", "jinja2"])
def test_a_missing_extra_is_named(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    missing: str,
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    for name in ("server", "app", "pages"):
        monkeypatch.delitem(sys.modules, f"study.{name}", raising=False)
        monkeypatch.delattr(f"study.{name}", raising=False)
    line = mistake(monkeypatch, capsys, "serve", "--items", tmp_path)
    assert line == f"StudyError: {line.split(': ')[1]}: pip install 'realdex_jax[study]'"
    assert missing in line


def test_grasps_of_evaluations_are_drawn_as_items(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two objects by one method, one by the other: only what all have can be compared."""
    stored = store.open_dataset("realdex-sim")
    for method, names in (("a", ("cosmetics", "cracker_box")), ("b", ("cosmetics",))):
        for name in names:
            grasps = schema.take(stored.grasps(name), slice(4))
            store.save_grasps(tmp_path / method / f"{name}.npz", grasps)
    items = tmp_path / "items"
    methods = ("--methods", f"a={tmp_path / 'a'}", f"b={tmp_path / 'b'}")
    words = ("draw", *methods, "--samples", 2, "--width", 64, "--items", items)
    run(monkeypatch, *words)
    printed = capsys.readouterr().out
    assert "left out: cracker_box: too few grasps by b" in printed
    assert "4 pictures; show them" in printed
    drawn = plan.read(items, None, 0)
    assert drawn.methods == ("a", "b")
    assert [(trial.object_name, trial.sample) for trial in drawn.trials] == [
        ("cosmetics", "0"),
        ("cosmetics", "1"),
    ]
    assert "is not empty" in mistake(monkeypatch, capsys, *words)
    for wrong, message in (
        (("x",), "need NAME=FOLDER"),
        ((f"a={tmp_path}",), "at least two"),
        (("a=nowhere", "b=nowhere"), "no folder nowhere"),
    ):
        said = mistake(
            monkeypatch, capsys, "draw", "--methods", *wrong, "--items", tmp_path / "new"
        )
        assert message in said
