"""Sets two runs side by side: what each measured, how they differ, and what was set otherwise.

    python -m experiments.compare runs/eval_sim runs/mine
    python -m experiments.compare runs/a runs/b --out runs/a_and_b

A run is a folder with `results.json` (any experiment's), or such a file; a `config.json` beside it
counts as well. Rows of tables are matched by data, split, method and stage; what is left over, by
all but the method, so that two models can be compared. What one side lacks is shown as missing.
Prints metrics and all settings that differ; writes `out/report.html` with everything.
Exit status: 0 when compared, 2 if a run cannot be read.
Takes seconds.
"""

import dataclasses
import html
import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments import commands
from realdex_jax.errors import ConfigError
from realdex_jax.evaluation import report, results
from realdex_jax.evaluation.results import METRICS, Results, Row, Spread

MISSING = "missing"
_MANY = 40
"""Lines of a section that the terminal shows."""
_ABOUT = ("command", "commit", "device", "seeds", "spread", "versions")
_STYLE = """body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 76rem;
  padding: 1.5rem; color: #1b2430; } table { border-collapse: collapse; margin: .5rem 0 1.5rem; }
  td, th { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #d8dee6; }
  td { overflow-wrap: anywhere; } td:first-child, th:first-child { text-align: left; }
  .better { color: #0b6b3a; } .worse { color: #a32020; } .missing { color: #66717f; }
  tr.differs { background: #fff6da; }"""


@dataclasses.dataclass(frozen=True)
class Compare:
    """Command line of this script."""

    left: tyro.conf.Positional[Path]
    """Folder of a run, or its results.json."""
    right: tyro.conf.Positional[Path]
    """The run it is compared with; differences are right minus left."""
    out: Path = Path("runs/compare")
    """Folder of the report."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run left."""

    name: str
    settings: Mapping[str, str | float]
    """By their place in the file: "versions.jax", "physics.still.mass", "config.seeds"."""
    table: Results | None
    """Where the file keeps to the contract of `evaluation.results`."""
    other: Mapping[str, str | float]
    """Results of experiments with a shape of their own, likewise."""


@dataclasses.dataclass(frozen=True)
class Line:
    """One thing of both runs."""

    what: str
    left: str
    right: str
    change: str = ""
    better: int = 0
    """1: the right one is better; -1: worse; 0: neither, or not known."""

    @property
    def differs(self) -> bool:
        """Whether the sides show different things."""
        return self.left != self.right


@dataclasses.dataclass(frozen=True)
class Section:
    """Lines under a heading."""

    title: str
    lines: Sequence[Line]
    brief: bool = True
    """In the terminal, only lines that differ."""


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    config = commands.read(Compare, __doc__)
    console = Console()
    with commands.ending(console):
        left, right = read(config.left), read(config.right)
        if _file(config.left).samefile(_file(config.right)):
            raise ConfigError(f"{config.left} and {config.right} are the same run; name two")
        commands.make_folder(config.out)
        found = sections(left, right)
        for section in found:
            _show(section, left.name, right.name, console)
        path = report.save_html(page(left.name, right.name, found), config.out / "report.html")
        console.print(f"written to {path}", highlight=False, soft_wrap=True)


def read(path: Path) -> Run:
    """Reads what a run left.

    Raises:
        ConfigError: There is no results.json, or it is not an object of JSON.
        ResultsError: It is one of the contract and breaks it.
    """
    file = _file(path)
    if not file.is_file():
        raise ConfigError(f"{path}: {_lacking(path)}; choose the --out folder of an evaluation")
    raw = _json(file)
    table = results.load(file) if {"rows", "physics"} <= set(raw) else None
    of_settings = (*_ABOUT, "physics", "config")
    settings = {name: raw[name] for name in of_settings if name in raw}
    if (beside := file.with_name("config.json")).is_file():
        settings["config.json"] = _json(beside)
    of_table = ("rows", "notes") if table else ()
    rest = {k: v for k, v in raw.items() if k not in (*of_settings, *of_table)}
    return Run(str(path), flat(settings), table, flat(rest))


