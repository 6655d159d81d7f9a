"""What a selection said of grasps, read back from its `selection.json` for people to see."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from realdex_jax.data import textfile
from realdex_jax.data.schema import GraspSet
from realdex_jax.errors import DatasetError
from realdex_jax.select.scorer import Score
from viewer.words import plain

FILE = "selection.json"
"""What `experiments.select` writes beside the grasps that it chose, above those that it had."""


def notes(file: Path, name: str, grasps: GraspSet) -> tuple[str, ...] | None:
    """What was said of each grasp, Markdown; None where no selection is beside the grasps.

    Args:
        file: Of the grasps: those that `experiments.select` chose, or one of its `pools`.
        name: The object.
        grasps: What is in it.

    Raises:
        DatasetError: The selection is there, but is of other grasps, or damaged.
    """
    beside = [folder / FILE for folder in (file.parent, file.parent.parent)]
    path = next((p for p in beside if p.is_file()), None)
    if path is None:
        return None
    objects = textfile.read_json(path).get("objects")
    rows = objects.get(name) if isinstance(objects, dict) else None
    if rows is None:
        return None  # the selection is of other objects
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DatasetError(f"{path}: what it says of {name!r} is no list of grasps")
    index = (grasps.columns or {}).get("index")
    if index is not None:  # a pool: grasps as they were numbered
        wanted, key = np.asarray(index, int).tolist(), "grasp"
    else:
        wanted, key = list(range(1, len(grasps) + 1)), "place"
    found = {row.get(key): row for row in rows}
    if missing := [k for k in wanted if k not in found]:
        raise DatasetError(
            f"{path}: says nothing of {key} {missing[0]} of {name!r}; it is of another run than "
            f"{file.name}"
        )
    return tuple(_of_row(found[k], len(rows)) for k in wanted)


def of_scores(scores: Sequence[Score], best: Sequence[int]) -> tuple[str, ...]:
    """What a scorer said of the grasps that were chosen, in their order, Markdown."""
    return tuple(
        _text(
            place,
            len(scores),
            scores[i].value,
            scores[i].by,
            scores[i].explanation,
            scores[i].aspects,
        )
        for place, i in enumerate(best, 1)
    )


def _of_row(row: Mapping[str, Any], count: int) -> str:
    aspects = row.get("aspects")
    known = aspects if isinstance(aspects, dict) else {}
    return _text(
        row.get("place"),
        count,
        row.get("score"),
        str(row.get("by", "")),
        str(row.get("explanation", "")),
        {str(k): v for k, v in known.items()},
    )


def _text(
    place: object, count: int, score: object, by: str, explanation: str, aspects: Mapping[str, Any]
) -> str:
    value = f"{score:.2f}" if isinstance(score, int | float) else "no score"
    chosen = f"place {place} of {count}" if isinstance(place, int) else f"not chosen, of {count}"
    lines = [f"**selection**: {value} of 5 by {plain(by)}, {chosen}", "", plain(explanation)]
    rated = {k: v for k, v in aspects.items() if isinstance(v, int | float)}
    if rated:
        lines += ["", "| aspect | of 5 |", "|:---|---:|"]
        lines += [f"| {plain(name)} | {float(v):.1f} |" for name, v in sorted(rated.items())]
    return "\n".join(lines)
