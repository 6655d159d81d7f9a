"""Surfaces in a depth picture: closed forms of planes and balls, through lenses that distort."""

import dataclasses

import depth_scene
import numpy as np
import pytest

from capture import depth
from capture.depth import DepthConfig
from capture.device import CaptureError
from realdex_jax.data import rigid

OPTICS, PLACES = depth_scene.rig()
BALL = (0.0, 0.0, 0.1, 0.06)


def seen(camera, balls=(), sigma=0.0, rng=None, config=None):
    """Points and normals in the world."""
    z = depth_scene.depth_picture(OPTICS[camera], PLACES[camera], balls)
    if sigma:
        z = np.where(z > 0, z + rng.normal(0, sigma, z.shape), 0.0)
    frame = depth_scene.frame(camera, OPTICS[camera], z)
    found = depth.view(frame.depth, OPTICS[camera], config)
    p = rigid.apply(PLACES[camera], found.p_cam)
    return p, found.normal_cam @ rigid.matrix(PLACES[camera])[:3, :3].T, found, z


@pytest.mark.parametrize("camera", range(4))
def test_a_table_is_flat_and_looks_up(camera):
    p, normal, found, z = seen(camera)
    # Readings are whole millimetres; a plane through 25 of them is some ten times better.
    assert np.abs(p[:, 2]).max() < 1e-3
    assert p[:, 2].std() < 2e-4
    assert normal[:, 2].min() > 0.99
    assert found.at.sum() == len(p) > 0.5 * (z > 0).sum()


def test_a_ball_is_round_and_looks_outward():
    p, normal, *_ = seen(1, (BALL,))
    away = p - BALL[:3]
    reach = np.linalg.norm(away, axis=1)
    on = reach < BALL[3] + 0.01
    assert on.sum() > 100
    # A pixel is 9 mm here: windows of five are half of the ball, and cut its rounding off.
    assert np.abs(reach[on] - BALL[3]).max() < 5e-3
    cosine = np.einsum("ni,ni->n", away[on], normal[on]) / reach[on]
    assert np.median(cosine) > 0.98
    # Nothing is between ball and table.
    free = (p[:, 2] > 0.01) & ~on
    assert not free.any()


def test_the_expected_noise_is_the_noise(rng):
    noise = DepthConfig().noise
    raw, smooth = (
        seen(0, sigma=noise.axial, rng=rng, config=DepthConfig(smooth=smooth))
        for smooth in (False, True)
    )
    for p, _, found, _ in (raw, smooth):
        # Noise of the rays, which is not in these pictures, is a part of what is expected.
        assert 0.3 < p[:, 2].std() / np.median(found.sigma) < 1.3
    assert smooth[0][:, 2].std() < 0.4 * raw[0][:, 2].std()


def test_flying_readings_go():
    z = depth_scene.depth_picture(OPTICS[2], PLACES[2], (BALL,))
    clean = depth.view(depth_scene.frame(2, OPTICS[2], z).depth, OPTICS[2])
    row, column = (int(np.median(i)) for i in np.nonzero(clean.at))
    flying = z.copy()
    flying[row, column] -= 0.05
    found = depth.view(depth_scene.frame(2, OPTICS[2], flying).depth, OPTICS[2])
    assert clean.at[row, column]
    assert not found.at[row, column]


def test_a_part_of_the_picture_is_that_part():
    z = depth_scene.depth_picture(OPTICS[3], PLACES[3], (BALL,))
    frame = depth_scene.frame(3, OPTICS[3], z)
    within = np.zeros(z.shape, bool)
    within[40:80, 50:110] = True
    whole, part = (depth.view(frame.depth, OPTICS[3], None, w) for w in (None, within))
    np.testing.assert_array_equal(part.at, whole.at & within)
    np.testing.assert_allclose(part.p_cam, whole.p_cam[within[whole.at]], atol=1e-12)


def test_nothing_gives_nothing_and_wrong_sizes_are_refused():
    empty = np.zeros((OPTICS[0].depth.height, OPTICS[0].depth.width), np.uint16)
    found = depth.view(empty, OPTICS[0])
    assert found.p_cam.shape == (0, 3)
    assert not found.at.any()
    with pytest.raises(CaptureError, match="window of 4 pixels"):
        depth.view(empty, OPTICS[0], DepthConfig(window=4))
    with pytest.raises(CaptureError, match="the lens has 160 x 144"):
        depth.view(empty[:-1], OPTICS[0])


def test_colours_are_those_of_the_pixels_that_show_the_points():
    z = depth_scene.depth_picture(OPTICS[0], PLACES[0], (BALL,))
    frame = depth_scene.frame(0, OPTICS[0], z)
    found = depth.view(frame.depth, OPTICS[0])
    colour, seen_ = depth.colours(found.p_cam, frame.colour, OPTICS[0].colour)
    column = OPTICS[0].colour.project(found.p_cam)[:, 0]
    assert seen_.mean() > 0.5
    assert np.abs(colour[seen_, 1] - column[seen_]).max() <= 0.51
    # What is far behind a near point is not coloured by it.
    near = found.p_cam[seen_][:1]
    both = np.concatenate([near, 1.5 * near])
    assert depth.colours(both, frame.colour, OPTICS[0].colour)[1].tolist() == [True, False]


def test_a_lens_without_distortion_gives_the_same_surface():
    straight = dataclasses.replace(
        OPTICS[0], depth=dataclasses.replace(OPTICS[0].depth, distortion=(0.0,) * 8)
    )
    z = depth_scene.depth_picture(straight, PLACES[0])
    found = depth.view(depth_scene.frame(0, straight, z).depth, straight)
    assert np.abs(rigid.apply(PLACES[0], found.p_cam)[:, 2]).max() < 1e-3
