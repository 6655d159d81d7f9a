"""Where the cameras are to each other, from a board that several of them saw at a time.

Each view gives the board's pose in its camera; placements that two cameras saw give the pose of one
camera in the other; the pairs that share most placements are chained to camera 0. That is the start
of one refinement over all corners of all cameras and placements. Depth takes no part: a corner is
known to a twentieth of a pixel, 0.05 mm, and the depth camera's own error is many times that.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from capture import apriltag, bundle
from capture.board import CalibrationError, Corners
from capture.bundle import Problem, Residuals, Solution
from realdex_jax.data import rigid
from realdex_jax.geometry.lens import Lens

LEAST_SHARED = 4
"""Placements that a camera must share with others."""
LEAST_TURN_DEG, LEAST_WAY = 10.0, 0.05
"""Over the placements the board must turn by so much, or move by so much (m)."""
MOST_PX = 2.0
"""Root mean square of the residuals above which nothing is accepted."""
MOST_ERROR = (3e-3, np.deg2rad(0.3))
"""Standard errors of a camera's place (m) and orientation (rad) above which nothing is accepted."""
_OUTLYING_PX = 1.5
_AMBIGUOUS = (2.0, 0.3)
"""A view's second pose is kept beside the better one if its residual is below so many times that
one's, or above it by less than so many pixels."""
_METRES_A_RADIAN = 0.5
"""How differences of place and of orientation are added up."""


@dataclasses.dataclass(frozen=True, eq=False)
class Extrinsics:
    """Where the cameras are."""

    wxyz_xyz_cam0_cam: Mapping[int, Float[np.ndarray, " 7"]]
    """T_cam0_cam of each, camera 0 among them: quaternion wxyz and position (m)."""
    wxyz_xyz_cam0_board: Mapping[int, Float[np.ndarray, " 7"]]
    """T_cam0_board of each placement that was used."""
    residuals: Mapping[int, Residuals]
    """By camera."""
    error_mm: Mapping[int, float]
    """Standard error of each camera's place; root of the sum over three axes. Lenses that are not
    as their calibration says come on top."""
    error_deg: Mapping[int, float]
    """Standard error of each camera's orientation."""
    condition: float
    """Of the refinement; see `bundle.Solution`."""
    left_out: tuple[str, ...]
    """Views that were left out, and why."""
    views: tuple[Corners, ...]
    """Those that were used."""
    joint: Mapping[tuple[int, int], Float[np.ndarray, " 7"]]
    """T_cam_board of each by all views together; by camera and placement."""


def calibrate(views: Sequence[Corners], lenses: Mapping[int, Lens]) -> Extrinsics:
    """Finds the cameras' places in camera 0.

    Args:
        views: What each camera saw of each placement of the board.
        lenses: Optics of all cameras of the rig, 0 among them.

    Raises:
        CalibrationError: A camera shares too few placements with the others, the board hardly
            moved, or the views contradict each other. The message has the numbers.
    """
    if len(lenses) < 2 or 0 not in lenses:
        raise CalibrationError(
            f"cameras {', '.join(map(str, sorted(lenses))) or 'none'}; two at least, 0 among them"
        )
    poses, left_out = view_poses(views, lenses)
    used = [view for view in views if (view.camera, view.placement) in poses]
    seen = _shared(used, lenses)
    cameras = chained(poses, sorted(lenses), seen)
    boards = placed(used, poses, lenses, cameras)
    _check_spread(list(boards.values()))
    numbers, places = sorted(cameras), sorted(boards)
    while True:
        at_camera = np.array([numbers.index(v.camera) for v in used])
        at_place = np.array([places.index(v.placement) for v in used])
        problem = Problem(
            tuple(used),
            lenses,
            bundle.identities(len(used)),
            bundle.identities(len(used)),
            at_camera,
            at_place,
            fixed=(numbers.index(0),),
        )
        solution = bundle.solve(
            problem,
            np.stack([cameras[c] for c in numbers]),
            np.stack([boards[k] for k in places]),
        )
        bad = bundle.outlying(used, solution.residuals, _OUTLYING_PX)
        cameras = dict(zip(numbers, solution.Ts_a, strict=True))
        boards = dict(zip(places, solution.Ts_b, strict=True))
        if not bad.any():
            break
        left_out += [
            f"camera {v.camera}, placement {v.placement}: does not fit the other views"
            for v, wrong in zip(used, bad, strict=True)
            if wrong
        ]
        used = [v for v, wrong in zip(used, bad, strict=True) if not wrong]
        _shared(used, lenses)
        places = sorted({v.placement for v in used})
        boards = {k: boards[k] for k in places}
    return _checked(solution, used, lenses, cameras, boards, poses, left_out)


