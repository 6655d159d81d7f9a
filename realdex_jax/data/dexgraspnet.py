"""Reader of DexGraspNet's released grasps and the meshes they are for.

The grasps lie in `dataset/<code>.npy`, the mesh in `meshdata/<code>/coacd/decomposed.obj`.

One file holds the grasps of one object at five sizes; a size with its mesh multiplied by it is one
`ObjectShape` here. Joint order and signs, static x-y-z Euler angles and metres are that dataset's
(its released code); records come out in our conventions. Replay them with
`hand.load("dexgraspnet")`, whose links have that hand's lengths. The data is CC BY-NC 4.0.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from realdex_jax.data import pieces, schema, splits
from realdex_jax.data.pieces import Piece
from realdex_jax.data.schema import GraspSet
from realdex_jax.data.source import Unit
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

FORMAT = "dexgraspnet"

SCALES = (0.06, 0.08, 0.1, 0.12, 0.15)
"""The sizes of the release, metres per mesh unit."""

REPLAY_HAND = "dexgraspnet"
"""The hand model whose links have this data's lengths; joints and frames are ours."""

_KEYS = (*joints.DEXGRASPNET_NAMES, *EULER, *TRANSLATION)
_LARGEST = 1e6
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


def unit_names(codes: Iterable[str], scales: Sequence[float]) -> tuple[str, ...]:
    """Names of all objects at all sizes, the sizes of one after each other."""
    return tuple(unit_name(code, scale) for code in codes for scale in scales)


def recipe(layout: str, scales: Sequence[float]) -> dict[str, Any]:
    """What a store says of where its grasps came from."""
    return {
        "layout": layout,
        "scales": list(scales),
        "replay_hand": REPLAY_HAND,
        "licence": "CC BY-NC 4.0",
    }


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
    if not abs(number) < _LARGEST:  # not finite, or as large as only damage makes it
        raise DatasetError(
            f"{where} is {number:g}; angles (rad) and lengths (m) are numbers below {_LARGEST:g}"
        )
    return number


@dataclass(frozen=True)
class DexGraspNet:
    """The release as a source of units; each object at each size is one."""

    root: Path
    """Folder with `dataset/` and `meshdata/`."""
    codes: tuple[str, ...]
    """Its objects."""
    scales: tuple[float, ...] = SCALES
    """Sizes that are read."""

    @property
    def format(self) -> str:
        """Name of the layout."""
        return FORMAT

    @property
    def units(self) -> Sequence[str]:
        """Objects at sizes; one without grasps reads as a unit without anything."""
        return unit_names(self.codes, self.scales)

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Where it came from."""
        return recipe("DexGraspNet", self.scales)

    def splits(self, units: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """By object in the paper's shares, all sizes together: the release has no split."""
        return by_code(self.codes, units)

    def read(self, unit: str) -> Unit:
        """Reads one object at one size.

        Raises:
            DatasetError: As `read`; or the file has grasps at a size that is not read.
            UnsafePickleError: The file asks for more than plain data.
            MeshError: The mesh is missing or has a piece that encloses no volume.
        """
        code, size = parse_name(unit, self.codes, self.scales)
        path = self.root / "dataset" / f"{code}.npy"
        scale, phi = _poses(path)
        check_scales(scale, self.scales, str(path))
        rows = np.flatnonzero(scale == size)
        if not len(rows):
            return Unit(unit, notes=("no grasps at this size",))
        found = _pieces(mesh_path(self.root, code))
        return make_unit(unit, size, found, phi[rows], {"source_row": rows.astype(np.int32)})


def recognise(path: Path) -> bool:
    """Whether a folder has the release's layout, by its names."""
    dataset = path / "dataset"
    return dataset.is_dir() and next(dataset.glob("*.npy"), None) is not None


