"""Takes pictures of RealDex-Sim's motions with four virtual Kinects, as RealDex's raw recordings.

    python -m experiments.make_frames --preset small    # 6 objects, 8 frames each, under a minute
    python -m experiments.make_frames                   # all objects, 2 motions of 30 frames each
    python -m experiments.make_frames --objects mug duck_toy --motions 5 --frames 0

Colour and depth (16 bit, millimetres), calibration, robot and object poses are written in the
layout of the release (`docs/recordings.md`), so that whatever reads the one reads the other. Frames
are the last ones of each reach, up to the grasp, at 15 Hz. Finished frames are kept: an interrupted
run goes on where it stopped and ends with the same files, and one with other settings is refused.
Takes one to two hours on 2 cores; with --preset small 40 seconds.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from rich.console import Console

from experiments import commands, motion_data
from realdex_jax.data import realdex_write, store, textfile
from realdex_jax.data.motion import RATE
from realdex_jax.data.realdex_write import Picture, Scene
from realdex_jax.errors import ConfigError, DatasetError
from realdex_jax.evaluation.results import commit as commit_now
from realdex_jax.hand.load import load
from sim import objects, rig
from sim.rig import Rig
from sim.stage import load_stage

PresetName = Literal["full", "small"]

START_NS = 1_700_000_000_000_000_000
"""Stamp of every recording's first frame, ns since 1970: simulated time has no date."""
_NOTE = "frames.json"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a run."""

    out: Path = Path("runs/realdex_sim_frames")
    """Folder of the recordings."""
    seed: int = 0
    """Of the depth cameras' noise."""
    objects: tuple[str, ...] = ()
    """Only these objects; all if empty."""
    motions: int = 2
    """Motions of each object: the first of those that models learn from."""
    frames: int = 30
    """Last frames of each motion; 0 is all of them, about 90."""
    width: int = 960
    """Columns of the pictures, a multiple of 16; the release has 1920."""


PRESETS: dict[PresetName, Settings] = {
    "full": Settings(),
    "small": Settings(
        out=Path("runs/realdex_sim_frames_small"),
        objects=("beer_can", "body_wash", "duck_toy", "yogurt", "cosmetics", "small_sprayer"),
        motions=1,
        frames=8,
        width=480,
    ),
}


@dataclasses.dataclass(frozen=True)
class MakeFrames:
    """Command line of this script."""

    preset: PresetName = "full"
    """full: all objects. small: a few frames of six objects."""
    out: Path | None = None
    """Folder of the recordings instead of the preset's."""
    seed: int | None = None
    """Seed of the depth cameras' noise instead of the preset's."""
    objects: tuple[str, ...] | None = None
    """These objects instead of the preset's."""
    motions: int | None = None
    """Motions of each object instead of the preset's."""
    frames: int | None = None
    """Last frames of each motion instead of the preset's; 0 is all."""
    width: int | None = None
    """Columns of the pictures instead of the preset's."""

    def settings(self) -> Settings:
        """The preset with the command line's changes."""
        given = {k: v for k, v in vars(self).items() if k != "preset" and v is not None}
        return dataclasses.replace(PRESETS[self.preset], **given)


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    args = commands.read(MakeFrames, __doc__, plan=plan)
    console = Console()
    with commands.ending(console, "stopped; the same command goes on"):
        run(args.settings(), commands.line(), console)


def plan(config: MakeFrames) -> Iterator[str]:
    """What a dry run says."""
    settings = config.settings()
    names = _checked(settings, store.open_dataset("realdex-sim"))
    frames = f"the last {settings.frames}" if settings.frames else "all"
    pictures = len(names) * settings.motions * (settings.frames or 90) * 4
    yield (
        f"{len(names)} objects, {settings.motions} motions each, {frames} frames by four cameras: "
        f"about {pictures} pictures of colour and of depth, less those that are there"
    )
    yield f"results go to {settings.out}"


