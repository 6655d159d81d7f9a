import re
import sys

import cv2
import numpy as np
import pytest
from capture_scene import LENS, away, pose
from PIL import Image
from pupil_apriltags import Detector
from scipy import ndimage

from capture import apriltag
from capture.board import Board, CalibrationError
from realdex_jax.data import rigid
from sim import board as print_of
from sim.board import Exposure

TURNED = pose([0.5, -0.3, 1.1], [0.05, -0.03, 0.75])


class Witness(Detector):
    """A second program that finds tags."""

    def __del__(self) -> None:
        """Leaves its memory alone: the package frees the family before the detector that still
        looks into it, which now and then ends the process."""


@pytest.fixture(scope="module")
def picture():
    white = apriltag.cells(Board())
    return print_of.photograph(white, Board().cell, LENS, TURNED, np.random.default_rng(0))


def truth(path) -> np.ndarray:
    """Corners in AprilTag's way of counting, from the picture's corner."""
    lines = path.read_text().splitlines()
    assert all(line.startswith("0, ") for line in lines)
    return np.array([re.findall(r"-?\d+\.\d+", line) for line in lines], float).reshape(-1, 4, 2)


def distances(wanted, found) -> np.ndarray:
    """Of each wanted square the largest corner distance to its best match, either way round."""
    turns = [np.roll(way, k, axis=1) for way in (found, found[:, ::-1]) for k in range(4)]
    apart = np.linalg.norm(np.stack(turns)[:, None] - wanted[:, None], axis=-1).max(axis=-1)
    return apart.min(axis=(0, 2))


@pytest.mark.parametrize(
    ("name", "count", "within"),
    [
        ("33369213973_9d9bb4cc96_c", 12, 12),
        # Three tags, 16 pixels wide, are 1.1 px from the file's lines, which lie around the black.
        ("34085369442_304b6bafd9_c", 25, 22),
        # One tag's file lines lie 3 px inside the black; the second witness sees what we see.
        ("34139872896_defdb2f8d9_c", 10, 9),
    ],
)
def test_every_tag_of_real_photographs_is_found(shared, name, count, within):
    folder = shared / "data" / "apriltag"
    wanted = truth(folder / f"{name}.txt")
    with Image.open(folder / f"{name}.jpg") as file:
        image = np.array(file)
        grey = np.array(file.convert("L"))
    found = apriltag.detect(image, thorough=True)
    off = distances(wanted, found.corners[found.ids == 0] + 0.5)
    assert len(off) == count
    assert (off <= 1.0).sum() >= within
    assert np.sort(off)[:-1].max() < 1.25
    assert np.median(off) < 0.7
    # The witness does not find all of them; those it finds are where we find them.
    witness = Witness("tag36h11", quad_decimate=1.0, quad_sigma=0.0).detect(grey)
    corners = np.array([tag.corners for tag in witness])
    assert distances(corners, found.corners + 0.5).max() < 1.5
    if name.startswith("34139872896"):
        worst = wanted[[off.argmax()]]
        assert off.max() > 2.0
        assert distances(worst, corners).max() > 2.0


def test_corners_of_a_print_through_a_lens_are_where_they_are(picture):
    found = apriltag.detect(picture, LENS)
    assert sorted(found.ids.tolist()) == list(range(12))
    p_board = Board().corners()[found.ids]
    true = LENS.project(rigid.apply(TURNED, p_board.reshape(-1, 3))).reshape(-1, 4, 2)
    # Noise of 2.5 levels; a pixel is 0.9 mm on the board.
    assert np.sqrt(((found.corners - true) ** 2).sum(axis=-1).mean()) < 0.08
    assert np.abs((found.corners - true).mean(axis=(0, 1))).max() < 0.02


def test_a_lens_that_bends_is_taken_into_account():
    """At the picture's edge straight sides are bent; a barrel shows it."""
    lens = type(LENS)(1280, 720, 500.0, 500.0, 640.0, 360.0, (-0.25, 0, 0, 0, 0, 0, 0, 0))
    board = Board(2, 2, 0.011)
    T = pose([0.1, 0.0, 0.0], [-0.35, -0.22, 0.45])
    rng = np.random.default_rng(0)
    still = Exposure(noise=0.5)
    image = print_of.photograph(apriltag.cells(board), board.cell, lens, T, rng, still)
    off = []
    for known in (lens, None):
        found = apriltag.detect(image, known)
        p_board = board.corners()[found.ids].reshape(-1, 3)
        true = lens.project(rigid.apply(T, p_board)).reshape(-1, 4, 2)
        off.append(float(np.sqrt(((found.corners - true) ** 2).sum(axis=-1).mean())))
    assert off[0] < 0.05
    assert off[1] > 3.0 * off[0]


