"""Results for people: a terminal table, a Markdown table, and one HTML file with pictures inside.

The HTML file needs no network and no second file: styles and pictures are part of it.
"""

import base64
import dataclasses
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from rich.table import Table

from realdex_jax.evaluation import results
from realdex_jax.evaluation.results import METRICS, Results, ResultsError, Row, Spread, Stat

_BLANK = "–"

STYLE = """
:root { color-scheme: light dark; --ink: #1b2430; --dim: #66717f; --line: #d8dee6;
  --paper: #fbfcfd; --card: #ffffff; --good: #0b6b3a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf1; --dim: #9aa6b4; --line: #35404d;
  --paper: #12171d; --card: #1a2129; --good: #57c98a; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  margin: 0 auto; max-width: 76rem; padding: 1.5rem; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
p.note, figcaption, caption { color: var(--dim); font-size: .87rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px;
  background: var(--card); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th { font-weight: 600; font-size: .85rem; white-space: normal; vertical-align: bottom; }
th.text, td.text { text-align: left; } td small { color: var(--dim); }
tr:last-child td { border-bottom: 0; } td.best { color: var(--good); font-weight: 600; }
.grid { display: grid; gap: .6rem; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
figure { margin: 0; border: 1px solid var(--line); border-radius: 6px; overflow: hidden;
  background: var(--card); } figure img, figure video, figure svg { display: block; width: 100%;
  height: auto; }
figcaption { padding: .3rem .6rem; } code { font-size: .87em; overflow-wrap: anywhere; }
.bar { display: inline-block; height: .7em; background: #5b8def; border-radius: 2px; }
"""


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """One rendered grasp."""

    group: str
    """Heading it stands under: the object."""
    caption: str
    image: UInt8[np.ndarray, "h w 3"]


@dataclasses.dataclass(frozen=True)
class Clip:
    """One motion."""

    group: str
    """Heading it stands under."""
    caption: str
    html: str
    """A self-contained tag that shows it."""


def columns(rows: Sequence[Row]) -> tuple[str, ...]:
    """Metrics that any row has, in the order of the contract."""
    return tuple(name for name in METRICS if any(name in row.metrics for row in rows))


def cell(name: str, value: Stat | None, over: Spread = "grasps") -> tuple[str, str]:
    """A metric's mean and spread as text; blanks where it was not measured."""
    if value is None or value.mean is None:
        return _BLANK, ""
    digits = METRICS[name].digits
    # The spread of yes and no over grasps follows from the mean and says nothing.
    plain = METRICS[name].share and over == "grasps"
    spread = "" if value.sd is None or plain else f"± {value.sd:.{digits}f}"
    return f"{value.mean:.{digits}f}", spread


def terminal_table(found: Results, title: str = "Grasps") -> Table:
    """A rich table, metrics down and rows across, with the physics constants as its caption."""
    table = Table(title=title, caption=physics_line(found), caption_justify="left")
    for index, line in enumerate(grid(found.rows, found.spread)):
        if index == 0:
            for position, text in enumerate(line):
                table.add_column(text, justify="right" if position else "left")
        else:
            table.add_row(*(text if text else "" for text in line))
    return table


def brief_table(found: Results, metrics: Sequence[str], title: str) -> Table:
    """A rich table of some metrics, rows down: for more rows than fit across."""
    head, *body = _brief(found, metrics)
    table = Table(title=title)
    for position, text in enumerate(head):
        table.add_column(text, justify="right" if position > 2 else "left")
    for line, after in zip(body, [*body[1:], head], strict=True):
        table.add_row(*line, end_section=line[0] != after[0])
    return table


def _brief(found: Results, metrics: Sequence[str]) -> list[list[str]]:
    """Headings and rows: source, method, stage, some metrics."""
    lines = [["objects", "method", "stage", *(METRICS[name].label for name in metrics)]]
    for row in found.rows:
        cells = [
            " ".join(cell(name, row.metrics.get(name), found.spread)).strip() for name in metrics
        ]
        lines.append([f"{row.data} {row.split} ({row.objects})", row.method, row.stage, *cells])
    return lines


