"""Every hand there is, and every mistake in a hand's folder: what a new hand must pass.

A new folder of `realdex_jax/assets` is tested by being there.
"""

import functools
import pathlib
import shutil

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax import refine, touch
from realdex_jax.data import schema
from realdex_jax.errors import DatasetError, HandError, JointError
from realdex_jax.hand import collision, facts, joints, kinematics, load, retarget, surface, torque
from realdex_jax.hand.load import from_mjcf
from sim import physics, synthesis

ALLEGRO = load.load("allegro").mjcf.parent
FOLDERS = [name for name in load.known() if name not in ("shadow", "dexgraspnet")]
"""Those in code have tests of their own."""
FK_ATOL = 1e-5
"""Metres and matrix entries: single precision over five links leaves about 3e-7."""


def random_angles(hand: load.HandModel, count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    table = hand.joints
    return rng.uniform(table.lower, table.upper, (count, len(table))).astype(np.float32)


def tips(hand: load.HandModel, q: np.ndarray) -> np.ndarray:
    """Fingertips (n f 3) in the palm frame."""
    links = kinematics.forward(hand, jnp.asarray(q))
    return np.asarray(kinematics.keypoints(hand, links))[..., len(hand.joints) :, :]


@pytest.mark.parametrize("name", FOLDERS)
def test_links_agree_with_c_mujoco(name: str) -> None:
    hand = load.load(name)
    model = mujoco.MjModel.from_xml_path(str(hand.mjcf))
    data = mujoco.MjData(model)
    address = [model.joint(n).qposadr[0] for n in hand.joints.names]
    q = random_angles(hand, 200)
    links = jax.jit(functools.partial(kinematics.forward, hand))(jnp.asarray(q))
    for i in range(len(q)):
        data.qpos[address] = q[i]
        mujoco.mj_kinematics(model, data)
        np.testing.assert_allclose(links.p[i], data.xpos[1:], atol=FK_ATOL)
        np.testing.assert_allclose(links.R[i], data.xmat[1:].reshape(-1, 3, 3), atol=FK_ATOL)


@pytest.mark.parametrize("name", ["shadow", *FOLDERS])
def test_the_palm_frame_and_the_digits_keep_the_conventions(name: str) -> None:
    hand = load.load(name)
    at_rest = tips(hand, hand.joints.rest)
    *fingers, thumb = at_rest
    assert all(tip[2] > 0.1 for tip in fingers)  # z toward the fingers
    assert (at_rest[:, 1] < 0.0).all()  # bent to the palm's side
    assert thumb[0] > 0.02  # the thumb is on the side of the first finger
    assert fingers[0][0] > fingers[-1][0]
    # The last joint of every digit flexes its tip along the palmar axis of its last link.
    last = [hand.joint[link] for link in hand.tip_link]
    for digit, joint in enumerate(last):
        moved = hand.joints.rest + 0.05 * np.eye(len(hand.joints), dtype=np.float32)[joint]
        k = hand.contacts.names.index(f"{hand.facts.digits[digit]}distal")
        R = np.asarray(kinematics.forward(hand, jnp.asarray(hand.joints.rest)).R)
        palmar = R[hand.tip_link[digit]] @ hand.contacts.palmar[k]
        flexed = (tips(hand, moved) - at_rest)[digit]
        assert flexed @ palmar > 0.9 * np.linalg.norm(flexed), hand.facts.digits[digit]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_hand_has_what_grasping_needs(name: str) -> None:
    hand = load.load(name)
    table = hand.joints
    assert (table.lower < table.upper).all()
    assert ((table.rest >= table.lower) & (table.rest <= table.upper)).all()
    links = kinematics.forward(hand, jnp.asarray(table.rest))
    assert float(collision.self_penetration(hand, links).max()) < 1e-4
    found = surface.points(hand, 256)
    p, outward = (np.asarray(x) for x in surface.pose_points(found, links))
    depth = np.asarray(collision.signed_distance(hand, links, jnp.asarray(p)))
    # Of thousands of candidates on primitives, those inside another by over 0.1 mm are left out.
    assert (np.abs(depth) < 2e-4).all()
    step = collision.signed_distance(hand, links, jnp.asarray(p + 1e-3 * outward))
    assert float(jnp.mean(step > depth)) > 0.9
    assert set(hand.geoms.link) == set(found.link)
    templates = synthesis.templates(hand)
    assert {"tripod", "power"} <= set(templates)
    known = set(hand.contacts.names)
    assert all({*t.required, *t.optional} <= known for t in templates.values())
    drive = physics.StrictPhysics.of(hand)
    assert (drive.stiffness, drive.torque_limit) == (
        hand.facts.drive.stiffness,
        hand.facts.drive.torque_limit,
    )


def test_allegro_moves_as_its_public_description_says() -> None:
    # Offsets (m), turns (wxyz) and axes of the public URDF and Menagerie, in their palm frame: x
    # is out of the palm, y toward the index finger, z up; our frame turns them (-90 degrees about
    # z) and has its origin 95 mm lower.
    up = np.array([0.0, 0.0, 0.0164]), np.array([0.0, 0.0, 0.054]), np.array([0.0, 0.0, 0.0384])
    finger = [((0, 1, 0), x) for x in up]
    a, b = 0.477714, 0.521334
    chains = [
        [((0, 0, 1), (0.0, 0.0435, -0.001542), (0.999048, -0.0436194, 0, 0)), *finger],
        [((0, 0, 1), (0.0, 0.0, 0.0007), (1, 0, 0, 0)), *finger],
        [((0, 0, 1), (0.0, -0.0435, -0.001542), (0.999048, 0.0436194, 0, 0)), *finger],
        [
            (
                (-1, 0, 0),
                (-0.0182, 0.019333, -0.045987),
                (a, -b, -b, -a),
            ),
            ((0, 0, 1), (-0.027, 0.005, 0.0399)),
            ((0, 1, 0), (0.0, 0.0, 0.0177)),
            ((0, 1, 0), (0.0, 0.0, 0.0514)),
        ],
    ]
    hand = load.load("allegro")
    ours_theirs = Rotation.from_euler("z", -90, degrees=True)
    q = random_angles(hand, 50)
    links = jax.jit(functools.partial(kinematics.forward, hand))(jnp.asarray(q))
    for digit, chain in enumerate(chains):
        distal = hand.tip_link[digit]
        for i in range(len(q)):
            R, p = Rotation.identity(), np.zeros(3)
            for (axis, offset, *turn), angle in zip(chain, q[i, 4 * digit :], strict=False):
                p = p + R.apply(offset)
                for wxyz in turn:
                    R = R * Rotation.from_quat(wxyz, scalar_first=True)
                R = R * Rotation.from_rotvec(angle * np.array(axis, float))
            # 0.01 mm: the thumb's turn is written with six digits.
            expected = ours_theirs.apply(p) + np.array([0.0, 0.0, 0.095])
            np.testing.assert_allclose(links.p[i, distal], expected, atol=1e-5)
            R_ours = (ours_theirs * R * ours_theirs.inv()).as_matrix()
            np.testing.assert_allclose(links.R[i, distal], R_ours, atol=1e-5)


def test_angles_and_poses_of_another_hand_are_refused_by_name() -> None:
    hand = load.load("allegro")
    with pytest.raises(HandError, match="22 joint angles for hand 'allegro', which has 16 joints"):
        kinematics.forward(hand, jnp.zeros((2, 22)))
    with pytest.raises(HandError, match=r"is for hand 'shadow' .* got 'allegro'"):
        retarget.retarget(hand, jnp.zeros((1, 21, 3)))
    with pytest.raises(HandError, match="refinement is for hand 'shadow'"):
        refine.require_shadow(hand, "refinement")
    with pytest.raises(DatasetError, match=r"phi has shape \(1, 28\); it must be \(1, 22\)"):
        schema.validate_poses(np.zeros((1, 28)), "here", hand.joints)
    with pytest.raises(DatasetError, match=r"thj0 = 0\.000 rad; its limits are 0\.263"):
        schema.check_limits(np.zeros((1, 16)), "here", table=hand.joints)
    with pytest.raises(JointError, match="no angle for thj3; known joints: ffj0"):
        joints.reorder(np.zeros(15), hand.joints.names[:15], hand.joints)


def test_targets_stay_within_the_limits_of_the_hand() -> None:
    hand = load.load("allegro")
    q = jnp.asarray(random_angles(hand, 20))
    tau = jnp.ones_like(q)
    for target in (
        torque.squeeze(q, tau, hand.joints),
        torque.pregrasp(q, tau, 0.2, hand.joints),
        torque.within_limits(3.0 * q, hand.joints),
    ):
        assert target.shape == q.shape
        assert (np.asarray(target) >= hand.joints.lower).all()
        assert (np.asarray(target) <= hand.joints.upper).all()


def test_the_contact_links_of_a_hand_with_four_digits() -> None:
    links = load.load("allegro").contacts
    assert len(links.names) == 13
    assert links.is_thumb.sum() == 3
    assert links.is_tip.sum() == 4
    assert "tips5" not in synthesis.templates(load.load("allegro"))
    assert set(synthesis.templates(load.load())) == set(synthesis.TEMPLATE_NAMES)
    assert load.load().contacts.names == touch.CONTACT_LINKS


TIP = 'size="0.0115" fromto="0 0 0 0 0 0.0285"'
FOLDER_MISTAKES = [
    ("hand.toml", "digits =", "digit =", r"unknown keys \['digit'\], missing keys \['digits'\]"),
    ("hand.toml", '"mf", "rf"', '"mf", "lf"', "lacks .*'lfdistal'.*; it has links"),
    ("hand.toml", '["ff", "mf", "rf", "th"]', '["th"]', "at least two different ones"),
    ("hand.toml", "thj0 = 1.2", "thj9 = 1.2", r"rest of unknown joints \['thj9'\]; known: ffj0"),
    ("hand.toml", "thj0 = 1.2", "thj0 = 2.0", r"the rest of \['thj0'\] is beyond its limits"),
    ("hand.toml", "torque_limit = 0.7", "torque = 0.7", "torque_limit.*see docs"),
    ("hand.toml", "torque_limit = 0.7", "torque_limit = 0", "must be above 0"),
    ("hand.toml", "[drive]", "[palmar]\nffdistal = [0, 1, 1]\n[drive]", "palmar.ffdistal"),
    ("hand.toml", "[rest]", "[rest", "cannot be read"),
    ("hand.xml", 'name="mfj2" axis="1 0 0" range="-0.174 1.709"', 'name="mfj2"', "no hinge with"),
    ("hand.xml", '<site name="rftip" pos="0 0 0.04"/>', "", r"lacks \['rftip \(site\)'\]"),
    ("hand.xml", 'body name="palm"', 'body name="hand"', "lacks .*palm"),
    ("hand.xml", f'type="capsule" {TIP}', 'type="box" size=".01 .01 .01"', "boxes on"),
    ("hand.xml", "</mujoco>", "", "does not compile"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "message"), FOLDER_MISTAKES)
def test_a_folder_that_is_no_whole_hand_says_what_it_lacks(
    tmp_path: pathlib.Path, file: str, old: str, new: str, message: str
) -> None:
    for path in ALLEGRO.iterdir():
        shutil.copy(path, tmp_path)
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new))
    with pytest.raises(HandError, match=message):
        from_mjcf(tmp_path / "hand.xml", "mine", facts.read(tmp_path / "hand.toml"))


def test_a_link_that_may_touch_needs_a_shape(tmp_path: pathlib.Path) -> None:
    text = (ALLEGRO / "hand.xml").read_text()
    shape = '<geom type="capsule" size="0.0115" fromto="0 0 0.006 0 0 0.014"/>'
    assert text.count(shape) == 1
    (tmp_path / "hand.xml").write_text(text.replace(shape, ""))
    with pytest.raises(HandError, match=r"links without a primitive: \['thproximal'\]"):
        from_mjcf(tmp_path / "hand.xml", "mine", facts.read(ALLEGRO / "hand.toml"))
