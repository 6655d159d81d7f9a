"""Reader of UniDexGrasp's `DFCData`: DexGraspNet's conventions, one file a grasp, a table each.

    poses/<category>/<code>/NNNNN.npz                      qpos, scale, plane (or datasetv4.1/...)
    meshes/<category>/<code>/coacd/decomposed.obj          convex pieces, in mesh units
    meshes/<category>/<code>/pcs_table.npy                 clouds, where there is no mesh
    splits/<category>.json                                 {"train": [code ...], "test": [...]}

`scale` is mesh units per metre: the inverse of DexGraspNet's. `plane` is the table in the object's
frame, a unit normal and an offset (m) with normal . x + offset >= 0 above it. A folder of nothing
but `NNNNN.npz` is read as one object of its name. The data is CC BY-NC 4.0.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from realdex_jax.data import dexgraspnet, npz, pieces, textfile
from realdex_jax.data.dexgraspnet import SCALES
from realdex_jax.data.source import Unit
from realdex_jax.data.splits import PARTS
from realdex_jax.errors import DatasetError, RealdexError

FORMAT = "unidexgrasp"

POSES = ("poses", "datasetv4.1")
"""Names that the folder of grasps has had."""

_FILE = re.compile(r"\d{5}\.npz")
_INVERSE_RANGE = (1.0, 100.0)
_OBJECT_POINTS = 3000  # of a cloud's points; the table's follow


class Poses(NamedTuple):
    """All grasps of one object."""

    scale: Float[np.ndarray, " n"]
    """Metres per mesh unit."""
    phi: Float[np.ndarray, "n 28"]
    """Poses in the object's frame."""
    plane: Float[np.ndarray, "n 4"]
    """The table of each: normal and offset (m)."""
    number: Int[np.ndarray, " n"]
    """Number of its file."""
    left_out: tuple[str, ...]
    """Why other files are not among them."""


