"""Motions as a LeRobotDataset, version 3.0: parquet tables, mp4 files and a JSON index.

    export.json                                          marks the folder as ours
    meta/info.json, stats.json                           features, sizes and statistics
    meta/tasks.parquet                                   a sentence per object
    meta/episodes/chunk-000/file-000.parquet             a row per motion: where it is, statistics
    data/chunk-000/file-000.parquet                      a row per frame
    videos/observation.images.NAME/chunk-000/file-000.mp4  on request

An episode is a motion. Its state is the pose of the hand, its action the pose to be at next; the
last action is the squeeze: the fingers' targets that press on the object. The object rests.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from realdex_jax.data import folder, footage
from realdex_jax.data.footage import CHUNK, FPS, QUANTILES, VIDEO, Camera, place
from realdex_jax.data.motion_set import MotionSet
from realdex_jax.errors import DatasetError
from realdex_jax.hand import joints

VERSION = "v3.0"
"""Of the format."""
MARK = "export.json"
"""Without it, a folder is not ours and is not replaced."""
_MARK = {"format": "realdex_jax.lerobot/1"}
ROBOT = "shadow_hand"

STATE = (
    *joints.NAMES,
    *("palm_x", "palm_y", "palm_z"),
    *("palm_axis_angle_x", "palm_axis_angle_y", "palm_axis_angle_z"),
)
"""Names of a pose's 28 numbers: rad, m, rad; in the world."""
OBJECT = tuple(f"object_{axis}" for axis in ("qw", "qx", "qy", "qz", "x", "y", "z"))
"""Names of the object's pose: quaternion, and position in m; in the world."""

DATA_MB, VIDEO_MB = 100, 200
"""Largest table and largest video, MB, unless one episode is larger."""
_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_OVERHEAD = 4000
"""Bytes that a table says about an episode, beside its values; a little more than it is."""
_REPEATED = ["episode_index", "task_index"]
_EPISODES = "meta/episodes/chunk-000/file-000.parquet"


def check_target(path: Path | str) -> None:
    """Refuses a place at which an export would replace something else.

    Raises:
        DatasetError: There is something, and it is neither an empty folder nor an export of ours.
    """
    path = Path(path)
    try:
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return
        if json.loads((path / MARK).read_text(encoding="utf-8")) == _MARK:
            return
    except (FileNotFoundError, NotADirectoryError, ValueError):
        pass
    except OSError as error:
        raise DatasetError(f"cannot look into {path}: {error.strerror}") from error
    raise DatasetError(
        f"{path} is neither an empty folder nor an export of this kind (a folder with {MARK} of "
        "this format); name a new folder"
    )


def task_of(name: str) -> str:
    """What a hand does with an object, as a sentence."""
    return f"grasp the {name.partition('@')[0].replace('_', ' ')}"


def write(
    path: Path | str,
    motions: MotionSet,
    *,
    splits: Mapping[str, int] | None = None,
    cameras: Sequence[Camera] = (),
    task: Callable[[str], str] = task_of,
    data_mb: int = DATA_MB,
    video_mb: int = VIDEO_MB,
    done: Callable[[int], object] = lambda _: None,
) -> Path:
    """Writes motions, whole or not at all; an export of ours at the same place is replaced.

    Args:
        path: The folder.
        motions: The motions; one episode each, in this order.
        splits: Motions of each part, in order; all are "train" if not given.
        cameras: Pictures to add as videos.
        task: The sentence of an object's name.
        data_mb: Largest table.
        video_mb: Largest video.
        done: Told the number of each motion that is written.

    Raises:
        DatasetError: No motion, parts that do not add up, cameras that cannot be used, something
            else at `path`, no pyarrow, or the files cannot be written.
    """
    path = Path(path)
    check_target(path)
    _check(motions, splits, cameras, data_mb, video_mb)
    path = path.resolve()
    fresh: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        _fill(
            fresh,
            motions,
            splits or {"train": len(motions)},
            cameras,
            task,
            (data_mb, video_mb),
            done,
        )
        folder.exchange(fresh, path, MARK)
    except OSError as error:
        raise DatasetError(
            f"cannot write {path}: {error.strerror or error}; nothing was changed"
        ) from error
    finally:
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)
    return path


