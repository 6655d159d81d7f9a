"""The whole robot in MuJoCo: kinematics, actuators, what touches what."""

import itertools

import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from realdex_jax import arm
from realdex_jax.errors import PhysicsError
from realdex_jax.hand import joints, kinematics
from realdex_jax.hand.load import load
from sim import safety, workcell
from sim.demonstrate import P_WORLD_BASE
from sim.safety import Part

# A pose with the elbow up and the flat hand 45 cm over the table.
UP = np.array([-0.609, -1.173, 2.65, -1.126, 0.991, 2.944, *np.zeros(24)])
AWAY = np.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.02])
FK_ATOL = 1e-5
"""Metres: single precision over the whole chain leaves about 1e-6."""


@pytest.fixture(scope="module")
def cell(cube):
    return workcell.build(load("shadow"), cube, AWAY)


def test_links_are_where_the_arm_and_the_hand_have_them(cell, rng):
    hand = load("shadow")
    q = rng.uniform(-1.0, 1.0, (20, 30))
    q[:, 6:8] = 0.0
    links = arm.forward(jnp.asarray(q[:, :6], jnp.float32))
    R_base_palm, p_base_palm = arm.palm_pose(jnp.asarray(q[:, :6], jnp.float32))
    of_hand = kinematics.forward(hand, jnp.asarray(q[:, 8:], jnp.float32))
    p_hand = jnp.einsum("bij,blj->bli", R_base_palm, of_hand.p) + p_base_palm[:, None]
    data = mujoco.MjData(cell.model)
    for i, row in enumerate(q):
        data.qpos[cell.joint_qpos] = row
        mujoco.mj_kinematics(cell.model, data)
        for k, name in enumerate(arm.LINKS):
            got = data.body(name).xpos - P_WORLD_BASE
            np.testing.assert_allclose(got, links.p[i, k], atol=FK_ATOL, err_msg=name)
            np.testing.assert_allclose(
                data.body(name).xmat.reshape(3, 3), links.R[i, k], atol=FK_ATOL
            )
        for k, name in enumerate(hand.link_names):
            got = data.body(workcell.PREFIX + name).xpos - P_WORLD_BASE
            np.testing.assert_allclose(got, p_hand[i, k], atol=FK_ATOL, err_msg=name)


def test_capsules_are_where_the_arm_has_them(cell, rng):
    q = np.zeros(30)
    q[:6] = rng.uniform(-2.0, 2.0, 6)
    data = mujoco.MjData(cell.model)
    data.qpos[cell.joint_qpos] = q
    mujoco.mj_kinematics(cell.model, data)
    p_a, p_b, radius = arm.capsules(arm.forward(jnp.asarray(q[:6], jnp.float32)))
    for c, link in enumerate(arm.CAPSULE_LINK):
        geom = cell.model.geom(f"{arm.LINKS[link]}_{c}").id
        middle = np.asarray(p_a[c] + p_b[c]) / 2 + P_WORLD_BASE
        np.testing.assert_allclose(data.geom_xpos[geom], middle, atol=FK_ATOL)
        assert cell.model.geom_size[geom, 0] == pytest.approx(float(radius[c]))
        length = np.linalg.norm(np.asarray(p_b[c] - p_a[c])) / 2
        assert cell.model.geom_size[geom, 1] == pytest.approx(length, abs=1e-6)


def test_actuators_are_named_and_driven_by_set_points(cell):
    names = [cell.model.actuator(i).name for i in range(cell.model.nu)]
    assert set(arm.JOINTS) | set(arm.WRIST_JOINTS) <= set(names)
    assert {"rh_FFJ0", "rh_MFJ0", "rh_RFJ0", "rh_LFJ0", "rh_THJ1"} <= set(names)
    q = np.arange(30.0)
    at = dict(zip(workcell.NAMES, q, strict=True))
    for name, value in zip(names, cell.control @ q, strict=True):
        pair = name.endswith("J0")
        wanted = at[f"{name[:-1]}1"] + at[f"{name[:-1]}2"] if pair else at[name]
        assert value == wanted, name


