"""Results as files for other programs: CSV for analysis, LaTeX for a paper.

Intervals are of 95 %: Wilson's of a share of yes and no, Student's of other means. They take the
values that a mean is over for independent. Grasps of one object are not quite: where objects
differ, what another set of objects would give lies in a wider interval.
"""

import csv
import io
import math
from pathlib import Path

from scipy import stats

from realdex_jax.evaluation import report, results
from realdex_jax.evaluation.results import METRICS, Results, ResultsError, Stat

YES_OR_NO = frozenset({"held", "held_six", "robust_success", "part_held", "lift_success"})
"""Metrics that are 0 or 1 of each grasp or motion."""
_Z = 1.96
_LATEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "²": "$^2$",
    "³": "$^3$",
}


def save(found: Results, path: str | Path) -> Path:
    """Writes a results file, and its tables beside it as `.csv` and `.tex`; the file's path.

    Raises:
        ResultsError: As `results.save`.
    """
    path = results.save(found, path)
    for suffix, text in ((".csv", as_csv(found)), (".tex", as_latex(found))):
        beside = path.with_suffix(suffix)
        try:
            results.write_whole(beside, text)
        except OSError as error:
            raise ResultsError(f"cannot write {beside}: {error.strerror}") from error
    return path


def as_csv(found: Results) -> str:
    """One line for each metric of each row, with the ends of its interval; empty: not known."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    head = "data split method stage objects grasps metric label mean sd n low high over"
    writer.writerow(head.split())
    for row in found.rows:
        told = (row.data, row.split, row.method, row.stage, row.objects, row.grasps)
        for name in (name for name in METRICS if name in row.metrics):
            value = row.metrics[name]
            ends = interval(name, value, found.spread) or (None, None)
            label = METRICS[name].label
            writer.writerow(
                [*told, name, label, value.mean, value.sd, value.n, *ends, found.spread]
            )
    return lines.getvalue()


def as_latex(found: Results) -> str:
    """A `tabular` as the terminal shows it: metrics down, rows across."""
    head, *body = report.grid(found.rows, found.spread)
    lines = [" & ".join(map(_escaped, line)) + r" \\" for line in body]
    return "\n".join(
        [
            f"% {found.command} at {found.commit}".replace("\n", " "),
            f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
            r"\hline",
            " & ".join(map(_escaped, head)) + r" \\",
            r"\hline",
            *lines,
            r"\hline",
            r"\end{tabular}",
            "",
        ]
    )


def interval(name: str, value: Stat, over: results.Spread) -> tuple[float, float] | None:
    """Ends of a metric's 95 % interval; None where it has none (a single value, no spread)."""
    if value.mean is None:
        return None
    if name in YES_OR_NO and over == "grasps":
        return share_interval(value.mean * value.n, value.n)
    if value.sd is None or value.n < 2:
        return None
    half = float(stats.t.ppf(0.975, value.n - 1)) * value.sd / math.sqrt(value.n)
    return value.mean - half, value.mean + half


def share_interval(good: float, all_: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; inside 0 to 1 for few as well."""
    share, n = good / all_, all_
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
    return middle - half, middle + half


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
