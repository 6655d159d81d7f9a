"""AprilTags 36h11 in pictures, to a fraction of a pixel; boards of them; the board's pose.

OpenCV finds and reads the tags. Their corners are measured here: along each side of a black square
the place of the steepest rise from black to white is looked for, a line is laid through these
places where the lens does not bend it, and neighbouring lines are made to meet. Nothing else in the
project imports OpenCV.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from scipy.spatial.transform import Rotation

from capture.board import GAP_CELLS, TAG_CELLS, Board, CalibrationError, Corners
from realdex_jax.data import rigid
from realdex_jax.geometry.lens import Lens

_SCALES, _THOROUGH_SCALES = (1, 2), (1, 2, 3, 4)
"""Pictures are looked at in their own size and enlarged: small tags are found enlarged only."""
_LEAST = 0.01
"""Circumference of the smallest tag that is looked for, over the picture's longer side."""
_PLACES = 24
"""Places at which a side is measured."""
_FROM, _TO = 0.12, 0.88
"""Stretch of a side that is measured; its ends belong to two sides."""
_REACH = (1.5, 4.0)
"""Least and largest distance (pixels) from a side within which its rise is looked for."""
_REACH_OF_TAG = 0.09
"""That distance over the tag's width across the side: a cell is an eighth."""
_NEAR = 0.5
"""Share of that distance at which a rise counts a third."""
_ASTRAY = 2.0
"""Pixels beyond that distance that OpenCV's corners may be off."""
_STEPS = np.linspace(-1.0, 1.0, 17)
_ROUNDS = 3
_LEAST_RISE = 8.0
"""Grey levels between black and white over a side; below there is nothing to measure."""
_SAME = 0.5
"""Tags whose middles are nearer than this share of a side are one tag, found twice."""
_WRONG = 1.0
"""A tag with a corner so far (pixels) from the board's pose may be another."""
_FEWEST = 2
"""Tags of a board that a view needs."""
_PIXELS_A_CELL = 100
"""Of a print: 462 to the inch with cells of 5.5 mm."""


@dataclasses.dataclass(frozen=True, eq=False)
class Tags:
    """Tags in one picture."""

    ids: Int[np.ndarray, " t"]
    """Their numbers."""
    corners: Float[np.ndarray, "t 4 2"]
    """Pixels (column, row) of the black squares' corners, in the order of `Board.corners`. Whole
    numbers are middles of pixels; AprilTag's own programs count from the picture's corner, 0.5
    more."""


def detect(
    picture: UInt8[np.ndarray, "h w *c"], lens: Lens | None = None, thorough: bool = False
) -> Tags:
    """Finds tags 36h11.

    Args:
        picture: RGB or grey.
        lens: The camera's optics, so that bent sides are measured right; straight ones if None.
        thorough: Look for tags of 15 pixels and for blurred ones too, in seconds a picture. What
            is found then may hold squares that are no tags.

    Raises:
        CalibrationError: OpenCV is missing, or the picture is none.
    """
    grey = _grey(picture)
    ids, rough = _found(grey, thorough)
    if not len(ids):
        return Tags(np.zeros(0, np.int64), np.zeros((0, 4, 2)))
    fine, rise = _measured(grey.astype(np.float64), rough, lens)
    chosen = _best(fine, rise)
    return Tags(ids[chosen], fine[chosen])


def view(
    picture: UInt8[np.ndarray, "h w *c"], board: Board, lens: Lens, camera: int, placement: int
) -> Corners | None:
    """The board's corners in a picture; None if fewer than two of its tags can be measured.

    Raises:
        CalibrationError: OpenCV is missing, or the picture is not of the lens's size.
    """
    if picture.shape[:2] != (lens.height, lens.width):
        raise CalibrationError(
            f"camera {camera}, placement {placement}: picture of {picture.shape[1]} x "
            f"{picture.shape[0]}, its lens has {lens.width} x {lens.height}"
        )
    tags = detect(picture, lens)
    ids, counts = np.unique(tags.ids, return_counts=True)
    # A number that is there twice (a mirror, a second print) says nothing.
    once = np.isin(tags.ids, ids[counts == 1]) & np.isin(tags.ids, board.ids)
    if once.sum() < _FEWEST:
        return None
    p_board, pixels = board.corners()[tags.ids[once] - board.first], tags.corners[once]
    while len(p_board) >= _FEWEST:
        corners = Corners(camera, placement, p_board.reshape(-1, 3), pixels.reshape(-1, 2))
        found = poses(corners, lens)
        if not found:
            return None
        off = np.linalg.norm(residuals(corners, lens, found[0][0]), axis=1)
        off = off.reshape(-1, 4).max(axis=1)
        usual = float(np.median(off))
        if off.max() <= _WRONG or (usual <= _WRONG and off.max() <= 4.0 * usual):
            return corners
        # A square misread as a tag of the board, or a tag half hidden: the worst goes.
        kept = np.arange(len(off)) != off.argmax()
        p_board, pixels = p_board[kept], pixels[kept]
    return None