def test_arm_and_hand_follow_moving_set_points(cell):
    data = workcell.start(cell, UP)
    dt = cell.model.opt.timestep
    worst = np.zeros(cell.model.nu)
    for i in range(1, 1000):
        t = i * dt
        share, rate = 0.15 * (1.0 - np.cos(2.0 * t)), 0.3 * np.sin(2.0 * t)
        q, qd = UP.copy(), np.zeros(30)
        q[:6] -= share
        qd[:6] -= rate
        for name in ("FFJ3", "FFJ2", "MFJ3", "THJ4", "THJ1"):
            j = 8 + joints.NAMES.index(name)
            q[j] += share
            qd[j] += rate
        workcell.step(cell, data, q, qd)
        got, _ = workcell.joint_state(cell, data)
        worst = np.maximum(worst, np.abs(cell.control @ (got - q)))
    of_arm = [cell.model.actuator(n).id for n in arm.JOINTS]
    # The arm: a third of a millimetre at the hand; fingers: what friction over stiffness leaves.
    assert worst[of_arm].max() < 1e-3
    assert worst.max() < 0.01


def test_a_robot_at_rest_stays_and_nothing_touches(cell):
    data = workcell.start(cell, UP)
    assert not [p for p in data.contact.geom if cell.table not in p]
    for _ in range(500):
        workcell.step(cell, data, UP, np.zeros(30))
    q, qd = workcell.joint_state(cell, data)
    assert np.abs(q - UP).max() < 1e-3
    assert np.abs(qd).max() < 1e-3
    np.testing.assert_allclose(workcell.object_pose(cell, data), AWAY, atol=1e-3)


def test_every_part_is_known(cell):
    kinds = safety.parts(cell)
    named = [cell.model.geom(g).name for g in range(cell.model.ngeom)]
    for name, kind in zip(named, kinds, strict=True):
        if name.startswith("ra_base") or name in ("table", "pedestal"):
            assert kind == Part.SETTING
        elif name.startswith(("ra_", "rh_forearm")):
            assert kind == Part.ARM, name
        elif name.startswith("object"):
            assert kind == Part.OBJECT
    assert (kinds == Part.HAND).sum() > 15
    assert set(np.flatnonzero(np.isin(kinds, (Part.ARM, Part.HAND)))) == set(cell.robot_geoms)


def test_arms_that_fold_into_themselves_touch(cell):
    """Neighbours overlap by construction and are let pass; other links are not."""
    folded = UP.copy()
    folded[2] = np.pi
    data = workcell.start(cell, folded)
    bodies = [
        {cell.model.body(b).name for b in cell.model.geom_bodyid[pair]}
        for pair in data.contact.geom
    ]
    assert any({"ra_upper_arm_link", "ra_wrist_1_link"} == pair for pair in bodies)
    neighbours = [set(pair) for pair in itertools.pairwise(arm.LINKS)]
    assert not any(pair in neighbours for pair in bodies)


def test_bad_poses_are_named(cube):
    for bad in (AWAY * np.nan, np.array([2.0, 0, 0, 0, 0, 0, 0.02])):
        with pytest.raises(PhysicsError, match="unit quaternion"):
            workcell.build(load("shadow"), cube, bad)
    q = np.tile(UP, (100, 1))
    made = workcell.build(load("shadow"), cube, AWAY)
    for bad_q, times, match in (
        (q[:1], (0.05, 0.1), r"both must be \(s, 30\)"),
        (q * np.nan, (0.05, 0.1), "not finite"),
        (q, (0.1, 0.05), "lift at 0.1 s, hold at 0.05 s"),
    ):
        with pytest.raises(PhysicsError, match=match):
            safety.replay(made, bad_q, np.zeros_like(bad_q), *times)
