"""Object arrays out of `.npy` files without trusting them.

NumPy stores arrays of Python objects as a pickle, and a pickle can run any code. Here every name a
pickle may ask for is answered by a stand-in of our own: no NumPy constructor and nothing else is
ever called, sizes are checked against the bytes that are there, and any other name is refused
before it is imported.
"""

import functools
import io
import math
import pickle
import pickletools
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from realdex_jax.data import regular
from realdex_jax.errors import DatasetError, UnsafePickleError

MAX_BYTES = 2**28
"""Largest file that is read, bytes."""

MAX_MADE = 4
"""Most bytes of arrays and text that are made of each byte of a pickle: text of a Python 2 is
encoded, and an array takes what was encoded. `SMALL` bytes are made of any."""
SMALL = 2**20

MAX_STEPS = 2**21
"""Most operations of a pickle; each may make an object a hundred times its size."""

_NUMBER_KINDS = "biufcSU"
_PLAIN = (str, bytes, int, float, complex, bool, type(None), np.generic)


def load_objects(path: Path | str) -> list[Any]:
    """Reads a `.npy` file that holds an object array.

    Args:
        path: The file.

    Returns:
        The elements in C order: plain containers, numbers, text and numeric NumPy arrays.

    Raises:
        UnsafePickleError: The pickle names anything but plain arrays, numbers and containers.
        DatasetError: The file is missing, too large, cut off, or not what its header claims.
    """
    path = Path(path)
    try:
        size = regular.size(path)
        if size > MAX_BYTES:
            raise DatasetError(f"{path}: {size} bytes, at most {MAX_BYTES} are read")
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    return parse_objects(content, path)


def parse_objects(content: bytes, name: Path | str, steps: int = MAX_STEPS) -> list[Any]:
    """`load_objects` of a file's content, for files that lie inside an archive.

    Args:
        content: Everything the file holds.
        name: Shown in errors.
        steps: Most operations of the pickle.

    Raises:
        UnsafePickleError: The pickle names anything but plain arrays, numbers and containers.
        DatasetError: It is cut off, or not what its header claims.
    """
    stream = io.BytesIO(content)
    shape = _header(stream, name)
    count = math.prod(shape)
    left = len(content) - stream.tell()
    if count > left:
        raise DatasetError(f"{name}: header claims {count} objects, but only {left} bytes follow")
    value = load(stream, name, steps=steps)
    if not isinstance(value, np.ndarray) or value.dtype != object:
        raise DatasetError(f"{name}: holds {type(value).__name__}, expected an array of objects")
    if value.shape != shape:
        raise DatasetError(f"{name}: header claims shape {shape}, the data has {value.shape}")
    return list(value.ravel())


class Record:
    """An object of a class that a caller of `load` named: what it was stored with, and no code."""

    def __init__(self, kind: str) -> None:
        """Made by `load` alone; `kind` is module and name of the class."""
        self.kind = kind
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        """Keeps what the class would have been given."""
        self.state = state


def load(
    stream: io.BytesIO,
    name: Path | str,
    records: Collection[tuple[str, str]] = (),
    steps: int = MAX_STEPS,
) -> object:
    """Unpickles plain data from a stream.

    Args:
        stream: Open at the start of the pickle.
        name: Shown in errors.
        records: Module and name of classes whose objects come as `Record`s. None of their code is
            imported or run.
        steps: Most operations of the pickle.

    Raises:
        UnsafePickleError: The pickle names anything not admitted.
        DatasetError: It is damaged.
    """
    try:
        size = _size(stream, steps)
        value = _Unpickler(stream, records, MAX_MADE * size + SMALL).load()
        return _finished(value, {})
    except DatasetError as error:
        raise type(error)(f"{name}: {error}") from error
    except RecursionError as error:
        raise DatasetError(f"{name}: nested too deeply") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise DatasetError(f"{name}: damaged pickle ({type(error).__name__}: {error})") from error


