"""Judges the tracker on grasps before four virtual depth cameras, where the truth is known.

    python -m experiments.eval_tracking --seeds 10          # two test objects for each seed
    python -m experiments.eval_tracking --seeds 1 --objects cosmetics penguin_toy

Each scene has 90 frames: the end of a reach, then hand and object rise by 20 cm and turn. Depth has
an Azure Kinect's noise; cameras, palm and joints are told a little wrong, as calibration leaves
them. Scenes are rendered once, half a minute to two each, and kept in OUT/scenes. Each is followed
undisturbed, with the object teleported, hidden, and with one camera left; a first pose is proposed
at two frames. Writes results.json, tracking.png and report.html. See docs/tracking.md.
Exit status: 0 if every target is met, 1 if not, 2 if it could not be done.
Takes about an hour on 2 cores.
"""

import dataclasses
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from experiments import commands, tracking_scene, tracking_trial
from experiments.tracking_trial import DISTURBANCES, OFF, Trial
from realdex_jax.data import realdex_write
from realdex_jax.errors import ConfigError
from realdex_jax.evaluation import page
from realdex_jax.hand.load import load
from sim import objects

FORMAT = "realdex_jax.tracking/1"
TARGETS = {"way_mm": 2.0, "turn_deg": 2.0, "frames_per_s": 15.0, "flagged": 0.95}
"""Medians at most; speed and the share of lost frames that are flagged at least."""
_PROPOSED = (0, 80)
"""Frames at which a first pose is proposed."""
_KEPT = 5
"""Scenes between two writes of the results."""
_MOST = 100


@dataclasses.dataclass(frozen=True)
class EvalTracking:
    """Command line of this script."""

    seeds: int = 10
    """So many seeds, from 0 on."""
    objects: tuple[str, ...] = ()
    """Those that seeds choose from in turn; by default the six test objects."""
    per_seed: int = 2
    """So many of them for each seed."""
    out: Path = Path("runs/tracking")
    """Folder of the results."""
    cached: bool = False
    """Only scenes that are rendered already."""


@dataclasses.dataclass(frozen=True, eq=False)
class Judged:
    """One scene."""

    object: str
    seed: int
    trials: dict[str, Trial]
    proposals: tuple[tuple[float, float, float], ...]
    """Distance (m), angle (rad) and seconds of each."""


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    config = commands.read(EvalTracking, __doc__, plan=plan)
    console, met = Console(), True
    with commands.ending(console):
        met = run(config, commands.line(), console)
    sys.exit(0 if met else 1)


def plan(config: EvalTracking) -> Iterator[str]:
    """What a dry run says."""
    others = len(DISTURBANCES) - 1
    yield f"{len(_asked(config))} scenes, each undisturbed and under {others} disturbances"


def run(config: EvalTracking, command: str, console: Console) -> bool:
    """Judges and writes; returns whether all targets are met.

    Args:
        config: The settings.
        command: How the run was started.
        console: Where progress and tables go.

    Raises:
        RealdexError: Settings that make no evaluation, or an unknown object.
    """
    wanted = _asked(config)
    commands.make_folder(config.out)
    judged = []
    with commands.progress(console) as bar:
        task = bar.add_task("scenes", total=len(wanted))
        for name, seed in wanted:
            judged.append(judge(name, seed, config.out / "scenes", console))
            bar.advance(task)
            if len(judged) % _KEPT == 0:  # an hour's work should outlive an interrupt
                _write(config, command, judged, summary(judged), Console(quiet=True))
    state = summary(judged)
    _write(config, command, judged, state, console)
    return all(state["met"].values())


def _asked(config: EvalTracking) -> list[tuple[str, int]]:
    """Objects and seeds."""
    if not 1 <= config.seeds <= _MOST:
        raise ConfigError(f"--seeds {config.seeds}; must be 1 to {_MOST}")
    if config.per_seed < 1:
        raise ConfigError(f"--per-seed {config.per_seed}; must be positive")
    wanted = _scenes(config)
    if not wanted:
        raise ConfigError(f"--cached: no scene in {config.out / 'scenes'}; leave it out once")
    return wanted


def judge(name: str, seed: int, folder: Path, console: Console) -> Judged:
    """All trials of one scene."""
    scene = tracking_scene.scene(name, seed, folder, console.print)
    hand, what = load("shadow"), tracking_trial.subject(objects.make(name))
    trials: dict[str, Trial] = {
        kind: tracking_trial.follow(hand, what, scene, kind, seed) for kind in DISTURBANCES
    }
    proposals = tuple(tracking_trial.propose(hand, what, scene, k) for k in _PROPOSED)
    return Judged(name, seed, trials, proposals)


