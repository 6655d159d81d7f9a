"""Sets of motions and their training windows."""

import dataclasses

import jax
import numpy as np
import pytest

from realdex_jax.data import motion_set, windows
from realdex_jax.data.motion import Motion
from realdex_jax.errors import DatasetError
from realdex_jax.hand import joints


def motion(frames, rng):
    share = rng.uniform(0.2, 0.8, (frames, 22))
    phi = np.zeros((frames, 28), np.float32)
    phi[:, :22] = joints.LOWER + share * (joints.UPPER - joints.LOWER)
    phi[:, 22:] = rng.normal(size=(frames, 6)) * 0.3
    world = np.tile(np.eye(1, 7, dtype=np.float32), (frames, 1))
    return Motion(np.arange(frames, dtype=np.float32) / 15.0, phi, world)


@pytest.fixture
def motions(rng):
    found = [motion(n, rng) for n in (9, 20, 14)]
    return motion_set.collect(found, ["cup", "jar", "cup"], np.zeros((3, 22)))


def test_a_set_gives_back_its_motions(motions, rng):
    assert len(motions) == 3
    assert motions.names == ("cup", "jar")
    assert [motions.name(i) for i in range(3)] == ["cup", "jar", "cup"]
    np.testing.assert_array_equal(motions.lengths(), [9, 20, 14])
    assert len(motions.motion(1)) == 20
    np.testing.assert_array_equal(motions.motion(2).phi, motions.phi[29:43])
    some = motion_set.take(motions, np.array([2, 0]))
    np.testing.assert_array_equal(some.poses(0), motions.poses(2))
    both = motion_set.join([some, motions])
    assert len(both) == 5
    np.testing.assert_array_equal(both.poses(3), motions.poses(1))
    assert both.name(3) == "jar"


def test_a_file_of_motions_is_read_as_written(motions, tmp_path):
    path = motion_set.save(tmp_path / "folder" / "m.npz", motions)
    again = motion_set.load(path)
    for field in dataclasses.fields(motions):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(motions, field.name))
    assert [p.name for p in path.parent.iterdir()] == ["m.npz"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"format": np.array("other")}, "not a file of motions"),
        ({"phi": np.zeros((3, 28), np.float32)}, "phi has shape"),
        ({"q_squeeze": np.full((3, 22), np.nan, np.float32)}, "q_squeeze is not finite"),
        ({"first": np.array([0, 3, 29, 43])}, "at least 6 frames"),
        ({"target": np.array([0, 1, 7], np.int32)}, "not named"),
    ],
)
def test_spoilt_files_of_motions_are_refused(motions, tmp_path, spoil, message):
    path = motion_set.save(tmp_path / "m.npz", motions)
    with np.load(path) as archive:
        arrays = {**archive, **spoil}
    np.savez(path, **arrays)
    with pytest.raises(DatasetError, match=message):
        motion_set.load(path)


def test_motions_beyond_limits_or_too_short_are_refused(rng):
    bad = motion(9, rng)
    np.asarray(bad.phi)[4, 3] = 9.0
    with pytest.raises(DatasetError, match="FFJ1"):
        motion_set.collect([bad], ["cup"], np.zeros((1, 22)))
    with pytest.raises(DatasetError, match="5 frames"):
        motion_set.collect([motion(5, rng)], ["cup"], np.zeros((1, 22)))
    with pytest.raises(DatasetError, match="no motions"):
        motion_set.collect([], [], np.zeros((0, 22)))


def test_windows_rest_before_the_start_and_after_the_end(motions):
    w = windows.at(motions, np.array([1, 1, 0]), np.array([0, 18, 7]))
    assert w.seen.shape == (3, 6, 28)
    assert w.coming.shape == (3, 10, 28)
    phi = motions.poses(1)
    np.testing.assert_array_equal(w.seen[0], np.repeat(phi[:1], 6, 0))
    np.testing.assert_array_equal(w.coming[0], phi[1:11])
    np.testing.assert_array_equal(w.seen[1], phi[13:19])
    np.testing.assert_array_equal(w.coming[1], np.repeat(phi[-1:], 10, 0))
    np.testing.assert_array_equal(w.goal[2], motions.poses(0)[-1])
    np.testing.assert_allclose(w.phase, [0.0, 18 / 19, 7 / 8])
    np.testing.assert_allclose(w.phase + w.step, [1 / 19, 1.0, 1.0])


def test_batches_repeat_by_number_and_cover_all_motions(motions):
    a, b = (windows.batch(motions, 64, 3, 5) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    other = windows.batch(motions, 64, 3, 6)
    assert not np.array_equal(a.seen, other.seen)
    seen = np.concatenate([windows.batch(motions, 64, 0, i).target for i in range(10)])
    # A frame is as likely as any: 20 of 43 are the jar's; four standard deviations of 640 draws.
    assert abs((seen == 1).mean() - 20 / 43) < 4 * 0.5 / np.sqrt(640)


def test_noise_moves_what_is_seen_and_its_speed_and_leaves_the_rest(motions):
    w = windows.batch(motions, 400, 0, 0)
    w = jax.tree.map(np.asarray, w)
    moved = windows.shaken(jax.random.key(0), w, 0.02)
    off = np.asarray(moved.seen)[..., :25] - w.seen[..., :25]
    # At present one offset (sd 0.02 rad, 0.004 m) and a tenth of it more; five frames ago an
    # independent offset of twice the size is added to it.
    now, before = off[:, -1], off[:, 0]
    assert abs(now[:, :22].std() / 0.02 - 1) < 0.05
    assert abs(now[:, 22:].std() / 0.004 - 1) < 0.1
    assert abs((before - now)[:, :22].std() / 0.04 - 1) < 0.05
    # It fades evenly: what is left beside a line is the tenth.
    bend = off[:, 2, :22] - 0.5 * (off[:, 1, :22] + off[:, 3, :22])
    assert abs(bend.std() / (0.002 * np.sqrt(1.5)) - 1) < 0.05
    np.testing.assert_array_equal(moved.coming, w.coming)
    np.testing.assert_array_equal(moved.goal, w.goal)
