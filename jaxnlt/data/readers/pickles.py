"""Reads untrusted pickles: numpy arrays and plain Python values only.

CIFAR is distributed as pickles, its human labels and trained networks as
PyTorch files, which hold pickles too.  A pickle is a program: it can name any
function to call while it is read.  This module carries such a program out by
itself.  It knows the instructions that write plain values, and stand-ins for
the few functions that rebuild numeric arrays and, on request, PyTorch's
tensors; nothing of numpy's, PyTorch's or Python's own rebuilding runs.
"""

import codecs
import io
import os
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxnlt.data import untrusted
from jaxnlt.data.untrusted import MIB, Refused
from jaxnlt.runtime import paths
from jaxnlt.runtime.errors import UserError

#: The most bytes of a file; the largest of CIFAR has 155 MiB, of torchvision's
#: ResNets 243 MiB.
LIMIT = 512 * MIB
#: The most instructions of a pickle; the largest of CIFAR has 400,000.
INSTRUCTIONS = 4_000_000
# First pickle of PyTorch files written before version 1.6.
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
# Pickles in front of the object in such a file: magic, version, system.
_TORCH_PREFIX = 3
# Integers as keys of a dictionary: larger ones could all have the same hash.
_LARGEST_KEY = 1 << 31
# Bytes of an integer.
_LONGEST = 64

#: (dtype, key, numbers) -> the numbers of a tensor's storage.
Storages = Callable[[np.dtype, str, int], np.ndarray]


class _Forbidden(Exception):
    """The pickle names something that arrays do not consist of."""


# Stand-ins -------------------------------------------------------------------


class _Dtype:
    """A ``numpy.dtype`` whose state, its byte order, is not yet known."""

    CODES = frozenset(
        f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)
    ) | {"b1", "f2", "f4", "f8"}

    def __init__(self, code: Any, *rest: Any) -> None:
        self._code = _text(code)
        if self._code not in self.CODES:
            raise _Forbidden(f"the numpy type {untrusted.shown(self._code)}")

    def build(self, state: Any) -> np.dtype:
        """The dtype with the byte order of a state (version, order, ...)."""
        _, order, base, names, fields, *_ = state
        if (base, names, fields) != (None, None, None):
            raise _Forbidden("a structured numpy type")
        order = _text(order)
        if order not in ("<", ">", "|", "="):
            raise Refused("a byte order of numpy's is wrong")
        return np.dtype(f"{order}{self._code}")


class _Array:
    """An array of numpy's whose state is not yet known."""

    def build(self, state: Any) -> np.ndarray:
        """The array of a state (version, shape, dtype, Fortran, bytes)."""
        _, shape, dtype, fortran, data = state
        return _array(data, dtype, shape, "F" if fortran else "C")


class _Named(NamedTuple):
    """What a pickle names without calling it."""

    name: str


class _Placeholder:
    """An object between its creation and its state, as the memo keeps it."""

    def __init__(self, empty: _Dtype | _Array) -> None:
        self.empty = empty
        self.built: np.dtype | np.ndarray | None = None


_NDARRAY = _Named("numpy.ndarray")


def _text(value: Any) -> str:
    """Text of Python 2 or 3."""
    if isinstance(value, bytes):
        return value.decode("ascii")
    if not isinstance(value, str):
        raise Refused("a name is no text")
    return value


def _array(
    data: Any, dtype: Any, shape: Any, order: Any = "C", *rest: Any
) -> np.ndarray:
    """Stands in for numpy's ``_frombuffer``: a plain array over its bytes."""
    if not isinstance(dtype, np.dtype) or _text(order) not in ("C", "F"):
        raise Refused("an array's type or order is wrong")
    if not isinstance(data, bytes | bytearray):
        raise Refused("an array's numbers are no bytes")
    return untrusted.plain_array(data, dtype, _sizes(shape), _text(order))


def _empty_array(kind: Any, shape: Any, code: Any) -> _Array:
    """Stands in for numpy's ``_reconstruct``; the state follows."""
    if kind is not _NDARRAY:
        raise Refused("an array of an unknown class")
    return _Array()


