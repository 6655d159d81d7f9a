"""The order that grasps are browsed in, and what is said of them."""

import numpy as np
from jaxtyping import Int

from realdex_jax.data.schema import GraspSet
from realdex_jax.evaluation.results import METRICS
from viewer.tableau import Moment, ViewError
from viewer.words import plain

STORED = "as stored"
"""The order of a file; other orders are names of columns."""


def sortings(grasps: GraspSet | None) -> tuple[str, ...]:
    """The orders that grasps can be browsed in."""
    return (STORED, *sorted(grasps.columns if grasps is not None else ()))


def ranked(grasps: GraspSet, by: str = STORED, descending: bool = False) -> Int[np.ndarray, " n"]:
    """Indices of grasps in the order of a column; ties as stored, what is not a number last.

    Raises:
        ViewError: No such column.
    """
    if by == STORED:
        index = np.arange(len(grasps))
        return index[::-1] if descending else index
    if by not in grasps.columns:
        raise ViewError(f"no column {by!r}; known: {', '.join(sortings(grasps))}")
    value = np.asarray(grasps.columns[by], np.float64)
    return np.argsort(
        np.where(np.isnan(value), np.inf, -value if descending else value), kind="stable"
    )


def more_is_better(column: str) -> bool:
    """Whether the best of a column are its highest."""
    return column in METRICS and METRICS[column].better > 0


def caption(grasps: GraspSet, index: int) -> str:
    """The columns of one grasp, as a table in Markdown."""
    lines = [f"**grasp {index}**", "", "| | |", "|---|---:|"]
    for name in sorted(grasps.columns):
        value = float(np.asarray(grasps.columns[name])[index])
        metric = METRICS.get(name)
        if metric is not None:
            text = f"{value:.{metric.digits}f}"
        else:
            text = f"{value:.0f}" if value.is_integer() else f"{value:.3g}"
        lines.append(f"| {metric.label if metric is not None else plain(name)} | {text} |")
    return "\n".join(lines if grasps.columns else [lines[0], "", "no columns in this file"])


def touched(moment: Moment) -> str:
    """How much of the cloud the hand is at, in words."""
    share = float((moment.contact > 0.5).mean()) if len(moment.contact) else 0.0
    return f"contact value above 0.5: {100.0 * share:.1f} % of the cloud"
