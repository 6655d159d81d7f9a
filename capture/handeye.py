"""Where camera 0 stands in the robot's base, from a board that the robot's hand carries around.

    T_base_hand T_hand_board = T_base_cam0 T_cam0_board     for every pose of the robot

The left factor is the robot's word, the right one the cameras'. A closed form finds the two unknown
poses; a refinement over all corners of all cameras makes them exact. Sets of poses from which they
do not follow are refused before and after, with the numbers that say why.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from capture import bundle, extrinsics
from capture.board import CalibrationError, Corners
from capture.bundle import Problem, Residuals, Solution
from realdex_jax.data import rigid
from realdex_jax.geometry.lens import Lens

LEAST_POSES = 30
"""Different poses of the hand in which a camera saw the board."""
LEAST_CAMERAS_POSES = 3
"""Poses that a camera must have seen to count as one that did."""
LEAST_TURN_DEG = 5.0
"""Rotations must spread so much (standard deviation) about two axes at least."""
LEAST_WAY = 0.03
"""Positions of the hand must spread so much (standard deviation, m)."""
FARTHEST = 5.0
"""Farthest (m) that a hand may be from its base, along an axis."""
MOST_CONDITION = 1e3
"""Of the problem; see `bundle.Solution`. Good sets have 10 to 50."""
MOST_START = (0.05, 3.0)
"""Differences (m, degrees) between robot and cameras that the closed form may leave."""
MOST_PX = 5.0
"""Root mean square of the residuals above which nothing is accepted. Errors of the robot are in
them: 1 mm is about one pixel."""
MOST_ERROR = (5e-3, np.deg2rad(0.5))
"""Standard errors of T_base_cam0 (m, rad) above which nothing is accepted."""
_SAME = (1e-3, np.deg2rad(0.2))
"""Poses of the hand nearer than this (m, rad) are one."""
_OUTLYING_PX = 3.0


@dataclasses.dataclass(frozen=True, eq=False)
class HandEye:
    """Where the rig is in the robot's base."""

    wxyz_xyz_base_cam0: Float[np.ndarray, " 7"]
    """T_base_cam0: quaternion wxyz and position (m)."""
    wxyz_xyz_hand_board: Float[np.ndarray, " 7"]
    """T_hand_board."""
    residuals: Mapping[int, Residuals]
    """By camera."""
    error_mm: float
    """Standard error of T_base_cam0's place; root of the sum over three axes."""
    error_deg: float
    """Standard error of its orientation."""
    board_error_mm: float
    """Standard error of T_hand_board's place."""
    board_error_deg: float
    condition: float
    """Of the refinement."""
    turn_spread_deg: tuple[float, float, float]
    """Standard deviations of the hand's rotations about their three main axes."""
    way_spread_mm: tuple[float, float, float]
    """The same of its positions."""
    poses: int
    """Different poses of the robot that were used."""
    left_out: tuple[str, ...]
    """Views that were left out, and why."""
    views: tuple[Corners, ...]
    """Those that were used."""
    joint: Mapping[tuple[int, int], Float[np.ndarray, " 7"]]
    """T_cam_board of each by robot and rig; by camera and placement."""


def calibrate(
    views: Sequence[Corners],
    wxyz_xyz_base_hand: Mapping[int, Float[np.ndarray, " 7"]],
    wxyz_xyz_cam0_cam: Mapping[int, Float[np.ndarray, " 7"]],
    lenses: Mapping[int, Lens],
) -> HandEye:
    """Finds T_base_cam0 and T_hand_board.

    Args:
        views: What each camera saw of the board in the hand; a placement is a pose of the robot.
        wxyz_xyz_base_hand: T_base_hand of each placement, by its number.
        wxyz_xyz_cam0_cam: Where the cameras are to each other; see `extrinsics`.
        lenses: Optics of all cameras of the rig.

    Raises:
        CalibrationError: The poses do not determine the result, or contradict it.
    """
    poses, left_out = extrinsics.view_poses(views, lenses)
    used = [view for view in views if (view.camera, view.placement) in poses]
    without = sorted({v.placement for v in used} - set(wxyz_xyz_base_hand))
    if without:
        raise CalibrationError(
            f"no pose of the robot for placement {', '.join(map(str, without[:10]))}"
        )
    turns, ways = check(used, wxyz_xyz_base_hand, lenses)
    boards = extrinsics.placed(used, poses, lenses, wxyz_xyz_cam0_cam)
    order = sorted(boards)
    T_base_cam0, T_hand_board = closed_form(
        np.stack([wxyz_xyz_base_hand[k] for k in order]), np.stack([boards[k] for k in order])
    )
    _check_start(
        [rigid.compose(wxyz_xyz_base_hand[k], T_hand_board) for k in order],
        [rigid.compose(T_base_cam0, boards[k]) for k in order],
    )
    while True:
        problem = Problem(
            tuple(used),
            lenses,
            np.stack([rigid.inverse(wxyz_xyz_cam0_cam[v.camera]) for v in used]),
            np.stack([wxyz_xyz_base_hand[v.placement] for v in used]),
            np.zeros(len(used), np.int64),
            np.zeros(len(used), np.int64),
        )
        solution = bundle.solve(problem, T_base_cam0[None], T_hand_board[None], clusters=True)
        T_base_cam0, T_hand_board = solution.Ts_a[0], solution.Ts_b[0]
        # A robot that was elsewhere spoils all views of its pose.
        bad = bundle.outlying(used, solution.residuals, _OUTLYING_PX)
        wrong_poses = {v.placement for v, wrong in zip(used, bad, strict=True) if wrong}
        bad = np.array([v.placement in wrong_poses for v in used])
        if not bad.any():
            break
        left_out += [
            f"camera {v.camera}, placement {v.placement}: does not fit the robot's pose"
            for v, wrong in zip(used, bad, strict=True)
            if wrong
        ]
        used = [v for v, wrong in zip(used, bad, strict=True) if not wrong]
        turns, ways = check(used, wxyz_xyz_base_hand, lenses)
    errors = _checked(solution)
    joint = {}
    for view in used:
        T_base_cam = rigid.compose(T_base_cam0, wxyz_xyz_cam0_cam[view.camera])
        T_base_board = rigid.compose(wxyz_xyz_base_hand[view.placement], T_hand_board)
        joint[view.camera, view.placement] = rigid.compose(rigid.inverse(T_base_cam), T_base_board)
    return HandEye(
        T_base_cam0,
        T_hand_board,
        extrinsics.residuals(used, joint, poses, lenses),
        *errors,
        solution.condition,
        turns,
        ways,
        len(_distinct([wxyz_xyz_base_hand[k] for k in sorted({v.placement for v in used})])),
        tuple(left_out),
        tuple(used),
        joint,
    )


