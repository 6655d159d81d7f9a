"""What is in a dataset: counts, and each fault by file, rule and value."""

import json

import numpy as np
import pytest

from realdex_jax.data import inspection, motion_set, object_files, pieces, store, writer
from realdex_jax.data.inspection import Counts
from realdex_jax.data.motion import Motion
from realdex_jax.data.schema import GraspSet
from realdex_jax.data.source import Unit
from realdex_jax.errors import DatasetError
from realdex_jax.hand import joints

CUBE = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)


def grasps(n=5, distance=0.1):
    phi = np.zeros((n, 28), np.float32)
    phi[:, :22] = joints.REST
    phi[:, 22] = distance + 0.001 * np.arange(n)
    return GraspSet(phi, phi[:, :22], phi[:, :22], {"depth": np.arange(n, dtype=np.float32)})


def surface(turn=1.0, scale=0.05):
    shape = pieces.shape("box", [pieces.hull(CUBE)], scale, "box")
    points, normals = pieces.outer_surface(shape, 200)
    return object_files.Surface(points.astype(np.float32), (turn * normals).astype(np.float32))


def motions(t=10):
    phi = np.zeros((t, 28), np.float32)
    phi[:, :22] = joints.REST
    world = np.tile(np.eye(1, 7, dtype=np.float32), (t, 1))
    one = Motion(np.arange(t, dtype=np.float32) / 15.0, phi, world)
    return motion_set.collect([one, one], ["cup"] * 2, np.zeros((2, 22)))


def write(path, **cup):
    given = {
        "grasps": grasps(),
        "surface": surface(),
        "mesh": pieces.text([pieces.hull(CUBE)], 0.05),
        "motions": motions(),
        **cup,
    }
    with writer.Writer(path) as target:
        target.add("cup", **given)
        target.add("tub")
        return target.finish(
            name="tiny", version="3", splits={"train": ["cup"], "test": ["tub"]}, recipe={}
        )


def test_a_whole_dataset_has_counts_and_no_findings(tmp_path):
    data = write(tmp_path / "d")
    cup, tub = (inspection.look(data, name) for name in ("cup", "tub"))
    assert not cup.findings + tub.findings + inspection.strays(data)
    size = sum(f.stat().st_size for f in data.path.rglob("*.*") if f.name != "dataset.json")
    total = cup.counts + tub.counts
    assert total == Counts(
        objects=2, grasps=5, motions=2, frames=20, meshes=1, surfaces=1, bytes=size
    )
    assert dict(total.rows())["frames"] == "20"
    about = dict(inspection.about(data))
    assert about["version"] == "3"
    assert about["objects by part"] == "train 1, test 1 (scheme 'object')"
    assert about["digest"] == data.digest
    assert "in our order" in about["hand"]


def test_the_shipped_dataset_is_whole():
    data = store.open_dataset("realdex-sim")
    looked = [inspection.look(data, name) for name in data.objects]
    assert not [f for one in looked for f in one.findings]
    assert not inspection.strays(data)
    assert sum((one.counts for one in looked), Counts()).grasps == 8720


def findings(data):
    return [(f.file, f.rule, f.value) for f in inspection.look(data, "cup").findings]


@pytest.mark.parametrize(
    ("cup", "file", "rule", "value"),
    [
        (
            {"grasps": GraspSet(*(np.repeat(a[:1], 3, 0) for a in (grasps().phi,) * 1), *[
                np.repeat(grasps().q_pregrasp[:1], 3, 0)] * 2)},
            "grasps/cup.npz", "no grasp is there twice", "2 of 3 repeat another",
        ),
        (
            {"grasps": GraspSet(grasps().phi, grasps().q_pregrasp, grasps().q_squeeze,
                                {"depth": np.array([0, np.nan, 1, 2, np.inf])})},
            "grasps/cup.npz", "column 'depth' is finite", "2 of 5 are not",
        ),
        (
            {"grasps": grasps(distance=1.0)},
            "grasps/cup.npz", "the palm is within 0.25 m of the object", "5 of 5 are not",
        ),
        (
            {"surface": surface(turn=-1.0)},
            "objects/cup/points.npz", "normals point outward", "they point inward",
        ),
        (
            {"surface": surface(scale=2.0), "mesh": None, "grasps": None},
            "objects/cup/points.npz", "an object is 1 cm to 1 m long", "4 m: another unit?",
        ),
        (
            {"mesh": pieces.text([pieces.hull(CUBE)], 0.1)},
            "objects/cup/mesh.obj", "mesh and points are of one object", "differ by 0.05 m",
        ),
        (
            {"mesh": b"v 0 0 zero\n"},
            "objects/cup/mesh.obj", "the mesh can be read", "line 1: cannot read",
        ),
    ],
)  # fmt: skip
def test_a_fault_is_named_by_file_rule_and_value(tmp_path, cup, file, rule, value):
    (found,) = findings(write(tmp_path / "d", **cup))
    assert found[:2] == (file, rule)
    assert value in found[2]


