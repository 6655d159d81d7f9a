"""What ICP over depth would do to places of cameras that a board has found.

    python -m experiments.eval_icp                 # ten virtual rigs, two minutes on 2 cores

The issue's plan had two steps that `experiments.calibrate` does without: ICP between the clouds of
neighbouring cameras, and ICP of the robot's mesh to the main camera's cloud. Here both are done, on
a mug and a hand over a table, from places as wrong as the board leaves them; once with depth that
is right on average, as the virtual cameras' is, and once with that of one camera too long by a
little, as those of time-of-flight cameras are. Writes `out/results.json`.
Takes two minutes on 2 cores.
"""

import dataclasses
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from capture import cloud, robot_surface
from capture.cloud import CloudConfig
from experiments import captured, commands
from experiments.captured import RigErrors
from realdex_jax.data import rigid
from realdex_jax.evaluation import page
from realdex_jax.hand.load import load
from sim import objects
from sim.stage import load_stage

PAIRS = ((0, 1), (0, 2), (1, 3))
"""Neighbours, each the second to the first."""
_HEIGHT = 0.05
"""Of the mug's middle above the table, metres."""
_NEAR_HAND = 0.02
"""Metres from the hand's mesh within which points are matched with it."""
_ROUNDS, _FAR, _WIDTH, _FACING = 40, 0.01, 0.004, 0.87
"""Steps of ICP, farthest partner (m; half of it later), Tukey's width (m), cosine of normals."""
_EVERY = 8
"""Of the points of what is moved, one in so many is matched."""
_SINGLE = CloudConfig(blend=0.0, voxel=0.003)


@dataclasses.dataclass(frozen=True)
class EvalIcp:
    """Command line of this script."""

    seeds: int = 10
    """Virtual rigs."""
    place_mm: float = 0.25
    """Standard deviation, along each axis, of what the board leaves of a camera's place."""
    turn_deg: float = 0.015
    """The same of its orientation, about each axis."""
    long_mm: float = 2.0
    """By how much one camera's depth is too long, where it is."""
    out: Path = Path("runs/eval_icp")
    """Folder of the results."""


@dataclasses.dataclass(frozen=True, eq=False)
class Surface:
    """Points and normals of n places on surfaces, in the world."""

    p_world: Float[np.ndarray, "n 3"]
    normal_world: Float[np.ndarray, "n 3"]


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    config = commands.read(EvalIcp, __doc__, plan=plan)
    console = Console()
    with commands.ending(console):
        run(config, console)


def plan(config: EvalIcp) -> Iterator[str]:
    """What a dry run says."""
    captured.check_rigs(config.seeds, config.place_mm, config.turn_deg)
    yield f"{config.seeds} virtual rigs"


def run(config: EvalIcp, console: Console) -> dict[str, list[tuple[float, float]]]:
    """Errors of cameras' places (mm, degrees) by way, over all rigs.

    Raises:
        ConfigError: Counts or errors that make no sense.
    """
    captured.check_rigs(config.seeds, config.place_mm, config.turn_deg)
    commands.make_folder(config.out)
    found: dict[str, list[tuple[float, float]]] = {}
    with commands.progress(console) as bar:
        task = bar.add_task("rigs", total=config.seeds)
        for seed in range(config.seeds):
            for way, errors in one(config, seed).items():
                found.setdefault(way, []).extend(errors)
            bar.advance(task)
    names = ("places by", "mm: median", "worst", "degrees: median", "worst")
    table, rows = Table(*names), []
    for way, errors in found.items():
        mm, deg = np.array(errors).T
        cells = (f"{np.median(mm):.2f}", f"{mm.max():.2f}", f"{np.median(deg):.3f}")
        rows.append((way, *cells, f"{deg.max():.3f}"))
        table.add_row(*rows[-1])
    console.print(table)
    path = page.leave(
        config.out,
        "Places of cameras, refined by what they see",
        page.origin(commands.line(), config, range(config.seeds)),
        {"errors_mm_deg": found},
        tables=[page.Table("Errors: median and worst", names, rows)],
        pictures=[page.Picture(figure(found), "errors of every camera by way")],
    )
    console.print(f"results: {config.out / 'results.json'}\nreport:  {path}", highlight=False)
    return found


def figure(found: Mapping[str, list[tuple[float, float]]]) -> bytes:
    """A PNG: the errors of all cameras, by way."""
    plot = Figure(figsize=(11.0, 3.6), layout="constrained")
    for i, unit in enumerate(("mm", "degrees")):
        axis = plot.add_subplot(1, 2, i + 1)
        axis.boxplot([[one[i] for one in errors] for errors in found.values()])
        axis.set_xticks(range(1, len(found) + 1), list(found), fontsize="small")
        axis.set_ylabel(unit)
        axis.grid(visible=True, alpha=0.3)
    out = io.BytesIO()
    plot.savefig(out, format="png", dpi=100)
    return out.getvalue()


