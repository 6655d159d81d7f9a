"""Fits the weights of the local scorer to grasps whose outcome is known.

    python -m experiments.fit_selection                # training objects, every third
    python -m experiments.fit_selection --every 1      # all forty of them

Grasps of training objects are proposed and tested. One counts as good if it has the object by the
part that people take it by and stands the strict physics test, which no feature knows of. A
logistic regression on the scorer's weighted mean then says how much each question tells; weights
are shares, and a prior keeps them near equal ones, as people do ask all of them. Prints the
weights, for `realdex_jax.select.local.WEIGHTS`, and writes them to `out/weights.json`.
Takes minutes on 2 cores.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize

from experiments import chain, commands, fit_page, protocol, selection
from experiments.fit_page import Fit
from experiments.protocol import Entry
from realdex_jax.errors import ConfigError
from realdex_jax.evaluation import page, results
from realdex_jax.hand.load import HandModel, load
from realdex_jax.models import grasp_model
from realdex_jax.models.grasp_model import GraspModel
from realdex_jax.select import features, local, prompt
from sim import displacement, robustness
from sim.physics import Physics, StrictPhysics

PRIOR = 20.0
"""How many grasps' worth of evidence the pull toward equal weights has, per squared log ratio."""


@dataclasses.dataclass(frozen=True)
class FitSelection:
    """Command line of this script."""

    model: str = "realdex-sim-small"
    """Name of a shipped model, or a `.safetensors` file."""
    every: int = 3
    """Take every so-manieth training object."""
    count: int = 100
    """Grasps per object."""
    seed: int = 0
    """Of clouds and grasps."""
    out: Path = Path("runs/fit_selection")
    """Folder of the weights."""


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    config = commands.read(FitSelection, __doc__)
    console = Console()
    with commands.ending(console):
        run(config, console)


def run(config: FitSelection, console: Console) -> None:
    """Makes grasps, fits, prints and writes."""
    if min(config.every, config.count) < 1 or config.seed < 0:
        raise ConfigError(
            f"--every {config.every}, --count {config.count}, --seed {config.seed}; the first two "
            "are at least one, the seed is not negative"
        )
    commands.make_folder(config.out)
    hand, model = load(), grasp_model.load_model(config.model)
    _, entries, _ = protocol.entries_of_data("realdex-sim", "train")
    entries = entries[:: config.every]
    answers, good = [], []
    with commands.progress(console) as bar:
        task = bar.add_task("", total=len(entries))
        for entry in entries:
            bar.update(task, description=entry.shape.name)
            found = _graded(hand, model, entry, config)
            if found is not None:
                answers.append(found[0])
                good.append(found[1])
            bar.advance(task)
    if not answers:
        raise ConfigError("no object has a part to take it by; nothing to fit to")
    x, y = np.concatenate(answers), np.concatenate(good)
    fitted = fit(x, y)
    weights, ordered = fitted.weights, fitted.ordered
    title = f"{len(y)} grasps of {len(answers)} objects, {y.mean():.2f} of them good"
    names = ("question", "weight", "mean answer, good", "mean answer, others")
    table, rows = Table(*names, title=title), []
    means = zip(fit_page.mean_answers(x[y]), fit_page.mean_answers(x[~y]), strict=True)
    for name, pair in zip(prompt.ASPECTS, means, strict=True):
        said = (f"{m:.2f}" if np.isfinite(m) else "-" for m in pair)
        rows.append((name, f"{weights[name]:.3f}", *said))
        table.add_row(*rows[-1])
    console.print(table)
    console.print(f"area under the curve: {ordered:.3f}", highlight=False)
    path = config.out / "weights.json"
    results.write_whole(path, json.dumps({"weights": weights, "auc": ordered}, indent=1))
    shown = page.leave(
        config.out,
        "Weights of the questions",
        page.origin(commands.line(), config, [config.seed]),
        {"weights": weights, "auc": ordered, "grasps": len(y), "good": int(y.sum())},
        tables=[page.Table(title, names, rows)],
        pictures=[fit_page.chart(fitted, x, y)],
        notes=[f"area under the curve: {ordered:.3f}"],
    )
    console.print(f"weights: {path}\nreport:  {shown}", highlight=False)


def _graded(
    hand: HandModel, model: GraspModel, entry: Entry, config: FitSelection
) -> tuple[Float[np.ndarray, "b 6"], Bool[np.ndarray, " b"]] | None:
    """Answers to the rubric, and which grasps are good; None without a part to take it by."""
    cloud = chain.seen(hand, entry.shape, "scan", config.seed)
    made = chain.generated(hand, model, cloud, config.count, config.seed)
    phi = np.asarray(made.refined.phi, np.float32)
    physics = Physics()
    moved = displacement.displacement(hand, entry.shape, phi, physics, directions=6)
    found = selection.measure(hand, entry.shape, phi, moved.d_1s_cm, physics)
    if features.HOLD not in found:
        return None
    strict = robustness.robustness(hand, entry.shape, made.refined, StrictPhysics())
    good = strict.success & (found[features.HOLD] >= selection.HELD)
    return local.table(selection.each(found)), good


def fit(x: Float[np.ndarray, "b 6"], y: Bool[np.ndarray, " b"]) -> Fit:
    """Weights by question, and what they make of these grasps.

    Maximises the likelihood of a logistic curve over the weighted mean of the answers, under a
    prior around equal weights.

    Args:
        x: Answers in the order of `prompt.ASPECTS`; NaN where unknown.
        y: Which grasps are good.

    Raises:
        ConfigError: All grasps are good, or none.
    """
    if y.all() or not y.any():
        raise ConfigError(f"{y.sum()} of {len(y)} grasps are good; a fit needs both kinds")
    known = np.isfinite(x)
    filled = np.where(known, x, 0.0)

    def mean(logits: Float[np.ndarray, " 6"]) -> Float[np.ndarray, " b"]:
        w = np.exp(logits)
        return filled @ w / np.maximum(known @ w, 1e-12)

    def loss(v: Float[np.ndarray, " 8"]) -> float:
        z = np.exp(v[6]) * (mean(v[:6]) - v[7])
        likelihood = np.logaddexp(0.0, np.where(y, -z, z)).sum()
        # The scale of the weights is free; the prior fixes it, too.
        return float(likelihood + PRIOR * (v[:6] ** 2).sum())

    best = minimize(loss, np.array([0.0] * 6 + [2.0, 0.6]), method="L-BFGS-B")
    w = np.exp(best.x[:6])
    m = mean(best.x[:6])
    above = (m[y][:, None] > m[~y]).mean() + 0.5 * (m[y][:, None] == m[~y]).mean()
    shares = (w / w.sum()).round(3).tolist()
    weights = dict(zip(prompt.ASPECTS, shares, strict=True))
    return Fit(weights, float(above), m, float(np.exp(best.x[6])), float(best.x[7]))


if __name__ == "__main__":
    main()