def summary(judged: Sequence[Judged]) -> dict[str, Any]:
    """Medians, worst cases, shares, and which targets are met."""
    names = sorted({j.object for j in judged})
    table = {
        name: _of_trials([j.trials["none"] for j in judged if j.object == name]) for name in names
    }
    table["all"] = _of_trials([j.trials["none"] for j in judged])
    disturbed = {kind: _of_flags([j.trials[kind] for j in judged]) for kind in DISTURBANCES}
    disturbed["all"] = _of_flags([t for j in judged for t in j.trials.values()])
    found = np.array([p for j in judged for p in j.proposals])
    good = (found[:, 0] <= OFF[0]) & (found[:, 1] <= OFF[1])
    total = table["all"]
    met = {
        "way_mm": total["way_mm"]["median"] <= TARGETS["way_mm"],
        "turn_deg": total["turn_deg"]["median"] <= TARGETS["turn_deg"],
        "frames_per_s": total["frames_per_s"] >= TARGETS["frames_per_s"],
        "flagged": disturbed["all"]["flagged"] >= TARGETS["flagged"],
    }
    return {
        "objects": table,
        "disturbed": disturbed,
        "proposals": {
            "count": len(found),
            "right": float(good.mean()),
            "way_mm": 1000.0 * float(np.median(found[:, 0])),
            "turn_deg": float(np.rad2deg(np.median(found[:, 1]))),
            "seconds": float(np.median(found[:, 2])),
        },
        "targets": TARGETS,
        "met": met,
    }


def _scenes(config: EvalTracking) -> list[tuple[str, int]]:
    """Objects and seeds: every seed begins one object further on."""
    names = config.objects or objects.SPLITS["test"]
    found = []
    for seed in range(config.seeds):
        turned = [names[(seed + i) % len(names)] for i in range(len(names))]
        if config.cached:
            folder = config.out / "scenes"
            turned = [name for name in turned if any(folder.glob(f"{name}-{seed}-*.npz"))]
        found += [(name, seed) for name in turned[: config.per_seed]]
    return found


def _of_trials(trials: Sequence[Trial]) -> dict[str, Any]:
    def spread(values: Sequence[np.ndarray], unit: float) -> dict[str, float]:
        every = unit * np.concatenate(values)
        return {"median": float(np.median(every)), "worst": float(every.max())}

    # The first frames wait for the compiler.
    cpu = np.concatenate([t.cpu_s[2:] for t in trials])
    wall = np.concatenate([t.wall_s[2:] for t in trials])
    lost = np.concatenate([t.lost for t in trials])
    flagged = np.concatenate([t.flagged for t in trials])
    return {
        "sequences": len(trials),
        "way_mm": spread([t.way for t in trials], 1000.0),
        "turn_deg": spread([t.turn for t in trials], float(np.rad2deg(1.0))),
        "add_s_mm": spread([t.add_s for t in trials], 1000.0),
        "lost": float(lost.mean()),
        "false_flags": float((flagged & ~lost).sum() / max((~lost).sum(), 1)),
        "frames_per_s": float(1.0 / np.median(wall)),
        "cpu_ms": 1000.0 * float(np.median(cpu)),
    }


def _of_flags(trials: Sequence[Trial]) -> dict[str, Any]:
    lost = np.concatenate([t.lost for t in trials])
    flagged = np.concatenate([t.flagged for t in trials])
    # A loss is a run of lost frames; it counts as flagged if a person is shown it at once.
    runs, seen = 0, 0
    for t in trials:
        begins = np.flatnonzero(t.lost & ~np.append(False, t.lost[:-1]))
        runs += len(begins)
        seen += int(t.flagged[begins].sum())
    return {
        "lost_frames": int(lost.sum()),
        "flagged": float(flagged[lost].mean()) if lost.any() else 1.0,
        "losses": runs,
        "flagged_at_once": seen / runs if runs else 1.0,
        "false_flags": float((flagged & ~lost).sum() / max((~lost).sum(), 1)),
    }


