"""Numbered pictures of a recording's cameras, their time stamps, and which belong together."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image, UnidentifiedImageError

from realdex_jax.data import regular, textfile
from realdex_jax.errors import DatasetError

COLOUR, DEPTH = Path("rgb/image_raw"), Path("depth_to_rgb/image_raw")
"""Folders of a camera's pictures."""
_SUFFIXES = (".png", ".jpg", ".jpeg")
_MAX_PICTURE_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """One camera's pictures by number; n stamps."""

    camera: int
    time_ns: Int[np.ndarray, " n"]
    """When picture k was taken, on this camera's clock."""
    colour: Mapping[int, Path]
    """Colour pictures that are there, by number."""
    depth: Mapping[int, Path]
    """Depth pictures that are there, by number; taken with the colour picture of that number."""

    @property
    def whole(self) -> Bool[np.ndarray, " n"]:
        """Which stamps have both pictures."""
        return np.array(
            [k in self.colour and k in self.depth for k in range(len(self.time_ns))], bool
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Together:
    """Pictures of c cameras that belong to t scene frames."""

    cameras: tuple[int, ...]
    index: Int[np.ndarray, "t c"]
    """Number of each camera's picture, -1 where none is near enough or it is not there."""
    offset: Float[np.ndarray, "t c"]
    """Seconds from the scene frame to the nearest picture's stamp, whether or not it is taken."""

    @property
    def dropped(self) -> dict[int, int]:
        """Scene frames without a picture, by camera."""
        return {c: int((self.index[:, i] < 0).sum()) for i, c in enumerate(self.cameras)}

    @property
    def report(self) -> str:
        """What was dropped, for people."""
        parts = []
        for i, c in enumerate(self.cameras):
            kept = np.abs(self.offset[:, i])[self.index[:, i] >= 0]
            parts.append(
                f"camera {c}: {self.dropped[c]} of {len(self.index)} frames dropped, largest "
                f"offset kept {1e3 * kept.max(initial=0.0):.1f} ms"
            )
        return "; ".join(parts)


def nearest(
    wanted_ns: Int[np.ndarray, " t"], stamps_ns: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " t"], Float[np.ndarray, " t"]]:
    """Index of the nearest of rising stamps, the earlier of two; and its offset in seconds.

    Index -1 and an infinite offset where there are no stamps.
    """
    if not len(stamps_ns):
        return np.full(len(wanted_ns), -1, np.int64), np.full(len(wanted_ns), np.inf)
    right = np.clip(np.searchsorted(stamps_ns, wanted_ns), 1, max(len(stamps_ns) - 1, 1))
    left, right = right - 1, np.minimum(right, len(stamps_ns) - 1)
    later = np.abs(stamps_ns[right] - wanted_ns) < np.abs(stamps_ns[left] - wanted_ns)
    index = np.where(later, right, left)
    return index, (stamps_ns[index] - wanted_ns) * 1e-9


def rising(path: Path) -> Int[np.ndarray, " n"]:
    """A file of time stamps that rise.

    Raises:
        DatasetError: It is malformed, or they do not.
    """
    stamps = textfile.read_stamps(path)
    bad = np.flatnonzero(np.diff(stamps) <= 0)
    if len(bad):
        raise DatasetError(f"{path}: stamp {bad[0] + 2} does not rise above the one before")
    return stamps


def read_picture(folder: Path, k: int, size: tuple[int, int], modes: tuple[str, ...]) -> np.ndarray:
    """Decodes picture k of a folder; nothing is decoded before its size is checked.

    Args:
        folder: The folder.
        k: Number of the picture.
        size: Columns and rows that it must have.
        modes: Pillow's names of the kinds of pixels that it may have.

    Raises:
        DatasetError: It is missing, cannot be decoded, or is of another size or mode.
    """
    found = [p for s in _SUFFIXES if (p := folder / f"{k}{s}").is_file()]
    if not found:
        raise DatasetError(f"{folder}: no picture {k}")
    path = found[0]
    try:
        if regular.size(path) > _MAX_PICTURE_BYTES:
            raise DatasetError(f"{path}: larger than {_MAX_PICTURE_BYTES} bytes")
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            if picture.size != size or picture.mode not in modes:
                raise DatasetError(
                    f"{path}: {picture.size[0]} x {picture.size[1]} pixels of mode {picture.mode}; "
                    f"must be {size[0]} x {size[1]} of {' or '.join(modes)}"
                )
            return np.array(picture)
    except DatasetError:
        raise
    except UnidentifiedImageError as error:
        raise DatasetError(f"{path}: neither PNG nor JPEG") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Warning) as error:
        raise DatasetError(f"{path}: damaged picture ({error})") from error


def numbered(folder: Path) -> dict[int, Path]:
    """Pictures of a folder by number; none if there is no folder.

    Raises:
        DatasetError: A number is there twice.
    """
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix in _SUFFIXES and re.fullmatch(r"0|[1-9]\d{0,8}", path.stem):
            k = int(path.stem)
            if k in found:
                raise DatasetError(f"{folder}: picture {k} twice: {found[k].name}, {path.name}")
            found[k] = path
    return found
