"""Reader of DexGraspNet's released grasps and the meshes they are for.

The grasps lie in `dataset/<code>.npy`, the mesh in `meshdata/<code>/coacd/decomposed.obj`.

One file holds the grasps of one object at five sizes; a size with its mesh multiplied by it is one
`ObjectShape` here. Joint order and signs, static x-y-z Euler angles and metres are that dataset's
(its released code); records come out in our conventions. Replay them with
`hand.load("dexgraspnet")`, whose links have that hand's lengths. The data is CC BY-NC 4.0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from realdex_jax.data import pieces
from realdex_jax.data.schema import GraspSet
from realdex_jax.data.unpickle import load_objects
from realdex_jax.errors import DatasetError
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand import joints

EULER = ("WRJRx", "WRJRy", "WRJRz")
"""Angles (rad) about the fixed x, y, z axes, in this order."""
TRANSLATION = ("WRJTx", "WRJTy", "WRJTz")
"""Palm position in the object frame, metres."""

LIMIT_TOLERANCE = 1e-3
"""Radians beyond a joint limit that still count as rounding; more is reported."""

_KEYS = (*joints.DEXGRASPNET_NAMES, *EULER, *TRANSLATION)
_SCALE_RANGE = (0.01, 1.0)  # released scales are 0.06 to 0.15; beyond is another unit


@dataclass(frozen=True)
class ScaledGrasps:
    """The grasps of one object at one size."""

    code: str
    """The object's code in the dataset."""
    scale: float
    """Metres per mesh unit, rounded to three decimals."""
    shape: ObjectShape
    """The mesh at that size; one convex piece per group of the file."""
    grasps: GraspSet
    """Poses, with the grasp itself as pre-grasp and squeeze: the dataset has neither. Column
    `beyond_limits` is the largest excess (rad) over our joint limits, 0 where there is none."""


def codes(root: Path | str) -> tuple[str, ...]:
    """Codes of all objects that have a grasp file under `root`, sorted.

    Raises:
        DatasetError: There is no such file.
    """
    found = tuple(sorted(path.stem for path in (Path(root) / "dataset").glob("*.npy")))
    if not found:
        raise DatasetError(f"{root}: no dataset/*.npy; expected DexGraspNet's folder layout")
    return found


def read(root: Path | str, code: str) -> tuple[ScaledGrasps, ...]:
    """Reads the grasps of one object, one record per size in rising order.

    Args:
        root: Folder with `dataset/` and `meshdata/`.
        code: An object's code, as `codes` lists them.

    Raises:
        DatasetError: The file is damaged, misses keys or holds values that are not finite numbers.
        UnsafePickleError: The file asks for more than plain data.
        MeshError: The mesh is missing or has a piece that encloses no volume.
    """
    root = Path(root)
    path = root / "dataset" / f"{code}.npy"
    if not path.is_file():
        raise DatasetError(f"{path}: no such file; known codes: {', '.join(codes(root)[:8])}")
    scale, phi = parse(load_objects(path), str(path))
    found = pieces.read(mesh_path(root, code))
    out = []
    for size in np.unique(scale):
        shape = pieces.shape(unit_name(code, size), found, float(size), category(code))
        out.append(ScaledGrasps(code, float(size), shape, grasp_set(phi[scale == size])))
    return tuple(out)


def mesh_path(root: Path, code: str) -> Path:
    """Where an object's mesh lies."""
    return root / "meshdata" / code / "coacd" / "decomposed.obj"


def unit_name(code: str, scale: float) -> str:
    """Name of an object at one size."""
    return f"{code}@{scale:.3f}"


def category(code: str) -> str:
    """Kind of object, the second part of its code."""
    return "".join(code.split("-")[1:2]).lower() or "object"


def grasp_set(phi: Float[np.ndarray, "n 28"]) -> GraspSet:
    """Poses as a set: the grasp itself is pre-grasp and squeeze; column `beyond_limits`."""
    q = phi[:, :22]
    beyond = np.maximum(joints.LOWER - q, q - joints.UPPER).max(axis=1)
    beyond = np.where(beyond > LIMIT_TOLERANCE, beyond, 0.0).astype(np.float32)
    return GraspSet(phi, q, q, {"beyond_limits": beyond})


def parse(
    records: Sequence[Any], name: str
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n 28"]]:
    """Turns the dataset's dicts into scales and our poses.

    Args:
        records: Dicts with `scale` and `qpos`.
        name: Shown in errors.

    Returns:
        Scales rounded to three decimals, float64, and poses phi, float32.

    Raises:
        DatasetError: A record is no such dict, misses keys, or holds values that are not finite
            numbers.
    """
    if not records:
        raise DatasetError(f"{name}: no grasps")
    raw = np.empty((len(records), len(_KEYS)))
    scale = np.empty(len(records))
    for i, record in enumerate(records):
        where = f"{name}, grasp {i}"
        if not isinstance(record, Mapping) or not {"scale", "qpos"} <= record.keys():
            raise DatasetError(f"{where}: expected a dict with 'scale' and 'qpos'")
        qpos = record["qpos"]
        if not isinstance(qpos, Mapping):
            raise DatasetError(
                f"{where}: 'qpos' is a {type(qpos).__name__}, not a dict of 28 numbers"
            )
        missing = [key for key in _KEYS if key not in qpos]
        if missing:
            raise DatasetError(f"{where}: 'qpos' misses {', '.join(missing)}")
        scale[i] = _number(record["scale"], f"{where}: scale")
        raw[i] = [_number(qpos[key], f"{where}: {key}") for key in _KEYS]
    if scale.min() < _SCALE_RANGE[0] or scale.max() > _SCALE_RANGE[1]:
        raise DatasetError(
            f"{name}: scales {scale.min():g} to {scale.max():g} are outside {_SCALE_RANGE}; "
            "a set that stores inverse scales (UniDexGrasp) needs its own reader"
        )
    rotvec = Rotation.from_euler("xyz", raw[:, 22:25]).as_rotvec()
    q = joints.from_dexgraspnet(raw[:, :22])
    phi = np.concatenate([q, raw[:, 25:28], rotvec], axis=1).astype(np.float32)
    return np.round(scale, 3), phi


def _number(value: object, where: str) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(
        value, (int, float, np.integer, np.floating)
    ):
        raise DatasetError(f"{where} is a {type(value).__name__}, not a number")
    number = float(value)
    if not np.isfinite(number):
        raise DatasetError(f"{where} is {number}")
    return number
