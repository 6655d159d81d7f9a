"""The files of a RealDex recording or training sequence, read without trusting them."""

import bisect
import dataclasses
import json
from collections.abc import Mapping
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import Bool, Float, Int

from realdex_jax.data import npz, textfile, tf_series
from realdex_jax.data.motion import RATE
from realdex_jax.data.realdex_frames import (
    MAX_POINTS,
    MAX_ROWS,
    Frames,
    clip_segments,
    finished,
    table,
    take,
    tell,
)
from realdex_jax.data.realdex_layout import FINAL, LOST, Files
from realdex_jax.data.unpickle import MAX_BYTES, parse_objects
from realdex_jax.errors import DatasetError

_TEXT = 8 * 2**20  # a line of two bytes takes a hundred in memory
_EDGE = 64 * 2**20  # minutes of a link's poses at 1 kHz; their lines are counted
_LARGEST = 1e20  # a time in ns has 19 digits
_MIN_STEP, _MAX_TIME = 1e-3, 3600.0  # s between two frames, and of a recording of two minutes


def read_recording(files: Files, folder: str, *, mjcf: bool = False) -> Frames:
    """Reads a recording's `final_data.npy` with what lies beside it.

    Args:
        files: Where it lies.
        folder: The recording's folder inside.
        mjcf: Whether joint signs are those of the release's hand model, not of its URDF.

    Raises:
        DatasetError: A file is damaged or does not keep the layout.
        UnsafePickleError: `final_data.npy` asks for more than plain data.
    """
    at = PurePosixPath(folder)
    final = str(at / FINAL)
    where = f"{files.where}/{final}"
    records = parse_objects(files.read(final, MAX_BYTES), where)
    if len(records) != 1 or not isinstance(records[0], Mapping):
        raise DatasetError(f"{where}: expected one dict, found {len(records)} objects")
    names = ("qpos", "global_transl", "global_orient", "object_transl", "object_orient")
    raw = take(records[0], names, where, matrices=True, mjcf=mjcf)
    count = len(raw.q)
    notes: list[str] = []
    scene, stamps = _scene(files, at, count, notes)
    rows = _object_rows(scene, len(raw.p_object), notes)
    known = rows >= 0
    frames = raw.frames(rows, where, notes)
    wrist, wrist_known = _wrist(files, at, stamps, notes)
    frames = dataclasses.replace(
        frames,
        time=_time(files, at, scene, notes),
        usable=frames.usable & known & (stamps != 0),
        wrist=wrist,
        wrist_known=wrist_known,
        contact=_contact(files, at, scene, notes),
        segments=_segments(files, at, scene, notes),
    )
    return finished(frames, notes)


def read_sequence(files: Files, name: str, *, mjcf: bool = False) -> Frames:
    """Reads a training sequence, `<object>/<k>.npz`.

    Raises:
        DatasetError: The file is damaged or does not keep the layout.
    """
    where = f"{files.where}/{name}"
    arrays = npz.parse(files.read(name, npz.MAX_EXPANDED_BYTES), where)
    names = ("qpos", "hand_transl", "hand_orient", "object_transl", "object_orient")
    raw = take(arrays, names, where, matrices=False, mjcf=mjcf)
    notes: list[str] = []
    scene = np.arange(len(raw.q))
    frames = raw.frames(_object_rows(scene, len(raw.p_object), notes), where, notes)
    points, colors = arrays.get("object_points"), arrays.get("object_colors")
    if points is not None:
        count = len(points) if points.ndim else 0
        if count > MAX_POINTS:
            raise DatasetError(f"{where}: {count} points; at most {MAX_POINTS} are read")
        points = table(points, (count, 3), f"{where}: object_points")
        whole = np.isfinite(points).all(axis=1)
        if colors is not None:
            colors = table(colors, points.shape, f"{where}: object_colors")[whole]
        points = points[whole]
    frames = dataclasses.replace(
        frames,
        time=scene / RATE,
        segments=((0, len(scene)),),
        points=points,
        colors=None if points is None else colors,
    )
    return finished(frames, notes)


def _scene(
    files: Files, at: PurePosixPath, count: int, notes: list[str]
) -> tuple[Int[np.ndarray, " t"], Int[np.ndarray, " t"]]:
    """Scene frame and robot time stamp (ns) of each row; stamp 0 is a failed synchronisation.

    Where the file is absent, rows are frames and every stamp is -1.
    """
    name = str(at / "scene_to_mesh.json")
    plain = np.arange(count), np.full(count, -1)
    if not _has(files, name):
        return plain
    where = f"{files.where}/{name}"
    try:
        pairs = {int(k): str(v) for k, v in dict(json.loads(_text(files, name))).items()}
        scene = np.array(sorted(pairs), np.int64)
        stems = [PurePosixPath(pairs[k]).stem for k in sorted(pairs)]
        times = [0 if s == LOST else textfile.stamp(s, where) for s in stems]
        stamps = np.array(times, np.int64)
    except (ValueError, TypeError, OverflowError, RecursionError, AttributeError) as error:
        raise DatasetError(f"{where} does not map frames to time stamps: {error}") from error
    if len(scene) != count:
        notes.append(f"{count} rows, but {len(scene)} in scene_to_mesh.json: rows taken as frames")
        return plain
    if scene[0] < 0 or scene[-1] > MAX_ROWS:
        raise DatasetError(f"{where}: frames {scene[0]} to {scene[-1]}; 0 to {MAX_ROWS} are read")
    tell(notes, stamps == 0, "no robot time was found")
    return scene, stamps


