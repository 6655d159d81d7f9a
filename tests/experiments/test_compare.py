import json
import pathlib
import sys
from html.parser import HTMLParser

import pytest

from experiments import compare
from experiments.compare import MISSING, Line
from realdex_jax.errors import ConfigError
from realdex_jax.evaluation import results
from realdex_jax.evaluation.results import ResultsError, Row, stat


def row(method: str, stage: str, held: list[float], **metrics: list[float]) -> Row:
    values = {"held": stat(held)} | {name: stat(x) for name, x in metrics.items()}
    return Row("sim", "test", method, stage, 1, len(held), values)


def run(
    folder: pathlib.Path, rows: list[Row], mass: float = 0.1, notes: tuple[str, ...] = ()
) -> pathlib.Path:
    found = results.collect("python -m x", [0], {"still": {"mass": mass}}, rows, notes)
    results.save(found, folder / "results.json")
    return folder


def lines(found: list[compare.Section], title: str) -> dict[str, Line]:
    (section,) = [section for section in found if section.title.startswith(title)]
    return {line.what: line for line in section.lines}


def test_metrics_are_set_side_by_side_with_their_difference(tmp_path: pathlib.Path) -> None:
    a = run(tmp_path / "a", [row("cvae", "raw", [0.0, 1.0], penetration_cm=[0.2, 0.4])])
    b = run(tmp_path / "b", [row("cvae", "raw", [1.0, 1.0], penetration_cm=[0.3, 0.6])], 0.2)
    found = compare.sections(compare.read(a), compare.read(b))
    table = lines(found, "sim test, cvae, raw")
    assert table["held 1 s"] == Line("held 1 s", "0.500", "1.000", "+0.500", 1)
    depth = table["pene.dist. (cm)"]
    assert (depth.left, depth.change, depth.better) == ("0.300 ± 0.141", "+0.150", -1)
    settings = lines(found, "Settings")
    assert settings["physics.still.mass"] == Line("physics.still.mass", "0.1", "0.2", "+0.1")
    assert [name for name, line in settings.items() if line.differs] == ["physics.still.mass"]


def test_what_one_side_lacks_is_missing(tmp_path: pathlib.Path) -> None:
    a = run(tmp_path / "a", [row("cvae", "raw", [1.0], q1=[0.1]), row("cvae", "refined", [1.0])])
    b = run(tmp_path / "b", [row("cvae", "raw", [1.0])], notes=("one left out",))
    found = compare.sections(compare.read(a), compare.read(b))
    raw = lines(found, "sim test, cvae, raw")
    assert (raw["Q1"].right, raw["Q1"].change) == (MISSING, "")
    refined = lines(found, "sim test, cvae, refined (left only)")
    assert {line.right for line in refined.values()} == {MISSING}
    assert lines(found, "Notes")["one left out"].left == MISSING


def test_a_value_that_was_not_measured_is_not_missing(tmp_path: pathlib.Path) -> None:
    a = run(tmp_path / "a", [row("cvae", "raw", [1.0], q1=[float("nan")])])
    b = run(tmp_path / "b", [row("cvae", "raw", [1.0], q1=[0.2])])
    found = compare.sections(compare.read(a), compare.read(b))
    assert lines(found, "sim test")["Q1"] == Line("Q1", "–", "0.200")


def test_rows_of_two_models_meet_where_it_is_clear_which() -> None:
    left = [row("cvae", "raw", [1.0]), row("cvae", "refined", [1.0])]
    right = [row("flow", "refined", [1.0]), row("flow", "raw", [1.0])]
    pairs = compare.matched(left, right)
    assert [(a and a.stage, b and b.stage) for a, b in pairs] == [
        ("raw", "raw"),
        ("refined", "refined"),
    ]
    three = [*right, row("matching", "raw", [1.0])]
    assert compare.matched(left, three) == [
        (left[0], None),
        (left[1], right[0]),
        (None, right[1]),
        (None, three[2]),
    ]
    assert compare.matched([], right) == [(None, one) for one in right]


def test_results_of_another_shape_are_compared_by_place(tmp_path: pathlib.Path) -> None:
    for name, seconds in (("a", 1.0), ("b", 3.5)):
        raw = {"command": "x", "runs": [{"seconds": seconds, "ok": True}], "worst": [1, 2]}
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(raw))
    (tmp_path / "b" / "config.json").write_text('{"rate": 0.1}')
    found = compare.sections(compare.read(tmp_path / "a"), compare.read(tmp_path / "b"))
    table = lines(found, "Results")
    assert table["runs.0.seconds"] == Line("runs.0.seconds", "1", "3.5", "+2.5")
    assert not table["runs.0.ok"].differs
    assert not table["worst"].differs
    assert lines(found, "Settings")["config.json.rate"].left == MISSING


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no results.json in it; choose"),
        ({"config.json": "{}"}, "only the config.json of a training run"),
        ({"mine/results.json": "{}"}, "but in .*mine"),
        ({"results.json": "[]"}, "is list"),
        ({"results.json": "{"}, "is not JSON"),
    ],
)
def test_a_folder_that_is_no_run_is_refused(
    tmp_path: pathlib.Path, files: dict[str, str], said: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=said):
        compare.read(tmp_path)


def test_a_file_that_breaks_the_contract_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "results.json").write_text('{"rows": [], "physics": {}}')
    with pytest.raises(ResultsError, match="missing or unknown"):
        compare.read(tmp_path)
    with pytest.raises(ConfigError, match="no such file or folder"):
        compare.read(tmp_path / "nowhere")


class Tags(HTMLParser):
    """Whether every tag is closed, and what stands in cells."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td":
            self.cells.append(data)


def test_the_command_prints_and_writes_a_page(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    a = run(tmp_path / "<a>", [row("cvae", "raw", [0.0, 1.0])])
    b = run(tmp_path / "b", [row("cvae", "raw", [1.0, 1.0])])
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["compare", str(a), str(b), "--out", str(out)])
    compare.main()
    said = capsys.readouterr().out
    assert "held 1 s" in said
    assert "+0.500" in said
    page = Tags()
    page.feed((out / "report.html").read_text())
    assert not page.open
    assert "+0.500" in page.cells


def test_a_mistake_ends_in_one_line(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["compare", str(tmp_path), str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        compare.main()
    assert ended.value.code == 2
    assert capsys.readouterr().out.count("\n") == 1


def test_a_run_is_not_compared_with_itself(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    a = run(tmp_path / "a", [row("cvae", "raw", [0.0, 1.0])])
    monkeypatch.setattr(sys, "argv", ["compare", str(a), str(a / "results.json")])
    with pytest.raises(SystemExit, match="2"):
        compare.main()
    assert "are the same run; name two" in capsys.readouterr().out
