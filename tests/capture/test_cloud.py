"""Clouds of all cameras: flat where the world is flat, clean, and the release's own on request."""

import dataclasses

import depth_scene
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from capture import cloud, robot_surface
from capture.cloud import CloudConfig
from capture.depth import DepthConfig
from capture.device import CaptureError
from realdex_jax.data import rigid
from realdex_jax.hand.load import load

OPTICS, PLACES = depth_scene.rig()
BALL = (0.02, -0.01, 0.1, 0.07)
UPSTREAM = CloudConfig(upstream_compatible=True, voxel=0.005)


def frames(rng=None, balls=(BALL,), places=PLACES):
    made = {}
    for c, optics in OPTICS.items():
        z = depth_scene.depth_picture(optics, places[c], balls)
        if rng is not None:
            z = np.where(z > 0, z + rng.normal(0, 0.001, z.shape), 0.0)
        made[c] = depth_scene.frame(c, optics, z)
    return made


def off_surface(p):
    """Distance (m) to table or ball."""
    return np.minimum(np.abs(p[:, 2]), np.abs(np.linalg.norm(p - BALL[:3], axis=1) - BALL[3]))


def test_points_are_on_table_and_ball_and_normals_look_away():
    found = cloud.merged(frames(), OPTICS, PLACES)
    assert len(found.p_world) > 3000
    # Pixels are 7 to 11 mm apart here: four times coarser than a Kinect's.
    assert np.percentile(off_surface(found.p_world), 99) < 4e-3
    flat = (np.abs(found.p_world[:, 2]) < 2e-3) & (np.hypot(*found.p_world[:, :2].T) > 0.15)
    assert found.normal_world[flat, 2].min() > 0.95
    assert set(np.unique(found.cameras)) <= {1, 2, 3, 4}
    assert found.colour.shape == found.p_world.shape
    assert {"cropped", "surfaces", "coloured", "merged", "outliers"} <= found.seconds.keys()


def test_averaging_and_blending_make_a_table_thin(rng):
    shown = frames(rng, balls=())
    # Calibration is never exact: half a millimetre and 0.03 degrees, as our own leaves.
    turned = {
        c: rigid.compose(
            place,
            np.concatenate(
                [
                    Rotation.from_rotvec(rng.normal(0, 5e-4, 3)).as_quat(scalar_first=True),
                    rng.normal(0, 5e-4, 3),
                ]
            ),
        )
        for c, place in PLACES.items()
    }
    raw = CloudConfig(depth=DepthConfig(smooth=False), voxel=0.0, blend=0.0)
    thickness = []
    for config in (raw, CloudConfig(blend=0.0), CloudConfig(blend=0.02)):
        z = cloud.merged(shown, OPTICS, turned, config).p_world[:, 2]
        thickness.append(np.ptp(np.percentile(z, [5, 95])))
    assert thickness[0] > thickness[1] > thickness[2]
    assert thickness[2] < 3e-3


def test_what_a_camera_sees_through_goes():
    shown = frames(balls=())
    z = shown[0].depth.copy()
    rows, columns = slice(60, 80), slice(70, 90)
    z[rows, columns] = (0.8 * z[rows, columns]).astype(np.uint16)  # a patch that floats
    shown[0] = dataclasses.replace(shown[0], depth=z)
    kept, gone = (
        cloud.merged(shown, OPTICS, PLACES, CloudConfig(through=t, radius=0.0, sigmas=50.0)).p_world
        for t in (0.0, 0.02)
    )
    assert (kept[:, 2] > 0.05).sum() > 50
    assert not (gone[:, 2] > 0.05).any()


def test_the_robot_is_cut_out():
    hand = load()
    phi = np.zeros(28, np.float32)
    phi[22:25] = BALL[:3]  # the palm is in the ball, whose near points go
    posed = robot_surface.place_hand(hand, robot_surface.surface(hand, with_arm=False), phi)
    whole, cut = (cloud.merged(frames(), OPTICS, PLACES, robot=r).p_world for r in (None, posed))
    assert len(cut) < len(whole)
    assert not posed.near(cut, 0.005).any()
    far = ~posed.near(whole, 0.03)
    assert far.sum() <= len(cut) + 20  # blending sees other neighbours


def test_the_box_crops():
    config = CloudConfig(low=(-0.1, -0.1, 0.02), high=(0.1, 0.1, 0.3))
    p = cloud.merged(frames(), OPTICS, PLACES, config).p_world
    assert (p >= np.array(config.low) - 0.005).all()
    assert (p <= np.array(config.high) + 0.005).all()


def test_a_camera_alone_makes_the_cloud_that_it_sees():
    shown = frames()
    one = cloud.merged({2: shown[2]}, {2: OPTICS[2]}, {2: PLACES[2]})
    assert set(one.cameras) == {1}
    assert (one.colour[one.colour.any(axis=1), 0] == 150).all()


def test_the_releases_way_is_off_as_its_axis_is():
    straight, theirs = (
        cloud.merged(frames(balls=()), OPTICS, PLACES, config).p_world
        for config in (CloudConfig(voxel=0.005), UPSTREAM)
    )
    # The shifted axis moves each camera's points by some pixels; the table becomes thick.
    spread = [np.ptp(np.percentile(p[:, 2], [5, 95])) for p in (straight, theirs)]
    assert spread[1] > 2.0 * spread[0]
    assert len(theirs) > 100


def test_an_empty_picture_gives_an_empty_cloud():
    dark = {0: depth_scene.frame(0, OPTICS[0], np.zeros_like(frames()[0].depth, np.float64))}
    for config in (CloudConfig(), UPSTREAM):
        found = cloud.merged(dark, OPTICS, PLACES, config)
        assert found.p_world.shape == found.normal_world.shape == (0, 3)


def test_what_makes_no_cloud_is_refused():
    shown = frames()
    with pytest.raises(CaptureError, match="there must be one"):
        cloud.merged({}, OPTICS, PLACES)
    with pytest.raises(CaptureError, match="a place for each"):
        cloud.merged(shown, OPTICS, {0: PLACES[0]})
    with pytest.raises(CaptureError, match="must have a volume"):
        cloud.merged(shown, OPTICS, PLACES, CloudConfig(low=(0, 0, 0), high=(0, 1, 1)))
