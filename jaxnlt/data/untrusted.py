"""Reads files that others made: what they declare is checked before it is done.

Only regular files are opened.  Sizes are compared with limits and with what
the file holds before memory is taken, and only the parts that are asked for
are unpacked.
"""

import ast
import io
import json
import math
import os
import re
import reprlib
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

from jaxnlt.runtime import paths
from jaxnlt.runtime.errors import UserError

MIB = 1 << 20
#: An archive may unpack to this many bytes, or to this many times its own
#: size if that is more.  Images compress to a tenth, not to a thousandth.
UNPACKED, RATIO = 256 * MIB, 100
#: The most bytes of a text; a list of ten million images has half of it.
TEXT = 512 * MIB
#: JSON takes up to twenty times its length when it is read.
JSON = 256 * MIB
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_NPY_HEADER = re.compile(rb"\x93NUMPY([\x01-\x03])\x00", re.DOTALL)
#: Numbers and text; objects, records and dates are no data of ours.
_NPY_TYPE = re.compile(
    r"[|<>=](b1|[iu][1248]|f[248]|c8|c16|[SU][1-9]\d{0,8})", re.ASCII
)


class Refused(Exception):
    """What a file holds is wrong or too large; the reader names the file."""


def shown(value: object) -> str:
    """A value from a file, in a message: short, however deep or long it is."""
    if isinstance(value, int) and abs(value) >= 10**40:
        return f"a number of {value.bit_length()} bits"
    return reprlib.repr(value)


def size_text(size: int) -> str:
    """A number of bytes for people, such as '2.1 GiB'."""
    if size < 1 << 30:
        return f"{size / MIB:.1f} MiB"
    return f"{size / (1 << 30):.1f} GiB"


def unpack_limit(size: int) -> int:
    """The bytes to which an archive of so many bytes may unpack."""
    return max(UNPACKED, RATIO * size)


def check_memory(size: int, what: str) -> None:
    """Refuses what is larger than the memory of this machine.

    Args:
      size: in bytes, as declared.
      what: the subject of the message.

    Raises:
      Refused: it is larger.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise Refused(
            f"{what} takes {size_text(size)}, this machine has "
            f"{size_text(memory)} of memory"
        )


# Bytes, text, JSON -----------------------------------------------------------


def read_bytes(
    path: str | os.PathLike, limit: int = 0, field: str = ""
) -> bytes:
    """Reads a whole regular file.

    Args:
      path: the file.
      limit: the most bytes; 0 is what the machine's memory holds.
      field: the flag or field that names it, for messages.

    Returns:
      Its content.

    Raises:
      UserError: it cannot be opened, is no regular file, or is too large.
    """
    with paths.open_regular(path, field) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            check_memory(size, "it")
            if limit and size > limit:
                raise Refused(
                    f"has {size_text(size)}, at most {size_text(limit)} are "
                    "read"
                )
            return file.read(size)
        except (Refused, OSError) as error:
            raise UserError(f"{path}: {error}") from None


def read_text(path: str | os.PathLike, field: str = "") -> str:
    """Reads a text in UTF-8.

    Args:
      path: the file; a byte order mark is passed over.
      field: the flag or field that names it, for messages.

    Returns:
      Its content, line ends as they are.

    Raises:
      UserError: it cannot be opened, is too large, or is no such text.
    """
    data = read_bytes(path, TEXT, field)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text in UTF-8 ({error})") from None
    if "\0" in text:
        raise UserError(f"{path}: not a text in UTF-8 (holds a NUL)")
    return text


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text; what has two meanings is refused.

    Args:
      text: UTF-8 where it is bytes.

    Returns:
      Dicts, lists, strings, finite numbers, booleans, None.

    Raises:
      ValueError: not JSON, too deep, a key that stands twice, NaN, or a number
        beyond a double.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys: set[str] = set()
            for key, _ in pairs:
                if key in keys:
                    raise ValueError(f"the key {shown(key)} stands twice")
                keys.add(key)
        return found

    def constant(name: str) -> None:
        raise ValueError(f"{name} is no number of JSON")

    def finite(number: str) -> float:
        if not math.isfinite(value := float(number)):
            raise ValueError(f"{number:.20}... is too large a number")
        return value

    if len(text) > JSON:
        raise ValueError(f"longer than {size_text(JSON)}")
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    try:
        return json.loads(
            text,
            object_pairs_hook=once,
            parse_constant=constant,
            parse_float=finite,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: str | os.PathLike, field: str = "") -> Any:
    """Reads a JSON file, see ``parse_json``.

    Args:
      path: the file.
      field: the flag or field that names it, for messages.

    Returns:
      Its value.

    Raises:
      UserError: it cannot be read or is no JSON.
    """
    data = read_bytes(path, JSON, field)
    try:
        return parse_json(data)
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None


# Archives --------------------------------------------------------------------


class Members:
    """The members of a zip archive, of which only those asked for are read.

    Args:
      archive: the open archive.
      size: bytes of its file.
    """

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self._archive = archive
        self._limit, self._unpacked = unpack_limit(size), 0
        self._infos = {info.filename: info for info in archive.infolist()}

    @property
    def names(self) -> list[str]:
        """Names of all members."""
        return list(self._infos)

    def read(self, name: str) -> bytearray:
        """Unpacks a member.

        Args:
          name: of ``names``.

        Returns:
          Its content, of the size that the archive declares.

        Raises:
          Refused: it is missing, encrypted, packed in an unusual way, or what
            has been read is then more than an archive of this size may hold.
          Exception: whatever zipfile and zlib raise at a damaged archive.
        """
        info = self._infos.get(name)
        if info is None:
            raise Refused(f"holds no {name}")
        if info.flag_bits & 1:
            raise Refused(f"{name} is encrypted; pack it without a password")
        if info.compress_type not in _METHODS:
            raise Refused(
                f"{name} is packed by method {info.compress_type}; pack it "
                "with deflate or not at all"
            )
        self._unpacked += info.file_size
        if self._unpacked > self._limit:
            raise Refused(
                f"{name} unpacks to {size_text(info.file_size)}; an archive of "
                f"this size may hold {size_text(self._limit)}, store it "
                "without compression if that is right"
            )
        check_memory(info.file_size, name)
        # Filled piece by piece: read() would hold a large member twice.
        data, filled = bytearray(info.file_size), 0
        with self._archive.open(info) as stream:
            while piece := stream.read(MIB):
                data[filled : filled + len(piece)] = piece
                filled += len(piece)
        if filled != info.file_size:
            raise Refused(f"{name} is cut short")
        return data


@contextmanager
def zip_members(file: BinaryIO) -> Iterator[Members]:
    """Opens a zip archive.

    Args:
      file: an open regular file.

    Yields:
      Its members.

    Raises:
      Refused: whatever is wrong with it, in the block too.
      MemoryError: as Refused.
    """
    try:
        size = os.fstat(file.fileno()).st_size
        with zipfile.ZipFile(file) as archive:
            yield Members(archive, size)
    except (Refused, UserError):
        raise
    except MemoryError:
        raise Refused("takes more memory than is free") from None
    # A cut or flipped archive fails in any of the ways of zipfile and zlib.
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        LookupError,
        OSError,
        OverflowError,
        RuntimeError,  # NotImplementedError among them
        TypeError,
        ValueError,
    ) as error:
        raise Refused(str(error) or type(error).__name__) from None


def read_npz(
    path: str | os.PathLike, wanted: Collection[str] | None = None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Reads arrays of an npz file, never an object.

    Args:
      path: the file.
      wanted: names of the arrays to read, where they are there; None for all.

    Returns:
      Arrays by name, and the names of those that were not read.

    Raises:
      UserError: missing, truncated, damaged, too large, or an array that is
        wanted holds objects.
    """
    with paths.open_regular(path) as file:
        try:
            with zip_members(file) as members:
                places = {n.removesuffix(".npy"): n for n in members.names}
                names = [n for n in places if wanted is None or n in wanted]
                arrays = {}
                for name in names:
                    try:
                        arrays[name] = parse_npy(members.read(places[name]))
                    except Refused as error:
                        raise Refused(f"{name}: {error}") from None
        except Refused as error:
            raise UserError(
                f"{path}: truncated, damaged or not an npz file ({error})"
            ) from None
    return arrays, [name for name in places if name not in arrays]


