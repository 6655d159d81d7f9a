"""Text files of foreign recordings, read with care: JSON, rows of numbers, time stamps.

Time stamps are nanoseconds since 1970, too many digits for a float: they are read as integers even
where a file writes them as 1.7e18.
"""

import decimal
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from realdex_jax.data import regular
from realdex_jax.errors import DatasetError

MAX_BYTES = 128 * 2**20
"""Largest text file that is read, bytes: hours of one link's poses."""
MAX_LINES = 1_000_000
"""Most lines of a table: a link's poses have 100 a second."""
MAX_JSON = 16 * 2**20
"""Largest JSON file that is read, bytes; its lists and numbers take twenty times that in memory."""
_MAX_TOKEN = 64
"""Most characters of a number."""


def read_text(path: Path) -> str:
    """The text of a file of at most `MAX_BYTES`.

    Raises:
        DatasetError: It is missing, too large or not UTF-8.
    """
    try:
        size = regular.size(path)
        if size > MAX_BYTES:
            raise DatasetError(f"{path}: {size} bytes, at most {MAX_BYTES} are read")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not text, byte {error.start} is not UTF-8") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file.

    Raises:
        DatasetError: It cannot be read, or holds anything but one JSON object.
    """
    try:
        if path.is_file() and path.stat().st_size > MAX_JSON:
            raise DatasetError(
                f"{path} has {path.stat().st_size} bytes; at most {MAX_JSON} are read"
            )
        value = json.loads(read_text(path))
    except RecursionError as error:
        raise DatasetError(f"{path}: nested too deeply") from error
    except ValueError as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise DatasetError(f"{path}: holds a {type(value).__name__}, expected a JSON object")
    return value


def numbers(value: object, count: int, where: str) -> Float[np.ndarray, " count"]:
    """A JSON list of finite numbers, nested or not, as float64.

    Raises:
        DatasetError: It is something else, or of another length.
    """
    flat: list[object] = []
    for item in value if isinstance(value, list) else []:
        flat.extend(item if isinstance(item, list) else [item])
    good = [
        float(x)
        for x in flat
        if isinstance(x, (int, float)) and not isinstance(x, bool) and abs(x) < 1e300
    ]
    if len(flat) != count or len(good) != count:
        raise DatasetError(f"{where}: must be {count} finite numbers")
    return np.array(good)


def stamp(token: str, where: str) -> int:
    """A time stamp (ns) out of its text, exactly.

    Raises:
        DatasetError: It is not a number from 0 to 2**63 - 1.
    """
    try:
        if len(token) > _MAX_TOKEN:
            raise ValueError
        if token.isascii() and token.isdigit():
            value = int(token)
        else:
            number = decimal.Decimal(token)
            # The exponent is looked at first: int() of 1e999999999 would never end.
            if not number.is_finite() or number.adjusted() > 18:
                raise ValueError
            value = int(number) if number.adjusted() >= 0 else 0
            if number < 0:
                raise ValueError
    except (ValueError, decimal.InvalidOperation):
        value = -1
    if not 0 <= value < 2**63:
        raise DatasetError(f"{where}: time stamp {token[:_MAX_TOKEN]!r} is not a count of ns")
    return value


def read_stamps(path: Path) -> Int[np.ndarray, " t"]:
    """A file of time stamps, one a line.

    Raises:
        DatasetError: A line holds anything else; the message names it.
    """
    return np.array(
        [
            stamp(line.strip(), f"{path}, line {i}")
            for i, line in enumerate(_lines(read_text(path), str(path)), 1)
            if line.strip()
        ],
        np.int64,
    )


def read_rows(path: Path, columns: int, *, finite: bool = True) -> Float[np.ndarray, "t columns"]:
    """A file of rows of numbers between blanks.

    Args:
        path: The file.
        columns: Numbers in a row.
        finite: Whether numbers that are not finite are refused.

    Raises:
        DatasetError: A line has other than `columns` numbers, or one that is refused.
    """
    rows = []
    for i, line in enumerate(_lines(read_text(path), str(path)), 1):
        if words := line.split():
            rows.append(_row(words, columns, f"{path}, line {i}", finite))
    return np.array(rows, np.float64).reshape(-1, columns)


def read_series(path: Path, columns: int) -> tuple[Int[np.ndarray, " t"], np.ndarray]:
    """A file of rows that begin with a time stamp: the stamps, and the other numbers (t columns).

    Raises:
        DatasetError: As of `read_rows` and `read_stamps`.
    """
    return series(read_text(path), columns, str(path))


def series(
    text: str, columns: int, where: str, *, finite: bool = True
) -> tuple[Int[np.ndarray, " t"], np.ndarray]:
    """As `read_series`, of a text; `finite` as for `read_rows`."""
    stamps, rows = [], []
    for i, line in enumerate(_lines(text, where), 1):
        if words := line.split():
            place = f"{where}, line {i}"
            stamps.append(stamp(words[0], place))
            rows.append(_row(words[1:], columns, place, finite))
    return np.array(stamps, np.int64), np.array(rows, np.float64).reshape(-1, columns)


def _lines(text: str, where: str) -> list[str]:
    if text.count("\n") > MAX_LINES:
        raise DatasetError(f"{where} has more than {MAX_LINES} lines")
    return text.splitlines()


def _row(words: list[str], columns: int, where: str, finite: bool) -> list[float]:
    if len(words) != columns:
        raise DatasetError(f"{where}: {len(words)} numbers, expected {columns}")
    try:
        row = [float(word) for word in words]
    except ValueError as error:
        raise DatasetError(f"{where}: {error}") from error
    if finite and not all(map(math.isfinite, row)):
        raise DatasetError(f"{where}: a number is not finite")
    return row
