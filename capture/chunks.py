r"""Files of a recording, to be cut off at any byte: records of two blobs, each with a checksum.

A stream (one camera, or the robot's joints) is a row of files, to whose end records are added and
which are never changed otherwise. A record counts as closed when it is written in whole; what
follows the last whole one is what a killed process had begun. Little-endian:

    file    "RDXREC1\n", size and CRC-32 of a JSON header, the header, records
    record  "RDXF", number u64, device ns i64, host ns i64, sizes of two blobs u32 u32,
            CRC-32 of all but itself u32, the blobs
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import os
import re
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from capture.device import CaptureError

MAGIC = b"RDXREC1\n"
_MARK = b"RDXF"
_SIZES = struct.Struct("<II")
_HEAD = struct.Struct("<4sQqqII")
_CRC = struct.Struct("<I")
_NAME = re.compile(r"([a-z]+\d*)-(\d{5})\.rec")
MAX_HEADER, MAX_BLOB = 2**20, 64 * 2**20
"""Largest header and blob that are written or read, bytes."""
MAX_NUMBER = 2**63 - 1
"""Largest number of a record: arrays that numbers are read into have a bit less than the field."""


class DiskError(CaptureError):
    """A disk that takes no more; what was closed before is whole."""


class UnsyncedError(DiskError):
    """A record that is whole in its file, which the system could not bring to the disk."""


@dataclasses.dataclass(frozen=True)
class Record:
    """One record."""

    number: int
    device_ns: int
    host_ns: int
    first: bytes
    """Colour, or joint angles."""
    second: bytes
    """Depth, or joint speeds."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a verified record is."""

    path: Path
    offset: int
    size: int
    number: int
    device_ns: int
    host_ns: int


@dataclasses.dataclass(frozen=True)
class Scan:
    """What a file holds."""

    path: Path
    header: Mapping[str, Any]
    """Empty where even that is not whole."""
    places: tuple[Place, ...]
    """The longest row of verified records from the file's beginning."""
    whole: int
    """Bytes up to their end."""
    rest: int
    """Bytes after it: a record that was begun, or damage."""


