"""Joint refinement of poses over the corners that cameras saw, and what is left of the residuals.

A corner's place in a camera is a chain of four poses of which two are sought:

    p_cam = T_left  T_a^-1  T_middle  T_b  p_board

Between cameras, T_a is T_cam0_cam and T_b is T_cam0_board; with the board in the robot's hand, T_a
is T_base_cam0, T_middle is T_base_hand, T_b is T_hand_board, and T_left is T_cam_cam0. Derivatives
are written out; the Jacobian is sparse, as a corner depends on two poses alone.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import optimize, sparse
from scipy.spatial.transform import Rotation

from capture.board import CalibrationError, Corners, stack
from realdex_jax.data import rigid
from realdex_jax.geometry.lens import Lens

ROBUST = 0.5
"""Residuals (pixels) above this count less and less."""
_EVALUATIONS, _TOLERANCE = 200, 1e-9
_BEHIND = 0.02
"""Depth (m) that points behind a camera are taken to have, so that a bad start has derivatives."""
_WIDE = 2.0
"""Directions farther from the axis are cut off: the lens's polynomials mean nothing there."""


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """v views of the board, a and b sought poses of the two kinds."""

    views: tuple[Corners, ...]
    lenses: Mapping[int, Lens]
    """By number of the camera."""
    left: Float[np.ndarray, "v 7"]
    """T_left of each view: quaternion wxyz and position (m)."""
    middle: Float[np.ndarray, "v 7"]
    """T_middle of each view."""
    a: Int[np.ndarray, " v"]
    """Which T_a each view hangs on."""
    b: Int[np.ndarray, " v"]
    """Which T_b each view hangs on."""
    fixed: tuple[int, ...] = ()
    """Those of T_a that stay as they are."""


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    """Refined poses, and how well they are known."""

    Ts_a: Float[np.ndarray, "a 7"]
    Ts_b: Float[np.ndarray, "b 7"]
    residuals: Float[np.ndarray, "n 2"]
    """Seen less computed, pixels, corner by corner in the order of the views."""
    covariance: Float[np.ndarray, "k k"]
    """Of the sought poses' six numbers: turn (rad) in the pose's own frame, position (m) in the
    frame it maps to. T_a first, without the fixed ones, then T_b."""
    condition: float
    """Of the Jacobian: how much better the best-known direction is known than the worst. Lengths
    are over the mean distance from camera to board, so that all are angles."""


def identities(count: int) -> Float[np.ndarray, "n 7"]:
    """Poses that do nothing."""
    return np.repeat(np.eye(7)[:1], count, axis=0)


def solve(
    problem: Problem,
    Ts_a: Float[np.ndarray, "a 7"],
    Ts_b: Float[np.ndarray, "b 7"],
    clusters: bool = False,
) -> Solution:
    """Refines poses until the corners fit best; outliers weigh little.

    Args:
        problem: What was seen.
        Ts_a: Where to start from.
        Ts_b: Where to start from.
        clusters: Corners of one placement err together, as they do where the placement is known
            from elsewhere; else each corner errs by itself.

    Raises:
        CalibrationError: It ends nowhere.
    """
    system = _System(problem, np.array(Ts_a, np.float64), np.array(Ts_b, np.float64))
    start = np.zeros(system.unknowns)
    if not np.isfinite(system.residuals(start)).all():
        raise CalibrationError("refinement starts at poses that are not finite")
    jacobian: Any = system.jacobian
    found = optimize.least_squares(
        system.residuals,
        start,
        jac=jacobian,
        loss="soft_l1",
        f_scale=ROBUST,
        x_scale="jac",
        xtol=_TOLERANCE,
        ftol=_TOLERANCE,
        gtol=_TOLERANCE,
        max_nfev=_EVALUATIONS,
        tr_solver="lsmr",
    )
    if not np.isfinite(found.x).all() or found.status < 0:
        raise CalibrationError(f"refinement did not end: {found.message}")
    Ts_a, Ts_b = system.poses(found.x)
    residuals = system.residuals(found.x)
    covariance, condition = _certainty(system, found.x, residuals, clusters)
    return Solution(Ts_a, Ts_b, -residuals.reshape(-1, 2), covariance, condition)


