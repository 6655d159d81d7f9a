"""What is in a dataset, and how ours was made, as tables in a document: no number is typed.

    python -m experiments.data_table --into docs/dataset.md
    python -m experiments.data_table --data runs/dexgraspnet   # any dataset: its row, its parts

The row is that of a comparison of datasets, as RealDex's Table 1 is: counts off the files. For what
`experiments.make_dataset` made, RealDex-Sim among it, the recipe's counts of every object are
printed instead. The marks are `<!-- data:begin -->` and `<!-- data:end -->`; without `--into` the
table is printed.
Takes seconds.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments import commands, converted
from experiments.report_table import insert
from realdex_jax.data import store
from realdex_jax.data.inspection import Counts
from realdex_jax.data.motion import RATE
from realdex_jax.data.store import Dataset
from realdex_jax.evaluation import results


@dataclasses.dataclass(frozen=True)
class DataTable:
    """Command line of this script."""

    data: str = "realdex-sim"
    """Name or folder of a dataset, or data that is converted first."""
    row: bool = False
    """The row of a dataset with a recipe, too."""
    into: Path | None = None
    """Document to update."""


def main() -> None:
    """Prints the table or puts it into a document."""
    config = commands.read(DataTable, __doc__)
    # The table goes to the output, so what went wrong must not.
    with commands.ending(Console(stderr=True)):
        dataset = store.open_dataset(converted.place(config.data, _tell))
        text = summary(dataset) if config.row else table(dataset)
        if config.into is None:
            print(text)
        else:
            document = insert(config.into.read_text(encoding="utf-8"), text, "data")
            results.write_whole(config.into, document)


def table(dataset: Dataset) -> str:
    """Markdown: totals and rates, then the counts of every object; `summary` without a recipe."""
    if not isinstance(dataset.recipe.get("objects"), Mapping):
        return summary(dataset)
    rows = dataset.recipe["objects"]
    starts = sum(row["starts"] for row in rows.values())
    valid = sum(row["valid"] for row in rows.values())
    busy = sum(row["seconds_optimise"] + row["seconds_physics"] for row in rows.values())
    mean = sum(row["valid"] / row["starts"] for row in rows.values()) / len(rows)
    commit, plus, changes = dataset.recipe["commit"].partition("+")
    stored = sum(len(dataset.grasps(name)) for name in dataset.objects)
    lines = [
        f"{dataset.name} {dataset.version}, made by `{dataset.recipe['command']}` at commit "
        f"`{commit[:10]}{plus}{changes}`, seed {dataset.recipe['settings']['seed']}: {stored} "
        f"grasps stored. {valid} of {starts} starts were strictly valid ({valid / starts:.2f}; "
        f"mean over objects {mean:.2f}), {valid / busy:.1f} a second and process.",
        "",
        f"Fewest of its starts are strictly valid: {_lowest(rows, 'valid')}. Fewest are kept: "
        f"{_lowest(rows, 'kept')}. Most batches: {_longest(rows)}.",
        "",
        "| object | split | starts | promising | settled | strictly valid | kept | distinct |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for split, names in dataset.splits.items():
        for name in sorted(names):
            row = rows[name]
            shares = (row[k] / row["starts"] for k in ("promising", "settled", "valid", "kept"))
            cells = " | ".join(f"{share:.2f}" for share in shares)
            lines.append(f"| {name} | {split} | {row['starts']} | {cells} | {row['distinct']} |")
    return "\n".join(lines)


def summary(dataset: Dataset) -> str:
    """Markdown: what there is of everything in any dataset, and in its parts.

    Raises:
        DatasetError: A file of it cannot be read.
    """
    counts = {part: _counted(dataset, names) for part, names in dataset.splits.items()}
    total = sum(counts.values(), Counts())
    made = dataset.recipe.get("converted_from", "made here")
    lines = [
        "| dataset | hand | from | objects | grasps | per object | motions | frames | hours |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, found in ((f"{dataset.name} {dataset.version}", total), *counts.items()):
        each = found.grasps / found.objects if found.objects else 0.0
        hours = found.frames / RATE / 3600
        what = f"{store.HAND} | {made}" if found is total else " | "
        lines.append(
            f"| {name} | {what} | {found.objects:,} | {found.grasps:,} | {each:.1f} | "
            f"{found.motions:,} | {found.frames:,} | {hours:.2f} |"
        )
    return "\n".join(lines)


def _counted(dataset: Dataset, names: Sequence[str]) -> Counts:
    grasps = sum(len(dataset.poses(name)) for name in names)
    motions = [dataset.motions(name) for name in names if name in dataset.moving]
    return Counts(
        objects=len(names),
        grasps=grasps,
        motions=sum(map(len, motions)),
        frames=sum(len(found.phi) for found in motions),
    )


def _tell(text: str) -> None:
    print(text, file=sys.stderr)  # the table alone goes where it may be piped to


def _lowest(rows: Mapping[str, Any], what: str) -> str:
    share = {name: row[what] / row["starts"] for name, row in rows.items()}
    return ", ".join(
        f"{name} {share[name]:.2f}" for name in sorted(share, key=share.__getitem__)[:4]
    )


def _longest(rows: Mapping[str, Any]) -> str:
    names = sorted(rows, key=lambda name: -rows[name]["batches"])[:4]
    return ", ".join(f"{name} {rows[name]['batches']}" for name in names)


if __name__ == "__main__":
    main()
