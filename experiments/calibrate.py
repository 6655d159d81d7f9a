"""Calibrates the cameras to each other and to the robot, from pictures of a board of AprilTags.

    python -m experiments.calibrate                    # virtual rig: four cameras, a minute
    python -m experiments.calibrate --seeds 10         # ten virtual rigs: median and worst errors
    python -m experiments.calibrate --rig FOLDER       # pictures of a real rig; see --help
    python -m experiments.calibrate board board.pdf    # the board, to be printed in its true size

FOLDER holds board.json, calibration_data/cam{i}_rgb.txt (optics), table/cam{i}/{k}.png (the board
stands still, seen by several cameras), and hand/cam{i}/{k}.png with hand/poses.txt (the robot holds
the board; lines `k tx ty tz qx qy qz qw`, T_base_hand in metres). `--keep-pictures` writes such a
folder from the virtual rig. Results: calibration_data in the layout of RealDex's release,
global_name_position/0.txt (camera 0 in the robot's base), calibration.json with everything,
calibration.png, results.json and report.html; of several rigs, those of the first, and both files
of all in seeds. See docs/calibration.md.
Takes half a minute a rig on 2 cores.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from jaxtyping import Float
from rich.console import Console
from rich.table import Table

from capture import apriltag, board_set, bundle, extrinsics, handeye
from capture.board import Board, board_json
from capture.board_set import BoardSet, Part
from capture.extrinsics import Extrinsics
from capture.handeye import HandEye
from experiments import calibration_page, commands, virtual_board
from experiments.virtual_board import Faults, Truth
from realdex_jax.data import calibration, realdex_write, rigid
from realdex_jax.data.calibration import Calibration
from realdex_jax.errors import ConfigError
from realdex_jax.evaluation import page, results

FORMAT = "realdex_jax.calibration/1"
_COUNTS = (1, 100)
"""Fewest and most seeds."""


@dataclasses.dataclass(frozen=True)
class Calibrate:
    """Calibrates a rig."""

    rig: str = "virtual"
    """virtual, or a folder of pictures of a real rig."""
    out: Path = Path("runs/calibration")
    """Folder of the results."""
    seed: int = 0
    """Of the virtual rig."""
    seeds: int = 1
    """So many virtual rigs, from `--seed` on; files are of the first."""
    width: int = 1920
    """Columns of the virtual cameras' pictures, a multiple of 16."""
    placements: int = 20
    """Of the virtual board on the table."""
    poses: int = 36
    """Of the virtual robot that holds the board, 30 or more."""
    faults: float = 1.0
    """Factor on what is wrong with the virtual rig: lenses, print, robot."""
    keep_pictures: bool = False
    """Writes the virtual rig's pictures to OUT/pictures, as a folder for `--rig`."""


@dataclasses.dataclass(frozen=True)
class PrintBoard:
    """Writes the board to be printed."""

    out: Annotated[Path, tyro.conf.Positional]
    """A .pdf or .png; a .json beside it describes the board."""
    columns: int = 4
    """Tags in a row."""
    rows: int = 3
    """Rows of tags."""
    cell: float = 5.5
    """Side of a cell, millimetres; a tag has eight, and between tags are two."""
    first: int = 0
    """Number of the first tag."""


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """One calibration."""

    rig: Extrinsics
    hand: HandEye | None
    """None without pictures of the board in the hand."""
    left_out: tuple[str, ...]
    """Pictures and views that were left out, and why."""
    errors: Mapping[str, float]
    """Against the truth, if it is known; see `true_errors`."""
    seconds: float


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    console = Console()
    if sys.argv[1:2] == ["board"]:
        wanted = commands.read(PrintBoard, __doc__, sys.argv[2:], f"{commands.name()} board")
        with commands.ending(console):
            print_board(wanted, console)
        return
    config = commands.read(Calibrate, __doc__)
    with commands.ending(console):
        run(config, commands.line(), console)


def print_board(config: PrintBoard, console: Console) -> None:
    """Writes the print and its description.

    Raises:
        CalibrationError: There is no such board, or the file's name ends in something else.
    """
    board = Board(config.columns, config.rows, config.cell / 1000.0, config.first)
    apriltag.save(board, config.out)
    described = config.out.with_suffix(".json")
    text = json.dumps(board_json(board), indent=1) + "\n"
    realdex_write.write(described, text.encode())
    width, height = board.size
    console.print(
        f"{config.out}: {1000 * width:g} x {1000 * height:g} mm; put {described} into the folder "
        "of pictures as board.json, with the cell as measured on the print",
        highlight=False,
    )


