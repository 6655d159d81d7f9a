"""Zip archives from the internet: looked through before a byte of them is written.

A zip may name files outside the folder it is unpacked to, links, devices, or names that fall
together on some disks; it may expand to more than the disk holds. Every member is checked first,
and one that breaks a rule refuses the whole archive.
"""

import collections
import dataclasses
import hashlib
import io
import os
import re
import shutil
import stat
import struct
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from realdex_jax.data import regular
from realdex_jax.errors import DatasetError

MAX_MEMBERS = 300_000
"""Most files in one archive, and most folders; a recording of RealDex has up to 28,000 files."""
MAX_RATIO = 100
"""Most bytes that one stored byte may expand to: in all, and in each member above
`RATIO_FROM`."""
RATIO_FROM = 2**20
"""Bytes from which a member's own ratio counts; a page of equal rows shrinks more, and harms
nobody."""
MAX_TOTAL = 64 * 2**30
"""Most bytes an archive may expand to; the largest download has 18 GB."""
MAX_NAME = 1024
"""Longest name of a member, characters."""

DIRECTORY_BYTES = 512
"""Most bytes a member may have in the table of contents, which the zip module reads whole."""

_INSTEAD = "if you trust it, unpack it yourself and name the folder"
_CHUNK = 2**20
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)
"""What the zip module raises on a damaged archive."""


@dataclasses.dataclass(frozen=True, eq=False)
class Archive:
    """A zip that passed every check."""

    path: Path
    """The file."""
    names: tuple[str, ...]
    """Names of the files inside, sorted; folders are left out."""
    sizes: Mapping[str, int]
    """Bytes of each, unpacked."""

    @property
    def where(self) -> str:
        """The file, for messages."""
        return str(self.path)

    def read(self, name: str, limit: int) -> bytes:
        """The content of one file.

        Args:
            name: One of `names`.
            limit: Most bytes that are read.

        Raises:
            DatasetError: No such file, more than `limit` bytes, or damaged.
        """
        if name not in self.sizes:
            raise DatasetError(f"{self.path} holds no {name!r}")
        if self.sizes[name] > limit:
            raise DatasetError(
                f"{self.path}: {name} has {self.sizes[name]} bytes; at most {limit} are read"
            )
        try:
            with zipfile.ZipFile(self.path) as archive:
                return content(archive, archive.getinfo(name))
        except _BROKEN as error:
            raise DatasetError(f"{self.path}: {name} is damaged ({error})") from error


def open_archive(path: str | Path, *, max_total: int = MAX_TOTAL) -> Archive:
    """Looks through a zip; nothing is unpacked.

    Args:
        path: The file.
        max_total: Most bytes it may expand to.

    Raises:
        DatasetError: Not a zip, damaged, or refused: the message names the member and the rule.
    """
    path = Path(path)
    try:
        regular.size(path)
        with path.open("rb") as stream:
            check_directory(stream, path, MAX_MEMBERS)
        with zipfile.ZipFile(path) as archive:
            found = archive.infolist()
    except DatasetError:
        raise
    except _BROKEN as error:
        raise DatasetError(f"{path} is not a readable zip: {error}") from error
    if len(found) > MAX_MEMBERS:
        raise DatasetError(
            f"{path} has {len(found)} members; at most {MAX_MEMBERS} are read: {_INSTEAD}"
        )
    for member in found:
        _check_member(member, path)
    _check_sizes(found, path, max_total)
    _check_names([member.filename for member in found], path)
    sizes = {m.filename: m.file_size for m in found if not m.is_dir()}
    return Archive(path, tuple(sorted(sizes)), sizes)


