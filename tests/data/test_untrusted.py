"""Files that nobody should trust: one line each, at once, in little memory."""

import base64
import gzip
import io
import json
import os
import pathlib
import pickle
import random
import resource
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib

import numpy as np
import pytest

from jaxnlt.data.nlt import released
from jaxnlt.data.readers import cifar_human, lists, nlt, pickles
from jaxnlt.models import pretrained
from jaxnlt.predict import find_images
from jaxnlt.runtime.errors import UserError
from tests.data import fakes
from tests.models import weight_files

MIB = 1 << 20
PIXELS = np.zeros((6, 4, 4, 3), np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])
RAW = lists.RawSet(("a", "b"), [[], []], [[], []], [])


def read_noise(path):
    return fakes.read_noise(path, np.arange(6), 3, np.arange(6))


#: Every reader of one file, by the name of the file.
READERS = {
    "a.npz": lambda path: fakes.read("npz", path),
    "b.npz": lambda path: find_images(path, (4, 4, 3)),
    "c.npz": lambda path: cifar_human.read(path, "human:worse", LABELS, 3),
    "c.pt": lambda path: cifar_human.read(path, "human:worse", LABELS, 3),
    "w.pth": pretrained.read,
    "w.safetensors": pretrained.read,
    "noise.json": read_noise,
    "final_dict.json": lambda path: released.read(path, RAW),
    "manifest.csv": lambda path: nlt.read_manifest(path, 3),
    "list.txt": lambda path: lists.read_labels(path, 3),
    "cifar-10-python.tar.gz": lambda path: fakes.read("cifar10", path),
    "data_batch_1": lambda path: fakes.read("cifar10", path.parent),
    "labels.csv": lambda path: fakes.read(
        "folder", path.parent, labels_file=path
    ),
}


def refused(name, path) -> str:
    with pytest.raises(UserError) as error:
        READERS[name](path)
    message = str(error.value)
    assert "\n" not in message and len(message) < 10_000
    return message


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", ["a pipe", "a device", "a folder"])
def test_only_regular_files_are_opened(tmp_path, name, kind):
    path = tmp_path / name
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    message = refused(name, path)
    # Where a folder may stand in the place of the file, it is looked into.
    assert kind in message or kind == "a folder", message


# Pickles ---------------------------------------------------------------------

