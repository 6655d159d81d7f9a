"""How good the merged clouds of virtual rigs are: thickness of the table, distance to the object.

    python -m experiments.eval_clouds                 # ten rigs, four minutes on 2 cores
    python -m experiments.eval_clouds --seeds 1 --object tea_cup

Each rig has lenses, places, noise and errors of calibration of its own; a hand is by the object.
Writes `out/results.json`, `out/report.html` and `out/clouds.png`, the clouds of the first rig from
the side.
Takes 4 minutes on 2 cores.
"""

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from scipy.spatial import KDTree

from capture import cloud, robot_surface
from capture.cloud import Cloud, CloudConfig
from capture.depth import DepthConfig
from capture.robot_surface import Posed
from experiments import captured, commands
from experiments.captured import RigErrors
from realdex_jax.data import realdex_write
from realdex_jax.evaluation import page
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand.load import load
from sim import objects
from sim.stage import load_stage

WAYS = {
    "default": CloudConfig(),
    "not blended": CloudConfig(blend=0.0),
    "raw": CloudConfig(depth=DepthConfig(smooth=False), voxel=0.0, through=0.0, blend=0.0),
    "release's": CloudConfig(upstream_compatible=True),
}
"""Ways to make a cloud."""
_HEIGHT = 0.05
"""Of the object's middle above the table, metres, and the hand beside it."""
_TABLE = (0.32, 0.02)
"""Radius of the disc of the table that is looked at, and how far from it points count, metres."""
_CLEAR = 0.015
"""Metres from hand and object within which points are not the table's."""


