"""The RealDex release as names and frames: objects, splits, folders, and the root of its hand.

    <anything>/<object>_<n>[_<yyyymmdd>]/final_data.npy    a recording, however deep it lies
    <anything>/<object>/<k>.npz                            a training sequence, k a number
    <anything>/<object>.obj                                an object's model
    <object>.zip                                           a download, holding recordings

Joint order and signs of `qpos` are the URDF's, which are ours. The released hand pose is that of
the link `rh_forearm`, two wrist joints behind the palm, and the wrist's angles are not in it.
"""

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from realdex_jax.data import archive, regular
from realdex_jax.data import splits as split_rules
from realdex_jax.errors import DatasetError

# fmt: off
OBJECTS: tuple[str, ...] = (
    "air_duster", "bathroom_cleaner", "beer", "big_detergent", "big_eye_toy", "blue_cup",
    "blue_magnet_toy", "body_lotion", "body_wash", "bowling_game_box", "box", "charmander", "chips",
    "chips_ahoy_cookies", "cling_wrap", "coconut_cream", "coconut_tree_toy", "cosmetics", "crisps",
    "cylinder", "daily_moisturizing_lotion", "dinosaur_toy", "door_toy", "drain_cleaner",
    "duck_toy", "dust_cleaning_sprayer", "elephant_watering_can", "fat_toy", "floor_essential_oil",
    "glass_cleaner", "goji_jar", "guava_blended_juice", "ice_black_tea", "kangaroo_toy",
    "laundry_detergent", "laundry_detergent_pods", "lion_toy", "mildew_remover",
    "multi_purpose_cleaner", "non_fried_chips", "oreo_big", "ovaltine_magic_cube", "oyster_sauce",
    "rinse_shine_aid", "saltine_cracker", "small_sprayer", "soba", "sprayer", "sprite",
    "strawberry_yogurt", "thunder_toy", "toilet_cleaning_sprayer", "yogurt",
)
# fmt: on
"""The 53 objects of the download list; the paper counts 52."""

ALIASES: Mapping[str, str] = {
    "daily_moisture_lotion": "daily_moisturizing_lotion",
    "midew_remover": "mildew_remover",
}
"""Names that the release's own split list spells unlike its archives."""

SPLITS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "release": {
        "val": ("goji_jar", "small_sprayer", "yogurt", "body_lotion", "bowling_game_box", "chips"),
        "test": (
            "duck_toy",
            "cosmetics",
            "sprayer",
            "box",
            "daily_moisturizing_lotion",
            "mildew_remover",
        ),
    },
    "release-training": {
        "train": (
            "blue_magnet_toy",
            "body_lotion",
            "crisps",
            "dust_cleaning_sprayer",
            "laundry_detergent",
            "toilet_cleaning_sprayer",
        ),
        "val": ("goji_jar", "small_sprayer", "yogurt"),
        "test": ("duck_toy", "cosmetics", "sprayer"),
    },
}
"""release: of the processing script, six and six of the paper's 52, all others train.
release-training: the twelve objects of the training code. That one tests on its validation objects,
too; here they are validation objects only."""

RULES = (*SPLITS, "paper")
"""Names of the rules by which `splits` can go; paper: 40/6/6 of 52, drawn at random among all 53
objects, whichever are at hand."""

P_FOREARM_WRIST: Float[np.ndarray, " 3"] = np.array([0.0, -0.010, 0.21301])
"""Origin of `rh_wrist` in `rh_forearm`, metres."""
P_WRIST_PALM: Float[np.ndarray, " 3"] = np.array([0.0, 0.0, 0.034])
"""Origin of `rh_palm` in `rh_wrist`, metres."""

FINAL = "final_data.npy"
LOST = "None"
"""What `scene_to_mesh.json` has in place of a robot time (`None.ply`) where none was found."""
MAX_LISTED = 2_000_000
"""Most files that a folder may list."""

_NUMBER = re.compile(r"0|[1-9][0-9]*")
"""Counts of sequences; numbers with zeros in front are another dataset's grasps."""
_RECORDING = re.compile(r"(?P<object>.+?)_\d+(_\d{8})?")
# Pictures and clouds by the thousand; nothing that is read lies in them.
_BULK = re.compile(r"cam\d+|merged_pcd|vis_meshes|srhand_ur_meshes|global_name_position")