def run(
    config: Settings, command: str, console: Console, cache: Path | None = None
) -> tuple[Path, ...]:
    """Makes what is missing of the recordings; returns their folders.

    Args:
        config: The settings.
        command: How the run was started, for its note.
        console: Where progress goes.
        cache: Folder of finished demonstrations; None is the user's cache folder.

    Raises:
        RealdexError: Settings that make no sense, or recordings made with others at `out`.
    """
    dataset = store.open_dataset("realdex-sim")
    names = _checked(config, dataset)
    cameras = rig.around_table(config.width)
    begin(config, dataset, command)
    realdex_write.write_calibration(config.out, cameras.calibration)
    hand, demonstrated = load("shadow"), motion_data.folder_of(dataset, cache)
    written = []
    with commands.progress(console) as progress:
        task = progress.add_task("recordings", total=len(names) * config.motions)
        frames = progress.add_task("frames")
        for name in names:
            found, _ = motion_data.demonstrations(
                hand, dataset, name, config.motions, demonstrated, console.print
            )
            for i in range(len(found)):
                phi, world = found.poses(i), found.wxyz_xyz_world_object[i]
                first = max(len(phi) - config.frames, 0) if config.frames else 0
                folder = config.out / name / f"{name}_{i + 1}"
                progress.reset(frames, total=len(phi) - first, description=folder.name)
                _record(
                    folder,
                    phi[first:],
                    world,
                    cameras,
                    config.seed,
                    lambda _: progress.advance(frames),
                )
                written.append(folder)
                progress.advance(task)
            # Objects whose demonstrations fall short have fewer recordings.
            progress.advance(task, config.motions - len(found))
    console.print(f"{len(written)} recordings in {config.out}", highlight=False)
    return tuple(written)


def _record(
    folder: Path,
    phi: Float[np.ndarray, "t 28"],
    wxyz_xyz_world_object: Float[np.ndarray, " 7"],
    cameras: Rig,
    seed: int,
    tell: Any,
) -> None:
    """Takes the pictures of one motion that are not there yet."""
    hand, shape = load("shadow"), objects.make(folder.parent.name)
    stage, count = load_stage(hand, shape), len(phi)
    still = np.asarray(wxyz_xyz_world_object, np.float64)
    p_world_table = np.array([still[4], still[5], 0.0])
    scene = Scene(
        time_ns=START_NS + np.rint(np.arange(count) * 1e9 / RATE).astype(np.int64),
        links=rig.robot_links(hand, phi),
        wxyz_xyz_world_object=np.repeat(still[None], count, axis=0),
        wxyz_xyz_world_cam0=cameras.wxyz_xyz_world_cam0,
        segments=((0, count),),
    )
    lenses = cameras.calibration.lenses

    def take(camera: int, k: int) -> Picture:
        stage.place(phi[k], still, p_world_table)
        # Of the picture's own, so that it is the same in whatever order pictures are taken.
        rng = np.random.default_rng([seed, camera, k, *folder.name.encode()])
        return rig.photograph(stage, lenses[camera], cameras.wxyz_xyz_world_cam(camera), rng)

    realdex_write.write_recording(folder, scene, cameras.calibration.cameras, take, tell)


def _checked(config: Settings, dataset: store.Dataset) -> tuple[str, ...]:
    """The objects to take pictures of."""
    for what, least in (("motions", 1), ("frames", 0), ("seed", 0)):
        if getattr(config, what) < least:
            raise ConfigError(f"{what} is {getattr(config, what)}; must be {least} or more")
    for name in config.objects:
        if name not in dataset.objects:
            raise DatasetError(f"no object {name!r}; known: {', '.join(sorted(dataset.objects))}")
    return tuple(sorted(set(config.objects or dataset.objects)))


def begin(config: Settings, dataset: store.Dataset, command: str) -> None:
    """Notes the settings that decide pictures, or checks them against those that are noted.

    Raises:
        DatasetError: `out` is a folder of something else, or was made with other settings.
    """
    note = config.out / _NOTE
    # More objects and more motions may follow later; the pictures that are there stay as they are.
    decisive = {
        "frames": config.frames,
        "width": config.width,
        "seed": config.seed,
        "dataset": dataset.digest,
        "demonstrations": motion_data.folder_of(dataset, Path()).name,
    }
    if note.exists():
        before = textfile.read_json(note).get("settings")
        for key, now in decisive.items():
            was = before.get(key) if isinstance(before, dict) else None
            if was != now:
                raise DatasetError(
                    f"{note}: the recordings were made with {key} = {was}, this run has {now}; go "
                    f"on with the old settings, choose another --out, or delete {config.out}"
                )
        return
    if config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
        raise DatasetError(f"{config.out} is not a folder of recordings; choose another --out")
    state = {"command": command, "commit": commit_now(), "settings": decisive}
    realdex_write.write(note, json.dumps(state, indent=1).encode())


if __name__ == "__main__":
    main()