def run(config: Calibrate, command: str, console: Console) -> list[Outcome]:
    """Calibrates, and writes what was found; one outcome a seed.

    Args:
        config: The settings.
        command: How the run was started.
        console: Where progress and tables go.

    Raises:
        RealdexError: Settings or pictures that make no calibration; the message says why.
    """
    virtual = config.rig == "virtual"
    if not _COUNTS[0] <= config.seeds <= _COUNTS[1]:
        raise ConfigError(f"--seeds {config.seeds}; must be {_COUNTS[0]} to {_COUNTS[1]}")
    if not 0.0 <= config.faults <= 100.0:
        raise ConfigError(f"--faults {config.faults}; must be 0 to 100")
    if not virtual and (config.seeds > 1 or config.keep_pictures):
        raise ConfigError("--seeds and --keep-pictures are of the virtual rig: leave out --rig")
    if virtual and config.poses < handeye.LEAST_POSES:  # known before a minute of pictures
        raise ConfigError(f"--poses {config.poses}; at least {handeye.LEAST_POSES} are needed")
    commands.make_folder(config.out)
    if not virtual:
        shown = board_set.read(Path(config.rig))
        outcome = calibrate(shown, None, console)
        _write(config, command, shown, outcome, None, console)
        return [outcome]
    found = []
    for seed in range(config.seed, config.seed + config.seeds):
        shown, truth = virtual_board.record(
            seed, config.width, config.placements, config.poses, faults=grown(config.faults)
        )
        if config.keep_pictures and not found:
            with commands.progress(console) as bar:
                task = bar.add_task("pictures written", total=_count(shown))
                where = config.out / "pictures"
                board_set.write(where, shown, lambda: bar.advance(task))  # noqa: B023 - used at once
        found.append(calibrate(shown, truth, console))
        if len(found) == 1:
            _write(config, command, shown, found[0], truth, console)
    if config.seeds > 1:
        _write_seeds(config, command, found, console)
    return found


def grown(factor: float) -> Faults:
    """The usual faults of a rig times a factor; blur and noise stay."""
    usual = Faults()
    return dataclasses.replace(
        usual,
        **{
            name: factor * getattr(usual, name)
            for name in ("print_size", "focal", "axis_px", "robot_m", "robot_rad")
        },
    )


def calibrate(shown: BoardSet, truth: Truth | None, console: Console) -> Outcome:
    """Finds the tags and does both calibrations.

    Args:
        shown: The pictures.
        truth: What should be found, if it is known.
        console: Where the bar goes.

    Raises:
        CalibrationError: The pictures make no calibration.
    """
    start = time.monotonic()
    with commands.progress(console) as bar:
        task = bar.add_task("pictures searched for tags", total=_count(shown))

        def look(part: Part) -> tuple[list[Any], list[str]]:
            return board_set.look(shown, part, lambda: bar.advance(task))

        views, left_out = look("table")
        rig = extrinsics.calibrate(views, shown.lenses)
        left_out += rig.left_out
        hand = None
        if any(shown.shots["hand"].values()):
            views, without = look("hand")
            hand = handeye.calibrate(
                views, shown.wxyz_xyz_base_hand, rig.wxyz_xyz_cam0_cam, shown.lenses
            )
            left_out += [*without, *hand.left_out]
    errors = true_errors(rig, hand, truth) if truth else {}
    return Outcome(rig, hand, tuple(left_out), errors, time.monotonic() - start)


