"""The files of one object of a dataset: grasps, surface points, mesh, motions.

Plain `.npz` without pickles, written whole or not at all, checked when they are read.
"""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from realdex_jax.data import motion_set, npz, schema
from realdex_jax.data.motion_set import MotionSet
from realdex_jax.data.schema import GraspSet
from realdex_jax.errors import DatasetError
from realdex_jax.hand import joints
from realdex_jax.hand.joints import SHADOW, JointTable

MAX_NAME_BYTES = 200
"""Longest object name; file systems end at 255, with the suffix."""


@dataclasses.dataclass(frozen=True, eq=False)
class Surface:
    """An object's surface as points, the only geometry a dataset must carry."""

    points: Float[np.ndarray, "n 3"]
    """Positions in the object frame, metres."""
    normals: Float[np.ndarray, "n 3"]
    """Outward unit normals."""


NO_GRASPS = GraspSet(
    phi=np.zeros((0, 28), np.float32),
    q_pregrasp=np.zeros((0, 22), np.float32),
    q_squeeze=np.zeros((0, 22), np.float32),
)
"""Of an object that has none, but motions or only a shape; Shadow's."""


def encode(
    name: str,
    *,
    grasps: GraspSet | None = None,
    surface: Surface | None = None,
    mesh: bytes | None = None,
    motions: MotionSet | None = None,
    compress: bool = True,
    table: JointTable = SHADOW,
) -> dict[str, bytes]:
    """The files of one object by path inside the folder, checked.

    Args:
        name: The object.
        grasps: Its grasps.
        surface: Points of its surface.
        mesh: OBJ text.
        motions: Motions toward it.
        compress: Smaller files that are read instead of mapped.
        table: The joints of the hand.

    Raises:
        DatasetError: Something of it breaks the rules.
    """
    check_file_name(name)
    files: dict[str, bytes] = {}
    if grasps is not None:
        files[f"grasps/{name}.npz"] = _grasp_bytes(schema.validate(grasps, name, table), compress)
    if surface is not None:
        files[f"objects/{name}/points.npz"] = _surface_bytes(surface, compress)
    if mesh is not None:
        files[f"objects/{name}/mesh.obj"] = mesh
    if motions is not None:
        files[f"motions/{name}.npz"] = motion_set.encode(motions, name, compress=compress)
    return files


def _grasp_bytes(grasps: GraspSet, compress: bool = True) -> bytes:
    # Half precision is plenty for the two controller targets (below 1 mrad); the pose itself keeps
    # float32, because a settled contact is lost by a tenth of a millimetre.
    return _npz(
        {
            "phi": np.asarray(grasps.phi, np.float32),
            "q_pregrasp": np.asarray(grasps.q_pregrasp, np.float16),
            "q_squeeze": np.asarray(grasps.q_squeeze, np.float16),
            **{f"column.{k}": np.asarray(v) for k, v in grasps.columns.items()},
        },
        compress,
    )


def _surface_bytes(surface: Surface, compress: bool) -> bytes:
    centre = np.asarray(surface.points).mean(axis=0)
    return _npz(
        {
            "centre": centre.astype(np.float32),
            "points": (np.asarray(surface.points) - centre).astype(np.float16),
            "normals": np.asarray(surface.normals).astype(np.float16),
        },
        compress,
    )


def _npz(arrays: Mapping[str, np.ndarray], compress: bool) -> bytes:
    for name, value in arrays.items():
        if value.dtype.kind not in "fiub":
            raise DatasetError(f"column {name!r} has type {value.dtype}; only numbers are stored")
    return npz.encode(arrays, compress=compress)


def save_grasps(path: str | Path, grasps: GraspSet) -> Path:
    """Writes grasps of one object, as in `grasps/<name>.npz` of a dataset, whole or not at all.

    Raises:
        DatasetError: A column that is not numbers, or the file cannot be written.
    """
    path = Path(path)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    content = _grasp_bytes(grasps)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(content)
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise DatasetError(f"cannot write {path}: {error.strerror}") from error
    return path


