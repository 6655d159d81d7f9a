"""Joint torques against MuJoCo's Jacobian, and the postures made of them."""

import jax.numpy as jnp
import mujoco
import numpy as np

from realdex_jax.hand import joints, kinematics, torque
from realdex_jax.hand.load import load


def test_torque_is_the_jacobian_transpose_of_mujoco():
    hand = load()
    model = mujoco.MjModel.from_xml_path(str(hand.mjcf))
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    q = rng.uniform(joints.LOWER, joints.UPPER, 22).astype(np.float32)
    names = ["ffdistal", "thdistal", "lfmiddle"]
    links = [hand.link(n) for n in names]
    posed = kinematics.forward(hand, jnp.asarray(q))
    p = np.asarray(posed.p)[links] + rng.normal(size=(3, 3)) * 0.01
    force = rng.normal(size=(3, 3))
    ours = torque.joint_torque(
        hand, jnp.asarray(q), links, jnp.asarray(p, jnp.float32), jnp.asarray(force, jnp.float32)
    )
    data.qpos[[model.joint(n).qposadr[0] for n in joints.NAMES]] = q
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    expected = np.zeros(model.nv)
    for k, name in enumerate(names):
        jacobian = np.zeros((3, model.nv))
        mujoco.mj_jac(model, data, jacobian, None, p[k], model.body(name).id)
        expected += jacobian.T @ force[k]
    order = [model.joint(n).dofadr[0] for n in joints.NAMES]
    np.testing.assert_allclose(ours, expected[order], atol=1e-5)


def test_pregrasp_opens_against_the_torque_and_squeeze_closes_with_it():
    q = jnp.asarray(joints.REST)[None]
    tau = jnp.zeros((1, 22)).at[0, joints.NAMES.index("FFJ3")].set(0.02)
    j = joints.NAMES.index("FFJ3")
    np.testing.assert_allclose(torque.pregrasp(q, tau)[0, j], q[0, j] - torque.OPENING, atol=1e-6)
    np.testing.assert_allclose(
        torque.squeeze(q, tau)[0, j], q[0, j] + torque.SQUEEZE_GAIN * 0.02 / torque.STIFFNESS
    )
    no_torque = torque.pregrasp(q, jnp.zeros_like(q))
    np.testing.assert_allclose(no_torque, q, atol=1e-6)


def test_a_wider_pregrasp_opens_all_joints_that_close_about_alike():
    q, index = jnp.asarray(joints.REST)[None], joints.NAMES.index
    busy, half, idle = index("FFJ3"), index("MFJ3"), index("RFJ3")
    tau = jnp.zeros((1, 22)).at[0, jnp.array([busy, half])].set(jnp.array([0.02, 0.01]))
    opened = (torque.pregrasp(q, tau) - torque.pregrasp(q, tau, 0.1))[0]
    np.testing.assert_allclose(opened[busy], 0.1, rtol=1e-3)
    # The half as busy one would open half as far in proportion.
    np.testing.assert_allclose(opened[half], 0.1, rtol=0.02)
    assert opened[idle] == 0.0


def test_limits_keep_j1_below_j2():
    rng = np.random.default_rng(0)
    q = torque.within_limits(jnp.asarray(rng.normal(size=(50, 22)), jnp.float32))
    assert bool((q >= joints.LOWER).all())
    assert bool((q <= joints.UPPER).all())
    for j2, j1 in joints.COUPLED:
        assert bool((q[:, j1] <= q[:, j2]).all())
