import errno
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from realdex_jax.data import folder, npz, object_files, schema, splits, store
from realdex_jax.errors import DatasetError
from realdex_jax.hand import joints


def random_grasps(n: int, seed: int = 0) -> schema.GraspSet:
    rng = np.random.default_rng(seed)
    q = rng.uniform(joints.LOWER, joints.UPPER, (n, 22)).astype(np.float32)
    t = rng.normal(0, 0.08, (n, 3))
    r = rng.normal(0, 1, (n, 3))
    phi = np.concatenate([q, t, r], axis=1).astype(np.float32)
    return schema.GraspSet(phi, q, q + 0.1, {"depth": rng.uniform(0, 1, n).astype(np.float32)})


def box_surface(n: int = 512, seed: int = 0) -> object_files.Surface:
    rng = np.random.default_rng(seed)
    p = rng.uniform(-1, 1, (n, 3))
    axis = rng.integers(0, 3, n)
    normal = np.zeros((n, 3))
    normal[np.arange(n), axis] = sign = rng.choice([-1.0, 1.0], n)
    p[np.arange(n), axis] = sign
    return object_files.Surface(
        (p * [0.03, 0.02, 0.08]).astype(np.float32), normal.astype(np.float32)
    )


SPLITS = {"train": ["cup", "can"], "val": ["jar"], "test": ["tub"]}


def write(path: Path, version: str = "1", schemes: dict | None = None) -> store.Dataset:
    names = [name for group in SPLITS.values() for name in group]
    return store.write_dataset(
        path,
        name="tiny",
        version=version,
        grasps={name: random_grasps(12, seed) for seed, name in enumerate(names)},
        splits=SPLITS,
        recipe={"seed": 0},
        surfaces={name: box_surface(seed=seed) for seed, name in enumerate(names)},
        schemes=schemes,
    )


def test_round_trip_keeps_poses_exactly_and_points_to_a_tenth_of_a_millimetre(tmp_path):
    data = write(tmp_path / "d")
    store.verify(data)
    back, original = data.grasps("can"), random_grasps(12, 1)
    np.testing.assert_array_equal(back.phi, original.phi)
    np.testing.assert_allclose(back.q_squeeze, original.q_squeeze, atol=1e-3)
    np.testing.assert_array_equal(back.columns["depth"], original.columns["depth"])
    np.testing.assert_allclose(data.surface("can").points, box_surface(seed=1).points, atol=1e-4)


def test_writing_twice_gives_the_same_digest(tmp_path):
    assert write(tmp_path / "a").digest == write(tmp_path / "b").digest


def test_joint_order_of_the_file_is_honoured(tmp_path):
    data = write(tmp_path / "d")
    order = np.random.default_rng(0).permutation(22)
    grasps = data.grasps("cup")
    phi = np.concatenate([grasps.phi[:, :22][:, order], grasps.phi[:, 22:]], axis=1)
    np.savez(
        data.path / "grasps" / "cup.npz",
        phi=phi,
        q_pregrasp=grasps.q_pregrasp[:, order],
        q_squeeze=grasps.q_squeeze[:, order],
    )
    index = json.loads((data.path / "dataset.json").read_text())
    index["joints"] = [joints.NAMES[i] for i in order]
    (data.path / "dataset.json").write_text(json.dumps(index))
    reordered = store.open_dataset(data.path).grasps("cup")
    np.testing.assert_array_equal(reordered.phi, grasps.phi)
    np.testing.assert_array_equal(reordered.q_squeeze, grasps.q_squeeze)


def test_a_full_disk_leaves_the_old_dataset(tmp_path, monkeypatch):
    write(tmp_path / "d", version="1")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folder.os, "fsync", full)
    with pytest.raises(DatasetError, match=r"No space left.*unchanged"):
        write(tmp_path / "d", version="2")
    monkeypatch.undo()
    data = store.open_dataset(tmp_path / "d")
    store.verify(data)
    assert data.version == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize("again", [store.open_dataset, lambda path: write(path, version="3")])