def grid(rows: Sequence[Row], over: Spread = "grasps") -> list[list[str]]:
    """Headings, counts and metrics, metrics down and rows across, as text.

    Args:
        rows: At least one.
        over: What spreads are over.
    """
    same = {(row.data, row.split, row.method) for row in rows}
    heads = [row.stage if len(same) == 1 else _long_name(row) for row in rows]
    corner = f"{rows[0].data} {rows[0].split}" if len(same) == 1 else ""
    lines = [[corner, *heads]]
    lines.append(["objects", *(str(row.objects) for row in rows)])
    moving = any("mpjpe_cm" in row.metrics for row in rows)
    lines.append(["motions" if moving else "grasps", *(str(row.grasps) for row in rows)])
    for name in columns(rows):
        cells = [" ".join(cell(name, row.metrics.get(name), over)).strip() for row in rows]
        lines.append([METRICS[name].label, *cells])
    return lines


_LEGEND = {
    False: "Mean ± standard deviation over grasps; green is the best of the generated ones. Shares "
    "have no spread of their own.",
    True: "Green is the best of the generated ones.",
}
"""What the table says of itself, and where a note says what the spread is over."""


def _long_name(row: Row) -> str:
    return " ".join(dict.fromkeys(f"{row.data} {row.split} {row.method} {row.stage}".split()))


def physics_line(found: Results) -> str:
    """Every physics constant in one line."""
    return "physics: " + ", ".join(f"{key} {_plain(v)}" for key, v in _flat(found.physics))


def markdown_table(found: Results, metrics: Sequence[str] = ()) -> str:
    """The same table as Markdown, followed by its notes and where it comes from.

    Args:
        found: The results.
        metrics: If given, only these, and rows down.
    """
    head, *body = _brief(found, metrics) if metrics else grid(found.rows, found.spread)
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    lines += ["| " + " | ".join(line) + " |" for line in body]
    packages = ", ".join(f"{k} {v}" for k, v in found.versions.items())
    constants = physics_line(found)
    if found.notes:
        lines += ["", *(f"- {note}" for note in found.notes)]
    lines += [
        "",
        f"`{found.command}` at {found.commit}, seeds {list(found.seeds)}, on {found.device}; "
        f"{packages}.",
        "",
        f"{constants[0].upper()}{constants[1:]}.",
    ]
    return "\n".join(lines)


def html_report(
    found: Results,
    *,
    title: str,
    pictures: Sequence[Picture] = (),
    clips: Sequence[Clip] = (),
    plots: str = "",
    seconds: Mapping[str, float] | None = None,
) -> str:
    """One self-contained page.

    Args:
        found: The results.
        title: Heading of the page.
        pictures: Rendered grasps; shown by group in the order given.
        clips: Motions; likewise.
        plots: Charts as SVG.
        seconds: Time spent per stage of the run, seconds.
    """
    e = html.escape
    moving = any("mpjpe_cm" in row.metrics for row in found.rows)
    legend = _LEGEND[moving or found.spread == "seeds"]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{e(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{e(title)}</h1>",
        f'<p class="note"><code>{e(found.command)}</code><br>commit {e(found.commit)}, seeds '
        f"{e(', '.join(map(str, found.seeds)))}, on {e(found.device)}</p>",
        "<h2>Metrics</h2>",
        _html_rows(found.rows, found.spread),
        f'<p class="note">{legend}</p>',
        *(f'<p class="note">{e(note)}</p>' for note in found.notes),
    ]
    if plots:
        parts += ["<h2>Plots</h2>", f'<div class="scroll">{plots}</div>']
    if clips:
        parts.append("<h2>Videos</h2>")
    for group in dict.fromkeys(clip.group for clip in clips):
        parts.append(f'<h2>{e(group)}</h2><div class="grid">')
        parts += [
            f"<figure>{clip.html}<figcaption>{e(clip.caption)}</figcaption></figure>"
            for clip in clips
            if clip.group == group
        ]
        parts.append("</div>")
    groups = dict.fromkeys(picture.group for picture in pictures)
    if groups:
        parts.append(f"<h2>{'Eight frames of each' if moving else 'Grasps'}</h2>")
        parts.append('<p class="note">Red: object surface within 4 mm of the hand.</p>')
    for group in groups:
        parts.append(f'<h2>{e(group)}</h2><div class="grid">')
        parts += [_figure(picture) for picture in pictures if picture.group == group]
        parts.append("</div>")
    if seconds:
        parts += ["<h2>Time</h2>", _html_seconds(seconds)]
    parts += ["<h2>Physics constants</h2>", pairs(found.physics)]
    parts += ["<h2>Settings</h2>", pairs(found.config)] if found.config else []
    parts += ["<h2>Versions</h2>", pairs(found.versions)]
    parts.append("</body></html>")
    return "\n".join(parts) + "\n"


def save_html(text: str, path: str | Path) -> Path:
    """Writes a report as a whole.

    Raises:
        ResultsError: The file cannot be written.
    """
    path = Path(path)
    try:
        results.write_whole(path, text)
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror}; nothing was changed") from error
    return path


