"""Undistorted pictures against OpenCV's."""

import cv2
import depth_scene
import numpy as np
import pytest

from capture import undistortion
from capture.device import CaptureError

LENS = depth_scene.rig()[0][1].colour
K = np.array([[LENS.fx, 0, LENS.cx], [0, LENS.fy, LENS.cy], [0, 0, 1]])


@pytest.fixture
def picture(rng):
    return rng.integers(0, 2000, (LENS.height, LENS.width)).astype(np.uint16)


@pytest.mark.parametrize("upstream", [False, True])
def test_each_pixel_is_the_one_that_opencv_takes(picture, upstream):
    size = (LENS.width, LENS.height)
    # Without a new matrix OpenCV's map puts the axis into the middle: the release's slip.
    new = cv2.getDefaultNewCameraMatrix(K, size, True) if upstream else K
    maps = cv2.initUndistortRectifyMap(K, np.array(LENS.distortion), None, new, size, cv2.CV_32FC1)
    theirs = cv2.remap(picture, *maps, cv2.INTER_NEAREST, borderValue=0)
    ours = undistortion.undistorted(picture, LENS, upstream_compatible=upstream)
    assert ours.dtype == picture.dtype
    # OpenCV rounds to 1/32 of a pixel first.
    assert np.mean(ours != theirs) < 0.04
    middle = slice(20, -20), slice(40, -40)
    assert np.mean(ours[middle] != theirs[middle]) < 0.04


def test_a_pinhole_shows_what_the_lens_shows():
    straight = undistortion.pinhole(LENS)
    column = np.tile(np.arange(LENS.width, dtype=np.float64), (LENS.height, 1))
    shown = undistortion.undistorted(column, LENS)
    p = np.array([[0.05, -0.02, 1.0], [-0.2, 0.1, 0.9]])
    for pixel, source in zip(straight.project(p), LENS.project(p), strict=True):
        at = np.rint(pixel).astype(int)
        assert abs(shown[at[1], at[0]] - source[0]) < 1.5


def test_colours_keep_their_channels_and_other_sizes_are_refused(picture):
    colour = np.stack([picture % 256] * 3, axis=-1).astype(np.uint8)
    found = undistortion.undistorted(colour, LENS)
    np.testing.assert_array_equal(found[..., 0], found[..., 2])
    with pytest.raises(CaptureError, match="its lens has 160 x 90"):
        undistortion.undistorted(picture[1:], LENS)
