"""Many motions toward objects at rest, as arrays end to end, and their file."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from realdex_jax import pose
from realdex_jax.data import motion as motions
from realdex_jax.data import npz, schema
from realdex_jax.data.motion import MIN_FRAMES, RATE, Motion
from realdex_jax.errors import DatasetError

FORMAT = "realdex_jax.motions/1"
"""Name and version of the file's layout."""


@dataclasses.dataclass(frozen=True, eq=False)
class MotionSet:
    """n reaches at `RATE` frames a second, f frames in all."""

    names: tuple[str, ...]
    """Objects (or recordings) that the motions reach for."""
    target: Int[np.ndarray, " n"]
    """Index into `names` of each motion."""
    first: Int[np.ndarray, " n_plus_1"]
    """Motion i has the frames first[i] to first[i + 1]."""
    phi: Float[np.ndarray, "f 28"]
    """Hand poses in the world: joint angles (rad), palm translation (m), axis-angle (rad)."""
    wxyz_xyz_world_object: Float[np.ndarray, "n 7"]
    """Where the object of each motion rests: T_world_object, quaternion wxyz and position (m)."""
    q_squeeze: Float[np.ndarray, "n 22"]
    """Joint targets (rad) that press on the object after the reach."""

    def __len__(self) -> int:
        """Number of motions."""
        return len(self.target)

    def name(self, i: int) -> str:
        """Name of the object that motion i reaches for."""
        return self.names[int(self.target[i])]

    def poses(self, i: int) -> Float[np.ndarray, "t 28"]:
        """Hand poses of motion i in the world."""
        return self.phi[int(self.first[i]) : int(self.first[i + 1])]

    def lengths(self) -> Int[np.ndarray, " n"]:
        """Frames of each motion."""
        return np.diff(self.first)

    def motion(self, i: int) -> Motion:
        """Motion i as a record of its own."""
        phi = self.poses(i)
        return Motion(
            time=(np.arange(len(phi)) / RATE).astype(np.float32),
            phi=phi,
            wxyz_xyz_world_object=np.repeat(self.wxyz_xyz_world_object[i][None], len(phi), axis=0),
        )


def of_poses(
    names: tuple[str, ...],
    target: Sequence[int] | Int[np.ndarray, " n"],
    phi: Sequence[Float[np.ndarray, "_ 28"]],
    wxyz_xyz_world_object: Float[np.ndarray, "n 7"],
    q_squeeze: Float[np.ndarray, "n 22"],
) -> MotionSet:
    """A set from the poses of each motion, unchecked; the rest is as in `MotionSet`."""
    lengths = [len(poses) for poses in phi]
    return MotionSet(
        names=names,
        target=np.asarray(target, np.int32),
        first=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        phi=np.concatenate(phi) if phi else np.zeros((0, pose.SIZE), np.float32),
        wxyz_xyz_world_object=wxyz_xyz_world_object,
        q_squeeze=q_squeeze,
    )


def collect(
    found: Sequence[Motion], names: Sequence[str], q_squeeze: Float[np.ndarray, "n 22"]
) -> MotionSet:
    """Motions of objects at rest as one set.

    Args:
        found: The motions, at `RATE`; the object's pose is taken from the first frame.
        names: Object of each motion.
        q_squeeze: Joint targets (rad) of each.

    Raises:
        DatasetError: A motion is not valid, or there is none.
    """
    if not found:
        raise DatasetError("no motions; a set holds at least one")
    for i, motion in enumerate(found):
        motions.validate(motion, f"motion {i} ({names[i]})")
    known = tuple(dict.fromkeys(names))
    return of_poses(
        known,
        [known.index(n) for n in names],
        [np.asarray(m.phi, np.float32) for m in found],
        np.stack([np.asarray(m.wxyz_xyz_world_object, np.float32)[0] for m in found]),
        np.asarray(q_squeeze, np.float32),
    )


