import numpy as np
import pytest
from capture_scene import CAMERAS, LENS, LENSES, away, placement, pose, seen
from scipy import optimize
from scipy.spatial.transform import Rotation

from capture import bundle
from capture.board import CalibrationError
from capture.bundle import Problem
from realdex_jax.data import rigid


def problem(rng, noise=0.0, count=5):
    """Four cameras and some placements, all poses of them true; each link of the chain turns."""
    boards = [placement(rng) for _ in range(count)]
    views = [view for k, T in enumerate(boards) for view in seen(T, k, rng, noise=noise)]
    left = np.stack([pose(rng.normal(0, 0.02, 3), rng.normal(0, 0.01, 3)) for _ in views])
    middle = np.stack([pose(rng.normal(0, 1, 3), rng.normal(0, 0.3, 3)) for _ in range(count)])
    # T_cam_board = left a^-1 middle b must come out as it was seen.
    Ts_a = np.stack([CAMERAS[c] for c in range(4)])
    world = bundle_world()
    Ts_b = np.stack(
        [
            rigid.compose(rigid.inverse(m), rigid.compose(world, T))
            for m, T in zip(middle, boards, strict=True)
        ]
    )
    placed = problem_views(views, left, Ts_a, middle, Ts_b, rng, noise)
    return (
        Problem(
            placed,
            LENSES,
            left,
            np.stack([middle[v.placement] for v in views]),
            np.array([v.camera for v in views]),
            np.array([v.placement for v in views]),
            fixed=(0,),
        ),
        Ts_a,
        Ts_b,
    )


def bundle_world():
    from capture_scene import RIG

    return rigid.inverse(RIG.wxyz_xyz_world_cam0)


def problem_views(views, left, Ts_a, middle, Ts_b, rng, noise):
    placed = []
    for view, T_left in zip(views, left, strict=True):
        k = view.placement
        T = rigid.compose(T_left, rigid.inverse(Ts_a[view.camera]))
        T = rigid.compose(rigid.compose(T, middle[k]), Ts_b[k])
        pixels = LENS.project(rigid.apply(T, view.p_board))
        pixels = pixels + rng.normal(0, noise, pixels.shape)
        placed.append(type(view)(view.camera, k, view.p_board, pixels))
    return tuple(placed)


def shaken(poses, rng, turn=0.02, way=0.01):
    return np.stack(
        [rigid.compose(T, pose(rng.normal(0, turn, 3), rng.normal(0, way, 3))) for T in poses]
    )


@pytest.mark.parametrize("size", [0.0, 1e-7, 0.3, 2.0])
def test_derivatives_are_those_of_finite_differences(rng, size):
    task, Ts_a, Ts_b = problem(rng, count=2)
    system = bundle._System(task, shaken(Ts_a, rng), shaken(Ts_b, rng))
    x = size * 0.1 * rng.normal(size=system.unknowns)
    witness = optimize.approx_fprime(x, system.residuals, 1e-6)
    off = np.abs(system.jacobian(x).toarray() - witness)
    # Forward differences of 1e-6 are good to about 1e-3 of pixels per metre and radian.
    assert off.max() < 1e-5 * np.abs(witness).max()


@pytest.mark.parametrize("angle", [0.0, 1e-7, 1e-3, 1.0, 3.1])
def test_a_turn_s_right_jacobian_is_that_of_finite_differences(rng, angle):
    axis = rng.normal(size=3)
    turn = angle * axis / np.linalg.norm(axis)
    found = bundle._right_jacobian(turn[None])[0]
    step = 1e-6
    witness = np.stack(
        [
            (Rotation.from_rotvec(turn).inv() * Rotation.from_rotvec(turn + step * e)).as_rotvec()
            / step
            for e in np.eye(3)
        ],
        axis=1,
    )
    np.testing.assert_allclose(found, witness, atol=2e-6)


def test_exact_corners_give_exact_poses(rng):
    task, Ts_a, Ts_b = problem(rng)
    start_a = np.concatenate([Ts_a[:1], shaken(Ts_a[1:], rng)])
    found = bundle.solve(task, start_a, shaken(Ts_b, rng))
    for poses, true in ((found.Ts_a, Ts_a), (found.Ts_b, Ts_b)):
        for one, other in zip(poses, true, strict=True):
            mm, deg = away(one, other)
            assert mm < 1e-3
            assert deg < 1e-4
    assert np.abs(found.residuals).max() < 1e-4
    np.testing.assert_array_equal(found.Ts_a[0], Ts_a[0])


def test_the_standard_errors_are_those_of_repetition():
    """Twenty runs with other noise scatter as the covariance of one says."""
    task, Ts_a, Ts_b = problem(np.random.default_rng(0), count=3)
    places, said = [], []
    for seed in range(20):
        rng = np.random.default_rng([1, seed])
        views = tuple(
            type(v)(v.camera, v.placement, v.p_board, v.pixels + rng.normal(0, 0.2, v.pixels.shape))
            for v in task.views
        )
        noisy = Problem(views, LENSES, task.left, task.middle, task.a, task.b, task.fixed)
        found = bundle.solve(noisy, Ts_a, Ts_b)
        places.append(found.Ts_a[1:, 4:].ravel())
        variance = np.diag(found.covariance)[:18].reshape(3, 6)[:, 3:]
        said.append(np.sqrt(variance).ravel())
    ratio = np.std(places, axis=0) / np.mean(said, axis=0)
    # The spread of twenty numbers is known to about a sixth.
    assert 0.7 < ratio.mean() < 1.3


def test_a_wild_corner_moves_nothing(rng):
    task, Ts_a, Ts_b = problem(rng, noise=0.05)
    view = task.views[3]
    view.pixels[5] += 200.0
    found = bundle.solve(task, Ts_a, Ts_b)
    mm, deg = away(found.Ts_a[1], Ts_a[1])
    assert mm < 0.3
    assert deg < 0.03
    bad = bundle.outlying(task.views, found.residuals, 1.5)
    assert np.flatnonzero(bad).tolist() == [3]


def test_a_start_that_is_not_finite_is_refused(rng):
    task, Ts_a, Ts_b = problem(rng, count=2)
    Ts_a[1, 5] = np.nan
    with pytest.raises(CalibrationError, match="not finite"):
        bundle.solve(task, Ts_a, Ts_b)