def true_errors(rig: Extrinsics, hand: HandEye | None, truth: Truth) -> dict[str, float]:
    """Distances from the truth: of each camera from camera 0 and in the robot's base, of the board.

    Returns:
        Millimetres and degrees by name; `camera_*` and `base_*` are the worst of all cameras.
    """
    found: dict[str, float] = {}

    def add(name: str, pose: Float[np.ndarray, " 7"], true: Float[np.ndarray, " 7"]) -> None:
        found[f"{name}_mm"] = 1000.0 * float(np.linalg.norm(pose[4:] - true[4:]))
        found[f"{name}_deg"] = bundle.angle_deg(pose, true)

    cameras = sorted(truth.wxyz_xyz_cam0_cam)
    for camera in cameras:
        pose, true = rig.wxyz_xyz_cam0_cam[camera], truth.wxyz_xyz_cam0_cam[camera]
        add(f"camera{camera}", pose, true)
        if hand:
            add(
                f"base{camera}",
                rigid.compose(hand.wxyz_xyz_base_cam0, pose),
                rigid.compose(truth.wxyz_xyz_base_cam0, true),
            )
    for name in ("camera", "base") if hand else ("camera",):
        for unit in ("mm", "deg"):
            found[f"{name}_{unit}"] = max(found[f"{name}{c}_{unit}"] for c in cameras)
    if hand:
        add("board", hand.wxyz_xyz_hand_board, truth.wxyz_xyz_hand_board)
    return found


def _count(shown: BoardSet) -> int:
    return sum(len(numbers) for part in shown.shots.values() for numbers in part.values())


def _rows(outcome: Outcome) -> tuple[list[str], list[list[str]]]:
    """The table: a column for each camera."""
    rig, hand = outcome.rig, outcome.hand
    cameras = sorted(rig.residuals)
    rows = []

    def add(label: str, values: Mapping[int, float], digits: int) -> None:
        rows.append([label, *(f"{values[c]:.{digits}f}" for c in cameras)])

    for part, left in (("table", rig.residuals), ("hand", hand.residuals if hand else None)):
        if left:
            add(f"{part}: views", {c: left[c].views for c in cameras}, 0)
            add(f"{part}: residual (px)", {c: left[c].px for c in cameras}, 3)
            add(f"{part}: residual (mm)", {c: left[c].mm for c in cameras}, 3)
            add(f"{part}: one view's turn (deg)", {c: left[c].deg for c in cameras}, 3)
    add("standard error (mm)", rig.error_mm, 3)
    add("standard error (deg)", rig.error_deg, 4)
    for name, label in (("camera", "from cam. 0"), ("base", "in the base")):
        for unit, digits in (("mm", 3), ("deg", 4)):
            if f"{name}0_{unit}" in outcome.errors:
                found = {c: outcome.errors[f"{name}{c}_{unit}"] for c in cameras}
                add(f"true error {label} ({unit})", found, digits)
    return ["", *(f"camera {c}" for c in cameras)], rows


def _facts(outcome: Outcome) -> list[str]:
    """Lines about the whole."""
    lines = [f"cameras: condition {outcome.rig.condition:.0f}"]
    hand = outcome.hand
    if hand:
        turns = ", ".join(f"{x:.0f}" for x in hand.turn_spread_deg)
        ways = ", ".join(f"{x:.0f}" for x in hand.way_spread_mm)
        lines.append(
            f"hand-eye: {hand.poses} poses, condition {hand.condition:.0f}, rotations spread by "
            f"{turns} degrees, positions by {ways} mm; standard error of camera 0 in the base "
            f"{hand.error_mm:.2f} mm, {hand.error_deg:.3f} degrees"
        )
        if outcome.errors:
            lines.append(
                f"true error of the board in the hand {outcome.errors['board_mm']:.2f} mm, "
                f"{outcome.errors['board_deg']:.3f} degrees"
            )
    if outcome.left_out:
        lines.append(f"left out: {len(outcome.left_out)} views")
    return lines


