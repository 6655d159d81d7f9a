"""Folders that are replaced whole or not at all, by two renames that a kill cannot tear."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

from realdex_jax.errors import DatasetError

INDEX = "dataset.json"
"""The file that makes a folder a dataset."""


def check_target(path: str | Path) -> None:
    """Refuses a place at which writing a dataset would have to destroy something else.

    Raises:
        DatasetError: There is something, and it is neither an empty folder nor a dataset of ours
            with nothing beside its own files in it; or the place is inside a dataset.
    """
    path = Path(path)
    try:
        for outer in path.resolve().parents:
            if _own_files(outer / INDEX) is not None:
                raise DatasetError(f"{path} lies inside the dataset {outer}; name a folder outside")
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return
        own = _own_files(path / INDEX) if path.is_dir() else None
        if own is not None:
            other = first_other(path, own | {INDEX})
            if other:
                raise DatasetError(
                    f"{path} is a dataset, but {other} in it is none of its files and would be "
                    "lost; move it, or name a new folder"
                )
            return
    except OSError as error:
        raise DatasetError(f"cannot look into {path}: {error}") from error
    raise DatasetError(
        f"{path} is neither an empty folder nor a dataset of ours (a folder with our {INDEX}), so "
        "it is not replaced; name a new folder"
    )


def _own_files(index: Path) -> frozenset[str] | None:
    """Files that a dataset of ours lists; None if the index is not ours."""
    try:
        if not index.is_file():
            return None
        meta = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    ours = isinstance(meta, dict) and {"format", "hand", "joints", "digests"} <= meta.keys()
    return frozenset(meta["digests"]) if ours and isinstance(meta["digests"], dict) else None


def first_other(path: Path, own: Collection[str]) -> str:
    """A file in a folder that is not one of its own; empty if there is none.

    Args:
        path: The folder.
        own: Its files, relative to it.
    """
    for folder, _, names in os.walk(path):
        for name in names:
            relative = (Path(folder) / name).relative_to(path).as_posix()
            if relative not in own:
                return relative
    return ""


def swap_in(path: Path, files: Mapping[str, bytes]) -> None:
    """Writes `files` to a temporary sibling, then exchanges it with `path`."""
    fresh = begin(path)
    try:
        for relative, content in files.items():
            write_synced(fresh / relative, content)
        exchange(fresh, path)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def begin(path: Path, index: str = INDEX) -> Path:
    """A new temporary sibling of `path`, where a swap that was killed is undone first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    put_back(path, index)
    return Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))


def write_synced(target: Path, content: bytes) -> None:
    """Writes a file and waits until it is on the disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())


def exchange(fresh: Path, path: Path, index: str = INDEX) -> None:
    """Puts a finished folder in the place of `path`, whose old content goes.

    Args:
        fresh: The new folder, on the same disk.
        path: Its place.
        index: File without which a folder is not whole.

    Raises:
        OSError: It cannot be moved; what was at `path` is there still.
    """
    put_back(path, index)
    old = _set_aside(path)
    fresh.chmod(0o755)
    _discard(old, index)
    if path.exists():
        path.replace(old)
    try:
        fresh.replace(path)
    except OSError:
        if old.exists():
            old.replace(path)
        raise
    _discard(old, index)


def put_back(path: Path, index: str = INDEX) -> None:
    """Undoes a swap that was killed halfway.

    Raises:
        DatasetError: The old dataset cannot be moved back.
    """
    path = path.resolve()
    old = _set_aside(path)
    if path.exists() or not (old / index).is_file():
        return
    try:
        old.replace(path)
    except OSError as error:
        raise DatasetError(
            f"a write to {path} was interrupted, and the old dataset could not be moved back from "
            f"{old}: {error}"
        ) from error


def _set_aside(path: Path) -> Path:
    """Where the old dataset is between the two renames of a write."""
    return path.parent / f".{path.name}.old"


def _discard(old: Path, index: str) -> None:
    """Removes an old copy, its index first, so that half of one is never put back."""
    with contextlib.suppress(OSError):
        (old / index).unlink(missing_ok=True)
    shutil.rmtree(old, ignore_errors=True)
