"""Where the recordings and sequences of an object of the release lie: open, in zips, or in both.

A download may come in several zips, and part of it may be unpacked already; recordings are one if
their folders have one name.
"""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from realdex_jax.data import archive
from realdex_jax.data import realdex_layout as layout
from realdex_jax.data.realdex_layout import Files, Found
from realdex_jax.errors import DatasetError

Kind = Literal["auto", "recordings", "sequences"]

NAMED = 8
"""Names in a message."""
_COPY = re.compile(r"(?P<name>.+?) ?\(\d+\)")  # as browsers name what they fetch once more


class Placed(NamedTuple):
    """A recording or sequence, and what holds it."""

    files: Files
    """The folder or zip."""
    item: Found
    """What of it."""

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.files.where}/{self.item.name}"


def object_of_zip(name: str) -> str | None:
    """The object of the release that a zip is named after, if it is one; a path or a name."""
    stem = PurePosixPath(name).stem
    match = _COPY.fullmatch(stem)
    spelt = layout.spelt(match["name"] if match else stem)
    return spelt if name.endswith(".zip") and spelt in layout.OBJECTS else None


def zips(names: Sequence[str]) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Zips of a listing that are named after an object, by object, and all others."""
    found: dict[str, list[str]] = {}
    others = []
    for name in names:
        if (of := object_of_zip(name)) is not None:
            found.setdefault(of, []).append(name)
        elif name.endswith(".zip"):
            others.append(name)
    return {of: tuple(mine) for of, mine in found.items()}, tuple(others)


def gather(
    unit: str, lying: Sequence[Placed], paths: Sequence[Path], notes: list[str], *, md5: bool
) -> tuple[list[Placed], list[Files]]:
    """What lies open of an object, and what its zips have beside.

    Args:
        unit: The object.
        lying: What lies open.
        paths: Its zips. One that cannot be used is noted, if anything else is there.
        notes: Told what is passed over.
        md5: Whether a zip that is needed is compared with `md5.txt` beside it.

    Returns:
        The recordings and sequences, and the zips that hold some of them.

    Raises:
        DatasetError: There is nothing.
    """
    found, used, refused = list(lying), [], []
    for path in paths:
        try:
            files = _opened(path, md5)
            inside = layout.find(files.names, unit)
            mine = [Placed(files, item) for item in inside if item.object == unit]
            if not mine:
                raise DatasetError(f"{path} holds no recording of {unit}{_instead(files, unit)}")
            have = {_key(placed) for placed in found}
            new = [placed for placed in mine if _key(placed) not in have]
            if new and md5:
                _check_md5(path, notes)
        except DatasetError as error:
            refused.append(str(error))
            continue
        others = sorted({item.object for item in inside} - {unit})
        if others:
            notes.append(f"left out: what {path} holds of {', '.join(others[:NAMED])}")
        if len(new) < len(mine):
            notes.append(f"{len(mine) - len(new)} of {len(mine)} in {path} are there already")
        if new:
            found += new
            used.append(files)
    if not found and refused:
        raise DatasetError(refused[0])
    notes += [f"left out: {reason}" for reason in refused]
    return found, used


def choose(placed: Sequence[Placed], kind: Kind, notes: list[str]) -> list[Placed]:
    """What is read: of one kind, each recording once."""
    kinds = {"recordings": "recording", "sequences": "sequence"}
    if kind == "auto":
        recorded = any(item.kind == "recording" for _, item in placed)
        wanted = "recording" if recorded else "sequence"
        left = sum(item.kind != wanted for _, item in placed)
        if left:
            notes.append(f"{left} sequences are left out: they are cut from the recordings")
    else:
        wanted = kinds[kind]
    chosen: dict[tuple[str, str], Placed] = {}
    for one in placed:
        if one.item.kind == wanted:
            first = chosen.setdefault(_key(one), one)
            if first is not one:
                notes.append(f"{one.item.name} is left out: {first.item.name} has the same name")
    return list(chosen.values())


def _key(placed: Placed) -> tuple[str, str]:
    """What is equal for two of the same; sequences have but numbers, so they differ by place."""
    kind, name = placed.item.kind, placed.item.name
    return kind, PurePosixPath(name).name if kind == "recording" else placed.where


def _opened(path: Path, md5: bool) -> Files:
    """The zip; one that is damaged and known to be so by its sum is refused by that."""
    try:
        return archive.open_archive(path)
    except DatasetError:
        if md5:
            _check_md5(path, [])
        raise


def _check_md5(path: Path, notes: list[str]) -> None:
    sums = path.parent / "md5.txt"
    if sums.is_file() and not archive.check_md5(path, archive.read_md5(sums)):
        notes.append(f"md5.txt has no sum for {path.name}")


def _instead(files: Files, unit: str) -> str:
    """What a download holds where its object's recordings are missing, for messages."""
    others = sorted({item.object for item in layout.find(files.names, unit)} - {unit})
    if others:
        return f", but of {', '.join(others[:NAMED])}"
    what = ", ".join(files.names[:NAMED]) if files.names else "nothing"
    more = f" and {len(files.names) - NAMED} more" if len(files.names) > NAMED else ""
    return (
        f": no {unit}_<n>[_<yyyymmdd>]/{layout.FINAL} and no <number>.npz of it; it holds "
        f"{what}{more}"
    )
