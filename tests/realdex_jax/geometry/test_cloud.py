"""Cloud checks, farthest points against a plain loop, normals and views of a sphere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realdex_jax.errors import CloudError
from realdex_jax.geometry import cloud


def sphere(count: int = 2000, radius: float = 0.05) -> np.ndarray:
    points = np.random.default_rng(0).normal(size=(count, 3))
    return radius * points / np.linalg.norm(points, axis=1, keepdims=True)


def plain_farthest(points: np.ndarray, start: int, count: int) -> list[int]:
    chosen = [start]
    while len(chosen) < count:
        distance = np.linalg.norm(points[:, None] - points[chosen], axis=2).min(axis=1)
        chosen.append(int(distance.argmax()))
    return chosen


def test_farthest_points_agree_with_a_plain_loop() -> None:
    points = np.random.default_rng(2).uniform(-0.1, 0.1, (300, 3)).astype(np.float32)
    ours = np.asarray(cloud.farthest_points(jnp.asarray(points), 40))
    assert ours.tolist() == plain_farthest(points, int(ours[0]), 40)
    keyed = np.asarray(cloud.farthest_points(jnp.asarray(points), 40, jax.random.key(0)))
    assert keyed.tolist() == plain_farthest(points, int(keyed[0]), 40)


def test_farthest_points_batch_like_a_loop() -> None:
    clouds = jnp.asarray(np.random.default_rng(3).uniform(-0.1, 0.1, (4, 100, 3)), jnp.float32)
    batched = jax.vmap(lambda p: cloud.farthest_points(p, 10))(clouds)
    looped = jnp.stack([cloud.farthest_points(p, 10) for p in clouds])
    np.testing.assert_array_equal(batched, looped)


def test_more_farthest_points_than_points_is_refused() -> None:
    with pytest.raises(CloudError, match=r"cannot choose 9 of 5 points; need 1\.\.5"):
        cloud.farthest_points(jnp.zeros((5, 3)), 9)


def test_resample_reaches_the_size_from_both_sides() -> None:
    points = sphere(100)
    fewer = cloud.resample(points, 30, jax.random.key(1))
    assert len(set(fewer.tolist())) == 30
    more = cloud.resample(points, 250, jax.random.key(1))
    assert len(more) == 250
    assert set(more.tolist()) == set(range(100))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((0, 3)), "empty"),
        ([], "empty"),
        (np.zeros((5, 2)), r"shape \(5, 2\); need \(points, 3\)"),
        (np.zeros(12), r"shape \(12,\)"),
        ([["a", "b", "c"]], "cannot be read as numbers"),
        (np.eye(3), "3 distinct points; need at least 16"),
        (np.tile(np.eye(3), (50, 1)), "3 distinct points"),
        (
            np.where(np.arange(6000).reshape(-1, 3) == 7, np.nan, sphere()),
            "1 of 2000 points are not",
        ),
        (np.where(np.arange(6000).reshape(-1, 3) == 7, np.inf, sphere()), "first: row 2"),
        (1000 * sphere(), "multiply by 0.001 if it is in mm"),
        (1e9 * sphere(), "crop it to one object"),
        (0.01 * sphere(), "objects must be 1 cm to 1 m"),
    ],
)
def test_bad_clouds_are_refused_with_the_reason(points: object, message: str) -> None:
    with pytest.raises(CloudError, match=message) as caught:
        cloud.check_cloud(points, name="scan.ply")
    assert str(caught.value).startswith("scan.ply")


def test_a_good_cloud_passes_and_what_the_error_advises_works() -> None:
    points = sphere()
    np.testing.assert_array_equal(cloud.check_cloud(points), points)
    broken = points.copy()
    broken[5] = np.nan
    with pytest.raises(CloudError) as caught:
        cloud.check_cloud(broken)
    assert str(caught.value).endswith("keep cloud[np.isfinite(cloud).all(axis=1)]")
    kept = cloud.check_cloud(broken[np.isfinite(broken).all(axis=1)])
    np.testing.assert_array_equal(kept, np.delete(points, 5, axis=0))


def test_normals_of_a_sphere_are_radial() -> None:
    points = sphere()
    normals = cloud.estimate_normals(points)
    assert np.quantile(np.sum(normals * points, axis=1) / 0.05, 0.01) > 0.97
    camera = np.array([0.0, 0.0, 1.0])
    seen = cloud.estimate_normals(points, view=camera)
    assert (np.sum(seen * (camera - points), axis=1) >= 0).all()


def test_a_view_keeps_the_half_toward_the_camera() -> None:
    points = sphere()
    visible = cloud.partial_view(points, np.array([0.0, 0.0, 2.0]))
    # From 80 cm the horizon of a 5 cm sphere lies 3 mm above its equator.
    truth = points[:, 2] > 0.05**2 / 0.8
    mask = np.zeros(len(points), bool)
    mask[visible] = True
    assert (mask == truth).mean() > 0.95
    with pytest.raises(CloudError, match="non-zero"):
        cloud.partial_view(points, np.zeros(3))
    with pytest.raises(CloudError, match="flat"):
        cloud.partial_view(points * [1.0, 0.0, 0.0], np.array([0.0, 0.0, 1.0]))