@dataclass(frozen=True)
class UniDexGrasp:
    """The data as a source of units; each object at each size is one."""

    root: Path
    """Folder with `poses/` and `meshes/`."""
    folders: Mapping[str, Path]
    """Folder of grasps by code."""
    scales: tuple[float, ...] = SCALES
    """Sizes that are read, metres per mesh unit."""

    @property
    def format(self) -> str:
        """Name of the layout."""
        return FORMAT

    @property
    def units(self) -> Sequence[str]:
        """Objects at sizes; one without grasps reads as a unit without anything."""
        return dexgraspnet.unit_names(self.folders, self.scales)

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Where it came from."""
        return dexgraspnet.recipe("UniDexGrasp DFCData", self.scales)

    def splits(self, units: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """The data's own: train and test. Without its files, the paper's shares by object.

        Raises:
            DatasetError: A file of splits is damaged, or has an object in both parts.
        """
        files = sorted((self.root / "splits").glob("*.json"))
        if not files:
            return dexgraspnet.by_code(tuple(self.folders), units)
        part_of: dict[str, str] = {}
        for path in files:
            for part, names in textfile.read_json(path).items():
                if part not in PARTS or not isinstance(names, list):
                    raise DatasetError(f"{path}: {part!r} is no part; known: {', '.join(PARTS)}")
                for name in map(str, names):
                    if part_of.setdefault(name, part) != part:
                        raise DatasetError(f"{path}: {name} is in {part_of[name]} and {part}")
        return {
            part: [name for name in units if part_of.get(name.rpartition("@")[0], "") == part]
            for part in PARTS
        }

    def read(self, unit: str) -> Unit:
        """Reads one object at one size; grasp files that cannot be used are noted.

        Raises:
            DatasetError: No such unit, or none of its files can be used.
            MeshError: The mesh has a piece that encloses no volume.
        """
        code, size = dexgraspnet.parse_name(unit, tuple(self.folders), self.scales)
        folder = self.folders[code]
        found = read_poses(folder)
        dexgraspnet.check_scales(found.scale, self.scales, str(folder))
        rows = np.flatnonzero(found.scale == size)
        # Said once, with the first size.
        notes = [f"left out: {reason}" for reason in found.left_out if size == self.scales[0]]
        if not len(rows):
            return Unit(unit, notes=(*notes, "no grasps at this size"))
        meshes = self.root / "meshes" / folder.parent.name / code
        mesh = meshes / "coacd" / "decomposed.obj"
        columns = {f"plane_{axis}": found.plane[rows, i] for i, axis in enumerate("xyzd")}
        columns["source_file"] = found.number[rows]
        solid = _pieces(mesh) if mesh.is_file() else None
        points = None
        if solid is None:
            points = _points(meshes / "pcs_table.npy", size)
            notes.append("no mesh" if points is not None else "neither mesh nor points")
        made = dexgraspnet.make_unit(unit, size, solid, found.phi[rows], columns, notes)
        return Unit(made.name, grasps=made.grasps, mesh=made.mesh, points=points, notes=made.notes)


def recognise(path: Path) -> bool:
    """Whether a folder has the layout, by its names."""
    return _find(path) is not None


def open_source(path: Path | str, scales: Sequence[float] = SCALES) -> UniDexGrasp:
    """Opens `DFCData`, a folder that has it, or one object's folder of grasps.

    Args:
        path: The folder.
        scales: Sizes that its files have, metres per mesh unit.

    Raises:
        DatasetError: Another layout, or a code that two categories have.
    """
    found = _find(Path(path))
    if found is None:
        raise DatasetError(
            f"{path}: not UniDexGrasp's layout; expected poses/<category>/<code>/NNNNN.npz"
        )
    root, folders = found
    by_code: dict[str, Path] = {}
    for folder in folders:
        if by_code.setdefault(folder.name, folder) != folder:
            raise DatasetError(f"{folder} and {by_code[folder.name]} have the same code")
    read_poses.cache_clear()  # files may have changed since
    _pieces.cache_clear()
    return UniDexGrasp(root, by_code, dexgraspnet.checked_scales(scales))


@functools.lru_cache(maxsize=2)  # the sizes of an object follow each other
def read_poses(folder: Path) -> Poses:
    """Reads all grasps of one object.

    Raises:
        DatasetError: None of its files can be used.
    """
    rows: list[tuple[float, np.ndarray, np.ndarray, int]] = []
    left_out: list[str] = []
    for path in sorted(p for p in folder.iterdir() if _FILE.fullmatch(p.name)):
        try:
            rows.append((*_read_file(path), int(path.stem)))
        except RealdexError as error:
            left_out.append(str(error))
    if not rows:
        raise DatasetError(
            f"{folder}: no file NNNNN.npz can be used; first: {(left_out or ['none there'])[0]}"
        )
    scale, phi, plane, number = zip(*rows, strict=True)
    return Poses(
        np.array(scale), np.stack(phi), np.stack(plane), np.array(number, np.int32), tuple(left_out)
    )


def _read_file(path: Path) -> tuple[float, np.ndarray, np.ndarray]:
    arrays = npz.read(path, objects=True)
    missing = {"qpos", "scale", "plane"} - arrays.keys()
    if missing:
        raise DatasetError(f"{path} lacks {', '.join(sorted(missing))}; it has {', '.join(arrays)}")
    inverse = np.asarray(arrays["scale"])
    if inverse.shape != () or inverse.dtype.kind not in "fiu":
        raise DatasetError(f"{path}: scale is {inverse.dtype} {inverse.shape}; it must be a number")
    if not _INVERSE_RANGE[0] <= float(inverse) <= _INVERSE_RANGE[1]:
        raise DatasetError(
            f"{path}: scale is {float(inverse):g}; this layout stores mesh units per metre, "
            f"{_INVERSE_RANGE[0]:g} to {_INVERSE_RANGE[1]:g}"
        )
    plane = np.asarray(arrays["plane"])
    # A number so large that only damage makes it may have no square, and none in single precision.
    if plane.shape != (4,) or plane.dtype.kind != "f" or not (np.abs(plane) < 1e6).all():
        raise DatasetError(
            f"{path}: plane is {plane.dtype} {plane.shape}; it must be 4 numbers below 1e6"
        )
    length = float(np.linalg.norm(plane[:3]))
    if abs(length - 1.0) > 1e-3:
        raise DatasetError(f"{path}: the normal of plane has length {length:.4g}; it must be 1")
    record = {"scale": 1.0 / float(inverse), "qpos": arrays["qpos"]}
    scale, phi = dexgraspnet.parse([record], str(path))
    return float(scale[0]), phi[0], plane.astype(np.float32)


def _points(path: Path, size: float) -> Float[np.ndarray, "n 3"] | None:
    """The object's points of the first cloud, metres; None without a file."""
    if not path.is_file():
        return None
    clouds = npz.read_npy(path)
    if clouds.ndim != 3 or clouds.shape[2] != 3 or clouds.shape[1] < _OBJECT_POINTS:
        raise DatasetError(
            f"{path} has shape {clouds.shape}; it must be (poses, {_OBJECT_POINTS} or more, 3)"
        )
    if clouds.dtype.kind != "f" or not len(clouds):
        raise DatasetError(f"{path} holds {len(clouds)} clouds of {clouds.dtype}")
    return (size * clouds[0, :_OBJECT_POINTS]).astype(np.float32)


def _find(path: Path) -> tuple[Path, list[Path]] | None:
    """The root and the folders of grasps, sorted."""
    if not path.is_dir():
        return None
    for root in (path, path / "DFCData", path / "data" / "DFCData"):
        for name in POSES:
            folders = [f for f in sorted((root / name).glob("*/*")) if f.is_dir()]
            if folders:
                return root, folders
    if any(_FILE.fullmatch(p.name) for p in path.iterdir()):
        return path, [path.resolve()]
    return None


@functools.lru_cache(maxsize=2)
def _pieces(path: Path) -> tuple[pieces.Piece, ...]:
    return pieces.read(path)
