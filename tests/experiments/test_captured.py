"""Clouds of objects as the capture rig brings them: what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest

from capture.device import CaptureError
from experiments import captured
from realdex_jax.hand.load import load
from sim import objects


def test_an_object_that_no_camera_sees_is_refused(monkeypatch):
    """A table alone, and a little noise above it."""
    rng = np.random.default_rng(0)
    p = np.concatenate([rng.uniform(-0.3, 0.3, (2000, 3)) * [1, 1, 0], [[0.1, 0.0, 0.05]]])
    n = np.tile([0.0, 0.0, 1.0], (len(p), 1))
    stage = SimpleNamespace(place=lambda *_: None)
    monkeypatch.setattr(captured, "load_stage", lambda *_: stage)
    monkeypatch.setattr(captured, "photographed", lambda *_: ())
    monkeypatch.setattr(
        captured.cloud, "merged", lambda *_: SimpleNamespace(p_world=p, normal_world=n)
    )
    with pytest.raises(CaptureError, match="1 points more than 3 mm above the table, and no thing"):
        captured.captured(load("shadow"), objects.make("mug"), 0)
