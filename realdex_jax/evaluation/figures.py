"""Results as plots: one small chart a metric, bars by method and stage, as SVG for the report."""

import io
import warnings
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from realdex_jax.evaluation.results import METRICS, Row, Stat

_COLOURS = ("#8fa3bf", "#5b8def", "#0b8f6a", "#d9822b", "#a05ab4")
"""By stage; read apart by people who see no red or green, too."""


def bars(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """Draws one chart a metric and source of objects.

    Args:
        rows: Rows of one table; those of one source stand in one chart, by method, then stage.
        metrics: Which metrics, by the names of the contract.

    Returns:
        SVG, to stand inside HTML. Whiskers are the rows' standard deviations.
    """
    sources = list(dict.fromkeys((row.data, row.split) for row in rows))
    methods = list(dict.fromkeys(row.method for row in rows))
    stages = list(dict.fromkeys(row.stage for row in rows))
    figure = Figure(figsize=(3.2 * len(sources), 2.1 * len(metrics)), layout="constrained")
    axes = figure.subplots(len(metrics), len(sources), squeeze=False, sharey="row")
    width = 0.8 / len(stages)
    for line, metric in zip(axes, metrics, strict=True):
        for axis, source in zip(line, sources, strict=True):
            for s, stage in enumerate(stages):
                found = {
                    row.method: row.metrics.get(metric)
                    for row in rows
                    if (row.data, row.split) == source and row.stage == stage
                }
                drawn = [(m, found[name]) for m, name in enumerate(methods) if found.get(name)]
                drawn = [(m, x) for m, x in drawn if isinstance(x, Stat) and x.mean is not None]
                axis.bar(
                    [m + (s - (len(stages) - 1) / 2) * width for m, _ in drawn],
                    [x.mean or 0.0 for _, x in drawn],
                    width,
                    yerr=[x.sd or 0.0 for _, x in drawn],
                    color=_COLOURS[s % len(_COLOURS)],
                    ecolor="#66717f",
                    capsize=2,
                    label=stage,
                )
            axis.set_xticks(range(len(methods)), methods)
            axis.spines[["top", "right"]].set_visible(False)
            if METRICS[metric].share:
                axis.set_ylim(0.0, 1.05)
        line[0].set_ylabel(METRICS[metric].label)
    for axis, source in zip(axes[0], sources, strict=True):
        axis.set_title(" ".join(source))
    axes[0, 0].legend(frameon=False, fontsize="small")
    return as_svg(figure)


def as_svg(figure: Figure) -> str:
    """A figure as SVG, the same for the same figure, to stand inside HTML."""
    out = io.StringIO()
    # Text stays text: the page's fonts, selectable, a third of the size.
    with (
        mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "realdex_jax"}),
        warnings.catch_warnings(),
    ):
        # Letters that the font of the layout lacks are drawn all the same.
        warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)
        figure.savefig(out, format="svg", metadata={"Date": None}, facecolor="white")
    svg = out.getvalue()
    return svg[svg.index("<svg") :]
