"""What a fit of the local scorer's weights found, to look at: weights, and what the score tells."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import expit

from realdex_jax.evaluation import figures, tables
from realdex_jax.evaluation.page import Chart
from realdex_jax.select.scorer import HIGHEST, LOWEST

_GOOD, _OTHER, _WEIGHT, _DIM = "#0b8f6a", "#d9822b", "#3b6fd4", "#66717f"
"""Read apart by people who see no red or green, too; marks differ in shape as well."""
_BINS, _LEAST = 10, 15
"""Most parts that grasps are divided into by score, and the fewest grasps of one."""


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """What a fit gives."""

    weights: Mapping[str, float]
    """Share of each question in the score; they sum to one."""
    ordered: float
    """Share of pairs (good, other) that the score puts in order: the area under its curve."""
    mean: Float[np.ndarray, " b"]
    """Weighted mean of each grasp's answers, 0 to 1."""
    slope: float
    middle: float
    """Of the logistic curve over that mean: good with chance expit(slope (mean - middle))."""


def chart(found: Fit, x: Float[np.ndarray, "b 6"], y: Bool[np.ndarray, " b"]) -> Chart:
    """Three plots: weights, answers of good grasps and of others, and the score's calibration.

    Args:
        found: The fit.
        x: Answers to the questions, in the order of its weights; NaN where unknown.
        y: Which grasps are good.
    """
    plot = Figure(figsize=(13.0, 4.3), layout="constrained")
    weights, answers, score = plot.subplots(1, 3, width_ratios=(4, 4, 5))
    names = list(found.weights)
    _weights(weights, found.weights)
    _answers(answers, x, y)
    _calibration(score, found, y)
    for axis in (weights, answers):
        axis.set_yticks(range(len(names)), names)
        axis.set_ylim(len(names) - 0.4, -0.6)
    answers.tick_params(left=False, labelleft=False)
    for axis in (weights, answers, score):
        axis.spines[["top", "right"]].set_visible(False)
    most = max(names, key=lambda name: found.weights[name])
    return Chart(
        figures.as_svg(plot),
        f"weights of {len(names)} questions, most for {most}; share of good grasps by score",
    )


def mean_answers(x: Float[np.ndarray, "b 6"]) -> Float[np.ndarray, " 6"]:
    """Of those that are known; NaN where none is."""
    known = [column[np.isfinite(column)] for column in x.T]
    return np.array([column.mean() if len(column) else np.nan for column in known])


def spans(score: Float[np.ndarray, " b"], y: Bool[np.ndarray, " b"]) -> Float[np.ndarray, "k 3"]:
    """Grasps in parts of equal number by score: mean score, good ones, all.

    Ties stay where sorting leaves them.
    """
    count = min(max(len(score) // _LEAST, 1), _BINS)
    parts = np.array_split(np.argsort(score, kind="stable"), count)
    return np.array([(score[i].mean(), y[i].sum(), len(i)) for i in parts])


def _weights(axis: Axes, weights: Mapping[str, float]) -> None:
    most, equal = max(weights.values()), 1 / len(weights)
    for i, weight in enumerate(weights.values()):
        axis.barh(i, weight, 0.62, color=_WEIGHT, gid=f"weight-{i}")
        inside = weight > 0.2 * most
        axis.annotate(
            f"{weight:.2f}",
            (weight, i),
            (-5 if inside else 5, 0),
            textcoords="offset points",
            ha="right" if inside else "left",
            va="center",
            color="white" if inside else "black",
        )
    axis.axvline(equal, color="black", ls=":", lw=1.2)
    axis.annotate(
        "all alike",
        (equal, len(weights) - 0.45),
        (4, 0),
        textcoords="offset points",
        color=_DIM,
        fontsize="small",
    )
    axis.set_xlim(0.0, 1.08 * max(most, 1.2 * equal))
    axis.set_xlabel("share of the score")
    axis.set_title("Fitted weight of each question", fontsize="medium")


def _answers(axis: Axes, x: Float[np.ndarray, "b 6"], y: Bool[np.ndarray, " b"]) -> None:
    ends = []
    marks = (("good", y, "o", 11, _GOOD), ("others", ~y, "D", 6, _OTHER))  # both seen where alike
    for kind, of, marker, size, colour in marks:
        means = mean_answers(x[of])
        ends.append(means)
        axis.plot(
            means,
            np.arange(x.shape[1]),
            marker,
            color=colour,
            ms=size,
            label=f"{kind}, {of.sum()}",
            gid=f"answers-{kind}",
        )
    for i, pair in enumerate(zip(*ends, strict=True)):
        axis.plot(pair, [i, i], color=_DIM, lw=2, zorder=0)
    axis.set_xlim(-0.03, 1.03)
    axis.grid(visible=True, axis="x", alpha=0.3)
    axis.set_xlabel("mean answer, 0 to 1")
    axis.set_title("Answers of good grasps and of others", fontsize="medium")
    axis.legend(fontsize="small", loc="lower left")


def _calibration(axis: Axes, found: Fit, y: Bool[np.ndarray, " b"]) -> None:
    score = LOWEST + (HIGHEST - LOWEST) * found.mean
    for of, height, colour, kind in ((y, 1.04, _GOOD, "good"), (~y, -0.04, _OTHER, "others")):
        axis.plot(
            score[of],
            np.full(of.sum(), height),
            "|",
            color=colour,
            ms=9,
            alpha=0.35,
            gid=f"grasps-{kind}",
        )
    parts = spans(score, y)
    middles, counts = parts[:, 0], parts[:, 2]
    shares = parts[:, 1] / counts
    each = " or ".join(f"{n:.0f}" for n in np.unique(counts))
    ends = np.array([tables.share_interval(good, all_) for _, good, all_ in parts])
    axis.errorbar(
        middles,
        shares,
        yerr=np.abs(ends.T - shares),
        fmt="o",
        color=_WEIGHT,
        capsize=3,
        label=f"{each} grasps, 95 % interval",
    )[0].set_gid("shares")
    over = np.linspace(score.min(), HIGHEST, 200)
    mean = (over - LOWEST) / (HIGHEST - LOWEST)
    curve = expit(found.slope * (mean - found.middle))
    axis.plot(over, curve, color="black", lw=1.5, label="curve of the fit", gid="curve")
    axis.set_ylim(-0.09, 1.09)
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
    axis.grid(visible=True, alpha=0.3)
    axis.set_xlabel(f"score, {LOWEST:g} to {HIGHEST:g}")
    axis.set_ylabel("good, % (ticks: every grasp)")
    axis.set_title(
        f"Held by its part and stands the strict test, by score\n"
        f"(the fit's own grasps; {100 * found.ordered:.1f} % of pairs in order)",
        fontsize="medium",
    )
    axis.legend(fontsize="small", loc="upper left", bbox_to_anchor=(0.0, 0.91))
