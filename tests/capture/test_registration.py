"""Alignment of a model to what cameras see of it, against SciPy, and from no start at all."""

import dataclasses

import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
import pytest
from object_views import away, model, pose, se3, seen, standing
from scipy.optimize import least_squares
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from capture import registration
from capture.observation import Observation
from capture.registration import GlobalConfig, IcpConfig
from realdex_jax.data import rigid

STILL = IcpConfig(prior=(10.0, 10.0))
"""No pull to the start."""
EXACT_MM, EXACT_DEG = 0.5, 0.5
"""Without noise: pixels are 5 mm apart and the model's points 4 mm, on a surface with curves."""
TRUTH = standing()
align = jax.jit(registration.align, static_argnums=0)


@pytest.fixture(scope="module")
def view() -> Observation:
    return registration.thinned(seen(TRUTH), 512)


def near(off_m: float, off_rad: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ways = rng.normal(size=(2, 3))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    return rigid.compose(TRUTH, pose(off_rad * ways[0], off_m * ways[1]))


def test_pairs_are_the_nearest_points_that_the_camera_can_see() -> None:
    rng = np.random.default_rng(0)
    the = model()
    p = jnp.asarray(rng.uniform(-0.08, 0.08, (200, 3)), jnp.float32)
    v = jnp.asarray(rng.normal(size=(200, 3)), jnp.float32)
    v /= jnp.linalg.norm(v, axis=1, keepdims=True)
    index, distance = registration.pairs(the, p, v)
    for k in range(200):
        faces = np.flatnonzero(np.asarray(the.n_middle @ v[k]) > 0.1)
        least, which = KDTree(np.asarray(the.p_middle)[faces]).query(np.asarray(p[k]))
        # The number of the pair takes the last bits of the distance.
        assert float(distance[k]) == pytest.approx(least, rel=1e-3, abs=1e-5)
        if int(index[k]) != faces[which]:
            assert float(distance[k]) == pytest.approx(least, rel=1e-3)


def test_a_model_near_its_place_comes_to_it_and_a_batch_is_as_good_as_a_loop(view) -> None:
    starts = jnp.stack([se3(near(0.01, 0.15, k)).wxyz_xyz for k in range(4)])
    both = jax.jit(
        jax.vmap(lambda T: registration.align(STILL, model(), view, jaxlie.SE3(T), jaxlie.SE3(T)))
    )(starts)
    for k in range(4):
        mm, deg = away(both.T_world_object.wxyz_xyz[k], TRUTH)
        assert mm < EXACT_MM
        assert deg < EXACT_DEG
        T = jaxlie.SE3(starts[k])
        one = align(STILL, model(), view, T, T)
        assert away(both.T_world_object.wxyz_xyz[k], one.T_world_object)[0] < 0.02
        assert float(one.inliers) > 0.99


def test_scipy_finds_the_same_place(view) -> None:
    """Point to plane with pairs from a KD-tree, solved anew until nothing moves."""
    start = near(0.008, 0.1)
    T = se3(start)
    ours = align(STILL, model(), view, T, T).T_world_object
    free = np.asarray(view.free)
    p_world, v_world = (np.asarray(x, float)[free] for x in (view.p_world, view.v_world))
    p_model, n_model = np.asarray(model().p_middle, float), np.asarray(model().n_middle, float)
    p_model = p_model + np.asarray(model().p_object_middle, float)
    now = start
    for _ in range(12):
        back = rigid.inverse(now)
        p = rigid.apply(back, p_world)
        v = v_world @ rigid.matrix(back)[:3, :3].T
        gap = np.linalg.norm(p[:, None] - p_model, axis=-1) + 1.0 * (v @ n_model.T <= 0.1)
        index = gap.argmin(axis=1)
        kept = gap[np.arange(len(p)), index] < 0.02

        def residual(x, p=p[kept], q=p_model[index[kept]], n=n_model[index[kept]]):
            moved = Rotation.from_rotvec(x[3:]).apply(p) + x[:3]
            return ((moved - q) * n).sum(axis=1)

        x = least_squares(residual, np.zeros(6), loss="soft_l1", f_scale=0.006).x
        now = rigid.compose(now, rigid.inverse(pose(x[3:], x[:3])))
    mm, deg = away(ours, now)
    # Another robust weight: they agree where both are at the truth.
    assert mm < 0.3
    assert deg < 0.4


def test_a_moved_world_moves_the_answer(view) -> None:
    world = se3(pose([0.2, -1.0, 0.4], [0.3, -0.2, 0.5]))
    start = se3(near(0.006, 0.1))
    moved = dataclasses.replace(
        view,
        p_world=jax.vmap(world.apply)(view.p_world),
        v_world=jax.vmap(world.rotation().apply)(view.v_world),
    )
    a = align(STILL, model(), view, start, start).T_world_object
    b = align(STILL, model(), moved, world @ start, world @ start).T_world_object
    assert away(world @ a, b)[0] < 0.05


def test_what_points_do_not_tell_stays_as_it_was() -> None:
    truth = standing("cosmetics")
    view = registration.thinned(seen(truth, "cosmetics"), 512)
    spun = rigid.compose(truth, pose([0.0, 0.0, 0.5], [0.004, 0.0, 0.0]))
    T = se3(spun)
    found = align(IcpConfig(), model("cosmetics"), view, T, T).T_world_object
    turn = (T.inverse() @ found).log()
    assert np.rad2deg(abs(float(turn[5]))) < 3.0
    middle = model("cosmetics").p_object_middle
    off = found.apply(middle) - se3(truth).apply(middle)
    assert 1000.0 * float(jnp.linalg.norm(off)) < EXACT_MM


def test_without_a_start_it_is_found_among_many() -> None:
    few = GlobalConfig(starts=128, points=128, kept=8)
    found = registration.register(model(), seen(TRUTH), few)
    assert (np.diff(found.cost) >= 0.0).all()
    mm, deg = away(found.T_world_object.wxyz_xyz[0], TRUTH)
    assert mm < 2.0
    assert deg < 2.0


def test_starts_are_spread_over_all_orientations() -> None:
    turns = registration.turns(128)
    np.testing.assert_allclose(np.linalg.norm(turns, axis=1), 1.0, atol=1e-12)
    np.testing.assert_array_equal(turns, registration.turns(128))
    random = Rotation.random(500, rng=np.random.default_rng(5)).as_quat(scalar_first=True)
    nearest = 2.0 * np.arccos(np.clip(np.abs(random @ turns.T).max(axis=1), 0.0, 1.0))
    assert np.rad2deg(nearest.max()) < 60.0  # what the alignment can turn by
