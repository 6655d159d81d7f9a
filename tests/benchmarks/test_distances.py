"""The benchmarked distances are what they are called, on every side."""

import importlib.util

import jax
import numpy as np
import pytest
from scipy.spatial import KDTree

from benchmarks import distances, peers
from realdex_jax.hand import kinematics, load

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="the bench extra is not there"
)


@pytest.fixture
def clouds(rng):
    return tuple(rng.normal(0, 0.05, (2, n, 3)).astype(np.float32) for n in (30, 40))


def test_ours_is_the_chamfer_distance_and_its_gradient(clouds):
    a, b = clouds
    call, answer = distances.our_chamfer(a, b)
    call()
    value, gradient = answer()
    expected = sum(
        (KDTree(q).query(p)[0] ** 2).mean()
        for i in range(2)
        for p, q in ((a[i], b[i]), (b[i], a[i]))
    )
    assert float(value) == pytest.approx(expected, rel=1e-5)
    # Moving along the gradient changes the value by its square.
    step = 1e-3 / np.linalg.norm(gradient)
    moved = [distances.our_chamfer(a + s * step * gradient, b)[1]()[0] for s in (-1, 1)]
    slope = (moved[1] - moved[0]) / (2 * step)
    assert slope == pytest.approx((gradient**2).sum(), rel=0.05)  # points change their nearest


@needs_torch
@pytest.mark.filterwarnings("ignore")
def test_the_peers_agree(clouds, rng):
    ours = distances.our_chamfer(*clouds)[1]()
    theirs = distances._peer_chamfers(*clouds)["PyTorch"][1]()
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    hand = load.load()
    links = jax.jit(lambda q: kinematics.forward(hand, q))(np.zeros((2, 22), np.float32))
    points = rng.normal(0, 0.08, (2, 50, 3)).astype(np.float32)
    ours = distances.our_map(hand, links, points)[1]()
    theirs = distances._peer_maps(hand, links, points)["PyTorch"][1]()
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-2)


def test_sides_that_differ_are_not_timed():
    peers.agree("peer", 0.5, 1.0)
    for error in (1.0, float("nan")):
        with pytest.raises(peers.DisagreementError, match="peer differs"):
            peers.agree("peer", error, 1.0)
