"""Removal of outliers and of hidden points against all pairs of points, and a ball's horizon."""

import numpy as np
import pytest

from realdex_jax.errors import CloudError
from realdex_jax.geometry import outliers


def apart(points):
    """Distances of all pairs, sorted in each row; the first is of the point to itself."""
    return np.sort(np.linalg.norm(points[:, None] - points[None], axis=-1), axis=1)


@pytest.fixture
def points(rng):
    """A slab, and some points that fly about it."""
    slab = rng.uniform([-0.1, -0.1, 0.0], [0.1, 0.1, 0.002], (1500, 3))
    return np.concatenate([slab, rng.uniform(-0.2, 0.2, (40, 3))])


def test_lone_points_are_far_from_their_neighbours(points):
    keep = outliers.not_lone(points, 20, 2.0)
    mean = apart(points)[:, 1:21].mean(axis=1)
    np.testing.assert_array_equal(keep, mean <= mean.mean() + 2.0 * mean.std())
    assert keep[:1500].mean() > 0.99
    assert keep[1500:].mean() < 0.5


def test_sparse_points_have_few_neighbours(points):
    for radius, least in ((0.01, 4), (0.02, 10)):
        keep = outliers.not_sparse(points, radius, least)
        np.testing.assert_array_equal(keep, (apart(points) <= radius).sum(axis=1) > least)


def test_half_of_a_ball_is_hidden(rng):
    n = rng.normal(size=(800, 3))
    ball = 0.05 * n / np.linalg.norm(n, axis=1, keepdims=True)
    view = np.array([0.3, 0.1, 0.5])
    keep = outliers.not_hidden(ball, view, 100.0)
    # What is seen is what is this side of the horizon.
    assert np.mean(keep == (ball @ view > 0.05**2)) > 0.95
    turned = ball[::-1] + view
    np.testing.assert_array_equal(outliers.not_hidden(turned, 2 * view, 100.0), keep[::-1])


@pytest.mark.parametrize("count", [0, 1, 5])
def test_few_points_are_kept(count, rng):
    few = rng.normal(size=(count, 3))
    assert outliers.not_lone(few, 20).all()
    assert not outliers.not_sparse(few, 0.01, 10).any()
    assert outliers.not_sparse(few, 0.01, 0).all()


def test_what_makes_no_sense_is_refused(points):
    with pytest.raises(CloudError, match="0 neighbours"):
        outliers.not_lone(points, 0)
    with pytest.raises(CloudError, match=r"radius of 0\.0 m"):
        outliers.not_sparse(points, 0.0, 3)
    with pytest.raises(CloudError, match="apart from it and within the radius"):
        outliers.not_hidden(points, points[0], 1.0)
    with pytest.raises(CloudError, match="flat, it has no sides"):
        outliers.not_hidden(np.eye(3)[[0, 1, 0, 1]] + 0.0, np.zeros(3), 10.0)