def test_a_second_program_finds_the_same(picture):
    grey = np.ascontiguousarray(picture[..., 0])
    witness = {tag.tag_id: tag for tag in Witness("tag36h11", quad_decimate=1.0).detect(grey)}
    found = apriltag.detect(picture, LENS)
    assert set(witness) == set(found.ids.tolist())
    for number, corners in zip(found.ids.tolist(), found.corners, strict=True):
        # The order of corners differs; the witness is good to about half a pixel.
        other = witness[number].corners - 0.5
        assert distances(other[None], corners[None])[0] < 0.6


def test_the_pose_is_that_of_the_print(picture):
    corners = apriltag.view(picture, Board(), LENS, 1, 4)
    assert corners is not None
    assert (corners.camera, corners.placement, len(corners.pixels)) == (1, 4, 48)
    found = apriltag.poses(corners, LENS)
    mm, deg = away(found[0][0], TURNED)
    assert mm < 0.3
    assert deg < 0.1
    assert found[0][1] < 0.1
    assert len(found) == 2
    assert found[1][1] > 10 * found[0][1]


def test_a_tag_at_the_wrong_place_is_left_out():
    board = Board()
    white = apriltag.cells(board)
    spots = [(slice(2, 10), slice(2, 10)), (slice(22, 30), slice(32, 40))]
    first, last = (white[spot].copy() for spot in spots)
    white[spots[0]], white[spots[1]] = last, first
    image = print_of.photograph(white, board.cell, LENS, TURNED, np.random.default_rng(0))
    corners = apriltag.view(image, board, LENS, 0, 0)
    assert corners is not None
    assert len(corners.pixels) == 40
    outer = np.abs(board.corners()[[0, 11]]).reshape(-1, 3).max(axis=0)
    assert not np.any(
        np.all(np.abs(corners.p_board) == outer, axis=1)
        & (np.sign(corners.p_board[:, 0]) == np.sign(corners.p_board[:, 1]))
    )


def test_a_number_that_is_there_twice_says_nothing():
    board = Board()
    white = apriltag.cells(board)
    white[22:30, 32:40] = white[2:10, 2:10]
    image = print_of.photograph(white, board.cell, LENS, TURNED, np.random.default_rng(0))
    corners = apriltag.view(image, board, LENS, 0, 0)
    assert corners is not None
    assert len(corners.pixels) == 40


@pytest.mark.parametrize("what", ["blurred", "wall", "dark", "other"])
def test_pictures_without_a_usable_board_give_no_view(picture, what):
    images = {
        "blurred": lambda: ndimage.gaussian_filter(picture, (7.0, 7.0, 0.0)),
        "wall": lambda: np.full_like(picture, 128),
        "dark": lambda: (picture // 64).astype(np.uint8),
        "other": lambda: picture,
    }
    board = Board(first=100) if what == "other" else Board()
    assert apriltag.view(images[what](), board, LENS, 0, 0) is None


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((10, 10), np.float32), "must be bytes|UInt8"),
        (np.zeros((10, 10, 4), np.uint8), "4 channels"),
        (np.zeros((0, 10), np.uint8), "must be bytes"),
    ],
)
def test_what_is_no_picture_is_refused(image, message):
    with pytest.raises(Exception, match=message) as caught:
        apriltag.detect(image)
    # Shapes and types are checked at calls before we are asked.
    assert type(caught.value).__name__ in ("CalibrationError", "TypeCheckError")


def test_a_picture_of_another_size_than_the_lens_is_refused(picture):
    with pytest.raises(CalibrationError, match="camera 2, placement 7: picture of 1920 x 1000"):
        apriltag.view(picture[:1000], Board(), LENS, 2, 7)


def test_without_opencv_the_error_names_the_extra(monkeypatch, picture):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(CalibrationError, match=r"pip install 'realdex_jax\[capture\]'"):
        apriltag.detect(picture)


@pytest.mark.parametrize("suffix", [".png", ".pdf"])
def test_a_print_has_its_true_size(tmp_path, suffix):
    path = apriltag.save(Board(2, 1, 0.0055, 30), tmp_path / f"board{suffix}")
    if suffix == ".pdf":
        data = path.read_bytes()
        assert data.startswith(b"%PDF-")
        found = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", data)
        assert found
        # 22 cells of 5.5 mm; points are 1/72 inch.
        assert float(found[1]) / 72 * 25.4 == pytest.approx(121.0, abs=0.1)
        return
    with Image.open(path) as sheet:
        dots, image = sheet.info["dpi"], np.array(sheet.convert("L"))
    assert image.shape[1] / dots[0] * 25.4 == pytest.approx(121.0, abs=0.02)
    family = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_APRILTAG_36h11)
    corners, ids, _ = cv2.aruco.ArucoDetector(family).detectMarkers(image[::4, ::4].copy())
    assert sorted(ids.ravel().tolist()) == [30, 31]
    side = np.linalg.norm(corners[0][0][1] - corners[0][0][0]) * 4 / dots[0] * 25.4
    assert side == pytest.approx(44.0, abs=0.3)


def test_a_print_of_another_kind_is_refused(tmp_path):
    with pytest.raises(CalibrationError, match=r"must end in \.pdf or \.png"):
        apriltag.save(Board(), tmp_path / "board.svg")