def open_source(path: Path | str, scales: Sequence[float] = SCALES) -> DexGraspNet:
    """Opens a folder in DexGraspNet's layout.

    Args:
        path: Folder with `dataset/` and `meshdata/`.
        scales: Sizes that its files have.

    Raises:
        DatasetError: There is no grasp file.
    """
    _poses.cache_clear()  # files may have changed since
    _pieces.cache_clear()
    return DexGraspNet(Path(path), codes(path), checked_scales(scales))


def checked_scales(scales: Any) -> tuple[float, ...]:
    """Sizes, metres per mesh unit.

    Raises:
        DatasetError: They are not numbers in the range that sizes have.
    """
    least, most = _SCALE_RANGE
    given = list(scales) if isinstance(scales, (list, tuple)) else []
    good = [s for s in given if isinstance(s, (int, float)) and least <= s <= most]
    if not given or len(good) != len(given):
        raise DatasetError(
            f"scales is {scales!r}; it must be a list of numbers from {least:g} to {most:g}"
        )
    return tuple(float(scale) for scale in good)


def parse_name(unit: str, codes: Sequence[str], scales: Sequence[float]) -> tuple[str, float]:
    """Code and size of a unit.

    Raises:
        DatasetError: No such unit.
    """
    code = unit.rpartition("@")[0]
    for scale in scales:
        if unit == unit_name(code, scale) and code in codes:
            return code, scale
    raise DatasetError(
        f"no object {unit!r}; names are <code>@<size>, sizes "
        f"{', '.join(f'{scale:.3f}' for scale in scales)}, codes {', '.join(codes[:8])} ..."
    )


def check_scales(found: Float[np.ndarray, " n"], scales: Sequence[float], where: str) -> None:
    """Refuses sizes that are not read: their grasps would be lost.

    Raises:
        DatasetError: There is one.
    """
    other = sorted(set(found.tolist()) - set(scales))
    if other:
        raise DatasetError(
            f"{where}: has grasps at sizes {', '.join(f'{x:g}' for x in other)}; read are "
            f"{', '.join(f'{x:g}' for x in scales)} (option scales)"
        )


def by_code(codes: Sequence[str], units: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """The paper's rule over all codes, so that an object's sizes stay together.

    It is of those that could be read, and does not depend on which could not.
    """
    parts = splits.by_object(codes, seed=0)
    part_of = {code: part for part, names in parts.items() for code in names}
    return {
        part: [name for name in units if part_of[name.rpartition("@")[0]] == part]
        for part in splits.PARTS
    }


def make_unit(
    unit: str,
    size: float,
    found: Sequence[Piece] | None,
    phi: Float[np.ndarray, "n 28"],
    columns: Mapping[str, np.ndarray],
    notes: Sequence[str] = (),
) -> Unit:
    """An object at one size.

    Poses that no Shadow Hand can take are left out: their joints lie more than
    `schema.LIMIT_TOLERANCE` beyond its limits.

    Args:
        unit: Its name.
        size: Metres per mesh unit.
        found: Its pieces, in mesh units.
        phi: Its poses.
        columns: Further values of each.
        notes: What else there is to say.
    """
    grasps = grasp_set(phi)
    grasps = GraspSet(
        grasps.phi, grasps.q_pregrasp, grasps.q_squeeze, {**grasps.columns, **columns}
    )
    possible = np.asarray(grasps.columns["beyond_limits"]) <= schema.LIMIT_TOLERANCE
    if not possible.all():
        notes = (
            *notes,
            f"{(~possible).sum()} of {len(phi)} grasps bend a joint more than "
            f"{schema.LIMIT_TOLERANCE:g} rad beyond its limits and are not kept",
        )
    return Unit(
        name=unit,
        grasps=schema.take(grasps, possible) if possible.any() else None,
        mesh=None if found is None else pieces.text(found, size),
        notes=tuple(notes),
    )


@functools.lru_cache(maxsize=2)  # the sizes of an object follow each other
def _poses(path: Path) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n 28"]]:
    return parse(load_objects(path), str(path))


@functools.lru_cache(maxsize=2)
def _pieces(path: Path) -> tuple[Piece, ...]:
    return pieces.read(path)