def residuals(
    corners: Corners, lens: Lens, wxyz_xyz_cam_board: Float[np.ndarray, " 7"]
) -> Float[np.ndarray, "n 2"]:
    """What the corners show beside where the pose puts them, pixels."""
    return corners.pixels - lens.project(rigid.apply(wxyz_xyz_cam_board, corners.p_board))


def poses(corners: Corners, lens: Lens) -> list[tuple[Float[np.ndarray, " 7"], float]]:
    """T_cam_board from one view, and the root mean square of its residuals (pixels).

    A plane seen small has two poses that hardly differ in the picture, tilted to this side and to
    that; both are given, the better one first.
    """
    cv2 = _cv2()
    flat = lens.undistort(corners.pixels)
    good = np.isfinite(flat).all(axis=1)
    if good.sum() < 4:
        return []
    try:
        count, turns, shifts, _ = cv2.solvePnPGeneric(
            corners.p_board[good], flat[good], np.eye(3), None, flags=cv2.SOLVEPNP_IPPE
        )
    except cv2.error:
        return []
    found = []
    for k in range(count):
        turn, shift = cv2.solvePnPRefineLM(
            corners.p_board[good], flat[good], np.eye(3), None, turns[k].copy(), shifts[k].copy()
        )
        R = Rotation.from_rotvec(turn.ravel())
        p_cam = R.apply(corners.p_board) + shift.ravel()
        if np.isfinite(p_cam).all() and p_cam[:, 2].min() > 0.0:
            pose = np.concatenate([R.as_quat(scalar_first=True), shift.ravel()])
            off = residuals(corners, lens, pose)
            found.append((pose, float(np.sqrt((off**2).sum(axis=1).mean()))))
    return sorted(found, key=lambda pose: pose[1])


def cells(board: Board) -> Bool[np.ndarray, "rows columns"]:
    """The board's cells, white where True."""
    cv2 = _cv2()
    columns, rows = board.cells
    white = np.ones((rows, columns), bool)
    step = TAG_CELLS + GAP_CELLS
    for k, number in enumerate(board.ids):
        tag = cv2.aruco.generateImageMarker(_family(), number, TAG_CELLS)
        row, column = (GAP_CELLS + step * x for x in divmod(k, board.columns))
        white[row : row + TAG_CELLS, column : column + TAG_CELLS] = tag > 127
    return white


