"""Forward kinematics of the MANO hand (Romero et al. 2017), as far as keypoints need it.

The model is licensed and never part of this project: people get `MANO_RIGHT.pkl` themselves and say
where it lies. It is read without running anything that its pickle names. Kinematics follow the
published model: joints from a regressor, rotations about them along the tree, linear blend skinning
with pose blend shapes for the five vertices that are fingertips.
"""

import dataclasses
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import sparse
from scipy.spatial.transform import Rotation

from realdex_jax.data import npz, regular, unpickle
from realdex_jax.data.unpickle import Record
from realdex_jax.errors import DatasetError

VARIABLE = "REALDEX_MANO"
"""Environment variable with the place of the model."""
FILES = ("MANO_RIGHT.npz", "MANO_RIGHT.pkl", "mano/MANO_RIGHT.npz", "mano/MANO_RIGHT.pkl")
"""Where the model is looked for in a folder."""

VERTICES, JOINTS, POSE = 778, 16, 45
TIPS = (745, 317, 444, 556, 673)
"""Vertices at the tips of thumb, index, middle, ring and little finger, as in manopth."""
ORDER = (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)
"""MANO's 16 joints and then the five tips, in the order of the 21 keypoints (`hand.human`)."""

MAX_BYTES = 64 * 2**20
"""Largest model file that is read; the published one has 4 MB."""

_PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
# The published pickle holds a sparse matrix and shape blend shapes, of which GRAB has no need: its
# hands are measured.
_RECORDS = (
    *((module, "csc_matrix") for module in ("scipy.sparse.csc", "scipy.sparse._csc")),
    ("chumpy.ch", "Ch"),
    ("chumpy.reordering", "Select"),
)
_SHAPES: dict[str, tuple[int, ...]] = {
    "v_template": (VERTICES, 3),
    "J_regressor": (JOINTS, VERTICES),
    "weights": (VERTICES, JOINTS),
    "posedirs": (VERTICES, 3, 9 * (JOINTS - 1)),
    "hands_components": (POSE, POSE),
    "kintree_table": (2, JOINTS),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Mano:
    """The parts of a right hand's model that place keypoints."""

    template: Float[np.ndarray, "778 3"]
    """Vertices of the mean hand, flat, metres."""
    regressor: Float[np.ndarray, "16 778"]
    """Joints as means of vertices."""
    tip_weights: Float[np.ndarray, "5 16"]
    """How much each joint carries each fingertip."""
    tip_shapes: Float[np.ndarray, "5 3 135"]
    """How fingertips move with the rotations of the joints (metres)."""
    components: Float[np.ndarray, "45 45"]
    """Principal components of poses, one a row."""


def locate(path: Path | str | None = None) -> Path:
    """The model's file.

    Args:
        path: The file or a folder that holds it; the environment's `REALDEX_MANO` if not given.

    Raises:
        DatasetError: It is not there; the message says what to get and where to put it.
    """
    given = path if path is not None else os.environ.get(VARIABLE)
    if given is None:
        looked = "no place was given"
    else:
        place = Path(given)
        if place.is_file():
            return place
        found = [place / name for name in FILES if (place / name).is_file()]
        if found:
            return found[0]
        looked = f"{place} is neither such a file nor a folder with {FILES[1]} in it"
    raise DatasetError(
        f"the MANO hand model is needed and {looked}. Register at the MANO website, accept its "
        "licence, download 'Models & Code', and give the place of models/MANO_RIGHT.pkl by the "
        f"option mano=PATH or by {VARIABLE}=PATH. Without it, give 21 keypoints per frame by "
        "the option keypoints=FOLDER (docs/human_hands.md)"
    )


def read(path: Path | str) -> Mano:
    """Reads `MANO_RIGHT.pkl`, or the same arrays as a plain `.npz`.

    Raises:
        DatasetError: The file is missing, too large, damaged or another model.
        UnsafePickleError: The pickle asks for more than plain data and the two kinds of matrices
            that the published one holds.
    """
    path = Path(path)
    raw = _arrays(path)
    missing = [name for name in _SHAPES if name not in raw]
    if missing:
        raise DatasetError(f"{path}: lacks {', '.join(missing)}; it must be MANO's right hand")
    arrays = {name: _array(raw[name], shape, f"{path}: {name}") for name, shape in _SHAPES.items()}
    parents = np.where(arrays["kintree_table"][0] > JOINTS, -1, arrays["kintree_table"][0])
    if tuple(parents.astype(int)) != _PARENTS:
        raise DatasetError(
            f"{path}: kintree_table has parents {parents.astype(int).tolist()}; those of MANO are "
            f"{list(_PARENTS)}"
        )
    tips = np.array(TIPS)
    return Mano(
        template=arrays["v_template"],
        regressor=arrays["J_regressor"],
        tip_weights=arrays["weights"][tips],
        tip_shapes=arrays["posedirs"][tips],
        components=arrays["hands_components"],
    )


def keypoints(
    mano: Mano,
    template: Float[np.ndarray, "778 3"],
    turn: Float[np.ndarray, "t 3"],
    pose: Float[np.ndarray, "t 45"],
    shift: Float[np.ndarray, "t 3"],
) -> Float[np.ndarray, "t 21 3"]:
    """The 21 keypoints (m) of a hand over time.

    Args:
        mano: The model.
        template: Vertices of this person's flat hand, metres.
        turn: Orientation of the wrist, axis-angle (`global_orient`).
        pose: Axis-angle of each of 15 joints, in MANO's order.
        shift: Translation, metres (`transl`).
    """
    t = len(turn)
    rest = mano.regressor @ template
    rotvec = np.concatenate([turn, pose], axis=1).reshape(-1, 3)
    local = Rotation.from_rotvec(rotvec).as_matrix().reshape(t, JOINTS, 3, 3)
    R, p = np.empty((t, JOINTS, 3, 3)), np.empty((t, JOINTS, 3))
    R[:, 0], p[:, 0] = local[:, 0], rest[0]
    for j in range(1, JOINTS):
        parent = _PARENTS[j]
        R[:, j] = R[:, parent] @ local[:, j]
        p[:, j] = p[:, parent] + R[:, parent] @ (rest[j] - rest[parent])
    bent = (local[:, 1:] - np.eye(3)).reshape(t, -1)
    tips = template[np.array(TIPS)] + np.einsum("vcf,tf->tvc", mano.tip_shapes, bent)
    # Each joint carries a vertex as if it were its own; the tip is their mean.
    carried = np.einsum("tjab,tvjb->tvja", R, tips[:, :, None] - rest) + p[:, None]
    blended = np.einsum("vj,tvja->tva", mano.tip_weights, carried)
    return np.concatenate([p, blended], axis=1)[:, np.array(ORDER)] + shift[:, None]


def _arrays(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".npz":
        return npz.read(path)
    try:
        size = regular.size(path)
        if size > MAX_BYTES:
            raise DatasetError(f"{path}: {size} bytes; a MANO model has at most {MAX_BYTES}")
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    found = unpickle.load(io.BytesIO(content), path, _RECORDS)
    if not isinstance(found, dict):
        raise DatasetError(f"{path}: holds a {type(found).__name__}; a MANO model is a dict")
    return found


def _array(value: object, shape: tuple[int, ...], where: str) -> np.ndarray:
    """A finite array of this shape, float64; sparse ones are filled."""
    if isinstance(value, Record):
        value = _filled(value, shape, where)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise DatasetError(f"{where} is {kind}; it must be an array of numbers")
    if value.shape != shape:
        raise DatasetError(f"{where} has shape {value.shape}; it must be {shape}")
    if not np.isfinite(value).all():
        raise DatasetError(f"{where} is not finite")
    return value.astype(np.float64)


def _filled(record: Record, shape: tuple[int, ...], where: str) -> np.ndarray:
    """The matrix that a stored sparse one stands for."""
    state = record.state
    if not record.kind.endswith("csc_matrix") or not isinstance(state, dict):
        raise DatasetError(f"{where} is a {record.kind}; it must be an array or a sparse matrix")
    parts = [state.get(name) for name in ("data", "indices", "indptr")]
    if state.get("_shape") != shape or not all(
        isinstance(part, np.ndarray) and part.ndim == 1 for part in parts
    ):
        raise DatasetError(f"{where}: not a sparse matrix of shape {shape}")
    try:
        matrix = sparse.csc_matrix(tuple(parts), shape=shape)
        matrix.check_format(full_check=True)
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{where}: a damaged sparse matrix ({error})") from error
    return matrix.toarray()