@runtime_checkable
class Files(Protocol):
    """A folder or an archive: names, and the content of each."""

    @property
    def where(self) -> str:
        """What it is, for messages."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Paths of the files inside, with "/", sorted."""
        ...

    def read(self, name: str, limit: int) -> bytes:
        """The content of one file of at most `limit` bytes."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Folder:
    """The files below a folder, folders of pictures and clouds left out."""

    path: Path
    """The folder."""
    names: tuple[str, ...]
    """Paths of the files inside, sorted."""

    @property
    def where(self) -> str:
        """The folder, for messages."""
        return str(self.path)

    def read(self, name: str, limit: int) -> bytes:
        """The content of one file.

        Raises:
            DatasetError: It cannot be read, or is larger than `limit`.
        """
        path = self.path / name
        try:
            size = regular.size(path)
            if size > limit:
                raise DatasetError(f"{path} has {size} bytes; at most {limit} are read")
            return path.read_bytes()
        except OSError as error:
            raise DatasetError(f"{path} cannot be read ({error.strerror})") from error


def files(path: Path) -> Files:
    """What lies at `path`: a folder, or a zip that is read in place.

    Raises:
        DatasetError: Neither, or a zip that is refused.
    """
    if path.is_dir():
        return Folder(path, tuple(sorted(_walk(path))))
    if path.suffix == ".zip":
        return archive.open_archive(path)
    raise DatasetError(f"{path} is neither a folder nor a .zip")


class Found(NamedTuple):
    """A recording or a training sequence that a listing shows."""

    object: str
    """Name of its object."""
    kind: str
    """"recording" or "sequence"."""
    name: str
    """Folder of the recording, or file of the sequence, inside the listing."""


def find(names: Sequence[str], root: str = "") -> tuple[Found, ...]:
    """Recordings and sequences among the files of a listing, by object, in a fixed order.

    Args:
        names: Paths with "/".
        root: Name of the folder itself, in case it is a recording or an object's folder.
    """
    found: list[tuple[tuple[str, str, int, str], Found]] = []
    for name in names:
        path = PurePosixPath(name)
        parent = path.parent.name or root
        if path.name == FINAL:
            item = Found(object_of(parent), "recording", str(path.parent))
            found.append(((item.object, item.kind, 0, name), item))
        elif path.suffix == ".npz" and _NUMBER.fullmatch(path.stem):
            item = Found(spelt(parent), "sequence", name)
            # "10" comes after "9"; a hostile name of a million digits is no number.
            number = int(path.stem) if len(path.stem) < 10 else 10**9
            found.append(((item.object, item.kind, number, name), item))
    return tuple(item for _, item in sorted(found))


def object_of(recording: str) -> str:
    """Name of the object that a recording's folder is named after."""
    match = _RECORDING.fullmatch(recording)
    return spelt(match["object"] if match else recording)


def spelt(name: str) -> str:
    """An object's name as its archive spells it."""
    return ALIASES.get(name, name)


def splits(names: Sequence[str], rule: str, seed: int = 0) -> dict[str, tuple[str, ...]]:
    """Parts of the objects at hand; the three parts share none.

    Args:
        names: Objects that there are. Objects of the rule that are not among them are left out, so
            an object is in the same part whatever else is at hand.
        rule: One of `RULES`. "release" and "paper" train on all that they do not hold out; under
            "release-training" other objects are in no part.
        seed: Of the paper's rule.

    Raises:
        DatasetError: No such rule.
    """
    if rule == "paper":
        drawn = split_rules.by_object(OBJECTS, seed)
        others = tuple(name for name in names if name not in OBJECTS)
        listed: Mapping[str, tuple[str, ...]] = {**drawn, "train": (*drawn["train"], *others)}
    elif rule in SPLITS:
        listed = SPLITS[rule]
    else:
        raise DatasetError(f"no split {rule!r}; known: {', '.join(RULES)}")
    held_out = {name for part in ("val", "test") for name in listed[part]}
    train = listed.get("train", tuple(name for name in names if name not in held_out))
    parts = {"train": train, "val": listed["val"], "test": listed["test"]}
    return {part: tuple(n for n in members if n in names) for part, members in parts.items()}


def palm(
    R_world_forearm: Rotation, p_world_forearm: Float[np.ndarray, "t 3"], wrist: np.ndarray
) -> tuple[Rotation, Float[np.ndarray, "t 3"]]:
    """Orientation and origin of the palm from those of the forearm.

    Args:
        R_world_forearm: Orientations of t frames.
        p_world_forearm: Origins of `rh_forearm`, metres.
        wrist: WRJ2 and WRJ1 (rad), (t 2).
    """
    R_world_wrist = R_world_forearm * Rotation.from_euler("Y", wrist[:, [0]])
    p_world_wrist = p_world_forearm + R_world_forearm.apply(P_FOREARM_WRIST)
    p_world_palm = p_world_wrist + R_world_wrist.apply(P_WRIST_PALM)
    return R_world_wrist * Rotation.from_euler("X", wrist[:, [1]]), p_world_palm


def forearm(
    R_world_palm: Rotation, p_world_palm: Float[np.ndarray, "t 3"], wrist: np.ndarray
) -> tuple[Rotation, Float[np.ndarray, "t 3"]]:
    """Orientation and origin of the forearm from those of the palm: `palm` undone."""
    R_world_wrist = R_world_palm * Rotation.from_euler("X", wrist[:, [1]]).inv()
    R_world_forearm = R_world_wrist * Rotation.from_euler("Y", wrist[:, [0]]).inv()
    p_world_wrist = p_world_palm - R_world_wrist.apply(P_WRIST_PALM)
    return R_world_forearm, p_world_wrist - R_world_forearm.apply(P_FOREARM_WRIST)


def _walk(root: Path) -> Iterator[str]:
    """Files below a folder; links are followed, but no folder is entered twice."""
    entered: set[str] = set()
    listed = 0
    for place, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and not _BULK.fullmatch(f))
        listed += len(names)
        if listed > MAX_LISTED:
            raise DatasetError(f"{root} has more than {MAX_LISTED} files; name a folder inside it")
        relative = Path(place).relative_to(root)
        yield from ((relative / name).as_posix() for name in names)