def _check(
    motions: MotionSet,
    splits: Mapping[str, int] | None,
    cameras: Sequence[Camera],
    data_mb: int,
    video_mb: int,
) -> None:
    if not len(motions):
        raise DatasetError("no motions to export; a dataset has at least one")
    if splits is not None and (sum(splits.values()) != len(motions) or min(splits.values()) < 0):
        raise DatasetError(f"parts {dict(splits)} do not add up to {len(motions)} motions")
    if min(data_mb, video_mb) < 1:
        raise DatasetError(f"files of {data_mb} and {video_mb} MB; both must be at least one")
    names = [camera.name for camera in cameras]
    for name in names:
        footage.check_name(name)
        if names.count(name) > 1:
            raise DatasetError(f"two cameras are called {name!r}; each has a name of its own")


def _fill(
    folder: Path,
    motions: MotionSet,
    splits: Mapping[str, int],
    cameras: Sequence[Camera],
    task: Callable[[str], str],
    megabytes: tuple[int, int],
    done: Callable[[int], object],
) -> None:
    """Writes all files of an export."""
    tasks = list(dict.fromkeys(task(motions.name(i)) for i in range(len(motions))))
    columns = _columns(
        motions, np.array([tasks.index(task(motions.name(i))) for i in range(len(motions))])
    )
    rows: list[dict[str, Any]] = []
    for i, (first, last) in enumerate(zip(motions.first[:-1], motions.first[1:], strict=True)):
        rows.append(
            {
                "episode_index": i,
                "tasks": [task(motions.name(i))],
                "length": int(last - first),
                "dataset_from_index": int(first),
                "dataset_to_index": int(last),
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
                **_flat({key: statistics(value[first:last]) for key, value in columns.items()}),
            }
        )
    _write_data(folder, motions, columns, rows, 1_000_000 * megabytes[0])
    stats = {key: statistics(value) for key, value in columns.items()}
    videos = {}
    for camera in cameras:
        film = footage.shoot(folder, camera, motions.lengths(), 1_000_000 * megabytes[1], done)
        videos[camera.key], stats[camera.key] = film.feature, film.statistics
        for row, episode, found in zip(rows, film.episodes, film.each, strict=True):
            row.update({f"videos/{camera.key}/{name}": v for name, v in episode.items()})
            row.update(_flat({camera.key: found}))
    if not cameras:
        for i in range(len(motions)):
            done(i)
    info = {
        "codebase_version": VERSION,
        "robot_type": ROBOT,
        "total_episodes": len(motions),
        "total_frames": len(motions.phi),
        "total_tasks": len(tasks),
        "chunks_size": CHUNK,
        "data_files_size_in_mb": megabytes[0],
        "video_files_size_in_mb": megabytes[1],
        "fps": FPS,
        "splits": _ranges(splits),
        "data_path": _DATA,
        "video_path": VIDEO if cameras else None,
        "features": {**_features(columns), **videos},
    }
    _write_table(folder / _EPISODES, rows)
    _write_tasks(folder / "meta" / "tasks.parquet", tasks)
    for name, value in (("meta/info.json", info), ("meta/stats.json", stats), (MARK, _MARK)):
        (folder / name).write_text(json.dumps(value, indent=4, allow_nan=False) + "\n", "utf-8")


def _columns(motions: MotionSet, task: Int[np.ndarray, " n"]) -> dict[str, np.ndarray]:
    """All frames of all motions, by feature."""
    phi = np.asarray(motions.phi, np.float32)
    lengths = motions.lengths()
    episode = np.repeat(np.arange(len(motions)), lengths)
    frame = np.arange(len(phi)) - np.repeat(motions.first[:-1], lengths)
    return {
        "observation.state": phi,
        "observation.environment_state": np.repeat(
            np.asarray(motions.wxyz_xyz_world_object, np.float32), lengths, axis=0
        ),
        "action": actions(motions),
        "timestamp": (frame / FPS).astype(np.float32),
        "frame_index": frame.astype(np.int64),
        "episode_index": episode.astype(np.int64),
        "index": np.arange(len(phi), dtype=np.int64),
        "task_index": np.repeat(task, lengths).astype(np.int64),
    }


def actions(motions: MotionSet) -> Float[np.ndarray, "f 28"]:
    """The pose to be at next, for each frame; after the last, the squeeze where the palm is."""
    phi = np.asarray(motions.phi, np.float32)
    last = motions.first[1:] - 1
    following = np.concatenate([phi[1:], phi[-1:]])
    following[last] = phi[last]
    following[last, :22] = np.asarray(motions.q_squeeze, np.float32)
    return following


