"""Plain `.npz` files: written byte for byte alike, read without trust, mapped where they can be.

A member that is stored without compression begins at a multiple of 64 bytes in the files that are
written here, so that it can be mapped into memory and used in place. Nothing else is peculiar about
them: `numpy.load` reads them.
"""

import functools
import io
import math
import mmap
import re
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from realdex_jax.data import archive as archives
from realdex_jax.data import regular, unpickle
from realdex_jax.errors import DatasetError

MAX_EXPANDED_BYTES = 2**28
"""Most bytes that are read out of one file; more are taken for a decompression bomb. What is mapped
is left on the disk and does not count."""

MAX_NUMBERS = 2**25
"""Most numbers that are read out of one file. Whoever computes with them does so in float64, which
makes eight bytes of a stored one."""

MAX_RATIO = 200
"""Most expanded bytes per stored byte, in files that expand to more than `RATIO_FROM`."""
RATIO_FROM = 64 * 2**20
"""Expanded size, bytes, up to which any ratio is read: columns of zeros are small and honest."""

BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    IndexError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
)
"""What the zip module raises on a damaged file."""

_MAPPED_FROM = 64 * 2**10  # bytes
_MAX_MEMBERS = 10_000
_ALIGNMENT = 64
_PADDING = 0xD935  # the extra field that Android's zipalign pads with
_DATE = (1980, 1, 1, 0, 0, 0)
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_MAX_HEADER = 10_000
_KINDS = "fiubcUS"
_HEADER = re.compile(
    rb"\{'descr': '(?P<type>[<>|=]?[a-zA-Z]\d{0,6})', 'fortran_order': (?P<fortran>True|False), "
    rb"'shape': \((?P<shape>(?:\d{1,18}L?(?:, ?|(?=\))))*)\),? *\} *\n?"
)


def encode(arrays: Mapping[str, np.ndarray], *, compress: bool = True) -> bytes:
    """The bytes of a `.npz`; the same arrays always give the same.

    Args:
        arrays: Arrays of numbers or text by name.
        compress: Smaller, but read instead of mapped.

    Raises:
        DatasetError: An array of another type, or more than `read` takes.
    """
    arrays = {name: np.asarray(value) for name, value in arrays.items()}
    count, size = (sum(getattr(a, of) for a in arrays.values()) for of in ("size", "nbytes"))
    if count > MAX_NUMBERS or size > MAX_EXPANDED_BYTES:
        raise DatasetError(
            f"{count} numbers in {size} bytes; a file holds at most {MAX_NUMBERS} in "
            f"{MAX_EXPANDED_BYTES}: divide them"
        )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            if array.dtype.kind not in _KINDS or array.dtype.fields is not None:
                raise DatasetError(
                    f"column {name!r} has type {array.dtype}; only numbers are stored"
                )
            content = io.BytesIO()
            np.lib.format.write_array(content, array, version=(1, 0), allow_pickle=False)
            member = zipfile.ZipInfo(f"{name}.npy", _DATE)
            if compress:
                member.compress_type = zipfile.ZIP_DEFLATED
            else:
                # Before the content stand the local header, the name and this field of its own.
                start = buffer.tell() + _LOCAL_HEADER.size + len(member.filename.encode()) + 4
                filler = -start % _ALIGNMENT
                member.extra = struct.pack("<2H", _PADDING, filler) + bytes(filler)
            archive.writestr(member, content.getvalue())
    return buffer.getvalue()


def read(
    path: Path | str,
    *,
    objects: bool = False,
    mapped: bool = False,
    only: Collection[str] | None = None,
) -> dict[str, Any]:
    """Reads a plain `.npz`, refusing pickles, bombs and headers that promise more than is there.

    Args:
        path: The file.
        objects: Read arrays of Python objects, too, by the restricted unpickler; one without axes
            comes as what it holds.
        mapped: Map members that are not compressed instead of reading them: read-only arrays whose
            pages are fetched when they are used, unless the file is small.
        only: Arrays that are wanted, where they are there; all if None.

    Raises:
        UnsafePickleError: A pickle asks for more than plain data.
        DatasetError: The file is missing, damaged or refused.
    """
    path = Path(path)
    try:
        size = regular.size(path)
        with path.open("rb") as stream:
            memory = _memory(stream, size) if mapped else None
            content = io.BytesIO(memory) if isinstance(memory, bytes) else stream
            return _read(content, size, str(path), memory, objects, only)
    except DatasetError:
        raise
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} is not a readable .npz: {error}") from error


