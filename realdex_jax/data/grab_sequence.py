"""One sequence of GRAB: its `.npz`, whose values are pickled dicts, checked and in our terms."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation

from realdex_jax.data import npz
from realdex_jax.data.mano import POSE, Mano
from realdex_jax.errors import DatasetError

MOVED = 0.005
"""Metres from its first place at which an object has been moved."""
TURNED = 0.05
"""Radians from its first orientation at which it has."""
STEADY = 0.1
"""Seconds that it must stay so: trackers shake."""
MAX_FRAMES = 100_000
"""Longest sequence; the longest published one has some thousand."""
PARTS = 2
"""Parts of the right hand that touch an object that is held."""

# Labels of contact (the SMPL-X parts): the right palm, then three of each finger.
_RIGHT_PALM, _RIGHT_FINGERS = 22, np.arange(41, 56)
_WANTED = ("sbj_id", "obj_name", "framerate", "n_frames", "rhand", "object", "contact")


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """A sequence as it is stored, in our terms."""

    path: Path
    subject: int
    """Number of the person; 0 where the file does not name one as s<k>."""
    object_name: str
    object_mesh: str
    """Mesh of the object, relative to the dataset."""
    hand_template: str
    """Mesh of the person's right hand, flat, relative to the dataset."""
    rate: float
    """Frames a second."""
    T_world_object: Float[np.ndarray, "t 7"]
    """Poses of the object: quaternion wxyz, then position (m); z is up."""
    turn: Float[np.ndarray, "t 3"]
    """Orientation of the right wrist, axis-angle."""
    shift: Float[np.ndarray, "t 3"]
    """Translation of the right hand, metres."""
    bent: Float[np.ndarray, "t c"]
    """Pose of its fingers: principal components, or axis-angle where c is 45 and `full` says so."""
    full: bool
    parts: Int[np.ndarray, " t"] | None
    """How many parts of the right hand (palm, five fingers) touch the object; None: not told."""

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.turn)

    def at(self, frames: Int[np.ndarray, " k"], model: Mano) -> tuple[np.ndarray, ...]:
        """Orientation, axis-angle pose (k 45) and translation of the hand in some frames."""
        bent = self.bent[frames]
        # GRAB's hands are flat where their pose is zero: no mean is added.
        pose = bent if self.full else bent @ model.components[: bent.shape[1]]
        return self.turn[frames], pose, self.shift[frames]

    def onset(self) -> int | None:
        """First frame in which the object has left its place and stays so; None if it never has."""
        p = self.T_world_object[:, 4:]
        R = Rotation.from_quat(self.T_world_object[:, :4], scalar_first=True)
        away = np.linalg.norm(p - p[0], axis=1) > MOVED
        away |= (R[0].inv() * R).magnitude() > TURNED
        return _first_run(away, max(1, round(STEADY * self.rate)))

    def held(self, frame: int) -> bool:
        """Whether the right hand holds the object there, as far as the file tells."""
        return self.parts is None or bool(self.parts[frame] >= PARTS)


