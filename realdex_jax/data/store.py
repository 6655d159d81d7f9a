"""The dataset folder: one JSON index and plain `.npz` files per object.

    dataset.json                 name, version, hand, joint order, units, splits, digests, recipe;
                                 optional: schemes, further splits by name; motions, who has any
    objects/<name>/points.npz    points (n 3) m and outward normals (n 3) of the surface, object
                                 frame
    objects/<name>/mesh.obj      optional
    grasps/<name>.npz            phi (n j+6), q_pregrasp (n j), q_squeeze (n j), column.<name> (n)
    motions/<name>.npz           optional; see `motion_set`

`docs/data.md` has the rest. No pickle anywhere. Floats may be stored as float16 or float32; they
are read as float32.
Everything is written to a temporary folder `.<name>.*` beside the old one and swapped in at the
end, so a failed write leaves the old dataset as it was. The swap is two renames; a process that is
killed between them leaves the old dataset as `.<name>.old`, and the next open or write puts it
back.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from realdex_jax.data import folder, formats, motion_set, object_files
from realdex_jax.data import splits as split_rules
from realdex_jax.data.folder import INDEX
from realdex_jax.data.motion_set import MotionSet
from realdex_jax.data.object_files import Surface
from realdex_jax.data.schema import GraspSet
from realdex_jax.errors import DatasetError, JointError
from realdex_jax.hand import joints, load
from realdex_jax.hand.joints import JointTable

FORMAT = 1
"""Version of the folder layout."""

SCHEME = split_rules.SCHEME
"""The scheme a dataset is opened under if none is named: its own splits."""

HAND = "shadow"
"""The hand whose joint angles and limits poses keep, unless a dataset is another's."""

UNITS = {
    "length": "m",
    "angle": "rad",
    "frame": "object",
    "rotation": "axis-angle of the palm",
}
"""Units and frame of every number; a dataset in others is refused, never converted."""

EMBEDDED: dict[str, str] = {"realdex-sim": "realdex_sim"}
"""Datasets shipped with the package: name to folder under `assets/`."""

MAX_INDEX_BYTES = 2**25
"""Largest `dataset.json` that is read; that of 30,000 objects has 12 MB, and what is made of one
takes twenty times its size in memory."""

_NO_INDEX = (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError)


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
    moving: frozenset[str] = frozenset()
    """Objects that have motions, of whatever scheme."""
    hand: str = HAND
    """The hand whose joints the poses have."""

    @functools.cached_property
    def objects(self) -> tuple[str, ...]:
        """All object names of the scheme, in split order."""
        return tuple(name for names in self.splits.values() for name in names)

    @property
    def replay_hand(self) -> str:
        """Name of the hand that the stored grasps were made with, and hold with in physics."""
        source = self.recipe.get("source")
        return (
            str(source.get("replay_hand", self.hand)) if isinstance(source, Mapping) else self.hand
        )

    def grasps(self, name: str, *, mapped: bool = False) -> GraspSet:
        """Reads the grasps of one object (joint order ours, float32).

        Args:
            name: The object.
            mapped: Leave poses on the disk where the file allows it; the array is read-only then.
        """
        self._check_name(name)
        path = self.path / "grasps" / f"{name}.npz"
        return object_files.load_grasps(path, self.joint_names, mapped=mapped, table=self._table)

    def poses(self, name: str) -> Float[np.ndarray, "n phi"]:
        """The poses alone of the grasps of one object; read-only where they are left on the disk.

        Quicker than `grasps` where nothing else is wanted.
        """
        self._check_name(name)
        path = self.path / f"grasps/{name}.npz"
        return object_files.load_poses(path, self.joint_names, self._table)

    def motions(self, name: str) -> MotionSet:
        """Reads the motions toward one object.

        Raises:
            DatasetError: The dataset carries none for it.
        """
        self._check_name(name)
        if name not in self.moving:
            raise DatasetError(
                f"{self.path} has no motions for {name!r}; it has some for "
                f"{_some(sorted(self.moving & self._names)) or 'no object'}"
            )
        found = motion_set.load(self.path / "motions" / f"{name}.npz")
        if self.joint_names == joints.NAMES:
            return found
        return dataclasses.replace(
            found,
            phi=object_files.reordered(found.phi, self.joint_names),
            q_squeeze=joints.reorder(found.q_squeeze, self.joint_names),
        )

    def surface(self, name: str) -> Surface:
        """Reads the surface points of one object.

        Raises:
            DatasetError: The dataset carries none for it.
        """
        self._check_name(name)
        path = self.path / f"objects/{name}/points.npz"
        try:
            return object_files.load_surface(path)
        except DatasetError as error:
            if path.exists():
                raise
            raise DatasetError(
                f"{self.path} has no surface points for {name!r} (looked for {path})"
            ) from error

    @functools.cached_property
    def _table(self) -> JointTable:
        return table_of(self.hand)

    @functools.cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.objects)

    def _check_name(self, name: str) -> None:
        if name not in self._names:
            raise DatasetError(f"no object {name!r} in {self.name}; known: {_some(self.objects)}")


