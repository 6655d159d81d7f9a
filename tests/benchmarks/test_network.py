"""The benchmarked training step learns, and the peer's is the same network."""

import importlib.util

import jax
import numpy as np
import pytest

from benchmarks import network, peers
from realdex_jax.models.cvae import CvaeConfig


@pytest.fixture
def given(rng):
    shapes = {
        "points": (2, 20, 3),
        "hand": (2, 3, 16, 3),
        "numbers": (2, 3, 31),
        "noise": (2, 3, CvaeConfig().latent),
    }
    return {
        name: rng.uniform(-0.1, 0.1, shape).astype(np.float32) for name, shape in shapes.items()
    }


@pytest.mark.slow
def test_steps_make_the_loss_smaller_and_leave_the_first_parameters(given):
    ours = network.Ours(given)
    first, before = ours.loss(), jax.tree.map(np.array, ours.params)
    for _ in range(10):
        ours.step()
    assert float(ours._loss(ours._now[0], ours.given)) < 0.9 * first
    jax.tree.map(np.testing.assert_array_equal, before, ours.params)


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="the bench extra is not there"
)
@pytest.mark.filterwarnings("ignore")
def test_the_peer_learns_as_ours_does(given):
    ours = network.Ours(given)
    peer = network.Theirs(peers.torch(), ours.params, given, compiled=False)
    assert peer.loss() == pytest.approx(ours.loss(), rel=1e-5)
    for _ in range(5):
        ours.step()
        peer.step()
    # Adam divides by the size of gradients, which near zero differ by rounding.
    assert peer.loss() == pytest.approx(float(ours._loss(ours._now[0], ours.given)), rel=1e-2)
