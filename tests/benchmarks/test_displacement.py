"""Displacement beside PyBullet: the same fall, and grasps that hold stay on both sides."""

import importlib.util

import numpy as np
import pytest

from benchmarks import displacement, peers
from realdex_jax.data import store
from realdex_jax.hand.load import load
from sim import objects

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pybullet") is None, reason="the bench extra is not there"
)


def test_both_sides_are_timed_after_they_agreed() -> None:
    ours, theirs = displacement.compare(("essential_oil",), grasps=4, repeats=1)
    assert ours.items == theirs.items == 4
    assert ours.median_s > 0.0
    assert theirs.median_s > 0.0


def test_a_fall_that_differs_ends_the_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(displacement, "_GRAVITY", 1.62)
    with pytest.raises(peers.DisagreementError, match="free fall"):
        displacement.compare(("essential_oil",), grasps=1, repeats=1)


def test_the_posed_mesh_touches_the_object_it_grasps() -> None:
    hand, shape = load(), objects.make("essential_oil")
    phi = np.asarray(store.open_dataset("realdex-sim").grasps("essential_oil").phi[:3])
    dropped = displacement.drop(hand, shape, phi)
    assert dropped.faces.max() == dropped.vertices.shape[1] - 1
    surface = shape.surface(2000).points
    near = [np.linalg.norm(v[:, None] - surface, axis=-1).min() for v in dropped.vertices]
    assert max(near) < 0.005
