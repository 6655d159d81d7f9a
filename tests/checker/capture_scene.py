"""Four cameras around a table and what they would see of a board, without pictures."""

import numpy as np
from scipy.spatial.transform import Rotation

from capture.board import Board, Corners
from realdex_jax.data import rigid
from realdex_jax.geometry.lens import Lens
from sim import rig

LENS = Lens(
    1920, 1080, 912.0, 911.5, 962.0, 545.0, (0.58, -2.77, 5e-4, -3e-4, 1.57, 0.46, -2.60, 1.55)
)
LENSES = dict.fromkeys(range(4), LENS)
RIG = rig.around_table(1920)
BASE = np.array([1.0, 0.0, 0.0, 0.0, -1.1, 0.0, 0.5])
"""T_world_base."""
T_BASE_CAM0 = rigid.compose(rigid.inverse(BASE), RIG.wxyz_xyz_world_cam0)
CAMERAS = RIG.calibration.wxyz_xyz_cam0_cam


def pose(turn, p) -> np.ndarray:
    wxyz = Rotation.from_rotvec(np.asarray(turn, float)).as_quat(scalar_first=True)
    return np.concatenate([wxyz, p])


T_HAND_BOARD = pose([0.4, -1.0, 0.7], [0.02, -0.03, 0.15])


def placement(rng, lean=0.25, away=0.1) -> np.ndarray:
    """T_world_board of a board whose print looks up."""
    turn = Rotation.from_rotvec(rng.normal(0, lean, 3) * [1, 1, 4])
    turn *= Rotation.from_rotvec([np.pi, 0, 0])
    p = rng.uniform([-away, -away, 0], [away, away, 2 * away])
    return np.concatenate([turn.as_quat(scalar_first=True), p])


def seen(T_world_board, number, rng, cameras=(0, 1, 2, 3), noise=0.05, board=None) -> list[Corners]:
    """Views of all cameras that are not beside or behind the print."""
    p_board = (board or Board()).corners().reshape(-1, 3)
    views = []
    for camera in cameras:
        T = rigid.compose(rigid.inverse(RIG.wxyz_xyz_world_cam(camera)), T_world_board)
        z = rigid.matrix(T)[:3, 2]
        if z @ T[4:] / np.linalg.norm(T[4:]) < 0.3:
            continue
        pixels = LENS.project(rigid.apply(T, p_board)) + rng.normal(0, noise, (len(p_board), 2))
        views.append(Corners(camera, number, p_board, pixels))
    return views


def carried(T_world_board) -> np.ndarray:
    """T_base_hand where the hand holds the board there."""
    T_base_board = rigid.compose(rigid.inverse(BASE), T_world_board)
    return rigid.compose(T_base_board, rigid.inverse(T_HAND_BOARD))


def away(a, b) -> tuple[float, float]:
    """Distance of two poses, mm and degrees."""
    between = rigid.compose(rigid.inverse(a), b)
    turn = Rotation.from_quat(between[:4], scalar_first=True).magnitude()
    return 1000.0 * float(np.linalg.norm(a[4:] - b[4:])), float(np.rad2deg(turn))