class Writer:
    """Writes one stream; by one thread."""

    def __init__(
        self,
        folder: Path,
        stream: str,
        header: Mapping[str, Any],
        *,
        chunk_bytes: int = 256 * 2**20,
        sync_s: float = 1.0,
    ) -> None:
        """Opens the first file.

        Args:
            folder: Of the recording.
            stream: Its name, `cam0` or `joints`.
            header: What every file of it begins with.
            chunk_bytes: Size from which on a new file is begun.
            sync_s: Seconds of records that a power cut may cost; a killed process costs none.

        Raises:
            DiskError: The folder cannot be written to.
        """
        self.frames, self.bytes = 0, 0
        self._folder, self._stream = folder, stream
        self._header = json.dumps(dict(header)).encode()
        self._chunk_bytes, self._sync_s = chunk_bytes, sync_s
        self._fd, self._size, self._chunk, self._synced = -1, 0, 0, time.monotonic()
        self._open()

    def append(self, record: Record) -> None:
        """Adds a record; it is closed when this returns.

        Raises:
            UnsyncedError: It is written, but the disk refused what was written of late.
            DiskError: It could not be written; the file ends where it did before.
            CaptureError: A blob or the number is too large.
        """
        if not 0 <= record.number <= MAX_NUMBER:
            raise CaptureError(
                f"{self._stream}, record {record.number}: numbers are 0 to {MAX_NUMBER}"
            )
        for blob in (record.first, record.second):
            if len(blob) > MAX_BLOB:
                raise CaptureError(
                    f"{self._stream}, record {record.number}: {len(blob)} bytes, at most {MAX_BLOB}"
                )
        if self._size >= self._chunk_bytes:
            try:
                self.close()
            except UnsyncedError as error:  # of the records before: this one is in no file
                raise DiskError(str(error)) from error
            self._chunk += 1
            self._open()
        sizes = len(record.first), len(record.second)
        head = _HEAD.pack(_MARK, record.number, record.device_ns, record.host_ns, *sizes)
        crc = zlib.crc32(record.second, zlib.crc32(record.first, zlib.crc32(head)))
        self._write([head + _CRC.pack(crc), record.first, record.second])
        self.frames += 1
        now = time.monotonic()
        if now - self._synced >= self._sync_s:
            self._synced = now
            self._sync()

    def close(self) -> None:
        """Brings everything to the disk; may be called twice.

        Raises:
            UnsyncedError: The disk refused what was written of late; the file is closed.
        """
        if self._fd >= 0:
            try:
                self._sync()
            finally:
                os.close(self._fd)
                self._fd = -1

    def _path(self) -> Path:
        return self._folder / f"{self._stream}-{self._chunk:05d}.rec"

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        try:
            self._fd = os.open(self._path(), flags, 0o644)
        except OSError as error:
            raise _refused(self._path(), error) from error
        self._size = 0
        head = _SIZES.pack(len(self._header), zlib.crc32(self._header))
        try:
            self._write([MAGIC + head, self._header])
        except DiskError:
            # A file without its header is of no use to anybody.
            with contextlib.suppress(OSError):
                os.close(self._fd)
                self._path().unlink()
            self._fd = -1
            raise
        try:
            _sync_folder(self._folder)
        except OSError as error:
            raise _refused(self._folder, error) from error

    def _write(self, parts: list[bytes]) -> None:
        """All of it, or the file is as it was."""
        left = [memoryview(part) for part in parts if part]
        try:
            while left:
                done = os.writev(self._fd, left)
                while left and done >= len(left[0]):
                    done -= len(left.pop(0))
                if left:
                    left[0] = left[0][done:]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise _refused(self._path(), error) from error
        written = sum(map(len, parts))
        self._size += written
        self.bytes += written

    def _sync(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise UnsyncedError(
                f"{self._path()}: {error.strerror}; a power cut may cost what it holds"
            ) from error


def _refused(path: Path, error: OSError) -> DiskError:
    return DiskError(f"{path}: {error.strerror}; frames closed before are whole")


def _sync_folder(path: Path) -> None:
    """Brings a folder's list of files to the disk."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def streams(folder: Path) -> dict[str, list[Path]]:
    """Files of each stream of a folder, in order; empty if it is no recording.

    Raises:
        CaptureError: The folder cannot be read.
    """
    found: dict[str, list[Path]] = {}
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise CaptureError(f"{folder}: cannot be read ({error.strerror})") from error
    for name in names:
        if match := _NAME.fullmatch(name):
            found.setdefault(match[1], []).append(folder / name)
    return found


def scan(path: Path, *, verify: bool = True) -> Scan:
    """Goes through a file record by record, up to the first that is not whole.

    Args:
        path: The file.
        verify: Read and check the blobs; else they are passed over, which is fast and sees no rot.

    Raises:
        CaptureError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            header = _header(file, size)
            if header is None:
                return Scan(path, {}, (), 0, size)
            start = whole = file.tell()
            places = []
            for place in _places(path, file, start, size, verify):
                places.append(place)
                whole = place.offset + place.size
            return Scan(path, header, tuple(places), whole, size - whole)
    except OSError as error:
        raise CaptureError(f"{path}: cannot be read ({error.strerror})") from error


def read(place: Place) -> Record:
    """Reads one record, and verifies it again.

    Raises:
        CaptureError: It is no longer what it was when the file was scanned.
    """
    try:
        with place.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(place.offset)
            record = _record(file, size)
    except OSError as error:
        raise CaptureError(f"{place.path}: cannot be read ({error.strerror})") from error
    if record is None or record.number != place.number:
        raise CaptureError(f"{place.path}: record {place.number} has changed since it was scanned")
    return record


def repair(path: Path) -> int:
    """Cuts a file off after its last verified record; a file without a header goes.

    What is cut off is a record that was begun, unless whole records follow it: then the file was
    damaged later, and what is cut off is kept beside it, `<name>.damaged`, or `<name>.damaged-2`
    and so on where an earlier repair has left one. It is on the disk before anything is cut.

    Returns:
        Bytes that were cut off; 0 where there was nothing to do.

    Raises:
        CaptureError: The file cannot be read or written.
    """
    found = scan(path)
    if not found.rest and found.whole:
        return 0
    try:
        with path.open("r+b") as file:
            file.seek(found.whole)
            rest = file.read()
            if _holds_records(rest):
                _keep_aside(path, rest)
            if found.whole:
                file.truncate(found.whole)
                os.fsync(file.fileno())
        if not found.whole:
            path.unlink()
    except OSError as error:
        raise CaptureError(f"{path}: cannot be repaired ({error.strerror})") from error
    return len(rest)


def _keep_aside(path: Path, rest: bytes) -> None:
    """Writes what is cut off into a file of its own, down to the disk."""
    for k in itertools.count(1):
        aside = path.with_name(f"{path.name}.damaged{f'-{k}' if k > 1 else ''}")
        with contextlib.suppress(FileExistsError), aside.open("xb") as file:
            file.write(rest)
            file.flush()
            os.fsync(file.fileno())
            break
    _sync_folder(path.parent)


def _holds_records(content: bytes) -> bool:
    """Whether some whole record lies in the bytes, wherever it begins."""
    at = content.find(_MARK)
    while at >= 0:
        with io.BytesIO(content) as file:
            file.seek(at)
            if _record(file, len(content)) is not None:
                return True
        at = content.find(_MARK, at + 1)
    return False


def _header(file: io.BufferedIOBase, size: int) -> dict[str, Any] | None:
    """The header's content; None if it is not whole."""
    front = file.read(len(MAGIC) + _SIZES.size)
    if len(front) < len(MAGIC) + _SIZES.size or not front.startswith(MAGIC):
        return None
    length, crc = _SIZES.unpack(front[len(MAGIC) :])
    if length > MAX_HEADER or file.tell() + length > size:
        return None
    content = file.read(length)
    if len(content) < length or zlib.crc32(content) != crc:
        return None
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _places(
    path: Path, file: io.BufferedIOBase, start: int, size: int, verify: bool
) -> Iterator[Place]:
    offset, last = start, -1
    while (record := _record(file, size, verify)) is not None and record.number > last:
        end, last = file.tell(), record.number
        times = record.device_ns, record.host_ns
        yield Place(path, offset, end - offset, record.number, *times)
        offset = end


def _record(file: io.BufferedIOBase, size: int, verify: bool = True) -> Record | None:
    """The record that begins here; None if it is not whole. No memory is taken for a lie."""
    head = file.read(_HEAD.size)
    tail = file.read(_CRC.size)
    if len(tail) < _CRC.size:
        return None
    mark, number, device_ns, host_ns, first, second = _HEAD.unpack(head)
    if mark != _MARK or number > MAX_NUMBER or max(first, second) > MAX_BLOB:
        return None
    if file.tell() + first + second > size:
        return None
    if not verify:
        file.seek(first + second, os.SEEK_CUR)
        return Record(number, device_ns, host_ns, b"", b"")
    blobs = file.read(first), file.read(second)
    crc = zlib.crc32(blobs[1], zlib.crc32(blobs[0], zlib.crc32(head)))
    if (len(blobs[0]), len(blobs[1])) != (first, second) or crc != _CRC.unpack(tail)[0]:
        return None
    return Record(number, device_ns, host_ns, *blobs)