def open_dataset(source: str | Path, scheme: str = SCHEME, hand: str | None = HAND) -> Dataset:
    """Opens a dataset by name ("realdex-sim") or folder.

    Args:
        source: Name or folder.
        scheme: Which of its split schemes `splits` is; "object" is the dataset's own, the paper's
            rule.
        hand: The hand it must be of; None takes any there is.

    Raises:
        DatasetError: No such dataset or scheme, an unreadable index, another hand, layout or
            units, or splits that name an object twice or one that the dataset does not have.
        JointError: A joint of the hand is missing.
    """
    path = _embedded_path(str(source)) if str(source) in EMBEDDED else Path(source)
    folder.put_back(path)
    index = path / INDEX
    if not index.is_file():
        raise DatasetError(f"no dataset at {source}: {index} is missing. {_way_out(path)}")
    try:
        if index.stat().st_size > MAX_INDEX_BYTES:
            raise ValueError(f"{index.stat().st_size} bytes; at most {MAX_INDEX_BYTES} are read")
        meta = json.loads(index.read_text(encoding="utf-8"))
        version, digests = str(meta["version"]), dict(meta["digests"])
        splits = {str(k): tuple(map(str, _list(v))) for k, v in meta["splits"].items()}
        names = tuple(meta["joints"])
        name, layout = str(meta["name"]), int(meta["format"])
        of_hand, units = str(meta["hand"]), dict(meta["units"])
        recipe = dict(meta.get("recipe", {}))
        schemes = {
            str(which): {str(k): tuple(map(str, _list(v))) for k, v in parts.items()}
            for which, parts in dict(meta.get("schemes", {})).items()
        }
        moving = dict(meta.get("motions", {}))
        motion_format = str(moving.get("format", motion_set.FORMAT))
        moving = frozenset(map(str, moving.get("objects", ())))
        if not all(isinstance(text, str) for text in (*names, *digests, *digests.values())):
            raise TypeError("joints and digests are not text")
    except _NO_INDEX as error:
        raise DatasetError(f"{index} is not a dataset index: {error!r}") from error
    if layout != FORMAT:
        raise DatasetError(f"{index} has layout {layout}; this program reads layout {FORMAT}")
    if motion_format != motion_set.FORMAT:
        raise DatasetError(
            f"{index} has motions of format {motion_format!r}; this program reads "
            f"{motion_set.FORMAT!r}"
        )
    allowed = load.known() if hand is None else (hand,)
    if of_hand not in allowed:
        raise DatasetError(
            f"{index} is for hand {of_hand!r}; this program reads hand "
            f"{' or '.join(map(repr, allowed))}"
        )
    for what, unit in UNITS.items():
        if units.get(what) != unit:
            raise DatasetError(f"{index} has {what} in {units.get(what)!r}; it must be {unit!r}")
    listed = [object_name for group in splits.values() for object_name in group]
    try:
        joints.reorder(
            np.zeros(len(names)), names, table_of(of_hand)
        )  # names every joint of ours, or says which not
        for object_name in listed:
            object_files.check_file_name(object_name)
        split_rules.check(splits)
        _check_files(digests, moving - set(listed))
        _check_there(path, digests, listed)
        split_rules.check_schemes(schemes, listed)
    except (DatasetError, JointError) as error:
        raise type(error)(f"{index}: {error}") from error
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
        moving=moving,
        hand=of_hand,
    )


def table_of(hand: str) -> JointTable:
    """The joints of a hand by name; Shadow's without reading its MJCF."""
    return joints.SHADOW if hand == HAND else load.load(hand).joints


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list of names")
    return value


def _way_out(path: Path) -> str:
    """What to do about a path that is no dataset."""
    found = formats.recognise(path)
    if found:
        return f"It looks like {' or '.join(found)}: python -m experiments.convert {path} DEST"
    return f"Known names: {', '.join(EMBEDDED)}; or give a folder"


