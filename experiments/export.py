"""Exports grasps in DexGraspBench's file layout, so that its tools can judge them.

    python -m experiments.export                                     # stored grasps, test objects
    python -m experiments.export --grasps runs/demo/grasps           # what a run delivered
    python -m experiments.export --grasps runs/mine/grasps --objects FOLDER   # on your own meshes

Writes `graspdata/` and `objects/` and prints how the benchmark is pointed at them. Ctrl-C ends
after the object at hand; what is written stays and is whole.
Takes seconds.
"""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from experiments import commands, protocol
from experiments.protocol import Entry
from realdex_jax.data import dexgraspbench, object_files, schema, store
from realdex_jax.errors import ConfigError, RealdexError
from realdex_jax.training import loop


@dataclasses.dataclass(frozen=True)
class Export:
    """Command line of this script."""

    data: str = "realdex-sim"
    """Name or folder of a dataset."""
    split: str = "test"
    """Its split."""
    scheme: str = store.SCHEME
    """Which of its split schemes."""
    grasps: Path | None = None
    """A folder of `<object>.npz`, as evaluations and the demo write it, instead of the dataset's
    own grasps."""
    objects: Path | None = None
    """The folder of meshes, or the mesh, that `--grasps` are for, instead of the dataset's."""
    scale: float | None = None
    """Factor to metres for `--objects`; metres if not given."""
    limit: int | None = None
    """Only the first so many grasps of each object; evaluations put the best first."""
    out: Path = Path("runs/export")
    """Folder of the export; objects of an earlier export stay unless they are written again."""
    obj_root: str | None = None
    """Where the benchmark will find the objects, if you copy `objects/` there; their absolute path
    if not given."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written."""

    objects: tuple[str, ...]
    """Names, in the order they were written."""
    grasps: int
    """Number of grasps."""


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    config = commands.read(Export, __doc__)
    console = Console()
    with commands.ending(console):
        exported = export(config, console)
    console.print(summary(config, exported), highlight=False, markup=False, soft_wrap=True)


def export(config: Export, console: Console) -> Exported:
    """Writes all objects; one that cannot be written is left out, with a note.

    Raises:
        ConfigError: Settings that make no sense, or grasps that fit no object.
        RealdexError: Data or meshes that cannot be used, something else than an export at `out`,
            or no object could be written.
    """
    if config.objects is not None and config.grasps is None:
        raise ConfigError("--objects needs --grasps: meshes alone have no grasps to export")
    if config.limit is not None and config.limit < 1:
        raise ConfigError(f"limit is {config.limit}; it must be at least one")
    dexgraspbench.check_target(config.out)  # before the meshes, not after
    with console.status("reading objects; a mesh that is new is decomposed, which takes a while"):
        entries, notes = _entries(config)
    done: list[str] = []
    failed: list[str] = []
    count = 0
    with (
        commands.progress(console) as bar,
        loop.stop_on_signals(bar.console.print) as stop,
    ):
        task = bar.add_task("", total=len(entries))
        for index, entry in enumerate(entries):
            if stop.signal is not None:
                notes.append(f"stopped by {stop.signal} after {index} of {len(entries)} objects")
                break
            bar.update(task, description=entry.shape.name)
            try:
                assert entry.grasps is not None
                grasps = schema.take(entry.grasps, slice(0, config.limit))
                dexgraspbench.write_grasps(
                    config.out, entry.shape, grasps, obj_root=config.obj_root
                )
            except RealdexError as error:
                failed.append(f"{entry.shape.name}: {type(error).__name__}: {error}")
            else:
                done.append(entry.shape.name)
                count += len(grasps)
            bar.advance(task)
    if failed and not done:
        raise RealdexError(f"no object of {len(entries)} could be written; first: {failed[0]}")
    if not done:
        raise ConfigError("stopped before any object was done; nothing was written")
    notes += [f"left out: {reason}" for reason in failed]
    notes += _others(config.out, done)
    for note in notes:
        console.print(note, style="yellow", highlight=False, markup=False)
    return Exported(tuple(done), count)


def summary(config: Export, exported: Exported) -> str:
    """One line: what lies where, and the benchmark's command for it."""
    grasps = (config.out / dexgraspbench.GRASPS).resolve()
    command = "python src/main.py hand=shadow task=eval exp_name=realdex "
    command += shlex.quote(f"grasp_dir={grasps}")
    copied = "" if config.obj_root is None else f" with objects/ copied to {config.obj_root}"
    return (
        f"{exported.grasps} grasps of {len(exported.objects)} objects in {config.out}; "
        f"in DexGraspBench's folder{copied}: {command}"
    )


def _entries(config: Export) -> tuple[list[Entry], list[str]]:
    """Objects with the grasps to export, and notes for the reader."""
    files: dict[str, Path] = {}
    if config.grasps is not None:  # before the meshes, not after
        files = {path.stem: path for path in sorted(config.grasps.glob("*.npz"))}
        if not files:
            raise ConfigError(
                f"--grasps {config.grasps}: no <object>.npz there; evaluations write such a folder"
            )
    if config.objects is None:
        _, entries, notes = protocol.entries_of_data(config.data, config.split, config.scheme)
    else:
        entries, notes = protocol.entries_of_folder(config.objects, config.scale)
    if config.grasps is None:
        return entries, notes
    names = [entry.shape.name for entry in entries]
    fitting = [
        dataclasses.replace(entry, grasps=object_files.load_grasps(files[entry.shape.name]))
        for entry in entries
        if entry.shape.name in files
    ]
    if not fitting:
        raise ConfigError(
            f"no grasps in {config.grasps} ({', '.join(files)}) are for these objects "
            f"({', '.join(names)}); name the meshes with --objects, or the dataset with --data and "
            "--split"
        )
    notes += [f"no object for {path}" for name, path in files.items() if name not in names]
    notes += [f"no grasps for {name}" for name in names if name not in files]
    return fitting, notes


def _others(out: Path, done: Sequence[str]) -> list[str]:
    """A note about objects of an earlier export, because the benchmark will judge them too."""
    folder = out / dexgraspbench.GRASPS
    others = sorted({path.name for path in folder.iterdir()} - set(done))
    return [f"of an earlier export: {', '.join(others)}"] if others else []


if __name__ == "__main__":
    main()
