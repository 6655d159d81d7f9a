"""Annotations: what a correction changes and what not, going on after a stop, files."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from object_views import away, model, pose, se3

from capture import annotation, symmetry, tracking
from capture.annotation import BY_HAND, FOLLOWED, UNKNOWN, Annotation, Follower
from capture.device import CaptureError
from capture.quality import Quality
from capture.tracking import Tracked, TrackingConfig
from realdex_jax.data import realdex_raw, realdex_write
from realdex_jax.errors import DatasetError

COUNT = 10
NONE = symmetry.Symmetry(np.zeros(3), np.eye(3)[None], np.zeros((0, 3)))


def true_pose(frame: int) -> np.ndarray:
    return pose([0.0, 0.0, 0.05 * frame], [0.02 * frame, 0.0, 0.1])


class Sure(Follower):
    """Knows the truth, but sees nothing in some frames; counts what it is asked."""

    def __init__(self, dark=(), off=0.0) -> None:
        super().__init__(TrackingConfig(), None, model(), NONE, lambda *_: None)
        object.__setattr__(self, "dark", frozenset(dark))
        object.__setattr__(self, "off", np.array([0.0, 0.0, 0.0, 0.0, off, 0.0, 0.0]))
        object.__setattr__(self, "asked", [])

    def begin(self, frame, pose):
        return tracking.init(se3(pose), jnp.zeros(28)), self._tracked(frame, se3(pose))

    def step(self, state, frame):
        self.asked.append(frame)
        tracked = self._tracked(frame, se3(true_pose(frame) + self.off))
        return state, tracked

    def _tracked(self, frame, T) -> Tracked:
        lost = frame in self.dark
        score = jnp.float32(0.1 if lost else 0.9)
        return Tracked(T, Quality(*([score] * 7)), jnp.array(lost))


def done(steps) -> Annotation:
    return list(steps)[-1]


def whole(dark=()) -> Annotation:
    return done(annotation.correct(annotation.empty(COUNT), 0, true_pose(0), Sure(dark)))


def test_the_first_pose_leads_through_all_frames() -> None:
    follower = Sure(dark=(4, 5))
    found = done(annotation.correct(annotation.empty(COUNT), 3, true_pose(3), follower))
    assert follower.asked == [4, 5, 6, 7, 8, 9, 2, 1, 0]
    assert found.origin.tolist() == [FOLLOWED] * 3 + [BY_HAND] + [FOLLOWED] * 6
    assert found.flagged().tolist() == [4, 5]
    for k in range(COUNT):
        assert away(found.wxyz_xyz_world_object[k], true_pose(k))[0] < 1e-3
    with pytest.raises(CaptureError, match="frame 10; there are 10, counted from 0"):
        done(annotation.correct(found, 10, true_pose(0), follower))
    with pytest.raises(CaptureError, match="annotation of 0 frames"):
        annotation.empty(0)


def test_a_correction_goes_both_ways_to_the_next_good_frame() -> None:
    before = whole(dark=(4, 5, 6))
    follower = Sure()
    after = done(annotation.correct(before, 5, true_pose(5), follower))
    # 6 and 4 are mended; 7 and 3 are good and agree, so what lies behind them is not asked.
    assert follower.asked == [6, 7, 4, 3]
    assert after.flagged().tolist() == []
    assert after.origin[5] == BY_HAND


def test_a_good_frame_stays_where_the_new_track_is_lost_and_yields_where_it_is_contradicted() -> (
    None
):
    before = whole(dark=(5,))
    lost = Sure(dark=(6, 4))
    after = done(annotation.correct(before, 5, true_pose(5), lost))
    assert lost.asked == [6, 4]
    np.testing.assert_array_equal(after.score[[4, 6]], before.score[[4, 6]])
    # By hand it is 2 cm off from what all frames had: it is right, and so is what follows from it.
    other = Sure(off=0.02)
    after = done(annotation.correct(before, 5, true_pose(5) + other.off, other))
    assert other.asked == [6, 7, 8, 9, 4, 3, 2, 1]
    assert away(after.wxyz_xyz_world_object[8], true_pose(8))[0] == pytest.approx(20.0, abs=0.01)
    # The first frame was set by hand as well, and is not touched.
    assert away(after.wxyz_xyz_world_object[0], true_pose(0))[0] < 1e-3


def test_stopped_and_gone_on_is_as_gone_through() -> None:
    steps = annotation.correct(annotation.empty(COUNT), 4, true_pose(4), Sure())
    stopped = [next(steps) for _ in range(4)][-1]
    assert (stopped.origin == UNKNOWN).sum() == 6
    assert set(stopped.flagged()) == set(np.flatnonzero(stopped.origin == UNKNOWN))
    through = done(annotation.correct(annotation.empty(COUNT), 4, true_pose(4), Sure()))
    gone_on = done(annotation.resume(stopped, Sure()))
    np.testing.assert_allclose(gone_on.wxyz_xyz_world_object, through.wxyz_xyz_world_object)
    np.testing.assert_array_equal(gone_on.origin, through.origin)
    assert list(annotation.resume(through, Sure())) == []


class Turned(Sure):
    """Hidden for a while, and then seen the wrong way round: as the tracker, it knows that only as
    long as it knows how the object was before."""

    def begin(self, frame, pose):
        self.asked.append(-frame)
        return tracking.init(se3(pose), jnp.zeros(28)), self._tracked(frame, se3(pose))

    def step(self, state, frame):
        self.asked.append(frame)
        T = se3(true_pose(frame)) if frame < 5 else se3(true_pose(frame)) @ se3(TURN)
        turned = away(state.T_world_object_good, T)[1] > 90.0
        tracked = self._tracked(frame, T)
        lost = bool(tracked.lost) or turned
        good = state.T_world_object_good if lost else T
        state = dataclasses.replace(state, T_world_object_good=good, lost=jnp.array(lost))
        return state, dataclasses.replace(tracked, lost=jnp.array(lost))


TURN = pose([np.pi, 0.0, 0.0], [0.0, 0.0, 0.0])


@pytest.mark.parametrize("frames", [5, 6, 7, 8])
def test_stopped_while_it_is_lost_it_stays_flagged(tmp_path, frames) -> None:
    """Gone on with from a pose found while it was lost, the wrong side would be trusted."""
    steps = annotation.correct(annotation.empty(COUNT), 0, true_pose(0), Turned(dark=(4, 5)))
    stopped = [next(steps) for _ in range(frames)][-1]
    annotation.save(tmp_path, stopped, "toy")
    loaded = annotation.load(tmp_path, COUNT)
    assert loaded is not None
    follower = Turned(dark=(4, 5))
    found = done(annotation.resume(loaded, follower))
    assert found.flagged().tolist() == [4, 5, 6, 7, 8, 9]
    assert follower.asked == [-3, 4, 5, 6, 7, 8, 9]


def test_where_it_was_never_seen_well_nothing_is_gone_on_with() -> None:
    stopped = done(annotation.correct(annotation.empty(COUNT), 0, true_pose(0), Sure()))
    origin = np.where(np.arange(COUNT) < 3, FOLLOWED, UNKNOWN).astype(np.uint8)
    lost = np.arange(COUNT) < 3
    stopped = dataclasses.replace(stopped, origin=origin, lost=lost)
    assert list(annotation.resume(stopped, Sure())) == []
    assert stopped.flagged().tolist() == list(range(COUNT))
    # A pose by hand is right, whatever its score.
    by_hand = dataclasses.replace(stopped, origin=np.where(origin == FOLLOWED, BY_HAND, origin))
    assert done(annotation.resume(by_hand, Sure())).flagged().tolist() == []


def test_files_read_back_here_and_as_the_release(tmp_path) -> None:
    found = whole(dark=(2,))
    scene = realdex_write.Scene(np.arange(COUNT) * 10**8, {}, None, np.eye(7)[0])
    realdex_write.write_recording(tmp_path, scene, (), lambda *_: pytest.fail("no picture"))
    assert annotation.load(tmp_path, COUNT) is None
    annotation.save(tmp_path, found, "toy")
    again = annotation.load(tmp_path, COUNT)
    assert again is not None
    np.testing.assert_allclose(again.wxyz_xyz_world_object, found.wxyz_xyz_world_object, atol=1e-12)
    np.testing.assert_array_equal(again.origin, found.origin)
    np.testing.assert_array_equal(again.lost, found.lost)
    np.testing.assert_allclose(again.score, found.score, atol=1e-4)
    assert json.loads((tmp_path / annotation.FILE).read_text())["flagged"] == [2]
    poses, tracked = realdex_raw.Recording(tmp_path).object_track()
    assert tracked.all()
    np.testing.assert_allclose(poses, found.wxyz_xyz_world_object, atol=1e-12)


def test_unknown_frames_are_filled_or_left_out_of_the_releases_file(tmp_path) -> None:
    found = annotation.empty(4)
    assert found.filled().shape == (0, 7)
    annotation.save(tmp_path, found, "toy")
    assert not (tmp_path / realdex_raw.TRACK).exists()
    steps = annotation.correct(annotation.empty(COUNT), 4, true_pose(4), Sure())
    found = [next(steps) for _ in range(2)][-1]
    filled = found.filled()  # 4 and 5 are known
    assert len(filled) == 6
    np.testing.assert_allclose(filled[0], found.wxyz_xyz_world_object[4])


def test_poses_of_others_and_damaged_files_are_refused(tmp_path) -> None:
    realdex_write.write_track(tmp_path, np.repeat(np.eye(7)[:1], 3, axis=0))
    with pytest.raises(CaptureError, match=r"poses of another origin.*--replace"):
        annotation.load(tmp_path, 3)
    annotation.save(tmp_path, whole(), "toy")
    with pytest.raises(CaptureError, match=r"of 10 frames; must be .* of 3"):
        annotation.load(tmp_path, 3)
    path = tmp_path / annotation.FILE
    good = json.loads(path.read_text())
    for key, value, error, message in (
        ("format", "pickle", CaptureError, "must be 'realdex_jax.annotation/1'"),
        ("lost", [10], CaptureError, "lost must be a list of frames, 0 to 9"),
        ("by_hand", None, CaptureError, "by_hand must be a list of frames"),
        ("score", [0.5], DatasetError, "must be 10 finite numbers"),
        ("T_world_object", [[1.0] * 7] * 10, DatasetError, "quaternion of row 1 has length 2"),
        ("T_world_object", [], CaptureError, "T_world_object must be a list of 10"),
    ):
        path.write_text(json.dumps({**good, key: value}))
        with pytest.raises(error, match=message):
            annotation.load(tmp_path, COUNT)