def parse_npy(data: bytes | bytearray) -> np.ndarray:
    """The array of a npy file.

    Args:
      data: the whole file.

    Returns:
      The array, a view of the bytes.

    Raises:
      Refused: damaged, of objects or records, or not of the size that its
        header declares.

    Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
    """
    match = _NPY_HEADER.match(data)
    if match is None:
        raise Refused("not an array of numpy's")
    width = 2 if match[1] == b"\x01" else 4
    start = match.end() + width
    end = start + int.from_bytes(data[match.end() : start], "little")
    # numpy's own headers have some hundred characters.
    if end > len(data) or end - start > 1 << 16:
        raise Refused("its header is damaged")
    try:
        header = ast.literal_eval(data[start:end].decode("utf-8").strip())
        code, shape = header["descr"], header["shape"]
        order = "F" if header["fortran_order"] else "C"
        if not isinstance(code, str) or not _NPY_TYPE.fullmatch(code):
            raise Refused(f"is of the type {shown(code)}, not numbers or text")
        if not all(type(n) is int and n >= 0 for n in shape):
            raise Refused(f"has the shape {shown(shape)}")
        dtype = np.dtype(code)
    # literal_eval raises these, depending on what is wrong.
    except (
        ValueError,
        SyntaxError,
        LookupError,
        TypeError,
        RecursionError,
        MemoryError,
    ) as error:
        about = type(error).__name__
        raise Refused(f"its header is damaged ({about})") from None
    return plain_array(memoryview(data)[end:], dtype, shape, order)


def plain_array(
    data: bytes | bytearray | memoryview,
    dtype: np.dtype,
    shape: Any,
    order: str = "C",
) -> np.ndarray:
    """An array over raw numbers.

    Args:
      data: the bytes of the numbers.
      dtype: of numbers or text.
      shape: tuple of ints.
      order: 'C' or 'F'.

    Returns:
      The array, which cannot be written to where the data cannot.

    Raises:
      Refused: the shape and the data are not of one size.
    """
    if math.prod(shape) * dtype.itemsize != len(data):
        raise Refused(
            f"declares {shown(tuple(shape))} of {dtype}, holds {len(data)} "
            "bytes"
        )
    if not len(data):
        return np.zeros(shape, dtype)
    return np.frombuffer(data, dtype).reshape(shape, order=order)  # type: ignore[call-overload,no-any-return]


class Bounded(io.RawIOBase):
    """A stream of unpacked bytes that ends with ``Refused`` at a limit.

    Args:
      stream: what unpacks.
      limit: in bytes.
    """

    def __init__(self, stream: io.BufferedIOBase, limit: int) -> None:
        super().__init__()
        self._stream, self._left, self._limit = stream, limit, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise Refused(
                f"unpacks to more than {size_text(self._limit)}, the most for "
                "an archive of this size"
            )
        buffer[: len(data)] = data
        return len(data)