def _write(
    config: EvalTracking,
    command: str,
    judged: Sequence[Judged],
    state: dict[str, Any],
    console: Console,
) -> None:
    found = {
        "format": FORMAT,
        **state,
        "scenes": [
            {"object": j.object, "seed": j.seed, **_of_trials([j.trials["none"]])} for j in judged
        ],
    }
    picture = figure(judged)
    realdex_write.write(config.out / "tracking.png", picture)
    tables = [_objects_table(state), _flags_table(state)]
    notes = list(_notes(state))
    alt = "distance, angle and score over the frames of all scenes"
    page.leave(
        config.out,
        "Object tracking",
        page.origin(command, config, range(config.seeds)),
        found,
        tables=tables,
        pictures=[page.Picture(picture, alt)],
        notes=notes,
    )
    for shown in tables:
        table = Table(title=shown.title)
        for name in shown.names:
            table.add_column(name, justify="right" if name else "left")
        for row in shown.rows:
            table.add_row(*row)
        console.print(table)
    for note in notes:
        console.print(note, highlight=False)
    console.print(f"written to {config.out}", highlight=False)


def _objects_table(state: dict[str, Any]) -> page.Table:
    rows = []
    for name, row in state["objects"].items():
        cells = [name, str(row["sequences"])]
        for key in ("way_mm", "turn_deg", "add_s_mm"):
            cells += [f"{row[key]['median']:.2f}", f"{row[key]['worst']:.2f}"]
        cells += [f"{100 * row['false_flags']:.1f}", f"{row['frames_per_s']:.0f}"]
        rows.append([*cells, f"{row['cpu_ms']:.0f}"])
    names = [
        *("", "sequences", "mm", "worst", "degrees", "worst ", "ADD-S (mm)", "worst  "),
        *("false flags (%)", "frames/s", "CPU (ms)"),
    ]
    return page.Table("Undisturbed: median and worst over all frames", names, rows)


def _flags_table(state: dict[str, Any]) -> page.Table:
    rows = [
        [
            kind,
            str(row["lost_frames"]),
            f"{100 * row['flagged']:.1f}",
            str(row["losses"]),
            f"{100 * row['flagged_at_once']:.1f}",
            f"{100 * row['false_flags']:.1f}",
        ]
        for kind, row in state["disturbed"].items()
    ]
    names = ["", "lost frames", "flagged (%)", "losses", "at once (%)", "false flags (%)"]
    return page.Table("Lost: more than 1 cm or 10 degrees off", names, rows)


def _notes(state: dict[str, Any]) -> list[str]:
    found = state["proposals"]
    told = ", ".join(f"{k} {'met' if v else 'MISSED'}" for k, v in state["met"].items())
    return [
        f"first poses proposed: {100 * found['right']:.1f} % of {found['count']} right, median "
        f"{found['way_mm']:.2f} mm and {found['turn_deg']:.2f} degrees, {found['seconds']:.1f} s",
        f"targets: {told}",
    ]


def figure(judged: Sequence[Judged]) -> bytes:
    """A PNG: distances and angles undisturbed, and scores against distance in all trials."""
    plot = Figure(figsize=(15.0, 4.4), layout="constrained")
    way, turn, score = plot.subplots(1, 3)
    names = sorted({j.object for j in judged})
    for j in judged:
        colour = f"C{names.index(j.object)}"
        first = j is next(x for x in judged if x.object == j.object)
        calm = j.trials["none"]
        label = j.object if first else None
        way.plot(1000.0 * calm.way, color=colour, lw=0.8, alpha=0.7, label=label)
        turn.plot(np.rad2deg(calm.turn), color=colour, lw=0.8, alpha=0.7)
        for trial in j.trials.values():
            score.plot(
                1000.0 * np.maximum(trial.way, 1e-5),
                trial.score,
                ".",
                color=colour,
                ms=2,
                alpha=0.4,
            )
    way.set_ylabel("distance of the middle (mm)")
    turn.set_ylabel("angle, up to symmetry (degrees)")
    for axis in (way, turn):
        axis.set_xlabel("frame")
        axis.set_ylim(bottom=0.0)
    way.legend(fontsize="small", framealpha=0.7)
    score.set_xscale("log")
    score.axvline(1000.0 * OFF[0], color="0.5", lw=1, ls="--")
    score.set_xlabel("distance (mm), all trials")
    score.set_ylabel("score")
    out = io.BytesIO()
    plot.savefig(out, format="png", dpi=110)
    return out.getvalue()


if __name__ == "__main__":
    main()
