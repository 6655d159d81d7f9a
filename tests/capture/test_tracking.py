"""An object followed over frames: near the truth, flagged where it is hidden or elsewhere."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from object_views import LENSES, PLACES, away, depths, model, pose, se3, seen, standing

from capture import observation, quality, tracking
from capture.device import CaptureError
from capture.tracking import Moment, TrackingConfig
from realdex_jax.data import rigid
from realdex_jax.hand import joints
from realdex_jax.hand.load import load

CONFIG = TrackingConfig(points=512)
COUNT = 8
HAND = np.zeros(28)
"""Far away, at the origin's side; nothing of it is in the pictures."""
WITHIN_MM, WITHIN_DEG = 0.8, 1.0
"""Without noise: pixels are 5 mm apart on a surface with curves."""


def path() -> np.ndarray:
    """The object rises by 14 mm a frame and turns by 4 degrees."""
    step = np.arange(COUNT)[:, None]
    poses = [
        rigid.compose(standing(), pose([0.0, np.deg2rad(4.0 * k), 0.0], [0.0, 0.0, 0.0]))
        for k in range(COUNT)
    ]
    found = np.stack(poses)
    found[:, 4:] += step * [0.002, 0.001, 0.014]
    return found


@pytest.fixture(scope="module")
def frames() -> list[Moment]:
    return [Moment(seen(T), jnp.asarray(HAND, jnp.float32)) for T in path()]


def follow(frames, start=None, config=CONFIG):
    state = tracking.init(se3(path()[0] if start is None else start), frames[0].phi)
    return [tracked for _, tracked in tracking.track(config, None, model(), state, frames)]


def blind(moment: Moment) -> Moment:
    return moment._replace(
        seen=dataclasses.replace(
            moment.seen,
            free=jnp.zeros_like(moment.seen.free),
            nearest=jnp.zeros_like(moment.seen.nearest),
        )
    )


def test_a_moving_object_is_followed_and_well_rated(frames) -> None:
    found = follow(frames)
    for tracked, truth in zip(found, path(), strict=True):
        mm, deg = away(tracked.T_world_object, truth)
        assert mm < WITHIN_MM
        assert deg < WITHIN_DEG
        assert float(tracked.quality.score) > 0.9
        assert not bool(tracked.lost)
    np.testing.assert_allclose(tracking.poses(found)[:, 4:], path()[:, 4:], atol=1e-3)


def test_hidden_it_is_flagged_and_seen_again_it_is_found(frames) -> None:
    shown = [*frames[:3], blind(frames[3]), blind(frames[4]), *frames[3:6]]
    found = follow(shown)
    assert [bool(t.lost) for t in found] == [False] * 3 + [True] * 2 + [False] * 3
    assert all(float(t.quality.score) == 0.0 for t in found[3:5])
    assert away(found[-1].T_world_object, path()[5])[0] < WITHIN_MM


def test_elsewhere_it_is_flagged(frames) -> None:
    far = rigid.compose(path()[0], pose([1.2, 0.0, 0.3], [0.06, 0.02, 0.05]))
    assert all(bool(t.lost) for t in follow(frames[:3], far))


def test_a_pose_is_rated_as_it_is(frames) -> None:
    T = se3(path()[0])
    at = tracking.rate(CONFIG, None, model(), T, frames[0])
    assert away(at.T_world_object, T)[0] == 0.0
    assert float(at.quality.score) > 0.9
    off = tracking.rate(CONFIG, None, model(), se3(near_camera()), frames[0])
    assert bool(off.lost)
    assert float(off.quality.floating) > 0.5


def near_camera() -> np.ndarray:
    """The first pose, 4 cm nearer to the first camera, which sees through it."""
    moved = path()[0].copy()
    to = PLACES[0][4:] - moved[4:]
    moved[4:] += 0.04 * to / np.linalg.norm(to)
    return moved


def test_the_score_tells_what_the_object_does_not() -> None:
    """A round thing may turn unseen: known as an object, unknown as a pose."""
    truth = standing("cosmetics")
    moment = Moment(seen(truth, "cosmetics"), jnp.zeros(28))
    round_ = tracking.rate(CONFIG, None, model("cosmetics"), se3(truth), moment).quality
    assert float(round_.error) < 0.003
    assert float(round_.blind) > 0.1
    assert bool(quality.unobservable(CONFIG.limits, round_))
    moment = Moment(seen(standing()), jnp.zeros(28))
    toy = tracking.rate(CONFIG, None, model(), se3(standing()), moment).quality
    assert not bool(quality.unobservable(CONFIG.limits, toy))


def test_the_window_widens_while_it_is_lost(frames) -> None:
    state = tracking.init(se3(path()[0]), frames[0].phi)
    _, near = tracking.window(CONFIG, model(), state)
    _, wide = tracking.window(CONFIG, model(), dataclasses.replace(state, lost=jnp.array(True)))
    assert wide - near == pytest.approx(CONFIG.window[1] - CONFIG.window[0], abs=1e-6)


def test_observed_points_lie_on_the_object_and_cells_know_their_depth() -> None:
    truth = standing()
    view = seen(truth, count=4096)
    free = np.asarray(view.free)
    p = rigid.apply(rigid.inverse(truth), np.asarray(view.p_world, float)[free])
    the = model()
    p = p - np.asarray(the.p_object_middle, float)
    gap = np.linalg.norm(p[:, None] - np.asarray(the.p_middle), axis=-1).min(axis=1)
    assert gap.max() < 0.008  # between the model's points
    np.testing.assert_allclose(np.linalg.norm(view.v_world[free], axis=1), 1.0, atol=1e-5)
    z, known = (np.asarray(x) for x in observation.cells(view, view.p_world[free][:500]))
    # A point's own camera measured it, or something nearer in a cell beside.
    own = np.abs(z - known).min(axis=0)
    assert np.median(own) < 0.012
    inside = (known > 0.0) & (known > z + 0.012)
    assert not (inside.all(axis=0)).any()


def test_the_hands_points_are_not_free() -> None:
    hand = load("shadow")
    phi = np.zeros(28, np.float32)
    phi[:22] = np.clip(joints.REST, joints.LOWER, joints.UPPER)
    view = seen(standing())
    palm = np.asarray(view.p_world)[0]
    phi[22:25] = palm
    left = observation.without(view, hand, jnp.asarray(phi))
    assert int(left.free.sum()) < int(view.free.sum())
    phi[22:25] = [5.0, 0.0, 0.0]
    assert (observation.without(view, hand, jnp.asarray(phi)).free == view.free).all()


def test_pictures_that_do_not_fit_are_refused() -> None:
    shown = depths(standing())
    with pytest.raises(CaptureError, match="10 x 4 pixels; its lens has 208 x 160"):
        observation.observe({0: np.zeros((4, 10))}, LENSES, PLACES, np.zeros(3), 0.2)
    places = {c: PLACES[c] for c in range(3)}
    with pytest.raises(CaptureError, match=r"cameras \[3\] have no place"):
        observation.observe(shown, LENSES, places, np.zeros(3), 0.2)
    # A camera that saw nothing is no mistake.
    some = observation.observe({0: shown[0]}, LENSES, PLACES, standing()[4:], 0.2)
    assert int(some.free.sum()) > 100
    assert jax.tree.leaves(some)[0].shape == (4096, 3)
