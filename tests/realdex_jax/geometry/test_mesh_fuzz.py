"""Mutated mesh files: each is read as a solid, or refused by an error that names it.

Nothing crashes, and no file takes more memory or time than its share.
"""

import pathlib
import resource
import tracemalloc

import pytest
import trimesh
from mutation import MANY, TIMEOUT, Canary, attack

from realdex_jax.geometry import mesh

FEW = 150
"""Mutations of each kind of file in the quick test."""
BYTES = 1e9
"""Most memory of one read; files here have at most 15 kB."""
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


def tried(path: pathlib.Path, folder: pathlib.Path, count: int, seed: int) -> int:
    """How many mutations of a file were refused."""
    bad = folder / f"bad{path.suffix}"
    bad.write_bytes(path.read_bytes())
    words = TELLING[path.suffix]
    return attack(bad, mesh.load_mesh, count, seed, Canary(folder / "ran"), words)


@pytest.mark.parametrize("suffix", mesh.SUFFIXES)
def test_some_mutations(
    solids: dict[str, pathlib.Path], suffix: str, tmp_path: pathlib.Path
) -> None:
    tracemalloc.start()
    refused = tried(solids[suffix], tmp_path, FEW, seed=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < BYTES
    # Some damage moves a corner a little: the rest of the ball is still there, and is read.
    assert 0.1 * FEW < refused <= FEW


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT)
@pytest.mark.parametrize("suffix", mesh.SUFFIXES)
def test_many_mutations(
    solids: dict[str, pathlib.Path], suffix: str, tmp_path: pathlib.Path
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert 0.1 * MANY < tried(solids[suffix], tmp_path, MANY, seed=2) <= MANY
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < BYTES
