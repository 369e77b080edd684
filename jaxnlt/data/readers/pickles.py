"""Reads untrusted pickles: numpy arrays and plain Python values only.

CIFAR is distributed as pickles, its human labels and trained networks as
PyTorch files, which hold pickles too.  A pickle can name any function to call
while it is read; this reader knows only the few that rebuild numpy arrays and,
on request, PyTorch's tensors, and refuses all others.
"""

import collections
import io
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxnlt.runtime.errors import UserError

# First pickle of PyTorch files written before version 1.6.
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
# Pickles in front of the object in such a file: magic, version, system.
_TORCH_PREFIX = 3


def _encode(text: str, encoding: str) -> bytes:
    """Stands in for ``_codecs.encode``, with which old pickles write bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r}")
    return text.encode("latin1")


def _tensor(
    storage: np.ndarray,
    offset: int,
    size: Sequence[int],
    stride: Sequence[int],
    *rest: Any,
) -> np.ndarray:
    """Stands in for ``torch._utils._rebuild_tensor_v2``: a view of a storage.

    ``rest`` concerns gradients.
    """
    if 0 in size:
        return np.zeros(size, storage.dtype)
    pairs = list(zip(size, stride, strict=True))
    last = offset + sum((n - 1) * step for n, step in pairs)
    # A view beyond its storage would show other memory.
    if min(offset, *size, *stride, 0) < 0 or last >= len(storage):
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    return np.lib.stride_tricks.as_strided(
        storage[offset:],
        size,
        [step * storage.itemsize for step in stride],
        writeable=False,
    )


def _parameter(data: np.ndarray, *rest: Any) -> np.ndarray:
    """Stands in for ``torch._utils._rebuild_parameter``."""
    return data


# numpy's own rebuilding functions, taken from what it pickles, because their
# home module changed its name with numpy 2.
_RECONSTRUCT = np.empty(0).__reduce__()[0]  # type: ignore[index]
_FROMBUFFER = np.empty(1).__reduce_ex__(5)[0]  # type: ignore[index]
_SCALAR = np.int64(0).__reduce__()[0]  # type: ignore[index]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy.core.numeric", "_frombuffer"): _FROMBUFFER,
    ("numpy._core.numeric", "_frombuffer"): _FROMBUFFER,
    ("numpy.core.multiarray", "scalar"): _SCALAR,
    ("numpy._core.multiarray", "scalar"): _SCALAR,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): collections.OrderedDict,
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
# (dtype, key, numbers) -> the numbers of a tensor's storage.
_Storages = Callable[[np.dtype, str, int], np.ndarray]


class _Forbidden(Exception):
    """The pickle names something that arrays do not consist of."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, storages: _Storages | None):
        super().__init__(file, encoding="bytes")
        self._storages = storages
        self._known = _ALLOWED if storages is None else _ALLOWED | _TENSORS

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._known[module, name]
        except KeyError:
            raise _Forbidden(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        if self._storages is None:
            raise _Forbidden("a torch tensor")
        # The device does not matter; files of PyTorch 0.3 could name a part of
        # the storage last.
        _, dtype, key, _, size, *part = pid
        if part not in ([], [None]):
            raise pickle.UnpicklingError("a part of a storage")
        key = key.decode() if isinstance(key, bytes) else key
        return self._storages(dtype, key, size)


def loads(data: bytes, name: str | os.PathLike) -> Any:
    """Reads one pickle of numpy arrays, containers, numbers and strings.

    Args:
      data: the bytes of the file.
      name: its path, for messages.

    Returns:
      The object; byte strings of Python 2 come as ``bytes``.

    Raises:
      UserError: the bytes are damaged, or name a function or class other than
        those of numpy arrays.
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
      UserError: the file cannot be read, is damaged, or holds tensors unasked
        or any class other than those of numpy arrays.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    try:
        if not data.startswith(b"PK"):
            return _read_legacy(data, path, tensors)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read_zip(archive, path, tensors)
    # A cut or flipped file fails in any of zlib's and zipfile's ways, or names
    # its storages by something else than text.
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise UserError(f"{path}: damaged file ({error})") from None


def _read_zip(
    archive: zipfile.ZipFile, path: str | os.PathLike, tensors: bool
) -> Any:
    """FOLDER/data.pkl holds the object, FOLDER/data/KEY a storage."""
    names = [n for n in archive.namelist() if n.endswith("/data.pkl")]
    if len(names) != 1:
        raise UserError(f"{path}: not a torch.save file")
    folder = names[0].removesuffix("data.pkl")
    order = f"{folder}byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise UserError(f"{path}: written by a big-endian machine")

    def storages(dtype: np.dtype, key: str, size: int) -> np.ndarray:
        return np.frombuffer(archive.read(f"{folder}data/{key}"), dtype, size)

    content = io.BytesIO(archive.read(names[0]))
    return _load(content, path, storages if tensors else None)


def _read_legacy(data: bytes, path: str | os.PathLike, tensors: bool) -> Any:
    """Pickles one after the other, then each storage's size and numbers."""
    file = io.BytesIO(data)
    if _load(file, path) != _TORCH_MAGIC:
        raise UserError(f"{path}: not a torch.save file")
    for _ in range(_TORCH_PREFIX - 1):
        _load(file, path)
    held: dict[str, np.ndarray] = {}

    def storages(dtype: np.dtype, key: str, size: int) -> np.ndarray:
        if size * dtype.itemsize > len(data):
            raise pickle.UnpicklingError("a storage longer than the file")
        # Filled further down, where its numbers come.
        return held.setdefault(key, np.zeros(size, dtype))

    content = _load(file, path, storages if tensors else None)
    if not tensors:
        return content
    for key in _load(file, path):
        key = key.decode() if isinstance(key, bytes) else key
        size = int.from_bytes(file.read(8), "little")
        storage = held.pop(key, np.zeros(0))
        numbers = file.read(storage.nbytes)
        if len(storage) != size or len(numbers) != storage.nbytes:
            raise UserError(f"{path}: damaged file (storage {key})")
        storage[:] = np.frombuffer(numbers, storage.dtype)
    if held:
        raise UserError(f"{path}: damaged file (no storage {min(held)})")
    return content


def _load(
    file: io.BytesIO,
    name: str | os.PathLike,
    storages: _Storages | None = None,
) -> Any:
    try:
        return _Unpickler(file, storages).load()
    except _Forbidden as error:
        known = "numpy arrays" if storages is None else "arrays and tensors"
        raise UserError(
            f"{name}: refused, holds {error}; only {known} are read"
        ) from None
    # The pickle module promises no exception of its own for damaged input.
    except Exception as error:
        about = " ".join(str(error).split())
        raise UserError(
            f"{name}: damaged or not a pickle ({type(error).__name__}: {about})"
        ) from None
