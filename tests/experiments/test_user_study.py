"""The study from the command line: serving, counting, and mistakes."""

import contextlib
import csv
import json
import pathlib
import re
import signal
import socket
import sys
from typing import Any

import charts
import pytest
import raters
from raters import Rater, make_items

from experiments import user_study
from realdex_jax.data import object_files, schema, store
from realdex_jax.evaluation import results
from sim import render
from study import ballots, plan, tally
from study.design import Design


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
    shown = (out / "report.html").read_text()
    marks, words = charts.marks(shown), charts.words(shown)
    assert sum(name.startswith("score-") for name in marks) == 3
    assert not any(name.startswith("interval-") for name in marks)  # with one rater
    assert sum(name.startswith("votes-") for name in marks) == 3 * 6  # points from 0 to 5
    assert [name for name in words if name in raters.COLOURS] == ["alpha", "beta", "gamma"]
    for path in out.iterdir():
        if path.name != ballots.FILE:
            assert token not in path.read_text(errors="replace")


def test_the_page_draws_scores_votes_and_agreement(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of methods whose names are no formulas, best first."""
    names = ("costs $a_1$ or $", "抓取", "m" * 60 + "-the-last")
    trials = tuple(("mug", str(sample)) for sample in range(4))
    design = Design("rank", names, trials, 0, "Which?", "digest")
    with contextlib.closing(ballots.begin(tmp_path, design)) as opened:
        for rater in range(3):
            number = opened.start(f"person {rater}").number
            for trial in range(4):
                opened.vote(number, trial, 0, (2, 1, 3) if trial else (1, 2, 3))
    run(monkeypatch, "tally", "--out", tmp_path)
    page = (tmp_path / "report.html").read_text()
    marks, words = charts.marks(page), charts.words(page)
    for kind, count in (("score", 3), ("interval", 3), ("votes", 9), ("agreement", 2)):
        assert sum(name.startswith(f"{kind}-") for name in marks) == count, kind
    rows = [name for name in words if name in names or "…" in name]
    assert rows == ["mmmmmmmmmmmmmm…-the-last", "costs $a_1$ or $", "抓取"]
    assert [words.count(score) for score in ("3.00", "1.75", "1.25")] == [1, 1, 1]
    assert "Share of 12 votes by place" in words
    shares = [word for word in words if word in ("100", "75", "25")]
    assert len(shares) == 1 + 2 + 2 + 3  # those of the best, the second and the last; the axis
    assert json.loads((tmp_path / "table.json").read_text())["rows"][0]["given"] == [3, 9, 0]


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
    line = mistake(monkeypatch, capsys, *serve, "--host", "é" * 70)
    assert line.endswith("no machine can have that name")
    for question in ("", " ", "a\nb", "x" * 301):
        assert "ConfigError: --question" in mistake(
            monkeypatch, capsys, *serve, "--question", question
        )
    assert "StudyError: " in mistake(monkeypatch, capsys, *serve, "--mode", "score")
    (items / "mug" / "alpha" / "0.png").write_bytes(b"")
    line = mistake(monkeypatch, capsys, *serve)
    assert line.startswith(f"PlanError: {items}/mug/alpha/0.png: not a PNG picture")
    line = mistake(monkeypatch, capsys, "tally", "--out", out, "--seed", -1)
    assert line.startswith("TallyError: seed is -1")
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
            object_files.save_grasps(tmp_path / method / f"{name}.npz", grasps)
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
    # The times of the files do not tell which method was drawn first.
    assert len({path.stat().st_mtime_ns for path in items.rglob("*.png")}) == 1
    assert items.stat().st_mode & 0o777 == (tmp_path / "a").stat().st_mode & 0o777
    assert "is not empty" in mistake(monkeypatch, capsys, *words)
    # A mistake or an interruption leaves nothing that is in the way of the next try.
    render_grasps = render.render_grasps
    calls = []

    def stop(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return render_grasps(*given)

    again = (*words[:-1], tmp_path / "again")
    (tmp_path / "again").mkdir()
    before = sorted(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(render, "render_grasps", stop)
        with pytest.raises(SystemExit):
            run(patch, *again)
    (tmp_path / "b" / "cracker_box.npz").write_bytes(b"no grasps")
    mistake(monkeypatch, capsys, *again)
    assert sorted(tmp_path.iterdir()) == before
    assert not any((tmp_path / "again").iterdir())
    (tmp_path / "b" / "cracker_box.npz").unlink()
    run(monkeypatch, *again)
    assert plan.read(tmp_path / "again").methods == ("a", "b")


def test_mistakes_of_drawing_end_in_one_line(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    two = (f"a={tmp_path}", f"b={tmp_path}")
    (tmp_path / "file").write_text("x")
    for methods, more, message in (
        (("x",), (), "need NAME=FOLDER"),
        ((f"a={tmp_path}",), (), "at least two"),
        ([f"m{i}={tmp_path}" for i in range(9)], (), "names 9 methods; .* at most 8"),
        (("a=nowhere", "b=nowhere"), (), "no folder nowhere"),
        *(((f"{name}={tmp_path}", two[1]), (), "need NAME") for name in BAD_NAMES),
        (two, ("--width", 15), "--width 15"),
        (two, ("--width", 10**6), "--width 1000000"),
        (two, ("--samples", 0), "--samples 0"),
        (two, ("--seed", -1), "--seed -1"),
        (two, ("--items", tmp_path / "file"), "file is a file"),
        (two, ("--items", tmp_path / "file" / "x"), "cannot draw into .*File exists"),
    ):
        given = ("--methods", *methods, "--items", tmp_path / "new", *more)
        said = mistake(monkeypatch, capsys, "draw", *given)
        assert re.match(f"ConfigError: .*{message}", said), said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


BAD_NAMES = (".", "..", ".x", "a/b", "a b", "x" * 101)
"""Of methods: paths, hidden folders, and what no table can hold."""


def test_the_table_and_the_votes_are_of_one_moment(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody votes while the votes are counted."""
    trials = tuple(("mug", str(sample)) for sample in range(9))
    design = Design("score", ("a", "b"), trials, 0, "Which?", "digest")
    with contextlib.closing(ballots.begin(tmp_path, design)) as opened:
        number = opened.start("x").number
        opened.vote(number, 0, 0, (1, 2))
        for name in ("count", "votes_csv"):
            counting = getattr(tally, name)

            def vote_before(*given: Any, counting: Any = counting, **more: Any) -> Any:
                opened.vote(number, len(opened.answers(number)), 0, (5, 5))
                return counting(*given, **more)

            monkeypatch.setattr(tally, name, vote_before)
        run(monkeypatch, "tally", "--out", tmp_path)
        assert len(opened.answers(number)) == 3
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    with (tmp_path / "votes.csv").open(newline="") as file:
        votes = list(csv.DictReader(file))
    assert [row["votes"] for row in rows] == [1, 1]
    assert len(votes) == 2