def _checked(
    solution: Solution,
    used: Sequence[Corners],
    lenses: Mapping[int, Lens],
    cameras: Mapping[int, Float[np.ndarray, " 7"]],
    boards: Mapping[int, Float[np.ndarray, " 7"]],
    poses: "Poses",
    left_out: list[str],
) -> Extrinsics:
    rms = float(np.sqrt((solution.residuals**2).sum(axis=1).mean()))
    if rms > MOST_PX:
        raise CalibrationError(
            f"corners are {rms:.2f} pixels (root mean square) from where one rig would see them, "
            f"at most {MOST_PX}: are the lenses and the board's size right, and did it stand still?"
        )
    variance = np.diag(solution.covariance)
    free = [c for c in sorted(cameras) if c != 0]
    error_mm, error_deg = {0: 0.0}, {0: 0.0}
    for k, camera in enumerate(free):
        turn, way = (np.sqrt(variance[6 * k + i : 6 * k + i + 3].sum()) for i in (0, 3))
        if way > MOST_ERROR[0] or turn > MOST_ERROR[1]:
            raise CalibrationError(
                f"camera {camera}: known to {1000 * way:.1f} mm and {np.rad2deg(turn):.2f} degrees "
                f"only, {1000 * MOST_ERROR[0]:.1f} and {np.rad2deg(MOST_ERROR[1]):.2f} are needed; "
                "more placements, larger in the pictures"
            )
        error_mm[camera], error_deg[camera] = 1000.0 * float(way), float(np.rad2deg(turn))
    joint = {
        (v.camera, v.placement): rigid.compose(
            rigid.inverse(cameras[v.camera]), boards[v.placement]
        )
        for v in used
    }
    return Extrinsics(
        cameras,
        boards,
        residuals(used, joint, poses, lenses),
        error_mm,
        error_deg,
        solution.condition,
        tuple(left_out),
        tuple(used),
        joint,
    )


def residuals(
    views: Sequence[Corners],
    joint: Mapping[tuple[int, int], Float[np.ndarray, " 7"]],
    poses: "Poses",
    lenses: Mapping[int, Lens],
) -> dict[int, Residuals]:
    """What is left of each camera's views.

    Args:
        views: The views.
        joint: T_cam_board of each by all views together.
        poses: T_cam_board of each by itself.
        lenses: By camera.
    """
    found = {}
    for camera in sorted(lenses):
        mine = [v for v in views if v.camera == camera]
        together = [joint[camera, v.placement] for v in mine]
        alone = [
            nearest(poses[camera, v.placement], T) for v, T in zip(mine, together, strict=True)
        ]
        both = list(zip(together, alone, strict=True))
        found[camera] = bundle.residuals_of(mine, both, lenses[camera])
    return found


Poses = dict[tuple[int, int], list[Float[np.ndarray, " 7"]]]
"""T_cam_board by camera and placement; two where a view alone cannot tell."""


def view_poses(views: Sequence[Corners], lenses: Mapping[int, Lens]) -> tuple[Poses, list[str]]:
    """The board's pose in each view by itself, and the views without one.

    Raises:
        CalibrationError: A view of a camera that is not in the rig, or two of one placement.
    """
    poses: Poses = {}
    left_out = []
    for view in views:
        if view.camera not in lenses:
            raise CalibrationError(
                f"view of camera {view.camera}; the rig has {', '.join(map(str, sorted(lenses)))}"
            )
        if (view.camera, view.placement) in poses:
            raise CalibrationError(
                f"camera {view.camera}, placement {view.placement}: there are two views of it"
            )
        found = apriltag.poses(view, lenses[view.camera])
        if not found or found[0][1] > _OUTLYING_PX:
            px = f"{found[0][1]:.1f} pixels off at best" if found else "none fits"
            left_out.append(
                f"camera {view.camera}, placement {view.placement}: no pose of the board ({px})"
            )
            continue
        limit = max(_AMBIGUOUS[0] * found[0][1], found[0][1] + _AMBIGUOUS[1])
        poses[view.camera, view.placement] = [T for T, rms in found if rms <= limit]
    return poses, left_out


def _shared(views: Sequence[Corners], lenses: Mapping[int, Lens]) -> dict[int, set[int]]:
    """Placements by camera; raises if a camera has too few in common with others."""
    seen = {c: {v.placement for v in views if v.camera == c} for c in lenses}
    for camera in sorted(seen):
        others = set().union(*(seen[c] for c in seen if c != camera))
        common = len(seen[camera] & others)
        if common < LEAST_SHARED:
            raise CalibrationError(
                f"camera {camera} saw the board in {len(seen[camera])} placements, {common} of "
                f"which another camera saw too; {LEAST_SHARED} are needed"
            )
    return seen