def _scalar(dtype: Any, data: Any) -> Any:
    """Stands in for numpy's ``scalar``."""
    return _array(data, dtype, (1,))[0]


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    """Stands in for ``collections.OrderedDict``; every dict is ordered."""
    return {_key(key): value for key, value in pairs}


def _no_bytes() -> bytes:
    """Stands in for Python 2's ``bytes``, with which Python 3 writes b''."""
    return b""


def _sizes(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or not all(
        type(n) is int and n >= 0 for n in values
    ):
        raise Refused("a shape is not of numbers")
    return tuple(values)


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, *rest: Any
) -> np.ndarray:
    """Stands in for ``torch._utils._rebuild_tensor_v2``: a view of a storage.

    ``rest`` concerns gradients.
    """
    if not isinstance(storage, np.ndarray) or type(offset) is not int:
        raise Refused("a tensor without a storage")
    try:
        size, stride = _sizes(size), _sizes(stride)
        pairs = list(zip(size, stride, strict=True))
    except (Refused, ValueError):
        raise Refused("a tensor reaches beyond its storage") from None
    if 0 in size:
        return np.zeros(size, storage.dtype)
    last = offset + sum((n - 1) * step for n, step in pairs)
    # A view beyond its storage would show other memory.
    if offset < 0 or last >= len(storage):
        raise Refused("a tensor reaches beyond its storage")
    return np.lib.stride_tricks.as_strided(
        storage[offset:],
        size,
        [step * storage.itemsize for step in stride],
        writeable=False,
    )


def _parameter(data: Any, *rest: Any) -> Any:
    """Stands in for ``torch._utils._rebuild_parameter``."""
    return data


def _key(value: Any) -> Any:
    """A key of a dictionary: cheap to hash, whatever the pickle holds."""
    small = type(value) is int and abs(value) < _LARGEST_KEY
    if not small and not isinstance(value, str | bytes | bool | None):
        raise Refused("a key of a dictionary is neither text nor a number")
    return value


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Dtype,
    ("collections", "OrderedDict"): _ordered,
    ("__builtin__", "bytes"): _no_bytes,
    # numpy's home module changed its name with numpy 2.
    **{
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")
        for module, name, function in (
            ("multiarray", "_reconstruct", _empty_array),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _array),
        )
    },
}
_TENSORS: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{
        ("torch", f"{name}Storage"): np.dtype(dtype)
        for name, dtype in {
            **{"Double": "<f8", "Float": "<f4", "Half": "<f2"},
            **{"Long": "<i8", "Int": "<i4", "Short": "<i2", "Char": "i1"},
            **{"Byte": "u1", "Bool": "?"},
        }.items()
    },
}


# The machine -----------------------------------------------------------------


