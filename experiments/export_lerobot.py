"""Exports motions as a LeRobotDataset (version 3.0): parquet, JSON, and mp4 on request.

    python -m experiments.export_lerobot                               # RealDex-Sim's motions
    python -m experiments.export_lerobot --data realdex-sim-small --videos
    python -m experiments.export_lerobot --data MOTIONS.npz --out runs/mine
    python -m experiments.export_lerobot --data runs/realdex               # a converted dataset's

Without pictures it takes seconds once the motions are there; motions of RealDex-Sim are made on
demand (`experiments.motion_data`). Ctrl-C leaves an earlier export as it was. See docs/view.md.
Takes seconds once the motions are there; with --videos 5 seconds a motion.
"""

import dataclasses
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from experiments import commands, inspect, motion_data
from realdex_jax.data import lerobot, motion_set, npz
from realdex_jax.data.footage import Camera, Pictures
from realdex_jax.data.motion_set import MotionSet
from realdex_jax.data.store import Dataset
from realdex_jax.errors import ConfigError
from realdex_jax.hand.load import load
from sim import objects, render, video

CAMERA = "side"
"""Name of the view in the dataset."""
_DIRECTION = np.array([0.62, -0.62, 0.48])
"""From the middle of all motions to the camera: from a corner of the table, and from above."""
_MARGIN = 0.10
"""Metres around the palms and objects that must be seen."""


@dataclasses.dataclass(frozen=True)
class ExportLerobot:
    """Command line of this script."""

    data: str = "realdex-sim"
    """realdex-sim, realdex-sim-small, the file of the door demonstrations, a file of motions, or a
    dataset with motions."""
    part: str = "all"
    """train, val, test, or all, which become parts of the export; a file of motions has none."""
    limit: int | None = None
    """Only the first so many motions of each part."""
    videos: bool = False
    """Add a video of one still camera; a few seconds a motion."""
    width: int = 320
    """Width of its pictures, pixels; three quarters of it is the height."""
    out: Path = Path("runs/lerobot")
    """Folder of the export; an earlier export there is replaced."""


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    config = commands.read(ExportLerobot, __doc__)
    console = Console()
    with commands.ending(console, "stopped; nothing was written"):
        export(config, console)


def export(config: ExportLerobot, console: Console) -> Path:
    """Writes the export and says where it is.

    Raises:
        ConfigError: Settings that make no sense.
        RealdexError: Motions that cannot be used or drawn, or the export cannot be written.
    """
    if config.limit is not None and config.limit < 1:
        raise ConfigError(f"limit is {config.limit}; it must be at least one")
    if config.width < 8 or config.width % 8:
        raise ConfigError(f"--width {config.width}; widths are multiples of 8")
    lerobot.check_target(config.out)  # before the motions, not after
    whole, dataset = _parts(config, console)
    parts = {
        name: motion_set.take(found, np.arange(min(len(found), config.limit or len(found))))
        for name, found in whole.items()
    }
    motions = motion_set.join(list(parts.values()))
    cameras = [_camera(motions, config.width, dataset)] if config.videos else []
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(motions))
        path = lerobot.write(
            config.out,
            motions,
            splits={name: len(found) for name, found in parts.items()},
            cameras=cameras,
            done=lambda i: progress.update(task, completed=i + 1),
        )
    console.print(
        f"{len(motions)} episodes, {len(motions.phi)} frames in {path}; "
        f"LeRobotDataset('realdex', root='{config.out}') reads it",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return path


def _parts(config: ExportLerobot, console: Console) -> tuple[dict[str, MotionSet], Dataset | None]:
    """The motions, by part; and the dataset that they are of, if it is one."""
    path = Path(config.data)
    if path.is_file() and "format" in npz.read(path):
        if config.part != "all":
            raise ConfigError(f"--part {config.part}: a file of motions has no parts")
        return {"train": motion_set.load(path)}, None
    found = motion_data.open_motions(config.data, tell=console.print)
    if config.part == "all":
        once = found.shapes or found.dataset is not None
        return (found.parts if once else _distinct(found.parts)), found.dataset
    return {config.part: found.part(config.part)}, found.dataset


def _distinct(parts: dict[str, MotionSet]) -> dict[str, MotionSet]:
    """Without validation: the few recordings are held out once, for both."""
    return {name: found for name, found in parts.items() if name != "val"}


def _camera(motions: MotionSet, width: int, dataset: Dataset | None = None) -> Camera:
    """A still camera that sees all motions.

    Raises:
        ConfigError: An object whose shape is not known.
    """
    unknown = [name for name in motions.names if name.partition("@")[0] not in objects.names()]
    if unknown and dataset is None:
        raise ConfigError(f"--videos: the shape of {unknown[0]!r} is not known")
    size = (width, 3 * width // 4)
    hand, seen = load(), _viewpoint(motions, size[0] / size[1])

    def draw(i: int) -> Pictures:
        name = motions.name(i)
        shape = objects.make(name) if dataset is None else inspect.shape_of(dataset, name)
        return video.draw(hand, shape, motions.motion(i), size, camera=seen)

    return Camera(CAMERA, draw)


def _viewpoint(motions: MotionSet, aspect: float) -> render.Camera:
    corner = np.stack(np.meshgrid(*[[-_MARGIN, _MARGIN]] * 3), axis=-1).reshape(-1, 3)
    points = np.concatenate([motions.phi[:, 22:25], motions.wxyz_xyz_world_object[:, 4:]])
    around = (points[:, None] + corner).reshape(-1, 3).astype(np.float64)
    return render.fitted(_DIRECTION / np.linalg.norm(_DIRECTION), around, aspect)


if __name__ == "__main__":
    main()