def load_grasps(
    path: str | Path,
    names: tuple[str, ...] = joints.NAMES,
    *,
    mapped: bool = False,
    table: JointTable = SHADOW,
) -> GraspSet:
    """Reads grasps of one object.

    Args:
        path: The file.
        names: The joint order it was written in.
        mapped: Leave poses on the disk where the file allows it.
        table: The joints of the hand.

    Raises:
        DatasetError: The file cannot be read or does not keep the format.
    """
    path = Path(path)
    arrays = _arrays(path, ("phi", "q_pregrasp", "q_squeeze"), mapped=mapped)
    phi, pre, squeeze = (
        np.asarray(arrays[k], np.float32) for k in ("phi", "q_pregrasp", "q_squeeze")
    )
    if phi.ndim != 2 or pre.ndim != 2 or squeeze.ndim != 2:
        raise DatasetError(f"{path}: phi {phi.shape}, q_pregrasp {pre.shape}: must be tables")
    if names != table.names:
        phi = reordered(phi, names, table)
        pre, squeeze = (joints.reorder(q, names, table) for q in (pre, squeeze))
    columns = {k.removeprefix("column."): v for k, v in arrays.items() if k.startswith("column.")}
    return schema.validate(GraspSet(phi, pre, squeeze, columns), str(path), table)


def load_poses(
    path: Path, names: tuple[str, ...] = joints.NAMES, table: JointTable = SHADOW
) -> Float[np.ndarray, "n phi"]:
    """Reads the poses alone of one object's grasps, from the disk where the file allows it.

    Args:
        path: The file.
        names: The joint order it was written in.
        table: The joints of the hand.

    Raises:
        DatasetError: The file cannot be read or its poses do not keep the format.
    """
    wanted = ("phi",)
    phi = np.asarray(_arrays(path, wanted, mapped=True, only=wanted)["phi"], np.float32)
    if names != table.names and phi.ndim == 2:
        phi = reordered(phi, names, table)
    return schema.validate_poses(phi, str(path), table)


def _arrays(
    path: Path, needed: Sequence[str], *, mapped: bool, only: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Arrays of numbers, those that are needed among them."""
    arrays = npz.read(path, mapped=mapped, only=only)
    missing = sorted(set(needed) - set(arrays))
    if missing:
        has = ", ".join(arrays) or "none of the kind"
        raise DatasetError(f"{path} lacks {', '.join(missing)}; it has {has}")
    for name, value in arrays.items():
        if value.dtype.kind not in "fiub":
            raise DatasetError(f"{path}: {name} holds {value.dtype}; only numbers are read")
    return arrays


def reordered(
    phi: Float[np.ndarray, "n any"], names: tuple[str, ...], table: JointTable = SHADOW
) -> np.ndarray:
    """Poses whose joints came in another order, in that of `table`."""
    q = joints.reorder(phi[:, : len(names)], names, table)
    return np.concatenate([q, phi[:, len(names) :]], axis=1)


def load_surface(path: Path) -> Surface:
    """Reads the surface points of one object.

    Raises:
        DatasetError: The file cannot be read or does not keep the format.
    """
    arrays = _arrays(path, ("points", "normals"), mapped=True)
    points, normals, centre = (
        np.asarray(arrays.get(name, np.zeros(3, np.float32)))
        for name in ("points", "normals", "centre")
    )
    if (
        points.ndim != 2
        or points.shape != (max(len(points), 16), 3)
        or (normals.shape != points.shape or centre.shape != (3,))
    ):
        raise DatasetError(
            f"{path}: points {points.shape}, normals {normals.shape}, centre {centre.shape}; they "
            "must be (n >= 16, 3) twice and (3,)"
        )
    # Components first: NumPy is quick along an axis that is long, and this runs for every draw.
    along, across = _rows(points).astype(np.float32, copy=False), _rows(normals)
    kinds = {a.dtype.kind for a in (points, normals, centre)}
    if kinds != {"f"} or not all(np.isfinite(a).all() for a in (along, across, centre)):
        raise DatasetError(f"{path}: points or normals are not finite numbers")
    along += centre.astype(np.float32)[:, None]
    across /= np.maximum(np.sqrt(np.einsum("in,in->n", across, across)), 1e-6)
    return Surface(along.T, across.astype(np.float32, copy=False).T)


def _rows(table: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "3 n"]:
    """A table, components first: singles of halves, of anything else doubles.

    The square of a damaged single may be more than a single holds; that of a half is not.
    """
    if table.dtype == np.float16:
        return _singles().take(table.view(np.uint16).T)
    return np.array(table.T, np.float64, order="C")


@functools.cache
def _singles() -> Float[np.ndarray, " 65536"]:
    """Every half as a single, by its bits: NumPy's conversion looks at each number, and is slow."""
    return np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)


def check_file_name(name: str) -> None:
    """Refuses an object name that cannot be a file name.

    Raises:
        DatasetError: It is empty, hidden, too long, or leads to another folder.
    """
    if (
        name != Path(name).name
        or not name
        or name.startswith(".")
        or not name.isprintable()
        or "\\" in name
        or len(name.encode()) > MAX_NAME_BYTES
    ):
        raise DatasetError(f"object name {name!r} cannot be a file name")
