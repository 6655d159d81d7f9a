"""Says what is in a dataset, whether it is whole, and shows some of its grasps.

    python -m experiments.inspect realdex-sim
    python -m experiments.inspect runs/dexgraspnet --out runs/inspect   # with pictures, as a page
    python -m experiments.inspect ~/dexgraspnet                         # a foreign one, by a sample

The exit code is 1 if something is not as it must be, 2 if there is nothing to look at.
Takes seconds.
"""

import base64
import collections
import dataclasses
import html
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from jaxtyping import Float, UInt8
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from experiments import commands
from experiments.convert import parse_options
from realdex_jax.data import formats, inspection, pieces, store
from realdex_jax.data.inspection import Counts, Finding
from realdex_jax.data.source import Unit
from realdex_jax.data.store import Dataset
from realdex_jax.errors import ConfigError, RealdexError
from realdex_jax.evaluation import report, results
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand.load import HandModel, load
from sim import objects, render

_SHOWN = 40
_STYLE = """body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 76rem;
  padding: 1.5rem; color: #1b2430; background: #fbfcfd; }
table { border-collapse: collapse; } td, th { padding: .3rem .7rem; text-align: left;
  border-bottom: 1px solid #d8dee6; vertical-align: top; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; border: 1px solid #d8dee6; }"""


@dataclasses.dataclass(frozen=True)
class Inspect:
    """Command line of this script."""

    path: Annotated[str, tyro.conf.Positional]
    """Name or folder of a dataset, or a foreign dataset."""
    out: Path | None = None
    """Folder for `inspect.html`, `inspect.json` and the pictures; without it none are drawn."""
    format: str | None = None
    """Layout of a foreign dataset; recognised by its names if not given."""
    option: tuple[str, ...] = ()
    """What its reader is told, as NAME=VALUE."""
    sample: int = 3
    """Units of a foreign dataset that are read."""
    objects: int = 4
    """Objects in the pictures, evenly over the list."""
    grasps: int = 6
    """Grasps of each in the pictures, evenly over its grasps."""


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """What was found."""

    about: tuple[tuple[str, str], ...]
    """Names and values."""
    table: tuple[tuple[str, Counts], ...]
    """Counts of each part."""
    findings: tuple[Finding, ...]
    sheets: Mapping[str, UInt8[np.ndarray, "h w 3"]]
    """Pictures by object."""


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    config = commands.read(Inspect, __doc__)
    console = Console()
    with commands.ending(console):
        seen = run(config, console)
    sys.exit(1 if seen.findings else 0)


def run(config: Inspect, console: Console) -> Seen:
    """Looks, prints, and writes the page if one is asked for.

    Raises:
        RealdexError: Nothing at the path that can be read, or settings that make no sense.
    """
    if min(config.sample, config.objects, config.grasps) < 1:
        raise ConfigError("--sample, --objects and --grasps are at least one")
    path = Path(config.path)
    own = config.path in store.EMBEDDED or (path / store.INDEX).is_file()
    if own and config.format is None:
        seen = _of_dataset(config, store.open_dataset(config.path, hand=None), console)
    elif path.exists():
        seen = _of_source(config, console)
    else:
        store.open_dataset(config.path)  # says which names there are
        raise ConfigError(f"{path} does not exist")
    _print(seen, console)
    if config.out is not None:
        _write(config.out, config.path, seen)
        console.print(f"written to {config.out / 'inspect.html'}", highlight=False)
    return seen


def _of_dataset(config: Inspect, dataset: Dataset, console: Console) -> Seen:
    counts: dict[str, Counts] = {}
    findings: list[Finding] = []
    part_of = {name: part for part, names in dataset.splits.items() for name in names}
    for name in track(dataset.objects, "looking", console=console, transient=True):
        looked = inspection.look(dataset, name)
        counts[part_of[name]] = counts.get(part_of[name], Counts()) + looked.counts
        findings += looked.findings
    findings += inspection.strays(dataset)
    damaged = {f.file for f in findings}
    sheets = {}
    if config.out is not None:
        some = [n for n in dataset.objects if f"grasps/{n}.npz" not in damaged]
        for name in track(_evenly(some, config.objects), "drawing", console=console):
            try:
                shape = shape_of(dataset, name)
                phi = np.asarray(dataset.grasps(name).phi)
                sheets |= _sheet(load(dataset.replay_hand), shape, phi, config.grasps)
            except RealdexError as error:
                console.print(f"no picture of {name}: {error}", highlight=False, markup=False)
    total = sum(counts.values(), Counts())
    return Seen(
        inspection.about(dataset), (*counts.items(), ("all", total)), tuple(findings), sheets
    )


