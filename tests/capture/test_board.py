import json

import numpy as np
import pytest
from capture_scene import LENS

from capture import board
from capture.board import Board, CalibrationError, Corners
from realdex_jax.errors import DatasetError


def test_corners_are_squares_in_rows_around_the_middle():
    found = Board(columns=4, rows=3, cell=0.005, first=7)
    corners = found.corners()
    assert corners.shape == (12, 4, 3)
    np.testing.assert_allclose(corners.mean(axis=(0, 1)), 0.0, atol=1e-15)
    sides = np.roll(corners, -1, axis=1) - corners
    np.testing.assert_allclose(np.linalg.norm(sides, axis=-1), found.tag, atol=1e-15)
    # Clockwise with y down: from the upper left to the right first.
    np.testing.assert_allclose(sides[:, 0], np.tile([found.tag, 0.0, 0.0], (12, 1)), atol=1e-15)
    np.testing.assert_allclose(corners[1, 0] - corners[0, 0], [0.05, 0, 0], atol=1e-15)
    np.testing.assert_allclose(corners[4, 0] - corners[0, 0], [0, 0.05, 0], atol=1e-15)
    assert found.ids == tuple(range(7, 19))
    assert found.size == pytest.approx((0.21, 0.16))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"columns": 0}, "0 x 3 tags"),
        ({"first": -1}, "from -1"),
        ({"first": 580}, "tags 0 to 586"),
        ({"cell": 0.0}, "cells of 0.0 m"),
        ({"cell": 5.5}, r"cells of 5.5 m; must be 0.0005 to 0.1"),
        ({"cell": float("nan")}, "cells of nan m"),
    ],
)
def test_boards_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(CalibrationError, match=message):
        Board(**wrong)


def test_a_file_reads_back(tmp_path):
    path = tmp_path / "board.json"
    path.write_text(json.dumps(board.board_json(Board(5, 2, 0.0061, 30))))
    assert board.read(path) == Board(5, 2, 0.0061, 30)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "holds nothing; must hold columns"),
        ('{"columns": 4, "rows": 3, "cell_m": 0.005}', "must hold columns, rows, cell_m, first"),
        ('{"columns": 4.0, "rows": 3, "cell_m": 0.005, "first": 0}', "columns is 4.0"),
        ('{"columns": true, "rows": 3, "cell_m": 0.005, "first": 0}', "columns is True"),
        ('{"columns": 4, "rows": 3, "cell_m": "5 mm", "first": 0}', "cell_m is '5 mm'"),
        ('{"columns": 4, "rows": 3, "cell_m": NaN, "first": 0}', "cell_m is nan"),
        ('{"columns": 900, "rows": 3, "cell_m": 0.005, "first": 0}', "the family has"),
        ("[1]", "expected a JSON object"),
        ("\x00", "not JSON"),
    ],
)
def test_files_that_describe_no_board_are_refused(tmp_path, text, message):
    path = tmp_path / "board.json"
    path.write_text(text)
    with pytest.raises((CalibrationError, DatasetError), match=message) as caught:
        board.read(path)
    assert str(path) in str(caught.value)


def test_a_stack_is_all_corners_end_to_end():
    views = [
        Corners(2, 5, np.zeros((4, 3)), np.zeros((4, 2))),
        Corners(0, 1, np.ones((8, 3)), np.full((8, 2), LENS.cx)),
    ]
    found = board.stack(views)
    assert found.camera.tolist() == [2] * 4 + [0] * 8
    assert found.placement.tolist() == [5] * 4 + [1] * 8
    assert len(board.stack([]).pixels) == 0
