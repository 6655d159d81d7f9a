"""Thousands of damaged releases: each reads, or is refused by name; nothing else happens."""

import resource
import time
import zipfile

import numpy as np
import pytest
from mutation import MANY, SECONDS, TIMEOUT, Canary

from realdex_jax.data import archive, realdex, realdex_export
from realdex_jax.errors import DatasetError

WORDS = (
    b"cos\nsystem\n",
    b"cbuiltins\nexec\n",
    b"\x80\x04",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
    b"\xff\xff\xff\x7f",
    b"nan",
    b"1e999",
    b"-1",
    b"9" * 400,
    b"[" * 2000,
    b"'shape': (1000000000,)",
    b"|O",
    b"../",
)


def mutated(content, rng, words=WORDS):
    """A few bytes changed, put in, taken out, doubled or cut off."""
    raw = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(0, len(raw) + 1))
        kind = rng.integers(0, 7)
        if kind == 0 and at < len(raw):
            raw[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1 and at < len(raw):
            raw[at] = int(rng.integers(0, 256))
        elif kind == 2:
            raw[at:at] = words[int(rng.integers(0, len(words)))]
        elif kind == 3:
            word = words[int(rng.integers(0, len(words)))]
            raw[at : at + len(word)] = word
        elif kind == 4:
            del raw[at : at + int(rng.integers(1, 64))]
        elif kind == 5:
            raw[at:at] = raw[max(0, at - 64) : at]
        elif rng.random() < 0.2:
            del raw[at:]
    return bytes(raw)


@pytest.fixture
def kinds(tmp_path, capture, ball, bent, put):
    """A whole file of each kind, and how a folder with a mutated one is opened."""
    motion = capture(0, reach=8, lift=4)
    files = realdex_export.recording_files([motion], [np.arange(7, 12)], [bent(motion)])
    recording = put(tmp_path / "r" / "box_1", files)
    sequence = put(
        tmp_path / "s" / "box", {"0.npz": realdex_export.sequence_bytes(motion, ball[:50])}
    )
    path = tmp_path / "z" / "box.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in files.items():
            out.writestr(f"storage/box_1/{name}", content)
    (tmp_path / "r" / "box.obj").write_text("v 0 0 0\nv .1 0 0\nv 0 .1 0\nv 0 0 .1\nf 1 2 3\n")
    at = {name: recording / name for name in files}
    at |= {"0.npz": sequence / "0.npz", "box.zip": path, "box.obj": tmp_path / "r" / "box.obj"}
    return {name: (file, file.read_bytes()) for name, file in at.items()}


ROOTS = {"0.npz": "s", "box.zip": "z"}
POSES = ("final_data.npy", "0.npz", "box.zip")


def run(kinds, root, rounds, seed):
    """Mutates one file of each kind in turn; returns how many were read and how many refused."""
    rng = np.random.default_rng(seed)
    names = [*POSES, *(name for name in kinds if name not in POSES)]
    read = refused = 0
    said = []
    canary = Canary(root / "ran")
    words = (*WORDS, *canary.words)
    for turn in range(rounds):
        # Half of the turns go to the files with poses.
        name = POSES[turn % 3] if turn % 2 else names[turn // 2 % len(names)]
        file, content = kinds[name]
        file.write_bytes(mutated(content, rng, words))
        began = time.perf_counter()
        try:
            unit = realdex.open_source(root / ROOTS.get(name, "r")).read("box")
        except DatasetError as error:
            refused += 1
            said.append((name, file, str(error)))
        else:
            read += 1
            if unit.grasps is not None:
                assert np.isfinite(unit.grasps.phi).all()
        finally:
            file.write_bytes(content)
        assert time.perf_counter() - began < SECONDS
        assert not canary.dead
    for name, file, text in said:
        assert file.name in text or str(file.parent) in text, (name, text)
    return read, refused


def unpacked(kinds, root, rounds, seed):
    """Mutates a zip and unpacks it: whole, or nothing."""
    rng = np.random.default_rng(seed)
    file, content = kinds["box.zip"]
    refused, said = 0, []
    for turn in range(rounds):
        path = root / "m.zip"
        path.write_bytes(mutated(content, rng))
        target = root / "unpacked" / str(turn)
        try:
            archive.extract(path, target)
        except DatasetError as error:
            refused += 1
            said.append(str(error))
    assert all("m.zip" in text for text in said)
    kept = {p.name for p in (root / "unpacked").iterdir()}
    assert len(kept) == rounds - refused  # and no temporary folder
    assert file.exists()
    return refused


def test_damaged_releases(kinds, tmp_path):
    read, refused = run(kinds, tmp_path, 250, seed=0)
    assert read > 25
    assert refused > 60
    assert unpacked(kinds, tmp_path, 60, seed=1) > 18


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT)
@pytest.mark.long
def test_thousands_of_damaged_releases(kinds, tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rounds = 16 * MANY
    read, refused = run(kinds, tmp_path, rounds, seed=2)
    assert read + refused == rounds
    assert unpacked(kinds, tmp_path, 4 * MANY, seed=3) > 0.3 * 4 * MANY
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 2**20  # kB: a gigabyte
