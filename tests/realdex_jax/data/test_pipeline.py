import dataclasses
import os
import pathlib
import subprocess
import sys
import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from realdex_jax import pose
from realdex_jax.data import npz, object_files, pipeline, writer
from realdex_jax.data.pipeline import Item, Sampling
from realdex_jax.data.schema import GraspSet
from realdex_jax.errors import DatasetError
from realdex_jax.geometry import view
from realdex_jax.hand import joints


def item(seed: int) -> Item:
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=(400, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    q = rng.uniform(joints.LOWER, joints.UPPER, (20, 22))
    phi = np.concatenate([q, rng.normal(0, 0.08, (20, 3)), rng.normal(0, 1, (20, 3))], axis=1)
    points = normal * [0.03, 0.04, 0.08] + [0.1, 0.0, 0.05]
    return Item(f"ball{seed}", points, normal, phi.astype(np.float32))


ITEMS = tuple(item(i) for i in range(5))
SAMPLING = Sampling(objects=2, grasps=3, points=64)


def test_batches_follow_from_seed_and_index_alone():
    a, b = (pipeline.batches(ITEMS, SAMPLING, 7) for _ in range(2))
    later = b[11]  # asked out of order on purpose
    for i in range(12):
        batch = a[i]
    np.testing.assert_array_equal(batch.points, later.points)
    np.testing.assert_array_equal(batch.phi, later.phi)
    assert not np.array_equal(batch.points, pipeline.batches(ITEMS, SAMPLING, 8)[11].points)
    assert batch.points.shape == (2, 64, 3)
    assert batch.phi.shape == (2, 3, 28)


def test_an_epoch_shows_every_object_and_epochs_differ():
    data = pipeline.batches(ITEMS, dataclasses.replace(SAMPLING, objects=5), 0)
    first, second = data[0].item, data[1].item
    assert sorted(first) == sorted(second) == list(range(5))
    assert not np.array_equal(first, second)
    other = pipeline.batches(ITEMS, dataclasses.replace(SAMPLING, objects=5), 1)[0].item
    assert not np.array_equal(first, other)
    # Batches that do not divide an epoch go on in the next.
    pairs = pipeline.batches(ITEMS, SAMPLING, 0)
    np.testing.assert_array_equal(np.ravel([pairs[i].item for i in range(5)]), [*first, *second])


def test_clouds_are_centred():
    batch = pipeline.batches(ITEMS, SAMPLING, 0)[0]
    np.testing.assert_allclose(batch.points.mean(axis=1), 0.0, atol=1e-6)


def test_partial_clouds_are_what_a_camera_measures(monkeypatch):
    """Each comes from one camera in reach: only points that face it, off by its noise."""
    source, cameras = ITEMS[0], []
    seen_from = view.seen_from

    def spy(points, normals, p_view, spacing):
        cameras.append(p_view)
        assert spacing == view.spacing_of(points)
        return seen_from(points, normals, p_view)

    monkeypatch.setattr(pipeline.view, "seen_from", spy)
    sampling = Sampling(points=100, grasps=1, turn=False, tilt=0.0, jitter=0.0, partial=1.0)
    middle = source.points.mean(axis=0)
    radius = np.linalg.norm(source.points - middle, axis=1).max()
    errors = []
    for seed in range(8):
        (points,), (phi,) = pipeline.draw([source], sampling, np.random.default_rng(seed))
        # Nothing turns here: a palm tells where the cloud's middle was put.
        shifts = source.phi[:, 22:25] - phi[0, 22:25]
        own = np.argmin(np.abs(source.phi[:, :22] - phi[0, :22]).sum(axis=1))
        points = points + shifts[own]
        assert view.DISTANCE[0] <= np.linalg.norm(cameras[-1] - middle) - radius
        assert np.linalg.norm(cameras[-1] - middle) - radius <= view.DISTANCE[1]
        error, nearest = KDTree(source.points).query(points)
        toward = cameras[-1] - source.points[nearest]
        facing = np.einsum("ni,ni->n", toward, source.normals[nearest]) > 0
        assert facing.mean() > 0.98  # a noisy point may be nearer to another
        errors.append(error)
    assert len(np.unique(np.round(cameras, 6), axis=0)) == 8
    # One-sided normal noise of 0.5 to 0.9 mm or more at a slant, less where neighbours are nearer.
    assert 0.0003 < np.concatenate(errors).mean() < 0.0015


def test_whole_clouds_are_left_alone():
    sampling = Sampling(points=400, grasps=1, turn=False, tilt=0.0, jitter=0.0, partial=0.0)
    (points,), _ = pipeline.draw(ITEMS[:1], sampling, np.random.default_rng(0))
    centred = ITEMS[0].points - ITEMS[0].points.mean(axis=0)
    np.testing.assert_allclose(KDTree(centred).query(points)[0], 0.0, atol=1e-6)


def test_where_next_to_nothing_is_seen_all_points_stay(monkeypatch):
    monkeypatch.setattr(pipeline.view, "noisy", lambda points, *rest: points[:15])
    sampling = Sampling(points=400, grasps=1, turn=False, tilt=0.0, jitter=0.0, partial=1.0)
    (points,), _ = pipeline.draw(ITEMS[:1], sampling, np.random.default_rng(0))
    centred = ITEMS[0].points - ITEMS[0].points.mean(axis=0)
    np.testing.assert_allclose(np.sort(points, axis=0), np.sort(centred, axis=0), atol=1e-6)


@pytest.mark.parametrize("tilt", [0.2, np.inf])
def test_augmentation_moves_hand_and_object_together(tilt):
    sampling = Sampling(points=400, grasps=20, jitter=0.0, partial=0.0, tilt=tilt)
    source = ITEMS[0]
    # Without replacement all points and grasps come back, in some order: compare what does not
    # depend on the frame, the distances of palms to the nearest and farthest point.
    (points,), (phi,) = pipeline.draw([source], sampling, np.random.default_rng(0))

    def ranges(p, t):
        d = np.linalg.norm(p[None] - t[:, None], axis=-1)
        return np.sort(d.min(1)), np.sort(d.max(1))

    for a, b in zip(
        ranges(points, phi[:, 22:25]), ranges(source.points, source.phi[:, 22:25]), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)


def turned(sampling, count=3000):
    """Rotations of as many draws, told by grasps whose joints say which they are."""
    _, phi = pipeline.draw([ITEMS[0]] * count, sampling, np.random.default_rng(0))
    source = ITEMS[0].phi
    own = np.abs(source[:, :22] - phi[:, :1, :22]).sum(axis=2).argmin(axis=1)
    before = Rotation.from_rotvec(source[own, 25:28])
    return own, Rotation.from_rotvec(phi[:, 0, 25:28]) * before.inv()


def agrees(values, distribution):
    """Whether values may be of a distribution; with the seed fixed, chance has no say."""
    return stats.kstest(values, distribution.cdf).pvalue > 0.001


def test_rotations_are_drawn_as_the_settings_say():
    plain = Sampling(points=16, grasps=1, tilt=0.0, partial=0.0)
    own, turn = turned(plain)
    about = turn.as_rotvec()
    np.testing.assert_allclose(about[:, :2], 0.0, atol=1e-5)
    assert agrees(about[:, 2], stats.uniform(-np.pi, 2 * np.pi))
    assert stats.chisquare(np.bincount(own, minlength=20)).pvalue > 0.001  # every grasp as often
    _, tilt = turned(dataclasses.replace(plain, turn=False, tilt=0.2))
    assert agrees(tilt.magnitude(), stats.halfnorm(0, 0.2))
    for k in range(3):  # a coordinate of points spread evenly over a ball is uniform
        assert agrees(tilt.as_rotvec()[:, k] / tilt.magnitude(), stats.uniform(-1, 2))
    _, both = turned(dataclasses.replace(plain, tilt=0.2))
    tilted = both.apply([0.0, 0.0, 1.0])
    assert agrees(np.arctan2(tilted[:, 1], tilted[:, 0]), stats.uniform(-np.pi, 2 * np.pi))
    _, anywhere = turned(dataclasses.replace(plain, tilt=np.inf))
    for k in range(3):
        assert agrees(anywhere.apply([0.0, 0.0, 1.0])[:, k], stats.uniform(-1, 2))


def test_points_are_drawn_evenly_and_jittered_as_the_settings_say():
    grid = 0.02 * np.stack(np.meshgrid(*[np.arange(4)] * 3), axis=-1).reshape(-1, 3)
    still = np.zeros((1, 28), np.float32)
    apart = Item("grid", grid - grid.mean(axis=0), ITEMS[0].normals[:64], still)
    plain = Sampling(points=32, grasps=1, turn=False, tilt=0.0, jitter=0.001, partial=0.0)
    points, phi = pipeline.draw([apart] * 400, plain, np.random.default_rng(0))
    # Nothing turns, and the one palm is at the object's origin.
    seen = points - phi[:, :, 22:25]
    offset, nearest = KDTree(apart.points).query(seen)
    assert stats.chisquare(np.bincount(nearest.ravel(), minlength=64)).pvalue > 0.001
    assert all(len(set(row)) == 32 for row in nearest.tolist())
    assert agrees(offset.ravel() / 0.001, stats.chi(3))


def test_the_share_of_partial_clouds_is_that_of_the_settings(monkeypatch):
    seen = []
    monkeypatch.setattr(pipeline, "_measured", lambda item, rng: seen.append(1) or item.points)
    pipeline.draw([ITEMS[0]] * 1000, SAMPLING, np.random.default_rng(0))
    assert stats.binomtest(len(seen), 1000, SAMPLING.partial).pvalue > 0.001


def test_transform_is_the_group_action():
    R = Rotation.from_rotvec([[0.3, -0.8, 1.9], [0.0, 0.0, 2.5]])
    phi = np.stack([ITEMS[1].phi, ITEMS[2].phi])
    _, T = pose.split(jnp.asarray(phi))
    moved = pipeline.transform(phi, R)
    _, T_moved = pose.split(jnp.asarray(moved))
    expected = np.einsum("bij,bkjl->bkil", R.as_matrix(), T.as_matrix()[..., :3, :])
    np.testing.assert_allclose(T_moved.as_matrix()[..., :3, :], expected, atol=1e-5)
    np.testing.assert_array_equal(moved[..., :22], phi[..., :22])


def stored(tmp_path, count=6, few=()):
    """A dataset whose objects have 20 grasps, or one."""
    with writer.Writer(tmp_path / "d") as target:
        for i in range(count):
            one = item(i)
            phi = one.phi[: 1 if i in few else None]
            surface = object_files.Surface(
                one.points.astype(np.float32), one.normals.astype(np.float32)
            )
            target.add(f"o{i}", grasps=GraspSet(phi, phi[:, :22], phi[:, :22]), surface=surface)
        names = [f"o{i}" for i in range(count)]
        return target.finish(name="tiny", version="1", splits={"train": names}, recipe={})


def test_objects_read_when_they_are_drawn_are_those_read_before(tmp_path):
    data = stored(tmp_path)
    lazy = pipeline.Stored(data, "train", kept=2)
    eager = [
        pipeline.Item(n, data.surface(n).points, data.surface(n).normals, data.grasps(n).phi)
        for n in data.splits["train"]
    ]
    assert len(lazy) == len(eager) == 6
    for name in data.objects:
        np.testing.assert_array_equal(data.poses(name), data.grasps(name).phi)
    one, other = (pipeline.batches(s, SAMPLING, 3) for s in (lazy, eager))
    for i in (0, 7, 2):
        np.testing.assert_array_equal(one[i].points, other[i].points)
        np.testing.assert_array_equal(one[i].phi, other[i].phi)
    assert [i.name for i in lazy] == [i.name for i in eager]
    assert [i.name for i in lazy[1:3]] == ["o1", "o2"]
    for a, b in zip(
        pipeline.translation_statistics(lazy), pipeline.translation_statistics(eager), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(DatasetError, match="no objects in part 'dev'"):
        pipeline.Stored(data, "dev")


def test_poses_that_break_the_rules_are_refused(tmp_path):
    data = stored(tmp_path)
    with pytest.raises(DatasetError, match="no object 'x' in tiny"):
        data.poses("x")
    arrays = npz.read(data.path / "grasps" / "o0.npz")
    path = data.path / "grasps" / "o0.npz"
    for changed, message in (
        ({"phi": arrays["phi"] + 10.0}, r"o0\.npz: phi of grasp \d+: .* its limits are"),
        ({"phi": arrays["phi"] * np.nan}, r"o0\.npz: phi of grasp 0 is not finite \(20 such\)"),
        ({"phi": arrays["phi"][:, :27]}, r"o0\.npz: phi has shape \(20, 27\); .* \(20, 28\)"),
        ({"phi": arrays["phi"][0]}, r"o0\.npz: phi has shape \(28,\)"),
        ({"phi": np.zeros((20, 28), "U1")}, r"o0\.npz: phi holds <U1; only numbers"),
        ({"psi": arrays["phi"]}, r"o0\.npz lacks phi"),
    ):
        path.write_bytes(npz.encode(changed))
        with pytest.raises(DatasetError, match=message):
            data.poses("o0")


def test_bad_objects_are_skipped_and_counted_or_fatal(tmp_path, caplog):
    data = stored(tmp_path, few=(4,))
    for name in ("o1", "o2"):
        path = data.path / "grasps" / f"{name}.npz"
        path.write_bytes(path.read_bytes()[:100])
    lazy = pipeline.Stored(data, "train", minimum=2)
    assert [i.name for i in lazy] == ["o0", "o3", "o3", "o3", "o5", "o5"]
    assert sorted(lazy.skipped) == ["o1", "o2"]  # too few grasps are no fault
    assert "o1.npz is not a readable" in lazy.skipped["o1"]
    assert "skipped o1 (1 so far)" in caplog.text
    batch = pipeline.batches(lazy, SAMPLING, 0)[3]
    assert np.isfinite(batch.phi).all()
    with pytest.raises(DatasetError, match=r"o1\.npz is not a readable"):
        pipeline.Stored(data, "train", strict=True)[1]
    for path in (data.path / "objects").rglob("points.npz"):
        path.unlink()
    with pytest.raises(DatasetError, match="no object of tiny can be used; first: "):
        pipeline.Stored(data, "train")[0]


def test_an_iterator_goes_on_where_its_state_says(tmp_path):
    lazy = pipeline.Stored(stored(tmp_path), "train")
    data = pipeline.batches(lazy, SAMPLING, 5)
    iterator = iter(pipeline.in_processes(data, 0))
    for _ in range(3):
        next(iterator)
    state = iterator.get_state()
    expected = [next(iterator) for _ in range(4)]
    again = iter(pipeline.in_processes(pipeline.batches(lazy, SAMPLING, 5), 0))
    again.set_state(state)
    for i, batch in enumerate(expected):
        found = next(again)
        np.testing.assert_array_equal(found.points, batch.points)
        np.testing.assert_array_equal(found.phi, data[3 + i].phi)


@pytest.mark.slow
def test_processes_make_the_same_batches_and_resume_as_exactly(tmp_path):
    code = """
import sys
import numpy as np
from realdex_jax.data import object_files, pipeline, store, writer
from realdex_jax.data.pipeline import Sampling

if __name__ == "__main__":
    data = store.open_dataset(sys.argv[1])
    sampling = Sampling(objects=2, grasps=3, points=64)
    made = pipeline.batches(pipeline.Stored(data, "train"), sampling, 5)
    iterator = iter(pipeline.in_processes(made, 2))
    for i in range(5):
        np.testing.assert_array_equal(next(iterator).phi, made[i].phi)
    state = iterator.get_state()
    iterator.close()
    again = iter(pipeline.in_processes(made, 2))
    again.set_state(state)
    for i in range(5, 12):
        np.testing.assert_array_equal(next(again).phi, made[i].phi)
    again.close()
    lazy = pipeline.Stored(data, "train")
    broken = data.path / "grasps" / "o1.npz"
    broken.write_bytes(broken.read_bytes()[:100])
    iterator = iter(pipeline.in_processes(pipeline.batches(lazy, sampling, 5), 2, lazy))
    found = [next(iterator).phi for _ in range(6)]
    iterator.close()
    assert list(lazy.skipped) == ["o1"] and "not a readable" in lazy.skipped["o1"], lazy.skipped
    alone = pipeline.batches(pipeline.Stored(data, "train"), sampling, 5)
    for i in range(6):
        np.testing.assert_array_equal(found[i], alone[i].phi)
    print("same")
"""
    data = stored(tmp_path)
    script = tmp_path / "same.py"
    script.write_text(code)
    root = pathlib.Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, script, data.path],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["same"], done.stderr


@pytest.mark.slow
@pytest.mark.long
def test_memory_stays_flat_over_many_batches(tmp_path):
    lazy = pipeline.Stored(stored(tmp_path, 40), "train", kept=8)
    data = pipeline.batches(lazy, SAMPLING, 0)
    for i in range(300):
        data[i]
    tracemalloc.start()
    for i in range(300, 600):
        data[i]
    before = tracemalloc.get_traced_memory()[0]
    for i in range(600, 3000):
        data[i]
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 200_000  # less than two objects
