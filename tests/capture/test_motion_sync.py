"""The robot's clock from clouds that are drawn from its own surface: offset and drift come back."""

import dataclasses

import numpy as np
import pytest

from capture import motion_sync, robot_surface
from capture.depth import View
from capture.motion_sync import RobotTrack, Seen
from capture.timesync import SyncError
from realdex_jax.data import rigid
from realdex_jax.hand.load import load
from sim.demonstrate import P_WORLD_BASE

HAND = load("shadow")
BASE = np.array([1.0, 0, 0, 0, *P_WORLD_BASE])
VIEWS = {0: np.array([0.8, 0.6, 0.8]), 1: np.array([0.4, -0.9, 0.7])}
LAG = {0: 0.0, 1: 160e-6}
OFFSET, DRIFT = 0.183, 80e-6
SECONDS = 60.0


def state(true_s: np.ndarray) -> np.ndarray:
    """Joints over time: an arm that sways at 0.1 to 0.3 m/s, fingers that close and open."""
    q = np.zeros((len(true_s), 30))
    q[:, :6] = [0.1, -1.2, 1.9, -0.8, 1.5, 0.2]
    q[:, 0] += 0.2 * np.sin(0.9 * true_s)
    q[:, 1] += 0.1 * np.sin(1.31 * true_s + 1.0)
    q[:, 8:] = 0.4 + 0.3 * np.sin(1.7 * true_s)[:, None]
    return q


@pytest.fixture(scope="module")
def track() -> RobotTrack:
    true_s = np.arange(-1.0, SECONDS + 1.0, 1 / 125)
    says = true_s + OFFSET + DRIFT * (true_s - 30.0)
    surface = robot_surface.surface(HAND, 0.008, with_arm=False)
    return RobotTrack(HAND, surface, says, state(true_s), BASE)


def look(k: int, still: float | None = None) -> dict[int, Seen]:
    """What two cameras see: the sides that face them, noise, a camera that is off, and clutter."""
    surface = robot_surface.surface(HAND, 0.005, with_arm=False)
    found = {}
    for c, p_view in VIEWS.items():
        rng = np.random.default_rng([k, c])
        moment = k / 15 + LAG[c] if still is None else still
        posed = robot_surface.place(HAND, surface, state(np.array([moment]))[0], BASE)
        away = p_view - posed.p_world
        away /= np.linalg.norm(away, axis=1, keepdims=True)
        facing = np.einsum("ni,ni->n", away, posed.normal_world) > 0.3
        facing &= rng.random(len(facing)) < 0.3
        p, n = posed.p_world[facing], posed.normal_world[facing]
        p = p + 0.001 * rng.normal(size=(len(p), 1)) * away[facing] + [0.001, -0.0008, 0.0]
        clutter = p[:200] + np.array([0.0, 0.0, 0.25])
        sigma = np.full(len(p) + 200, 0.001)
        found[c] = Seen(np.concatenate([p, clutter]), np.concatenate([n, n[:200]]), sigma)
    return found


@pytest.fixture(scope="module")
def found(track: RobotTrack) -> motion_sync.RobotSync:
    moments = np.arange(0, SECONDS, 1 / 15)
    return motion_sync.robot_clock(
        track, moments, look, lag_s=LAG, window_s=0.25, first=4, count=10
    )


def test_offset_and_drift_come_back(found: motion_sync.RobotSync) -> None:
    at = np.array([1.0, 30.0, 59.0])
    truth = at + OFFSET + DRIFT * (at - 30.0)
    # A millimetre of noise on a thousand points at 0.1 m/s, and a camera a millimetre off.
    np.testing.assert_allclose(found.robot_s(at), truth, atol=0.002)
    assert abs(found.drift_ppm - 1e6 * DRIFT) < max(4.0 * found.drift_error_ppm, 30.0)
    assert abs(found.first_s - OFFSET) < 0.06
    assert found.residual < 0.0015
    assert found.correlation > 0.9


def test_its_error_is_of_the_right_size(found: motion_sync.RobotSync) -> None:
    assert 2e-5 < found.offset_error_s < 0.002
    wrong = found.robot_s(np.array([30.0]))[0] - 30.0 - OFFSET
    assert abs(wrong) < 5.0 * found.offset_error_s + 0.0005
    assert (found.error_s(np.array([0.0, 60.0])) > found.offset_error_s).all()


@pytest.mark.slow
def test_a_later_robot_clock_is_found_later(track: RobotTrack) -> None:
    later = dataclasses.replace(track, time_s=track.time_s + 0.25)
    moments = np.arange(0, 20, 1 / 15)
    one, two = (
        motion_sync.robot_clock(t, moments, look, lag_s=LAG, first=4, count=6)
        for t in (track, later)
    )
    # Other moments are chosen, as the guess stays.
    assert two.offset_s - one.offset_s == pytest.approx(0.25, abs=0.003)


def test_what_a_camera_sees_is_brought_into_the_world() -> None:
    T = np.array([np.cos(0.3), np.sin(0.3), 0.0, 0.0, 1.0, 2.0, 3.0])
    p, n = np.array([[0.1, 0.2, 0.8]]), np.array([[0.0, 0.6, -0.8]])
    seen = motion_sync.seen_in_world(View(p, n, np.array([1e-3]), np.ones((1, 1), bool)), T)
    np.testing.assert_allclose(seen.p_world, rigid.apply(T, p), atol=1e-12)
    np.testing.assert_allclose(
        seen.normal_world, rigid.apply(T, p + n) - rigid.apply(T, p), atol=1e-12
    )


def test_what_tells_nothing_is_refused(track: RobotTrack) -> None:
    moments = np.arange(0, SECONDS, 1 / 15)
    still = dataclasses.replace(track, q=np.repeat(track.q[:1], len(track.q), axis=0))
    with pytest.raises(SyncError, match="moves at 0"):
        motion_sync.robot_clock(still, moments, look)
    whole = dataclasses.replace(track, surface=robot_surface.surface(HAND, 0.02))
    with pytest.raises(SyncError, match="arm"):
        motion_sync.robot_clock(whole, moments, look)
    with pytest.raises(SyncError, match="window"):
        motion_sync.robot_clock(track, moments, look, window_s=0.0)
    away = dataclasses.replace(track, wxyz_xyz_world_base=BASE + np.array([0, 0, 0, 0, 5.0, 0, 0]))
    with pytest.raises(SyncError, match="near the robot"):
        motion_sync.robot_clock(away, moments, look, first=3, count=3, window_s=0.1)