class _Machine:
    """Carries one pickle out; see the standard module pickletools.

    Args:
      file: stands at the first instruction, and ends behind the last.
      storages: finds the storages of tensors; None refuses tensors.
    """

    def __init__(self, file: io.BytesIO, storages: Storages | None) -> None:
        self._file, self._storages = file, storages
        self._size = len(file.getbuffer())
        self._known = _KNOWN | {("_codecs", "encode"): self._encode}
        if storages is not None:
            self._known |= _TENSORS
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._encoded = 0

    def run(self) -> Any:
        """The object that the pickle makes."""
        read, steps = self._file.read, self._steps()
        for _ in range(INSTRUCTIONS):
            code = read(1)
            if code == b".":
                return self._pop()
            step = steps.get(code)
            if step is None:
                raise Refused(f"holds the instruction {code!r}, or is cut off")
            step()
        raise Refused(f"has more than {INSTRUCTIONS:,} instructions")

    def _encode(self, text: Any, encoding: Any) -> bytes:
        """Stands in for ``_codecs.encode``, by which old pickles hold bytes."""
        if _text(encoding) != "latin1" or not isinstance(text, str):
            raise Refused(f"encoding {untrusted.shown(encoding)}")
        # An honest file holds each text that it encodes.
        self._encoded += len(text)
        if self._encoded > self._size:
            raise Refused("encodes more text than it holds")
        return text.encode("latin1")

    # Reading.

    def _bytes(self, size: int) -> bytes:
        data = self._file.read(size) if 0 <= size <= self._size else b""
        if len(data) != size:
            raise Refused("is cut off")
        return data

    def _line(self) -> bytes:
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise Refused("is cut off")
        return line[:-1]

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._bytes(struct.calcsize(form)))[0]

    # The stack.

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise Refused("takes more values than it made")
        return self._stack.pop()

    def _top(self) -> Any:
        self._stack.append(value := self._pop())
        return value

    def _marked(self) -> list[Any]:
        """The values since the last mark, taken off the stack."""
        if not self._marks:
            raise Refused("lacks a mark")
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _container(self, kind: type) -> Any:
        if not isinstance(value := self._top(), kind):
            raise Refused("fills what is no list or dictionary")
        return value

    def _set_items(self, values: list[Any]) -> None:
        found = self._container(dict)
        if len(values) % 2:
            raise Refused("a key of a dictionary lacks its value")
        for key, value in zip(values[::2], values[1::2], strict=True):
            found[_key(key)] = value

    # Calls.

    def _find(self, module: str, name: str) -> Any:
        try:
            return self._known[module, name]
        except KeyError:
            raise _Forbidden(f"{module:.80}.{name:.80}") from None

    def _call(self) -> Any:
        args, function = self._pop(), self._pop()
        if not isinstance(args, tuple) or not callable(function):
            raise Refused("calls what is no function")
        found = function(*args)
        waits = isinstance(found, _Dtype | _Array)
        return _Placeholder(found) if waits else found

    def _build(self) -> None:
        state, empty = self._pop(), self._pop()
        if isinstance(empty, _Placeholder):
            if not isinstance(state, tuple):
                raise Refused("a state is no tuple")
            empty.built = empty.empty.build(state)
            self._stack.append(empty.built)
        elif isinstance(empty, dict):
            self._stack.append(empty)  # attributes of an OrderedDict
        else:
            raise Refused("a state of what has none")

    def _persistent(self, pid: Any) -> np.ndarray:
        if self._storages is None:
            raise _Forbidden("a torch tensor")
        # The device does not matter; files of PyTorch 0.3 could name a part of
        # the storage last.
        _, dtype, key, _, size, *part = pid
        if part not in ([], [None]):
            raise Refused("a part of a storage")
        if not isinstance(dtype, np.dtype) or type(size) is not int:
            raise Refused("a storage of an unknown type or size")
        return self._storages(dtype, _text(key), size)

    def _get(self, index: int) -> Any:
        if index not in self._memo:
            raise Refused("repeats what it has not made")
        value = self._memo[index]
        if isinstance(value, _Placeholder) and value.built is not None:
            return value.built
        return value

    def _append(self, values: list[Any]) -> None:
        self._container(list).extend(values)

    def _global(self) -> Any:
        module, name = self._line(), self._line()
        return self._find(_text(module), _text(name))

    def _named(self) -> Any:
        name, module = self._pop(), self._pop()
        return self._find(_text(module), _text(name))

    def _integer(self) -> int:
        text = self._line()
        # So protocols 0 and 1 write False and True.
        return text == b"01" if text in (b"00", b"01") else int(text)

    def _quoted(self) -> bytes:
        text = self._line()
        if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in b"\"'":
            raise Refused("a string lacks its quotes")
        return codecs.escape_decode(text[1:-1])[0]

    def _steps(self) -> dict[bytes, Callable[[], None]]:
        """What every instruction does."""
        stack, memo, number, read = (
            self._stack,
            self._memo,
            self._number,
            self._bytes,
        )

        def pushing(make: Callable[[], Any]) -> Callable[[], None]:
            return lambda: stack.append(make())

        def storing(index: Callable[[], int]) -> Callable[[], None]:
            def store() -> None:
                memo[index()] = self._top()

            return store

        def last(count: int) -> tuple[Any, ...]:
            return tuple([self._pop() for _ in range(count)][::-1])

        def pop_item() -> None:
            self._pop()

        def text(form: str) -> str:
            return str(read(number(form)), "utf-8", "surrogatepass")

        def version() -> None:
            if read(1) > b"\x05":
                raise Refused("is of a newer kind than 5")

        def long(size: int) -> int:
            if size > _LONGEST:
                raise Refused(f"holds a number of {size} bytes")
            return int.from_bytes(read(size), "little", signed=True)

        def dictionary() -> dict[Any, Any]:
            values = self._marked()
            return _ordered(zip(values[::2], values[1::2], strict=True))

        def frame() -> None:
            read(8)  # its length only tells how much may be read at once

        return {
            b"\x80": version,
            b"\x95": frame,
            b"(": lambda: self._marks.append(len(stack)),
            b"0": pop_item,
            b"1": lambda: self._marked().clear(),
            b"2": pushing(self._top),
            # Plain values.
            b"N": pushing(lambda: None),
            b"\x88": pushing(lambda: True),
            b"\x89": pushing(lambda: False),
            b"I": pushing(self._integer),
            b"L": pushing(lambda: int(self._line().rstrip(b"L"))),
            b"J": pushing(lambda: number("<i")),
            b"K": pushing(lambda: number("<B")),
            b"M": pushing(lambda: number("<H")),
            b"\x8a": pushing(lambda: long(number("<B"))),
            b"\x8b": pushing(lambda: long(number("<i"))),
            b"F": pushing(lambda: float(self._line())),
            b"G": pushing(lambda: number(">d")),
            b"S": pushing(self._quoted),
            b"T": pushing(lambda: read(number("<i"))),
            b"U": pushing(lambda: read(number("<B"))),
            b"B": pushing(lambda: read(number("<I"))),
            b"C": pushing(lambda: read(number("<B"))),
            b"\x8e": pushing(lambda: read(number("<Q"))),
            b"\x96": pushing(lambda: read(number("<Q"))),
            b"V": pushing(lambda: str(self._line(), "raw-unicode-escape")),
            b"X": pushing(lambda: text("<I")),
            b"\x8c": pushing(lambda: text("<B")),
            b"\x8d": pushing(lambda: text("<Q")),
            # Containers.
            b")": pushing(tuple),
            b"\x85": pushing(lambda: last(1)),
            b"\x86": pushing(lambda: last(2)),
            b"\x87": pushing(lambda: last(3)),
            b"t": pushing(lambda: tuple(self._marked())),
            b"]": pushing(list),
            b"l": pushing(self._marked),
            b"}": pushing(dict),
            b"d": pushing(dictionary),
            b"a": lambda: self._append([self._pop()]),
            b"e": lambda: self._append(self._marked()),
            b"s": lambda: self._set_items(list(last(2))),
            b"u": lambda: self._set_items(self._marked()),
            # The memo.
            b"p": storing(lambda: int(self._line())),
            b"q": storing(lambda: number("<B")),
            b"r": storing(lambda: number("<I")),
            b"\x94": storing(lambda: len(memo)),
            b"g": pushing(lambda: self._get(int(self._line()))),
            b"h": pushing(lambda: self._get(number("<B"))),
            b"j": pushing(lambda: self._get(number("<I"))),
            # What has a name.
            b"c": pushing(self._global),
            b"\x93": pushing(self._named),
            b"R": pushing(self._call),
            b"b": self._build,
            b"P": pushing(lambda: self._persistent((self._line(),))),
            b"Q": pushing(lambda: self._persistent(self._pop())),
        }


