"""What a training leaves beside its model: `results.json`, and a page with its curves."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from realdex_jax.data import textfile
from realdex_jax.evaluation import page, results
from realdex_jax.evaluation.page import Picture, Table

_APART = ("step", "time", "finite")
"""Of a line of scalars, what is no measurement."""
_COLUMNS = 4


def leave(run: Path, command: str) -> Path:
    """Writes both files from what the run's folder holds; the path of the page.

    Args:
        run: Folder of a finished training.
        command: How it was started.

    Raises:
        DatasetError: Its description cannot be read.
        OSError: A file cannot be read or written.
    """
    described = textfile.read_json(run / "config.json")
    scalars = read(run / "scalars.jsonl")
    config: Mapping[str, Any] = described["config"]
    about = page.origin(command, config, [config["seed"]])
    about["versions"] = {**about["versions"], **described["versions"]}
    last = {name: values[-1] for name, values in scalars.items() if name not in _APART}
    found = {
        "steps": int(scalars["step"][-1]),
        "data_digest": described["data_digest"],
        "began_at_commit": described["commit"],
        "last": last,
    }
    rows = [[name, f"{scalars[name][0]:.4g}", f"{value:.4g}"] for name, value in last.items()]
    return page.leave(
        run,
        f"Training: {run.name}",
        about,
        found,
        tables=[Table("Scalars", ("", "first", "last"), rows)],
        pictures=[Picture(curves(scalars), "every scalar over the steps")],
        notes=[
            f"{found['steps']} steps on data {found['data_digest'][:16]}, begun at commit "
            f"{found['began_at_commit']}",
            *(f"went on: {results.plain(part)}" for part in described.get("continued", [])),
        ],
    )


def read(path: Path) -> dict[str, list[float]]:
    """Scalars by name, one value a logged step; a step that was done twice counts as it was last.

    A run that was killed repeats the steps since its last checkpoint.
    """
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    whole = {line["step"]: line for line in lines}
    kept = [whole[step] for step in sorted(whole)]
    return {name: [line.get(name, np.nan) for line in kept] for name in kept[-1]}


def curves(scalars: Mapping[str, Sequence[float]]) -> bytes:
    """A PNG: each scalar over the steps."""
    names = [name for name in scalars if name not in _APART]
    rows = -(-len(names) // _COLUMNS)
    plot = Figure(figsize=(15.0, 2.6 * rows), layout="constrained")
    for i, name in enumerate(names):
        axis = plot.add_subplot(rows, _COLUMNS, i + 1)
        axis.plot(scalars["step"], scalars[name], lw=1.2)
        axis.set_title(name, fontsize="medium")
        axis.grid(visible=True, alpha=0.3)
    out = io.BytesIO()
    plot.savefig(out, format="png", dpi=90)
    return out.getvalue()
