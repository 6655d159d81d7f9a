"""Faults on trial, to look at: how soon a stop was asked for, and how soon all joints stood."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from realdex_jax.evaluation import figures
from realdex_jax.evaluation.page import Chart
from robot import judging
from robot.judging import REST_S, Judged

_ASKED, _SOON, _LATE, _UNSAFE, _DIM = "#3b6fd4", "#0b8f6a", "#d9822b", "#c0182f", "#66717f"
"""Read apart by people who see no red or green, too; what is unsafe has a shape of its own."""
_LINEAR_MS = 10.0
"""Below it the scale is linear: a stop may be asked for at once."""
_FAR_S = 10.0
"""Where an unsafe run of unknown rest is drawn."""
_ROW = 0.23
"""Height of a fault, inches."""

Point = tuple[float, float]
"""Milliseconds, and the height at which a run is drawn."""


def chart(judged: Sequence[Judged]) -> Chart:
    """Two plots with a row for each fault and a point for each run: to the request, and to rest.

    Faults that took longest to rest stand on top; those without any stop below, greyed.
    """
    faults = _by_rest(judged)
    plot = Figure(figsize=(12.0, 1.8 + _ROW * len(faults)), layout="constrained")
    asked, rest = plot.subplots(1, 2, sharey=True)
    points: dict[str, list[Point]] = {name: [] for name in _MARKS}
    for y, runs in enumerate(faults.values()):
        _add(points, y, runs)
        stops = sum(one.asked_s is not None for one in runs)
        soon = sum(map(judging.at_rest_in_time, runs))
        said = f"{soon} of {stops}" if stops else "–"
        rest.text(
            1.01,
            y,
            said,
            transform=rest.get_yaxis_transform(),
            va="center",
            fontsize="small",
            color="black" if stops else _DIM,
            gid=f"row-{y}",
        )
    _draw(asked, points, ("asked",))
    _draw(rest, points, ("rest", "late", "unasked", "unsafe"))
    rest.axvline(1000 * REST_S, color="black", ls="--", lw=1.2, gid="limit")
    for at, word in ((1000 * REST_S, f"{1000 * REST_S:.0f} ms"), (None, "in time")):
        rest.annotate(
            word,
            (1.01 if at is None else at, 1.0),
            (0, 3),
            xycoords=rest.transAxes if at is None else rest.get_xaxis_transform(),
            textcoords="offset points",
            ha="left" if at is None else "center",
            fontsize="small",
            weight="bold",
        )
    asked.set_yticks(range(len(faults)), list(faults))
    asked.set_ylim(len(faults) - 0.4, -0.6)
    rest.tick_params(left=False)
    asked.set_title("From the fault's strike to the request to stop", fontsize="medium", pad=17)
    rest.set_title("From the request to rest of all joints", fontsize="medium", pad=17)
    unsafe = sum(bool(one.unsafe) for one in judged)
    plot.suptitle(f"One point a run: {len(judged)} runs, {unsafe} of them unsafe")
    handles, labels = rest.get_legend_handles_labels()
    plot.legend(
        handles, labels, loc="outside lower center", ncols=4, frameon=False, markerscale=1.5
    )
    return Chart(
        figures.as_svg(plot),
        f"milliseconds to the request and to rest, of {len(judged)} runs of {len(faults)} faults",
    )


_MARKS = {
    "asked": ("o", _ASKED, "request"),
    "rest": ("o", _SOON, f"at rest within {1000 * REST_S:.0f} ms"),
    "late": ("o", _LATE, "later"),
    "unasked": ("D", _DIM, "at rest without a request after the strike"),
    "unsafe": ("X", _UNSAFE, "unsafe"),
}
"""Marker, colour and words of each kind of point."""


def _by_rest(judged: Sequence[Judged]) -> dict[str, list[Judged]]:
    """Runs by fault; first the fault whose worst run took longest to rest."""
    faults: dict[str, list[Judged]] = {}
    for one in judged:
        faults.setdefault(one.fault, []).append(one)

    def worst(runs: Sequence[Judged]) -> tuple[bool, float]:
        known = [one.stood_s for one in runs if one.stood_s is not None]
        return any(one.asked_s is not None for one in runs), max(known, default=0.0)

    # Sorting keeps the order of equals, that of `cases`.
    return dict(sorted(faults.items(), key=lambda pair: worst(pair[1]), reverse=True))


def _add(points: dict[str, list[Point]], y: int, runs: Sequence[Judged]) -> None:
    """Puts the runs of a fault at its row, one beneath the other, since many take equally long."""
    for i, one in enumerate(runs):
        height = y + 0.56 * ((i + 0.5) / len(runs) - 0.5)
        if one.asked_s is not None:
            points["asked"].append((1000 * one.asked_s, height))
        if one.stood_s is None:
            kind = ""
        elif one.asked_s is None:
            kind = "unasked"
        else:
            kind = "rest" if judging.at_rest_in_time(one) else "late"
        if one.unsafe:
            # Where nothing is known of its rest, it stands at the far end.
            rest_s = _FAR_S if one.stood_s is None else one.stood_s
            points["unsafe"].append((1000 * rest_s, height))
        elif kind:
            points[kind].append((1000 * (one.stood_s or 0.0), height))


def _draw(axis: Axes, points: dict[str, list[Point]], kinds: Sequence[str]) -> None:
    for kind in kinds:
        marker, colour, label = _MARKS[kind]
        if not points[kind]:
            continue
        axis.plot(
            *zip(*points[kind], strict=True),
            linestyle="none",
            marker=marker,
            ms=8 if kind == "unsafe" else 4,
            mfc="white" if kind == "unasked" else colour,
            mec=colour,
            mew=0.8 if kind == "unasked" else 0.0,
            alpha=0.75,
            label=label,
            gid=kind,
        )
    axis.set_xscale("symlog", linthresh=_LINEAR_MS, linscale=0.5)
    drawn = [x for kind in kinds for x, _ in points[kind]]
    furthest = max([1000.0, *(1.3 * x for x in drawn)])
    ticks = [x for x in (0, 10, 30, 100, 300, 1000, 3000, 10_000) if x <= furthest]
    axis.set_xticks(ticks, [f"{x}" for x in ticks])
    axis.minorticks_off()
    axis.set_xlim(-2.0, furthest)
    axis.set_xlabel("ms; linear below 10, logarithmic above")
    axis.grid(visible=True, alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
