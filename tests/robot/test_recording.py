"""Recordings: samples with stamps, and what the hand did as motions in a store."""

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax.data import npz, store
from realdex_jax.data.motion import RATE
from realdex_jax.errors import DatasetError
from realdex_jax.hand.load import load
from robot import plant, recording, teleop
from robot.interface import JointState, RobotError
from robot.recording import Recorder
from sim import objects, workcell

POSE = np.array([1.0, 0.0, 0.0, 0.0, 0.05, 0.0, 0.04])


def record(count=200, poses=True, wrist=(0.0, 0.0)):
    recorder = Recorder()
    for k in range(count):
        q = plant.home()
        q[0] += 0.3 * k / count
        q[6:8] = wrist
        q[11] += 0.1 * np.sin(k / 20)
        state = JointState(100.0 + 0.01 * k, 7.0 + 0.01 * k, teleop.NAMES, q, np.zeros(30))
        recorder.add(7.0 + 0.01 * k, q + 0.001, state, POSE if poses and k >= 20 else None)
    return recorder.recording()


def test_what_is_kept_is_in_step(tmp_path):
    found = record()
    recording.save(tmp_path / "a" / "r.npz", found)
    arrays = npz.read(tmp_path / "a" / "r.npz")
    assert tuple(arrays["names"]) == teleop.NAMES
    for name in ("host_s", "stamp_s", "received_s", "q", "q_wanted"):
        np.testing.assert_array_equal(arrays[name], getattr(found, name))
    assert np.isnan(arrays["wxyz_xyz_world_object"][:20]).all()


@pytest.mark.parametrize("wrist", [(0.0, 0.0), (-0.3, 0.25)])
def test_the_palm_is_where_mujoco_has_it(wrist):
    found = record(wrist=wrist)
    motion = recording.to_motion(found)
    assert np.diff(motion.time) == pytest.approx(1 / RATE, abs=1e-5)
    cell = workcell.build(load("shadow"), objects.make("mug"), POSE)
    for k in (0, len(motion) - 1):
        at = round(float(motion.time[k]) / 0.01)
        data = workcell.start(cell, found.q[at])
        mujoco.mj_kinematics(cell.model, data)
        R, p = workcell.palm_pose(cell, data)
        phi = np.asarray(motion.phi[k], np.float64)
        # Between two samples of 0.01 s the palm moves a few tenths of a millimetre.
        np.testing.assert_allclose(phi[22:25], p, atol=1e-3)
        turn = Rotation.from_rotvec(phi[25:]) * Rotation.from_matrix(R).inv()
        assert turn.magnitude() < 2e-3
        np.testing.assert_allclose(phi[:22], found.q[at, 8:], atol=2e-3)
    # Before the object was first seen it was where it was first seen.
    np.testing.assert_allclose(
        motion.wxyz_xyz_world_object, np.tile(POSE, (len(motion), 1)), atol=1e-6
    )


def test_states_that_did_not_change_count_once():
    found = record(100)
    doubled = {k: np.repeat(v, 2, axis=0) for k, v in vars(found).items()}
    again = recording.to_motion(recording.Recording(**doubled))
    once = recording.to_motion(found)
    np.testing.assert_array_equal(again.time, once.time)
    np.testing.assert_array_equal(again.phi, once.phi)


def test_motions_go_to_the_store(tmp_path):
    motions = [recording.to_motion(record(count, poses=False)) for count in (100, 150, 200)]
    recording.store(tmp_path / "d", motions, ["door", "mug", "door"], "python -m x")
    dataset = store.open_dataset(tmp_path / "d")
    door = dataset.motions("door")
    assert len(door) == 2
    np.testing.assert_array_equal(door.poses(1), np.asarray(motions[2].phi, np.float32))
    np.testing.assert_array_equal(door.q_squeeze[0], door.poses(0)[-1, :22])
    assert len(dataset.motions("mug")) == 1


def test_recordings_that_are_none():
    with pytest.raises(RobotError, match="nothing was recorded"):
        Recorder().recording()
    state = JointState(0.0, 0.0, ("a",), np.zeros(1), np.zeros(1))
    with pytest.raises(RobotError, match="has the joints ra_shoulder_pan_joint"):
        Recorder().add(0.0, np.zeros(30), state)
    with pytest.raises(DatasetError, match="at least"):
        recording.to_motion(record(10))
    back = record()
    back.stamp_s[50:] -= 0.3
    with pytest.raises(RobotError, match="clock went back"):
        recording.to_motion(back)