def _html_rows(rows: Sequence[Row], over: Spread) -> str:
    e = html.escape
    names = columns(rows)
    head, *counts = grid(rows)[:3]
    top = f'<th class="text">{e(head[0])}</th>' + "".join(
        f"<th>{e(text)}</th>" for text in head[1:]
    )
    body = [
        f'<td class="text">{e(line[0])}</td>' + "".join(f"<td>{text}</td>" for text in line[1:])
        for line in counts
    ]
    for name in names:
        best = _best(name, rows)
        cells = [f'<td class="text">{e(METRICS[name].label)}</td>']
        for row in rows:
            value = row.metrics.get(name)
            mean, spread = cell(name, value, over)
            good = row.stage != "dataset" and value is not None and value.mean in best
            mark = ' class="best"' if good else ""
            cells.append(f"<td{mark}>{mean} <small>{spread}</small></td>")
        body.append("".join(cells))
    lines = "".join(f"<tr>{line}</tr>" for line in body)
    return (
        f'<div class="scroll"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _best(name: str, rows: Sequence[Row]) -> set[float]:
    """The best mean among generated grasps; nothing where all or none are best."""
    means = [
        value.mean
        for row in rows
        if row.stage != "dataset" and (value := row.metrics.get(name)) and value.mean is not None
    ]
    if METRICS[name].better == 0 or len(set(means)) < 2:
        return set()
    return {max(means) if METRICS[name].better > 0 else min(means)}


def _html_seconds(seconds: Mapping[str, float]) -> str:
    longest = max([*seconds.values(), 1e-9])
    rows = "".join(
        f'<tr><td class="text">{html.escape(name)}</td><td>{value:.1f} s</td>'
        f'<td class="text" style="width:60%"><span class="bar" '
        f'style="width:{100 * value / longest:.1f}%"></span></td></tr>'
        for name, value in seconds.items()
    )
    total = f'<tr><td class="text">all</td><td>{sum(seconds.values()):.1f} s</td><td></td></tr>'
    return f'<div class="scroll"><table><tbody>{rows}{total}</tbody></table></div>'


def pairs(values: Mapping[str, object]) -> str:
    """Names and values, those of records within by their place, as an HTML table."""
    rows = "".join(
        f'<tr><td class="text">{html.escape(key)}</td>'
        f'<td class="text"><code>{html.escape(_plain(value))}</code></td></tr>'
        for key, value in _flat(values)
    )
    return f'<div class="scroll"><table><tbody>{rows}</tbody></table></div>'


def _figure(picture: Picture) -> str:
    buffer = io.BytesIO()
    # 128 colours halve the file and show no difference on these flat pictures.
    Image.fromarray(picture.image).quantize(128).save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    height, width, _ = picture.image.shape
    caption = html.escape(picture.caption)
    return (
        f'<figure><img src="data:image/png;base64,{data}" width="{width}" height="{height}" '
        f'alt="{html.escape(picture.group)}: {caption}"><figcaption>{caption}</figcaption></figure>'
    )


def _flat(values: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
