"""Datasets written object by object, with motions, and read in place."""

import json
import tracemalloc

import numpy as np
import pytest

from realdex_jax.data import motion_set, object_files, store, writer
from realdex_jax.data.motion import Motion
from realdex_jax.data.schema import GraspSet
from realdex_jax.errors import DatasetError
from realdex_jax.hand import joints

SPLITS = {"train": ["cup", "can"], "val": [], "test": ["tub"]}


def grasps(n, seed=0):
    rng = np.random.default_rng(seed)
    q = rng.uniform(joints.LOWER, joints.UPPER, (n, 22))
    phi = np.concatenate([q, rng.normal(0, 0.05, (n, 6))], axis=1).astype(np.float32)
    return GraspSet(phi, phi[:, :22], phi[:, :22], {"depth": rng.uniform(size=n)})


def motions(name, frames=(8, 11)):
    rng = np.random.default_rng(3)
    found = []
    for t in frames:
        phi = np.zeros((t, 28), np.float32)
        phi[:, :22] = rng.uniform(joints.LOWER, joints.UPPER, (t, 22))
        world = np.tile(np.eye(1, 7, dtype=np.float32), (t, 1))
        found.append(Motion(np.arange(t, dtype=np.float32) / 15.0, phi, world))
    return motion_set.collect(found, [name] * len(found), np.zeros((len(found), 22)))


def surface(seed=0):
    rng = np.random.default_rng(seed)
    n = rng.normal(size=(64, 3))
    n /= np.linalg.norm(n, axis=1, keepdims=True)
    return object_files.Surface((0.04 * n).astype(np.float32), n.astype(np.float32))


def write(path, version="1"):
    with writer.Writer(path) as target:
        target.add("cup", grasps=grasps(12), surface=surface(), motions=motions("cup"))
        target.add("can", grasps=grasps(5, 1), surface=surface(1))
        target.add("tub", surface=surface(2))
        return target.finish(name="tiny", version=version, splits=SPLITS, recipe={"seed": 0})


def test_what_is_added_comes_back(tmp_path):
    data = write(tmp_path / "d")
    store.verify(data)
    np.testing.assert_array_equal(data.grasps("cup").phi, grasps(12).phi)
    np.testing.assert_array_equal(data.grasps("cup").columns["depth"], grasps(12).columns["depth"])
    assert len(data.grasps("tub")) == 0
    np.testing.assert_array_equal(data.motions("cup").phi, motions("cup").phi)
    assert data.moving == {"cup"}
    with pytest.raises(DatasetError, match=r"no motions for 'can'; it has some for cup"):
        data.motions("can")
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_both_ways_of_writing_hold_the_same(tmp_path):
    one = write(tmp_path / "a")
    other = store.write_dataset(
        tmp_path / "b",
        name="tiny",
        version="1",
        grasps={"cup": grasps(12), "can": grasps(5, 1), "tub": object_files.NO_GRASPS},
        splits=SPLITS,
        recipe={"seed": 0},
        surfaces={"cup": surface(), "can": surface(1), "tub": surface(2)},
        motions={"cup": motions("cup")},
    )
    assert one.digests.keys() == other.digests.keys()
    assert one.splits == other.splits
    for name in one.objects:
        np.testing.assert_array_equal(one.grasps(name).phi, other.grasps(name).phi)
        np.testing.assert_array_equal(one.surface(name).points, other.surface(name).points)
    np.testing.assert_array_equal(one.motions("cup").phi, other.motions("cup").phi)
    assert write(tmp_path / "c").digest == one.digest


def test_poses_stay_on_the_disk(tmp_path):
    data = write(tmp_path / "d")
    mapped = data.grasps("cup", mapped=True)
    assert not np.asarray(mapped.phi).flags.owndata
    assert not np.asarray(mapped.phi).flags.writeable
    np.testing.assert_array_equal(mapped.phi, data.grasps("cup").phi)


def test_joint_order_of_the_file_is_honoured_in_motions(tmp_path):
    data = write(tmp_path / "d")
    order = np.random.default_rng(0).permutation(22)
    path = data.path / "motions" / "cup.npz"
    found = dict(np.load(path))
    found["phi"] = np.concatenate([found["phi"][:, :22][:, order], found["phi"][:, 22:]], axis=1)
    found["q_squeeze"] = found["q_squeeze"][:, order]
    index = json.loads((data.path / "dataset.json").read_text())
    index["joints"] = [joints.NAMES[i] for i in order]
    (data.path / "dataset.json").write_text(json.dumps(index))
    # The file itself is checked before it is reordered: limits differ from joint to joint.
    found["phi"][:, :22] = 0.0
    found["phi"][:, 0] = 0.1
    np.savez(path, **found)
    got = store.open_dataset(data.path).motions("cup").phi
    assert (got[:, order[0]] == np.float32(0.1)).all()
    assert (np.delete(got[:, :22], order[0], axis=1) == 0).all()


def test_memory_does_not_grow_with_the_dataset(tmp_path):
    names = [f"o{i}" for i in range(60)]
    one = grasps(2000)  # 0.4 MB a file
    tracemalloc.start()
    with writer.Writer(tmp_path / "d") as target:
        for name in names:
            target.add(name, grasps=one)
        peak = tracemalloc.get_traced_memory()[1]
        target.finish(name="big", version="1", splits={"train": names}, recipe={})
    tracemalloc.stop()
    assert peak < 6e6


def test_an_unfinished_or_failed_write_leaves_the_old_dataset(tmp_path):
    write(tmp_path / "d")
    with pytest.raises(DatasetError, match="'a/b'"), writer.Writer(tmp_path / "d") as target:
        target.add("a/b", grasps=grasps(3))
    with writer.Writer(tmp_path / "d") as target:
        target.add("cup", grasps=grasps(3))
        with pytest.raises(DatasetError, match="'cup' is added twice"):
            target.add("cup", grasps=grasps(3))
        with pytest.raises(DatasetError, match=r"differing: \['can'\]"):
            target.finish(name="x", version="2", splits={"train": ["cup", "can"]}, recipe={})
    assert [p.name for p in tmp_path.iterdir()] == ["d"]
    assert store.open_dataset(tmp_path / "d").version == "1"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="neither an empty folder nor a dataset"):
        writer.Writer(tmp_path / "mine")


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a\\b", "line\nfeed", "x" * 201])
def test_names_that_are_no_file_names_are_refused(tmp_path, name):
    with (
        writer.Writer(tmp_path / "d") as target,
        pytest.raises(DatasetError, match="cannot be a file name"),
    ):
        target.add(name, grasps=grasps(1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"motions": {"format": "realdex_jax.motions/9", "objects": []}}, "motions of format"),
        ({"motions": {"objects": ["pan"]}}, "motions of 'pan', which is in no split"),
        ({"motions": 3}, "not a dataset index"),
        ({"digests": {"../x": "0"}}, r"a digest of '\.\./x', which lies elsewhere"),
        ({"digests": {"x": 0}}, "not a dataset index"),
        ({"format": float("inf")}, "not a dataset index"),
    ],
)
def test_an_index_that_breaks_the_rules_is_refused(tmp_path, changes, message):
    index = write(tmp_path / "d").path / "dataset.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), **changes}))
    with pytest.raises(DatasetError, match=message):
        store.open_dataset(tmp_path / "d")
