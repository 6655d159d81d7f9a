import dataclasses
import json

import numpy as np
import pytest
from capture_scene import LENS, pose
from PIL import Image

from capture import apriltag, board_set
from capture.board import Board, CalibrationError
from capture.board_set import BoardSet
from realdex_jax.errors import DatasetError
from realdex_jax.geometry.lens import Lens
from sim import board as print_of

SMALL = Lens(480, 270, 228.0, 228.0, 240.3, 135.8, LENS.distortion)
BOARD = Board(2, 2, 0.011, 20)
BOARDS = [pose([0.3, 0.1 * k, 0.2], [0.02 * k, 0.0, 0.6]) for k in range(3)]


def small() -> BoardSet:
    """Two cameras at one place; camera 1 lacks a picture of each part."""
    white = apriltag.cells(BOARD)

    def take(part, camera, k):
        rng = np.random.default_rng([camera, k, part == "hand"])
        return print_of.photograph(white, BOARD.cell, SMALL, BOARDS[k], rng)

    shots = {part: {0: (0, 1, 2), 1: (0, 2)} for part in board_set.PARTS}
    hands = {k: pose([0.0, 0.0, 0.1 * k], [0.3, 0.1, 0.2 + k]) for k in range(3)}
    return BoardSet(BOARD, {0: SMALL, 1: SMALL}, shots, hands, take)


@pytest.fixture
def folder(tmp_path):
    board_set.write(tmp_path, small())
    return tmp_path


def test_a_folder_reads_back(folder):
    found, wanted = board_set.read(folder), small()
    assert found.board == wanted.board
    assert found.lenses == wanted.lenses
    assert found.shots == wanted.shots
    for k, T in wanted.wxyz_xyz_base_hand.items():
        np.testing.assert_allclose(found.wxyz_xyz_base_hand[k], T, atol=1e-15)
    for part in board_set.PARTS:
        picture = wanted.take(part, 1, 2)
        np.testing.assert_array_equal(found.take(part, 1, 2), picture)


def test_a_folder_is_written_once(folder):
    marked = folder / "table" / "cam0" / "1.png"
    marked.write_bytes(b"mine")
    board_set.write(folder, small())
    assert marked.read_bytes() == b"mine"


def test_the_board_is_found_in_every_picture(folder):
    told = []
    views, without = board_set.look(board_set.read(folder), "table", lambda: told.append(1))
    assert [(v.camera, v.placement) for v in views] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 2)]
    assert len(told) == 5
    assert not without


def test_a_picture_without_the_board_is_named(folder):
    blank = np.full((270, 480, 3), 128, np.uint8)
    Image.fromarray(blank).save(folder / "table" / "cam1" / "0.png")
    views, without = board_set.look(board_set.read(folder), "table")
    assert len(views) == 4
    assert without == ["camera 1, table 0: fewer than two tags of the board found"]


def test_another_board_is_told_by_its_tags(folder):
    other = dataclasses.replace(board_set.read(folder), board=Board(2, 2, 0.011, 300))
    with pytest.raises(CalibrationError, match=r"300 to 303; .* tags 20, 21, 22, 23"):
        board_set.look(other, "hand")


def test_no_tag_at_all_is_said(folder):
    blank = np.full((270, 480), 128, np.uint8)
    empty = dataclasses.replace(board_set.read(folder), take=lambda *_: blank)
    with pytest.raises(CalibrationError, match=r"none of 5 pictures \(table\) .* no tag at all"):
        board_set.look(empty, "table")


def without_table(folder):
    for path in (folder / "table").rglob("*.png"):
        path.unlink()


def changed(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "board.json").unlink(), "cannot be read"),
        (lambda f: changed(f / "board.json", rows=0), r"board\.json: board of 2 x 0 tags"),
        (lambda f: (f / "calibration_data" / "cam0_rgb.txt").unlink(), "no cam0_rgb.txt"),
        (lambda f: changed(f / "calibration_data" / "cam0_rgb.txt", D=[0.0]), "8 finite numbers"),
        (without_table, r"table: no picture <number>\.png"),
        (lambda f: (f / "hand" / "poses.txt").unlink(), r"poses\.txt: cannot be read"),
        (lambda f: (f / "hand" / "poses.txt").write_text("0 1 2\n"), "expected 7"),
        (lambda f: (f / "hand" / "poses.txt").write_text("0 0 0 0 0 0 0 9\n"), "length 9"),
        (
            lambda f: (f / "hand" / "poses.txt").write_text("3 0 0 0 0 0 0 1\n" * 2),
            "pose 3 is there twice",
        ),
        (lambda f: (f / "table" / "cam0" / "1.jpg").write_bytes(b""), "picture 1 twice"),
    ],
)
def test_folders_that_lack_something_are_refused(folder, spoil, message):
    spoil(folder)
    with pytest.raises((CalibrationError, DatasetError), match=message) as caught:
        board_set.read(folder)
    assert str(folder) in str(caught.value)


def test_a_file_that_is_no_picture_is_refused(folder):
    (folder / "table" / "cam0" / "1.png").write_text("a letter")
    with pytest.raises(DatasetError, match=r"1\.png: neither PNG nor JPEG"):
        board_set.look(board_set.read(folder), "table")


def test_a_picture_of_another_size_is_refused(folder):
    Image.new("RGB", (100, 100)).save(folder / "table" / "cam0" / "1.png")
    with pytest.raises(DatasetError, match="must be 480 x 270"):
        board_set.look(board_set.read(folder), "table")


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(CalibrationError, match="no folder; it must hold board"):
        board_set.read(tmp_path / "nowhere")