def extract(
    path: str | Path,
    target: str | Path,
    *,
    wanted: Callable[[str], bool] = lambda _: True,
    max_total: int = MAX_TOTAL,
) -> Path:
    """Unpacks a zip into a new folder, whole or not at all.

    Args:
        path: The zip.
        target: The folder; it may not exist.
        wanted: Told a file's name, says whether it is unpacked.
        max_total: Most bytes the archive may expand to.

    Raises:
        DatasetError: The archive is refused (see `open_archive`) or damaged, `target` exists, or
            the disk is too small. Nothing is left behind.
    """
    target = Path(target)
    archive = open_archive(path, max_total=max_total)
    if target.exists():
        raise DatasetError(f"{target} is there already; name a new folder")
    chosen = [name for name in archive.names if wanted(name)]
    need = sum(archive.sizes[name] for name in chosen)
    fresh: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(target.parent).free
        if need > free:
            raise DatasetError(f"{path} needs {need} bytes at {target.parent}; {free} are free")
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        with zipfile.ZipFile(path) as stream:
            for name in chosen:
                _write_member(stream, name, fresh / name, archive.sizes[name])
        fresh.chmod(0o755)
        fresh.replace(target)
    except BaseException as error:
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)
        if isinstance(error, DatasetError) or not isinstance(error, _BROKEN):
            raise
        raise DatasetError(f"{path} could not be unpacked to {target}: {error}") from error
    return target


def read_md5(path: str | Path) -> dict[str, str]:
    """MD5 sums of files by their names, from lines `sum name` as md5sum writes them.

    Raises:
        DatasetError: The file cannot be read, or a line is no such pair.
    """
    path = Path(path)
    try:
        if path.stat().st_size > 2**20:
            raise DatasetError(f"{path} is larger than a list of sums can be")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is not a list of MD5 sums: {error}") from error
    sums: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        found = re.fullmatch(r"([0-9a-fA-F]{32})\s+\*?(.+?)\s*", line)
        if found is None:
            raise DatasetError(f"{path}, line {number}: expected an MD5 sum and a file name")
        sums[PurePosixPath(found[2]).name] = found[1].lower()
    return sums


def check_md5(path: str | Path, sums: Mapping[str, str]) -> bool:
    """Compares a file with its MD5 sum; it tells a broken download, not a hostile one.

    Returns:
        Whether there is a sum for it.

    Raises:
        DatasetError: The sum differs, or the file cannot be read.
    """
    path = Path(path)
    if path.name not in sums:
        return False
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror})") from error
    if digest.hexdigest() != sums[path.name]:
        raise DatasetError(
            f"{path} has MD5 {digest.hexdigest()}, the list says {sums[path.name]}: download it "
            "again"
        )
    return True


def check_directory(stream: io.BufferedIOBase, path: str | Path, members: int) -> None:
    """Bounds the table of contents, which the zip module reads whole before it can be asked.

    Args:
        stream: The zip.
        path: Shown in errors.
        members: Most of them.

    Raises:
        DatasetError: It is no zip, or claims more than so many can need.
    """
    read, seek = stream.read, stream.seek
    size = seek(0, os.SEEK_END)
    seek(max(0, size - 22))
    tail = read(22)
    end = size - 22
    if not (tail.startswith(b"PK\5\6") and tail.endswith(b"\0\0")):
        start = max(0, size - 22 - 2**16)
        seek(start)
        block = read(22 + 2**16)
        at = block.rfind(b"PK\5\6")
        if at < 0 or at + 22 > len(block):
            raise DatasetError(f"{path} is not a zip: it has no end record")
        tail, end = block[at : at + 22], start + at
    claimed = [struct.unpack("<I", tail[12:16])[0]]
    if end >= 20:
        seek(end - 20)
        locator = read(20)
        if locator.startswith(b"PK\6\7"):
            # Above 4 GiB a second record follows right before, and its size counts.
            seek(max(0, end - 76))
            claimed = [struct.unpack("<Q", read(56)[40:48].ljust(8, b"\xff"))[0]]
    if claimed[0] > DIRECTORY_BYTES * members:
        raise DatasetError(
            f"{path} claims a table of contents of {claimed[0]} bytes; "
            f"{DIRECTORY_BYTES * members} are enough for {members} members: {_INSTEAD}"
        )


