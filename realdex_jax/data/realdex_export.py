"""Motions in the on-disk layout of the RealDex release: what the reader reads, and its scripts.

Everything is stored as the release stores it: the hand as the pose of `rh_forearm` in the world,
matrices in `final_data.npy` and axis-angle in `<k>.npz`, times in ns, metres, radians.
"""

import io
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from realdex_jax.data import realdex_layout as layout
from realdex_jax.data.motion import RATE, Motion
from realdex_jax.errors import DatasetError

FIRST_STAMP = 1_700_000_000_000_000_000
"""Time of a recording's first frame, ns."""


def to_release(motion: Motion, wrist: Float[np.ndarray, "t 2"]) -> dict[str, np.ndarray]:
    """The arrays of `final_data.npy` for a motion in the world.

    Args:
        motion: The motion; our palm, joint order and signs.
        wrist: WRJ2 and WRJ1 (rad) of each frame.
    """
    phi = np.asarray(motion.phi, np.float64)
    world = np.asarray(motion.wxyz_xyz_world_object, np.float64)
    R_world_palm = Rotation.from_rotvec(phi[:, 25:])
    R_world_forearm, p_world_forearm = layout.forearm(R_world_palm, phi[:, 22:25], wrist)
    return {
        "qpos": phi[:, :22],
        "global_transl": p_world_forearm,
        "global_orient": R_world_forearm.as_matrix(),
        "object_transl": world[:, 4:],
        "object_orient": Rotation.from_quat(world[:, :4], scalar_first=True).as_matrix(),
    }


def final_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Content of `final_data.npy`: a pickled dict, as the release has it."""
    buffer = io.BytesIO()
    np.save(buffer, np.array(dict(arrays), dtype=object))
    return buffer.getvalue()


def from_release(
    arrays: Mapping[str, np.ndarray], time: Float[np.ndarray, " t"], wrist: Float[np.ndarray, "t 2"]
) -> Motion:
    """A motion in the world from the arrays of `final_data.npy`: `to_release` undone.

    It trusts the arrays; files are read by `realdex.open_source`.

    Args:
        arrays: The arrays.
        time: Seconds of each frame.
        wrist: WRJ2 and WRJ1 (rad) of each frame.
    """
    R_world_palm, p_world_palm = layout.palm(
        Rotation.from_matrix(arrays["global_orient"]), arrays["global_transl"], wrist
    )
    wxyz = Rotation.from_matrix(arrays["object_orient"]).as_quat(scalar_first=True)
    return Motion(
        time=time,
        phi=np.concatenate([arrays["qpos"], p_world_palm, R_world_palm.as_rotvec()], axis=1),
        wxyz_xyz_world_object=np.concatenate([wxyz, arrays["object_transl"]], axis=1),
    )


def sequence_bytes(
    motion: Motion,
    points: Float[np.ndarray, "n 3"] | None = None,
    colors: Float[np.ndarray, "n 3"] | None = None,
    wrist: Float[np.ndarray, "t 2"] | None = None,
) -> bytes:
    """Content of a training sequence, `<k>.npz`.

    Args:
        motion: The motion, at 15 Hz: sequences carry no times.
        points: Cloud of the first frame in the object's frame (m); stored in the world.
        colors: Its colours, 0 to 1.
        wrist: WRJ2 and WRJ1 (rad); the file does not tell them. Straight if not given.
    """
    raw = to_release(motion, _straight(motion) if wrist is None else wrist)
    arrays = {
        "qpos": raw["qpos"],
        "hand_transl": raw["global_transl"],
        "hand_orient": Rotation.from_matrix(raw["global_orient"]).as_rotvec(),
        "object_transl": raw["object_transl"],
        "object_orient": Rotation.from_matrix(raw["object_orient"]).as_rotvec(),
    }
    if points is not None:
        R, p = raw["object_orient"][0], raw["object_transl"][0]
        arrays["object_points"] = np.asarray(points, np.float64) @ R.T + p
        gray = np.full((len(points), 3), 0.5)
        arrays["object_colors"] = gray if colors is None else np.asarray(colors, np.float64)
    buffer = io.BytesIO()
    named: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items()}
    np.savez_compressed(buffer, **named)
    return buffer.getvalue()


def recording_files(
    motions: Sequence[Motion],
    contact: Sequence[np.ndarray] | None = None,
    wrist: Sequence[Float[np.ndarray, "t 2"]] | None = None,
) -> dict[str, bytes]:
    """Files of one recording that holds motions one after the other, by their names inside.

    Args:
        motions: The motions, at 15 Hz.
        contact: Rows of each in which hand and object touch; no `contact.txt` if not given.
        wrist: WRJ2 and WRJ1 (rad) of each; straight if not given.

    Raises:
        DatasetError: No motions.
    """
    if not motions:
        raise DatasetError("no motions; a recording holds at least one")
    bends = [_straight(m) for m in motions] if wrist is None else list(wrist)
    parts = [to_release(m, bend) for m, bend in zip(motions, bends, strict=True)]
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    bend = np.concatenate(bends)
    first = np.concatenate([[0], np.cumsum([len(m) for m in motions])])
    stamps = [FIRST_STAMP + round(k * 1e9 / RATE) for k in range(int(first[-1]))]
    xyzw = Rotation.from_matrix(arrays["object_orient"]).as_quat()
    poses = np.concatenate([arrays["object_transl"], xyzw], axis=1)
    still = not bend.any()  # a link that never moves has one row
    files = {
        layout.FINAL: final_bytes(arrays),
        "segment.txt": _lines(f"{a} {b}" for a, b in itertools.pairwise(first)),
        "scene_to_mesh.json": json.dumps(
            {str(k): f"{stamp}.ply" for k, stamp in enumerate(stamps)}
        ).encode(),
        "rgbimage_timestamp.txt": _lines(map(str, stamps)),
        "tracking_result/gt_pose.txt": _rows(poses),
    }
    if contact is not None:
        rows = np.concatenate([np.asarray(c) + at for c, at in zip(contact, first, strict=False)])
        files["contact.txt"] = _lines(str(int(row)) for row in rows)
    for edge, axis, column, origin in (
        ("rh_forearm-rh_wrist", "y", 0, layout.P_FOREARM_WRIST),
        ("rh_wrist-rh_palm", "x", 1, layout.P_WRIST_PALM),
    ):
        turn = Rotation.from_euler(axis, bend[: 1 if still else None, [column]]).as_quat()
        table = np.concatenate([np.tile(origin, (len(turn), 1)), turn], axis=1)
        files[f"TF/{edge}.txt"] = _rows(table, stamps)
    return files


def _straight(motion: Motion) -> np.ndarray:
    return np.zeros((len(motion), 2))


def _rows(table: np.ndarray, stamps: Sequence[int] | None = None) -> bytes:
    """Numbers in rows, behind their times (ns) if given."""
    texts = [" ".join(f"{value:.17g}" for value in row) for row in table.tolist()]
    if stamps is not None:
        texts = [f"{stamp} {text}" for stamp, text in zip(stamps, texts, strict=False)]
    return _lines(texts)


def _lines(texts: Iterable[str]) -> bytes:
    return ("\n".join(texts) + "\n").encode()
