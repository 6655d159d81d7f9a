"""Writes the merged clouds of a recording: ours, or one in RealDex's layout.

    python -m experiments.clouds RECORDING                          # virtual: places are known
    python -m experiments.clouds RECORDING --calibration runs/calibration
    python -m experiments.clouds DEST/mug_1 --every 10 --cut-robot  # in RealDex's layout
    python -m experiments.clouds DEST/mug_1 --upstream-compatible --out old

Each frame of the main camera becomes `<k>.ply` in RECORDING/merged_pcd, as in the release: points,
normals and colours in the world. `clouds.json` there has what was asked for, points and seconds by
stage of each. Clouds that are there stay, if they were asked for in the same way.
See docs/clouds.md.
Takes a second a frame.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from jaxtyping import Float
from rich.console import Console

from capture import cloud, cloud_file, robot_surface, segmentation, timeline
from capture.cloud import CloudConfig
from capture.device import CaptureError, Frame, Optics
from capture.moments import hand_of
from capture.recording import Recording
from capture.robot_surface import Posed
from experiments import commands, rig_places
from realdex_jax.data import realdex_raw, realdex_write, rigid, textfile
from realdex_jax.errors import ConfigError
from realdex_jax.evaluation import results
from realdex_jax.hand.load import load

FOLDER, NOTE = "merged_pcd", "clouds.json"
FORMAT = "realdex_jax.clouds/1"
_SIDE, _BELOW, _ABOVE = 0.5, 0.03, 0.7
"""Metres of the box about what the cameras look at: sideways, below the table, above it."""


@dataclasses.dataclass(frozen=True)
class Clouds:
    """Command line of this script."""

    recording: tyro.conf.Positional[Path]
    """A recording of ours, or one in RealDex's layout."""
    out: Path | None = None
    """Folder of the clouds; RECORDING/merged_pcd by default."""
    calibration: Path | None = None
    """Ours: what `experiments.calibrate` wrote; by default what is true of a virtual recording."""
    world: Path | None = None
    """Ours: JSON with `cam0_rgb_camera_link`; by default that of `--calibration`."""
    first: int = 0
    """First frame."""
    count: int = 0
    """So many frames; 0 is all."""
    every: int = 1
    """Only each so-manieth."""
    box: tuple[float, float, float, float, float, float] | None = None
    """What is kept, in the world: smallest x y z, largest x y z, metres. By default half a metre
    about what the cameras look at, from the table to 0.7 m above it."""
    cut_robot: bool = False
    """Cut the robot out, by its mesh at the measured joints."""
    upstream_compatible: bool = False
    """As the release's tools make them, with their two slips; to compare with theirs."""


@dataclasses.dataclass(frozen=True, eq=False)
class Shots:
    """What clouds are made of."""

    frames: Callable[[int], dict[int, Frame]]
    """Of the cameras at a frame of the main one."""
    robot: Callable[[int], Posed] | None
    """The robot then; None if nobody knows."""
    count: int
    """Frames of the main camera."""
    optics: dict[int, Optics]
    wxyz_xyz_world_cam: dict[int, Float[np.ndarray, " 7"]]
    upright: bool
    """Whether z is up in the world."""


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    config = commands.read(Clouds, __doc__)
    console = Console()
    with commands.ending(console, "stopped; the same command goes on"):
        run(config, console)


def run(config: Clouds, console: Console) -> list[Path]:
    """Writes the clouds that are not there yet; returns the files of all.

    Raises:
        RealdexError: The recording cannot be used, frames that are not there, or clouds in the
            folder that were asked for otherwise.
    """
    shots = open_shots(config)
    if config.first < 0 or config.count < 0 or config.every < 1 or config.first >= shots.count:
        raise ConfigError(
            f"--first {config.first} --count {config.count} --every {config.every}; frames are 0 "
            f"to {shots.count - 1}, counts not negative, every 1 or more"
        )
    end = min(config.first + config.count, shots.count) if config.count else shots.count
    numbers = range(config.first, end, config.every)
    if config.cut_robot and shots.robot is None:
        raise ConfigError(f"--cut-robot: {config.recording} has no robot whose place is known")
    out = config.out or config.recording / FOLDER
    how = CloudConfig(upstream_compatible=config.upstream_compatible)
    low, high = (config.box[:3], config.box[3:]) if config.box else box(shots)
    how = dataclasses.replace(how, low=low, high=high)
    rows = _begin(out, config, how)
    head = {"command": commands.line(), "commit": results.commit(), "device": results.device()}
    head |= {"format": FORMAT, "asked": _asked(config, how)}
    files = []
    with commands.progress(console) as bar:
        task = bar.add_task("clouds", total=len(numbers))
        for k in numbers:
            files.append(out / f"{k}.ply")
            if str(k) not in rows or not files[-1].is_file():
                posed = shots.robot(k) if config.cut_robot and shots.robot else None
                made = cloud.merged(
                    shots.frames(k), shots.optics, shots.wxyz_xyz_world_cam, how, robot=posed
                )
                realdex_write.write(files[-1], cloud_file.ply(made))
                rows[str(k)] = {"points": len(made.p_world), "seconds": dict(made.seconds)}
                text = json.dumps(head | {"frames": rows}, indent=1) + "\n"
                results.write_whole(out / NOTE, text)
            bar.advance(task)
    spent = [sum(row["seconds"].values()) for row in rows.values()]
    console.print(
        f"{out}: {len(numbers)} clouds, {np.median([r['points'] for r in rows.values()]):.0f} "
        f"points and {np.median(spent):.2f} s each (medians)",
        highlight=False,
        soft_wrap=True,
    )
    return files