@pytest.mark.parametrize("name", ["mug", "wine_glass", "cracker_box"])
def test_normals_of_hollow_and_solid_things_have_a_sense(name):
    outward = store.open_dataset("realdex-sim").surface(name)
    inward = object_files.Surface(outward.points, -outward.normals)
    found = inspection.sense(outward)
    # A solid has 1; a wall of 3 mm, as thick as the points are apart, leaves about a quarter.
    assert 0.15 < found < 1.1
    assert inspection.sense(inward) == pytest.approx(-found)
    assert -found < inspection.INWARD


def test_an_open_surface_has_less_of_a_sense(rng):
    n = rng.normal(size=(2000, 3))
    n[:, 2] = np.abs(n[:, 2])
    n /= np.linalg.norm(n, axis=1, keepdims=True)
    half = object_files.Surface((0.05 * n).astype(np.float32), n.astype(np.float32))
    whole = object_files.Surface(
        np.concatenate([half.points, -half.points]), np.concatenate([n, -n])
    )
    assert inspection.sense(whole) == pytest.approx(1.0, abs=0.05)
    assert 0.3 < inspection.sense(half) < 0.8


def test_damage_is_named_by_file_rule_and_value(tmp_path):
    data = write(tmp_path / "d")
    for relative in data.digests:
        if "cup" in relative:
            path = data.path / relative
            path.write_bytes(path.read_bytes()[:60])
    found = findings(data)
    assert [f[:2] for f in found[:4]] == [
        (file, "SHA-256 as in dataset.json")
        for file in (
            "grasps/cup.npz",
            "motions/cup.npz",
            "objects/cup/points.npz",
            "objects/cup/mesh.obj",
        )
    ]
    broken = {f[0]: f[2] for f in found[4:]}
    assert broken["grasps/cup.npz"].startswith("grasps/cup.npz is not a readable .npz")
    assert set(broken) == {f[0] for f in found[:4]}
    for relative in data.digests:
        (data.path / relative).unlink()
    found = findings(data)
    assert {f[1:] for f in found} == {("the file is there", "missing")}
    assert len(found) == 4


def test_files_that_nothing_names_are_found(tmp_path):
    data = write(tmp_path / "d")
    (data.path / "notes.txt").write_text("mine")
    (data.path / "grasps" / "pan.npz").write_bytes(b"")
    index = data.path / "dataset.json"
    meta = json.loads(index.read_text())
    digest = meta["digests"].pop("grasps/cup.npz")
    meta["digests"]["grasps/lost.npz"] = digest
    index.write_text(json.dumps(meta))
    data = store.open_dataset(data.path)
    assert [(f.file, f.value) for f in inspection.strays(data)] == [
        ("grasps/pan.npz", "unknown file"),
        ("notes.txt", "unknown file"),
        ("grasps/lost.npz", "missing"),
    ]
    assert findings(data) == [("grasps/cup.npz", "dataset.json has its digest", "none")]


def test_a_foreign_dataset_is_told_by_a_sample():
    class Shelf:
        format = "shelf"
        recipe: dict = {}  # noqa: RUF012 (as the protocol has it)
        units = tuple(f"o{i}" for i in range(9))

        def read(self, unit):
            if unit == "o4":
                raise DatasetError("o4.npy: torn")
            return Unit(unit, grasps(), motions(), points=np.zeros((5, 3)))

        def splits(self, units):
            return {"train": units}

    found = inspection.sample(Shelf(), 3)
    assert [unit for unit, _ in found] == ["o0", "o4", "o8"]
    assert isinstance(found[1][1], DatasetError)
    first = found[0][1]
    assert isinstance(first, Unit)
    assert inspection.unit_counts(first) == Counts(1, 5, 2, 20, 0, 1, 0)
    assert len(inspection.sample(Shelf(), 100)) == 9
