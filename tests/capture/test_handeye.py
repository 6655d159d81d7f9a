import cv2
import numpy as np
import pytest
from capture_scene import (
    BASE,
    CAMERAS,
    LENS,
    LENSES,
    T_BASE_CAM0,
    T_HAND_BOARD,
    away,
    carried,
    placement,
    pose,
    seen,
)

from capture import handeye
from capture.board import CalibrationError
from realdex_jax.data import rigid


def recorded(rng, count=32, jolt=0.0, draw=placement, cameras=(0, 1, 2, 3)):
    """Views, and what the robot says; `jolt` metres and half as many radians off."""
    views, hands = [], {}
    for k in range(count):
        T_world_board = draw(rng)
        views += seen(T_world_board, k, rng, cameras)
        off = pose(rng.normal(0, jolt / 2, 3), rng.normal(0, jolt, 3))
        hands[k] = rigid.compose(carried(T_world_board), off)
    return views, hands


def matching(rng, count=12):
    boards = [placement(rng) for _ in range(count)]
    to_cam0 = rigid.inverse(rigid.compose(BASE, T_BASE_CAM0))
    return (
        np.stack([carried(T) for T in boards]),
        np.stack([rigid.compose(to_cam0, T) for T in boards]),
    )


def test_the_closed_form_is_exact_on_exact_poses(rng):
    found = handeye.closed_form(*matching(rng))
    for pose_found, true in zip(found, (T_BASE_CAM0, T_HAND_BOARD), strict=True):
        mm, deg = away(pose_found, true)
        assert mm < 1e-6
        assert deg < 1e-6


def test_the_closed_form_agrees_with_opencv(rng):
    hands, boards = matching(rng)
    hands = np.stack(
        [rigid.compose(T, pose(rng.normal(0, 1e-3, 3), rng.normal(0, 1e-3, 3))) for T in hands]
    )
    ours = handeye.closed_form(hands, boards)
    # Written for a camera in the hand, T_cam_world T_world_base = T_cam_gripper T_gripper_base:
    # its world is our board, its base our hand, its gripper our base.
    cam, hand = ([rigid.matrix(T) for T in poses] for poses in (boards, hands))
    R_board_hand, t_board_hand, R_cam_base, t_cam_base = cv2.calibrateRobotWorldHandEye(
        *([T[:3, :3] for T in cam], [T[:3, 3] for T in cam]),
        *([T[:3, :3] for T in hand], [T[:3, 3] for T in hand]),
        method=cv2.CALIB_ROBOT_WORLD_HAND_EYE_SHAH,
    )
    witness = ((R_cam_base, t_cam_base), (R_board_hand, t_board_hand))
    for pose_found, (R, t) in zip(ours, witness, strict=True):
        T = rigid.matrix(rigid.inverse(pose_found))
        np.testing.assert_allclose(T[:3, :3], R, atol=1e-8)
        # Places are least squares in another frame there; with jolts of a millimetre they differ.
        np.testing.assert_allclose(T[:3, 3], t.ravel(), atol=3e-4)


def test_the_rig_is_where_it_is(rng):
    views, hands = recorded(rng)
    found = handeye.calibrate(views, hands, CAMERAS, LENSES)
    for pose_found, true in (
        (found.wxyz_xyz_base_cam0, T_BASE_CAM0),
        (found.wxyz_xyz_hand_board, T_HAND_BOARD),
    ):
        mm, deg = away(pose_found, true)
        assert mm < 0.1
        assert deg < 0.01
    assert found.poses == 32
    assert 5 < found.condition < 100
    assert found.residuals[2].px == pytest.approx(0.07, abs=0.01)


@pytest.mark.slow
def test_standard_errors_tell_the_error(rng):
    """A robot that is 0.3 mm and 0.15 mrad off: errors over seeds are as large as they are said."""
    shares = []
    for seed in range(6):
        views, hands = recorded(np.random.default_rng(seed), jolt=3e-4)
        found = handeye.calibrate(views, hands, CAMERAS, LENSES)
        mm, deg = away(found.wxyz_xyz_base_cam0, T_BASE_CAM0)
        shares += [mm / found.error_mm, deg / found.error_deg]
        assert mm < 1.5
    assert 0.5 < np.sqrt(np.mean(np.square(shares))) < 1.6


