"""Pictures of the board for one calibration, on disk or taken as they are asked for.

    board.json                     columns, rows, cell_m, first
    calibration_data/cam{i}_rgb.txt  optics of each camera, as in RealDex's release
    table/cam{i}/{k}.png or .jpg   placement k of the board, which stands still for all cameras
    hand/cam{i}/{k}.png or .jpg    the board in the robot's hand, which stands still in pose k
    hand/poses.txt                 lines `k tx ty tz qx qy qz qw`: T_base_hand of pose k, metres

Without `hand` the cameras are calibrated to each other alone.
"""

import concurrent.futures
import dataclasses
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from capture import apriltag, board
from capture.board import Board, CalibrationError, Corners
from realdex_jax.data import calibration, pictures, realdex_write, rigid, textfile
from realdex_jax.geometry.lens import Lens

Part = Literal["table", "hand"]
PARTS: tuple[Part, ...] = ("table", "hand")
MOST_PICTURES = 2000
"""Of one camera and part."""
_LOOKED_AT = 5
"""Pictures that are searched for other tags when none of the board's are found."""


@dataclasses.dataclass(frozen=True, eq=False)
class BoardSet:
    """Pictures of a board by c cameras."""

    board: Board
    lenses: Mapping[int, Lens]
    """Optics by number of the camera; 0 is among them."""
    shots: Mapping[Part, Mapping[int, tuple[int, ...]]]
    """Numbers of the pictures that are there, by part and camera."""
    wxyz_xyz_base_hand: Mapping[int, Float[np.ndarray, " 7"]]
    """T_base_hand of each picture of the part `hand`, by its number."""
    take: Callable[[Part, int, int], UInt8[np.ndarray, "h w *c"]]
    """Gives the picture of (part, camera, number); may be called from several threads."""


def look(
    shown: BoardSet, part: Part, tell: Callable[[], object] = lambda: None
) -> tuple[list[Corners], list[str]]:
    """The board's corners in all pictures of a part.

    Args:
        shown: The pictures.
        part: Which of them.
        tell: Told of each picture that is done.

    Returns:
        The views, and what is to say about pictures that show no board.

    Raises:
        CalibrationError: No picture shows the board; the message says which tags it shows.
    """
    wanted = [(c, k) for c, numbers in shown.shots[part].items() for k in numbers]

    def one(shot: tuple[int, int]) -> Corners | None:
        camera, k = shot
        picture = shown.take(part, camera, k)
        found = apriltag.view(picture, shown.board, shown.lenses[camera], camera, k)
        tell()
        return found

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(one, wanted))
    if wanted and not any(found):
        others = {
            int(number)
            for camera, k in wanted[:: max(len(wanted) // _LOOKED_AT, 1)][:_LOOKED_AT]
            for number in apriltag.detect(shown.take(part, camera, k)).ids
        }
        seen = f"tags {', '.join(map(str, sorted(others)))}" if others else "no tag at all"
        raise CalibrationError(
            f"none of {len(wanted)} pictures ({part}) shows two tags of the board, which has "
            f"{shown.board.first} to {shown.board.ids[-1]}; some of them show {seen}. Is it this "
            "board, sharp, lit and large enough?"
        )
    without = [
        f"camera {camera}, {part} {k}: fewer than two tags of the board found"
        for (camera, k), view in zip(wanted, found, strict=True)
        if view is None
    ]
    return [view for view in found if view is not None], without


def read(folder: Path) -> BoardSet:
    """Reads a folder of pictures; each is decoded when it is wanted.

    Raises:
        CalibrationError: The folder lacks something, or the board's file describes none.
        DatasetError: A file keeps another format.
    """
    if not folder.is_dir():
        raise CalibrationError(f"{folder}: no folder; it must hold board.json, table, hand")
    place = folder / calibration.FOLDER
    files = sorted(place.glob("cam?_rgb.txt")) if place.is_dir() else []
    lenses = {
        int(m[1]): calibration.read_lens(path)
        for path in files
        if (m := re.fullmatch(r"cam(\d)_rgb\.txt", path.name))
    }
    if 0 not in lenses:
        raise CalibrationError(f"{place}: no cam0_rgb.txt, the optics of camera 0")
    shots: dict[Part, dict[int, tuple[int, ...]]] = {}
    for part in PARTS:
        shots[part] = {
            c: tuple(sorted(pictures.numbered(folder / part / f"cam{c}"))) for c in sorted(lenses)
        }
        longest = max(map(len, shots[part].values()))
        if longest > MOST_PICTURES:
            raise CalibrationError(f"{folder / part}: {longest} pictures, at most {MOST_PICTURES}")
    if not any(shots["table"].values()):
        places = ", ".join(f"cam{c}" for c in lenses)
        raise CalibrationError(f"{folder / 'table'}: no picture <number>.png or .jpg in {places}")
    poses = {}
    if any(shots["hand"].values()):
        poses = read_poses(folder / "hand" / "poses.txt")

    def take(part: Part, camera: int, k: int) -> UInt8[np.ndarray, "h w *c"]:
        lens = lenses[camera]
        where = folder / part / f"cam{camera}"
        return pictures.read_picture(where, k, (lens.width, lens.height), ("RGB", "L"))

    return BoardSet(board.read(folder / "board.json"), lenses, shots, poses, take)


def read_poses(path: Path) -> dict[int, Float[np.ndarray, " 7"]]:
    """Reads T_base_hand by number.

    Raises:
        DatasetError: A line holds anything else.
        CalibrationError: A number is there twice.
    """
    numbers, rows = textfile.read_series(path, 7)
    found: dict[int, Float[np.ndarray, " 7"]] = {}
    for k, pose in zip(numbers.tolist(), rigid.from_ros(rows, str(path)), strict=True):
        if k in found:
            raise CalibrationError(f"{path}: pose {k} is there twice")
        found[k] = pose
    return found


def write(folder: Path, shown: BoardSet, tell: Callable[[], object] = lambda: None) -> None:
    """Writes a folder that `read` reads; pictures that are there already stay."""
    text = json.dumps(board.board_json(shown.board), indent=1)
    realdex_write.write(folder / "board.json", text.encode())
    for camera, lens in shown.lenses.items():
        info = calibration.lens_json(lens, f"cam{camera}_rgb_camera_link")
        where = folder / calibration.FOLDER / f"cam{camera}_rgb.txt"
        realdex_write.write(where, json.dumps(info, indent=1).encode())
    if shown.wxyz_xyz_base_hand:
        lines = "".join(
            f"{k} {' '.join(map(repr, rigid.to_ros(pose[None])[0].tolist()))}\n"
            for k, pose in sorted(shown.wxyz_xyz_base_hand.items())
        )
        realdex_write.write(folder / "hand" / "poses.txt", lines.encode())
    for part, cameras in shown.shots.items():
        for camera, numbers in cameras.items():
            where = folder / part / f"cam{camera}"
            where.mkdir(parents=True, exist_ok=True)
            for k in numbers:
                path, fresh = where / f"{k}.png", where / f".{k}.tmp"
                if not path.is_file():
                    with fresh.open("wb") as file:
                        picture = Image.fromarray(shown.take(part, camera, k))
                        picture.save(file, format="PNG", compress_level=1)
                    fresh.replace(path)
                tell()
