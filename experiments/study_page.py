"""What a user study found, to look at: scores, the votes behind them, and how far people agree."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from realdex_jax.evaluation import figures
from realdex_jax.evaluation.page import Chart
from study.tally import Row, Tally

_LOW, _HIGH = (0.82, 0.88, 0.95), (0.05, 0.26, 0.52)
"""Colours of the fewest and of the most points: light to dark, so that grey prints tell them."""
_INK, _DIM = "#0b5394", "#66717f"
_PLACES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
_LONGEST = 24
"""Letters of a name that have room beside the plot."""
_LEAST_SHARE = 0.07
"""Of the votes; narrower parts of a bar have no room for their number."""


def chart(found: Tally) -> Chart:
    """Three plots: score and interval of each method, what its votes gave, agreement.

    Methods stand from the best down. A line marks what random answers would score where people
    give places; with scores of their own there is no such number.
    """
    rows = sorted(found.rows, key=lambda row: -row.mean)
    plot = Figure(figsize=(12.0, 2.2 + 0.42 * len(rows)), layout="constrained")
    score, votes, agree = plot.subplots(1, 3, width_ratios=(4, 5, 3))
    _scores(score, rows, found)
    _votes(votes, rows, found)
    _agreement(agree, found)
    votes.sharey(score)
    # People name methods: a dollar is no formula.
    score.set_yticks(range(len(rows)), [_short(row.method) for row in rows], parse_math=False)
    score.set_ylim(len(rows) - 0.4, -0.7)
    votes.tick_params(left=False, labelleft=False)
    plot.legend(
        *votes.get_legend_handles_labels(), loc="outside lower center", ncols=8, frameon=False
    )
    for axis in (score, votes, agree):
        axis.spines[["top", "right"]].set_visible(False)
    best = ", ".join(f"{row.method} {row.mean:.2f}" for row in rows)
    return Chart(figures.as_svg(plot), f"mean points and votes by method, best first: {best}")


def _scores(axis: Axes, rows: list[Row], found: Tally) -> None:
    values = found.design.values
    for y, row in enumerate(rows):
        axis.plot(row.mean, y, "o", color=_INK, ms=7, gid=f"score-{y}")
        if row.low is not None and row.high is not None:
            axis.plot(
                [row.low, row.high],
                [y, y],
                "-|",
                color=_INK,
                lw=2,
                ms=10,
                mew=2,
                gid=f"interval-{y}",
            )
        axis.annotate(
            f"{row.mean:.2f}",
            (row.mean, y),
            (0, 9),
            textcoords="offset points",
            ha="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )
    if found.design.mode == "rank":
        middle = (values[0] + values[-1]) / 2
        axis.axvline(middle, color=_DIM, ls=":", zorder=0)
        _by_chance(axis, middle, len(rows) - 0.43)
    axis.set_xlim(values[0] - 0.15, values[-1] + 0.15)
    axis.set_xticks(list(values))
    axis.grid(visible=True, axis="x", alpha=0.3)
    axis.set_xlabel("points a vote")
    few = "one rater, no interval" if rows[0].low is None else "mean, 95 % interval"
    axis.set_title(f"User score: {few}", fontsize="medium")


def _votes(axis: Axes, rows: list[Row], found: Tally) -> None:
    values = found.design.values
    best_first = range(len(values) - 1, -1, -1)
    for k in best_first:
        at = k / (len(values) - 1)
        colour = tuple(a + at * (b - a) for a, b in zip(_LOW, _HIGH, strict=True))
        label = _PLACES[len(values) - 1 - k] if found.design.mode == "rank" else f"{values[k]}"
        for y, row in enumerate(rows):
            share = row.given[k] / row.votes
            begins = sum(row.given[k + 1 :]) / row.votes
            axis.barh(
                y,
                share,
                0.66,
                begins,
                color=colour,
                label="" if y else label,
                gid=f"votes-{y}-{values[k]}",
            )
            if share >= _LEAST_SHARE:
                ink = "white" if at > 0.4 else "black"
                middle = begins + share / 2
                axis.text(middle, y, f"{100 * share:.0f}", color=ink, ha="center", va="center")
    axis.set_xlim(0.0, 1.0)
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
    axis.set_xlabel("votes, %")
    what = "place" if found.design.mode == "rank" else "points"
    axis.set_title(f"Share of {rows[0].votes} votes by {what}", fontsize="medium")


def _agreement(axis: Axes, found: Tally) -> None:
    rank = found.design.mode == "rank"
    name = "Kendall's W" if rank else "Krippendorff's α"
    lines = [
        (
            "of a trial" if rank else "all pictures",
            found.agreement,
            found.agreement_by_chance if rank else 0.0,
        )
    ]
    if rank:
        lines.append(("of methods", found.agreement_overall, None))
    for y, (_, value, chance) in enumerate(lines):
        if value is None:
            axis.text(0.5, y, "not defined", color=_DIM, ha="center", va="center")
            continue
        axis.barh(y, value, 0.5, color="#0b8f6a", gid=f"agreement-{y}")
        inside = value > 0.8
        axis.text(
            value + (-0.03 if inside else 0.03),
            y,
            f"{value:.2f}",
            ha="right" if inside else "left",
            va="center",
            color="white" if inside else "black",
        )
        if chance is not None:
            axis.plot([chance, chance], [y - 0.36, y + 0.36], color="black", ls=":", lw=2)
            _by_chance(axis, chance, y - 0.4)
    lowest = min([0.0, *(value for _, value, _ in lines if value is not None)])
    axis.set_xlim(lowest, 1.0)
    axis.set_yticks(range(len(lines)), [label for label, *_ in lines])
    axis.set_ylim(1.6, -0.7)
    axis.set_xlabel(f"{name}; 1: all alike")
    people = "one rater" if found.raters == 1 else f"{found.raters} raters"
    axis.set_title(f"Agreement of {people}", fontsize="medium")


def _by_chance(axis: Axes, x: float, y: float) -> None:
    axis.annotate(
        "by chance", (x, y), (3, 0), textcoords="offset points", color=_DIM, fontsize="small"
    )


def _short(name: str) -> str:
    """A name's two ends where it is long; the table has all of it."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 10]}…{name[-9:]}"
