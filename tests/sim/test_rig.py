"""The virtual rig: depth lies on what is there, colour on depth, links are the release's."""

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax.data import realdex_write, rigid
from realdex_jax.data.realdex_write import Scene
from realdex_jax.data.tf_series import Tree, hand_track
from realdex_jax.geometry import sdf
from realdex_jax.geometry.view import DepthNoise
from realdex_jax.hand import joints
from realdex_jax.hand.load import load
from sim import film, objects, rig
from sim.demonstrate import P_WORLD_BASE
from sim.kinect import CameraError
from sim.stage import FOREARM, Stage, load_stage

HAND = load("shadow")
IDEAL = DepthNoise(
    axial=0.0, axial_growth=0.0, lateral=0.0, slant=(1.6, 1.7), edge_lost=0.0, edge_flying=0.0
)
ROUNDED = 0.7e-3
"""Metres: half a millimetre along the optical axis, more along a ray at the picture's edge."""


def reach(height: float) -> np.ndarray:
    """A flat hand, palm down, above the table and beside its middle."""
    phi = np.zeros(28)
    phi[:22] = np.clip(joints.REST, joints.LOWER, joints.UPPER)
    R = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    phi[22:25], phi[25:] = [-0.16, 0.0, height], Rotation.from_matrix(R).as_rotvec()
    return phi


@pytest.fixture(scope="module")
def stage() -> Stage:
    shape = objects.make("mug")
    made = load_stage(HAND, shape)
    place = np.array([np.cos(0.3), 0, 0, np.sin(0.3), 0.05, 0.02, -shape.bounds[0, 2]])
    made.place(reach(0.12).astype(np.float32), place, np.array([0.05, 0.02, 0.0]))
    return made


def points(stage: Stage, camera: int, noise: DepthNoise, width: int = 480):
    """What a camera measures in the world, its colours, and the distances to all that is there."""
    cameras = rig.around_table(width)
    lens, T = cameras.calibration.lenses[camera], cameras.wxyz_xyz_world_cam(camera)
    picture = rig.photograph(stage, lens, T, np.random.default_rng(camera), noise)
    p_cam, seen = lens.back_project(picture.depth_mm / 1000.0)
    p = rigid.apply(T, p_cam)
    # The forearm's two capsules, in the palm.
    q, arm = (p - stage.p[0]) @ stage.R[0], []
    for y, low, high, radius in FOREARM:
        axis = np.stack([0 * q[:, 0], 0 * q[:, 0] + y, np.clip(q[:, 2], low, high)], axis=1)
        arm.append(np.abs(np.linalg.norm(q - axis, axis=1) - radius))
    on_plate = np.linalg.norm(p[:, :2] - [0.05, 0.02], axis=1) < 0.341
    rim = np.where(
        (p[:, 2] < 1e-3) & (p[:, 2] > -0.017),
        np.abs(np.linalg.norm(p[:, :2] - [0.05, 0.02], axis=1) - 0.34),
        9.0,
    )
    away = {
        "object": np.abs(
            sdf.exact_distance(stage.shape, (p - stage.p_world_object) @ stage.R_world_object)
        ),
        "table": np.minimum(np.where(on_plate, np.abs(p[:, 2]), 9.0), rim),
        "hand": np.abs(stage.hand_distance(p)),
        "forearm": np.minimum(*arm),
    }
    return away, picture.colour[seen]


@pytest.mark.parametrize("camera", range(4))
def test_depth_lies_on_object_table_and_hand(stage, camera):
    away, _ = points(stage, camera, IDEAL)
    nearest = np.minimum.reduce(list(away.values()))
    assert len(nearest) > 5000
    # Away from the hand, whose meshes its capsules and boxes follow within millimetres, exactly.
    clear = away["hand"] > 0.02
    # The mug's convex pieces, whose distance this is, follow its mesh within a millimetre or so.
    assert (nearest[clear] > ROUNDED).mean() < 3e-4
    assert nearest[clear].max() < 0.0015
    assert nearest[~clear].max() < 0.012
    assert np.quantile(nearest[~clear], 0.9) < 0.004
    for what in ("object", "table", "forearm"):
        assert (away[what] < ROUNDED).sum() > 50, what
    assert (away["hand"] < 0.004).sum() > 100


def test_noise_moves_points_as_far_as_it_says(stage):
    away, _ = points(stage, 0, DepthNoise())
    on_plate = away["table"] < 0.02
    on_plate &= (away["hand"] > 0.05) & (away["object"] > 0.03) & (away["forearm"] > 0.05)
    # Seen at 55 degrees from the normal, 0.85 m away: axial and lateral noise, and rounding.
    slope = np.tan(np.deg2rad(55.0))
    along = np.hypot(DepthNoise().spread(np.array([0.85]))[0], 0.85 * 0.0005 * slope)
    expected = np.hypot(along, 0.29e-3) * np.cos(np.deg2rad(55.0))
    spread = np.sqrt((away["table"][on_plate] ** 2).mean())
    assert spread == pytest.approx(expected, rel=0.25)