def check(
    views: Sequence[Corners],
    wxyz_xyz_base_hand: Mapping[int, Float[np.ndarray, " 7"]],
    lenses: Mapping[int, Lens],
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Refuses sets of poses from which the calibration does not follow.

    Returns:
        Standard deviations of the hand's rotations (degrees) and positions (mm) about and along
        their three main axes.

    Raises:
        CalibrationError: Too few poses, too little or one-sided movement, or one camera alone.
    """
    seen = sorted({view.placement for view in views})
    poses = _distinct([wxyz_xyz_base_hand[k] for k in seen])
    if len(poses) < LEAST_POSES:
        raise CalibrationError(
            f"{len(poses)} different poses of the hand in which a camera saw the board (of "
            f"{len(wxyz_xyz_base_hand)} recorded); {LEAST_POSES} are needed"
        )
    farthest = max(float(np.abs(pose[4:]).max()) for pose in poses)
    if farthest > FARTHEST:
        raise CalibrationError(
            f"the hand is up to {farthest:.4g} m from the robot's base, at most {FARTHEST:.0f} is "
            "believed: positions must be metres"
        )
    turns, ways = spreads(np.stack(poses))
    about = ", ".join(f"{x:.1f}" for x in turns)
    if turns[0] < LEAST_TURN_DEG:
        raise CalibrationError(
            f"the hand's rotations spread by {about} degrees about their main axes; "
            f"{LEAST_TURN_DEG:.0f} about two axes are needed: turn the hand more"
        )
    if turns[1] < LEAST_TURN_DEG:
        raise CalibrationError(
            f"the hand turned about one axis only: rotations spread by {about} degrees about their "
            f"main axes; {LEAST_TURN_DEG:.0f} about two axes are needed, or the place along that "
            "axis stays open"
        )
    if ways[0] < 1000.0 * LEAST_WAY:
        raise CalibrationError(
            f"the hand's positions spread by {', '.join(f'{x:.0f}' for x in ways)} mm; "
            f"{1000 * LEAST_WAY:.0f} along one axis are needed"
        )
    counts = {c: len({v.placement for v in views if v.camera == c}) for c in sorted(lenses)}
    good = [c for c, count in counts.items() if count >= LEAST_CAMERAS_POSES]
    if len(lenses) > 1 and len(good) < 2:
        raise CalibrationError(
            "the board was seen by one camera only ("
            + ", ".join(f"camera {c}: {count} poses" for c, count in counts.items())
            + f"); a second one must see {LEAST_CAMERAS_POSES} at least, or an error of the "
            "cameras' places would go unseen"
        )
    return turns, ways


def spreads(
    poses: Float[np.ndarray, "n 7"],
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Spread of rotations (degrees) and of positions (mm), each along its main axes."""
    turns = Rotation.from_quat(poses[:, :4], scalar_first=True)
    vectors = (turns.mean().inv() * turns).as_rotvec(degrees=True)
    found = []
    for values in (vectors, 1000.0 * poses[:, 4:]):
        apart = values - values.mean(axis=0)
        one, two, three = np.sqrt(np.linalg.eigvalsh(apart.T @ apart / len(apart)).clip(0.0))[::-1]
        found.append((float(one), float(two), float(three)))
    return found[0], found[1]


def closed_form(
    wxyz_xyz_base_hand: Float[np.ndarray, "n 7"], wxyz_xyz_cam0_board: Float[np.ndarray, "n 7"]
) -> tuple[Float[np.ndarray, " 7"], Float[np.ndarray, " 7"]]:
    """T_base_cam0 and T_hand_board from matching poses, as Shah (2013): rotations, then places.

    With R_base_hand X = Z R_cam0_board for every pose, the sum of the Kronecker products of both
    rotations has Z and X, as long vectors, for its first pair of singular vectors.
    """
    R_a = Rotation.from_quat(wxyz_xyz_base_hand[:, :4], scalar_first=True).as_matrix()
    R_b = Rotation.from_quat(wxyz_xyz_cam0_board[:, :4], scalar_first=True).as_matrix()
    product = np.einsum("nij,nkl->ikjl", R_a, R_b).reshape(9, 9)
    left, _, right = np.linalg.svd(product)
    # vec(Z) = product vec(X) / n, row by row: Z = sum of R_a X R_b^T over n.
    R_z, R_x = _rotation(left[:, 0].reshape(3, 3)), _rotation(right[0].reshape(3, 3))
    rows = np.concatenate([R_a, np.broadcast_to(-np.eye(3), R_a.shape)], axis=2).reshape(-1, 6)
    p_a, p_b = wxyz_xyz_base_hand[:, 4:], wxyz_xyz_cam0_board[:, 4:]
    p_x, p_z = np.linalg.lstsq(rows, (p_b @ R_z.T - p_a).ravel(), rcond=None)[0].reshape(2, 3)
    return (
        np.concatenate([Rotation.from_matrix(R_z).as_quat(scalar_first=True), p_z]),
        np.concatenate([Rotation.from_matrix(R_x).as_quat(scalar_first=True), p_x]),
    )


def _rotation(turned: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    """The rotation nearest to a matrix, whose sign and length do not count."""
    u, _, v = np.linalg.svd(turned * np.sign(np.linalg.det(turned)))
    return u @ np.diag([1.0, 1.0, np.linalg.det(u @ v)]) @ v


def _distinct(poses: Sequence[Float[np.ndarray, " 7"]]) -> list[Float[np.ndarray, " 7"]]:
    found: list[Float[np.ndarray, " 7"]] = []
    for pose in poses:
        if all(
            np.linalg.norm(pose[4:] - other[4:]) > _SAME[0]
            or bundle.angle_deg(pose, other) > np.rad2deg(_SAME[1])
            for other in found
        ):
            found.append(pose)
    return found


def _check_start(
    by_robot: Sequence[Float[np.ndarray, " 7"]], by_cameras: Sequence[Float[np.ndarray, " 7"]]
) -> None:
    """Refuses poses of the robot that are of other pictures: T_base_board from both sides."""
    pairs = list(zip(by_robot, by_cameras, strict=True))
    turn = float(np.median([bundle.angle_deg(a, b) for a, b in pairs]))
    way = float(np.median([np.linalg.norm(a[4:] - b[4:]) for a, b in pairs]))
    if turn > MOST_START[1] or way > MOST_START[0]:
        raise CalibrationError(
            f"where the robot holds the board and where the cameras see it differ by {turn:.1f} "
            f"degrees and {1000 * way:.0f} mm (medians), at most {MOST_START[1]:.0f} and "
            f"{1000 * MOST_START[0]:.0f} are credible: are they the poses of these pictures?"
        )


def _checked(solution: Solution) -> tuple[float, float, float, float]:
    """Standard errors (mm, degrees) of both poses."""
    if solution.condition > MOST_CONDITION:
        raise CalibrationError(
            f"the problem's condition is {solution.condition:.3g}, at most {MOST_CONDITION:.0f} is "
            "accepted: turn the hand about more axes and carry the board to more places"
        )
    rms = float(np.sqrt((solution.residuals**2).sum(axis=1).mean()))
    if rms > MOST_PX:
        raise CalibrationError(
            f"corners are {rms:.2f} pixels (root mean square) from where the robot's poses put "
            f"them, at most {MOST_PX:.0f}: are they the poses of these pictures, in metres, and "
            "sat the board firmly in the hand?"
        )
    variance = np.diag(solution.covariance)
    turn, way, board_turn, board_way = (
        float(np.sqrt(variance[k : k + 3].sum())) for k in (0, 3, 6, 9)
    )
    if way > MOST_ERROR[0] or turn > MOST_ERROR[1]:
        raise CalibrationError(
            f"T_base_cam0 is known to {1000 * way:.1f} mm and {np.rad2deg(turn):.2f} degrees only, "
            f"{1000 * MOST_ERROR[0]:.1f} and {np.rad2deg(MOST_ERROR[1]):.2f} are needed; more "
            "poses, or a robot that says better where it is"
        )
    mm, deg = 1000.0, float(np.rad2deg(1.0))
    return mm * way, deg * turn, mm * board_way, deg * board_turn
