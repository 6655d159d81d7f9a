"""The robot's surface: links where the other chain has them, distances as spheres and rays have."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from capture import robot_surface
from capture.device import CaptureError
from capture.recording import JointSeries, Stamps
from capture.robot_surface import Posed
from realdex_jax import arm
from realdex_jax.data import realdex_write, rigid
from realdex_jax.geometry.view import DepthNoise
from realdex_jax.hand import joints
from realdex_jax.hand.load import load
from sim import film, objects, sequence
from sim.demonstrate import P_WORLD_BASE
from sim.stage import load_stage

HAND = load("shadow")
BASE = np.array([1.0, 0, 0, 0, *P_WORLD_BASE])
SINGLE = 2e-6
"""Metres: chains in single precision, a metre and a half from the base."""


@pytest.fixture(scope="module")
def q() -> np.ndarray:
    """States of all joints, wrist and fingers bent."""
    rng = np.random.default_rng(3)
    low = np.concatenate([np.full(6, -1.5), arm.WRIST_LOWER, joints.LOWER])
    high = np.concatenate([np.full(6, 1.5), arm.WRIST_UPPER, joints.UPPER])
    return rng.uniform(low, high, (5, 30))


@pytest.fixture(scope="module")
def hand_alone() -> robot_surface.RobotSurface:
    return robot_surface.surface(HAND, with_arm=False)


def test_palms_are_where_the_chain_of_links_has_them(q: np.ndarray) -> None:
    palm = robot_surface.palms(q)
    links = realdex_write.hand_links(HAND, q[:, 8:], palm, q[:, 6:8])
    forearm = links["world", "rh_forearm"]
    expected = arm.forward(jnp.asarray(q[:, :6], jnp.float32))
    np.testing.assert_allclose(forearm[:, 4:], expected.p[:, -1], atol=SINGLE)
    R = Rotation.from_quat(forearm[:, :4], scalar_first=True).as_matrix()
    np.testing.assert_allclose(R, expected.R[:, -1], atol=SINGLE)


def test_points_are_fixed_to_their_links(q: np.ndarray) -> None:
    surface = robot_surface.surface(HAND, 0.02)
    posed = robot_surface.place(HAND, surface, q[0], BASE)
    palm = rigid.compose(BASE, robot_surface.palms(q[:1])[0])
    links = realdex_write.hand_links(HAND, q[:1, 8:], palm[None], q[:1, 6:8])
    placed = {"rh_palm": palm}
    for (parent, child), T in links.items():
        if child not in ("rh_forearm", "rh_wrist", "rh_palm"):
            placed[child] = rigid.compose(placed[parent], T[0])
    for i, name in enumerate(HAND.link_names):
        mine = surface.link == i
        T = placed["rh_palm" if name == "palm" else f"rh_{name}"]
        np.testing.assert_allclose(
            posed.p_world[mine], rigid.apply(T, surface.p_link[mine]), atol=SINGLE
        )
    elbow = surface.link == len(HAND.link_names) + arm.LINKS.index("ra_forearm_link")
    links = arm.forward(jnp.asarray(q[0, :6], jnp.float32))
    R, p = np.asarray(links.R[3]), np.asarray(links.p[3])
    expected = surface.p_link[elbow] @ R.T + p + P_WORLD_BASE
    np.testing.assert_allclose(posed.p_world[elbow], expected, atol=SINGLE)
    assert not surface.exact[elbow].any()


def test_with_the_palm_alone_it_is_the_same(
    q: np.ndarray, hand_alone: robot_surface.RobotSurface
) -> None:
    palm = rigid.compose(BASE, robot_surface.palms(q[1:2])[0])
    rotvec = Rotation.from_quat(palm[:4], scalar_first=True).as_rotvec()
    phi = np.concatenate([q[1, 8:], palm[4:], rotvec])
    by_palm = robot_surface.place_hand(HAND, hand_alone, phi, q[1, 6:8])
    by_arm = robot_surface.place(HAND, hand_alone, q[1], BASE)
    np.testing.assert_allclose(by_palm.p_world, by_arm.p_world, atol=SINGLE)
    np.testing.assert_allclose(by_palm.normal_world, by_arm.normal_world, atol=1e-5)


def test_a_moved_base_moves_all(q: np.ndarray, hand_alone: robot_surface.RobotSurface) -> None:
    T = np.concatenate(
        [Rotation.from_rotvec([0.3, -0.2, 0.5]).as_quat(scalar_first=True), [1, 2, 3]]
    )
    moved = robot_surface.place(HAND, hand_alone, q[2], rigid.compose(T, BASE))
    still = robot_surface.place(HAND, hand_alone, q[2], BASE)
    np.testing.assert_allclose(moved.p_world, rigid.apply(T, still.p_world), atol=1e-9)
    point = still.p_world[:50] + 0.004 * still.normal_world[:50]
    np.testing.assert_allclose(
        moved.distance(rigid.apply(T, point)), still.distance(point), atol=1e-9
    )


def test_distances_to_a_sphere_are_its_own() -> None:
    ball = trimesh.creation.icosphere(5, 0.05)
    posed = Posed(np.asarray(ball.vertices), np.asarray(ball.vertices) / 0.05)
    rng = np.random.default_rng(0)
    away = rng.normal(size=(500, 3))
    away *= (rng.uniform(0.035, 0.08, 500) / np.linalg.norm(away, axis=1))[:, None]
    expected = np.linalg.norm(away, axis=1) - 0.05
    # The chord of half a spacing: 1 mm squared over twice the radius.
    np.testing.assert_allclose(posed.distance(away), expected, atol=5e-5)
    assert (np.isinf(posed.distance(away, most=0.002)) == (np.abs(expected) > 0.002)).mean() > 0.98
    assert (posed.near(away, 0.01) == (expected < 0.01)).all()


def test_rays_that_met_the_hand_end_on_it(hand_alone: robot_surface.RobotSurface) -> None:
    """MuJoCo's rays against the meshes are the witness."""
    stage = load_stage(HAND, objects.make("mug"))
    phi = np.zeros(28, np.float32)
    phi[:22], phi[22:25], phi[25:] = 0.3, [0.0, -0.1, 0.25], [0.3, 0.2, 0.1]
    stage.place(phi, np.array([1, 0, 0, 0, 0, 0.3, 0.05]), np.zeros(3))
    rig = film.around_table(0, 64, 100)
    quiet = DepthNoise(axial=0, axial_growth=0, lateral=0, edge_lost=1.0, edge_flying=0)
    T = rigid.compose(rig.wxyz_xyz_world_cam[0], rig.lenses[0].wxyz_xyz_colour_depth)
    rng = np.random.default_rng(0)
    depth = film.depth_picture(stage, rig.lenses[0].depth, T, rng, quiet)
    p_world = rigid.apply(T, rig.lenses[0].depth.back_project(depth / 1000.0)[0])
    on_hand = p_world[np.abs(stage.hand_distance(p_world)) < 0.008]
    off = np.abs(robot_surface.place_hand(HAND, hand_alone, phi).distance(on_hand, 0.05))
    assert len(on_hand) > 60
    # Depth is in millimetres; at sharp edges the nearest point is on another face.
    assert np.median(off) < 0.0005
    assert np.percentile(off, 95) < 0.003


def test_joints_are_taken_by_name() -> None:
    n = len(sequence.JOINTS)
    turned = tuple(reversed(sequence.JOINTS))
    stamps = Stamps(*(np.arange(2) for _ in range(3)))
    series = JointSeries(turned, stamps, np.arange(2.0 * n).reshape(2, n), np.zeros((2, n)))
    np.testing.assert_array_equal(robot_surface.ordered(series), series.q[:, ::-1])
    with pytest.raises(CaptureError, match="ra_elbow_joint"):
        robot_surface.ordered(
            dataclasses.replace(series, names=tuple(x.replace("elbow", "knee") for x in turned))
        )


def test_what_cannot_be_is_refused(q: np.ndarray) -> None:
    with pytest.raises(CaptureError, match="spacing"):
        robot_surface.surface(HAND, -1.0)
    with pytest.raises(CaptureError, match="arm"):
        robot_surface.place_hand(HAND, robot_surface.surface(HAND, 0.02), np.zeros(28))