def _object_rows(
    scene: Int[np.ndarray, " t"], count: int, notes: list[str]
) -> Int[np.ndarray, " t"]:
    """The object's row that belongs to each row of the hand, -1 where there is none.

    Object poses are stored one a scene frame, hand poses one a synchronised frame; mostly the two
    are the same. Where frames are missing at the start or within, rows are matched by frame.
    """
    by_row = np.arange(len(scene))
    if scene[-1] != by_row[-1] and count > scene[-1]:
        notes.append("frames are missing among the hand's rows; object poses matched by frame")
        by_row = scene
    elif count != len(scene):
        notes.append(
            f"{len(scene)} rows of the hand, {count} of the object: their common start is used"
        )
    return np.where(by_row < count, by_row, -1)


def _time(
    files: Files, at: PurePosixPath, scene: Int[np.ndarray, " t"], notes: list[str]
) -> Float[np.ndarray, " t"]:
    """Seconds of each row after the first, by the camera's clock or at its nominal rate."""
    name = str(at / "rgbimage_timestamp.txt")
    even = (scene - scene[0]) / RATE
    if not _has(files, name):
        return even
    stamps = _numbers(files, name, 1)[:, 0]
    if len(stamps) <= scene[-1]:
        notes.append(f"{len(stamps)} camera stamps for {scene[-1] + 1} frames: {RATE:g} Hz assumed")
        return even
    time = (stamps[scene] - stamps[scene[0]]) * 1e-9
    if not ((np.diff(time) > _MIN_STEP).all() and time[-1] < _MAX_TIME):
        notes.append(f"camera stamps do not rise evenly: {RATE:g} Hz assumed")
        return even
    return time


def _wrist(
    files: Files, at: PurePosixPath, stamps: Int[np.ndarray, " t"], notes: list[str]
) -> tuple[Float[np.ndarray, "t 2"] | None, Bool[np.ndarray, " t"] | None]:
    """WRJ2 and WRJ1 (rad) from the link poses at each row's robot time, and where they are known.

    Elsewhere they are the nearest known ones; without a file or a time there are none.
    """
    edges = (("rh_forearm-rh_wrist", tf_series.WRIST[0]), ("rh_wrist-rh_palm", tf_series.WRIST[1]))
    names = [str(at / "TF" / f"{edge}.txt") for edge, _ in edges]
    if not all(_has(files, name) for name in names):
        return None, None
    if (stamps < 0).any():
        notes.append(
            "TF has the wrist, but scene_to_mesh.json does not say at which times: taken as zero"
        )
        return None, None
    angles, known = np.zeros((len(stamps), 2)), stamps > 0
    for column, (name, (edge, (_, _, axis))) in enumerate(zip(names, edges, strict=True)):
        read = tf_series.parse_edge(_text(files, name, _EDGE), f"{files.where}/{name}")
        local, near = tf_series.sample(read, stamps)
        known &= near
        try:
            turn = tf_series.joint_angle(local[:, :4], np.eye(3), np.array(axis), edge, near)
        except DatasetError:
            notes.append(f"TF/{edge}.txt does not turn about its joint alone: wrist taken as zero")
            return None, None
        angles[:, column] = turn
    far = ~known & (stamps > 0)
    if far.any():
        notes.append(
            f"{far.sum()} of {len(far)} frames, from {far.argmax()}, lie in a gap of what TF tells "
            "of the wrist: "
            + ("taken from the nearest message" if known.any() else "wrist taken as zero")
        )
    return (angles, known) if known.any() else (None, None)


def _contact(
    files: Files, at: PurePosixPath, scene: Int[np.ndarray, " t"], notes: list[str]
) -> Bool[np.ndarray, " t"] | None:
    """Rows listed as contact; frames that are no rows are left out."""
    for stem in ("contact", "contact_v2"):
        name = str(at / f"{stem}.txt")
        if _has(files, name):
            frames = _numbers(files, name, 1)[:, 0]
            if not len(frames):
                notes.append(f"{stem}.txt lists no frame in contact")
            listed = np.isin(frames, scene)
            if not listed.all():
                notes.append(f"{np.sum(~listed)} contact frames beyond the recording left out")
            return np.isin(scene, frames[listed])
    return None


def _segments(
    files: Files, at: PurePosixPath, scene: Int[np.ndarray, " t"], notes: list[str]
) -> tuple[tuple[int, int], ...] | None:
    """Rows [start, end) of each grasp, clipped to the recording."""
    name = str(at / "segment.txt")
    if not _has(files, name):
        return None
    return clip_segments(_numbers(files, name, 2), scene, notes)


def _has(files: Files, name: str) -> bool:
    at = bisect.bisect_left(files.names, name)
    return at < len(files.names) and files.names[at] == name


def _text(files: Files, name: str, most: int = _TEXT) -> str:
    try:
        return files.read(name, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{files.where}/{name} is not text: {error}") from error


def _numbers(files: Files, name: str, width: int) -> Float[np.ndarray, "n w"]:
    """Numbers of a text file, `width` to a line; times in ns as float64, as the release has them.

    Raises:
        DatasetError: Another width, or something that is no number.
    """
    lines = [line.split() for line in _text(files, name).splitlines() if line.strip()]
    for number, words in enumerate(lines, start=1):
        if len(words) != width:
            raise DatasetError(
                f"{files.where}/{name}, row {number}: {len(words)} numbers; it must have {width}"
            )
    try:
        table = np.array(lines, np.float64).reshape(len(lines), width)
    except ValueError as error:
        raise DatasetError(f"{files.where}/{name}: {str(error)[:200]}") from error
    sane = np.abs(table) < _LARGEST
    if not sane.all():
        row = int(np.argmin(sane.all(axis=1)))
        raise DatasetError(
            f"{files.where}/{name}, row {row + 1}: {' '.join(lines[row])[:200]!r} has a number "
            "that is not finite or no time, place or frame"
        )
    return table