def take(motions: MotionSet, chosen: Int[np.ndarray, " k"]) -> MotionSet:
    """The chosen motions, in that order."""
    return of_poses(
        motions.names,
        motions.target[chosen],
        [motions.poses(i) for i in chosen],
        motions.wxyz_xyz_world_object[chosen],
        motions.q_squeeze[chosen],
    )


def join(parts: Sequence[MotionSet]) -> MotionSet:
    """The motions of all parts, one after the other."""
    names = tuple(dict.fromkeys(name for part in parts for name in part.names))
    return of_poses(
        names,
        [names.index(part.name(i)) for part in parts for i in range(len(part))],
        [part.poses(i) for part in parts for i in range(len(part))],
        np.concatenate([part.wxyz_xyz_world_object for part in parts]),
        np.concatenate([part.q_squeeze for part in parts]),
    )


def save(path: str | Path, motions: MotionSet) -> Path:
    """Writes a set as one `.npz`, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.npz")
    try:
        fresh.write_bytes(_bytes(motions, compress=True))
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    return path


def encode(motions: MotionSet, where: str, *, compress: bool = True) -> bytes:
    """The bytes of a file of `save`, of a set that is checked first.

    Args:
        motions: The set.
        where: Named in errors: a file or an object.
        compress: Smaller, but read instead of mapped.

    Raises:
        DatasetError: The set does not fit together.
    """
    return _bytes(check(motions, where), compress=compress)


def _bytes(motions: MotionSet, *, compress: bool) -> bytes:
    arrays = {
        "format": np.array(FORMAT),
        "names": np.array(motions.names),
        "target": motions.target,
        "first": motions.first,
        "phi": motions.phi.astype(np.float32),
        "wxyz_xyz_world_object": motions.wxyz_xyz_world_object.astype(np.float32),
        "q_squeeze": motions.q_squeeze.astype(np.float32),
    }
    return npz.encode(arrays, compress=compress)


def load(path: str | Path) -> MotionSet:
    """Reads a file of `save`.

    Raises:
        DatasetError: The file is missing, of another format, or does not fit together.
    """
    path = Path(path)
    arrays = npz.read(path)
    fields = {f.name for f in dataclasses.fields(MotionSet)}
    if str(arrays.get("format", "")) != FORMAT or not fields <= set(arrays):
        raise DatasetError(f"{path} is not a file of motions ({FORMAT})")
    kinds = {"names": "U", "target": "iu", "first": "iu"}
    for name in fields:
        if arrays[name].dtype.kind not in kinds.get(name, "f") or not arrays[name].ndim:
            raise DatasetError(f"{path}: {name} is {arrays[name].dtype} {arrays[name].shape}")
    found = MotionSet(
        names=tuple(str(n) for n in arrays["names"].ravel()),
        **{name: arrays[name] for name in fields - {"names"}},
    )
    return check(found, str(path))


def check(found: MotionSet, path: str) -> MotionSet:
    """Checks a set and returns it; `path` is named in errors.

    Raises:
        DatasetError: Shapes that do not fit together, values that are not finite or beyond limits,
            motions that are too short, or objects that are not named.
    """
    n, first = len(found.target), found.first
    shapes = {
        "target": (n,),
        "first": (n + 1,),
        "phi": (int(first[-1]) if len(first) else 0, 28),
        "wxyz_xyz_world_object": (n, 7),
        "q_squeeze": (n, 22),
    }
    for name, shape in shapes.items():
        if getattr(found, name).shape != shape:
            raise DatasetError(
                f"{path}: {name} has shape {getattr(found, name).shape}; it must be {shape}"
            )
        if not np.isfinite(getattr(found, name)).all():
            raise DatasetError(f"{path}: {name} is not finite")
    if not len(first) or first[0] != 0 or (found.lengths() < MIN_FRAMES).any():
        raise DatasetError(f"{path}: every motion has at least {MIN_FRAMES} frames")
    if n and not (found.target.min() >= 0 and found.target.max() < len(found.names)):
        raise DatasetError(f"{path}: a motion reaches for an object that is not named")
    schema.check_limits(found.phi[:, :22], path, "frame")
    return found