def _file(path: Path) -> Path:
    return path if path.is_file() else path / "results.json"


def sections(left: Run, right: Run) -> list[Section]:
    """What both measured, row by row, and how both were set."""
    found = []
    rows = [tuple(run.table.rows) if run.table else () for run in (left, right)]
    spreads: list[Spread] = [run.table.spread if run.table else "grasps" for run in (left, right)]
    for a, b in matched(*rows):
        found.append(Section(_title(a, b), _metrics(a, b, spreads), brief=False))
    if left.other or right.other:
        found.append(Section("Results", _pairs(left.other, right.other)))
    notes = [tuple(run.table.notes) if run.table else () for run in (left, right)]
    said = [
        Line(note, *_two("said" if note in side else MISSING for side in notes))
        for note in dict.fromkeys([*notes[0], *notes[1]])
    ]
    if said:
        found.append(Section("Notes", said))
    found.append(Section("Settings", _pairs(left.settings, right.settings)))
    return found


def matched(left: Sequence[Row], right: Sequence[Row]) -> list[tuple[Row | None, Row | None]]:
    """Rows of the same thing, in the order of the left run; None where one side has none.

    First those that agree in data, split, method and stage; then, where it is clear which is meant,
    those that agree in all but the method.
    """
    pairs: dict[int, int] = {}
    keys: tuple[Callable[[Row], Hashable], ...] = (
        lambda row: (row.data, row.split, row.method, row.stage),
        lambda row: (row.data, row.split, row.stage),
    )
    for key in keys:
        free = [
            [i for i in range(len(left)) if i not in pairs],
            [i for i in range(len(right)) if i not in pairs.values()],
        ]
        for i in free[0]:
            same = [[j for j in free[0] if key(left[j]) == key(left[i])]]
            same.append([j for j in free[1] if key(right[j]) == key(left[i])])
            if [len(js) for js in same] == [1, 1]:
                pairs[i] = same[1][0]
    found: list[tuple[Row | None, Row | None]] = [
        (row, right[pairs[i]] if i in pairs else None) for i, row in enumerate(left)
    ]
    return found + [(None, row) for i, row in enumerate(right) if i not in pairs.values()]


def flat(value: object, place: str = "") -> dict[str, str | float]:
    """Every number and text of parsed JSON by its place, such as "runs.0.seconds"."""
    if isinstance(value, Mapping):
        items = [(str(name), inner) for name, inner in value.items()]
    # Numbers of a list belong together; records of one are told apart.
    elif isinstance(value, list) and any(isinstance(inner, (Mapping, list)) for inner in value):
        items = [(str(number), inner) for number, inner in enumerate(value)]
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        return {place: float(value)}
    else:
        return {place: value if isinstance(value, str) else json.dumps(value)}
    found = {}
    for name, inner in items:
        found |= flat(inner, f"{place}.{name}" if place else name)
    return found


def page(left: str, right: str, found: Sequence[Section]) -> str:
    """One self-contained page; lines that differ are marked."""
    e = html.escape
    title = f"{left} and {right}"
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        f"<title>{e(title)}</title><style>{_STYLE}</style></head><body><h1>{e(title)}</h1>",
        "<p>Differences are right minus left; green is better, red is worse.</p>",
    ]
    for section in found:
        rows = "".join(_html_line(line) for line in section.lines)
        parts.append(
            f"<h2>{e(section.title)}</h2><table><thead><tr><th></th><th>{e(left)}</th>"
            f"<th>{e(right)}</th><th>difference</th></tr></thead><tbody>{rows}</tbody></table>"
        )
    return "\n".join([*parts, "</body></html>"]) + "\n"


def _html_line(line: Line) -> str:
    cells = [f"<td>{html.escape(line.what)}</td>"]
    for text in (line.left, line.right):
        mark = ' class="missing"' if text == MISSING else ""
        cells.append(f"<td{mark}>{html.escape(text)}</td>")
    mark = {1: ' class="better"', -1: ' class="worse"', 0: ""}[line.better]
    cells.append(f"<td{mark}>{html.escape(line.change)}</td>")
    differs = ' class="differs"' if line.differs else ""
    return f"<tr{differs}>{''.join(cells)}</tr>"


