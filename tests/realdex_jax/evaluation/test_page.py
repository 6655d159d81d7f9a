"""The files that every experiment leaves say the same, and where it is from."""

import dataclasses
import json
import pathlib
from html.parser import HTMLParser

import charts
import numpy as np
import pytest
from matplotlib.figure import Figure

from realdex_jax.evaluation import figures, page, results
from realdex_jax.evaluation.page import Chart, Picture, Table


@dataclasses.dataclass(frozen=True)
class Inner:
    mass: float = 0.1


@dataclasses.dataclass(frozen=True)
class Config:
    out: pathlib.Path = pathlib.Path("runs/x")
    seeds: int = 2
    names: tuple[str, ...] = ("a", "b")
    inner: Inner = dataclasses.field(default_factory=Inner)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Config(), {"out": "runs/x", "seeds": 2, "names": ["a", "b"], "inner": {"mass": 0.1}}),
        ({1: np.float32(0.5), "b": np.array([[1, 2]])}, {"1": 0.5, "b": [[1, 2]]}),
        ([float("nan"), np.inf, True, None, np.int64(3)], [None, None, True, None, 3]),
        (range(2), [0, 1]),
    ],
)
def test_what_is_plain_is_strict_json(value, plain) -> None:
    found = results.plain(value)
    assert found == plain
    assert json.loads(json.dumps(found, allow_nan=False)) == plain


class Seen(HTMLParser):
    """Text of a page, and what it would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [str(v) for name, v in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += [data]


def test_both_files_say_where_they_are_from_and_need_nothing_else(tmp_path) -> None:
    about = page.origin("python -m x --y '<1>'", Config(), range(3))
    where = page.leave(
        tmp_path,
        "A & b",
        about,
        {"errors": np.array([0.5, np.nan])},
        tables=[Table("Errors", ("", "mm"), [("<way>", "1.50")])],
        pictures=[Picture(b"\x89PNG", "a curve")],
        notes=["one < two"],
        more="<pre>more</pre>",
    )
    raw = json.loads((tmp_path / "results.json").read_text())
    assert raw["errors"] == [0.5, None]
    assert raw["seeds"] == [0, 1, 2]
    assert raw["config"]["inner"] == {"mass": 0.1}
    assert {"command", "commit", "device", "versions"} <= raw.keys()
    seen = Seen()
    seen.feed(where.read_text())
    said = " ".join(seen.text)
    for text in ("A & b", "--y '<1>'", raw["commit"], raw["device"], "seeds 0, 1, 2", "<way>"):
        assert text in said
    for text in ("inner.mass", "one < two", "more", raw["versions"]["jax"]):
        assert text in said
    assert seen.sources == ["data:image/png;base64,iVBORw=="]


def test_a_chart_stands_above_the_tables_and_is_told(tmp_path) -> None:
    """Also with letters that no font of the layout has."""
    plot = Figure()
    plot.subplots().plot([1, 2], gid="line")
    plot.suptitle("抓取")
    where = page.leave(
        tmp_path,
        "A",
        page.origin("x", Config()),
        {},
        tables=[Table("Errors", ("", "mm"), [("way", "1")])],
        pictures=[Chart(figures.as_svg(plot), "a <line>")],
    )
    text = where.read_text()
    assert charts.marks(text)["line"] == 1
    assert charts.words(text)[-1] == "抓取"
    assert 'aria-label="a &lt;line&gt;"' in text
    assert text.index("<svg") < text.index("<table>")


def test_an_older_results_file_has_no_settings_and_a_new_one_all(tmp_path) -> None:
    given = ("python -m x", [0], {"still": {"mass": 0.1}}, [])
    path = results.save(results.collect(*given, config=Config()), tmp_path / "results.json")
    assert results.load(path).config == results.plain(Config())
    raw = json.loads(path.read_text())
    del raw["config"]
    path.write_text(json.dumps(raw))
    assert results.load(path).config == {}
