"""Scenes inside notebooks."""

import io

import numpy as np
import pytest
from PIL import Image

from realdex_jax.data.motion import Motion
from realdex_jax.hand.load import load
from sim import objects
from viewer import inline
from viewer.tableau import ViewError


def test_grasps_have_a_picture_each_and_a_scene_that_needs_nothing(open_palm) -> None:
    shown = inline.grasps(load(), objects.make("mug"), open_palm(3), [0, 2, 9], (64, 48))
    with Image.open(io.BytesIO(shown.picture)) as picture:
        assert picture.size == (2 * 64 + 4, 48)
    frame = shown.frame()
    assert frame.startswith('<iframe srcdoc="&lt;!doctype html&gt;')
    assert frame.count("<") == 2, "the page is text in an attribute"


def test_a_motion_shows_its_first_and_last_frame(open_palm) -> None:
    phi = np.repeat(np.asarray(open_palm(1).phi), 7, axis=0)
    placed = np.tile([1.0, 0, 0, 0, 0, 0, 0.05], (7, 1))
    moved = Motion(time=np.arange(7) / 15, phi=phi, wxyz_xyz_world_object=placed)
    shown = inline.motion(load(), objects.make("mug"), moved, count=3, size=(64, 48))
    with Image.open(io.BytesIO(shown.picture)) as picture:
        assert picture.size == (3 * 64 + 2 * 4, 48)


def test_both_are_outputs_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    display = pytest.importorskip("IPython.display")
    told = []
    monkeypatch.setattr(display, "display", lambda data, raw: told.append((data, raw)))
    inline.Scene(b"picture", b"<p>page</p>")._ipython_display_()
    assert [(set(data), raw) for data, raw in told] == [
        ({"image/png"}, True),
        ({"text/html", "text/plain"}, True),
    ]


def test_grasps_that_are_not_there_are_refused(open_palm) -> None:
    with pytest.raises(ViewError, match=r"mug: none of the grasps \[3\] to show; there are 3"):
        inline.grasps(load(), objects.make("mug"), open_palm(3), [3])
