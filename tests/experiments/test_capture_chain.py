"""From cameras to a model: recorded, in RealDex's layout, annotated, stored, trained on."""

import pathlib

import numpy as np
import pytest
from rich.console import Console

from experiments import annotate, convert, record, train_pose
from experiments.annotate import Annotate
from experiments.convert import Convert
from experiments.record import Record, ToRealdex
from experiments.train_pose import TrainPose
from realdex_jax.data import realdex_raw, store
from sim import objects

QUIET = Console(quiet=True)


@pytest.mark.slow
def test_a_virtual_recording_becomes_a_dataset_and_a_model(tmp_path: pathlib.Path) -> None:
    args = Record(
        tmp_path / "rec", object="cracker_box", frames=10, lift=0.04, width=320, depth_width=320
    )
    assert record.run(args, QUIET).good
    folder = tmp_path / "release" / "cracker_box_1"
    assert record.convert(ToRealdex(tmp_path / "rec", folder), QUIET) == 4 * 16
    truth, _ = realdex_raw.Recording(folder).object_track()

    found = annotate.run(Annotate(folder, browser=False, replace=True), QUIET)
    assert not len(found.flagged())
    away = found.wxyz_xyz_world_object[:, 4:] - truth[: len(found.origin), 4:]
    assert np.linalg.norm(away, axis=1).max() < 2e-3

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