def _write(
    config: Calibrate,
    command: str,
    shown: BoardSet,
    outcome: Outcome,
    truth: Truth | None,
    console: Console,
) -> None:
    """All files of one calibration, and its table on the terminal."""
    rig, hand, out = outcome.rig, outcome.hand, config.out
    numbers = tuple(sorted(shown.lenses))
    realdex_write.write_calibration(
        out, Calibration(numbers, shown.lenses, dict(rig.wxyz_xyz_cam0_cam))
    )
    if hand:
        # The world of RealDex is the arm's base.
        placed = {"cam0_rgb_camera_link": rigid.matrix(hand.wxyz_xyz_base_cam0).ravel().tolist()}
        where = out / "global_name_position" / "0.txt"
        realdex_write.write(where, json.dumps(placed, indent=1).encode())
    about = page.origin(command, config, [config.seed] if config.rig == "virtual" else [])
    state = {
        "format": FORMAT,
        **{name: about[name] for name in ("command", "commit", "device", "versions")},
        "settings": about["config"],
        "board": board_json(shown.board),
        "lenses": {str(c): calibration.lens_json(shown.lenses[c], f"cam{c}") for c in numbers},
        "T_cam0_cam": {str(c): rig.wxyz_xyz_cam0_cam[c].tolist() for c in numbers},
        "T_cam0_board": {str(k): T.tolist() for k, T in rig.wxyz_xyz_cam0_board.items()},
        "cameras": results.plain(_of(rig, "residuals", "error_mm", "error_deg", "condition")),
        "hand_eye": hand
        and {
            "T_base_cam0": hand.wxyz_xyz_base_cam0.tolist(),
            "T_hand_board": hand.wxyz_xyz_hand_board.tolist(),
            **results.plain(
                _of(
                    hand,
                    *("residuals", "condition", "turn_spread_deg", "way_spread_mm", "poses"),
                    *("error_mm", "error_deg", "board_error_mm", "board_error_deg"),
                )
            ),
        },
        "true_errors": dict(outcome.errors) if truth else None,
        "left_out": list(outcome.left_out),
        "seconds": round(outcome.seconds, 2),
    }
    text = json.dumps(state, indent=1, allow_nan=False) + "\n"
    realdex_write.write(out / "calibration.json", text.encode())
    first = {
        c: shown.take("table", c, numbers[0])
        for c, numbers in shown.shots["table"].items()
        if numbers
    }
    picture = calibration_page.figure(shown.lenses, rig, hand, first)
    realdex_write.write(out / "calibration.png", picture)
    names, rows = _rows(outcome)
    notes = [*_facts(outcome), *outcome.left_out]
    page.leave(
        out,
        "Calibration",
        about,
        {name: state[name] for name in ("cameras", "hand_eye", "true_errors", "seconds")},
        tables=[page.Table("Root mean square residuals, standard errors", names, rows)],
        pictures=[page.Picture(picture, "residual vectors of each camera, and the rig from above")],
        notes=notes,
    )
    table = Table(title="Calibration")
    for name in names:
        table.add_column(name, justify="right" if name else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for line in _facts(outcome):
        console.print(line, highlight=False)
    console.print(f"written to {out} ({outcome.seconds:.0f} s)", highlight=False)


SUMMARY = {
    "camera_mm": "camera to camera 0, worst of the rig (mm)",
    "camera_deg": "(deg)",
    "base0_mm": "hand-eye: camera 0 in the base (mm)",
    "base0_deg": "(deg) ",
    "base_mm": "any camera in the base, worst of the rig (mm)",
    "base_deg": "(deg)  ",
    "board_mm": "board in the hand (mm)",
    "board_deg": "(deg)   ",
}
"""True errors of many rigs, as they are shown."""
AIMS = {"camera_mm": 1.5, "camera_deg": 0.15, "base_mm": 2.0, "base_deg": 0.3}
"""Most that the worst of ten rigs may be off."""


def summary(outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """Median and worst of the true errors over rigs."""
    return {
        name: {
            "median": float(np.median([o.errors[name] for o in outcomes])),
            "worst": float(np.max([o.errors[name] for o in outcomes])),
        }
        for name in SUMMARY
    }


def _write_seeds(
    config: Calibrate, command: str, found: Sequence[Outcome], console: Console
) -> None:
    totals = summary(found)
    title, rows = f"{len(found)} rigs", []
    for name, label in SUMMARY.items():
        digits = 2 if name.endswith("mm") else 3
        rows.append((label, *(f"{totals[name][x]:.{digits}f}" for x in ("median", "worst"))))
    shown = page.Table(title, ("true error", "median", "worst"), rows)
    seeds = range(config.seed, config.seed + config.seeds)
    by_seed = {seed: o.errors for seed, o in zip(seeds, found, strict=True)}
    page.leave(
        config.out / "seeds",
        "Calibration of many rigs",
        page.origin(command, config, seeds),
        {
            "true_errors": totals,
            "by_seed": [o.errors for o in found],
            "seconds": [round(o.seconds, 2) for o in found],
        },
        tables=[shown],
        pictures=[calibration_page.rigs(by_seed, AIMS)],
    )
    table = Table(*shown.names, title=title)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _of(record: object, *names: str) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names}


if __name__ == "__main__":
    main()
