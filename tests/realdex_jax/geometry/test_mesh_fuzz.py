"""Mutated mesh files: each is read as a solid, or refused by an error that names it.

Nothing crashes, and no file takes more memory or time than its share.
"""

import pathlib
import resource
import time
import tracemalloc

import numpy as np
import pytest
import trimesh
from mutation import MANY, mutated, outcome

from realdex_jax.errors import MeshError
from realdex_jax.geometry import mesh

FEW = 150
"""Mutations of each kind of file in the quick test."""
SECONDS, BYTES = 10.0, 1e9
"""Most time and memory of one read; files here have at most 15 kB."""
TELLING = {  # what a format must have a rule about
    ".obj": (b"f 1 1 1\n", b"f 1 2 -99\n", b"f 1 2 " + b"9" * 30, b"v nan 0 0\n", b"mtllib ../x\n"),
    ".ply": (b"element vertex 4000000000\n", b"property list int int x\n", b"end_header\n", b"nan"),
    ".off": (b"OFF\n999999999 1 1\n", b"3 0 0 0\n", b"-1"),
    ".stl": (b"solid x\n", b"\xff\xff\xff\xff", b"\x00\x00\xc0\x7f"),
    ".glb": (b'"byteLength":99999999999', b'"count":-1', b'"uri":"file:///etc/passwd"', b"[[[[[["),
}


@pytest.fixture(scope="module")
def solids(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """One good file of each kind."""
    folder = tmp_path_factory.mktemp("solids")
    ball = trimesh.creation.icosphere(2, 0.05)
    paths = {}
    for suffix in mesh.SUFFIXES:
        paths[suffix] = folder / f"ball{suffix}"
        ball.export(paths[suffix])
        assert len(mesh.load_mesh(paths[suffix]).faces) == len(ball.faces)
    return paths


def attack(path: pathlib.Path, count: int, seed: int) -> int:
    """Reads mutations of a file; returns how many were refused."""
    rng = np.random.default_rng(seed)
    content, refused = path.read_bytes(), 0
    bad = path.with_stem("bad")
    for i in range(count):
        bad.write_bytes(mutated(content, rng, TELLING[path.suffix]))
        began = time.perf_counter()
        error = outcome(bad, mesh.load_mesh)
        if error is not None:
            refused += 1
            if not isinstance(error, MeshError):
                raise AssertionError(f"{path.suffix}, mutation {i} of seed {seed}") from error
            assert bad.name in str(error), (i, str(error)[:300])
        assert time.perf_counter() - began < SECONDS, i
    return refused


@pytest.mark.parametrize("suffix", mesh.SUFFIXES)
def test_some_mutations(solids: dict[str, pathlib.Path], suffix: str) -> None:
    tracemalloc.start()
    refused = attack(solids[suffix], FEW, seed=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < BYTES
    # Some damage moves a corner a little: the rest of the ball is still there, and is read.
    assert 0.1 * FEW < refused <= FEW


@pytest.mark.slow
@pytest.mark.parametrize("suffix", mesh.SUFFIXES)
def test_many_mutations(solids: dict[str, pathlib.Path], suffix: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert 0.1 * MANY < attack(solids[suffix], MANY, seed=2) <= MANY
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < BYTES