# Files -----------------------------------------------------------------------


def loads(data: bytes | bytearray, name: str | os.PathLike) -> Any:
    """Reads one pickle of numpy arrays, containers, numbers and strings.

    Args:
      data: the bytes of the file.
      name: its path, for messages.

    Returns:
      The object; byte strings of Python 2 come as ``bytes``, and dictionaries
      of every kind as ``dict``.

    Raises:
      UserError: the bytes are damaged, or name a function or class other than
        those of numeric arrays.
    """
    return _load(io.BytesIO(data), name)


def read_torch(path: str | os.PathLike, tensors: bool = False) -> Any:
    """Reads a ``torch.save`` file without PyTorch.

    Args:
      path: a file in the zip layout or in the one used before PyTorch 1.6.
      tensors: whether it may hold tensors, which come as numpy arrays that
        cannot be written to.

    Returns:
      The saved object.

    Raises:
      UserError: the file cannot be read, is damaged or too large, or holds
        tensors unasked or any class other than those of numeric arrays.
    """
    with paths.open_regular(path) as file:
        zipped = file.read(2) == b"PK"
        file.seek(0)
        try:
            if zipped:
                with untrusted.zip_members(file) as members:
                    return _read_zip(members, path, tensors)
        except Refused as error:
            raise UserError(f"{path}: damaged file ({error})") from None
    return _read_legacy(untrusted.read_bytes(path, LIMIT), path, tensors)


