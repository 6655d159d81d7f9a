import numpy as np
import pytest
from capture_scene import LENS, pose

from realdex_jax.data import rigid
from realdex_jax.geometry.lens import Lens
from sim import board
from sim.board import Exposure
from sim.kinect import CameraError

SMALL = Lens(320, 180, 152.0, 152.0, 160.3, 90.8, LENS.distortion)
CLEAN = Exposure(blur=0.01, noise=0.0)
TURNED = pose([0.3, -0.4, 0.9], [0.03, -0.02, 0.7])


def half(columns=8, rows=6) -> np.ndarray:
    """White to the left, ink to the right."""
    return np.repeat((np.arange(columns) < columns // 2)[None], rows, axis=0)


def test_an_edge_lies_where_the_lens_shows_it():
    """Area under the step from white to black gives the edge's place, whatever the sampling."""
    T = pose([0.0, 0.0, 0.0], [0.021, 0.004, 0.7])
    image = board.photograph(half(), 0.04, SMALL, T, np.random.default_rng(0), CLEAN)[..., 0]
    edge = SMALL.project(rigid.apply(T, np.array([[0.0, 0.0, 0.0]])))[0]
    row = image[round(edge[1]), round(edge[0]) - 6 : round(edge[0]) + 7].astype(float)
    high, low = row[:3].mean(), row[-3:].mean()
    place = round(edge[0]) - 6.5 + ((row - low) / (high - low)).sum()
    # An upright edge meets four columns of rays in a pixel: an eighth of a pixel is the worst.
    assert place == pytest.approx(edge[0], abs=0.13)


def test_the_back_shows_no_print():
    behind = pose([np.pi, 0.0, 0.0], [0.0, 0.0, 0.7])
    images = [
        board.photograph(cells, 0.04, SMALL, behind, np.random.default_rng(0), CLEAN)
        for cells in (half(), ~half())
    ]
    np.testing.assert_array_equal(images[0], images[1])


@pytest.mark.parametrize("p", [[0, 0, -0.7], [0, 0, 0.01], [5.0, 0.0, 0.7]])
def test_a_print_out_of_sight_leaves_the_wall(p):
    rng = [np.random.default_rng(0) for _ in range(2)]
    away = pose([0.0, 0.0, 0.0], p)
    first, second = (
        board.photograph(cells, 0.02, SMALL, away, r, CLEAN)
        for cells, r in zip((half(), ~half()), rng, strict=True)
    )
    np.testing.assert_array_equal(first, second)
    assert not board.depth((6, 8), 0.02, SMALL, away).any()


def test_depth_lies_in_the_print_s_plane():
    depth = board.depth((6, 8), 0.03, SMALL, TURNED)
    p_cam, seen = SMALL.back_project(depth)
    p_board = rigid.apply(rigid.inverse(TURNED), p_cam)
    assert seen.sum() > 500
    # Directions between computed ones are interpolated.
    assert np.abs(p_board[:, 2]).max() < 1e-6
    assert np.abs(p_board[:, :2]).max(axis=0) == pytest.approx([0.12, 0.09], abs=4e-3)


def test_noisy_depth_spreads_about_the_truth():
    true = board.depth((6, 8), 0.03, SMALL, TURNED)
    noisy = board.depth((6, 8), 0.03, SMALL, TURNED, np.random.default_rng(0))
    both = (true > 0) & (noisy > 0)
    off = (noisy - true)[both]
    assert 0.5 < both.sum() / (true > 0).sum() < 1.0
    assert abs(np.median(off)) < 1e-3
    assert 1e-4 < np.std(off[np.abs(off) < 0.02]) < 5e-3


def test_the_same_numbers_take_the_same_picture():
    images = [
        board.photograph(half(), 0.03, SMALL, TURNED, np.random.default_rng(k)) for k in (1, 1, 2)
    ]
    np.testing.assert_array_equal(images[0], images[1])
    assert (images[0] != images[2]).any()


def test_a_place_that_is_not_finite_is_refused():
    with pytest.raises(CameraError, match="print with cells"):
        board.depth((6, 8), 0.03, SMALL, np.full(7, np.nan))
