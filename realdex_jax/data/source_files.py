"""What the files of a foreign dataset look like from outside, so that a change of one is seen.

Sizes and times are summed up by unit: files whose path names a unit belong to it, all others to
every unit. Nothing is opened.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from realdex_jax.errors import DatasetError

PICTURES = (".jpg", ".jpeg", ".png")
"""Files that no reader of a dataset opens; a download has hundreds of thousands."""

_SHARED = ""
_BITS = 128


def state(
    paths: Iterable[Path], units: Iterable[str], without: Iterable[Path] = ()
) -> dict[str, str]:
    """Sums over names, sizes and times of files, by what precedes the "@" of a unit.

    Args:
        paths: Folders, or files.
        units: Units of the source.
        without: Folders that are passed over: what is made of it may lie inside.

    Returns:
        A sum for each unit that has files, and one under "" for files that name no unit.

    Raises:
        DatasetError: A folder cannot be looked into.
    """
    stems = {_stem(unit) for unit in units}
    passed = {os.path.realpath(folder) for folder in without}
    sums: dict[str, int] = {}
    try:
        for path in paths:
            for relative, status in _files(path, passed):
                line = f"{relative}\0{status.st_size}\0{status.st_mtime_ns}"
                digest = hashlib.sha256(line.encode("utf-8", "surrogateescape")).digest()
                for owner in _owners(relative, stems) or (_SHARED,):
                    # A sum does not depend on the order in which a disk lists names.
                    sums[owner] = (sums.get(owner, 0) + int.from_bytes(digest)) % 2**_BITS
    except OSError as error:
        raise DatasetError(f"cannot look at {error.filename}: {error.strerror}") from error
    return {owner: f"{value:x}" for owner, value in sorted(sums.items())}


def changed(unit: str, before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether a file that may belong to the unit is another than it was."""
    return any(before.get(key) != now.get(key) for key in (_SHARED, _stem(unit)))


def _stem(unit: str) -> str:
    return unit.partition("@")[0]


def _files(path: Path, passed: set[str]) -> Iterator[tuple[str, os.stat_result]]:
    """Files below a path, links followed; no folder is entered twice."""
    if not path.is_dir():
        yield path.name, path.stat()
        return
    seen: set[tuple[int, int]] = set()
    for folder, below, names in os.walk(path, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen or os.path.realpath(folder) in passed:
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below.sort()  # by which of two ways a folder is entered does not depend on the disk
        for name in names:
            if name.lower().endswith(PICTURES):
                continue
            full = os.path.join(folder, name)
            with contextlib.suppress(OSError):  # a link to nowhere; its reader will say so
                yield os.path.relpath(full, path), os.stat(full)


def _owners(relative: str, stems: set[str]) -> set[str]:
    """Units that a path names: a part of it is one, or begins with one and then something else."""
    found = set()
    for part in relative.split(os.sep):
        ends = [len(part), *(m.start() for m in re.finditer("[^0-9A-Za-z]", part))]
        named = [part[:end] for end in ends if part[:end] in stems]
        if named:
            found.add(max(named, key=len))
    return found
