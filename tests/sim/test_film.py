"""The virtual rig's pictures: each lens's own, and everything where it truly is."""

import jax.numpy as jnp
import numpy as np
import pytest
from scenes import IDEAL, beside_a_mug
from scipy.spatial.transform import Rotation

from realdex_jax import arm
from realdex_jax.data import rigid
from realdex_jax.geometry import lens as optics
from realdex_jax.geometry import sdf
from realdex_jax.hand.load import load
from sim import film, lenses, objects, sequence
from sim.demonstrate import P_WORLD_BASE
from sim.film import Film
from sim.kinect import CameraError

HAND = load("shadow")
ROUNDED = 0.75e-3
"""Metres: half a millimetre along the optical axis, more along a ray at the picture's edge."""


@pytest.fixture(scope="module")
def taken():
    cameras = film.around_table(3, 480, 320)
    return Film(cameras, HAND, objects.make("mug"), beside_a_mug(), noise=IDEAL)


def world_points(made: Film, camera: int, depth: np.ndarray):
    """The points of a depth picture in the world, by the true calibration."""
    pair = made.rig.lenses[camera]
    p, _ = pair.depth.back_project(depth / 1000.0)
    T = rigid.compose(made.rig.wxyz_xyz_world_cam[camera], pair.wxyz_xyz_colour_depth)
    return rigid.apply(T, p)