def test_a_kill_between_the_two_renames_loses_nothing(tmp_path, monkeypatch, again):
    path = tmp_path / "d"
    write(path, version="1")
    rename, done = Path.replace, []

    def killed(self, target):
        if done:
            raise KeyboardInterrupt  # not an OSError: nothing is put back in this process
        done.append(target)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write(path, version="2")
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == [".d.old"]
    data = again(path)
    store.verify(data)
    assert data.version == ("1" if again is store.open_dataset else "3")
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_half_an_old_copy_is_not_put_back(tmp_path):
    (tmp_path / ".d.old" / "grasps").mkdir(parents=True)
    with pytest.raises(DatasetError, match="no dataset at"):
        store.open_dataset(tmp_path / "d")
    write(tmp_path / "d")
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_a_folder_that_is_no_dataset_is_not_replaced(tmp_path):
    runs = tmp_path / "runs"
    (runs / "other").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"runs is neither an empty folder nor a dataset"):
        write(runs)
    assert [p.name for p in runs.iterdir()] == ["other"]
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    with pytest.raises(DatasetError, match=r"notes\.txt is neither"):
        write(file)
    assert file.read_text() == "mine"
    (tmp_path / "empty").mkdir()
    store.verify(write(tmp_path / "empty"))


def test_a_link_to_a_dataset_stays_a_link(tmp_path):
    write(tmp_path / "d")
    (tmp_path / "link").symlink_to("d")
    for version in ("2", "3"):
        write(tmp_path / "link", version=version)
        assert store.open_dataset(tmp_path / "d").version == version
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hand": "allegro"}, "is for hand 'allegro'; this program reads hand 'shadow'"),
        ({"units": {**store.UNITS, "length": "mm"}}, "has length in 'mm'; it must be 'm'"),
        ({"units": {**store.UNITS, "angle": "deg"}}, "has angle in 'deg'; it must be 'rad'"),
        ({"units": {**store.UNITS, "frame": "palm"}}, "has frame in 'palm'"),
        ({"units": {}}, "has length in None"),
        ({"units": "m"}, "not a dataset index"),
        ({"format": 2}, "has layout 2"),
        ({"recipe": ["x"]}, "not a dataset index"),
    ],
)
def test_another_hand_layout_or_units_are_refused(tmp_path, changes, message):
    index = write(tmp_path / "d").path / "dataset.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), **changes}))
    with pytest.raises(DatasetError, match=message):
        store.open_dataset(tmp_path / "d")


def test_an_index_without_a_hand_is_refused(tmp_path):
    index = write(tmp_path / "d").path / "dataset.json"
    meta = json.loads(index.read_text())
    del meta["hand"]
    index.write_text(json.dumps(meta))
    with pytest.raises(DatasetError, match=r"not a dataset index: KeyError\('hand'\)"):
        store.open_dataset(tmp_path / "d")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.phi.__setitem__((3, 0), np.nan), "grasp 3 is not finite"),
        (lambda g: g.phi.__setitem__((2, 1), 3.0), "FFJ3 = 3.000 rad"),
        (lambda g: g.phi.__setitem__((1, 22), 300.0), "wrong units"),
    ],
)
def test_validate_names_the_mistake(change, message):
    grasps = random_grasps(5)
    change(grasps)
    with pytest.raises(DatasetError, match=message):
        schema.validate(grasps)


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="Known names: realdex-sim"):
        store.open_dataset(tmp_path / "nothing")
    data = write(tmp_path / "d")
    path = data.path / "grasps" / "cup.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DatasetError, match=r"cup\.npz is not a readable"):
        data.grasps("cup")
    with pytest.raises(DatasetError, match="differs from the digest"):
        store.verify(data)
    with pytest.raises(DatasetError, match="known: cup, can, jar, tub"):
        data.grasps("pan")


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (
            {"train": ["cup", "pan"], "val": ["jar", "pot"], "test": ["tub"]},
            "the splits name 2 objects that have no grasps file in the dataset: pan, pot",
        ),
        (
            {"train": ["cup", "can"], "val": ["cup"], "test": ["tub"]},
            "object 'cup' is in train and val; each is in one part, once",
        ),
        ({"train": ["cup", "can", "cup"]}, "object 'cup' is twice in train; each is in one part"),
        ({"train": ["cup"], "dev": ["can"]}, r"unknown parts \['dev'\]; known: train, val, test"),
        ({"train": ["../cup"]}, r"object name '\.\./cup' cannot be a file name"),
    ],
)
def test_splits_that_do_not_fit_the_files_are_refused(tmp_path, splits, message):
    index = write(tmp_path / "d").path / "dataset.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "splits": splits}))
    with pytest.raises(DatasetError, match=rf"dataset\.json: {message}"):
        store.open_dataset(tmp_path / "d")


def test_headers_that_lie_and_objects_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"
    magic = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("phi.npy", magic + b"0" * 16)
    with pytest.raises(DatasetError, match="not a plain array"):
        npz.read(path)
    np.savez(path, phi=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DatasetError, match="not a plain array"):
        npz.read(path)


