"""Changes files as accidents and ill will do; all is drawn from a generator."""

import functools
import gzip
import io
import json
import os
import pathlib
import pickle
import re
import struct
import warnings
import zipfile
import zlib

import numpy as np
from PIL import Image

#: What stands where a value is expected.
NASTY = [
    None, True, -1, 0, 7, 2**31, 2**63, 10**30, 1.5, float("nan"),
    float("inf"), "", " ", "x", "1", "NaN", "é", "\x1b[2J", "a\u2028b", "a\nb",
    "=cmd|x", "../../x", "~nobody/x", "/dev/zero", "$\\frac{$", "x" * 5000,
    [], {}, [[]], [[1], [1, 2]], {"a": 1}, "@deep", "@huge",
]  # fmt: skip
_LITERALS = {
    b'"@deep"': b"[" * 100_000 + b"]" * 100_000,
    b'"@huge"': b"9" * 5000,
}
_WORDS = [
    b"", b"-1", b"0", b"3", b"1e308", b"nan", b"9" * 30, b"9" * 5000, b"\x00",
    b"\x1b[2J", b"\r", b"\xe9", b"\xe2\x80\xa8", b'"', b",", b"\t", b"..",
    b"/etc/passwd", b"=cmd|x", b"x" * 200_000, b" a ", b"\xef\xbb\xbf",
]  # fmt: skip
_NAMES = [
    b"caf\xe9", b"a\nb", b"\x1b[2Jx", "a\u2028b".encode(), b"$\\frac{$",
    b"=cmd|x", b"x" * 240, b".hidden", b" x ", b"-rf", b"%s%n", b'a,"b',
    b"__MACOSX", b"Thumbs.db", b"\\x", b"0" * 40, "Ä".encode(),
]  # fmt: skip
_LARGE = 1 << 26  # bytes; only a file that an earlier change made is larger


def pick(rng, values):
    return values[int(rng.integers(len(values)))]


def any_file(rng: np.random.Generator, folder: pathlib.Path) -> str:
    """Alters one thing in a folder, sometimes two; says what."""
    done = []
    for _ in range(pick(rng, (1, 1, 1, 2))):
        files = sorted(
            path
            for path in folder.rglob("*")
            if path.is_file() and path.stat().st_size < _LARGE
        )
        if not files:
            break
        # By type first: one list counts as much as a hundred images.
        types = sorted({_type(path) for path in files})
        chosen = pick(rng, types)
        path = pick(rng, [p for p in files if _type(p) == chosen])
        name = path.relative_to(folder)
        way = pick(rng, (_content,) * 14 + (_replace,) * 4 + (_rename,))
        done.append(f"{way(rng, path, folder)} {name}")
    return ", ".join(done)


def _type(path: pathlib.Path) -> str:
    return path.suffix or re.sub(r"[0-9a-f]{8,}|\d+", "", path.name)


def _replace(rng, path: pathlib.Path, folder) -> str:
    """Puts something else in the place of a file."""
    way = pick(rng, list(_PLACES))
    path.unlink()
    _PLACES[way](path)
    return f"{way} for"


def _sparse(path: pathlib.Path) -> None:
    path.touch()
    os.truncate(path, 2 << 30)


_PLACES = {
    "nothing": lambda path: None,
    "folder": lambda path: path.mkdir(),
    "FIFO": lambda path: os.mkfifo(path),
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "loop of links": lambda path: path.symlink_to(path.name),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "2 GiB of zeros": _sparse,
    "empty file": lambda path: path.touch(),
    "{}": lambda path: path.write_text("{}"),
    "[]": lambda path: path.write_text("[]"),
    "null": lambda path: path.write_text("null"),
}


def _rename(rng, path: pathlib.Path, folder) -> str:
    """Gives a file, or the folder that holds it, an odd name."""
    source = path if path.parent == folder else pick(rng, (path, path.parent))
    end = os.fsencode(path.suffix) if source is path else b""
    name = pick(rng, _NAMES) + pick(rng, (b"", end))
    target = os.path.join(os.fsencode(source.parent), name)
    if not os.path.lexists(target):
        os.rename(os.fsencode(source), target)
    return f"{name[:20]!r} as name of"