def test_a_wrong_word_of_the_robot_is_left_out(rng):
    views, hands = recorded(rng, count=34)
    hands[7] = rigid.compose(hands[7], pose([0.0, 0.05, 0.0], [0.03, 0.0, 0.0]))
    found = handeye.calibrate(views, hands, CAMERAS, LENSES)
    assert {line.split(":")[0].split(", ")[1] for line in found.left_out} == {"placement 7"}
    assert away(found.wxyz_xyz_base_cam0, T_BASE_CAM0)[0] < 0.2


def one_axis(rng):
    """The board lies at one slant and turns about the vertical."""
    turn = pose([0.0, 0.0, rng.uniform(-3, 3)], rng.uniform([-0.1, -0.1, 0], [0.1, 0.1, 0.2]))
    return rigid.compose(turn, pose([np.pi, 0.0, 0.0], np.zeros(3)))


def no_turn(rng):
    p = rng.uniform([-0.1, -0.1, 0], [0.1, 0.1, 0.2])
    return pose([np.pi - 0.1, 0.0, 0.0], p)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 29}, r"29 different poses .* \(of 29 recorded\); 30 are needed"),
        (
            {"draw": one_axis},
            r"about one axis only: rotations spread by \d+\.\d, 0\.0 and 0\.0|one",
        ),
        ({"draw": no_turn}, r"rotations spread by 0\.0, 0\.0, 0\.0 degrees"),
        ({"cameras": (1,)}, r"by one camera only \(camera 0: 0 poses, camera 1: \d+ poses"),
    ],
)
def test_degenerate_sets_are_refused_with_the_numbers(rng, settings, message):
    views, hands = recorded(rng, **{"count": 36, **settings})
    with pytest.raises(CalibrationError, match=message):
        handeye.calibrate(views, hands, CAMERAS, LENSES)


def test_the_same_pose_thirty_times_is_one(rng):
    T = placement(rng, lean=0.05)
    views, hands = recorded(rng, draw=lambda _: T)
    with pytest.raises(CalibrationError, match="1 different poses"):
        handeye.calibrate(views, hands, CAMERAS, LENSES)


def test_a_hand_that_stays_in_place_is_refused(rng):
    """It turns about its own origin: the board swings, the hand does not move."""
    views, hands = [], {}
    middle = carried(placement(rng, lean=0.05))
    for k in range(40):
        hands[k] = rigid.compose(middle, pose(rng.normal(0, 0.25, 3), rng.normal(0, 1e-3, 3)))
        board = rigid.compose(BASE, rigid.compose(hands[k], T_HAND_BOARD))
        views += seen(board, k, rng)
    with pytest.raises(CalibrationError, match=r"positions spread by 1, 1, 1 mm; 30 along one"):
        handeye.calibrate(views, hands, CAMERAS, LENSES)


def test_one_camera_alone_is_a_rig_of_its_own(rng):
    views, hands = recorded(rng, count=40, cameras=(0,))
    found = handeye.calibrate(views, hands, {0: CAMERAS[0]}, {0: LENS})
    assert away(found.wxyz_xyz_base_cam0, T_BASE_CAM0)[0] < 0.3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, rng: {k: T for k, T in h.items() if k != 5}, "no pose .* for placement 5"),
        (
            lambda h, rng: dict(zip(h, [h[k] for k in rng.permutation(len(h))], strict=True)),
            r"differ by \d+\.\d degrees and \d+ mm .* the poses of these pictures",
        ),
        (
            lambda h, rng: {k: np.concatenate([T[:4], 1000 * T[4:]]) for k, T in h.items()},
            r"up to \d+ m from the robot's base",
        ),
    ],
)
def test_poses_that_are_not_of_these_pictures_are_refused(rng, change, message):
    views, hands = recorded(rng)
    with pytest.raises(CalibrationError, match=message):
        handeye.calibrate(views, change(hands, rng), CAMERAS, LENSES)
