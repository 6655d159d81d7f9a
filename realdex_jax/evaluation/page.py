"""What every experiment leaves: `results.json`, and `report.html` that says the same to people.

For results that are no rows of grasps or motions (`report`): any numbers, tables and pictures. Both
files say where they are from: command, commit, device, versions, seeds and all settings.
"""

import base64
import dataclasses
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from realdex_jax.evaluation import report, results


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of text."""

    title: str
    names: Sequence[str]
    """Of the columns."""
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture of the page."""

    png: bytes
    shows: str
    """What is to be seen, for those who do not see it."""


@dataclasses.dataclass(frozen=True)
class Chart:
    """A plot of the page, sharp at any size."""

    svg: str
    """Of `figures.as_svg`."""
    shows: str
    """What is to be seen, for those who do not see it."""


def origin(command: str, config: object, seeds: Sequence[int] = ()) -> dict[str, Any]:
    """Where results are from; JSON.

    Args:
        command: How the run was started.
        config: Its settings, a dataclass.
        seeds: All that were used.
    """
    return {
        "command": command,
        "commit": results.commit(),
        "device": results.device(),
        "versions": results.versions(),
        "seeds": [int(seed) for seed in seeds],
        "config": results.plain(config),
    }


def page(
    title: str,
    about: Mapping[str, Any],
    *,
    tables: Sequence[Table] = (),
    pictures: Sequence[Picture | Chart] = (),
    notes: Sequence[str] = (),
    more: str = "",
) -> str:
    """One HTML page that needs no second file and no network.

    Args:
        title: Heading of the page.
        about: Of `origin`.
        tables: Shown in this order.
        pictures: Shown above them.
        notes: Lines under them.
        more: Further HTML under those: plots as SVG, videos.
    """
    e = html.escape
    seeds = ", ".join(map(str, about["seeds"])) or "none"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{e(title)}</title><style>{report.STYLE}</style></head><body>",
        f"<h1>{e(title)}</h1>",
        f'<p class="note"><code>{e(about["command"])}</code><br>commit {e(about["commit"])}, '
        f"seeds {e(seeds)}, on {e(about['device'])}</p>",
        *(_image(picture) for picture in pictures),
        *(_rows(table) for table in tables),
        *(["<h2>Notes</h2>"] if notes else []),
        *(f'<p class="note">{e(note)}</p>' for note in notes),
        more,
        "<h2>Settings</h2>",
        report.pairs(about["config"]),
        "<h2>Versions</h2>",
        report.pairs(about["versions"]),
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def leave(
    out: Path, title: str, about: Mapping[str, Any], found: Mapping[str, Any], **shown: Any
) -> Path:
    """Writes both files; the path of the page.

    Args:
        out: Folder.
        title: Heading of the page.
        about: Of `origin`.
        found: What was found, for `results.json`.
        **shown: What the page shows, see `page`.

    Raises:
        OSError: A file cannot be written.
    """
    text = json.dumps({**about, **results.plain(found)}, indent=1, allow_nan=False) + "\n"
    results.write_whole(out / "results.json", text)
    results.write_whole(out / "report.html", page(title, about, **shown))
    return out / "report.html"


def _image(picture: Picture | Chart) -> str:
    shows = html.escape(picture.shows)
    if isinstance(picture, Chart):
        return f'<figure role="img" aria-label="{shows}">{picture.svg}</figure>'
    data = base64.b64encode(picture.png).decode()
    return f'<figure><img src="data:image/png;base64,{data}" alt="{shows}"></figure>'


def _rows(table: Table) -> str:
    e = html.escape

    def line(cells: Sequence[str], tag: str) -> str:
        begins = [f'<{tag} class="text">', *(len(cells) - 1) * [f"<{tag}>"]]
        marked = (f"{b}{e(text)}</{tag}>" for b, text in zip(begins, cells, strict=True))
        return f"<tr>{''.join(marked)}</tr>"

    body = "".join(line(row, "td") for row in table.rows)
    return (
        f'<h2>{e(table.title)}</h2><div class="scroll"><table><thead>{line(table.names, "th")}'
        f"</thead><tbody>{body}</tbody></table></div>"
    )