@pytest.mark.parametrize("seed", range(4))
def test_lenses_look_everywhere_and_differ(seed):
    for camera in range(4):
        pair = lenses.draw(camera, seed, 480, 320)
        for lens, width in ((pair.colour, 90.0), (pair.depth, 73.0)):
            flat = lens.undistort(optics.grid(lens.width, lens.height))
            assert np.isfinite(flat).all()
            row = np.rad2deg(np.arctan(flat.reshape(lens.height, lens.width, 2)[lens.height // 2]))
            # An Azure Kinect's 90 and 75 degrees, of devices that differ.
            assert np.ptp(row[:, 0]) == pytest.approx(width, abs=2.5)
    assert lenses.draw(0, seed).colour != lenses.draw(1, seed).colour


def test_a_smaller_picture_sees_the_same():
    full, small = lenses.draw(1, 2), lenses.draw(1, 2, 640, 320)
    p = np.array([[0.3, -0.2, 1.0], [0.0, 0.0, 0.7], [-0.5, 0.25, 0.9]])
    for a, b in ((full.colour, small.colour), (full.depth, small.depth)):
        share = b.width / a.width
        np.testing.assert_allclose((a.project(p) + 0.5) * share, b.project(p) + 0.5, atol=1e-9)
    with pytest.raises(CameraError, match="colour pictures 100 wide; must be a multiple of 16"):
        lenses.draw(0, 0, 100)
    with pytest.raises(CameraError, match="depth pictures 96 wide; must be a multiple of 10"):
        lenses.draw(0, 0, 640, 96)


@pytest.mark.parametrize("camera", range(4))
def test_depth_of_its_own_lens_lies_on_the_object(taken, camera):
    moment = 1.31  # between two frames, while the object rises
    one = taken.at(camera, moment, np.random.default_rng(0))
    assert one.colour.shape == (270, 480, 3)
    assert one.depth.shape == (288, 320)
    place = taken.sequence.object_at(np.array([moment]))[0]
    assert place[6] > taken.sequence.wxyz_xyz_world_object[0, 6] + 0.01
    p = world_points(taken, camera, one.depth)
    p_object = rigid.apply(rigid.inverse(place), p)
    mine = np.abs(sdf.exact_distance(objects.make("mug"), p_object))
    on_table = np.abs(p[:, 2]) < ROUNDED
    assert on_table.sum() > 3000
    # The mug's convex pieces follow its mesh within a millimetre or so.
    on_mug = mine < ROUNDED + 1e-3
    assert on_mug.sum() > 300
    # Nothing but the mug is orange: what colour shows there is where depth says it is.
    p_cam = rigid.apply(rigid.inverse(taken.rig.wxyz_xyz_world_cam[camera]), p[on_mug])
    pixel = np.rint(taken.rig.lenses[camera].colour.project(p_cam)).astype(int)
    inside = ((pixel >= 0) & (pixel < [480, 270])).all(axis=1)
    red, _, blue = one.colour[pixel[inside, 1], pixel[inside, 0]].astype(int).T
    # The lenses are 3 cm apart: at the mug's edge the one sees what the other does not.
    assert (red > blue + 40).mean() > 0.93


def test_the_wrong_lens_would_show(taken):
    one = taken.at(0, 0.0, np.random.default_rng(0))
    pair = taken.rig.lenses[0]
    bare = optics.Lens(
        *[getattr(pair.depth, k) for k in ("width", "height", "fx", "fy", "cx", "cy")]
    )
    T = rigid.compose(taken.rig.wxyz_xyz_world_cam[0], pair.wxyz_xyz_colour_depth)
    p, _ = bare.back_project(one.depth / 1000.0)
    off = np.abs(rigid.apply(T, p)[:, 2])
    true = np.abs(world_points(taken, 0, one.depth)[:, 2])
    table = true < ROUNDED
    assert np.median(off[table]) > 5 * np.median(true[table])


def test_noise_and_exposure_times_are_the_exposures_own(taken):
    noisy = Film(taken.rig, HAND, objects.make("mug"), beside_a_mug(), seed=1)
    a, b = noisy(2, 7), noisy(2, 7)
    assert (a.depth == b.depth).all()
    assert (a.colour == b.colour).all()
    again = noisy.at(2, noisy.rig.clocks.exposure_s(2, 7), np.random.default_rng(9))
    assert (again.colour == a.colour).all()
    assert (again.depth != a.depth).mean() > 0.05
    table = np.abs(world_points(noisy, 2, a.depth)[:, 2])
    # 0.9 mm at a metre, seen at a slant.
    assert 0.2e-3 < np.median(table[table < 5e-3]) < 1.5e-3
    assert noisy.count == 31


def test_between_frames_poses_move_evenly_and_the_hand_keeps_the_object():
    made = beside_a_mug()
    at = np.array([0.0, 0.5 / 15, 1.0 / 15])
    phi = made.hand_at(at)
    np.testing.assert_allclose(phi[1], (phi[0] + phi[2]) / 2, atol=1e-12)
    lifted = np.linspace(made.time_s[15], made.end_s, 40)
    T_hand_object = rigid.compose(rigid.inverse(made.palm_at(lifted)), made.object_at(lifted))
    # On great arcs between frames the two part by less than a tenth of a millimetre.
    assert np.ptp(T_hand_object[:, 4:], axis=0).max() < 1e-4
    assert made.object_at(lifted)[-1, 6] - made.object_at(lifted)[0, 6] == pytest.approx(0.1)
    np.testing.assert_allclose(made.hand_at(np.array([-1.0, 99.0])), made.phi[[0, -1]], atol=1e-12)


def test_the_robots_joints_carry_the_palm():
    made = beside_a_mug()
    q = made.robot()
    assert q is not None
    assert q.shape == (len(made.time_s), len(sequence.JOINTS))
    R, p = arm.palm_pose(jnp.asarray(q[:, :6], jnp.float32))
    np.testing.assert_allclose(np.asarray(p) + P_WORLD_BASE, made.phi[:, 22:25], atol=1e-5)
    expected = Rotation.from_rotvec(made.phi[:, 25:]).as_matrix()
    np.testing.assert_allclose(np.asarray(R), expected, atol=1e-5)
    assert sequence.JOINTS[0] == "ra_shoulder_pan_joint"
    assert sequence.JOINTS[8] == "rh_FFJ4"
