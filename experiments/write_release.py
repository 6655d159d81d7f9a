"""Writes grasps and motions in the on-disk layout of the RealDex release.

    python -m experiments.write_release                                  # RealDex-Sim, every grasp
    python -m experiments.write_release --limit 20 --out runs/mine       # 20 grasps of each object
    python -m experiments.write_release --motions realdex-sim-small      # demonstrations, too

A grasp becomes a short sequence: the hand closes from the pre-grasp, holds, and lifts the object.
A motion becomes a sequence that ends with a lift. The folder reads like the real one: its sequences
or recordings can be fed to tools made for the release, and `experiments.convert` brings them back.
Takes a minute on 2 cores.
"""

import dataclasses
import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.progress import track

from experiments import commands, motion_data, protocol
from experiments.protocol import Entry
from realdex_jax.data import folder, realdex, realdex_objects, schema, store
from realdex_jax.data import realdex_export as export
from realdex_jax.data.motion import RATE, Motion
from realdex_jax.data.motion_set import MotionSet
from realdex_jax.errors import ConfigError, DatasetError

P_WORLD_OBJECT = np.array([1.2, 0.0, 0.9])
"""Where objects of grasps without a motion lie (m): about where the real ones do."""
CLOSING, HOLDING, LIFTING = 8, 1, 6
"""Frames in which the hand closes, holds and lifts. The reader takes the hand as opened half a
second before contact, which is the first of these."""
LIFT_STEP = 0.02
"""Metres a frame: 0.3 m/s, and more in the first frame than a tracker jitters."""
BAGS = "storage/bags"
"""Where recordings lie inside a download; the real ones keep a server's path, too."""

_MARK = {"format": 1, "layout": "RealDex release", "length": "m", "angle": "rad"}


@dataclasses.dataclass(frozen=True)
class WriteRelease:
    """Command line of this script."""

    data: str = "realdex-sim"
    """Name or folder of a dataset."""
    scheme: str = store.SCHEME
    """Which of its split schemes."""
    motions: str | None = None
    """Motions to write, too: realdex-sim or realdex-sim-small; minutes if they are not made yet."""
    limit: int | None = None
    """Only the first so many grasps of each object."""
    what: Literal["both", "recordings", "sequences"] = "both"
    """`final_data.npy` per object, `<k>.npz` per grasp or motion, or both."""
    archives: bool = False
    """Recordings as `<object>.zip` with `md5.txt`, as they are downloaded."""
    points: int = 2048
    """Points of the cloud in each sequence; the release has up to 7,000."""
    out: Path = Path("runs/realdex_release")
    """Folder of the release; one that this script wrote is replaced."""