def _check_spread(boards: Sequence[Float[np.ndarray, " 7"]]) -> None:
    turn = max(bundle.angle_deg(boards[0], T) for T in boards)
    way = max(float(np.linalg.norm(T[4:] - boards[0][4:])) for T in boards)
    if turn < LEAST_TURN_DEG and way < LEAST_WAY:
        raise CalibrationError(
            f"over {len(boards)} placements the board turned by {turn:.1f} degrees and moved by "
            f"{1000 * way:.0f} mm; it must turn by {LEAST_TURN_DEG:.0f} or move by "
            f"{1000 * LEAST_WAY:.0f}"
        )


def chained(
    poses: Poses, cameras: Sequence[int], seen: Mapping[int, set[int]]
) -> dict[int, Float[np.ndarray, " 7"]]:
    """A first T_cam0_cam of each camera, along the pairs that share most placements.

    Raises:
        CalibrationError: Some cameras share no placement, directly or through others, with 0.
    """
    found = {0: np.eye(7)[0]}
    while len(found) < len(cameras):
        pairs = [(len(seen[a] & seen[b]), a, b) for a in found for b in cameras if b not in found]
        count, a, b = max(pairs, key=lambda pair: (pair[0], -pair[1], -pair[2]))
        if not count:
            without = ", ".join(str(c) for c in cameras if c not in found)
            raise CalibrationError(
                f"cameras {without} share no placement with {', '.join(map(str, sorted(found)))}; "
                "put the board where cameras of both groups see it"
            )
        relative = [
            rigid.compose(T_a, rigid.inverse(T_b))
            for k in sorted(seen[a] & seen[b])
            for T_a in poses[a, k]
            for T_b in poses[b, k]
        ]
        found[b] = rigid.compose(found[a], _middle(np.stack(relative)))
    return found


def _middle(poses: Float[np.ndarray, "n 7"]) -> Float[np.ndarray, " 7"]:
    """The pose that has most others near."""
    turns = Rotation.from_quat(poses[:, :4], scalar_first=True).as_matrix()
    trace = np.einsum("aij,bij->ab", turns, turns)
    angle = np.arccos(np.clip((trace - 1.0) / 2.0, -1.0, 1.0))
    way = np.linalg.norm(poses[:, None, 4:] - poses[None, :, 4:], axis=-1)
    apart = np.sort(way + _METRES_A_RADIAN * angle, axis=1)
    # Of two poses that a view allows one is wrong: no more than a third need agree.
    return poses[int(np.argmin(apart[:, len(poses) // 3]))]


def placed(
    views: Sequence[Corners],
    poses: Poses,
    lenses: Mapping[int, Lens],
    cameras: Mapping[int, Float[np.ndarray, " 7"]],
) -> dict[int, Float[np.ndarray, " 7"]]:
    """A first T_cam0_board of each placement: of its views' poses the one that suits all best."""
    found = {}
    for placement in sorted({v.placement for v in views}):
        mine = [v for v in views if v.placement == placement]
        best = (np.inf, np.eye(7)[0])
        for view in mine:
            for T in poses[view.camera, placement]:
                T_cam0_board = rigid.compose(cameras[view.camera], T)
                # Each view counts for at most ten pixels: one that is wrong must not decide.
                cost = sum(
                    min(_rms(v, lenses[v.camera], cameras[v.camera], T_cam0_board), 10.0)
                    for v in mine
                )
                if cost < best[0]:
                    best = (cost, T_cam0_board)
        found[placement] = best[1]
    return found


def _rms(
    view: Corners,
    lens: Lens,
    T_cam0_cam: Float[np.ndarray, " 7"],
    T_cam0_board: Float[np.ndarray, " 7"],
) -> float:
    T_cam_board = rigid.compose(rigid.inverse(T_cam0_cam), T_cam0_board)
    if rigid.apply(T_cam_board, view.p_board)[:, 2].min() <= 0.0:
        return np.inf
    off = apriltag.residuals(view, lens, T_cam_board)
    return float(np.sqrt((off**2).sum(axis=1).mean()))


def nearest(
    candidates: Sequence[Float[np.ndarray, " 7"]], pose: Float[np.ndarray, " 7"]
) -> Float[np.ndarray, " 7"]:
    """Of a view's poses the one turned least from the given one."""
    return min(candidates, key=lambda T: bundle.angle_deg(T, pose))
