"""Pictures of a board on and above the table by the four virtual cameras, with the truth.

What a real rig does to a calibration is in them: lenses that differ a little from what their
calibration says, a print that is not quite of its size, blur and noise, a robot that is not quite
where it says. Hand and arm are not in the pictures, and nothing is hidden behind them.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8
from scipy.spatial.transform import Rotation

from capture import apriltag
from capture.board import Board
from capture.board_set import PARTS, BoardSet, Part
from realdex_jax import arm
from realdex_jax.data import rigid
from realdex_jax.errors import ConfigError
from realdex_jax.geometry.lens import Lens
from sim import board as print_of
from sim import rig
from sim.board import Exposure
from sim.demonstrate import P_WORLD_BASE

_DISTORTION = (0.58, -2.77, 0.0, 0.0, 1.57, 0.46, -2.60, 1.55)
"""Middle of the lenses' k1 k2 p1 p2 k3 k4 k5 k6; of the kind of an Azure Kinect's."""
_SPREAD = (2e-3, 2e-3, 4e-4, 4e-4, 2e-3, 0.0, 0.0, 0.0)
_FOCAL = 912.0 / 1920.0
_TILT_DEG = 30.0
"""Most that the board leans."""
_TRIES = 2000


@dataclasses.dataclass(frozen=True)
class Faults:
    """What is not as the calibration takes it to be; standard deviations."""

    exposure: Exposure = dataclasses.field(default_factory=Exposure)
    """Blur and noise of the pictures."""
    print_size: float = 3e-4
    """Of the print, over its size: 0.07 mm on 231."""
    focal: float = 2e-4
    """Of the focal length, over its length: 0.2 mm at a metre."""
    axis_px: float = 0.2
    """Of the optical axis, in pixels of a picture 1920 wide."""
    robot_m: float = 2e-4
    """Of the hand's place, in each axis and pose anew."""
    robot_rad: float = 3.5e-4
    """Of the hand's orientation, about each axis and in each pose anew: 0.02 degrees."""


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """What the calibration should find."""

    wxyz_xyz_cam0_cam: dict[int, Float[np.ndarray, " 7"]]
    wxyz_xyz_base_cam0: Float[np.ndarray, " 7"]
    wxyz_xyz_hand_board: Float[np.ndarray, " 7"]


def record(
    seed: int,
    width: int = 1920,
    placements: int = 20,
    poses: int = 36,
    board: Board | None = None,
    faults: Faults | None = None,
) -> tuple[BoardSet, Truth]:
    """The pictures, taken as they are asked for.

    Args:
        seed: Of the cameras' places, lenses, placements and faults.
        width: Columns of the pictures, a multiple of 16.
        placements: Of the board on and above the table.
        poses: Of the robot that holds the board.
        board: The print.
        faults: What is not as it seems.

    Raises:
        ConfigError: Fewer than one placement or pose, or the arm does not reach.
        CameraError: A width that makes no picture.
    """
    if min(placements, poses) < 1 or seed < 0:
        raise ConfigError(
            f"{placements} placements, {poses} poses, seed {seed}; must be 1, 1, 0 or more"
        )
    board, faults = board or Board(), faults or Faults()
    cameras = rig.around_table(width, seed)
    numbers = cameras.calibration.cameras
    rng = np.random.default_rng([seed, 0])
    said = {c: _lens(rng, width) for c in numbers}
    true = {c: _misjudged(said[c], rng, faults) for c in numbers}
    cell = board.cell * (1.0 + faults.print_size * float(rng.normal()))
    T_hand_board = _held(rng)
    base = np.concatenate([[1.0, 0.0, 0.0, 0.0], P_WORLD_BASE])
    at_table = [_placement(rng, 0.0, 0.16) for _ in range(placements)]
    hands = _reached(rng, poses, base, T_hand_board)
    in_hand = [
        rigid.compose(base, rigid.compose(rigid.compose(T, _jolt(rng, faults)), T_hand_board))
        for T in hands
    ]
    boards: dict[Part, list[Float[np.ndarray, " 7"]]] = {"table": at_table, "hand": in_hand}
    white = apriltag.cells(board)

    def take(part: Part, camera: int, k: int) -> UInt8[np.ndarray, "h w 3"]:
        T_cam_world = rigid.inverse(cameras.wxyz_xyz_world_cam(camera))
        T_cam_board = rigid.compose(T_cam_world, boards[part][k])
        # Of the picture's own, so that it is the same in whatever order pictures are taken.
        own = np.random.default_rng([seed, 1 + PARTS.index(part), camera, k])
        return print_of.photograph(white, cell, true[camera], T_cam_board, own, faults.exposure)

    shots: dict[Part, dict[int, tuple[int, ...]]] = {
        part: dict.fromkeys(numbers, tuple(range(len(boards[part])))) for part in PARTS
    }
    truth = Truth(
        dict(cameras.calibration.wxyz_xyz_cam0_cam),
        rigid.compose(rigid.inverse(base), cameras.wxyz_xyz_world_cam0),
        T_hand_board,
    )
    return BoardSet(board, said, shots, dict(enumerate(hands)), take), truth