def test_splits_are_by_object_and_reproducible():
    names = [f"o{i}" for i in range(52)]
    parts = splits.by_object(names, seed=3)
    assert [len(parts[k]) for k in ("train", "val", "test")] == [40, 6, 6]
    assert sorted(name for part in parts.values() for name in part) == sorted(names)
    assert parts == splits.by_object(names[::-1], seed=3)
    with pytest.raises(DatasetError, match="in train and test"):
        splits.check({"train": ["a"], "val": [], "test": ["a"]})


CATEGORY = {"train": ["jar", "cup"], "val": [], "test": ["tub"]}


def test_a_scheme_is_another_view_of_the_same_files(tmp_path):
    plain = write(tmp_path / "plain")
    own = write(tmp_path / "d", schemes={"category": CATEGORY})
    assert (own.scheme, own.schemes) == ("object", ("object", "category"))
    assert own.splits == plain.splits
    assert own.digest == plain.digest  # a model trained on the one was trained on the other
    other = store.open_dataset(tmp_path / "d", scheme="category")
    store.verify(other)
    assert other.scheme == "category"
    assert other.splits == {part: tuple(names) for part, names in CATEGORY.items()}
    assert other.objects == ("jar", "cup", "tub")
    np.testing.assert_array_equal(other.grasps("jar").phi, own.grasps("jar").phi)
    with pytest.raises(DatasetError, match="no object 'can' in tiny; known: jar, cup, tub"):
        other.grasps("can")


def test_the_digest_of_a_scheme_tells_what_was_trained_on(tmp_path):
    first = write(tmp_path / "a", schemes={"category": CATEGORY})
    changed = {"train": ["cup", "jar"], "val": [], "test": ["tub"]}
    write(tmp_path / "b", schemes={"category": changed})
    digests = [
        store.open_dataset(tmp_path / name, scheme).digest
        for name in "ab"
        for scheme in ("object", "category")
    ]
    assert digests[0] == digests[2] == first.digest
    assert len(set(digests)) == 3


def test_an_index_without_schemes_has_the_one(tmp_path):
    index = json.loads((write(tmp_path / "d").path / "dataset.json").read_text())
    assert "schemes" not in index
    assert index["format"] == 1
    with pytest.raises(DatasetError, match=r"no split scheme 'category' in tiny; known: object$"):
        store.open_dataset(tmp_path / "d", scheme="category")


@pytest.mark.parametrize(
    ("schemes", "message"),
    [
        ({"object": CATEGORY}, "scheme 'object' is the dataset's own splits"),
        ({"new": {"train": ["cup", "pan"]}}, r"scheme 'new' names objects .*\['pan'\]"),
        ({"new": {"train": ["cup"], "test": ["cup"]}}, "scheme 'new': object 'cup' is in train"),
        ({"new": {"trian": ["cup"]}}, r"scheme 'new': unknown parts \['trian'\]"),
    ],
)
def test_bad_schemes_are_neither_written_nor_read(tmp_path, schemes, message):
    with pytest.raises(DatasetError, match=message):
        write(tmp_path / "d", schemes=schemes)
    assert not (tmp_path / "d").exists()
    index = write(tmp_path / "d").path / "dataset.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "schemes": schemes}))
    with pytest.raises(DatasetError, match=rf"dataset\.json: {message}"):
        store.open_dataset(tmp_path / "d")


@pytest.mark.parametrize("schemes", [["new"], {"new": ["cup"]}, {"new": {"train": 3}}])
def test_schemes_of_another_form_are_refused(tmp_path, schemes):
    index = write(tmp_path / "d").path / "dataset.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "schemes": schemes}))
    with pytest.raises(DatasetError, match="not a dataset index"):
        store.open_dataset(tmp_path / "d")


def test_held_out_categories_are_whole_and_leave_the_rest():
    category_of = {"mug": "cup", "can": "tin", "bowl": "cup", "jar": "jar", "tub": "tub"}
    parts = splits.by_category(category_of, val=["tub"], test=["cup", "jar"])
    assert parts == {"train": ("can",), "val": ("tub",), "test": ("mug", "bowl", "jar")}
    splits.check(parts)
    for part, names in parts.items():
        kinds = {category_of[name] for name in names}
        rest = {category_of[n] for other, v in parts.items() if other != part for n in v}
        assert not kinds & rest
    with pytest.raises(DatasetError, match="no object of category 'hat'; known: cup, jar, tin"):
        splits.by_category(category_of, val=["hat"], test=[])
    with pytest.raises(DatasetError, match="category 'cup' is held out twice"):
        splits.by_category(category_of, val=["cup"], test=["cup"])
