"""What became of runs of the robot: how each ended, its timeline, the table and the page."""

import dataclasses
import html
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from realdex_jax.evaluation import page, report

Ending = Literal[
    "lifted",
    "not lifted",
    "held, lift not observed",
    "nothing held",
    "no grasp holds",
    "no plan passes",
    "not started",
    "refused",
    "cancelled",
    "fault",
]
"""How a run may end; there is no other way. The third and the fourth are of robots nobody tells the
object's pose of: what joint states show (`robot/grip.py`)."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One run and how it ended."""

    object: str
    seed: int
    ending: Ending
    reason: str
    """Why, in words; empty where the object was lifted."""
    risen_cm: float
    """How much higher the object ended."""
    confirmed: bool
    """Whether joint states show that the robot stands or holds."""
    tried: int
    """Grasps whose plans were tried."""
    timeline: tuple[tuple[str, float], ...]
    """Seconds of each stage."""


@dataclasses.dataclass(eq=False)
class Told:
    """The timeline of a run, printed as it goes."""

    object: str
    seed: int
    console: Console
    timeline: list[tuple[str, float]] = dataclasses.field(default_factory=list)
    """Seconds of each stage."""
    last_s: float = dataclasses.field(default_factory=time.monotonic)

    def spent(self, stage: str) -> None:
        """Ends a stage."""
        now = time.monotonic()
        self.timeline.append((stage, now - self.last_s))
        self.console.print(f"{stage:<20}{now - self.last_s:6.1f} s", highlight=False)
        self.last_s = now

    def ended(
        self,
        ending: Ending,
        reason: str = "",
        risen_m: float = 0.0,
        confirmed: bool = True,
        tried: int = 0,
    ) -> Run:
        """Ends the run."""
        self.console.print(f"[bold]{ending}[/bold]", highlight=False)
        return Run(
            self.object,
            self.seed,
            ending,
            reason,
            round(100.0 * risen_m, 2),
            confirmed,
            tried,
            tuple((name, round(seconds, 3)) for name, seconds in self.timeline),
        )


def show(runs: Sequence[Run], console: Console) -> None:
    """Prints a table, and why what failed did."""
    table = Table(title=f"{sum(one.ending == 'lifted' for one in runs)} of {len(runs)} lifted")
    for name in ("object", "seed", "ending", "rose (cm)", "grasps tried", "seconds"):
        table.add_column(name, justify="left" if name in ("object", "ending") else "right")
    for one in runs:
        seconds = sum(s for _, s in one.timeline)
        row = (one.object, one.seed, one.ending, one.risen_cm, one.tried, f"{seconds:.0f}")
        table.add_row(*map(str, row))
    console.print(table)
    for one in runs:
        if one.reason:
            console.print(f"{one.object} {one.seed}: {one.reason}", highlight=False, markup=False)


def save(
    out: Path, runs: Sequence[Run], clips: Sequence[report.Clip], about: Mapping[str, Any]
) -> None:
    """Writes what there is so far: a run that is killed loses itself alone.

    Args:
        out: Folder.
        runs: All that ended.
        clips: Videos of them.
        about: Of `page.origin`.
    """
    e = html.escape
    rows = [
        (
            *(one.object, str(one.seed), one.ending, str(one.risen_cm), str(one.tried), one.reason),
            ", ".join(f"{name} {seconds:.1f}" for name, seconds in one.timeline),
        )
        for one in runs
    ]
    shown = "".join(
        f"<figure>{clip.html}<figcaption>{e(clip.group)}: {e(clip.caption)}</figcaption></figure>"
        for clip in clips
    )
    lifted = sum(one.ending == "lifted" for one in runs)
    names = ("object", "seed", "ending", "rose (cm)", "grasps tried", "why", "seconds")
    page.leave(
        out,
        f"{lifted} of {len(runs)} lifted",
        about,
        {"runs": runs},
        tables=[page.Table("Runs", names, rows)],
        more=f'<div class="grid">{shown}</div>' if shown else "",
    )
