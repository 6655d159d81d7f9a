import json
import sys

import charts
import numpy as np
import pytest
from capture_scene import away
from rich.console import Console

from capture import board_set
from capture.board import Board
from experiments import calibrate, virtual_board
from experiments.calibrate import Calibrate, PrintBoard
from realdex_jax.data import calibration, rigid, textfile
from realdex_jax.errors import ConfigError

QUIET = Console(quiet=True)
LARGE = Board(2, 2, 0.012)
"""Large tags, for small pictures."""


@pytest.mark.slow
def test_a_virtual_rig_is_calibrated_from_its_pictures(tmp_path):
    """From pictures on disk to all files, with small pictures of a board with large tags."""
    shown, truth = virtual_board.record(3, width=640, placements=6, poses=32, board=LARGE)
    board_set.write(tmp_path / "pictures", shown)
    config = Calibrate(rig=str(tmp_path / "pictures"), out=tmp_path / "out")
    (found,) = calibrate.run(config, "the command", QUIET)
    assert found.hand is not None
    errors = calibrate.true_errors(found.rig, found.hand, truth)
    # A third of the usual width: a pixel is 2.8 mm, and six placements are few.
    assert errors["camera_mm"] < 4.0
    assert errors["camera_deg"] < 0.3
    assert errors["base0_mm"] < 4.0
    assert errors["base0_deg"] < 0.3
    for camera in range(4):
        assert found.rig.residuals[camera].px < 0.4
        assert found.hand.residuals[camera].px < 0.6
    # The release's layout reads back to what was found.
    read = calibration.read(tmp_path / "out" / calibration.FOLDER)
    assert dict(read.lenses) == dict(shown.lenses)
    for camera in range(4):
        pair = read.wxyz_xyz_cam0_cam[camera], found.rig.wxyz_xyz_cam0_cam[camera]
        assert away(*pair)[0] < 1e-9
    placed = calibration.read_named_pose(
        tmp_path / "out" / "global_name_position" / "0.txt", "cam0_rgb_camera_link"
    )
    assert away(placed, found.hand.wxyz_xyz_base_cam0)[0] < 1e-9
    state = textfile.read_json(tmp_path / "out" / "calibration.json")
    assert state["command"] == "the command"
    assert state["hand_eye"]["condition"] == pytest.approx(found.hand.condition)
    assert state["cameras"]["residuals"]["2"]["px"] == found.rig.residuals[2].px
    assert state["true_errors"] is None
    assert (tmp_path / "out" / "calibration.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_same_seed_takes_the_same_pictures_and_another_has_other_places():
    """Ten rigs in one set of places would say nothing about others."""
    made = [virtual_board.record(seed, 320, 2, 2) for seed in (5, 5, 6)]
    first, second, other = (shown.take("hand", 1, 1) for shown, _ in made)
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()
    one, same, another = (truth for _, truth in made)
    np.testing.assert_array_equal(one.wxyz_xyz_base_cam0, same.wxyz_xyz_base_cam0)
    assert 5.0 < away(one.wxyz_xyz_base_cam0, another.wxyz_xyz_base_cam0)[0] < 200.0
    for camera in (1, 2, 3):
        poses = [truth.wxyz_xyz_cam0_cam[camera] for _, truth in made]
        np.testing.assert_array_equal(poses[0], poses[1])
        assert 5.0 < away(poses[0], poses[2])[0] < 300.0


def test_without_faults_robot_and_cameras_agree():
    """The board is where hand and cameras say, when nothing is wrong with either."""
    faults = calibrate.grown(0.0)
    assert (faults.robot_m, faults.focal) == (0.0, 0.0)
    assert faults.exposure == virtual_board.Faults().exposure
    shown, truth = virtual_board.record(0, 960, 2, 8, faults=faults)
    views, _ = board_set.look(shown, "hand")
    assert len(views) > 16
    for view in views:
        T_base_cam = rigid.compose(truth.wxyz_xyz_base_cam0, truth.wxyz_xyz_cam0_cam[view.camera])
        hand = shown.wxyz_xyz_base_hand[view.placement]
        T_base_board = rigid.compose(hand, truth.wxyz_xyz_hand_board)
        T_cam_board = rigid.compose(rigid.inverse(T_base_cam), T_base_board)
        lens = shown.lenses[view.camera]
        off = lens.project(rigid.apply(T_cam_board, view.p_board)) - view.pixels
        # A misread place of the board would be off by tens of pixels.
        assert np.sqrt((off**2).sum(axis=1).mean()) < 1.0


def test_the_board_is_printed_with_its_description(tmp_path):
    calibrate.print_board(PrintBoard(tmp_path / "a" / "board.pdf", 3, 2, 6.0, 40), QUIET)
    assert (tmp_path / "a" / "board.pdf").read_bytes().startswith(b"%PDF-")
    described = json.loads((tmp_path / "a" / "board.json").read_text())
    assert described == {"columns": 3, "rows": 2, "cell_m": 0.006, "first": 40}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": 0}, "--seeds 0; must be 1 to 100"),
        ({"faults": -1.0}, "--faults -1.0"),
        ({"faults": float("nan")}, "--faults nan"),
        ({"rig": "somewhere", "seeds": 2}, "are of the virtual rig"),
        ({"placements": 0}, "0 placements, 36 poses"),
        ({"poses": 12}, "--poses 12; at least 30 are needed"),
        ({"poses": 3000}, "3000 poses of the robot; the arm reaches"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        calibrate.run(Calibrate(out=tmp_path, **settings), "", QUIET)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rig", "nowhere"], "CalibrationError: nowhere: no folder"),
        (["--width", "100"], "CameraError: pictures 100 wide"),
        (["board", "board.svg"], "CalibrationError: board.svg: must end in .pdf or .png"),
    ],
)
def test_mistakes_end_in_a_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["calibrate", *words])
    with pytest.raises(SystemExit) as caught:
        calibrate.main()
    assert caught.value.code == 2
    assert message in capsys.readouterr().out