NUMPY = b"cnumpy\ndtype\n(S'%s'\nI00\nI01\ntR(I3\nS'|'\n%sI-1\nI-1\nI0\ntb"
SCALAR = b"cnumpy.core.multiarray\nscalar\n(%sB\x08\x00\x00\x00AAAAAAAAtR."
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\nt"
# A list of lists of lists ...: 10 ** 40 elements in 1 KB.
NESTED = b"]q\x00" + b"".join(
    b"0](" + b"h%c" % k * 10 + b"eq%c" % (k + 1) for k in range(40)
)
# A tuple of tuples, whose hash takes 2 ** 60 steps.
TUPLES = b")q\x00" + b"".join(
    b"0h%ch%c\x86q%c" % (k, k, k + 1) for k in range(60)
)
HOSTILE = {
    "object": SCALAR % (NUMPY % (b"O8", b"NNN")),
    "void": SCALAR % (NUMPY % (b"V8", b"NNN")),
    "text": SCALAR % (NUMPY % (b"S8", b"NNN")),
    "date": SCALAR % (NUMPY % (b"M8", b"NNN")),
    "record": SCALAR % (NUMPY % (b"i8", b"N(S'a'\nt}")),
    "short": SCALAR.replace(b"\x08", b"\x07").replace(b"A" * 8, b"A" * 7)
    % (NUMPY % (b"i8", b"NNN")),
    "no state": RECONSTRUCT
    + b"S'b'\ntR(I1\n(L9999999999999L\nt"
    + NUMPY % (b"u1", b"NNN")
    + b"I00\nS''\ntb.",
    "dtype called": b"cnumpy\ndtype\n(]S'O8'\natR.",
    "build": b"cnumpy\nndarray\n}b.",
    "instance": b"(ios\nsystem\n.",
    "new": b"cnumpy\nndarray\n)\x81.",
    "extension": b"\x82\x01.",
    "memo": b"Nr\xff\xff\xff\xff.h\x00.",
    "bytes": b"\x8e" + b"\xff" * 7 + b"\x7f" + b"A.",
    "bytearray": b"\x96" + b"\xff" * 7 + b"\x00" + b"A.",
    "number": b"\x8b\x00\x00\x00\x7f1.",
    "tuple key": b"}" + TUPLES + b"Ns.",
    "colliding keys": b"}("
    + b"".join(
        b"\x8a\x0c%sN" % ((2**61 - 1) * (k + 2)).to_bytes(12, "little")
        for k in range(100_000)
    )
    + b"u.",
    "instructions": b"N0" * 3_000_000 + b".",
    "encoded": b"X"
    + struct.pack("<I", MIB)
    + b"a" * MIB
    + b"q\x000"
    + b"c_codecs\nencode\nq\x010"
    + b"h\x01h\x00X\x06\x00\x00\x00latin1\x86R0" * 90_000
    + b"N.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused_at_once(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("a/data.pkl", HOSTILE[name])
    assert "w.pth: " in refused("w.pth", tmp_path / "w.pth")


@pytest.mark.parametrize(
    "value", [NESTED, b"I7\n", b"}", TUPLES, b"(lp9\ng9\na"]
)
def test_labels_that_are_no_list_of_integers(tmp_path, value):
    """Nested lists are never expanded, nor shown in full."""
    folder = tmp_path / "cifar-10-batches-py"
    fakes.cifar10(folder)
    for name, key in (
        ("batches.meta", b"label_names"),
        ("data_batch_1", b"labels"),
    ):
        good = pickle.loads((folder / name).read_bytes(), encoding="bytes")
        del good[key]
        data = pickle.dumps(good, protocol=2)[:-1]
        data += b"U%c%s" % (len(key), key) + value + b"s."
        (folder / name).write_bytes(data)
        with pytest.raises(UserError, match=f"{name}: .*{key.decode()}"):
            fakes.read("cifar10", tmp_path)


@pytest.mark.parametrize("code", ["u1", "<i4", ">i8", "<f2", ">f4", "?"])
@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_numeric_arrays_of_every_kind(code, protocol):
    values = {
        "C": np.arange(6).reshape(2, 3).astype(code),
        "F": np.asfortranarray(np.arange(6).reshape(2, 3).astype(code)),
        "scalar": np.arange(2).astype(code)[1],
        "none": np.zeros((0, 3), code),
    }
    found = pickles.loads(pickle.dumps(values, protocol), "f")
    for name, value in values.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


def test_pickles_of_python_2():
    """As CIFAR's are written: byte strings, protocol 2 and names of numpy 1."""
    array = RECONSTRUCT + b"S'b'\ntR(I1\n(I2\nI3\nt"
    array += NUMPY % (b"u1", b"NNN") + b"I00\nU\x06abcdeftb"
    data = (
        b"\x80\x02}q\x01(U\x04dataq\x02" + array + b"U\x06labels](K\x01K\x02eu."
    )
    found = pickles.loads(data, "f")
    assert found[b"labels"] == [1, 2]
    assert found[b"data"].tobytes() == b"abcdef"
    pairs = b"ccollections\nOrderedDict\n(](]q\x00(U\x01aK\x05eetR."
    assert pickles.loads(pairs, "f") == {b"a": 5}


def test_storages_are_read_once(tmp_path):
    """Views of one large storage take no time each."""
    shared = weight_files.Storage("0", np.zeros(2 * MIB, "f4"))
    content = {
        f"t{k}": weight_files.Tensor(shared, 0, (2,), (1,)) for k in range(3000)
    }
    with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", weight_files.dump(content))
        file.writestr("a/data/0", shared.values.tobytes())
    assert len(pretrained.read(tmp_path / "w.pth")) == 3000


# Archives --------------------------------------------------------------------


def npz(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, array in members.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                if isinstance(array, np.ndarray):
                    np.save(file, array)
                else:  # zeros, unpacked never held here
                    file.write(npy_header((array,)))
                    for _ in range(array // MIB):
                        file.write(bytes(MIB))
    return path


def npy_header(shape, code="|u1"):
    file = io.BytesIO()
    fields = {"descr": code, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, fields)
    return file.getvalue()


def test_arrays_that_are_not_used_are_not_read(tmp_path):
    good = {"train_images": PIXELS, "train_labels": LABELS}
    good |= {"unused": 128 * MIB, "objects": np.array([None])}
    for name, more in (("a.npz", {}), ("b.npz", {"images": PIXELS})):
        path = tmp_path / name
        if not path.exists():
            npz(path, good | more)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(READERS["a.npz"](tmp_path / "a.npz").train) == 6
    assert len(READERS["b.npz"](tmp_path / "b.npz").ids) == 6
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 64 * 1024  # KiB


def test_what_unpacks_too_far_is_refused_by_its_declared_size(tmp_path):
    path = npz(tmp_path / "a.npz", {"train_images": 300 * MIB})
    assert "unpacks to 300.0 MiB" in refused("a.npz", path)
    tar = tmp_path / "cifar-10-python.tar.gz"
    with gzip.open(tar, "wb", 1) as file:
        info = tarfile.TarInfo("x")
        info.size = 300 * MIB
        file.write(info.tobuf())
        for _ in range(300):
            file.write(bytes(MIB))
    assert "256.0 MiB" in refused(tar.name, tar)


@pytest.mark.parametrize(
    "shape, code",
    [
        ((10**12,), "|u1"),
        ((2**62, 2**62), "<f8"),
        ((-1, 4), "|u1"),
        ((0, 2**70), "|u1"),
        ((4,), "|O"),
        ((4,), "<M8[s]"),
        ((4,), [("a", "<i4")]),
        ((1.5,), "|u1"),
        ((4,), "<U999999999"),
    ],
)
def test_npy_headers(tmp_path, shape, code):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train_images.npy", npy_header(shape, code) + b"1234")
    assert "train_images: " in refused("a.npz", path)


@pytest.mark.parametrize("at, value", [(6, 1), (8, 12), (8, 14), (8, 99)])
def test_encrypted_or_oddly_packed_members(tmp_path, at, value):
    path = npz(tmp_path / "a.npz", {"train_images": PIXELS})
    data = bytearray(path.read_bytes())
    for start, more in ((data.find(b"PK\3\4"), 0), (data.find(b"PK\1\2"), 2)):
        data[start + at + more] = value
    path.write_bytes(data)
    message = refused("a.npz", path)
    assert "encrypted" in message if at == 6 else f"method {value}" in message


def test_a_label_of_a_hundred_million_makes_no_names(tmp_path):
    path = tmp_path / "a.npz"
    labels = np.where(np.arange(6) == 5, 10**8, LABELS)
    np.savez(path, train_images=PIXELS, train_labels=labels)
    message = refused("a.npz", path)
    assert "class 3 has no image, the largest label is 100000000" in message


# Text ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a": ' * 100_000,
        "[" + "9" * 5000 + "]",
        "[NaN, 0, 0, 0, 0, 0]",
        "[1e999, 0, 0, 0, 0, 0]",
        '{"ids": [0], "ids": [1], "labels": [0]}',
        "[[[[0]]], 0, 0, 0, 0, 0]",
        f"[{'7' * 4000}, 0, 0, 0, 0, 0]",
        '{"ids": [[0]], "labels": [0]}',
        "",
        "null",
        b'{"\xff": 1}',
    ],
)
def test_json(tmp_path, text):
    for name in ("noise.json", "final_dict.json"):
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / name).write_bytes(data)
        assert name in refused(name, tmp_path / name)


