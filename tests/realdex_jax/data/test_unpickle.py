"""The restricted unpickler: real formats come through, everything else is refused unexecuted."""

import io
import os
import pickle
import struct

import numpy as np
import pytest

from realdex_jax.data.unpickle import load, load_objects
from realdex_jax.errors import DatasetError, UnsafePickleError


class Runs:
    """Writes a file when unpickled by the ordinary module."""

    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


def save(path, value):
    np.save(path, value, allow_pickle=True)
    return path


def save_header(path, shape, body, descr="|O"):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body)
    return path


@pytest.mark.parametrize("protocol", range(5))
def test_plain_data_comes_through_every_protocol_of_npy_files(protocol):
    value = {
        "scale": np.float64(0.06),
        "qpos": {"a": 1.5, "b": -2},
        "array": np.arange(6, dtype=np.int32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.array([1.0, 2.0], ">f8"),
        "flags": [True, None, "text", b"bytes", (1, 2)],
        "bool": np.bool_(True),
    }
    out = load(io.BytesIO(pickle.dumps(value, protocol)), "value")
    assert isinstance(out, dict)
    assert out["scale"] == 0.06
    assert out["qpos"] == value["qpos"]
    assert out["flags"] == value["flags"]
    for key in ("array", "fortran", "big"):
        assert np.array_equal(out[key], value[key])


def test_object_array_round_trip(tmp_path):
    value = np.array([{"a": np.float32(1)}, {"a": np.zeros(3)}], dtype=object)
    out = load_objects(save(tmp_path / "x.npy", value))
    assert out[0]["a"] == 1.0
    assert np.array_equal(out[1]["a"], np.zeros(3))


def test_code_is_refused_and_not_run(tmp_path):
    trace = tmp_path / "trace"
    for i, call in enumerate((os.mkdir, os.system, eval, exec, open, __import__)):
        argument = f"touch {trace}" if call is os.system else str(trace)
        path = save(tmp_path / f"{i}.npy", np.array([Runs(call, argument)], dtype=object))
        with pytest.raises(UnsafePickleError, match=r"asks for"):
            load_objects(path)
    assert not trace.exists()


def test_admitted_names_cannot_be_bent():
    # Attribute chains, state given to constructors, the marker called, and odd types.
    bent = [
        b"cnumpy\nload\n.",
        b"cnumpy\ndtype.__class__\n.",
        b"cnumpy.core.multiarray\n_reconstruct\n}S'_call'\nNsb.",
        b"cnumpy\nndarray\n(I3\ntR.",
        b"cnumpy\ndtype\n(S'i4,i4'\ntR.",
        b"cnumpy\ndtype\n(S'M8[s]'\ntR.",
        b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O'\ntRS'abcdefgh'\ntR.",
        b"cnumpy\ndtype\n.",
    ]
    for body in bent:
        with pytest.raises(UnsafePickleError):
            load(io.BytesIO(body), "bent")


def test_persistent_and_extension_ids_are_refused():
    for body in (b"Pname\n.", b"\x82\x01."):
        with pytest.raises(DatasetError):
            load(io.BytesIO(body), "ids")


def test_claims_are_checked_against_bytes(tmp_path):
    body = pickle.dumps([])
    with pytest.raises(DatasetError, match=r"only \d+ bytes follow"):
        load_objects(save_header(tmp_path / "many.npy", (10**9,), body))
    array = np.array([{"a": 1}] * 3, dtype=object)
    with pytest.raises(DatasetError, match="header claims shape"):
        load_objects(save_header(tmp_path / "four.npy", (4,), pickle.dumps(array)))
    # A memo index far beyond the data must cost no memory.
    with pytest.raises(DatasetError):
        load_objects(save_header(tmp_path / "memo.npy", (1,), b"\x80\x02Nr\xff\xff\xff\x7f."))
    with pytest.raises(DatasetError):
        load(io.BytesIO(b"\x80\x05\x96" + (2**38).to_bytes(8, "little") + b"abc."), "claim")


def test_array_with_too_few_bytes_is_refused():
    good = pickle.dumps(np.arange(4.0), 2)
    with pytest.raises(DatasetError, match="holds 32 bytes"):
        load(io.BytesIO(good.replace(b"K\x04\x85", b"K\x05\x85")), "short")


def test_damaged_files_are_named(tmp_path):
    whole = save(tmp_path / "x.npy", np.array([{"a": 1.0}], dtype=object)).read_bytes()
    for cut in (0, 5, 40, len(whole) - 10):
        path = tmp_path / f"cut{cut}.npy"
        path.write_bytes(whole[:cut])
        with pytest.raises(DatasetError, match=f"cut{cut}"):
            load_objects(path)
    with pytest.raises(DatasetError, match="cannot be read"):
        load_objects(tmp_path / "absent.npy")
    with pytest.raises(DatasetError, match="expected an array of objects"):
        load_objects(save(tmp_path / "numbers.npy", np.zeros(3)))


def test_deep_nesting_is_refused():
    with pytest.raises(DatasetError):
        load(io.BytesIO(b"]" * 100_000 + b"a" * 99_999 + b"."), "deep")