def parse(content: bytes, where: str, only: Collection[str] | None = None) -> dict[str, Any]:
    """`read` of a file's content, for files that lie inside an archive.

    Raises:
        DatasetError: It is damaged or refused.
    """
    return _read(io.BytesIO(content), len(content), where, None, False, only)


def _read(
    stream: io.BufferedIOBase,
    size: int,
    where: str,
    memory: mmap.mmap | bytes | None,
    objects: bool,
    only: Collection[str] | None,
) -> dict[str, Any]:
    """Arrays of a `.npz`; those that are not compressed in place, if there is a memory of it."""
    found: dict[str, Any] = {}
    numbers = 0
    try:
        if size > archives.DIRECTORY_BYTES * _MAX_MEMBERS:
            archives.check_directory(stream, where, _MAX_MEMBERS)
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            _check_names(members, where)
            wanted = [m for m in members if only is None or _name(m) in only]
            placed = {m for m in wanted if memory is not None and m.compress_type == 0}
            steps = unpickle.MAX_STEPS // max(len(wanted), 1) if objects else 0
            _check_sizes([m for m in wanted if m not in placed], size, where)
            for member in wanted:
                if memory is not None and member in placed:
                    found[_name(member)] = _mapped(where, memory, member)
                    continue
                told = f"{where}: member {member.filename!r}"
                content = archives.content(archive, member)
                array = _parse(content, told, steps, MAX_NUMBERS - numbers)
                numbers += array.size if isinstance(array, np.ndarray) else 0
                found[_name(member)] = array
    except DatasetError:
        raise
    except BROKEN as error:
        why = error or type(error).__name__
        raise DatasetError(f"{where} is not a readable .npz: {why}") from error
    return found


def _name(member: zipfile.ZipInfo) -> str:
    return member.filename.removesuffix(".npy")


def read_npy(path: Path | str) -> np.ndarray:
    """Reads a plain `.npy`.

    Raises:
        DatasetError: The file is missing, larger than `MAX_EXPANDED_BYTES`, damaged, or holds
            objects or more than `MAX_NUMBERS`.
    """
    path = Path(path)
    try:
        size = regular.size(path)
        if size > MAX_EXPANDED_BYTES:
            raise DatasetError(f"{path} has {size} bytes; at most {MAX_EXPANDED_BYTES} are read")
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    return _parse(content, str(path), 0, MAX_NUMBERS)


def _check_sizes(members: list[zipfile.ZipInfo], size: int, where: str) -> None:
    """Refuses more than is read before any of it is."""
    total = sum(m.file_size for m in members)
    if total > MAX_EXPANDED_BYTES:
        raise DatasetError(
            f"{where} expands to {total} bytes; at most {MAX_EXPANDED_BYTES} are read"
        )
    if total > RATIO_FROM and total > MAX_RATIO * size:
        raise DatasetError(
            f"{where} expands {size} bytes to {total}; more than {MAX_RATIO} to one is taken for "
            "a bomb"
        )


def _check_names(members: list[zipfile.ZipInfo], where: str) -> None:
    seen: set[str] = set()
    for member in members:
        name = member.filename
        if (
            name.startswith("/")
            or ".." in name.split("/")
            or "\\" in name
            or re.match("[A-Za-z]:", name)
        ):
            raise DatasetError(f"{where}: member {name!r} has the name of a file elsewhere")
        if _name(member) in seen:
            raise DatasetError(f"{where}: member {name!r} is there twice")
        seen.add(_name(member))
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DatasetError(
                f"{where}: member {name!r} is compressed by method {member.compress_type}; NumPy "
                "writes methods 0 and 8"
            )


class _Header(NamedTuple):
    """What stands before an array's data."""

    shape: tuple[int, ...]
    dtype: np.dtype
    order: Literal["C", "F"]
    size: int
    """Bytes up to the data."""