def read(path: Path) -> Recording:
    """Reads a sequence.

    Raises:
        DatasetError: The file is damaged or does not keep the layout.
        UnsafePickleError: It asks for more than plain data.
    """
    raw = npz.read(path, objects=True, only=_WANTED)
    missing = [name for name in ("rhand", "object", "framerate", "obj_name") if name not in raw]
    if missing:
        raise DatasetError(f"{path}: lacks {', '.join(missing)}; not a sequence of GRAB")
    name = _text(raw["obj_name"], f"{path}: obj_name")
    if name != path.name.split("_")[0]:
        raise DatasetError(f"{path}: obj_name is {name!r}, the file's name says otherwise")
    rate = _numbers(raw["framerate"], (), f"{path}: framerate")
    if not 1.0 <= rate <= 1000.0:
        raise DatasetError(f"{path}: framerate is {rate}; it must be 1 to 1000 a second")
    hand, thing = (_part(raw[part], f"{path}: {part}") for part in ("rhand", "object"))
    count = np.shape(hand["params"].get("transl"))[:1]
    t = count[0] if count else 0
    if not 1 <= t <= MAX_FRAMES:
        raise DatasetError(f"{path}: rhand has {t} frames; there must be 1 to {MAX_FRAMES}")
    turn, shift = (
        _numbers(hand["params"].get(key), (t, 3), f"{path}: rhand {key}")
        for key in ("global_orient", "transl")
    )
    object_turn, object_shift = (
        _numbers(thing["params"].get(key), (t, 3), f"{path}: object {key}")
        for key in ("global_orient", "transl")
    )
    full = hand["params"].get("hand_pose") is None
    key = "fullpose" if full else "hand_pose"
    bent = hand["params"].get(key)
    width = np.shape(bent)[1] if np.ndim(bent) == 2 else 0
    if not 1 <= width <= POSE or (full and width != POSE):
        raise DatasetError(
            f"{path}: rhand {key} has shape {np.shape(bent)}; it must be ({t}, 1 to {POSE})"
        )
    # The authors turn rows of vertices: v R(aa). In columns that is the inverse turn.
    wxyz = Rotation.from_rotvec(object_turn).inv().as_quat(scalar_first=True)
    return Recording(
        path=path,
        subject=_subject(raw.get("sbj_id")),
        object_name=name,
        object_mesh=_text(thing.get("object_mesh"), f"{path}: object_mesh"),
        hand_template=_text(hand.get("vtemp"), f"{path}: rhand vtemp"),
        rate=float(rate),
        T_world_object=np.concatenate([wxyz, object_shift], axis=1),
        turn=turn,
        shift=shift,
        bent=_numbers(bent, (t, width), f"{path}: rhand {key}"),
        full=full,
        parts=_touching(raw.get("contact"), t, str(path)),
    )


def _part(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not isinstance(value.get("params"), Mapping):
        raise DatasetError(f"{where} is a {type(value).__name__}; it must be a dict with 'params'")
    return value


def _numbers(value: object, shape: tuple[int, ...], where: str) -> np.ndarray:
    """A finite array of this shape, float64."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise DatasetError(f"{where} is {type(value).__name__}; it must be numbers")
    if array.shape != shape:
        raise DatasetError(f"{where} has shape {array.shape}; it must be {shape}")
    if not np.isfinite(array).all():
        bad = ~np.isfinite(array.reshape(len(array) if shape else 1, -1)).all(axis=1)
        raise DatasetError(f"{where} is not finite in frame {int(bad.argmax())}")
    return array.astype(np.float64)


def _text(value: object, where: str) -> str:
    text = value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
    if not isinstance(text, str) or not text:
        raise DatasetError(f"{where} is {type(value).__name__}; it must be text")
    return text


def _subject(value: object) -> int:
    digits = str(value).removeprefix("s")
    return int(digits) if digits.isdecimal() and len(digits) < 4 else 0


def _touching(contact: object, t: int, where: str) -> Int[np.ndarray, " t"] | None:
    if contact is None:
        return None
    labels = contact.get("object") if isinstance(contact, Mapping) else None
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu" or labels.ndim != 2:
        raise DatasetError(f"{where}: contact has no array 'object' of whole numbers per vertex")
    if len(labels) != t:
        raise DatasetError(f"{where}: contact has {len(labels)} frames, the hand {t}")
    if labels.size and not (labels.min() >= 0 and labels.max() < 256):
        raise DatasetError(f"{where}: contact has label {labels.max()}; labels are 0 to 55")
    # One bit for each part, gathered over the vertices; frame by frame, since meshes are large.
    bit = np.zeros(256, np.uint8)
    bit[_RIGHT_PALM] = 1
    bit[_RIGHT_FINGERS] = np.repeat([2, 4, 8, 16, 32], 3)
    rows = labels.astype(np.uint8, copy=False)
    touched = [np.bitwise_or.reduce(bit[row]) for row in rows]
    return np.bitwise_count(np.array(touched, np.uint8)).astype(np.int64)


def _first_run(true: Bool[np.ndarray, " t"], length: int) -> int | None:
    """Where the first run of so many true values begins."""
    for i in np.flatnonzero(true[: len(true) - length + 1]):
        if true[i : i + length].all():
            return int(i)
    return None