def _read_zip(
    members: untrusted.Members, path: str | os.PathLike, tensors: bool
) -> Any:
    """FOLDER/data.pkl holds the object, FOLDER/data/KEY a storage."""
    names = [n for n in members.names if n.endswith("/data.pkl")]
    if len(names) != 1:
        raise UserError(f"{path}: not a torch.save file")
    folder = names[0].removesuffix("data.pkl")
    order = f"{folder}byteorder"
    if order in members.names and members.read(order) != b"little":
        raise UserError(f"{path}: written by a big-endian machine")
    held: dict[str, bytearray] = {}

    def storages(dtype: np.dtype, key: str, size: int) -> np.ndarray:
        if key not in held:  # many tensors may share one
            held[key] = members.read(f"{folder}data/{key}")
        if not 0 < size * dtype.itemsize <= len(held[key]):
            return _no_numbers(dtype, size)
        return np.frombuffer(held[key], dtype, size)

    content = io.BytesIO(members.read(names[0]))
    return _load(content, path, storages if tensors else None)


def _no_numbers(dtype: np.dtype, size: int) -> np.ndarray:
    """An empty storage; numpy has no buffer of no bytes."""
    if size:
        raise Refused("a storage is longer than its numbers")
    return np.zeros(0, dtype)


def _read_legacy(data: bytes, path: str | os.PathLike, tensors: bool) -> Any:
    """Pickles one after the other, then each storage's size and numbers."""
    file = io.BytesIO(data)
    if _load(file, path) != _TORCH_MAGIC:
        raise UserError(f"{path}: not a torch.save file")
    for _ in range(_TORCH_PREFIX - 1):
        _load(file, path)
    held: dict[str, np.ndarray] = {}
    left = len(data)

    def storages(dtype: np.dtype, key: str, size: int) -> np.ndarray:
        nonlocal left
        if key not in held:
            left -= size * dtype.itemsize
            if size < 0 or left < 0:
                raise Refused("storages longer than the file")
            # Filled further down, where its numbers come.
            held[key] = np.zeros(size, dtype)
        return held[key]

    content = _load(file, path, storages if tensors else None)
    if not tensors:
        return content
    keys = _load(file, path)
    if not isinstance(keys, list) or not all(
        isinstance(key, str | bytes) for key in keys
    ):
        raise UserError(f"{path}: damaged file (no list of storages)")
    for key in keys:
        name = key.decode("latin1") if isinstance(key, bytes) else key
        if name not in held:
            raise UserError(f"{path}: damaged file (an unknown storage)")
        size = int.from_bytes(file.read(8), "little")
        storage = held.pop(name)
        numbers = file.read(storage.nbytes)
        if len(storage) != size or len(numbers) != storage.nbytes:
            raise UserError(f"{path}: damaged file (storage {name})")
        storage[:] = np.frombuffer(numbers, storage.dtype)
    if held:
        raise UserError(f"{path}: damaged file (no storage {min(held)})")
    return content


def _load(
    file: io.BytesIO,
    name: str | os.PathLike,
    storages: Storages | None = None,
) -> Any:
    try:
        return _Machine(file, storages).run()
    except _Forbidden as error:
        known = "numpy arrays" if storages is None else "arrays and tensors"
        raise UserError(
            f"{name}: refused, holds {error}; only {known} are read"
        ) from None
    # A damaged pickle fails wherever its numbers are used.
    except Exception as error:
        about = " ".join(str(error).split())
        if not isinstance(error, Refused):
            about = f"{type(error).__name__}: {about}"
        raise UserError(f"{name}: damaged or not a pickle ({about})") from None
