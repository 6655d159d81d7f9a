"""Records four virtual cameras and a robot for long: are frames lost, does the process grow?

    python -m experiments.soak OUT --minutes 60

Pictures are made before, and noisy as a camera's. Files that are full are deleted as it goes: an
hour would take a hundred gigabytes. Writes `OUT/results.json` and `OUT/report.html`. Exit status: 0
if no frame was lost and memory grew by less than 1 MB a minute, else 1; 2 if it could not be done.
Takes as long as --minutes says.
"""

import dataclasses
import io
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tyro
from matplotlib.figure import Figure
from rich.console import Console

from capture import recorder, virtual
from capture.recording import Storage
from capture.streams import Count, Event, RecorderConfig
from capture.virtual import VirtualJoints
from experiments import commands
from experiments.record import Board
from realdex_jax.errors import ConfigError
from realdex_jax.evaluation import page
from sim import clocks, film, sequence
from sim.clocks import Clock

_STREAMS = ("cam0", "cam1", "cam2", "cam3", "joints")


@dataclasses.dataclass(frozen=True)
class Soak:
    """Command line of a long run."""

    out: tyro.conf.Positional[Path]
    """Folder; new or empty. Files that are full are deleted as it goes."""
    minutes: float = 60.0
    """How long."""
    fps: float = 30.0
    """Frames a second."""
    width: int = 1280
    """Columns of colour."""


@dataclasses.dataclass(frozen=True)
class SoakReport:
    """What a long run found."""

    minutes: float
    frames: int
    """On disk, of all cameras."""
    lost: int
    """Not on disk."""
    joint_states: int
    slope_mb_per_minute: float
    """Growth of the process, by a line through its size after the first tenth."""
    cores: float
    """Processor time over time, the pictures' making included."""
    mb_per_s: float
    """Written."""
    memory: tuple[tuple[float, float], ...] = ()
    """Size of the process over the recording: seconds, MB."""


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    args = commands.read(Soak, __doc__)
    console, bad = Console(), False
    with commands.ending(console):
        if not (args.minutes > 0 and args.fps > 0 and args.width >= 16):
            raise ConfigError(
                f"--minutes {args.minutes}, --fps {args.fps}, --width {args.width}; above 0, 0 "
                "and at least 16"
            )
        report = soak(args.out, 60 * args.minutes, fps=args.fps, width=args.width, show=console)
        console.print(told(report), highlight=False)
        shown = page.leave(
            args.out,
            "Recording for long",
            page.origin(commands.line(), args, [0]),
            dataclasses.asdict(report),
            pictures=[page.Picture(figure(report), "size of the process over time")],
            notes=[told(report)],
        )
        console.print(f"report: {shown}", highlight=False)
        bad = report.lost > 0 or not report.slope_mb_per_minute < 1.0
    sys.exit(int(bad))


def soak(
    out: Path, seconds: float, *, fps: float = 30.0, width: int = 1280, show: Console | None = None
) -> SoakReport:
    """Records four virtual cameras and a robot of 500 states a second, and watches the process.

    Files that are full are deleted as it goes: an hour would take a hundred gigabytes.

    Args:
        out: Folder; new or empty.
        seconds: How long.
        fps: Frames a second.
        width: Columns of colour; depth has 640.
        show: Where progress goes.
    """
    rig = film.around_table(0, width, 640, timing=clocks.draw(4, 0, fps=fps))
    rng = np.random.default_rng(0)
    colour, depth = [], []
    for pair in rig.lenses:
        ramp = np.linspace(0, 180, width)[None, :, None]
        shape = pair.colour.height, width, 3
        noisy = (ramp + rng.normal(20, 4, shape) for _ in range(5))
        colour.append([np.clip(one, 0, 255).astype(np.uint8) for one in noisy])
        far = 900 + np.linspace(0, 400, 640) + rng.normal(0, 2, (4, pair.depth.height, 640))
        depth.append(list(far.astype(np.uint16)))
    devices = virtual.devices(rig, virtual.Loop(colour, depth), pace="wall")
    joints = VirtualJoints(
        sequence.JOINTS,
        np.array([0.0, 1e9]),
        np.zeros((2, len(sequence.JOINTS))),
        Clock(),
        devices[0].pulse,
        rate=500.0,
    )
    sizes: list[tuple[float, float]] = []
    board = Board(show or Console(quiet=True), seconds)

    def watch(elapsed: float, counts: Mapping[int, Count], new: Sequence[Event]) -> None:
        board.tell(elapsed, counts, new)
        if not sizes or elapsed - sizes[-1][0] >= 1.0:
            sizes.append((elapsed, _resident_mb()))
            for name in _STREAMS:
                for path in sorted(out.glob(f"{name}-*.rec"))[:-1]:
                    path.unlink()

    busy, began = sum(os.times()[:2]), time.monotonic()
    config = RecorderConfig(fps=fps, storage=Storage(chunk_bytes=64 * 2**20))
    with board:
        summary = recorder.record(devices, out, seconds, config, joints=joints, tell=watch)
    cores = (sum(os.times()[:2]) - busy) / (time.monotonic() - began)
    at, size = np.array(sizes).T
    late = at >= 0.1 * summary.seconds
    slope = float(np.polyfit(at[late] / 60.0, size[late], 1)[0]) if late.sum() > 2 else np.nan
    counts = summary.counts.values()
    return SoakReport(
        minutes=summary.seconds / 60.0,
        frames=sum(c.written for c in counts),
        lost=summary.lost,
        joint_states=summary.joint_states,
        slope_mb_per_minute=slope,
        cores=cores,
        mb_per_s=sum(c.bytes for c in counts) / 2**20 / summary.seconds,
        memory=tuple(sizes),
    )


def _resident_mb() -> float:
    """Size of this process in memory, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def figure(report: SoakReport) -> bytes:
    """A PNG: how large the process was, over the recording."""
    plot = Figure(figsize=(9.0, 3.0), layout="constrained")
    axis = plot.subplots()
    axis.plot(*np.array(report.memory).T)
    axis.set(xlabel="time, s", ylabel="memory, MB", ylim=(0.0, None))
    out = io.BytesIO()
    plot.savefig(out, format="png", dpi=100)
    return out.getvalue()


def told(report: SoakReport) -> str:
    """The report in a line."""
    return (
        f"{report.minutes:.1f} min: {report.frames} frames and {report.joint_states} joint states, "
        f"{report.lost} frames lost; {report.mb_per_s:.1f} MB/s, {report.cores:.2f} cores, memory "
        f"{report.slope_mb_per_minute:+.2f} MB/min"
    )


if __name__ == "__main__":
    main()
