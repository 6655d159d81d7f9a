"""Table, things on it, and what the cameras look at."""

import numpy as np
import pytest
from object_views import LENS, PLACES, depths, standing

from capture import segmentation
from capture.device import CaptureError
from realdex_jax.data import rigid


def test_cameras_look_at_the_middle_of_the_table() -> None:
    np.testing.assert_allclose(segmentation.looked_at(PLACES), [0.0, 0.0, 0.1], atol=1e-9)
    with pytest.raises(CaptureError, match="do not look at one place"):
        segmentation.looked_at({0: PLACES[0]})


def test_the_table_is_the_level_that_most_points_are_at() -> None:
    rng = np.random.default_rng(0)
    cloud = []
    for c, depth in depths(standing(), table=True).items():
        noisy = depth + (depth > 0.0) * rng.normal(0.0, 0.002, depth.shape)
        cloud.append(rigid.apply(PLACES[c], LENS.back_project(noisy)[0]))
    for height in (0.0, 0.0324, -0.7):
        moved = np.concatenate(cloud) + np.array([0.0, 0.0, height])
        # A tenth of the noise: thousands of points share it.
        found = segmentation.table_height(moved, np.zeros(3))
        assert found == pytest.approx(height, abs=2e-3)
    with pytest.raises(CaptureError, match="points about the table; 200 are needed"):
        segmentation.table_height(np.zeros((10, 3)), np.zeros(3))


def test_things_are_what_hangs_together() -> None:
    rng = np.random.default_rng(0)
    sizes = (400, 900, 10)
    spots = ([0.0, 0.0, 0.0], [0.2, 0.0, 0.0], [0.0, 0.3, 0.0])
    p = np.concatenate(
        [rng.uniform(-0.03, 0.03, (n, 3)) + spot for n, spot in zip(sizes, spots, strict=True)]
    )
    label = np.repeat([0, 1, 2], sizes)
    shuffled = rng.permutation(len(p))
    found = segmentation.things(p[shuffled])
    assert [int(x.sum()) for x in found] == [900, 400]  # ten points are noise
    assert set(label[shuffled][found[0]]) == {1}
    assert segmentation.things(np.zeros((0, 3))) == []