def statistics(values: np.ndarray) -> dict[str, list[float] | list[int]]:
    """What the format wants to know of a feature, over its first axis."""
    table = values.reshape(len(values), -1)
    exact = table.astype(np.float64)
    found = {
        "min": table.min(axis=0),
        "max": table.max(axis=0),
        "mean": exact.mean(axis=0),
        "std": exact.std(axis=0),
        "count": np.array([len(table)]),
    }
    quantiles = np.quantile(exact, list(QUANTILES.values()), axis=0)
    found |= dict(zip(QUANTILES, quantiles, strict=True))
    return {name: value.tolist() for name, value in found.items()}


def _features(columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The index's description of the table's columns."""
    names: dict[str, Sequence[str]] = {
        "observation.state": STATE,
        "observation.environment_state": OBJECT,
        "action": STATE,
    }
    return {
        key: {
            "dtype": str(value.dtype),
            "shape": [value.shape[1] if value.ndim > 1 else 1],
            "names": list(names[key]) if key in names else None,
        }
        for key, value in columns.items()
    }


def _ranges(splits: Mapping[str, int]) -> dict[str, str]:
    """Episodes of each part as "first:end"; parts without any are left out."""
    ends = np.cumsum(list(splits.values())).tolist()
    return {
        part: f"{end - count}:{end}"
        for (part, count), end in zip(splits.items(), ends, strict=True)
        if count
    }


def _flat(stats: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Statistics as columns of the episodes' table."""
    return {f"stats/{key}/{name}": v for key, found in stats.items() for name, v in found.items()}


def _write_data(
    folder: Path,
    motions: MotionSet,
    columns: Mapping[str, np.ndarray],
    rows: list[dict[str, Any]],
    limit: int,
) -> None:
    """The tables of frames, a row group for each episode; adds to `rows` where each episode is."""
    pa, parquet = _pyarrow()
    schema = pa.schema([(key, _arrow_type(value)) for key, value in columns.items()])
    width = sum(value[:1].nbytes for value in columns.values())
    number, filled, writer = -1, 0, None
    try:
        for row, first, last in zip(rows, motions.first[:-1], motions.first[1:], strict=True):
            size = width * int(last - first) + _OVERHEAD
            if writer is None or filled + size > limit:
                if writer is not None:
                    writer.close()
                number, filled = number + 1, 0
                path = folder / _DATA.format(**place(number))
                path.parent.mkdir(parents=True, exist_ok=True)
                writer = parquet.ParquetWriter(path, schema, use_dictionary=_REPEATED)
            arrays = [
                _arrow(value[first:last], schema.field(key).type) for key, value in columns.items()
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            filled += size
            row.update({f"data/{name}": index for name, index in place(number).items()})
    finally:
        if writer is not None:
            writer.close()


def _arrow_type(value: np.ndarray) -> Any:
    pa, _ = _pyarrow()
    single = pa.from_numpy_dtype(value.dtype)
    return single if value.ndim == 1 else pa.list_(single, value.shape[1])


def _arrow(value: np.ndarray, kind: Any) -> Any:
    pa, _ = _pyarrow()
    if value.ndim == 1:
        return pa.array(value, kind)
    return pa.FixedSizeListArray.from_arrays(pa.array(value.ravel()), type=kind)


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    pa, parquet = _pyarrow()
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path)


def _write_tasks(path: Path, tasks: Sequence[str]) -> None:
    """Sentences and their numbers; the format's readers expect the sentences as pandas' index."""
    pa, parquet = _pyarrow()

    def column(name: str | None, kind: str, stored: str, note: Any = None) -> dict[str, Any]:
        described = {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": stored}
        return {**described, "metadata": note}

    described = {
        "index_columns": ["task"],
        "column_indexes": [column(None, "unicode", "object", {"encoding": "UTF-8"})],
        "columns": [
            column("task_index", "int64", "int64"),
            column("task", "unicode", "object"),
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": list(tasks)})
    parquet.write_table(table.replace_schema_metadata({"pandas": json.dumps(described)}), path)


def _pyarrow() -> tuple[Any, Any]:
    """The packages that write parquet; imported here only."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise DatasetError(
            "LeRobot's tables need pyarrow: pip install 'realdex_jax[lerobot]'"
        ) from error
    return pyarrow, pyarrow.parquet
