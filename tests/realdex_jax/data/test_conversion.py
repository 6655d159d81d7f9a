"""One unit into files: surfaces, records, and units that cannot be read."""

import dataclasses
import re

import numpy as np
import pytest

from realdex_jax.data import conversion, object_files, pieces, store
from realdex_jax.data.conversion import Record
from realdex_jax.data.schema import GraspSet
from realdex_jax.data.source import Unit
from realdex_jax.errors import DatasetError, MeshError
from realdex_jax.hand import joints

CUBE = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)


def grasps(n=4):
    phi = np.zeros((n, 28), np.float32)
    phi[:, :22] = joints.REST
    phi[:, 22] = 0.1 + 0.001 * np.arange(n)
    return GraspSet(phi, phi[:, :22], phi[:, :22])


def box(scale=0.05):
    return pieces.text([pieces.hull(CUBE)], scale)


@dataclasses.dataclass
class Shelf:
    """Units by name; an exception is raised instead."""

    held: dict
    format: str = "shelf"
    recipe: dict = dataclasses.field(default_factory=dict)

    @property
    def units(self):
        return tuple(self.held)

    def splits(self, units):
        return {"train": list(units)}

    def read(self, unit):
        if isinstance(self.held[unit], BaseException):
            raise self.held[unit]
        return self.held[unit]


@pytest.fixture
def work(tmp_path):
    for folder in conversion.FOLDERS:
        (tmp_path / folder).mkdir(exist_ok=True)
    return tmp_path


def test_a_unit_becomes_files_and_a_record(work):
    shelf = Shelf({"cup": Unit("cup", grasps(), mesh=box(), notes=("odd",))})
    record = conversion.convert(shelf, "cup", work, 100)
    assert (record.name, record.refused, record.notes) == ("cup", "", ("odd",))
    assert record.counts == {"grasps": 4, "motions": 0, "frames": 0}
    assert sorted(record.files) == [
        "grasps/cup.npz",
        "objects/cup/mesh.obj",
        "objects/cup/points.npz",
    ]
    for relative, digest in record.files.items():
        assert store.digest_of(work / "data" / relative) == digest
    assert not any((work / "fresh").iterdir())
    np.testing.assert_array_equal(
        object_files.load_grasps(work / "data" / "grasps" / "cup.npz").phi, grasps().phi
    )


def test_a_finished_unit_is_not_read_again_unless_a_file_of_it_is_damaged(work):
    first = conversion.convert(Shelf({"cup": Unit("cup", grasps())}), "cup", work, 100)
    gone = Shelf({"cup": RuntimeError("read again")})
    assert conversion.convert(gone, "cup", work, 100) == first
    path = work / "data" / "grasps" / "cup.npz"
    path.write_bytes(path.read_bytes()[:-1])
    assert "read again" in conversion.convert(gone, "cup", work, 100).refused
    assert conversion.convert(Shelf({"cup": Unit("cup", grasps())}), "cup", work, 100) == first
    (record,) = (work / "records").iterdir()
    record.write_text(record.read_text()[:-5])
    assert "read again" in conversion.convert(gone, "cup", work, 100).refused


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        (DatasetError("x.npy: torn"), r"DatasetError: x\.npy: torn"),
        (MeshError("no such mesh"), "MeshError: no such mesh"),
        (IndexError("our bug"), "unforeseen IndexError: our bug"),
        (MemoryError(), "unforeseen MemoryError"),
        (Unit("../up", grasps()), "cannot be a file name"),
        (Unit("cup", dataclasses.replace(grasps(), phi=grasps().phi + 9)), r"THJ3 = 9\.000 rad"),
        (Unit("cup", grasps(), mesh=box(50.0)), "100 m long"),
        (Unit("cup", grasps(), mesh=b"\xff"), "is not text"),
        (Unit("cup", grasps(), mesh=b"v 0 0\n"), "cup, line 1: cannot read"),
        (Unit("cup", points=np.full((50, 3), np.nan)), "not finite"),
        (Unit("cup", points=np.zeros((50, 3))), "1 points; a surface has at least 16"),
    ],
)
def test_a_unit_that_cannot_be_read_is_refused(work, held, reason):
    record = conversion.convert(Shelf({"cup": held}), "cup", work, 100)
    assert (record.name, record.files) == ("", {})
    assert re.search(reason, record.refused), record.refused
    assert not [p for p in (work / "data").rglob("*") if p.is_file()]


def test_a_unit_of_nothing_is_neither_stored_nor_a_fault(work):
    record = conversion.convert(Shelf({"a": Unit("a", notes=("none here",))}), "a", work, 100)
    assert record == Record("a", "", {}, {}, ("none here",))


def test_points_alone_become_a_surface(work, rng):
    p = rng.normal(size=(3000, 3))
    p *= 0.04 / np.linalg.norm(p, axis=1, keepdims=True)
    found = conversion.surface(Unit("ball", points=p), 500)
    assert found is not None
    assert found.points.shape == (500, 3)
    outward = found.points / 0.04
    # Planes through neighbours of 3000 points on a ball are off by a few degrees.
    assert (np.einsum("ni,ni->n", outward, found.normals) > 0.98).mean() > 0.98
    record = conversion.convert(Shelf({"ball": Unit("ball", points=p)}), "ball", work, 500)
    assert sorted(record.files) == ["grasps/ball.npz", "objects/ball/points.npz"]


def test_a_mesh_inside_out_has_outward_normals():
    text = b"\n".join(line for line in box().splitlines() if not line.startswith(b"o "))
    flipped = []
    for line in text.splitlines():
        words = line.split()
        flipped.append(b" ".join([words[0], *words[:0:-1]] if words[0] == b"f" else words))
    for content in (text, b"\n".join(flipped)):
        found = conversion.surface(Unit("box", mesh=content), 300)
        assert found is not None
        assert (np.einsum("ni,ni->n", found.points, found.normals) > 0).all()
