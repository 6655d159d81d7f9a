"""The calibration files of RealDex: optics of each camera, and where the cameras are.

`cam{i}_rgb.txt` and `cam{i}_depth.txt` are ROS camera_info messages as JSON; `cali0{i}.json` is
`T_cam0_cam{i}`. Depth pictures are registered to the colour camera, so both files of a camera say
the same. Where camera 0 is in the world, each recording says for itself.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from realdex_jax.data import rigid, textfile
from realdex_jax.errors import DatasetError
from realdex_jax.geometry.lens import Lens

FOLDER = "calibration_data"
"""Name of the folder in the release."""
MAX_SIDE = 8192
"""Most rows and columns of a picture."""
_MODEL = "rational_polynomial"
_LEVELS = 10
"""Folders above a recording that are looked through; the archives keep a long server path."""


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """c cameras."""

    cameras: tuple[int, ...]
    """Their numbers, 0 among them."""
    lenses: Mapping[int, Lens]
    """Optics by camera, of colour and depth."""
    wxyz_xyz_cam0_cam: Mapping[int, Float[np.ndarray, " 7"]]
    """T_cam0_cam of each: unit quaternion wxyz, then position (m)."""


def find(path: Path) -> Path | None:
    """The calibration folder beside a recording, or beside a folder it is in, or None."""
    path = path.absolute()
    for folder in (path, *path.parents)[:_LEVELS]:
        if (folder / FOLDER).is_dir():
            return folder / FOLDER
    return None


def read(folder: Path) -> Calibration:
    """Reads a calibration folder.

    Raises:
        DatasetError: Camera 0 is missing, a camera has no place, or a file keeps another format.
    """
    try:
        names = sorted(p.name for p in folder.iterdir())
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be read ({error.strerror})") from error
    cameras = sorted(int(m[1]) for n in names if (m := re.fullmatch(r"cam(\d)_rgb\.txt", n)))
    if 0 not in cameras:
        raise DatasetError(f"{folder}: no cam0_rgb.txt; it holds {', '.join(names[:10])}")
    lenses, places = {}, {0: np.eye(7)[0]}
    for camera in cameras:
        lenses[camera] = read_lens(folder / f"cam{camera}_rgb.txt")
        depth = folder / f"cam{camera}_depth.txt"
        if depth.exists() and (other := read_lens(depth)) != lenses[camera]:
            raise DatasetError(
                f"{depth}: {other} differs from the colour camera's; depth must be registered to it"
            )
        if camera:
            places[camera] = read_extrinsic(folder / f"cali0{camera}.json")
    return Calibration(tuple(cameras), lenses, places)


def read_lens(path: Path) -> Lens:
    """Reads the optics of a camera_info file.

    Raises:
        DatasetError: Another model of distortion, or numbers that make no camera.
    """
    info = textfile.read_json(path)
    width, height = info.get("width"), info.get("height")
    for what, value in (("width", width), ("height", height)):
        if type(value) is not int or not 1 <= value <= MAX_SIDE:
            raise DatasetError(f"{path}: {what} is {value!r}; it must be 1 to {MAX_SIDE}")
    K = textfile.numbers(info.get("K"), 9, f"{path}: K").reshape(3, 3)
    fixed = K[[0, 1, 2, 2, 2], [1, 0, 0, 1, 2]]
    if min(K[0, 0], K[1, 1]) <= 0 or np.any(fixed != [0, 0, 0, 0, 1]):
        raise DatasetError(f"{path}: K is {K.tolist()}; it must be [fx 0 cx, 0 fy cy, 0 0 1]")
    if info.get("distortion_model") != _MODEL:
        raise DatasetError(
            f"{path}: distortion_model is {info.get('distortion_model')!r}; known: {_MODEL}"
        )
    distortion = textfile.numbers(info.get("D"), 8, f"{path}: D")
    assert isinstance(width, int)
    assert isinstance(height, int)
    k1, k2, p1, p2, k3, k4, k5, k6 = distortion.tolist()
    fx, fy, cx, cy = (float(x) for x in (K[0, 0], K[1, 1], K[0, 2], K[1, 2]))
    return Lens(width, height, fx, fy, cx, cy, (k1, k2, p1, p2, k3, k4, k5, k6))


def lens_json(lens: Lens, frame_id: str) -> dict[str, Any]:
    """A camera_info file's content: `read_lens` undone."""
    K = lens.K
    return {
        "header": {"seq": 0, "stamp": {"secs": 0, "nsecs": 0}, "frame_id": frame_id},
        "height": lens.height,
        "width": lens.width,
        "distortion_model": _MODEL,
        "D": list(lens.distortion),
        "K": K.ravel().tolist(),
        "R": np.eye(3).ravel().tolist(),
        "P": np.pad(K, ((0, 0), (0, 1))).ravel().tolist(),
        "binning_x": 0,
        "binning_y": 0,
        "roi": {"x_offset": 0, "y_offset": 0, "height": 0, "width": 0, "do_rectify": False},
    }


def read_extrinsic(path: Path) -> Float[np.ndarray, " 7"]:
    """Reads a pose: `value0.rotation` w x y z and `value0.translation` x y z.

    Returns:
        Unit quaternion wxyz, then position (m).

    Raises:
        DatasetError: A number is missing, or the quaternion is not of unit length.
    """
    value = textfile.read_json(path).get("value0")
    found = []
    for part, names in (("rotation", "wxyz"), ("translation", "xyz")):
        group = value.get(part) if isinstance(value, dict) else None
        group = group if isinstance(group, dict) else {}
        where = f"{path}: value0.{part} {' '.join(names)}"
        found.append(textfile.numbers([group.get(n) for n in names], len(names), where))
    return rigid.unit(np.concatenate(found)[None], str(path))[0]


def extrinsic_json(wxyz_xyz: Float[np.ndarray, " 7"]) -> dict[str, Any]:
    """An extrinsics file's content: `read_extrinsic` undone."""
    numbers = [float(x) for x in wxyz_xyz]
    return {
        "value0": {
            "rotation": dict(zip("wxyz", numbers[:4], strict=True)),
            "translation": dict(zip("xyz", numbers[4:], strict=True)),
        }
    }


def read_named_pose(path: Path, name: str) -> Float[np.ndarray, " 7"]:
    """Reads one frame's pose out of a file of 4 x 4 matrices by name, row-major.

    Raises:
        DatasetError: The frame is not there, or its matrix moves nothing rigidly.
    """
    frames = textfile.read_json(path)
    if name not in frames:
        raise DatasetError(f"{path}: no {name!r}; it holds {', '.join(list(frames)[:10])}")
    T = textfile.numbers(frames[name], 16, f"{path}: {name}").reshape(4, 4)
    return rigid.of_matrix(T, f"{path}: {name}")
