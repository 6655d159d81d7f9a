"""Forward kinematics against C MuJoCo, the reference hand, and its own laws."""

from pathlib import Path

import jax
import jax.numpy as jnp
import jaxlie
import mujoco
import numpy as np
import pytest

from realdex_jax.errors import HandError
from realdex_jax.hand import joints, kinematics
from realdex_jax.hand.load import load

FK_ATOL = 1e-5
"""Metres and matrix entries: single precision over five links leaves about 3e-7."""
MENAGERIE = Path(__file__).parents[3] / ".." / "shared" / "data" / "menagerie" / "shadow_hand"


def _random(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(joints.LOWER, joints.UPPER, (count, 22)).astype(np.float32)


@pytest.mark.parametrize("name", ["shadow", "dexgraspnet"])
def test_agrees_with_c_mujoco_over_1000_poses(name):
    hand = load(name)
    model = mujoco.MjModel.from_xml_path(str(hand.mjcf))
    data = mujoco.MjData(model)
    address = [model.joint(n).qposadr[0] for n in joints.NAMES]
    q = _random(1000)
    links = jax.jit(lambda q: kinematics.forward(hand, q))(q)
    for i in range(len(q)):
        data.qpos[address] = q[i]
        mujoco.mj_kinematics(model, data)
        np.testing.assert_allclose(links.p[i], data.xpos[1:], atol=FK_ATOL)
        np.testing.assert_allclose(links.R[i], data.xmat[1:].reshape(-1, 3, 3), atol=FK_ATOL)


def test_fingertips_agree_with_the_reference_hand():
    if not MENAGERIE.is_dir():
        pytest.skip("no reference hand at ../shared/data/menagerie/shadow_hand")
    model = mujoco.MjModel.from_xml_path(str(MENAGERIE / "right_hand.xml"))
    data = mujoco.MjData(model)
    address = [model.joint(f"rh_{n}").qposadr[0] for n in joints.NAMES]
    palm = model.body("rh_palm").id
    hand, q = load("shadow"), _random(200)
    tips = np.asarray(kinematics.keypoints(hand, kinematics.forward(hand, jnp.asarray(q))))[:, 22:]
    for i in range(len(q)):
        data.qpos[address] = q[i]
        mujoco.mj_kinematics(model, data)
        R_world_palm = data.xmat[palm].reshape(3, 3)
        for t, (link, p_link) in enumerate(zip(hand.tip_link, hand.p_link_tip, strict=True)):
            body = model.body(f"rh_{hand.link_names[link]}").id
            p_world = data.xpos[body] + data.xmat[body].reshape(3, 3) @ p_link
            expected = R_world_palm.T @ (p_world - data.xpos[palm])
            np.testing.assert_allclose(tips[i, t], expected, atol=5e-4)  # 0.5 mm


def test_fingertips_of_the_dexgraspnet_hand_are_within_2_mm():
    # Its thumb base and little finger sit a little elsewhere; a wrong sign would cost centimetres.
    q = jnp.asarray(_random(500))
    ours, theirs = (
        kinematics.keypoints(hand, kinematics.forward(hand, q))[:, 22:]
        for hand in (load("shadow"), load("dexgraspnet"))
    )
    assert float(jnp.linalg.norm(ours - theirs, axis=-1).max()) < 2e-3


def test_batching_is_the_loop_and_jit_changes_nothing():
    hand, q = load(), _random(6).reshape(2, 3, 22)
    batched = kinematics.forward(hand, jnp.asarray(q))
    assert batched.R.shape == (2, 3, 23, 3, 3)
    for index in np.ndindex(2, 3):
        one = kinematics.forward(hand, jnp.asarray(q[index]))
        np.testing.assert_allclose(batched.p[index], one.p, atol=1e-7)
        np.testing.assert_allclose(batched.R[index], one.R, atol=1e-6)


def test_gradient_is_the_finite_difference():
    hand = load()
    weight = jax.random.normal(jax.random.key(0), (27, 3))

    def height(q):
        return (kinematics.keypoints(hand, kinematics.forward(hand, q)) * weight).sum()

    q = jnp.asarray(_random(1)[0])
    gradient = jax.jit(jax.grad(height))(q)
    step = 1e-2  # single precision: central differences are best near the cube root of epsilon
    for j in range(22):
        e = step * jnp.eye(22)[j]
        difference = (height(q + e) - height(q - e)) / (2 * step)
        np.testing.assert_allclose(gradient[j], difference, atol=2e-4)


def test_placing_moves_every_link_rigidly():
    hand, q = load(), jnp.asarray(_random(4))
    links = kinematics.forward(hand, q)
    T = jaxlie.SE3.sample_uniform(jax.random.key(1), (4,))
    placed = kinematics.at(hand, q, T.rotation().as_matrix(), T.translation())
    expected = np.stack(
        [np.asarray(T.rotation().as_matrix()[i] @ links.p[i].T).T for i in range(4)]
    )
    expected += np.asarray(T.translation())[:, None]
    np.testing.assert_allclose(placed.p, expected, atol=1e-6)
    turned = np.einsum("bij,bljk->blik", T.rotation().as_matrix(), links.R)
    np.testing.assert_allclose(placed.R, turned, atol=1e-6)
    np.testing.assert_allclose(
        jnp.linalg.norm(placed.p[:, 3] - placed.p[:, 20], axis=-1),
        jnp.linalg.norm(links.p[:, 3] - links.p[:, 20], axis=-1),
        atol=1e-6,
    )


def test_unknown_hands_and_links_name_the_choices():
    with pytest.raises(HandError, match="known: shadow, dexgraspnet"):
        load("barrett")
    with pytest.raises(HandError, match="no link 'wrist'"):
        load().link("wrist")