def open_shots(config: Clouds) -> Shots:
    """Opens a recording of either kind.

    Raises:
        RealdexError: It is none, or its places are not known.
    """
    if all((config.recording / mark).exists() for mark in realdex_raw.MARKS):
        if config.calibration is not None or config.world is not None:
            raise ConfigError(
                f"--calibration and --world are of recordings of ours; {config.recording} is in "
                "RealDex's layout and has them"
            )
        return _of_release(realdex_raw.Recording(config.recording), config)
    return _of_ours(Recording(config.recording), config)


def _of_ours(recording: Recording, config: Clouds) -> Shots:
    places = rig_places.find(recording, config.calibration, config.world)
    cams, base = places.wxyz_xyz_world_cam, places.wxyz_xyz_world_base
    hand, times = load("shadow"), timeline.of_cameras(recording)
    robot = None
    if config.cut_robot and base is not None:
        times = timeline.with_robot(recording, times, cams, hand, base)
        series = recording.joints()
        assert series is not None
        assert times.robot_ns is not None
        q, main = robot_surface.ordered(series), times.camera_ns[0]
        then = (times.robot_ns - main[0]).astype(np.float64)
        surface = robot_surface.surface(hand)

        def posed(k: int) -> Posed:
            at = float(main[k] - main[0])
            return robot_surface.place(
                hand, surface, np.array([np.interp(at, then, x) for x in q.T]), base
            )

        robot = posed

    together = times.together()
    return Shots(
        lambda k: {c: recording.frame(c, int(i[k])) for c, i in together.items() if i[k] >= 0},
        robot,
        len(together[0]),
        {c: recording.optics(c) for c in recording.cameras},
        cams,
        places.upright,
    )


def _of_release(recording: realdex_raw.Recording, config: Clouds) -> Shots:
    index = recording.together().index
    same = np.eye(7)[0]  # depth is registered to colour

    def frames(k: int) -> dict[int, Frame]:
        found = {}
        for c, i in zip(recording.cameras, index[k].tolist(), strict=True):
            if i >= 0:
                depth = realdex_write.millimetres(recording.depth(c, i))
                found[c] = Frame(c, i, 0, 0, recording.colour(c, i), depth)
        return found

    hand = hand_of(recording, load("shadow")) if config.cut_robot else None
    robot = None
    if hand is not None:
        track, surface = recording.hand(hand), robot_surface.surface(hand, with_arm=False)

        def posed(k: int) -> Posed:
            return robot_surface.place_hand(hand, surface, track.phi[k], track.q_wrist[k])

        robot = posed

    lenses = {c: recording.lens(c) for c in recording.cameras}
    return Shots(
        frames,
        robot,
        len(recording.time_ns),
        {c: Optics(lens, lens, same) for c, lens in lenses.items()},
        {c: recording.wxyz_xyz_world_cam(c) for c in recording.cameras},
        True,
    )


def box(shots: Shots) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Smallest and largest x y z (m, world) of what is kept where nobody says.

    Half a metre about what the cameras look at, from the table of the first frame up where up is
    known.
    """
    x, y, z = segmentation.looked_at(shots.wxyz_xyz_world_cam).tolist()
    if not shots.upright:
        return (x - _SIDE, y - _SIDE, z - _SIDE), (x + _SIDE, y + _SIDE, z + _SIDE)
    points = [np.zeros((0, 3))]
    for c, frame in shots.frames(0).items():
        place = rigid.compose(shots.wxyz_xyz_world_cam[c], shots.optics[c].wxyz_xyz_colour_depth)
        p_depth, _ = shots.optics[c].depth.back_project(frame.depth / 1000.0)
        points.append(rigid.apply(place, p_depth))
    z = segmentation.table_height(np.concatenate(points), np.array([x, y, z]))
    return (x - _SIDE, y - _SIDE, z - _BELOW), (x + _SIDE, y + _SIDE, z + _ABOVE)


def _asked(config: Clouds, how: CloudConfig) -> dict[str, Any]:
    """What decides what a cloud is, as JSON gives it back."""
    asked = {
        "recording": str(config.recording.absolute()),
        "calibration": str(config.calibration),
        "world": str(config.world),
        "cut_robot": config.cut_robot,
        "config": dataclasses.asdict(how),
    }
    return json.loads(json.dumps(asked))


def _begin(out: Path, config: Clouds, how: CloudConfig) -> dict[str, dict]:
    """The rows of the clouds that are there."""
    commands.make_folder(out)
    note = out / NOTE
    if not note.is_file():
        if any(out.glob("*.ply")):
            raise CaptureError(f"{out} has clouds that are not of this command; give another --out")
        return {}
    known = textfile.read_json(note)
    if known.get("asked") != _asked(config, how):
        raise CaptureError(
            f"{out} has clouds that were asked for otherwise; give another --out, or delete it"
        )
    rows = known.get("frames")
    return rows if isinstance(rows, dict) else {}


if __name__ == "__main__":
    main()