def _size(stream: io.BytesIO, steps: int) -> int:
    """Bytes of a pickle, of at most so many operations; each takes a byte of it at least."""
    start = stream.tell()
    size = stream.seek(0, io.SEEK_END) - start
    stream.seek(start)
    if size > steps:
        for number, _ in enumerate(pickletools.genops(stream)):
            if number >= steps:
                raise DatasetError(f"a pickle of more than {steps} operations")
        stream.seek(start)
    return size


def _header(stream: io.BytesIO, path: Path | str) -> tuple[int, ...]:
    """Shape claimed by the `.npy` header; the stream then stands at the pickle."""
    shape, dtype = _shape_and_type(stream, path)
    if dtype.kind != "O":
        raise DatasetError(f"{path}: dtype {dtype}, expected an array of objects")
    return shape


def _shape_and_type(stream: io.BytesIO, path: Path | str) -> tuple[tuple[int, ...], np.dtype]:
    try:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise ValueError(f"version {version}")
        shape, _, dtype = read(stream)
    except Exception as error:  # NumPy tokenizes a header it cannot parse; that raises other kinds
        raise DatasetError(f"{path}: not a .npy file ({error})") from error
    return shape, dtype


class _Admitted:
    """A callable a pickle may name; given no state, nothing a pickle does outlives the load."""

    __slots__ = ("_call", "_spend")

    def __init__(self, call: Callable[..., Any], spend: Callable[[int], None]) -> None:
        self._call, self._spend = call, spend

    def __call__(self, *args: object) -> object:
        # What is made of text or bytes that stand once in the file may be made many times.
        self._spend(sum(len(a) for a in args if isinstance(a, (str, bytes))))
        made = self._call(*args)
        if isinstance(made, _Array):
            made.spend = self._spend
        return made

    def __setstate__(self, state: object) -> None:
        raise UnsafePickleError("the pickle tries to change a constructor")


class _Dtype:
    """Stands in for `numpy.dtype`: a numeric, text or object type without fields."""

    def __init__(self, code: str) -> None:
        if not isinstance(code, str) or len(code) > 8:
            raise UnsafePickleError(f"dtype {code!r} is not admitted")
        self._dtype = np.dtype(code)
        if self._dtype.kind not in _NUMBER_KINDS + "O" or self._dtype.fields is not None:
            raise UnsafePickleError(f"dtype {code!r} is not admitted")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise UnsafePickleError(f"byte order {order!r} is not admitted")
        if any(field is not None for field in state[2:5]):
            raise UnsafePickleError("structured dtypes are not admitted")
        if order in ("<", ">"):
            self._dtype = self._dtype.newbyteorder(order)

    @property
    def dtype(self) -> np.dtype:
        return self._dtype


def _unbounded(_: int) -> None:
    """Of an array that no pickle makes."""


class _Array:
    """Stands in for an array under construction."""

    def __init__(self) -> None:
        self.spend: Callable[[int], None] = _unbounded
        self.value: np.ndarray | None = None
        self.objects: list[Any] | None = None
        self.shape: tuple[int, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        if not all(type(n) is int and n >= 0 for n in shape) or not isinstance(dtype, _Dtype):
            raise DatasetError(f"array of shape {shape!r} and type {type(dtype).__name__}")
        if dtype.dtype == object:
            if not isinstance(raw, list) or len(raw) != math.prod(shape):
                raise DatasetError(f"object array of shape {shape} without its elements")
            if fortran and len(shape) > 1:
                raise DatasetError("object arrays in Fortran order are not read")
            self.shape, self.objects = tuple(shape), raw
        else:
            self.spend(len(raw))
            self.value = _numbers(raw, dtype.dtype, tuple(shape), "F" if fortran else "C")


def _numbers(
    raw: bytes | str, dtype: np.dtype, shape: tuple[int, ...], order: Literal["C", "F"]
) -> np.ndarray:
    data = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise DatasetError(f"array of shape {shape}, {dtype} holds {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order=order).copy()


def _reconstruct(*_: object) -> _Array:
    """What NumPy calls first for every array; the shape and data follow as state."""
    return _Array()


def _scalar(dtype: object, raw: bytes | str = b"") -> object:
    if not isinstance(dtype, _Dtype) or dtype.dtype == object:
        raise UnsafePickleError("a NumPy scalar of this type is not admitted")
    return _numbers(raw, dtype.dtype, (), "C")[()]


def _dtype(code: str, *_: object) -> _Dtype:
    return _Dtype(code)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise UnsafePickleError(f"encoding {encoding!r} is not admitted")
    return text.encode("latin1")


def _ndarray(*_: object) -> object:
    raise UnsafePickleError("a class that is only a marker may not be called")


_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): _ndarray,
    ("_codecs", "encode"): _encode,
    **{
        (f"numpy.{core}.multiarray", name): call
        for core in ("core", "_core")
        for name, call in (("_reconstruct", _reconstruct), ("scalar", _scalar))
    },
}