def test_colour_is_registered_to_depth_and_is_not_tinted(stage):
    away, colour = points(stage, 1, IDEAL)
    red, _, blue = colour.astype(int).T
    orange = red > blue + 40
    mine = away["object"] < ROUNDED
    assert (orange & mine).sum() > 0.95 * orange.sum()
    assert (orange & mine).sum() > 0.95 * (mine & (away["table"] > 0.002)).sum()


def test_cameras_look_at_the_table_and_chain_through_camera_0():
    cameras = rig.around_table(64)
    for c in range(4):
        T = rigid.matrix(cameras.wxyz_xyz_world_cam(c))
        p_cam = (np.array([[0.0, 0.0, 0.1]]) - T[:3, 3]) @ T[:3, :3]
        np.testing.assert_allclose(p_cam, [[0, 0, 0.85]], atol=1e-9)
        middle = cameras.calibration.lenses[c].project(p_cam)
        np.testing.assert_allclose(middle, [[31.5, 17.5]], atol=1e-6)
        assert T[2, 1] < -0.7  # the picture's down is down
    for width in (63, 48):
        with pytest.raises(CameraError, match="multiple of 16"):
            rig.around_table(width)


def test_a_seed_puts_cameras_astray_as_the_film_does():
    def places(cameras):
        return np.stack([cameras.wxyz_xyz_world_cam(c) for c in range(4)])

    meant = places(rig.around_table(64))
    np.testing.assert_array_equal(places(rig.around_table(64, 3)), places(rig.around_table(640, 3)))
    film_of = film.around_table(3, 320, 160)
    np.testing.assert_allclose(places(rig.around_table(64, 3)), film_of.wxyz_xyz_world_cam)
    off = [
        rigid.compose(rigid.inverse(meant), places(rig.around_table(64, seed)))
        for seed in range(100)
    ]
    p = np.stack(off)[..., 4:]
    turn = Rotation.from_quat(np.concatenate(off)[:, :4], scalar_first=True).as_rotvec()
    # 1200 draws of each: their deviation is known to 2 %, 6 % is three of its errors.
    assert p.std() == pytest.approx(0.02, rel=0.06)
    assert turn.std() == pytest.approx(0.035, rel=0.06)
    assert np.abs(p.mean(axis=0)).max() < 0.008


def test_the_robots_links_are_those_of_the_release(shared, tmp_path):
    phi = np.stack([reach(0.12), reach(0.13), reach(0.14)])
    links = rig.robot_links(HAND, phi)
    real = json.loads((shared / "data" / "realdex_release" / "srhand_ur.json").read_text())
    assert set(links) == {(x["parent"], x["child"]) for x in real["link"]}
    # Between the links of the arm lie the offsets of the URDF, whatever the joints do.
    for pair, p in (
        (("ra_base_link_inertia", "ra_shoulder_link"), (0, 0, 0.1807)),
        (("ra_upper_arm_link", "ra_forearm_link"), (-0.6127, 0, 0)),
        (("ra_forearm_link", "ra_wrist_1_link"), (-0.57155, 0, 0.17415)),
        (("rh_forearm", "rh_wrist"), (0, -0.010, 0.21301)),
        (("ra_flange", "rh_forearm"), (0, 0, 0)),
    ):
        np.testing.assert_allclose(links[pair][:, 4:], np.tile(p, (3, 1)), atol=1e-5)
    mount = rigid.matrix(links["ra_flange", "rh_forearm"][0])[:3, :3]
    expected = Rotation.from_euler("xyz", [np.pi / 2, np.pi, np.pi / 2]).as_matrix()
    np.testing.assert_allclose(mount, expected, atol=1e-5)
    np.testing.assert_allclose(links["world", "ra_base_link"][0, 4:], P_WORLD_BASE)

    stamps = 10**18 + np.arange(3) * 10**7
    still = np.repeat(np.eye(7)[:1], 3, axis=0)
    realdex_write.write_scene(tmp_path, Scene(stamps, links, still, still[0]), (0,))
    assert len(Tree(tmp_path / "TF").chain("rh_thdistal")) == 17
    track = hand_track(HAND, tmp_path / "TF", stamps)
    np.testing.assert_allclose(track.phi, phi, atol=1e-6)
    np.testing.assert_allclose(track.q_wrist, 0.0, atol=1e-9)


def test_a_palm_out_of_the_arms_reach_hangs_on_the_world(tmp_path):
    phi = reach(0.12)[None] + np.eye(28)[22] * 3.0
    links = rig.robot_links(HAND, phi)
    assert ("world", "rh_forearm") in links
    assert not any("ra_" in name for pair in links for name in pair)
