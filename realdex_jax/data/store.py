"""The dataset folder: one JSON index and plain `.npz` files per object.

    dataset.json                 name, version, hand, joint order, units, splits, digests, recipe;
                                 optional: schemes, further splits by name
    objects/<name>/points.npz    points (n 3) m and outward normals (n 3) of the surface, object
    frame objects/<name>/mesh.obj      optional
    grasps/<name>.npz            phi (n 28), q_pregrasp (n 22), q_squeeze (n 22), column.<name> (n)

No pickle anywhere. Floats may be stored as float16 or float32; they are read as float32.
Everything is written to a temporary folder `.<name>.*` beside the old one and swapped in at the
end, so a failed write leaves the old dataset as it was. The swap is two renames; a process that is
killed between them leaves the old dataset as `.<name>.old`, and the next open or write puts it
back.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from realdex_jax.data import schema
from realdex_jax.data import splits as split_rules
from realdex_jax.data.schema import GraspSet
from realdex_jax.errors import DatasetError
from realdex_jax.hand import joints

FORMAT = 1
"""Version of the folder layout."""

SCHEME = split_rules.SCHEME
"""The scheme a dataset is opened under if none is named: its own splits."""

HAND = "shadow"
"""The hand whose joint angles and limits the poses keep."""

UNITS = {
    "length": "m",
    "angle": "rad",
    "frame": "object",
    "rotation": "axis-angle of the palm",
}
"""Units and frame of every number; a dataset in others is refused, never converted."""

INDEX = "dataset.json"

EMBEDDED: dict[str, str] = {"realdex-sim": "realdex_sim"}
"""Datasets shipped with the package: name to folder under `assets/`."""

MAX_EXPANDED_BYTES = 2**31
"""Largest expanded size of one `.npz` that is read; a bigger one is taken for a decompression
bomb."""


@dataclasses.dataclass(frozen=True, eq=False)
class Surface:
    """An object's surface as points, the only geometry a dataset must carry."""

    points: Float[np.ndarray, "n 3"]
    """Positions in the object frame, metres."""
    normals: Float[np.ndarray, "n 3"]
    """Outward unit normals."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """An opened dataset; files are read when asked for."""

    path: Path
    name: str
    version: str
    splits: Mapping[str, tuple[str, ...]]
    """Object names of "train", "val" and "test", under `scheme`."""
    recipe: Mapping[str, Any]
    """How it was made: command, seed, commit, settings."""
    digest: str
    """SHA-256 over all files' digests, and over the parts of a scheme other than the dataset's own;
    saved beside checkpoints."""
    joint_names: tuple[str, ...]
    digests: Mapping[str, str]
    """SHA-256 of each file by its path inside the folder."""
    scheme: str = SCHEME
    """Name of the split scheme it was opened under."""
    schemes: tuple[str, ...] = (SCHEME,)
    """Names of all its schemes."""

    @property
    def objects(self) -> tuple[str, ...]:
        """All object names of the scheme, in split order."""
        return tuple(name for names in self.splits.values() for name in names)

    def grasps(self, name: str) -> GraspSet:
        """Reads the grasps of one object (joint order ours, float32)."""
        self._check_name(name)
        return load_grasps(self.path / "grasps" / f"{name}.npz", self.joint_names)

    def surface(self, name: str) -> Surface:
        """Reads the surface points of one object.

        Raises:
            DatasetError: The dataset carries none for it.
        """
        self._check_name(name)
        path = self.path / "objects" / name / "points.npz"
        if not path.exists():
            raise DatasetError(
                f"{self.path} has no surface points for {name!r} (looked for {path})"
            )
        return _read_surface(path)

    def _check_name(self, name: str) -> None:
        if name not in self.objects:
            raise DatasetError(
                f"no object {name!r} in {self.name}; known: {', '.join(self.objects)}"
            )


def open_dataset(source: str | Path, scheme: str = SCHEME) -> Dataset:
    """Opens a dataset by name ("realdex-sim") or folder.

    Args:
        source: Name or folder.
        scheme: Which of its split schemes `splits` is; "object" is the dataset's own, the paper's
            rule.

    Raises:
        DatasetError: No such dataset or scheme, an unreadable index, or another hand, layout or
            units.
        JointError: A joint of the hand is missing.
    """
    path = _embedded_path(str(source)) if str(source) in EMBEDDED else Path(source)
    _put_back(path)
    index = path / INDEX
    if not index.is_file():
        known = ", ".join(EMBEDDED)
        raise DatasetError(
            f"no dataset at {source}: {index} is missing. Known names: {known}; or give a folder"
        )
    try:
        meta = json.loads(index.read_text())
        version, digests = str(meta["version"]), dict(meta["digests"])
        splits = {str(k): tuple(map(str, v)) for k, v in meta["splits"].items()}
        names = tuple(meta["joints"])
        name, layout = str(meta["name"]), int(meta["format"])
        hand, units = meta["hand"], dict(meta["units"])
        recipe = dict(meta.get("recipe", {}))
        schemes = {
            str(which): {str(k): tuple(map(str, v)) for k, v in parts.items()}
            for which, parts in dict(meta.get("schemes", {})).items()
        }
    except (
        json.JSONDecodeError,
        UnicodeDecodeError,
        KeyError,
        TypeError,
        AttributeError,
        ValueError,
    ) as error:
        raise DatasetError(f"{index} is not a dataset index: {error!r}") from error
    if layout != FORMAT:
        raise DatasetError(f"{index} has layout {layout}; this program reads layout {FORMAT}")
    if hand != HAND:
        raise DatasetError(f"{index} is for hand {hand!r}; this program reads hand {HAND!r}")
    for what, unit in UNITS.items():
        if units.get(what) != unit:
            raise DatasetError(f"{index} has {what} in {units.get(what)!r}; it must be {unit!r}")
    joints.reorder(
        np.zeros(len(names)), names
    )  # names every joint of ours, or says which is missing
    listed = [object_name for group in splits.values() for object_name in group]
    for object_name in listed:
        _check_file_name(object_name)
    try:
        split_rules.check_schemes(schemes, listed)
    except DatasetError as error:
        raise DatasetError(f"{index}: {error}") from error
    known = (SCHEME, *schemes)
    if scheme not in known:
        raise DatasetError(f"no split scheme {scheme!r} in {name}; known: {', '.join(known)}")
    chosen = splits if scheme == SCHEME else schemes[scheme]
    return Dataset(
        path=path,
        name=name,
        version=version,
        splits=chosen,
        recipe=recipe,
        # The own splits have never been part of the digest, which stands beside shipped models.
        digest=_combined(digests if scheme == SCHEME else {**digests, scheme: _listed(chosen)}),
        joint_names=names,
        digests=digests,
        scheme=scheme,
        schemes=known,
    )


def verify(dataset: Dataset) -> None:
    """Compares every file with its recorded digest.

    Raises:
        DatasetError: A file is missing or differs.
    """
    for relative, expected in dataset.digests.items():
        path = dataset.path / relative
        if not path.is_file():
            raise DatasetError(f"{path} is missing")
        if _digest(path.read_bytes()) != expected:
            raise DatasetError(f"{path} differs from the digest in dataset.json: edited or damaged")


def check_target(path: str | Path) -> None:
    """Refuses a place that `write_dataset` would have to destroy something at.

    Raises:
        DatasetError: There is something, and it is neither an empty folder nor a dataset.
    """
    path = Path(path)
    try:
        if not path.exists() or (path / INDEX).is_file():
            return
        if path.is_dir() and not any(path.iterdir()):
            return
    except OSError as error:
        raise DatasetError(f"cannot look into {path}: {error}") from error
    raise DatasetError(
        f"{path} is neither an empty folder nor a dataset (a folder with {INDEX}), so it is not "
        "replaced; name a new folder"
    )


def write_dataset(
    path: str | Path,
    *,
    name: str,
    version: str,
    grasps: Mapping[str, GraspSet],
    splits: Mapping[str, Sequence[str]],
    recipe: Mapping[str, Any],
    surfaces: Mapping[str, Surface] | None = None,
    meshes: Mapping[str, bytes] | None = None,
    schemes: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
) -> Dataset:
    """Writes a dataset folder; an old one at its place goes only when the new one is on disk.

    Args:
        path: The folder.
        name: Dataset name.
        version: Version of its content.
        grasps: Grasps by object.
        splits: Object names by "train", "val", "test"; together the keys of `grasps`.
        recipe: How it was made; must be JSON.
        surfaces: Surface points by object; stored as float16 about their middle (error below 0.07
            mm at 0.25 m).
        meshes: OBJ text by object.
        schemes: Further splits of the same objects by name; see `splits.check_schemes`.

    Raises:
        DatasetError: Splits and grasps name different objects, a set or a scheme breaks the rules,
            there is something else than a dataset at `path`, or the disk is full.
    """
    check_target(path)
    split_rules.check(splits)
    listed = [object_name for names in splits.values() for object_name in names]
    if sorted(listed) != sorted(grasps):
        different = sorted(set(listed) ^ set(grasps)) or "an object twice"
        raise DatasetError(
            f"splits and grasps must name the same objects once each; differing: {different}"
        )
    split_rules.check_schemes(schemes or {}, listed)
    files = {f"grasps/{k}.npz": _grasp_bytes(schema.validate(v, k)) for k, v in grasps.items()}
    files |= {f"objects/{k}/points.npz": _surface_bytes(v) for k, v in (surfaces or {}).items()}
    files |= {f"objects/{k}/mesh.obj": v for k, v in (meshes or {}).items()}
    for object_name in {*grasps, *(surfaces or {}), *(meshes or {})}:
        _check_file_name(object_name)
    meta = {
        "format": FORMAT,
        "name": name,
        "version": version,
        "hand": HAND,
        "joints": list(joints.NAMES),
        "units": UNITS,
        "splits": _lists(splits),
        **({"schemes": {k: _lists(v) for k, v in schemes.items()}} if schemes else {}),
        "digests": {k: _digest(v) for k, v in sorted(files.items())},
        "recipe": dict(recipe),
    }
    files[INDEX] = (json.dumps(meta, indent=1) + "\n").encode()
    try:
        _swap_in(Path(path).resolve(), files)
    except OSError as error:
        raise DatasetError(
            f"could not write {path}: {error}; what was there before is unchanged"
        ) from error
    return open_dataset(path)


def _swap_in(path: Path, files: Mapping[str, bytes]) -> None:
    """Writes `files` to a temporary sibling, then exchanges it with `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _put_back(path)
    old = _set_aside(path)
    fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        for relative, content in files.items():
            target = fresh / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as f:
                f.write(content)
                f.flush()
                os.fsync(f.fileno())
        fresh.chmod(0o755)
        _discard(old)
        exchange(fresh, path, old)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    _discard(old)


def exchange(fresh: Path, path: Path, old: Path) -> None:
    """Puts a folder at a place, and what is there to `old`; if that fails, back."""
    if path.exists():
        path.replace(old)
    try:
        fresh.replace(path)
    except OSError:
        if old.exists():
            old.replace(path)
        raise


def _set_aside(path: Path) -> Path:
    """Where the old dataset is between the two renames of a write."""
    return path.parent / f".{path.name}.old"


def _put_back(path: Path) -> None:
    """Undoes a swap that was killed halfway."""
    path = path.resolve()
    old = _set_aside(path)
    if path.exists() or not (old / INDEX).is_file():
        return
    try:
        old.replace(path)
    except OSError as error:
        raise DatasetError(
            f"a write to {path} was interrupted, and the old dataset could not be moved back from "
            f"{old}: {error}"
        ) from error


def _discard(old: Path) -> None:
    """Removes an old copy, its index first, so that half of one is never put back."""
    with contextlib.suppress(OSError):
        (old / INDEX).unlink(missing_ok=True)
    shutil.rmtree(old, ignore_errors=True)


def _grasp_bytes(grasps: GraspSet) -> bytes:
    # Half precision is plenty for the two controller targets (below 1 mrad); the pose itself keeps
    # float32, because a settled contact is lost by a tenth of a millimetre.
    return _npz(
        {
            "phi": np.asarray(grasps.phi, np.float32),
            "q_pregrasp": np.asarray(grasps.q_pregrasp, np.float16),
            "q_squeeze": np.asarray(grasps.q_squeeze, np.float16),
            **{f"column.{k}": np.asarray(v) for k, v in grasps.columns.items()},
        }
    )


def _surface_bytes(surface: Surface) -> bytes:
    centre = np.asarray(surface.points).mean(axis=0)
    return _npz(
        {
            "centre": centre.astype(np.float32),
            "points": (np.asarray(surface.points) - centre).astype(np.float16),
            "normals": np.asarray(surface.normals).astype(np.float16),
        }
    )


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    for name, value in arrays.items():
        if value.dtype.kind not in "fiub":
            raise DatasetError(f"column {name!r} has type {value.dtype}; only numbers are stored")
    buffer = io.BytesIO()
    named: dict[str, Any] = {k: np.asarray(v) for k, v in arrays.items()}
    np.savez_compressed(buffer, **named)
    return buffer.getvalue()


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


def load_grasps(path: str | Path, names: tuple[str, ...] = joints.NAMES) -> GraspSet:
    """Reads grasps of one object.

    Args:
        path: The file.
        names: The joint order it was written in.

    Raises:
        DatasetError: The file cannot be read or does not keep the format.
    """
    path = Path(path)
    arrays = read_npz(path)
    missing = {"phi", "q_pregrasp", "q_squeeze"} - set(arrays)
    if missing:
        raise DatasetError(f"{path} lacks {', '.join(sorted(missing))}; it has {', '.join(arrays)}")
    phi, pre, squeeze = (
        np.asarray(arrays[k], np.float32) for k in ("phi", "q_pregrasp", "q_squeeze")
    )
    if phi.ndim == 2 and names != joints.NAMES:
        q = joints.reorder(phi[:, : len(names)], names)
        phi = np.concatenate([q, phi[:, len(names) :]], axis=1)
        pre, squeeze = joints.reorder(pre, names), joints.reorder(squeeze, names)
    columns = {k.removeprefix("column."): v for k, v in arrays.items() if k.startswith("column.")}
    return schema.validate(GraspSet(phi, pre, squeeze, columns), str(path))


def _read_surface(path: Path) -> Surface:
    arrays = read_npz(path)
    try:
        points, normals = (np.asarray(arrays[k], np.float32) for k in ("points", "normals"))
    except KeyError as error:
        raise DatasetError(f"{path} lacks {error}; it has {', '.join(arrays)}") from error
    points = points + np.asarray(arrays.get("centre", np.zeros(3)), np.float32)
    if (
        points.ndim != 2
        or points.shape[1:] != (3,)
        or points.shape != normals.shape
        or len(points) < 16
    ):
        raise DatasetError(
            f"{path}: points {points.shape}, normals {normals.shape}; both must be (n >= 16, 3)"
        )
    if not (np.isfinite(points).all() and np.isfinite(normals).all()):
        raise DatasetError(f"{path}: points or normals are not finite")
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return Surface(points, normals / np.maximum(length, 1e-6))


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Reads a plain `.npz`, refusing pickles, bombs and headers that promise more than is there.

    Raises:
        DatasetError: The file is missing, damaged or refused.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            total = sum(m.file_size for m in members)
            if total > MAX_EXPANDED_BYTES:
                raise DatasetError(
                    f"{path} expands to {total} bytes; the limit is {MAX_EXPANDED_BYTES}"
                )
            return {m.filename.removesuffix(".npy"): _member(archive, m, path) for m in members}
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist") from error
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise DatasetError(f"{path} is not a readable .npz: {error}") from error


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> np.ndarray:
    content = archive.read(member)
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        reader = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        shape, _, dtype = reader[version](stream)
        promised = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if dtype.hasobject or promised != len(content) - stream.tell():
            raise ValueError(f"shape {shape} of {dtype} does not fit {len(content)} bytes")
        stream.seek(0)
        return np.load(stream, allow_pickle=False)
    except (ValueError, KeyError, EOFError, SyntaxError, TypeError) as error:
        raise DatasetError(
            f"{path}: member {member.filename!r} is not a plain array: {error}"
        ) from error


def _embedded_path(name: str) -> Path:
    return Path(__file__).parent.parent / "assets" / EMBEDDED[name]


def _check_file_name(name: str) -> None:
    if not name or name != Path(name).name or name.startswith("."):
        raise DatasetError(f"object name {name!r} cannot be a file name")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _lists(splits: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    return {part: list(names) for part, names in splits.items()}


def _listed(splits: Mapping[str, Sequence[str]]) -> str:
    """Digest of the objects of each part; their order counts, because it decides batches."""
    return _digest(json.dumps(sorted(_lists(splits).items())).encode())


def _combined(digests: Mapping[str, str]) -> str:
    return _digest(json.dumps(sorted(digests.items())).encode())