def _check_files(digests: Mapping[str, str], unlisted: Collection[str]) -> None:
    for relative in digests:
        if len(relative) > 500 or Path(relative).is_absolute() or ".." in Path(relative).parts:
            raise DatasetError(f"a digest of {relative[:500]!r}, which lies elsewhere")
    if unlisted:
        raise DatasetError(f"motions of {min(unlisted)!r}, which is in no split")


def _check_there(path: Path, digests: Mapping[str, str], listed: Sequence[str]) -> None:
    files = {name: f"grasps/{name}.npz" for name in listed}
    unnamed = [name for name, file in files.items() if file not in digests]
    absent = [name for name in unnamed if not (path / files[name]).is_file()]
    if absent:
        raise DatasetError(
            f"the splits name {len(absent)} objects that have no grasps file in the dataset: "
            f"{_some(absent, 8)}"
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
        if digest_of(path) != expected:
            raise DatasetError(f"{path} differs from the digest in dataset.json: edited or damaged")


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
    motions: Mapping[str, MotionSet] | None = None,
    schemes: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
    hand: str = HAND,
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
        motions: Motions by object.
        schemes: Further splits of the same objects by name; see `splits.check_schemes`.
        hand: The hand that the grasps are of; motions are Shadow's.

    Raises:
        DatasetError: Splits and grasps name different objects, a set or a scheme breaks the rules,
            there is something else than a dataset at `path`, or the disk is full.

    `writer.Writer` does the same for datasets that do not fit in memory.
    """
    folder.check_target(path)
    split_rules.check(splits)
    listed = [object_name for names in splits.values() for object_name in names]
    if sorted(listed) != sorted(grasps):
        different = sorted(set(listed) ^ set(grasps)) or "an object twice"
        raise DatasetError(
            f"splits and grasps must name the same objects once each; differing: {different}"
        )
    split_rules.check_schemes(schemes or {}, listed)
    files: dict[str, bytes] = {}
    for object_name in {*grasps, *(surfaces or {}), *(meshes or {}), *(motions or {})}:
        files |= object_files.encode(
            object_name,
            grasps=grasps.get(object_name),
            surface=(surfaces or {}).get(object_name),
            mesh=(meshes or {}).get(object_name),
            motions=(motions or {}).get(object_name),
            table=table_of(hand),
        )
    files[INDEX] = index_bytes(
        name=name,
        version=version,
        splits=splits,
        digests={k: digest(v) for k, v in files.items()},
        recipe=recipe,
        schemes=schemes,
        hand=hand,
    )
    try:
        folder.swap_in(Path(path).resolve(), files)
    except OSError as error:
        raise DatasetError(
            f"could not write {path}: {error}; what was there before is unchanged"
        ) from error
    return open_dataset(path, hand=hand)


def index_bytes(
    *,
    name: str,
    version: str,
    splits: Mapping[str, Sequence[str]],
    digests: Mapping[str, str],
    recipe: Mapping[str, Any],
    schemes: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
    hand: str = HAND,
) -> bytes:
    """The content of `dataset.json`."""
    moving = sorted(Path(k).stem for k in digests if k.startswith("motions/"))
    meta = {
        "format": FORMAT,
        "name": name,
        "version": version,
        "hand": hand,
        "joints": list(table_of(hand).names),
        "units": UNITS,
        "splits": _lists(splits),
        **({"schemes": {k: _lists(v) for k, v in schemes.items()}} if schemes else {}),
        **({"motions": {"format": motion_set.FORMAT, "objects": moving}} if moving else {}),
        "digests": dict(sorted(digests.items())),
        "recipe": dict(recipe),
    }
    return (json.dumps(meta, indent=1) + "\n").encode()


def _embedded_path(name: str) -> Path:
    return Path(__file__).parent.parent / "assets" / EMBEDDED[name]


def digest(content: bytes) -> str:
    """SHA-256 as `dataset.json` records it."""
    return hashlib.sha256(content).hexdigest()


def digest_of(path: Path) -> str:
    """`digest` of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _some(names: Sequence[str], most: int = 60) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _lists(splits: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    return {part: list(names) for part, names in splits.items()}


def _listed(splits: Mapping[str, Sequence[str]]) -> str:
    """Digest of the objects of each part; their order counts, because it decides batches."""
    return digest(json.dumps(sorted(_lists(splits).items())).encode())


def _combined(digests: Mapping[str, str]) -> str:
    return digest(json.dumps(sorted(digests.items())).encode())