def _header(content: bytes) -> _Header:
    """Parses the header of a `.npy`; NumPy's own evaluates it as Python text.

    Raises:
        ValueError: It is no such header.
    """
    if content[:6] != b"\x93NUMPY" or len(content) < 10:
        raise ValueError("it does not begin as a .npy file")
    wide = content[6:8] == b"\x02\x00"
    if not wide and content[6:8] != b"\x01\x00":
        raise ValueError(f"version {content[6]}.{content[7]} of the .npy format")
    length = int.from_bytes(content[8:12] if wide else content[8:10], "little")
    start = 12 if wide else 10
    if length > _MAX_HEADER:
        raise ValueError(f"a header of {length} bytes; at most {_MAX_HEADER} are read")
    return _parsed(content[: start + length], start, length)


@functools.lru_cache(maxsize=256)  # files of a dataset have few that differ
def _parsed(content: bytes, start: int, length: int) -> _Header:
    text = _HEADER.fullmatch(content[start:])
    if text is None or len(content) < start + length:
        raise ValueError(f"header {content[start : start + min(length, 80)]!r}")
    shape = tuple(int(n.rstrip(b"L")) for n in re.split(rb", ?", text["shape"]) if n)
    return _Header(
        shape=shape,
        dtype=_dtype(text["type"].decode()),
        order="F" if text["fortran"] == b"True" else "C",
        size=start + length,
    )


def _dtype(code: str) -> np.dtype:
    try:
        return np.dtype(code)
    except (TypeError, ValueError) as error:
        raise ValueError(f"type {code!r}") from error


def _checked(header: _Header, there: int) -> _Header:
    """The header, if it keeps its promise of `there` bytes of plain numbers or text."""
    promised = math.prod(header.shape) * header.dtype.itemsize
    if header.dtype.kind not in _KINDS or promised != there:
        raise ValueError(f"shape {header.shape} of {header.dtype} does not fit {there} bytes")
    return header


def _parse(content: bytes, where: str, steps: int, most: int) -> Any:
    """An array of at most so many numbers, or objects out of a pickle of so many operations."""
    try:
        header = _header(content)
        if steps and header.dtype.kind == "O":
            return _objects(content, header, where, steps)
        header = _checked(header, len(content) - header.size)
        count = math.prod(header.shape)
        if count > most:
            raise DatasetError(
                f"{where} has {count} numbers; at most {MAX_NUMBERS} are read out of a file"
            )
        flat = np.frombuffer(content, header.dtype, count, header.size)
        return flat.reshape(header.shape, order=header.order).copy(order=header.order)
    except DatasetError:
        raise
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise DatasetError(f"{where} is not a plain array: {error}") from error


def _objects(content: bytes, header: _Header, where: str, steps: int) -> Any:
    found = unpickle.parse_objects(content, where, steps)
    if not header.shape:
        return found[0]
    array = np.empty(len(found), dtype=object)
    for i, item in enumerate(found):
        array[i] = item
    return array.reshape(header.shape)


def _memory(stream: io.BufferedIOBase, size: int) -> mmap.mmap | bytes:
    """A file: one map for all its arrays, or, if it is small, its bytes, which come sooner."""
    if size > _MAPPED_FROM:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    return stream.read(size)


def _mapped(where: str, memory: mmap.mmap | bytes, member: zipfile.ZipInfo) -> np.ndarray:
    """A member that is not compressed, where it stands in the file."""
    at = member.header_offset
    fields = _LOCAL_HEADER.unpack(memory[at : at + _LOCAL_HEADER.size])
    if fields[0] != b"PK\3\4" or member.flag_bits & 0x1:
        raise zipfile.BadZipFile(f"no plain member {member.filename!r} where the index says")
    # The local header has lengths of its own.
    start = at + _LOCAL_HEADER.size + fields[-2] + fields[-1]
    try:
        if len(memory) < start + member.file_size:
            raise ValueError("it is cut off")
        header = _header(memory[start : start + min(member.file_size, 12 + _MAX_HEADER)])
        header = _checked(header, member.file_size - header.size)
        if 0 in header.shape:
            return np.zeros(header.shape, header.dtype)
        count = math.prod(header.shape)
        flat = np.frombuffer(memory, header.dtype, count, start + header.size)
        return flat.reshape(header.shape, order=header.order)
    except (ValueError, TypeError, OverflowError) as error:
        raise DatasetError(
            f"{where}: member {member.filename!r} is not a plain array: {error}"
        ) from error