def one(config: EvalIcp, seed: int) -> dict[str, list[tuple[float, float]]]:
    """Errors (mm, degrees) by way, of one rig."""
    rng = np.random.default_rng([seed, 7])
    hand = load("shadow")
    stage = load_stage(hand, objects.make("mug"))
    phi = np.zeros(28, np.float32)
    phi[:22], phi[22:25], phi[25:] = 0.3, [0.0, -0.12, 0.25], rng.normal(0.0, 0.3, 3)
    stage.place(phi, np.array([1.0, 0, 0, 0, 0, 0, _HEIGHT]), np.zeros(3))
    frames, optics, places = captured.photographed(
        stage, seed, rng, width=160, errors=RigErrors(0.0, 0.0)
    )
    seen: dict[int, Surface] = {}
    for c, frame in frames.items():
        made = cloud.merged({c: frame}, {c: optics[c]}, {c: places[c]}, _SINGLE)
        seen[c] = Surface(made.p_world, made.normal_world)
    posed = robot_surface.place_hand(hand, robot_surface.surface(hand, with_arm=False), phi)
    mesh = Surface(posed.p_world, posed.normal_world)
    found: dict[str, list[tuple[float, float]]] = {}

    def judge(way: str, camera: int, target: Surface, keep: np.ndarray) -> None:
        """The place of a camera, before and after ICP of what it sees to the target."""
        eye, own = places[camera][4:], seen[camera]
        start = astray(config, rng, eye)
        found.setdefault(f"board ({way})", []).append(error(start, eye))
        ray = own.p_world - eye
        ray /= np.linalg.norm(ray, axis=1, keepdims=True)
        for kind, long_mm in (("", 0.0), (f", depth {config.long_mm:g} mm long", config.long_mm)):
            p = own.p_world + 1e-3 * long_mm * ray
            moved = Surface(p[keep][::_EVERY], own.normal_world[keep][::_EVERY])
            T = icp(moved, target, start)
            found.setdefault(f"ICP ({way}{kind})", []).append(error(T, eye))

    for first, second in PAIRS:
        judge("neighbours", second, seen[first], np.ones(len(seen[second].p_world), bool))
    near = np.abs(posed.distance(seen[0].p_world, 0.05)) < _NEAR_HAND
    judge("hand's mesh", 0, mesh, near)
    return found


def icp(moved: Surface, target: Surface, start: Float[np.ndarray, "4 4"]) -> np.ndarray:
    """The transform of one surface that lays it onto another: point to plane, Tukey's biweight.

    Args:
        moved: What is moved.
        target: Onto what.
        start: Where it begins.
    """
    tree, T = KDTree(target.p_world), start.copy()
    for k in range(_ROUNDS):
        p = rigid.apply(_pose(T), moved.p_world)
        normal = moved.normal_world @ T[:3, :3].T
        far = _FAR if 2 * k < _ROUNDS else _FAR / 2
        gap, at = (np.asarray(x) for x in tree.query(p, distance_upper_bound=far))
        pairs = np.flatnonzero(np.isfinite(gap))
        facing = np.sum(normal[pairs] * target.normal_world[at[pairs]], axis=1) > _FACING
        pairs = pairs[facing]
        p, q, n = p[pairs], target.p_world[at[pairs]], target.normal_world[at[pairs]]
        middle, off = p.mean(axis=0), np.sum((p - q) * n, axis=1)
        weight = np.clip(1.0 - (off / _WIDTH) ** 2, 0.0, None) ** 2
        A = np.concatenate([np.cross(p - middle, n), n], axis=1)
        step = -np.linalg.solve(A.T @ (A * weight[:, None]), A.T @ (weight * off))
        T = _about(middle, step[:3], step[3:]) @ T
    return T


def _about(middle: np.ndarray, turn: np.ndarray, way: np.ndarray) -> Float[np.ndarray, "4 4"]:
    """A turn (rotation vector) about a point and a shift."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(turn).as_matrix()
    T[:3, 3] = middle - T[:3, :3] @ middle + way
    return T


def astray(config: EvalIcp, rng: np.random.Generator, eye: np.ndarray) -> np.ndarray:
    """What the board leaves of a camera's place, as a transform of all that it sees."""
    turn = np.deg2rad(config.turn_deg) * rng.normal(size=3)
    return _about(eye, turn, 1e-3 * config.place_mm * rng.normal(size=3))


def error(T: Float[np.ndarray, "4 4"], eye: np.ndarray) -> tuple[float, float]:
    """How far (mm) and by how much (degrees) a camera is from its true place."""
    off = T[:3, :3] @ eye + T[:3, 3] - eye
    turn = Rotation.from_matrix(T[:3, :3]).magnitude()
    return 1e3 * float(np.linalg.norm(off)), float(np.rad2deg(turn))


def _pose(T: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, " 7"]:
    wxyz = Rotation.from_matrix(T[:3, :3]).as_quat(scalar_first=True)
    return np.concatenate([wxyz, T[:3, 3]])


if __name__ == "__main__":
    main()