@pytest.mark.parametrize(
    "text",
    [
        b"a.png \x00\n",
        "a.png 0\n".encode("utf-16"),
        b"a.png " + b"9" * 10_000,
        b"x" * 200_000,
        b'path,label\n"' + b"x" * 200_000 + b'",a\n',
        b"path,label\n" + b"x" * 5000 + b",a\n",
        b"path,label\n../\x00,a\n",
    ],
)
def test_lists_of_files(tmp_path, text):
    for name in ("list.txt", "manifest.csv", "labels.csv"):
        (tmp_path / name).write_bytes(text)
        assert str(tmp_path) in refused(name, tmp_path / name)


def test_lines_end_at_line_ends_only(tmp_path):
    (tmp_path / "list.txt").write_bytes(
        "a\u2028b\x85.png 1\r\nc.png 2".encode()
    )
    found = READERS["list.txt"](tmp_path / "list.txt")
    assert found == {"a\u2028b\x85.png": 1, "c.png": 2}


def test_safetensors_may_not_overlap(tmp_path):
    entry = {"dtype": "F32", "shape": [256], "data_offsets": [0, 1024]}
    header = json.dumps({f"t{k}": entry for k in range(100)}).encode()
    data = struct.pack("<Q", len(header)) + header + bytes(1024)
    (tmp_path / "w.safetensors").write_bytes(data)
    assert "overlap" in refused("w.safetensors", tmp_path / "w.safetensors")


