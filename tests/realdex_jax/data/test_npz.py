"""Files of arrays: written alike, mapped in place, hostile ones refused by name."""

import io
import mmap
import pickle
import zipfile

import numpy as np
import pytest

from realdex_jax.data import npz
from realdex_jax.errors import DatasetError, UnsafePickleError

ARRAYS = {
    "phi": np.arange(56, dtype=np.float32).reshape(2, 28),
    "half": np.linspace(0, 1, 7).astype(np.float16),
    "flags": np.array([True, False]),
    "names": np.array(["cup", "jar"]),
    "none": np.zeros((0, 22), np.float32),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "number": np.array(3),
}


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("mapped", [True, False])
def test_what_is_written_comes_back(tmp_path, compress, mapped):
    path = tmp_path / "x.npz"
    path.write_bytes(npz.encode(ARRAYS, compress=compress))
    found = npz.read(path, mapped=mapped)
    with np.load(path, allow_pickle=False) as witness:  # an independent reader
        assert list(found) == list(witness) == list(ARRAYS)
        for name, value in ARRAYS.items():
            np.testing.assert_array_equal(found[name], value)
            np.testing.assert_array_equal(witness[name], value)
            assert found[name].dtype == value.dtype
            assert found[name].flags.f_contiguous == value.flags.f_contiguous


def test_the_bytes_depend_on_the_arrays_alone(monkeypatch):
    before = npz.encode(ARRAYS)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setattr("time.time", lambda: 1_800_000_000.0)
    assert npz.encode(ARRAYS) == before


def test_members_that_are_not_compressed_are_mapped_where_they_stand(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(npz.encode({**ARRAYS, "large": np.zeros(2**14)}, compress=False))
    found = npz.read(path, mapped=True)
    assert in_place(found["phi"])
    assert found["phi"].flags.aligned
    assert not found["phi"].flags.writeable
    content = bytearray(path.read_bytes())
    at = content.index(ARRAYS["phi"].tobytes())
    assert (at - content.index(b"\x93NUMPY")) % 64 == 0
    with path.open("r+b") as file:  # what the file says now is what the array says
        file.seek(at)
        file.write(np.float32(7.0).tobytes())
    assert found["phi"][0, 0] == 7.0


def test_small_files_are_read_at_once(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(npz.encode(ARRAYS, compress=False))
    found = npz.read(path, mapped=True)
    assert not in_place(found["phi"])
    path.write_bytes(bytes(path.stat().st_size))
    for name, value in ARRAYS.items():
        np.testing.assert_array_equal(found[name], value)
        assert value.size == 0 or not found[name].flags.writeable


@pytest.mark.parametrize("mapped", [True, False])
def test_only_what_is_wanted_is_read(tmp_path, mapped):
    path = tmp_path / "x.npz"
    path.write_bytes(npz.encode(ARRAYS, compress=False))
    found = npz.read(path, mapped=mapped, only=("phi", "not there"))
    assert list(found) == ["phi"]
    np.testing.assert_array_equal(found["phi"], ARRAYS["phi"])


def in_place(array):
    """Whether an array's memory is a file's."""
    while not isinstance(array, (mmap.mmap, bytes, type(None))):
        array = array.obj if isinstance(array, memoryview) else array.base
    return isinstance(array, mmap.mmap)


def test_numpys_own_files_are_mapped_too(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, **ARRAYS)
    found = npz.read(path, mapped=True)
    for name, value in ARRAYS.items():
        np.testing.assert_array_equal(found[name], value)


def member(array, **header):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    content = buffer.getvalue()
    for old, new in header.items():
        content = content.replace(old.encode(), new.encode())
    return content


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["../../phi.npy"], r"'\.\./\.\./phi\.npy' has the name of a file elsewhere"),
        (["/etc/phi.npy"], "has the name of a file elsewhere"),
        (["C:phi.npy"], "has the name of a file elsewhere"),
        (["a\\phi.npy"], "has the name of a file elsewhere"),
        (["phi.npy", "phi"], "'phi' is there twice"),
    ],
)
def test_hostile_names_are_refused(tmp_path, names, message):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, member(np.zeros(3)))
    with pytest.raises(DatasetError, match=rf"x\.npz: member {message}|{message}"):
        npz.read(path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


def test_bombs_are_refused_before_they_expand(tmp_path):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("phi.npy", bytes(npz.RATIO_FROM + 1))
    with pytest.raises(DatasetError, match="taken for a bomb"):
        npz.read(path)


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("(3,)", "(9,)", r"shape \(9,\) of float64 does not fit 24 bytes"),
        ("(3,), ", "(10**9,)", "header"),
        ("<f8", "|O8", "does not fit"),
        ("<f8", "<x8", "type '<x8'"),
        ("<f8", "<M8", "does not fit"),
        ("'<f8'", "[('',", "header"),
        ("NUMPY\x01", "NUMPY\x07", r"version 7\.0"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path, mapped, old, new, message):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("phi.npy", member(np.zeros(3), **{old: new}))
    with pytest.raises(DatasetError, match=rf"member 'phi\.npy' is not a plain array: .*{message}"):
        npz.read(path, mapped=mapped)


def test_objects_come_only_where_they_are_asked_for_and_never_with_code(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, qpos=np.array({"a": 1.5}, dtype=object), scale=np.float32(12.5))
    with pytest.raises(DatasetError, match="not a plain array"):
        npz.read(path)
    found = npz.read(path, objects=True)
    assert found["qpos"] == {"a": 1.5}
    assert found["scale"] == 12.5
    content = path.read_bytes()
    start = content.index(b"\x93NUMPY")
    header = content[start : start + 128]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("qpos.npy", header + pickle.dumps(print))
    with pytest.raises(UnsafePickleError, match=r"qpos\.npy.*builtins\.print"):
        npz.read(path, objects=True)


def test_only_plain_arrays_are_written():
    for bad in (np.array([{}], dtype=object), np.zeros(2, [("a", "f4")])):
        with pytest.raises(DatasetError, match="only numbers are stored"):
            npz.encode({"x": bad})


def test_single_arrays_are_read_with_the_same_care(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(npz.read_npy(path), np.arange(6.0).reshape(2, 3))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=r"x\.npy is not a plain array"):
        npz.read_npy(path)
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DatasetError, match=r"x\.npy is not a plain array"):
        npz.read_npy(path)
    with pytest.raises(DatasetError, match=r"y\.npy: cannot be read"):
        npz.read_npy(tmp_path / "y.npy")


def test_no_more_is_written_than_is_read(tmp_path, monkeypatch):
    arrays = {"a": np.zeros(6), "b": np.zeros(4, np.float16)}
    path = tmp_path / "x.npz"
    path.write_bytes(npz.encode(arrays, compress=False))
    monkeypatch.setattr(npz, "MAX_NUMBERS", 9)
    with pytest.raises(DatasetError, match="10 numbers in 56 bytes; a file holds at most 9"):
        npz.encode(arrays)
    with pytest.raises(DatasetError, match=r"x\.npz: member 'b\.npy' has 4 numbers; at most 9"):
        npz.read(path)
    assert len(npz.read(path, only=("b",))["b"]) == 4
    assert len(npz.read(path, mapped=True)) == 2  # left on the disk
    monkeypatch.setattr(npz, "MAX_NUMBERS", 10)
    monkeypatch.setattr(npz, "MAX_EXPANDED_BYTES", 55)
    with pytest.raises(DatasetError, match="10 numbers in 56 bytes"):
        npz.encode(arrays)