def _show(section: Section, left: str, right: str, console: Console) -> None:
    lines = [line for line in section.lines if line.differs or not section.brief]
    table = Table(title=section.title, title_justify="left")
    for name in ("", left, right, "difference"):
        table.add_column(escape(name), justify="right" if name else "left", overflow="fold")
    colours = {1: "green", -1: "red", 0: ""}
    for line in lines[:_MANY]:
        change = escape(line.change)
        colour = colours[line.better]
        sides = (f"[dim]{s}[/]" if s == MISSING else escape(s) for s in (line.left, line.right))
        table.add_row(escape(line.what), *sides, f"[{colour}]{change}[/]" if colour else change)
    same = len(section.lines) - len(lines)
    told = [f"{same} the same"] if same else []
    told += [f"{len(lines) - _MANY} more in the report"] if len(lines) > _MANY else []
    if lines:
        table.caption, table.caption_justify = ", ".join(told) or None, "left"
        console.print(table)
    else:
        console.print(f"{section.title}: no difference", highlight=False, markup=False)


def _metrics(a: Row | None, b: Row | None, spreads: Sequence[Spread]) -> list[Line]:
    names = report.columns([row for row in (a, b) if row is not None])
    counts = {name: [getattr(row, name, None) for row in (a, b)] for name in ("objects", "grasps")}
    lines = [_line(name, *values) for name, values in counts.items()]
    for name in names:
        stats = [None if row is None else row.metrics.get(name) for row in (a, b)]
        sides = _two(
            MISSING if s is None else " ".join(report.cell(name, s, over)).strip()
            for s, over in zip(stats, spreads, strict=True)
        )
        means = [None if s is None else s.mean for s in stats]
        change, better = "", 0
        if means[0] is not None and means[1] is not None:
            difference = means[1] - means[0]
            change = f"{difference:+z.{METRICS[name].digits}f}"
            if not float(change):
                change = ""  # what rounds to nothing is no better and no worse
            else:
                better = METRICS[name].better * (1 if difference > 0 else -1)
        lines.append(Line(METRICS[name].label, *sides, change, better))
    return lines


def _pairs(left: Mapping[str, str | float], right: Mapping[str, str | float]) -> list[Line]:
    names = dict.fromkeys([*left, *right])
    return [_line(name, left.get(name), right.get(name)) for name in names]


def _line(what: str, left: str | float | None, right: str | float | None) -> Line:
    sides = _two(
        MISSING if v is None else v if isinstance(v, str) else f"{v:.6g}" for v in (left, right)
    )
    numbers = [v for v in (left, right) if v is not None and not isinstance(v, str)]
    differ = len(numbers) == 2 and numbers[0] != numbers[1]
    return Line(what, *sides, f"{numbers[1] - numbers[0]:+.4g}" if differ else "")


def _two(texts: Iterable[str]) -> tuple[str, str]:
    left, right = texts
    return left, right


def _title(a: Row | None, b: Row | None) -> str:
    first, *others = [row for row in (a, b) if row is not None]
    methods = dict.fromkeys(row.method for row in (first, *others))
    one_sided = "" if others else f" ({'left' if b is None else 'right'} only)"
    return f"{first.data} {first.split}, {' | '.join(methods)}, {first.stage}{one_sided}"


def _lacking(path: Path) -> str:
    if not path.is_dir():
        return "no such file or folder"
    inside = sorted(str(file.parent) for file in path.glob("*/results.json"))
    if inside:
        return f"no results.json in it, but in {', '.join(inside[:5])}"
    if (path / "config.json").is_file():
        return "no results.json in it, only the config.json of a training run"
    return "no results.json in it"


def _json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: is {type(raw).__name__}, not an object")
    return raw


if __name__ == "__main__":
    main()