def test_copies_import_no_module_that_they_name(tmp_path):
    from jaxnlt.data.readers import tfds_copy

    features = {"type": "x", "pythonClassName": "antigravity.Image"}
    (tmp_path / "features.json").write_text(json.dumps(features))
    with pytest.raises(UserError, match=r"names the class 'antigravity\.Im"):
        tfds_copy.opened(None, tmp_path)


# Fuzz ------------------------------------------------------------------------


def valid(folder: pathlib.Path) -> dict[str, bytes]:
    """A small valid file of every reader."""
    folder.mkdir(exist_ok=True)
    (folder / "x.png").write_bytes(b"")
    human = {"clean_label": LABELS, "worse_label": LABELS}
    rows = [f"x.png,{k},0,web" for k in range(3)]
    batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2]}
    files = {
        "noise.json": json.dumps({"ids": list(range(6)), "labels": [0] * 6}),
        "final_dict.json": json.dumps({"/x/0/a.jpg": 1.0, "/x/1/b.jpg": 0.5}),
        "manifest.csv": "\n".join(["path,label,true_label,source", *rows]),
        "list.txt": "a.png 0\nb.png 2\n",
        "labels.csv": "path,label,true_label\nx.png,a,b\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    npz(folder / "a.npz", {"train_images": PIXELS, "train_labels": LABELS})
    npz(folder / "b.npz", {"images": PIXELS}, zipfile.ZIP_STORED)
    npz(folder / "c.npz", human)
    fakes.torch_zip(folder / "c.pt", human)
    weight_files.torch_zip(folder / "w.pth", {"x": np.ones((4, 3), "f4")})
    weight_files.safetensors(folder / "w.safetensors", {"x": np.ones(4, "f4")})
    (folder / "data_batch_1").write_bytes(pickle.dumps(batch, protocol=2))
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(folder / "data_batch_1", "c/data_batch_1")
    return {name: (folder / name).read_bytes() for name in READERS}


def changed(data: bytes, rng: random.Random) -> bytes:
    """The file with bytes exchanged, cut, doubled, or extreme numbers."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(out) or 1)
        kind = rng.randrange(5)
        if kind == 0:
            out[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            out[at : at + 4] = rng.choice(
                (b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f", b"9999", b"-1e9")
            )
        elif kind == 2:
            del out[at : at + rng.randrange(1, 64)]
        elif kind == 3:
            out[at:at] = out[at : at + 64] * rng.randrange(1, 4)
        else:
            del out[at:]
    return bytes(out)


def fuzz(folder: str, count: int, seed: int) -> None:
    """Reads changed files; anything but UserError is raised."""
    rng, place = random.Random(seed), pathlib.Path(folder)
    files = valid(place)
    limit = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        name = rng.choice(list(READERS))
        data = files[name]
        if name.endswith(".gz") and rng.random() < 0.7:
            data = gzip.compress(changed(gzip.decompress(data), rng), 1)
        else:
            data = changed(data, rng)
        (place / name).write_bytes(data)
        try:
            READERS[name](place / name)
        except UserError as error:
            assert "\n" not in str(error), (number, str(error))
        except BaseException:
            text = base64.b85encode(zlib.compress(data)).decode()
            print(f"{name}, change {number}: {text}", file=sys.stderr)
            raise
        finally:
            (place / name).write_bytes(files[name])
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - limit
    assert grown < 512 * 1024, f"{grown} KiB"


def test_changed_files_are_one_line_or_harmless(tmp_path):
    """In a process of its own, which a crash would end, and a hang too."""
    call = f"fuzz({str(tmp_path)!r}, 1000, 7)"
    found = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import fuzz; {call}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.returncode == 0, found.stderr[-3000:]