def _of_source(config: Inspect, console: Console) -> Seen:
    source = formats.open_source(config.path, config.format, parse_options(config.option))
    read = inspection.sample(source, config.sample)
    findings = [
        Finding(unit, "the unit can be read", str(found))
        for unit, found in read
        if isinstance(found, RealdexError)
    ]
    good = [(unit, found) for unit, found in read if isinstance(found, Unit)]
    hand, sheets = str(source.recipe.get("replay_hand", store.HAND)), {}
    for unit, found in good[: config.objects] if config.out is not None else []:
        if found.grasps is None:
            continue
        try:
            shape = pieces.for_pictures(unit, found.mesh, found.points)
            sheets |= _sheet(load(hand), shape, np.asarray(found.grasps.phi), config.grasps)
        except RealdexError as error:
            console.print(f"no picture of {unit}: {error}", highlight=False, markup=False)
    about = (
        ("layout", source.format),
        ("units", f"{len(source.units):,}, of which {len(read)} were read"),
        *((f"recipe {k}", json.dumps(v, default=str)) for k, v in source.recipe.items()),
        *((f"note on {unit}", note) for unit, found in good for note in found.notes),
    )
    table = tuple((unit, inspection.unit_counts(found)) for unit, found in good)
    return Seen(about, table, tuple(findings), sheets)


def shape_of(dataset: Dataset, name: str) -> ObjectShape:
    """An object to look at.

    Raises:
        RealdexError: Its mesh, or its points, cannot be read.
    """
    mesh = dataset.path / "objects" / name / "mesh.obj"
    if mesh.is_file():
        return pieces.for_pictures(name, mesh.read_bytes(), None)
    # Only our dataset means our parametric objects; anyone may call a scanned mug "mug".
    if dataset.name in store.EMBEDDED and name.partition("@")[0] in objects.names():
        return objects.make(name)
    return pieces.for_pictures(name, None, dataset.surface(name).points)


def _sheet(
    hand: HandModel, shape: ObjectShape, phi: Float[np.ndarray, "n phi"], count: int
) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
    if not len(phi):
        return {}
    chosen = phi[_evenly(range(len(phi)), count)]
    images = render.render_grasps(hand, shape, chosen)
    return {shape.name: render.contact_sheet(images, columns=3)}


def _evenly(items: Sequence, count: int) -> list:
    at = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[i] for i in np.unique(at).tolist()]


def _print(seen: Seen, console: Console) -> None:
    for key, value in seen.about:
        console.print(f"{key}: {value}", highlight=False, markup=False)
    table = Table()
    for heading in ("", *(name for name, _ in seen.table)):
        table.add_column(escape(heading), justify="right" if heading else "left", overflow="fold")
    for row in zip(*(counts.rows() for _, counts in seen.table), strict=True):
        table.add_row(row[0][0], *(value for _, value in row))
    console.print(table)
    if not seen.findings:
        console.print("[green]nothing to complain of[/]")
        return
    table = Table(title=f"{len(seen.findings)} findings", title_justify="left")
    for heading in ("file", "rule", "found"):
        table.add_column(heading, overflow="fold")
    for finding in seen.findings[:_SHOWN]:
        table.add_row(*map(escape, (finding.file, finding.rule, finding.value)))
    console.print(table)
    rules = collections.Counter(finding.rule for finding in seen.findings)
    for rule, count in rules.most_common() if len(seen.findings) > _SHOWN else []:
        console.print(f"{count} x not: {rule}", highlight=False, markup=False)


def _write(out: Path, path: str, seen: Seen) -> None:
    out.mkdir(parents=True, exist_ok=True)
    e = html.escape
    pictures = []
    for name, sheet in seen.sheets.items():
        buffer = io.BytesIO()
        Image.fromarray(sheet).save(buffer, "PNG", optimize=True)
        (out / f"{name}.png").write_bytes(buffer.getvalue())
        data = base64.b64encode(buffer.getvalue()).decode()
        pictures.append(
            f'<h2>{e(name)}</h2><img alt="grasps of {e(name)}" src="data:image/png;base64,{data}">'
        )
    headings = "".join(f"<th>{e(name)}</th>" for name, _ in Counts().rows())
    counts = "".join(
        f"<tr><th>{e(name)}</th>{''.join(f'<td>{e(v)}</td>' for _, v in c.rows())}</tr>"
        for name, c in seen.table
    )
    about = "".join(f"<tr><th>{e(k)}</th><td>{e(v)}</td></tr>" for k, v in seen.about)
    found = "".join(
        f"<tr><td>{e(f.file)}</td><td>{e(f.rule)}</td><td>{e(f.value)}</td></tr>"
        for f in seen.findings
    )
    complaints = (
        f"<table><tr><th>file</th><th>rule</th><th>found</th></tr>{found}</table>"
        if seen.findings
        else "<p>Nothing to complain of.</p>"
    )
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{e(path)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{e(path)}</h1><table>{about}</table>"
        f"<h2>Counts</h2><table><tr><th></th>{headings}</tr>{counts}</table>"
        f"<h2>Findings</h2>{complaints}{''.join(pictures)}</body></html>\n"
    )
    report.save_html(page, out / "inspect.html")
    said = {
        "about": dict(seen.about),
        "counts": {name: dataclasses.asdict(c) for name, c in seen.table},
        "findings": [dataclasses.asdict(f) for f in seen.findings],
    }
    results.write_whole(out / "inspect.json", json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    main()
