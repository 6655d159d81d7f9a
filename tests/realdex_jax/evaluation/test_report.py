import base64
import html.parser
import io
import re

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from realdex_jax.evaluation import report, results
from realdex_jax.evaluation.results import Row, stat

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(html.parser.HTMLParser):
    """Collects what a browser would show or fetch, and checks that tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[str] = []
        self.references: list[str] = []
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "img":
            self.images.append(values["src"] or "")
        self.references += [v or "" for k, v in attrs if k in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


@pytest.fixture
def found() -> results.Results:
    def row(stage: str, held: list[float], disp: list[float]) -> Row:
        metrics = {"held": stat(held), "sim_disp_0146_cm": stat(disp)}
        return Row("realdex-sim", "test", "cvae", stage, 6, len(held), metrics)

    rows = [row("raw", [0, 1], [3.0, 5.0]), row("physics", [1, 1], [0.1, 0.3])]
    physics = {"still": {"contact.sliding": 1.0, "timestep": 0.002}}
    return results.collect("python -m <script> & more", [7], physics, rows, ["One <note>."])


@pytest.fixture
def page(found: results.Results, rng: np.random.Generator) -> Page:
    image = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
    pictures = [report.Picture("mug <1>", "raw, held", image), report.Picture("jar", "raw", image)]
    text = report.html_report(
        found,
        title="A & B",
        pictures=pictures,
        seconds={"generate": 1.5, "physics": 3.0},
    )
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return page


def test_the_page_fetches_nothing(page: Page) -> None:
    assert page.references
    assert all(reference.startswith("data:image/png;base64,") for reference in page.references)


def test_notes_are_part_of_the_page_as_text(found: results.Results) -> None:
    assert '<p class="note">One &lt;note&gt;.</p>' in report.html_report(found, title="t")


def test_pictures_open_at_their_size(page: Page) -> None:
    assert len(page.images) == 2
    data = base64.b64decode(page.images[0].split(",", 1)[1])
    assert Image.open(io.BytesIO(data)).size == (32, 24)


def test_every_table_is_rectangular_and_constants_are_printed(page: Page) -> None:
    text = {tuple(row) for row in page.rows}
    assert ("still.contact.sliding", "1") in text
    metrics = page.rows[:5]
    assert [row[0] for row in metrics[:3]] == ["realdex-sim test", "objects", "grasps"]
    assert {len(row) for row in metrics} == {3}
    assert metrics[0][1:] == ["raw", "physics"]
    assert metrics[3][2].startswith("0.20 ± 0.14")


def test_terminal_and_markdown_tables_carry_the_same_numbers(found: results.Results) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report.terminal_table(found))
    terminal, markdown = console.export_text(), report.markdown_table(found)
    for text in (terminal, markdown):
        assert "0.20 ± 0.14" in text
        assert "contact.sliding 1" in text
    assert "- One <note>." in markdown.splitlines()
    widths = {len(re.findall(r"\|", line)) for line in markdown.splitlines() if line[:1] == "|"}
    assert len(widths) == 1


def test_what_was_not_measured_is_blank() -> None:
    assert report.cell("held", None) == ("–", "")
    assert report.cell("held", stat([])) == ("–", "")
    assert report.cell("held", stat([1.0, 0.0])) == ("0.500", "")