def _load_newobj(unpickler: Any) -> None:
    """How newer pickles make an object without its constructor."""
    arguments, made = unpickler.stack.pop(), unpickler.stack.pop()
    unpickler.append(_reconstructor(made, *arguments))


class _Unpickler(pickle._Unpickler):
    """The unpickler written in Python: the C one reserves memory for any memo index it is told.

    Byte arrays are left out, because their claimed length is reserved before it is read. NumPy
    writes none at the protocols of `.npy` files.
    """

    dispatch: ClassVar[dict[int, Callable[[pickle.Unpickler], None]]] = {
        code: call
        for code, call in pickle._Unpickler.dispatch.items()
        if code != pickle.BYTEARRAY8[0]
    }
    dispatch[pickle.NEWOBJ[0]] = _load_newobj

    def __init__(self, stream: io.BytesIO, records: Collection[tuple[str, str]], most: int) -> None:
        super().__init__(stream, encoding="latin1")
        self._records = frozenset(records)
        self._spent, self._most = 0, most

    def _spend(self, count: int) -> None:
        self._spent += count
        if self._spent > self._most:
            raise DatasetError(f"it makes more than {self._most} bytes of arrays and text")

    def find_class(self, module: str, name: str) -> object:
        call = _NAMES.get((module, name))
        if (module, name) in self._records:
            call = functools.partial(_record, f"{module}.{name}")
        elif self._records and (module, name) in _RECORD_NAMES:
            call = _RECORD_NAMES[module, name]
        if call is None:
            admitted = ", ".join(sorted(f"{m}.{n}" for m, n in {*_NAMES, *self._records}))
            raise UnsafePickleError(f"the pickle asks for {module}.{name}; admitted: {admitted}")
        return _Admitted(call, self._spend)


def _record(kind: str, *_: object) -> Record:
    return Record(kind)


def _reconstructor(made: object, *_: object) -> object:
    """How older pickles make an object without its constructor."""
    if not isinstance(made, _Admitted):
        raise UnsafePickleError(f"a {type(made).__name__} is not a class")
    return made()


def _items(items: Sequence[Any] = ()) -> list[Any]:
    """A set, as a list: its elements may be records, which are finished later."""
    return list(items)


_RECORD_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    **{(module, "_reconstructor"): _reconstructor for module in ("copyreg", "copy_reg")},
    **{(module, "object"): _ndarray for module in ("builtins", "__builtin__")},
    **{(module, "set"): _items for module in ("builtins", "__builtin__")},
}
"""What pickles of objects name besides the class."""


def _finished(value: object, seen: dict[int, object]) -> object:
    """Replaces stand-ins by arrays, once per object so that shared parts stay shared."""
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, _Array):
        if value.objects is None:
            done: object = value.value
        else:
            array = np.empty(len(value.objects), dtype=object)
            for i, item in enumerate(value.objects):
                array[i] = _finished(item, seen)
            done = array.reshape(value.shape)
    elif isinstance(value, Record):
        # First of all itself: its state may lead back to it.
        seen[id(value)] = value
        value.state = _finished(value.state, seen)
        return value
    elif isinstance(value, dict):
        done = {key: _finished(item, seen) for key, item in value.items()}
    elif isinstance(value, (list, tuple)):
        done = type(value)(_finished(item, seen) for item in value)
    elif isinstance(value, _PLAIN):
        return value
    else:
        raise UnsafePickleError(f"a {type(value).__name__} is not plain data")
    seen[id(value)] = done
    return done