def save(board: Board, path: Path) -> Path:
    """Writes the board as PDF or PNG to be printed in its true size, with a line that says what.

    Raises:
        CalibrationError: The file's name ends in something else.
    """
    if path.suffix.lower() not in (".pdf", ".png"):
        raise CalibrationError(f"{path}: must end in .pdf or .png")
    k = _PIXELS_A_CELL
    white = np.kron(cells(board), np.ones((k, k), bool))
    sheet = Image.fromarray(np.pad(white, ((0, 2 * k), (0, 0)), constant_values=True))
    draw = ImageDraw.Draw(sheet)
    width, height = (1000.0 * x for x in board.size)
    # The bar is ten cells long: a cell is measured best over many.
    top, left = white.shape[0] + k // 4, GAP_CELLS * k
    draw.rectangle([left, top, left + 10 * k - 1, top + k // 4], fill=0)
    text = (
        f"tag36h11 {board.first} to {board.ids[-1]}, tags of {1000 * board.tag:g} mm, board "
        f"{width:g} x {height:g} mm; the bar is {10000 * board.cell:g} mm long. Print at 100 %, "
        "glue to a flat plate."
    )
    font = ImageFont.load_default(size=0.6 * k)
    draw.text((left, top + k // 2), text, font=font, fill=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    dots = k / board.cell * 0.0254
    if path.suffix.lower() == ".pdf":
        sheet.save(path, resolution=dots)
    else:
        sheet.save(path, dpi=(dots, dots))
    return path


def _cv2() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise CalibrationError(
            f"finding tags needs OpenCV ({error}): install it with "
            "pip install 'realdex_jax[capture]'"
        ) from error
    if not hasattr(cv2, "aruco"):
        raise CalibrationError(
            f"OpenCV {cv2.__version__} has no tags: pip install 'realdex_jax[capture]'"
        )
    return cv2


@functools.cache
def _family() -> Any:
    cv2 = _cv2()
    return cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_APRILTAG_36h11)


def _grey(picture: UInt8[np.ndarray, "h w *c"]) -> UInt8[np.ndarray, "h w"]:
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or not picture.size:
        raise CalibrationError(f"picture of {picture.dtype}{list(picture.shape)}; must be bytes")
    if picture.ndim == 2:
        return picture
    if picture.shape[2] != 3:
        raise CalibrationError(f"picture with {picture.shape[2]} channels; must be RGB or grey")
    return _cv2().cvtColor(np.ascontiguousarray(picture), _cv2().COLOR_RGB2GRAY)


def _found(
    grey: UInt8[np.ndarray, "h w"], thorough: bool
) -> tuple[Int[np.ndarray, " t"], Float[np.ndarray, "t 4 2"]]:
    """Tags and their corners to a pixel or two; those found several times are there as often."""
    cv2 = _cv2()
    ids: list[int] = []
    corners: list[np.ndarray] = []
    # The two ways of finding squares miss different ones; the second is fifty times slower.
    ways = (cv2.aruco.CORNER_REFINE_NONE, cv2.aruco.CORNER_REFINE_APRILTAG)[: 1 + thorough]
    for scale, way in itertools.product(_THOROUGH_SCALES if thorough else _SCALES, ways):
        settings = cv2.aruco.DetectorParameters()
        settings.cornerRefinementMethod = way
        settings.minMarkerPerimeterRate = _LEAST
        settings.minMarkerDistanceRate = _LEAST
        settings.adaptiveThreshWinSizeMax = 23 * scale
        settings.adaptiveThreshWinSizeStep = 5 * scale
        settings.errorCorrectionRate = 1.0
        settings.perspectiveRemovePixelPerCell = 8
        size = grey.shape[1] * scale, grey.shape[0] * scale
        large = grey if scale == 1 else cv2.resize(grey, size, interpolation=cv2.INTER_CUBIC)
        found, numbers, _ = cv2.aruco.ArucoDetector(_family(), settings).detectMarkers(large)
        for quad, number in zip(found, [] if numbers is None else numbers.ravel(), strict=True):
            square = quad.reshape(4, 2).astype(np.float64)
            # The second way counts from the picture's corner.
            square = (square + (0.5 if way == ways[0] else 0.0)) / scale - 0.5
            ids.append(int(number))
            corners.append(square)
    return np.array(ids, np.int64), np.array(corners, np.float64).reshape(-1, 4, 2)


def _best(corners: Float[np.ndarray, "t 4 2"], rise: Float[np.ndarray, " t"]) -> list[int]:
    """Of tags found several times the one with the clearest sides; none with rise 0."""
    middle, side = corners.mean(axis=1), _sides(corners).min(axis=1)
    chosen: list[int] = []
    for k in np.argsort(-rise, kind="stable").tolist():
        apart = np.linalg.norm(middle[chosen] - middle[k], axis=1)
        if rise[k] > 0.0 and (apart > _SAME * side[k]).all():
            chosen.append(k)
    return sorted(chosen)


def _sides(corners: Float[np.ndarray, "t 4 2"]) -> Float[np.ndarray, "t 4"]:
    return np.linalg.norm(np.roll(corners, -1, axis=1) - corners, axis=2)


def _areas(corners: Float[np.ndarray, "t 4 2"]) -> Float[np.ndarray, " t"]:
    x, y = corners[..., 0], corners[..., 1]
    return np.abs((x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(axis=1)) / 2


def _measured(
    grey: Float[np.ndarray, "h w"], corners: Float[np.ndarray, "t 4 2"], lens: Lens | None
) -> tuple[Float[np.ndarray, "t 4 2"], Float[np.ndarray, " t"]]:
    """Corners where the sides' lines meet, and how clear the least clear side is; 0: not at all."""
    # Without a lens the plane in which lines are straight is the picture itself.
    plane = _Plane(lens)
    rough = corners
    # Seen at a slant, a tag is thin: what is across a side is its area over the side's length.
    across = _areas(rough)[:, None] / np.maximum(_sides(rough), 1.0)
    reach = np.clip(_REACH_OF_TAG * across, *_REACH)[..., None]
    share = np.linspace(_FROM, _TO, _PLACES)[:, None]
    sharp, clear = np.ones(len(corners), bool), np.zeros(len(corners))
    for _ in range(_ROUNDS):
        start, end = corners[:, :, None], np.roll(corners, -1, axis=1)[:, :, None]
        along = (end - start) / np.maximum(
            np.linalg.norm(end - start, axis=-1, keepdims=True), 1e-9
        )
        # Clockwise with rows down, so this points out of the square: from black to white.
        out = np.stack([along[..., 1], -along[..., 0]], axis=-1)
        straight = plane.flat(np.concatenate([start, end], axis=2))
        bent = plane.pixels(straight[:, :, :1] + share * (straight[:, :, 1:] - straight[:, :, :1]))
        places = bent[..., None, :] + (reach[..., None] * _STEPS)[..., None] * out[..., None, :]
        seen = ndimage.map_coordinates(
            grey, [places[..., 1], places[..., 0]], order=1, mode="nearest"
        )
        rise = np.maximum(np.diff(seen, axis=-1), 0.0)
        middle = (_STEPS[1:] + _STEPS[:-1]) / 2
        # What is next to the tag may be brighter still; what is near the side counts most.
        weight = rise * np.exp(-((middle / _NEAR) ** 2))
        total = weight.sum(axis=-1)
        off = (weight * middle).sum(axis=-1) / np.maximum(total, 1e-9) * reach
        edge = plane.flat(bent + off[..., None] * out)
        clear = np.sqrt(total).mean(axis=-1).min(axis=-1)
        strong = rise.sum(axis=-1) >= _LEAST_RISE
        sharp &= (strong.sum(axis=-1) >= _PLACES // 2).all(axis=-1)
        point, direction = _lines(edge, np.where(strong, np.sqrt(total), 0.0))
        corners = plane.pixels(_meetings(point, direction))
        # A line that ran away would look for edges anywhere in the picture.
        limit = _ASTRAY + reach.max(axis=(1, 2))[:, None]
        sharp &= (np.linalg.norm(corners - rough, axis=-1) <= limit).all(axis=-1)
        corners = np.where(sharp[:, None, None], corners, rough)
    return corners, np.where(sharp, clear, 0.0)


class _Plane:
    """The plane in which straight lines are straight, and the picture; NaN where it ends."""

    def __init__(self, lens: Lens | None) -> None:
        self.lens = lens

    def flat(self, pixels: Float[np.ndarray, "*b 2"]) -> Float[np.ndarray, "*b 2"]:
        if self.lens is None:
            return pixels
        found = self.lens.undistort(pixels.reshape(-1, 2)).reshape(pixels.shape)
        return found * self.lens.fx

    def pixels(self, flat: Float[np.ndarray, "*b 2"]) -> Float[np.ndarray, "*b 2"]:
        if self.lens is None:
            return flat
        one = np.ones((flat.size // 2, 1))
        p_cam = np.concatenate([flat.reshape(-1, 2) / self.lens.fx, one], axis=1)
        return self.lens.project(p_cam).reshape(flat.shape)


def _lines(
    points: Float[np.ndarray, "*b k 2"], weight: Float[np.ndarray, "*b k"]
) -> tuple[Float[np.ndarray, "*b 2"], Float[np.ndarray, "*b 2"]]:
    """Lines of least squares: a point and the direction of each; points far from it count less."""
    points = np.nan_to_num(points)
    middle, direction = points[..., 0, :], points[..., 0, :]
    for _ in range(2):
        w = weight[..., None] / np.maximum(weight.sum(axis=-1), 1e-9)[..., None, None]
        middle = (w * points).sum(axis=-2)
        apart = points - middle[..., None, :]
        spread = np.einsum("...k,...ki,...kj->...ij", w[..., 0], apart, apart)
        direction = np.linalg.eigh(spread)[1][..., 1]
        off = np.abs(
            apart[..., 0] * direction[..., None, 1] - apart[..., 1] * direction[..., None, 0]
        )
        usual = np.median(off, axis=-1, keepdims=True) + 1e-6
        weight = weight / (1.0 + (off / (3.0 * usual)) ** 2)
    return middle, direction


def _meetings(
    point: Float[np.ndarray, "t 4 2"], direction: Float[np.ndarray, "t 4 2"]
) -> Float[np.ndarray, "t 4 2"]:
    """Where each line meets the one before it: corner k is between sides k - 1 and k."""
    before, along = np.roll(point, 1, axis=1), np.roll(direction, 1, axis=1)
    cross = along[..., 0] * direction[..., 1] - along[..., 1] * direction[..., 0]
    cross = np.where(np.abs(cross) > 1e-6, cross, np.nan)
    gap = point - before
    far = (gap[..., 0] * direction[..., 1] - gap[..., 1] * direction[..., 0]) / cross
    return before + far[..., None] * along