@dataclasses.dataclass(frozen=True)
class EvalClouds:
    """Command line of this script."""

    seeds: int = 10
    """Virtual rigs."""
    object: str = "mug"
    """A parametric object."""
    place_mm: float = 0.6
    """Standard deviation, along each axis, of the error of a camera's place."""
    turn_deg: float = 0.04
    """The same of its orientation, about each axis."""
    width: int = 480
    """Columns of the colour pictures."""
    depth_width: int = 640
    """Columns of the depth pictures."""
    out: Path = Path("runs/eval_clouds")
    """Folder of the results."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """One cloud."""

    points: int
    table_points: int
    spread_mm: float
    """Thickness of the table: from the 5th to the 95th percentile of the distances to its plane."""
    two_sigma_mm: float
    """Twice the robust standard deviation of those."""
    object_mm: float
    """Median distance, of points above the table, from the true surfaces."""
    object_90_mm: float
    """90th percentile of the same."""
    seconds: float
    """To make it."""


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    config = commands.read(EvalClouds, __doc__, plan=plan)
    console = Console()
    with commands.ending(console):
        run(config, console)


def plan(config: EvalClouds) -> Iterator[str]:
    """What a dry run says."""
    captured.check_rigs(config.seeds, config.place_mm, config.turn_deg)
    yield f"{config.seeds} virtual rigs"


def run(config: EvalClouds, console: Console) -> dict[str, list[Measured]]:
    """Measures all ways on all rigs.

    Raises:
        ConfigError: Counts or errors that make no sense.
        RealdexError: No such object.
    """
    captured.check_rigs(config.seeds, config.place_mm, config.turn_deg)
    shape = objects.make(config.object)
    commands.make_folder(config.out)
    found: dict[str, list[Measured]] = {name: [] for name in WAYS}
    stages: dict[str, list[float]] = {}
    picture = b""
    with commands.progress(console) as bar:
        task = bar.add_task("rigs", total=config.seeds)
        for seed in range(config.seeds):
            made, posed = clouds(config, shape, seed)
            for name, one in made.items():
                found[name].append(measure(one, shape, posed))
            for stage, seconds in made["default"].seconds.items():
                stages.setdefault(stage, []).append(seconds)
            if seed == 0:
                picture = figure(made)
                realdex_write.write(config.out / "clouds.png", picture)
            bar.advance(task)
    shown, note = _table(found), _took(stages)
    table = Table(title=shown.title, title_justify="left")
    for heading in shown.names:
        table.add_column(heading, justify="right" if heading else "left")
    for row in shown.rows:
        table.add_row(*row)
    console.print(table)
    console.print(note, highlight=False)
    path = page.leave(
        config.out,
        "Merged clouds against the truth",
        page.origin(commands.line(), config, range(config.seeds)),
        {"clouds": found, "seconds_by_stage": stages},
        tables=[shown],
        pictures=[page.Picture(picture, "the clouds of the first rig from the side")],
        notes=[note],
    )
    console.print(f"results: {config.out / 'results.json'}\nreport:  {path}", highlight=False)
    return found


def clouds(config: EvalClouds, shape: ObjectShape, seed: int) -> tuple[dict[str, Cloud], Posed]:
    """The clouds of one moment of one rig, and the hand that is in them."""
    hand = load("shadow")
    rng = np.random.default_rng([seed, 7])
    stage = load_stage(hand, shape)
    phi = np.zeros(28, np.float32)
    phi[:22], phi[22:25], phi[25:] = 0.3, [0.0, -0.12, 0.25], rng.normal(0.0, 0.3, 3)
    stage.place(phi, np.array([1.0, 0, 0, 0, 0, 0, _HEIGHT]), np.zeros(3))
    taken = captured.photographed(
        stage,
        seed,
        rng,
        width=config.width,
        depth_width=config.depth_width,
        errors=RigErrors(1e-3 * config.place_mm, float(np.deg2rad(config.turn_deg))),
    )
    posed = robot_surface.place_hand(hand, robot_surface.surface(hand, with_arm=False), phi)
    return {name: cloud.merged(*taken, way) for name, way in WAYS.items()}, posed


def measure(made: Cloud, shape: ObjectShape, posed: Posed) -> Measured:
    """Holds a cloud against the world as it is."""
    p = made.p_world
    middle = np.array([0.0, 0.0, _HEIGHT])
    p_object = np.asarray(shape.surface(20_000).points) + middle
    to_object = KDTree(p_object).query(p)[0]
    to_hand = np.abs(posed.distance(p, 0.05))
    radius, far = _TABLE
    on_table = (np.abs(p[:, 2]) < far) & (np.hypot(p[:, 0], p[:, 1]) < radius)
    on_table &= np.minimum(to_object, to_hand) > _CLEAR
    off = off_plane(p[on_table])
    above = p[:, 2] > 0.012
    residual = np.minimum(np.minimum(to_object, to_hand), np.abs(p[:, 2]))[above]
    return Measured(
        points=len(p),
        table_points=int(on_table.sum()),
        spread_mm=1e3 * float(np.ptp(np.percentile(off, [5, 95]))),
        two_sigma_mm=1e3 * 2.0 * 1.4826 * float(np.median(np.abs(off - np.median(off)))),
        object_mm=1e3 * float(np.median(residual)),
        object_90_mm=1e3 * float(np.percentile(residual, 90)),
        seconds=sum(made.seconds.values()),
    )


def off_plane(p: Float[np.ndarray, "n 3"], rounds: int = 10) -> Float[np.ndarray, " n"]:
    """Signed distances (m) of points to the plane that most of them are in (least absolute)."""
    weight = np.ones(len(p))
    slope, off = np.zeros(3), p[:, 2]
    A = np.concatenate([p[:, :2], np.ones((len(p), 1))], axis=1)
    for _ in range(rounds):
        root = np.sqrt(weight)
        slope = np.linalg.lstsq(A * root[:, None], p[:, 2] * root)[0]
        off = p[:, 2] - A @ slope
        weight = 1.0 / np.maximum(np.abs(off), 5e-4)
    return off / np.sqrt(1.0 + slope[0] ** 2 + slope[1] ** 2)


def figure(made: dict[str, Cloud]) -> bytes:
    """A PNG: each cloud from the side, a slice of 4 cm, and the table magnified."""
    plot = Figure(figsize=(16.0, 6.5), layout="constrained")
    for i, (name, one) in enumerate(made.items()):
        p = one.p_world[np.abs(one.p_world[:, 1]) < 0.02]
        for row, (high, scale) in enumerate(((0.4, 1.0), (0.01, 1.0))):
            axis = plot.add_subplot(2, len(made), row * len(made) + i + 1)
            axis.scatter(1e3 * p[:, 0], 1e3 * p[:, 2], s=0.5 * scale, c="#3b6fd4", linewidths=0)
            axis.set_xlim(-300, 300)
            axis.set_ylim(-10, 1e3 * high)
            axis.set_ylabel("height (mm)" if i == 0 else "")
            axis.set_title(name if row == 0 else "")
            axis.grid(visible=True, alpha=0.3)
    out = io.BytesIO()
    plot.savefig(out, format="png", dpi=100)
    return out.getvalue()


def _table(found: dict[str, list[Measured]]) -> page.Table:
    names = ("", "table 5-95 %, mm", "table 2 sigma, mm", "object, mm", "90 %, mm", "s")
    shown = []
    fields = ("spread_mm", "two_sigma_mm", "object_mm", "object_90_mm", "seconds")
    for name, rows in found.items():
        columns = [[getattr(row, field) for row in rows] for field in fields]
        shown.append([name, *(f"{np.median(c):.2f} ({max(c):.2f})" for c in columns)])
    return page.Table("Clouds: median (worst) over the rigs", names, shown)


def _took(stages: dict[str, list[float]]) -> str:
    took = ", ".join(f"{stage} {1e3 * np.median(s):.0f}" for stage, s in stages.items())
    return f"default, ms by stage: {took}"


if __name__ == "__main__":
    main()
