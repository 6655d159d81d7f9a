"""How well a virtual robot's clock is found from what virtual cameras see of it.

    python -m experiments.eval_sync                 # ten rigs, about eight minutes on 2 busy cores
    python -m experiments.eval_sync --seeds 1 --seconds 30

Each rig has lenses, places, clocks, lost frames, noise and errors of calibration of its own. Writes
`out/results.json` and `out/sync.png`: the match of the first clouds over the offset, and the error
over the recording.
Takes 8 minutes on 2 cores.
"""

import dataclasses
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from experiments import commands, sync_scene
from experiments.sync_scene import Synced
from realdex_jax.data import realdex_write
from realdex_jax.errors import ConfigError
from realdex_jax.evaluation import page


@dataclasses.dataclass(frozen=True)
class EvalSync:
    """Command line of this script."""

    seeds: int = 10
    """Virtual rigs."""
    object: str = "mug"
    """What the robot reaches for."""
    seconds: float = 60.0
    """Length of each recording."""
    depth_width: int = 320
    """Columns of depth."""
    cache: Path | None = None
    """Folder in which rendered pictures are kept."""
    out: Path = Path("runs/sync")
    """Folder of the results."""


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    config = commands.read(EvalSync, __doc__, plan=plan)
    console = Console()
    with commands.ending(console):
        run(config, console)


def plan(config: EvalSync) -> Iterator[str]:
    """What a dry run says."""
    _check(config)
    yield f"{config.seeds} virtual rigs"


def _check(config: EvalSync) -> None:
    if config.seeds < 1 or config.seconds < 20:
        raise ConfigError(
            f"{config.seeds} seeds, {config.seconds} s; 1 at least, and 20 s, or too little moves"
        )


def run(config: EvalSync, console: Console) -> list[Synced]:
    """Synchronises all rigs, and writes how well.

    Raises:
        RealdexError: No seed, too short a recording, or no such object.
    """
    _check(config)
    commands.make_folder(config.out)
    found: list[Synced] = []
    rows: list[dict[str, float]] = []
    with commands.progress(console) as bar:
        task = bar.add_task("synchronising rigs", total=config.seeds)
        for seed in range(config.seeds):
            began = time.perf_counter()
            made = sync_scene.scene(
                config.object,
                seed,
                config.seconds,
                depth_width=config.depth_width,
                cache=config.cache,
                tell=console.print,
            )
            found.append(sync_scene.synchronise(made))
            rows.append(measured(found[-1]) | {"seconds": time.perf_counter() - began})
            bar.advance(task)
    text: dict[str, Any] = {
        "by_seed": rows,
        "median": {k: float(np.median([row[k] for row in rows])) for k in rows[0]},
        "worst": {k: float(np.max(np.abs([row[k] for row in rows]))) for k in rows[0]},
    }
    picture = figure(found)
    realdex_write.write(config.out / "sync.png", picture)
    shown = [(k, f"{v:.3g}", f"{text['worst'][k]:.3g}") for k, v in text["median"].items()]
    table = Table("", "median", "worst", title="Synchronisation")
    for row in shown:
        table.add_row(*row)
    console.print(table)
    path = page.leave(
        config.out,
        "Synchronisation",
        page.origin(commands.line(), config, range(config.seeds)),
        text,
        tables=[page.Table("Errors over the rigs", ("", "median", "worst"), shown)],
        pictures=[page.Picture(picture, "the match of the first clouds, and all errors")],
    )
    console.print(f"results: {config.out / 'results.json'}\nreport:  {path}", highlight=False)
    return found


def measured(one: Synced) -> dict[str, float]:
    """Errors of a synchronisation, in the units of the table."""
    robot = one.robot
    return {
        "error at the middle, ms": 1e3 * abs(robot.offset_s - one.true_offset_s),
        "error anywhere, ms": 1e3 * float(np.abs(one.error_s).max()),
        "drift, ppm": abs(robot.drift_ppm - one.true_drift_ppm),
        "standard error said, ms": 1e3 * robot.offset_error_s,
        "first clouds, ms": 1e3 * abs(robot.first_s - one.true_offset_s),
        "other cameras, ms": 1e3 * one.camera_error_s,
    }


def figure(found: list[Synced]) -> bytes:
    """The match of the first rig's first clouds, and all errors over their recordings, as PNG."""
    plot = Figure(figsize=(9.0, 3.2), layout="constrained")
    match, error = plot.subplots(1, 2)
    first = found[0]
    match.plot(1e3 * first.robot.tried_s, first.robot.fit, ".-")
    match.axvline(1e3 * first.true_offset_s, color="0.4", linestyle=":", label="true")
    match.set(xlabel="offset, ms", ylabel="points on the mesh", title="First clouds, rig 0")
    match.legend()
    for one in found:
        error.plot(one.main_s, 1e3 * one.error_s)
    error.axhspan(-5.0, 5.0, color="0.92", zorder=0)
    error.set(xlabel="time, s", ylabel="error of the robot's clock, ms", title="All rigs")
    file = io.BytesIO()
    plot.savefig(file, format="png", dpi=110)
    return file.getvalue()


if __name__ == "__main__":
    main()