def _certainty(
    system: "_System",
    x: Float[np.ndarray, " k"],
    residuals: Float[np.ndarray, " n"],
    clusters: bool,
) -> tuple[Float[np.ndarray, "k k"], float]:
    J = system.jacobian(x)
    weight = 1.0 / np.sqrt(1.0 + (residuals / ROBUST) ** 2)
    H = (J.T @ J.multiply(weight[:, None])).toarray()
    scale = np.tile([1.0, 1.0, 1.0, *[1.0 / system.distance] * 3], system.unknowns // 6)
    eigenvalues = np.linalg.eigvalsh(H / np.outer(scale, scale))
    condition = float(np.sqrt(eigenvalues[-1] / max(eigenvalues[0], 1e-300)))
    inverse = np.linalg.pinv(H / np.outer(scale, scale), hermitian=True) / np.outer(scale, scale)
    freedom = max(len(residuals) - system.unknowns, 1)
    if not clusters:
        return inverse * float((weight * residuals**2).sum() / freedom), condition
    force = J.multiply((weight * residuals)[:, None]).tocsr()
    members = np.repeat(system.stack.placement, 2)
    groups = np.unique(members)
    pull = np.stack([np.asarray(force[members == g].sum(axis=0)).ravel() for g in groups])
    # Groups that a few numbers are fitted to look tighter than they are.
    count = len(groups)
    grown = count / max(count - system.unknowns / 2, 1.0)
    return inverse @ (pull.T @ pull) @ inverse * grown, condition


class _System:
    """The residuals as a function of small changes of the sought poses."""

    def __init__(self, problem: Problem, Ts_a: np.ndarray, Ts_b: np.ndarray) -> None:
        self.problem, self.stack = problem, stack(problem.views)
        self.view = np.repeat(np.arange(len(problem.views)), [len(v.pixels) for v in problem.views])
        self.Ts_a, self.Ts_b = Ts_a, Ts_b
        free = np.setdiff1d(np.arange(len(Ts_a)), problem.fixed)
        # Column of each T_a's six numbers; -1 for those that are fixed.
        self.column_a = np.full(len(Ts_a), -1)
        self.column_a[free] = 6 * np.arange(len(free))
        self.column_b = 6 * (len(free) + np.arange(len(Ts_b)))
        self.free = free
        self.unknowns = 6 * (len(free) + len(Ts_b))
        self.R_left, self.p_left = _parts(problem.left)
        self.R_middle, self.p_middle = _parts(problem.middle)
        p_cam = self._places(np.zeros(self.unknowns))[0]
        self.distance = float(np.abs(p_cam[:, 2]).mean())

    def poses(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Poses after the changes."""
        step_a = np.zeros((len(self.Ts_a), 6))
        step_a[self.free] = x[: 6 * len(self.free)].reshape(-1, 6)
        step_b = x[6 * len(self.free) :].reshape(-1, 6)
        return _moved(self.Ts_a, step_a), _moved(self.Ts_b, step_b)

    def residuals(self, x: np.ndarray) -> np.ndarray:
        """Computed less seen, pixels, column and row of each corner in turn."""
        p_cam = self._places(x)[0]
        pixels = np.zeros((len(p_cam), 2))
        for camera, lens in self.problem.lenses.items():
            mine = self.stack.camera == camera
            pixels[mine] = lens.distort(_flat(p_cam[mine])) * [lens.fx, lens.fy]
            pixels[mine] += [lens.cx, lens.cy]
        return (pixels - self.stack.pixels).ravel()

    def jacobian(self, x: np.ndarray) -> sparse.csr_matrix:
        """Derivatives of `residuals`."""
        p_cam, q_a, R_a, R_b = self._places(x)
        a, b = self.problem.a[self.view], self.problem.b[self.view]
        to_pixels = np.zeros((len(p_cam), 2, 3))
        for camera, lens in self.problem.lenses.items():
            mine = self.stack.camera == camera
            to_pixels[mine] = _pixels_by_place(lens, p_cam[mine])
        R_left = self.R_left[self.view]
        to_a = R_left @ np.swapaxes(R_a[a], 1, 2)
        to_b = to_a @ self.R_middle[self.view]
        x_a, x_b = self._steps(x)
        turn_a = R_left @ _cross(q_a) @ _right_jacobian(x_a[:, :3])[a]
        turn_b = -to_b @ R_b[b] @ _cross(self.stack.p_board) @ _right_jacobian(x_b[:, :3])[b]
        by_a = to_pixels @ np.concatenate([turn_a, -to_a], axis=2)
        by_b = to_pixels @ np.concatenate([turn_b, to_b], axis=2)
        rows = 2 * np.arange(len(p_cam))[:, None, None] + np.arange(2)[:, None]
        rows = np.broadcast_to(rows, (len(p_cam), 2, 6))
        columns = [
            np.broadcast_to(first[which][:, None, None] + np.arange(6), rows.shape)
            for first, which in ((self.column_a, a), (self.column_b, b))
        ]
        sought = self.column_a[a] >= 0
        parts = [
            (rows[sought], columns[0][sought], by_a[sought]),
            (rows, columns[1], by_b),
        ]
        at_rows, at_columns, values = (
            np.concatenate([part[k].ravel() for part in parts]) for k in range(3)
        )
        shape = (2 * len(p_cam), self.unknowns)
        return sparse.csr_matrix((values, (at_rows, at_columns)), shape=shape)

    def _steps(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x_a = np.zeros((len(self.Ts_a), 6))
        x_a[self.free] = x[: 6 * len(self.free)].reshape(-1, 6)
        return x_a, x[6 * len(self.free) :].reshape(-1, 6)

    def _places(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Corners in their cameras and in T_a's own frame (m), and the sought rotations."""
        R_a, p_a = _parts_moved(self.Ts_a, self._steps(x)[0])
        R_b, p_b = _parts_moved(self.Ts_b, self._steps(x)[1])
        a, b, v = self.problem.a[self.view], self.problem.b[self.view], self.view
        p = np.einsum("nij,nj->ni", R_b[b], self.stack.p_board) + p_b[b]
        p = np.einsum("nij,nj->ni", self.R_middle[v], p) + self.p_middle[v]
        q_a = np.einsum("nji,nj->ni", R_a[a], p - p_a[a])
        p_cam = np.einsum("nij,nj->ni", self.R_left[v], q_a) + self.p_left[v]
        return p_cam, q_a, R_a, R_b


def _flat(p_cam: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2"]:
    return np.clip(p_cam[:, :2] / np.maximum(p_cam[:, 2:], _BEHIND), -_WIDE, _WIDE)


def _pixels_by_place(lens: Lens, p_cam: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2 3"]:
    flat, z = _flat(p_cam), np.maximum(p_cam[:, 2], _BEHIND)
    by_flat = lens.slopes(flat) * np.array([lens.fx, lens.fy])[:, None]
    by_place = np.zeros((len(p_cam), 2, 3))
    by_place[:, 0, 0] = by_place[:, 1, 1] = 1.0 / z
    by_place[:, :, 2] = -flat / z[:, None]
    return by_flat @ by_place


def _parts(poses: Float[np.ndarray, "n 7"]) -> tuple[np.ndarray, np.ndarray]:
    return Rotation.from_quat(poses[:, :4], scalar_first=True).as_matrix(), poses[:, 4:]


def _parts_moved(poses: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    turn = Rotation.from_quat(poses[:, :4], scalar_first=True) * Rotation.from_rotvec(step[:, :3])
    return turn.as_matrix(), poses[:, 4:] + step[:, 3:]


def _moved(poses: np.ndarray, step: np.ndarray) -> np.ndarray:
    turn = Rotation.from_quat(poses[:, :4], scalar_first=True) * Rotation.from_rotvec(step[:, :3])
    return np.concatenate([turn.as_quat(scalar_first=True), poses[:, 4:] + step[:, 3:]], axis=1)


def _cross(v: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3 3"]:
    """Matrices M with M w = v x w."""
    out = np.zeros((len(v), 3, 3))
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        out[:, i, j], out[:, j, i] = -v[:, k], v[:, k]
    return out


def _right_jacobian(turn: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3 3"]:
    """How a change of a rotation vector turns further, in the turned frame."""
    square = (turn**2).sum(axis=1)
    small = square < 1e-8
    safe = np.where(small, 1.0, square)
    angle = np.sqrt(safe)
    first = np.where(small, 0.5 - square / 24, (1.0 - np.cos(angle)) / safe)
    second = np.where(small, 1 / 6 - square / 120, (angle - np.sin(angle)) / (safe * angle))
    K = _cross(turn)
    return np.eye(3) - first[:, None, None] * K + second[:, None, None] * (K @ K)


@dataclasses.dataclass(frozen=True)
class Residuals:
    """What is left between one camera's views and the joint solution; root mean squares."""

    views: int
    corners: int
    px: float
    """Of a corner, pixels."""
    mm: float
    """Of a corner, at the board's distance and across the line of sight, millimetres."""
    deg: float
    """Of the board's orientation as this view alone gives it, degrees."""


def residuals_of(
    views: Sequence[Corners],
    poses: Sequence[tuple[Float[np.ndarray, " 7"], Float[np.ndarray, " 7"]]],
    lens: Lens,
) -> Residuals:
    """The residuals of one camera.

    Args:
        views: Its views.
        poses: T_cam_board of each, by all views together and by it alone.
        lens: Its optics.
    """
    px, mm, deg = [], [], []
    for view, (joint, alone) in zip(views, poses, strict=True):
        p_cam = rigid.apply(joint, view.p_board)
        px.append(((lens.project(p_cam) - view.pixels) ** 2).sum(axis=1))
        off = lens.undistort(view.pixels) - p_cam[:, :2] / p_cam[:, 2:]
        mm.append(((1000.0 * off * p_cam[:, 2:]) ** 2).sum(axis=1))
        deg.append(angle_deg(joint, alone) ** 2)
    square = [float(np.sqrt(np.mean(np.concatenate(x)))) if x else 0.0 for x in (px, mm)]
    turned = float(np.sqrt(np.mean(deg))) if deg else 0.0
    return Residuals(len(views), sum(map(len, px)), square[0], square[1], turned)


def angle_deg(first: Float[np.ndarray, " 7"], second: Float[np.ndarray, " 7"]) -> float:
    """Angle between two poses, degrees."""
    between = rigid.compose(rigid.inverse(first), second)
    return float(np.rad2deg(Rotation.from_quat(between[:4], scalar_first=True).magnitude()))


def outlying(
    views: Sequence[Corners], residuals: Float[np.ndarray, "n 2"], least_px: float
) -> Bool[np.ndarray, " v"]:
    """Views that do not fit the others, of each placement the worst.

    Their residual is five times the usual one, and more than `least_px`. A view that is wrong pulls
    the others of its placement along, so those may be right.
    """
    ends = np.cumsum([len(v.pixels) for v in views])[:-1]
    parts = np.split((residuals**2).sum(axis=1), ends)
    rms = np.array([np.sqrt(part.mean()) for part in parts])
    bad = rms > max(least_px, 5.0 * float(np.median(rms)))
    placement = np.array([view.placement for view in views])
    worst = [np.flatnonzero(placement == k)[rms[placement == k].argmax()] for k in set(placement)]
    return bad & np.isin(np.arange(len(views)), worst)
