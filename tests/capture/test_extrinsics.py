import cv2
import numpy as np
import pytest
from capture_scene import CAMERAS, LENS, LENSES, away, placement, seen

from capture import extrinsics
from capture.board import Board, CalibrationError, Corners


def views(rng, count=12, cameras=(0, 1, 2, 3), **settings):
    found = []
    for k in range(count):
        found += seen(placement(rng), k, rng, cameras, **settings)
    return found


def test_cameras_are_where_they_are(rng):
    found = extrinsics.calibrate(views(rng), LENSES)
    for camera in range(4):
        mm, deg = away(found.wxyz_xyz_cam0_cam[camera], CAMERAS[camera])
        assert mm < 0.2
        assert deg < 0.02
        # Noise of 0.05 px in each coordinate.
        assert found.residuals[camera].px == pytest.approx(0.07, abs=0.01)
        assert found.residuals[camera].mm == pytest.approx(0.065, abs=0.02)
        assert found.residuals[camera].deg < 0.1
    assert found.error_mm[0] == 0.0
    assert 0.01 < found.error_mm[1] < 0.2
    assert not found.left_out


def test_two_cameras_are_where_opencv_puts_them(rng):
    """The same two cameras and corners; OpenCV minimises the same residuals in its own way."""
    seen_by = views(rng, cameras=(0, 1))
    both = sorted(
        set.intersection(*({v.placement for v in seen_by if v.camera == c} for c in (0, 1)))
    )
    pick = {(v.camera, v.placement): v for v in seen_by}
    ours = extrinsics.calibrate([pick[c, k] for k in both for c in (0, 1)], {0: LENS, 1: LENS})
    shown = [[pick[camera, k].pixels.astype(np.float32) for k in both] for camera in (0, 1)]
    bent = np.array(LENS.distortion)
    _, *_, R, t, _, _ = cv2.stereoCalibrate(
        [pick[0, k].p_board.astype(np.float32) for k in both],
        *(*shown, LENS.K, bent, LENS.K, bent, (1920, 1080)),
        flags=cv2.CALIB_FIX_INTRINSIC | cv2.CALIB_RATIONAL_MODEL,
        criteria=(cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 200, 1e-10),
    )
    # OpenCV gives T_cam1_cam0.
    place = -R.T @ t.ravel()
    assert np.linalg.norm(1000 * (ours.wxyz_xyz_cam0_cam[1][4:] - place)) < 0.05


def test_a_board_that_moved_between_cameras_is_left_out(rng):
    good = views(rng)
    moved = seen(placement(rng), 3, rng, cameras=(2,))[0]
    swapped = [moved if (v.camera, v.placement) == (2, 3) else v for v in good]
    found = extrinsics.calibrate(swapped, LENSES)
    assert found.left_out == ("camera 2, placement 3: does not fit the other views",)
    assert away(found.wxyz_xyz_cam0_cam[2], CAMERAS[2])[0] < 0.3


def test_cameras_need_not_all_see_the_same(rng):
    """Camera 0 shares placements with 1 only, 1 with 2, 2 with 3: a chain."""
    found = []
    for first in range(3):
        for k in range(8):
            pair = (first, first + 1)
            found += seen(placement(rng, lean=0.15), 10 * first + k, rng, pair)
    rig = extrinsics.calibrate(found, LENSES)
    assert away(rig.wxyz_xyz_cam0_cam[3], CAMERAS[3])[0] < 0.6


def test_results_do_not_depend_on_the_order(rng):
    good = views(rng)
    first, second = (extrinsics.calibrate(v, LENSES) for v in (good, good[::-1]))
    for camera in range(4):
        pair = (r.wxyz_xyz_cam0_cam[camera] for r in (first, second))
        assert away(*pair)[0] < 1e-3


def test_a_rig_in_two_parts_is_refused(rng):
    apart = []
    for k in range(8):
        pair = (0, 1) if k < 4 else (2, 3)
        apart += seen(placement(rng, lean=0.1), k, rng, cameras=pair)
    with pytest.raises(CalibrationError, match="cameras 2, 3 share no placement with 0, 1"):
        extrinsics.calibrate(apart, LENSES)


def test_a_camera_that_sees_too_little_is_refused(rng):
    few = [v for v in views(rng) if v.camera != 3 or v.placement < 2]
    with pytest.raises(CalibrationError, match=r"camera 3 saw the board in \d placements"):
        extrinsics.calibrate(few, LENSES)


def test_a_board_that_hardly_moved_is_refused(rng):
    T = placement(rng, lean=0.05)
    still = [view for k in range(8) for view in seen(T, k, rng)]
    with pytest.raises(CalibrationError, match=r"turned by 0\.\d degrees and moved by 0 mm"):
        extrinsics.calibrate(still, LENSES)


def test_corners_that_no_lens_explains_are_refused(rng):
    wrong = [
        Corners(v.camera, v.placement, v.p_board, rng.permutation(v.pixels)) for v in views(rng)
    ]
    with pytest.raises(CalibrationError, match="camera 0 saw the board in 0 placements"):
        extrinsics.calibrate(wrong, LENSES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: [*v, v[0]], "camera 0, placement 0: there are two views of it"),
        (lambda v: [*v, Corners(9, 0, v[0].p_board, v[0].pixels)], "view of camera 9; the rig has"),
        (lambda v: [], "camera 0 saw the board in 0 placements"),
    ],
)
def test_views_that_make_no_sense_are_refused(rng, change, message):
    good = [v for v in views(rng) if v.camera or v.placement == 0]
    first = [v for v in good if v.camera == 0] + [v for v in good if v.camera]
    with pytest.raises(CalibrationError, match=message):
        extrinsics.calibrate(change(first), LENSES)


def test_one_camera_is_no_rig(rng):
    with pytest.raises(CalibrationError, match="two at least, 0 among them"):
        extrinsics.calibrate(views(rng), {0: LENS})


def test_too_noisy_corners_are_refused(rng):
    small = views(rng, 4, noise=1.2, board=Board(2, 1, 0.002))
    with pytest.raises(CalibrationError):
        extrinsics.calibrate(small, LENSES)
