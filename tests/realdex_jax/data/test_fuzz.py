"""Mutated files of our own formats: each is read, or refused by an error that names it.

Nothing crashes, nothing runs, and no file takes more memory or time than its share.
"""

import resource
import tracemalloc

import numpy as np
import pytest
from mutation import MANY, TIMEOUT, Canary, attack, mutated

from realdex_jax.data import (
    conversion,
    motion_set,
    npz,
    object_files,
    pieces,
    store,
    unidexgrasp,
    writer,
)
from realdex_jax.data.motion import Motion
from realdex_jax.data.schema import GraspSet
from realdex_jax.data.source import Unit
from realdex_jax.hand import joints

FEW = 150
"""Mutations of each kind of file in the quick test."""
BYTES = 400e6
"""Most memory of one read; files here have at most 50 kB."""

CUBE = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
BETTER = {  # values that a format must have a rule about
    "json": (b"null", b"[]", b"{}", b"1e999", b'"', b"-1", b"true", b"[" * 3000, b'"../x"'),
    "obj": (b"f 1 1 1\n", b"f 1 2 -99\n", b"f 1 2 " + b"9" * 30, b"o x\n", b"v nan 0 0\n", b"v "),
}


def grasps(n=20):
    rng = np.random.default_rng(0)
    q = rng.uniform(joints.LOWER, joints.UPPER, (n, 22))
    phi = np.concatenate([q, rng.normal(0, 0.05, (n, 6))], axis=1).astype(np.float32)
    return GraspSet(phi, phi[:, :22], phi[:, :22], {"depth": rng.uniform(size=n)})


def motions():
    phi = np.zeros((10, 28), np.float32)
    phi[:, :22] = joints.REST
    world = np.tile(np.eye(1, 7, dtype=np.float32), (10, 1))
    one = Motion(np.arange(10, dtype=np.float32) / 15.0, phi, world)
    return motion_set.collect([one], ["cup"], np.zeros((1, 22)))


@pytest.fixture
def formats(tmp_path):
    """One good file of each format, how it is read, and where the reader looks for it."""
    box = pieces.text([pieces.hull(CUBE), pieces.hull(CUBE + np.array([2, 0, 0]))], 0.04)
    shape = pieces.shape("box", [pieces.hull(CUBE)], 0.04, "box")
    points = [a.astype(np.float32) for a in pieces.outer_surface(shape, 200)]
    with writer.Writer(tmp_path / "d") as target:
        target.add(
            "cup",
            grasps=grasps(),
            surface=object_files.Surface(*points),
            mesh=box,
            motions=motions(),
        )
        data = target.finish(name="d", version="1", splits={"train": ["cup"]}, recipe={"a": [1]})
    packed = tmp_path / "packed.npz"
    object_files.save_grasps(packed, grasps())
    table = tmp_path / "table.npy"
    np.save(table, np.arange(60.0).reshape(20, 3))
    foreign = tmp_path / "00000.npz"
    values = dict(zip(unidexgrasp.dexgraspnet._KEYS, np.full(28, 0.1).tolist(), strict=True))
    np.savez(
        foreign,
        qpos=np.array(values, dtype=object),
        scale=np.float32(12.5),
        plane=np.array([0, 0, 1, 0.02], np.float32),
    )
    return {
        "grasps": (data.path / "grasps" / "cup.npz", object_files.load_grasps),
        "mapped": (
            data.path / "grasps" / "cup.npz",
            lambda p: object_files.load_grasps(p, mapped=True),
        ),
        "packed": (packed, object_files.load_grasps),
        "motions": (data.path / "motions" / "cup.npz", motion_set.load),
        "points": (data.path / "objects" / "cup" / "points.npz", lambda _: data.surface("cup")),
        "index": (data.path / "dataset.json", lambda p: store.open_dataset(p.parent)),
        "mesh": (data.path / "objects" / "cup" / "mesh.obj", lambda p: pieces.read_shape(p, "cup")),
        "npy": (table, npz.read_npy),
        "unidexgrasp": (foreign, unidexgrasp._read_file),
    }


def tried(formats, canary, count, seed):
    """How many of `count` mutations of each format were refused."""
    return {
        what: attack(path, read, count, seed, canary, BETTER.get(path.suffix[1:], ()))
        for what, (path, read) in formats.items()
    }


def test_some_mutations_of_every_format(formats, tmp_path):
    tracemalloc.start()
    tally = tried(formats, Canary(tmp_path / "ran"), FEW, seed=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < BYTES
    # Most damage is seen; a bit in a mantissa, or in a key that nobody reads, is not.
    assert all(0.2 * FEW < refused <= FEW for refused in tally.values()), tally


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT)
def test_many_mutations_of_every_format(formats, tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tally = tried(formats, Canary(tmp_path / "ran"), MANY, seed=2)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < BYTES
    assert all(0.2 * MANY < refused <= MANY for refused in tally.values()), tally


@pytest.mark.parametrize(
    "count",
    [FEW, pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.timeout(TIMEOUT)])],
)
def test_records_of_a_conversion_are_not_trusted_either(tmp_path, count):
    class Shelf:
        format = "shelf"
        recipe: dict = {}  # noqa: RUF012 (as the protocol has it)
        units = ("cup",)

        def read(self, unit):
            return Unit(unit, grasps())

        def splits(self, units):
            return {"train": units}

    for folder in conversion.FOLDERS:
        (tmp_path / folder).mkdir()
    first = conversion.convert(Shelf(), "cup", tmp_path, 16)
    (place,) = (tmp_path / "records").iterdir()
    content, rng = place.read_bytes(), np.random.default_rng(3)
    for _ in range(count):
        place.write_bytes(mutated(content, rng, BETTER["json"]))
        assert conversion.convert(Shelf(), "cup", tmp_path, 16) == first
        assert place.read_bytes() == content
