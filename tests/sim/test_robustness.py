"""The strict test: verdicts, early accept, threads and errors."""

import dataclasses
from types import SimpleNamespace

import mujoco
import numpy as np
import pytest

from realdex_jax.data import dexgraspnet
from realdex_jax.errors import PhysicsError
from realdex_jax.hand import joints
from realdex_jax.hand.load import load
from sim.physics import StrictPhysics
from sim.robustness import Reason, robustness
from sim.scene import actuated_scene

FLEXION = [i for i, n in enumerate(joints.NAMES) if n[-1] in "123" and n != "THJ3"]
"""Joints that close the hand when they grow."""


def closing(phi, squeeze=0.15, opening=0.1):
    """Grasps whose flexion joints open and press by fixed angles."""
    q_pregrasp, q_squeeze = phi[:, :22].copy(), phi[:, :22].copy()
    q_pregrasp[:, FLEXION] -= opening
    q_squeeze[:, FLEXION] += squeeze
    return SimpleNamespace(phi=phi, q_pregrasp=q_pregrasp, q_squeeze=q_squeeze)


@pytest.fixture(scope="module")
def real(dexgraspnet_root):
    """Thirty real grasps of the bottle at one size."""
    code = next(c for c in dexgraspnet.codes(dexgraspnet_root) if "Bottle" in c)
    scaled = dexgraspnet.read(dexgraspnet_root, code)[1]
    return scaled.shape, closing(np.asarray(scaled.grasps.phi[:30]))


def test_constants_are_printed_with_every_part():
    described = StrictPhysics().describe()
    assert described["contact.sliding"] == 0.6
    assert described["timestep"] == 0.004
    assert all(isinstance(v, (int, float, str)) for v in described.values())


def test_scene_has_the_real_hands_actuators(cube):
    scene = actuated_scene(load("shadow"), cube, StrictPhysics())
    assert scene.model.nu == 18
    assert scene.model.nv == 28
    assert np.array_equal(scene.control.sum(axis=1), [1.0] * 14 + [2.0] * 4)
    assert scene.model.body_mass[scene.object_body] == pytest.approx(0.1)


def test_mechanical_stop_keeps_j1_below_j2(cube):
    physics = StrictPhysics()
    scene = actuated_scene(load("shadow"), cube, physics)
    data = mujoco.MjData(scene.model)
    data.qpos[scene.object_qpos] = 10.0
    q = joints.REST.astype(float)
    j2, j1 = joints.COUPLED[0]
    q[j2], q[j1] = 0.2, 0.9
    data.qpos[scene.joint_qpos] = q
    data.ctrl[:] = scene.control @ q
    mujoco.mj_step(scene.model, data, 250)
    settled = data.qpos[scene.joint_qpos]
    assert settled[j1] <= settled[j2] + 0.02
    assert settled[j1] + settled[j2] == pytest.approx(1.1, abs=0.05)


@pytest.mark.parametrize("name", ["shadow", "dexgraspnet"])
@pytest.mark.parametrize("posture", ["zero", "rest"])
def test_free_hand_stays_where_it_is_told(cube, name, posture):
    scene = actuated_scene(load(name), cube, StrictPhysics())
    data = mujoco.MjData(scene.model)
    data.qpos[scene.object_qpos] = 10.0
    q = np.zeros(22) if posture == "zero" else joints.REST.astype(float)
    data.qpos[scene.joint_qpos] = q
    data.ctrl[:] = scene.control @ q
    mujoco.mj_step(scene.model, data, 250)
    assert np.abs(data.qpos[scene.joint_qpos] - q).max() < 0.02


def test_far_object_is_not_touched(cube):
    phi = np.zeros((1, 28))
    phi[0, :22], phi[0, 22:25] = joints.REST, (0.5, 0.0, 0.0)
    result = robustness(load("shadow"), cube, closing(phi))
    assert result.reason[0] == Reason.NO_CONTACT
    assert not result.success[0]
    assert result.shift_m[0] == pytest.approx(0.0, abs=1e-6)
    assert np.allclose(result.phi_settled[0, 22:], phi[0, 22:], atol=1e-5)


def test_hand_inside_the_object_is_refused(cube):
    phi = np.zeros((1, 28))
    phi[0, :22], phi[0, 24] = joints.REST, -0.04
    result = robustness(load("shadow"), cube, closing(phi))
    assert result.reason[0] == Reason.START_DEPTH
    assert "pre-grasp" in next(iter(result.counts()))


def test_real_grasps_hold_and_do_not_depend_on_threads(real):
    shape, grasps = real
    one = robustness(load("dexgraspnet"), shape, grasps, threads=1)
    two = robustness(load("dexgraspnet"), shape, grasps, threads=3)
    for field in dataclasses.fields(one):
        assert np.array_equal(getattr(one, field.name), getattr(two, field.name)), field.name
    assert one.success.mean() >= 0.4
    assert np.array_equal(one.success, one.pushes_held.all(axis=1))
    assert one.contacts[one.success].min() >= 2
    assert one.penetration_m[one.success].max() < 2e-3


def test_settled_grasp_is_the_same_grasp_nearby(real):
    shape, grasps = real
    result = robustness(load("dexgraspnet"), shape, grasps)
    ok = result.success
    near = np.linalg.norm(result.phi_settled[ok, 22:25] - grasps.phi[ok, 22:25], axis=1)
    assert np.median(near) < 0.02


@pytest.mark.slow
def test_early_accept_agrees_with_the_full_push(real):
    shape, grasps = real
    short = robustness(load("dexgraspnet"), shape, grasps)
    full = robustness(load("dexgraspnet"), shape, grasps, accept_at_rest=False)
    assert (short.success == full.success).mean() >= 0.99


def test_bad_grasps_are_named(cube):
    grasps = closing(np.zeros((2, 28)))
    grasps.phi[1, 3] = np.nan
    with pytest.raises(PhysicsError, match="phi of grasp 1 is not finite"):
        robustness(load("shadow"), cube, grasps)
    grasps = closing(np.zeros((2, 28)))
    grasps.q_squeeze = np.zeros((2, 21))
    with pytest.raises(PhysicsError, match="q_squeeze"):
        robustness(load("shadow"), cube, grasps)


def test_no_grasps_give_empty_columns(cube):
    result = robustness(load("shadow"), cube, closing(np.zeros((0, 28))))
    assert result.success.shape == (0,)
    assert result.counts() == {}