@dataclasses.dataclass(frozen=True)
class Written:
    """What was written."""

    objects: tuple[str, ...]
    sequences: int
    """Grasps and motions, each once."""
    notes: tuple[str, ...]
    """For people: objects that were left out, and why."""


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    config = commands.read(WriteRelease, __doc__)
    console = Console()
    with commands.ending(console, "stopped; nothing was written"):
        written = write(config, console)
    for note in written.notes:
        console.print(note, style="yellow", highlight=False, markup=False)
    console.print(
        f"{written.sequences} sequences of {len(written.objects)} objects in {config.out}; train "
        f"on them: python -m experiments.convert {config.out} DEST",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def write(config: WriteRelease, console: Console) -> Written:
    """Writes the release, whole or not at all.

    Raises:
        ConfigError: Settings that make no sense.
        RealdexError: Data that cannot be used, or something else than a release of ours at `out`.
    """
    if config.limit is not None and config.limit < 0:
        raise ConfigError(f"limit is {config.limit}; it must be at least zero")
    if config.points < 16:
        raise ConfigError(f"points is {config.points}; it must be at least 16")
    check_target(config.out)
    dataset = store.open_dataset(config.data, config.scheme)
    found, notes = _entries(config, dataset)
    motions = _motions(config, console)
    kept: dict[str, list[str]] = {part: [] for part in dataset.splits}
    count = 0
    fresh = folder.begin(config.out, realdex.MARK)
    try:
        for part, entry in track(found, description="objects", console=console, transient=True):
            sequences = [*_of_grasps(entry, config.limit), *_of_motions(motions, entry.shape.name)]
            if not sequences:
                notes.append(f"{entry.shape.name}: neither grasps nor motions")
                continue
            _write_object(fresh, config, entry, sequences)
            kept[part].append(entry.shape.name)
            count += len(sequences)
        if not count:
            raise ConfigError("nothing to write: no grasps and no motions")
        if config.archives:
            sums = [
                f"{hashlib.md5(p.read_bytes(), usedforsecurity=False).hexdigest()}  {p.name}\n"
                for p in sorted(fresh.glob("*.zip"))
            ]
            (fresh / "md5.txt").write_text("".join(sums))
        mark = {**_MARK, "data": dataset.name, "digest": dataset.digest, "splits": kept}
        mark["files"] = sorted(p.relative_to(fresh).as_posix() for p in _files(fresh))
        (fresh / realdex.MARK).write_text(json.dumps(mark, indent=1) + "\n")
        check_target(config.out)  # minutes have passed
        folder.exchange(fresh, config.out, realdex.MARK)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return Written(tuple(n for names in kept.values() for n in names), count, tuple(notes))


def check_target(path: Path) -> None:
    """Refuses a folder that a release would replace.

    Raises:
        DatasetError: There is something, and it is neither an empty folder nor a release of ours;
            or there is a file in it that this script did not write.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    own = _own_files(path / realdex.MARK)
    if own is None:
        raise DatasetError(
            f"{path} is neither an empty folder nor a release that this script wrote (a folder "
            f"with {realdex.MARK} that lists its files); name a new folder"
        )
    other = folder.first_other(path, own | {realdex.MARK})
    if other:
        raise DatasetError(
            f"{path} is a release, but {other} in it is none of its files and would be lost; move "
            "it, or name a new folder"
        )


def _own_files(mark: Path) -> frozenset[str] | None:
    """Files that a release of ours lists; None if it is none."""
    try:
        files = json.loads(mark.read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return frozenset(map(str, files)) if isinstance(files, list) else None


def _files(path: Path) -> Iterator[Path]:
    return (found for found in path.rglob("*") if found.is_file())


def lifted_grasp(grasps: schema.GraspSet, index: int) -> Motion:
    """One grasp as a motion: closing from the pre-grasp, holding, lifting."""
    phi = np.asarray(grasps.phi[index], np.float64)
    share = np.minimum(np.arange(CLOSING + HOLDING) / (CLOSING - 1), 1.0)[:, None]
    phi = np.repeat(phi[None], CLOSING + HOLDING, axis=0)
    opened = np.asarray(grasps.q_pregrasp[index], np.float64)
    phi[:, :22] = opened + share * (phi[:, :22] - opened)
    phi[:, 22:25] += P_WORLD_OBJECT
    return _lifted(phi, np.concatenate([[1.0, 0.0, 0.0, 0.0], P_WORLD_OBJECT]))


def lifted_reach(motions: MotionSet, index: int) -> Motion:
    """One motion with a lift behind it."""
    phi = np.asarray(motions.poses(index), np.float64)
    return _lifted(phi, np.asarray(motions.wxyz_xyz_world_object[index], np.float64))


def _lifted(phi: np.ndarray, wxyz_xyz_world_object: np.ndarray) -> Motion:
    """A motion toward an object at rest, then both rise."""
    height = np.concatenate([np.zeros(len(phi)), LIFT_STEP * np.arange(1, LIFTING + 1)])
    phi = np.concatenate([phi, np.repeat(phi[-1:], LIFTING, axis=0)])
    world = np.repeat(wxyz_xyz_world_object[None], len(phi), axis=0)
    phi[:, 24] += height
    world[:, 6] += height
    return Motion(time=np.arange(len(phi)) / RATE, phi=phi, wxyz_xyz_world_object=world)


def _of_grasps(entry: Entry, limit: int | None) -> Iterator[Motion]:
    grasps = entry.grasps
    if grasps is None:
        return
    for index in range(len(grasps) if limit is None else min(limit, len(grasps))):
        yield lifted_grasp(grasps, index)


def _of_motions(sets: Sequence[MotionSet], name: str) -> Iterator[Motion]:
    for motions in sets:
        for index in range(len(motions)):
            if motions.name(index) == name:
                yield lifted_reach(motions, index)


def _entries(
    config: WriteRelease, dataset: store.Dataset
) -> tuple[list[tuple[str, Entry]], list[str]]:
    """Objects by part, with mesh and grasps."""
    found: list[tuple[str, Entry]] = []
    notes: list[str] = []
    for part, names in dataset.splits.items():
        if names:
            _, entries, more = protocol.entries_of_data(config.data, part, config.scheme)
            found += [(part, entry) for entry in entries]
            notes += more
    return found, notes


def _motions(config: WriteRelease, console: Console) -> list[MotionSet]:
    if config.motions is None:
        return []
    if config.motions not in motion_data.SIZES:
        known = ", ".join(motion_data.SIZES)
        raise ConfigError(
            f"no motions {config.motions!r} toward objects with meshes; known: {known}"
        )
    opened = motion_data.open_motions(config.motions, tell=console.print)
    return list(opened.parts.values())


def _write_object(
    root: Path, config: WriteRelease, entry: Entry, sequences: Sequence[Motion]
) -> None:
    name = entry.shape.name
    files: dict[str, bytes] = {
        f"models/{name}.obj": realdex_objects.obj_text(entry.shape.vertices, entry.shape.faces)
    }
    if config.what != "sequences":
        first = [len(m) - LIFTING - 1 for m in sequences]  # the last frame before the lift
        touching = [np.arange(at, len(m)) for at, m in zip(first, sequences, strict=True)]
        recording = export.recording_files(sequences, touching)
        if config.archives:
            files[f"{name}.zip"] = _zipped(f"{BAGS}/{name}/{name}_1", recording)
        else:
            files |= {f"bags/{name}/{name}_1/{k}": v for k, v in recording.items()}
    if config.what != "recordings":
        points = entry.shape.surface(config.points).points
        for number, motion in enumerate(sequences):
            files[f"sequences/{name}/{number}.npz"] = export.sequence_bytes(motion, points)
    for relative, content in files.items():
        path = root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _zipped(folder: str, files: Mapping[str, bytes]) -> bytes:
    """A zip whose bytes depend on the content alone."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(f"{folder}/{name}")
            archive.writestr(member, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
