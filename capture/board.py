"""The board of tags that calibration looks at, and the corners of it that cameras saw."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from capture.device import CaptureError
from realdex_jax.data import textfile

TAG_CELLS, GAP_CELLS = 8, 2
"""Cells along a tag's black square, and between two squares and around all."""
IDS = 587
"""Tags of the family 36h11."""
_CELL = (5e-4, 0.1)
"""Least and largest cell, metres."""


class CalibrationError(CaptureError):
    """Pictures, corners or poses that make no calibration."""


@dataclasses.dataclass(frozen=True)
class Board:
    """A flat print of tags 36h11 in rows; fits a sheet of A4 as it is by default.

    Board frame: origin in the middle of the print, x to its right, y down, z into the paper. So a
    camera that sees the print upright and face on has the board's axes.
    """

    columns: int = 4
    """Tags in a row."""
    rows: int = 3
    """Rows of tags."""
    cell: float = 0.0055
    """Side of a cell, metres: a tag's black square has eight. Measure it on the print."""
    first: int = 0
    """Number of the tag at the upper left; the others follow row by row."""

    def __post_init__(self) -> None:
        """Refuses a board that cannot be printed."""
        if min(self.columns, self.rows) < 1 or self.first < 0:
            raise CalibrationError(
                f"board of {self.columns} x {self.rows} tags from {self.first}; must be 1 or more, "
                "from 0 or more"
            )
        if self.first + self.columns * self.rows > IDS:
            raise CalibrationError(
                f"board of {self.columns} x {self.rows} tags from {self.first}; the family has "
                f"tags 0 to {IDS - 1}"
            )
        if not _CELL[0] <= self.cell <= _CELL[1]:
            raise CalibrationError(
                f"board with cells of {self.cell} m; must be {_CELL[0]} to {_CELL[1]}"
            )

    @property
    def tag(self) -> float:
        """Side of a tag's black square, metres."""
        return TAG_CELLS * self.cell

    @property
    def cells(self) -> tuple[int, int]:
        """Columns and rows of cells, the white margin of two cells with them."""
        step = TAG_CELLS + GAP_CELLS
        return self.columns * step + GAP_CELLS, self.rows * step + GAP_CELLS

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the print, metres."""
        columns, rows = self.cells
        return columns * self.cell, rows * self.cell

    @property
    def ids(self) -> tuple[int, ...]:
        """The tags' numbers, row by row."""
        return tuple(range(self.first, self.first + self.columns * self.rows))

    def corners(self) -> Float[np.ndarray, "t 4 3"]:
        """Corners of the black squares in the order of `ids`, metres.

        Each from its upper left one, clockwise as printed.
        """
        step = TAG_CELLS + GAP_CELLS
        at = np.stack(np.meshgrid(np.arange(self.columns), np.arange(self.rows)), axis=-1)
        left = GAP_CELLS + step * at.reshape(-1, 1, 2)
        square = TAG_CELLS * np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
        flat = (left + square - np.array(self.cells) / 2) * self.cell
        return np.concatenate([flat, np.zeros((*flat.shape[:2], 1))], axis=-1)


@dataclasses.dataclass(frozen=True, eq=False)
class Corners:
    """What one camera saw of one placement of the board; n corners."""

    camera: int
    """Number of the camera."""
    placement: int
    """Number of the placement; all pictures of it were taken while the board stood still."""
    p_board: Float[np.ndarray, "n 3"]
    """Where the corners are on the board, metres."""
    pixels: Float[np.ndarray, "n 2"]
    """Where they show (column, row); whole numbers are middles of pixels."""


@dataclasses.dataclass(frozen=True, eq=False)
class Stack:
    """Corners of many views end to end."""

    camera: Int[np.ndarray, " n"]
    """Number of the camera, corner by corner."""
    placement: Int[np.ndarray, " n"]
    """Number of the placement."""
    p_board: Float[np.ndarray, "n 3"]
    pixels: Float[np.ndarray, "n 2"]


def stack(views: Sequence[Corners]) -> Stack:
    """The corners of all views."""
    sizes = [len(view.pixels) for view in views]
    return Stack(
        np.repeat(np.array([v.camera for v in views], np.int64), sizes),
        np.repeat(np.array([v.placement for v in views], np.int64), sizes),
        np.concatenate([np.zeros((0, 3)), *(v.p_board for v in views)]),
        np.concatenate([np.zeros((0, 2)), *(v.pixels for v in views)]),
    )


def read(path: Path) -> Board:
    """Reads a board's file: `columns`, `rows`, `cell_m`, `first`.

    Raises:
        CalibrationError: It describes no board.
        DatasetError: It cannot be read.
    """
    found = textfile.read_json(path)
    known = ("columns", "rows", "cell_m", "first")
    if set(found) != set(known):
        raise CalibrationError(
            f"{path}: holds {', '.join(found) or 'nothing'}; must hold {', '.join(known)}"
        )
    for name in ("columns", "rows", "first"):
        if type(found[name]) is not int:
            raise CalibrationError(f"{path}: {name} is {found[name]!r}; must be a whole number")
    cell = found["cell_m"]
    if type(cell) not in (int, float) or not math.isfinite(cell):
        raise CalibrationError(f"{path}: cell_m is {cell!r}; must be metres")
    try:
        return Board(found["columns"], found["rows"], float(cell), found["first"])
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from error


def board_json(board: Board) -> dict[str, int | float]:
    """A board's file: `read` undone."""
    return {
        "columns": board.columns,
        "rows": board.rows,
        "cell_m": board.cell,
        "first": board.first,
    }
