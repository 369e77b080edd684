"""Reads pickles from strangers: numpy arrays and plain Python values only.

CIFAR comes as pickles of 2009, its human labels as PyTorch files, which hold
pickles too.  A pickle can name any function to call while it is read, so this
reader knows just the few that numpy arrays consist of and refuses the rest.
"""

import collections
import io
import os
import pickle
import zipfile
import zlib
from typing import Any

import numpy as np

from jaxnlt.errors import UserError

# First pickle of PyTorch files written before version 1.6.
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
# Pickles in front of the object in such a file: magic, version, system.
_TORCH_PREFIX = 3


def _encode(text: str, encoding: str) -> bytes:
    """Stands in for ``_codecs.encode``, as which old pickles spell bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r}")
    return text.encode("latin1")


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


class _Forbidden(Exception):
    """The pickle names something that arrays do not consist of."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Forbidden(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _Forbidden("a torch tensor")


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


def read_torch(path: str | os.PathLike) -> Any:
    """Reads a ``torch.save`` file of numpy arrays without PyTorch.

    Args:
      path: a file in the zip layout or in the one used before PyTorch 1.6.

    Returns:
      The saved object.

    Raises:
      UserError: the file cannot be read, is damaged, or holds tensors or any
        class other than those of numpy arrays.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if data.startswith(b"PK"):
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                names = [
                    n for n in archive.namelist() if n.endswith("/data.pkl")
                ]
                if len(names) != 1:
                    raise UserError(f"{path}: not a torch.save file")
                return loads(archive.read(names[0]), path)
        # A cut or flipped archive fails in any of zlib's and zipfile's ways.
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            ValueError,
        ) as error:
            raise UserError(f"{path}: damaged file ({error})") from None
    file_like = io.BytesIO(data)
    first = _load(file_like, path)
    if first != _TORCH_MAGIC:
        raise UserError(f"{path}: not a torch.save file")
    for _ in range(_TORCH_PREFIX - 1):
        _load(file_like, path)
    return _load(file_like, path)


def _load(file: io.BytesIO, name: str | os.PathLike) -> Any:
    try:
        return _Unpickler(file, encoding="bytes").load()
    except _Forbidden as error:
        raise UserError(
            f"{name}: refused, holds {error}; only numpy arrays are read"
        ) from None
    # The pickle module promises no exception of its own for damaged input.
    except Exception as error:
        raise UserError(
            f"{name}: damaged or not a pickle ({type(error).__name__}: {error})"
        ) from None