def _lens(rng: np.random.Generator, width: int) -> Lens:
    height = width * 9 // 16
    scale = width / 1920
    f = _FOCAL * width * (1.0 + 4e-3 * float(rng.normal()))
    cx, cy = ((n - 1) / 2 + 4.0 * scale * float(rng.normal()) for n in (width, height))
    bent = np.array(_DISTORTION) + np.array(_SPREAD) * rng.normal(size=8)
    k1, k2, p1, p2, k3, k4, k5, k6 = bent.tolist()
    return Lens(width, height, f, f, cx, cy, (k1, k2, p1, p2, k3, k4, k5, k6))


def _misjudged(lens: Lens, rng: np.random.Generator, faults: Faults) -> Lens:
    """The true lens where the calibration says `lens`."""
    grown = 1.0 + faults.focal * float(rng.normal())
    dx, dy = (faults.axis_px * lens.width / 1920 * rng.normal(size=2)).tolist()
    return dataclasses.replace(
        lens, fx=lens.fx * grown, fy=lens.fy * grown, cx=lens.cx + dx, cy=lens.cy + dy
    )


def _placement(
    rng: np.random.Generator, least_height: float, away: float
) -> Float[np.ndarray, " 7"]:
    """T_world_board of a board that lies, leans or is held above the table, its print up."""
    yaw = Rotation.from_rotvec([0.0, 0.0, rng.uniform(-np.pi, np.pi)])
    way = rng.uniform(-np.pi, np.pi)
    lean = np.deg2rad(rng.uniform(0.0, _TILT_DEG))
    tilt = Rotation.from_rotvec(lean * np.array([np.cos(way), np.sin(way), 0.0]))
    up = Rotation.from_rotvec([np.pi, 0.0, 0.0])
    p = rng.uniform([-away, -away, least_height], [away, away, least_height + 0.20])
    return np.concatenate([(tilt * yaw * up).as_quat(scalar_first=True), p])


def _held(rng: np.random.Generator) -> Float[np.ndarray, " 7"]:
    """T_hand_board of a board in the fingers, its print to the palm's side (-y), roughly."""
    to_palm = Rotation.from_matrix(np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]))
    turn = Rotation.from_rotvec(rng.normal(0.0, 0.15, 3)) * to_palm
    p = np.array([0.0, -0.02, 0.20]) + rng.normal(0.0, 0.01, 3)
    return np.concatenate([turn.as_quat(scalar_first=True), p])


def _jolt(rng: np.random.Generator, faults: Faults) -> Float[np.ndarray, " 7"]:
    turn = Rotation.from_rotvec(faults.robot_rad * rng.normal(size=3))
    return np.concatenate([turn.as_quat(scalar_first=True), faults.robot_m * rng.normal(size=3)])


def _reached(
    rng: np.random.Generator,
    count: int,
    base: Float[np.ndarray, " 7"],
    T_hand_board: Float[np.ndarray, " 7"],
) -> list[Float[np.ndarray, " 7"]]:
    """T_base_hand of poses that the arm reaches, as its joints give them."""
    to_hand = rigid.inverse(T_hand_board)
    drawn = np.stack(
        [
            rigid.compose(rigid.inverse(base), rigid.compose(_placement(rng, 0.05, 0.12), to_hand))
            for _ in range(_TRIES)
        ]
    )
    R = Rotation.from_quat(drawn[:, :4], scalar_first=True).as_matrix()
    q, serves = arm.inverse(jnp.asarray(R, jnp.float32), jnp.asarray(drawn[:, 4:], jnp.float32))
    able = np.flatnonzero(np.asarray(serves).any(axis=1))[:count]
    if len(able) < count:
        raise ConfigError(f"{count} poses of the robot; the arm reaches {len(able)} of {_TRIES}")
    branch = np.asarray(serves)[able].argmax(axis=1)
    R_palm, p_palm = arm.palm_pose(q[able, branch])
    turns = Rotation.from_matrix(np.asarray(R_palm, np.float64)).as_quat(scalar_first=True)
    return list(np.concatenate([turns, np.asarray(p_palm, np.float64)], axis=1))
