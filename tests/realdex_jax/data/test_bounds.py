"""Small files that promise, or expand to, more than memory holds: refused under a real limit of it.

Each is read in a process that may take 200 MB more than it has when it begins. What asks for more
ends there in a MemoryError, or in a message that is not the one expected.
"""

import functools
import io
import pathlib
import pickle
import re
import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest

from realdex_jax.data import textfile
from realdex_jax.errors import DatasetError

CHILD = """
import resource, sys
from pathlib import Path
from realdex_jax.data import archive, grab_sequence, npz, realdex_layout, realdex_files, unpickle

def sequence(path):
    realdex_files.read_sequence(realdex_layout.Folder(path.parent, (path.name,)), path.name)

READERS = {
    "npz": npz.read,
    "grab": grab_sequence.read,
    "objects": unpickle.load_objects,
    "archive": lambda path: archive.open_archive(path).read("phi.npy", 2**28),
    "sequence": sequence,
}
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 200 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for word in sys.argv[1:]:
    reader, _, path = word.partition("=")
    try:
        READERS[reader](Path(path))
        print("read")
    except Exception as error:
        print(type(error).__name__, str(error).replace(chr(10), " "))
"""


def deflated(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> pathlib.Path:
    """A `.npz` of arrays of zeros, packed quickly."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            archive.writestr(f"{name}.npy", content.getvalue())
    return path


@functools.cache
def zeros(count: int) -> bytes:
    """So many of them, deflated."""
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(count >> 20)) + packer.flush()


def lying(path: pathlib.Path, claimed: int, expanded: int) -> pathlib.Path:
    """A zip with one member that expands to more than its headers say."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("phi.npy", zeros(expanded))
    raw = bytearray(path.read_bytes())
    for start, method in ((0, 8), (raw.rindex(b"PK\1\2"), 10)):
        raw[start + method : start + method + 2] = struct.pack("<H", zipfile.ZIP_DEFLATED)
        size = start + method + 14
        raw[size : size + 4] = struct.pack("<I", claimed)
    path.write_bytes(raw)
    return path


def claiming(path: pathlib.Path, count: int, size: int) -> pathlib.Path:
    """A `.npz` whose table of contents says that each of its members has `size` bytes."""
    names = ("rhand", "object", "framerate", "obj_name", "contact", "sbj_id")[:count]
    raw = bytearray(deflated(path, {name: np.zeros(3) for name in names}).read_bytes())
    at = raw.find(b"PK\1\2")
    while at >= 0:
        raw[at + 24 : at + 28] = struct.pack("<I", size)
        at = raw.find(b"PK\1\2", at + 4)
    path.write_bytes(raw)
    return path


def pickled(path: pathlib.Path, body: bytes) -> pathlib.Path:
    """A file that claims one object, which its pickle makes."""
    np.save(path, np.array([None], dtype=object), allow_pickle=True)
    header = path.read_bytes()[:128]
    path.write_bytes(header + body)
    return path


def again(count: int) -> bytes:
    """A pickle that makes bytes of the same megabyte of text so many times."""
    text = pickle.dumps("a" * 2**20, 2)[2:-1].replace(b"q\x00", b"q\x01")
    one = b"c_codecs\nencode\nq\x02"
    return (
        b"\x80\x02]" + text + b"0" + one + b"0" + b"h\x02h\x01X\x06\x00\x00\x00latin1\x86Ra" * count
    ) + b"."


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What reading each file ends in."""
    at = tmp_path_factory.mktemp("hostile")
    rows = {name: np.zeros((4, 3), np.float32) for name in ("hand_transl", "object_transl")}
    rows |= {name: np.zeros((4, 3), np.float32) for name in ("hand_orient", "object_orient")}
    rows["qpos"] = np.zeros((4, 22), np.float32)
    many = np.zeros((10**7, 3), np.uint8)
    files = {
        "many points": ("sequence", deflated(at / "p.npz", {**rows, "object_points": many})),
        "many numbers": ("npz", deflated(at / "n.npz", {"a": many, "b": many})),
        "lies": ("npz", lying(at / "l.npz", 2**20, 2**28)),
        "lies in an archive": ("archive", lying(at / "l.zip", 2**20, 2**28)),
        "much in all": ("grab", claiming(at / "mug_lift_1.npz", 6, 2**26)),
        "steps": ("objects", pickled(at / "s.npy", b"\x80\x02" + b"]0" * 2**20 + b"].")),
        "again": ("objects", pickled(at / "a.npy", again(100))),
    }
    words = [f"{reader}={path}" for reader, path in files.values()]
    found = subprocess.run(
        [sys.executable, "-c", CHILD, *words], capture_output=True, text=True, check=True
    )
    return dict(zip(files, found.stdout.splitlines(), strict=True))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("many points", r"DatasetError .*p\.npz: 10000000 points; at most"),
        ("many numbers", r"DatasetError .*n\.npz.* has 30000000 numbers; at most 33554432"),
        ("lies", r"DatasetError .*l\.npz is not a readable \.npz: Bad CRC"),
        ("lies in an archive", r"DatasetError .*l\.zip: phi\.npy is damaged \(Bad CRC"),
        ("much in all", r"DatasetError .*mug_lift_1\.npz expands to 402653184 bytes; at most"),
        ("steps", r"DatasetError .*s\.npy: .*more than 2097152 operations"),
        ("again", r"DatasetError .*a\.npy: it makes more than 5\d{6} bytes"),
    ],
)
def test_it_is_refused_within_its_memory(said: dict[str, str], what: str, message: str) -> None:
    assert re.match(message, said[what]), said[what]


def test_texts_have_limits_of_what_is_made_of_them(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, info = tmp_path / "rows.txt", tmp_path / "info.json"
    rows.write_text("1 2\n" * 3)
    info.write_text('{"a": 1}')
    assert textfile.read_rows(rows, 2).shape == (3, 2)
    monkeypatch.setattr(textfile, "MAX_LINES", 2)
    monkeypatch.setattr(textfile, "MAX_JSON", 7)
    for read in (lambda: textfile.read_rows(rows, 2), lambda: textfile.read_series(rows, 1)):
        with pytest.raises(DatasetError, match=r"rows\.txt has more than 2 lines"):
            read()
    with pytest.raises(DatasetError, match=r"info\.json has 8 bytes; at most 7 are read"):
        textfile.read_json(info)
