"""From cameras to a model: recorded, calibrated, converted, annotated, stored, trained on.

Places and clocks are those that are found, as of a real rig; what is true only judges them.
"""

import pathlib

import numpy as np
import pytest
from rich.console import Console

from capture import realdex
from experiments import annotate, calibrate, convert, record, train_pose, virtual_rig
from experiments.annotate import Annotate
from experiments.calibrate import Calibrate
from experiments.convert import Convert
from experiments.record import BoardPictures, Record, ToRealdex
from experiments.train_pose import TrainPose
from realdex_jax.data import realdex_raw, rigid, store
from realdex_jax.hand.load import load
from sim import objects, sequence

QUIET = Console(quiet=True)


@pytest.mark.slow
def test_a_virtual_recording_becomes_a_dataset_and_a_model(tmp_path: pathlib.Path) -> None:
    rec, found_places = tmp_path / "rec", tmp_path / "calibration"
    folder = tmp_path / "release" / "cracker_box_1"
    args = Record(rec, object="cracker_box", frames=24, lift=0.06, width=320, depth_width=320)
    assert record.run(args, QUIET).good
    record.photograph(BoardPictures(tmp_path / "board", width=960, placements=10, poses=34), QUIET)
    calibrate.run(Calibrate(rig=str(tmp_path / "board"), out=found_places), "test", QUIET)
    console = Console(record=True, width=200, force_terminal=False)
    # The robot's clock must be found by its motion.
    to_release = ToRealdex(rec, folder, found_places, robot_clock="motion")
    assert record.convert(to_release, console) > 100
    assert "robot's clock by its motion" in console.export_text()
    found = annotate.run(Annotate(folder, browser=False), QUIET)
    assert not len(found.flagged())

    # What it all costs. World is the arm's base, as the calibration found it.
    truth, hand = virtual_rig.read_truth(rec), load("shadow")
    placed = realdex_raw.Recording(folder)
    seen, known = placed.object_track()
    rows = np.loadtxt(folder / realdex.TRUE_TRACK)
    count = len(seen)
    assert known.all()
    true_object = np.concatenate([rows[:, [6, 3, 4, 5]], rows[:, :3]], axis=1)
    base = rigid.inverse(np.array([1.0, 0.0, 0.0, 0.0, *truth["p_world_base"]]))
    scene = sequence.Sequence(
        truth["time_s"], truth["phi"], truth["wxyz_xyz_world_object"], truth["p_world_table"]
    )
    true_palm = rigid.compose(base, scene.palm_at(truth["exposure_s_0"]))
    track = placed.hand(hand)
    palm = sequence.palms(track.phi)
    inner = track.valid
    object_mm = 1e3 * np.linalg.norm(seen[:, 4:] - true_object[:count, 4:], axis=1)
    palm_mm = 1e3 * np.linalg.norm(palm[:, 4:] - true_palm[:, 4:], axis=1)[inner]
    # Of four turns that look alike the box has the true one or another: distances do not tell.
    apart, true_apart = (
        np.linalg.norm(a[:, 4:] - b[:, 4:], axis=1)
        for a, b in ((palm, seen), (true_palm, true_object))
    )
    grasp_mm = 1e3 * np.abs(apart - true_apart)[inner]
    print(
        f"object {np.median(object_mm):.2f} {object_mm.max():.2f} mm, palm {np.median(palm_mm):.2f} {palm_mm.max():.2f} mm, grasp {np.median(grasp_mm):.2f} {grasp_mm.max():.2f} mm, {console.export_text()}"
    )
    assert np.median(object_mm) < 4.0
    assert np.median(palm_mm) < 2.0
    assert np.median(grasp_mm) < 4.0

    report = convert.run(Convert(tmp_path / "release", tmp_path / "data", jobs=1), QUIET)
    assert report.refused == {}
    grasps = report.dataset.grasps("cracker_box")
    assert len(grasps) > 0
    # A box of four turns that look alike: the palm is where it is in one of them.
    true_grasp = store.open_dataset("realdex-sim").grasps("cracker_box").phi[:, 22:25]
    half = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    apart = [
        np.linalg.norm(true_grasp * turn - grasps.phi[0, 22:25], axis=1).min() for turn in half
    ]
    assert min(apart) < 0.02
    box = report.dataset.surface("cracker_box").points
    np.testing.assert_allclose(
        np.ptp(box, 0), np.ptp(objects.make("cracker_box").bounds, 0), atol=0.01
    )
    command = TrainPose(preset="smoke", data=str(tmp_path / "data"), steps=2, run=tmp_path / "run")
    assert train_pose.main(command) == 0
    assert (tmp_path / "run" / "model.safetensors").is_file()