def test_the_page_of_many_rigs_shows_each_of_them(tmp_path, monkeypatch):
    """Three rigs, without their pictures; the camera of the last is beyond the aim."""
    names = [*calibrate.SUMMARY]
    errors = iter(dict.fromkeys(names, 0.01 * (i + 1)) for i in range(3))

    def found(*_):
        mine = next(errors)
        if mine["camera_mm"] > 0.025:
            mine["camera_mm"] = 9.0
        return calibrate.Outcome(None, None, (), mine, 1.0)

    monkeypatch.setattr(calibrate, "calibrate", found)
    monkeypatch.setattr(calibrate, "_write", lambda *_: None)
    monkeypatch.setattr(virtual_board, "record", lambda *_, **__: (None, None))
    calibrate.run(Calibrate(out=tmp_path, seed=5, seeds=3), "", QUIET)
    page = (tmp_path / "seeds" / "report.html").read_text()
    marks = charts.marks(page)
    assert {name: marks[f"rigs-{name}"] for name in names} == {**dict.fromkeys(names, 3)} | {
        "camera_mm": 2
    }
    assert marks["beyond-camera_mm"] == 1
    aims = {name.removeprefix("aim-") for name in marks if name.startswith("aim-")}
    assert aims == calibrate.AIMS.keys()
    words = charts.words(page)
    assert "3 virtual rigs; the number is the seed of the worst" in words
    assert words.count("7") == len(names)


@pytest.mark.slow
@pytest.mark.long
def test_ten_virtual_rigs_are_calibrated_as_well_as_promised(tmp_path):
    found = calibrate.run(Calibrate(out=tmp_path, seeds=10), "", QUIET)
    totals = calibrate.summary(found)
    over = {
        name: totals[name]["worst"]
        for name, aim in calibrate.AIMS.items()
        if totals[name]["worst"] > aim
    }
    assert not over
    assert textfile.read_json(tmp_path / "seeds" / "results.json")["true_errors"] == totals
    marks = charts.marks((tmp_path / "seeds" / "report.html").read_text())
    assert all(marks[f"rigs-{name}"] == 10 for name in calibrate.SUMMARY)
