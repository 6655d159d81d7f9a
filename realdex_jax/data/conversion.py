"""One unit of a foreign dataset into the files of ours; what was written can be told from a kill.

A work folder holds `data/`, the dataset as it grows, `records/`, one file for each finished unit
with the digests of what it wrote, and `fresh/`, where files lie until they are whole. Nothing in it
depends on when a unit was converted, by whom, or how often.
"""

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from realdex_jax.data import object_files, pieces, store
from realdex_jax.data.object_files import Surface
from realdex_jax.data.source import Source, Unit
from realdex_jax.errors import DatasetError, RealdexError
from realdex_jax.geometry import cloud, obj
from realdex_jax.geometry import mesh as meshes
from realdex_jax.geometry.shape import sample

FOLDERS = ("data", "data/grasps", "data/objects", "data/motions", "records", "fresh")

LEFT_OUT = ("left out: ", "refused: ", "model left out: ", "cloud left out: ")
"""How notes begin that name a file of a unit which could not be used."""

_number = itertools.count()


@dataclasses.dataclass(frozen=True)
class Record:
    """What became of one unit."""

    unit: str
    """Its name in the source."""
    name: str
    """Its name in the store; empty if it is not in it."""
    files: Mapping[str, str]
    """SHA-256 of each of its files by path inside the dataset."""
    counts: Mapping[str, int]
    """Grasps, motions, frames."""
    notes: tuple[str, ...]
    """What was found odd."""
    refused: str = ""
    """Why it is not in the store, if that is a fault of its files."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """Notes about files of the unit that could not be used."""
        return tuple(note for note in self.notes if note.startswith(LEFT_OUT))


def convert(source: Source, unit: str, work: Path, points: int) -> Record:
    """Converts one unit, unless its record says that all of it is done and its files are whole.

    Args:
        source: The foreign dataset.
        unit: One of its units.
        work: The work folder, with `FOLDERS` in it.
        points: Surface points of an object with a mesh, and most of one without.

    Returns:
        What became of it. A unit that cannot be read is refused, whatever is wrong with it.
    """
    key = hashlib.sha256(unit.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    place = work / "records" / f"{key}.json"
    done = _read(place, unit)
    # A file that was left out may have been mended since.
    if (
        done is not None
        and not done.left_out
        and all(_whole(work / "data" / k, v) for k, v in done.files.items())
    ):
        return done
    try:
        record, files = _encode(source.read(unit), unit, points)
    except RealdexError as error:
        return Record(unit, "", {}, {}, (), f"{type(error).__name__}: {error}")
    except Exception as error:  # one file of thousands does not end a run of hours
        return Record(unit, "", {}, {}, (), f"unforeseen {type(error).__name__}: {error}")
    for relative, content in files.items():
        target = work / "data" / relative
        if relative.startswith("objects/"):
            target.parent.mkdir(exist_ok=True)
        _put(work, target, content)
    text = json.dumps(dataclasses.asdict(record)).encode()
    _put(work, place, store.digest(text).encode() + b"\n" + text)
    return record


def forget(work: Path, stale: Callable[[str], bool]) -> None:
    """Removes the records of some units, so that they are converted again.

    Args:
        work: The work folder.
        stale: Told a unit, says whether its files have changed.
    """
    for place in sorted((work / "records").glob("*.json")):
        try:
            unit = json.loads(place.read_bytes().partition(b"\n")[2])["unit"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # a damaged one is not believed anyway
        if stale(str(unit)):
            place.unlink()


def surface(unit: Unit, count: int) -> Surface | None:
    """Points of a unit's surface: off its mesh, or those it has; None if it has neither.

    Raises:
        MeshError: The mesh is not one of a solid of hand-held size.
        DatasetError: The points are too few or not finite.
    """
    if unit.mesh is not None:
        try:
            text = unit.mesh.decode()
        except UnicodeDecodeError as error:
            raise DatasetError(f"{unit.name}: its mesh is not text: {error}") from error
        found = obj.parse(text, unit.name, meshes.MAX_COUNT)
        solid = meshes.check_raw(found.vertices, found.faces, unit.name)
        if pieces.marked(found):
            shape = pieces.shape_of(found, unit.name, unit.name)
            return _surface(*pieces.outer_surface(shape, count))
        return _surface(*_sampled(solid, count))
    if unit.points is None:
        return None
    points = np.asarray(unit.points, np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise DatasetError(f"{unit.name}: points {points.shape} are not finite positions")
    points = np.unique(points, axis=0)
    if len(points) < cloud.MIN_POINTS:
        raise DatasetError(
            f"{unit.name}: {len(points)} points; a surface has at least {cloud.MIN_POINTS}"
        )
    normals = cloud.estimate_normals(points)
    kept = np.random.default_rng(0).permutation(len(points))[:count]
    return _surface(points[kept], normals[kept])


def _encode(found: Unit, unit: str, points: int) -> tuple[Record, dict[str, bytes]]:
    empty = all(v is None for v in (found.grasps, found.motions, found.mesh, found.points))
    if empty:
        return Record(unit, "", {}, {}, found.notes), {}
    files = object_files.encode(
        found.name,
        grasps=object_files.NO_GRASPS if found.grasps is None else found.grasps,
        surface=surface(found, points),
        mesh=found.mesh,
        motions=found.motions,
        compress=False,
    )
    counts = {
        "grasps": 0 if found.grasps is None else len(found.grasps),
        "motions": 0 if found.motions is None else len(found.motions),
        "frames": 0 if found.motions is None else len(found.motions.phi),
    }
    digests = {k: store.digest(v) for k, v in sorted(files.items())}
    return Record(unit, found.name, digests, counts, found.notes), files


def _sampled(solid: trimesh.Trimesh, count: int) -> tuple[np.ndarray, np.ndarray]:
    faces = np.asarray(solid.faces)[solid.area_faces > 0.0]
    if solid.volume < 0.0:  # inside out
        faces = faces[:, ::-1]
    return sample(np.asarray(solid.vertices), faces, count)


def _surface(points: np.ndarray, normals: np.ndarray) -> Surface:
    return Surface(points.astype(np.float32), normals.astype(np.float32))


def _read(place: Path, unit: str) -> Record | None:
    """A record, if it is whole and of this unit."""
    try:
        digest, _, text = place.read_bytes().partition(b"\n")
    except OSError:
        return None
    if digest.decode("ascii", "replace") != store.digest(text):
        return None
    raw: dict[str, Any] = json.loads(text)
    record = Record(**{**raw, "notes": tuple(raw["notes"])})
    return record if record.unit == unit else None


def _whole(path: Path, digest: str) -> bool:
    try:
        return store.digest_of(path) == digest
    except OSError:
        return False


def _put(work: Path, target: Path, content: bytes) -> None:
    """Writes a file whole or not at all; a digest tells later whether the disk kept it."""
    fresh = work / "fresh" / f"{os.getpid()}.{next(_number)}"
    fresh.write_bytes(content)
    fresh.replace(target)