def _content(rng, path: pathlib.Path, folder) -> str:
    """Changes the bytes of a file, or the objects that they encode."""
    data, ways = path.read_bytes(), _ways(path)
    way = pick(rng, ways * 3 + BYTES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            changed = way(rng, data)
        # What an earlier change has damaged has no structure any more.
        except Exception:
            way, changed = flip, flip(rng, data)
    path.unlink()
    path.write_bytes(changed)
    return f"{way.__name__} of"


def _ways(path: pathlib.Path):
    if path.suffix in (".jpg", ".png", ".gif", ".bmp", ".webp", ".tiff"):
        return [image, png]
    if path.suffix in (".pth", ".pt") and not zipfile.is_zipfile(path):
        return [pickled]
    if path.name.startswith(("data_batch", "test_batch", "batches")):
        return [pickled] * (path.suffix != ".bin")
    if path.suffix in _STRUCTURES:
        return _STRUCTURES[path.suffix]
    return [text] if b"\0" not in path.read_bytes()[:1000] else []


# Bytes -----------------------------------------------------------------------


def flip(rng, data: bytes) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(pick(rng, (1, 1, 4, 64))):
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def cut(rng, data: bytes) -> bytes:
    return data[: int(rng.integers(len(data) + 1))]


def splice(rng, data: bytes) -> bytes:
    """Zeroes, doubles, drops or overwrites a part."""
    first, last = sorted(int(v) for v in rng.integers(len(data) + 1, size=2))
    last = min(last, first + pick(rng, (4, 100, 1 << 20)))
    part = data[first:last]
    ways = bytes(len(part)), part * 2, b"", rng.bytes(len(part))
    return data[:first] + pick(rng, ways) + data[last:]


BYTES = [flip, flip, cut, splice, splice, splice]


# Text and JSON ---------------------------------------------------------------


def text(rng, data: bytes) -> bytes:
    """Changes a word, a line or the line ends."""
    lines = data.split(b"\n")
    row, way = int(rng.integers(len(lines))), int(rng.integers(9))
    if way < 4:
        words = list(re.finditer(rb"[^\s,/\t]+", lines[row]))
        first, last = pick(rng, words).span() if words else (0, 0)
        line = lines[row]
        lines[row] = line[:first] + pick(rng, _WORDS) + line[last:]
    elif way == 4:
        del lines[row]
    elif way == 5:
        lines.insert(row, pick(rng, lines))
    elif way == 6:
        lines[row] = re.sub(rb"[,\s][^,\s]*$", b"", lines[row])
    elif way == 7:
        lines[row] += pick(rng, (b",x", b" x", b"\t1", b'"'))
    else:
        return pick(rng, (b"\r\n", b"\r", b"\n\n")).join(lines)
    return b"\n".join(lines)


def node(rng, value):
    """The same tree with one node changed, removed, renamed or doubled."""
    down = isinstance(value, dict | list) and len(value) > 0
    if not down or rng.random() < 0.1:
        return pick(rng, NASTY)
    value = value.copy()
    key = pick(
        rng, list(value) if isinstance(value, dict) else range(len(value))
    )
    if isinstance(value[key], dict | list) and rng.random() < 0.6:
        value[key] = node(rng, value[key])
        return value
    way = int(rng.integers(6))
    if way == 0:
        del value[key]
    elif way == 1 and isinstance(value, list):
        value.insert(key, value[key])
    elif way == 1:
        value[pick(rng, ("x", "", "\x1b[2J", "é"))] = value.pop(key)
    elif way == 2 and isinstance(value[key], int | float):
        value[key] += pick(rng, (1, -1, 0.25))
    else:
        value[key] = pick(rng, NASTY)
    return value


def tree(rng, data: bytes) -> bytes:
    """Changes a node of a JSON file."""
    changed = json.dumps(node(rng, json.loads(data))).encode()
    for mark, literal in _LITERALS.items():
        changed = changed.replace(mark, literal)
    return changed


def line_tree(rng, data: bytes) -> bytes:
    lines = data.splitlines()
    row = int(rng.integers(len(lines)))
    lines[row] = tree(rng, lines[row])
    return b"\n".join(lines) + b"\n"


def safetensors(rng, data: bytes) -> bytes:
    size = int.from_bytes(data[:8], "little")
    if rng.random() < 0.1:
        return struct.pack("<Q", pick(rng, (0, 1, 2**40, 2**63))) + data[8:]
    header = tree(rng, data[8 : 8 + size])
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


# Arrays, archives, pickles ---------------------------------------------------


def array(rng, value: np.ndarray):
    """An array of another type, shape or content."""
    way, value = int(rng.integers(8)), np.asarray(value)
    if way < 2:
        kinds = (
            "f4",
            "f8",
            "i1",
            "i8",
            "u8",
            "c16",
            "U4",
            "S3",
            "O",
            "?",
            "M8[s]",
        )
        return value.astype("i8").astype(pick(rng, kinds))
    if way == 2:
        return pick(rng, (value.ravel(), value[None], value[:0], value.T))
    if way == 3:
        return value[: int(rng.integers(len(value) + 1))]
    if way == 4:
        return np.concatenate([value, value[:1]])
    if way == 5:
        return np.array(pick(rng, NASTY), object)
    changed = value.astype("f8" if way == 7 else "i8")
    odd = (-1, 1e8, 2**31, 2**62, 300, np.nan if way == 7 else 5)
    changed.flat[int(rng.integers(changed.size))] = pick(rng, odd)
    return changed


def arrays(rng, data: bytes) -> bytes:
    """Changes an array of an npz file, its name, or adds one."""
    with np.load(io.BytesIO(data)) as archive:
        content = dict(archive)
    key = pick(rng, sorted(content))
    way = int(rng.integers(8))
    if way == 0:
        del content[key]
    elif way == 1:
        content[pick(rng, _KEYS)] = content.pop(key)
    elif way == 2:
        content[pick(rng, _KEYS)] = array(rng, content[key])
    else:
        content[key] = array(rng, content[key])
    out = io.BytesIO()
    pick(rng, (np.savez, np.savez_compressed))(out, **content)
    if rng.random() < 0.1:
        with zipfile.ZipFile(out, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("lie.npy", _lying(rng))
    return out.getvalue()


_KEYS = ("class_names", "test_labels", "test_images", "extra", "\x1b[2J", "é")


def _lying(rng) -> bytes:
    """An array whose header promises more than follows, or nonsense."""
    shapes = "(1000000000000,)", "(4294967296, 4)", "(-1,)", "('x',)", "(2,"
    kinds = "'|u1'", "'<f8'", "'|O'", "[('a','<f8',(2,2))]", "'<U99999999'"
    head = f"{{'descr': {pick(rng, kinds)}, 'fortran_order': False, "
    head += f"'shape': {pick(rng, shapes)}}}\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(head)) + head.encode()


def members(rng, data: bytes) -> bytes:
    """Changes, doubles, renames or drops a member of a zip archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        content = [(name, archive.read(name)) for name in archive.namelist()]
    row, way = int(rng.integers(len(content))), int(rng.integers(8))
    name, body = content[row]
    if way == 0:
        del content[row]
    elif way == 1:
        content.insert(row, (name, flip(rng, body)))
    elif way == 2:
        content[row] = (pick(rng, ("x", "../x", "\x1b[2J", name + "/")), body)
    elif way == 3 and name.endswith(".npy"):
        content[row] = (name, _lying(rng))
    else:
        ways = BYTES + [pickled] * (9 * name.endswith(".pkl"))
        content[row] = (name, pick(rng, ways)(rng, body))
    out = io.BytesIO()
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)
    with zipfile.ZipFile(out, "w", pick(rng, methods)) as archive:
        for name, body in content:
            archive.writestr(name, body)
        if rng.random() < 0.02:
            archive.writestr("bomb.npy", _zeros())
            bomb = archive.getinfo("bomb.npy")
            bomb.compress_type, bomb.file_size = zipfile.ZIP_DEFLATED, 96 << 24
    return out.getvalue()


@functools.cache
def _zeros() -> bytes:
    """1.5 GiB of zeros, compressed."""
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = squeezer.compress(bytes(1 << 24))
    block += squeezer.flush(zlib.Z_FULL_FLUSH)
    return 96 * block + squeezer.flush()


def headers(rng, data: bytes) -> bytes:
    """Changes a header of a zip archive: flags, method, sizes, names."""
    places = [m.start() for m in re.finditer(rb"PK\x01\x02|PK\x03\x04", data)]
    place = pick(rng, places) + 4 + int(rng.integers(42))
    changed = bytearray(data)
    changed[min(place, len(data) - 1)] = pick(rng, (0, 1, 9, 99, 127, 255))
    return bytes(changed)


_OPCODES = (
    b"cos\nsystem\n(S'true'\ntR.",
    # The state of a dtype that passes raw bytes for object pointers.
    b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O8'\nI00\nI01\ntR"
    b"(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbB\x08\0\0\0AAAAAAAAtR.",
    b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
    b"(" * 100_000 + b".",
    b"]" + b"(a" * 50_000 + b".",
    b"(lp0\n" + b"g0\na" + b".",
    b"I" + b"9" * 5000 + b"\n.",
    b"\x80\x02]q\0" + b"(h\0h\0eq\0" * 40 + b".",
)


def pickled(rng, data: bytes) -> bytes:
    """Changes the objects of a pickle, or its instructions."""
    if rng.random() < 0.5:
        return pick(rng, _OPCODES)
    # Those of PyTorch name its classes: only their bytes can be changed.
    content = pickle.loads(data, encoding="bytes")
    if isinstance(content, dict) and rng.random() < 0.5:
        content = dict(content)
        key = pick(rng, list(content))
        content[key] = array(rng, np.asarray(content[key]))
    else:
        content = node(rng, content)
    return pickle.dumps(content, pick(rng, (0, 1, 2, 4, 5)))


def gunzipped(rng, data: bytes) -> bytes:
    """Changes what a gzip file holds."""
    return gzip.compress(pick(rng, BYTES)(rng, gzip.decompress(data)), 1)


# Images ----------------------------------------------------------------------


def image(rng, data: bytes) -> bytes:
    """The picture in another mode, size or format."""
    found = Image.open(io.BytesIO(data))
    size = pick(rng, ((1, 1), (1, 900), found.size, found.size, (8, 9)))
    modes = (
        "1",
        "L",
        "LA",
        "P",
        "RGBA",
        "CMYK",
        "I;16",
        "I",
        "F",
        "LAB",
        "YCbCr",
    )
    mode, out = pick(rng, modes), io.BytesIO()
    other = found.convert("RGB").resize(size)
    if mode in ("I;16", "LA"):
        other = other.convert("L")
    exif = Image.Exif()
    exif[0x0112] = pick(rng, (1, 6, 9, 77))
    form = pick(rng, ("PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "PPM"))
    other.convert(mode).save(out, form, exif=exif)
    return out.getvalue()


def png(rng, data: bytes) -> bytes:
    """A PNG whose header promises another size, type or depth."""
    out = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("RGB").save(out, "PNG")
    found = bytearray(out.getvalue())
    sides = (0, 1, 7, 13_000, 60_000, 2**31 - 1)
    found[16:24] = struct.pack(">II", pick(rng, sides), pick(rng, sides))
    if rng.random() < 0.2:
        found[24:26] = bytes(int(v) for v in rng.integers(20, size=2))
    found[29:33] = struct.pack(">I", zlib.crc32(bytes(found[12:29])))
    return bytes(found)


_STRUCTURES = {
    ".npz": [arrays, arrays, members, headers],
    ".pth": [members, headers],
    ".pt": [members, headers],
    ".json": [tree],
    ".jsonl": [line_tree, text],
    ".safetensors": [safetensors],
    ".gz": [gunzipped],
}