def content(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The bytes of a member; never more than it claims, which the zip module alone would expand."""
    with archive.open(member) as stream:
        return stream.read(member.file_size)


def _check_member(member: zipfile.ZipInfo, path: Path) -> None:
    """Refuses names that leave the folder, and what is neither file nor folder."""
    name = member.orig_filename

    def refuse(why: str) -> DatasetError:
        return DatasetError(f"{path}: member {name[:200]!r} {why}; nothing was unpacked")

    parts = name.rstrip("/").split("/")
    if name != member.filename or not name.isprintable() or not name.strip("/"):
        raise refuse("has a name with characters that no file name has")
    if name.startswith("/") or "\\" in name or re.match(r"[A-Za-z]:", name):
        raise refuse("is an absolute or Windows path; members lie inside the folder")
    if ".." in parts:
        raise refuse("leaves the folder it is unpacked to")
    if "" in parts or "." in parts or any(p != p.rstrip(". ") for p in parts):
        raise refuse("has an empty part, or one that ends in a dot or a blank")
    if len(name) > MAX_NAME or any(len(p.encode()) > 255 for p in parts):
        raise refuse("has a name longer than disks allow")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise refuse("is a link or a device; only files and folders are unpacked")
    if (kind == stat.S_IFDIR) != member.is_dir() and kind != 0:
        raise refuse("is a folder by its mode or by its name, but not by both")
    if member.flag_bits & 0x1:
        raise refuse("is encrypted")
    if member.is_dir() and member.file_size:
        raise refuse("is a folder with content")


def _check_sizes(found: list[zipfile.ZipInfo], path: Path, max_total: int) -> None:
    total, stored = sum(m.file_size for m in found), sum(m.compress_size for m in found)
    if total > max_total:
        raise DatasetError(
            f"{path} expands to {total} bytes; at most {max_total} are unpacked: {_INSTEAD}"
        )
    size = path.stat().st_size
    if stored > size:
        raise DatasetError(
            f"{path} has {size} bytes and claims {stored} of stored data: members overlap"
        )
    for what, big, small in (
        ("", total, stored),
        *((f": member {m.filename!r}", m.file_size, m.compress_size) for m in found),
    ):
        if big > RATIO_FROM and big > MAX_RATIO * small:
            raise DatasetError(
                f"{path}{what} expands {small} bytes to {big}; more than {MAX_RATIO} to one is "
                "taken for a bomb"
            )


def _check_names(names: list[str], path: Path) -> None:
    """Refuses two names that are one file on some disks, and a file that is also a folder."""
    spelt: dict[str, str] = {}
    files: set[str] = set()
    folders: set[str] = set()
    for name in names:
        folder, _, last = name.rpartition("/")
        if last:
            files.add(name)
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
        if len(folders) > MAX_MEMBERS:
            raise DatasetError(f"{path} has more than {MAX_MEMBERS} folders: {_INSTEAD}")
    twice, count = collections.Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise DatasetError(f"{path}: member {twice!r} is there twice; nothing was unpacked")
    both = files & folders
    if both:
        raise DatasetError(f"{path}: {min(both)!r} is a file and a folder; nothing was unpacked")
    for name in files | folders:
        key = unicodedata.normalize("NFC", name).casefold()
        if spelt.setdefault(key, name) != name:
            raise DatasetError(
                f"{path}: {spelt[key]!r} and {name!r} are one file where case or accents do not "
                "count; nothing was unpacked"
            )


def _write_member(archive: zipfile.ZipFile, name: str, target: Path, size: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with archive.open(name) as source, target.open("xb") as sink:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > size:  # the header lied
                raise DatasetError(
                    f"{archive.filename}: {name} is longer than the {size} bytes it claims"
                )
            sink.write(chunk)
    if written != size:
        raise DatasetError(f"{archive.filename}: {name} has {written} bytes; it claims {size}")
