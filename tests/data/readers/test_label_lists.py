"""One list of labels in every form in which people have it."""

import csv
import json
import os

import numpy as np
import pytest

from jaxnlt.data import fingerprint, noise
from jaxnlt.data.readers import label_lists
from jaxnlt.data.records import Source, Split
from jaxnlt.runtime.errors import UserError

NAMES = tuple("abcdefghij")
RNG = np.random.default_rng(0)
TRUE = RNG.integers(0, 10, 3000).astype(np.int32)
GIVEN = np.where(RNG.random(3000) < 0.4, (TRUE + 3) % 10, TRUE)
PATHS = np.array([f"train/{k}.png" for k in range(3000)])


def source(ids):
    return Source(Split(ids, TRUE, TRUE, ids), None, NAMES, "the set")


def write(folder, form, labels, ids):
    """A list in one of the forms; with ``+`` it names its images."""
    file = folder / f"list{form.rstrip('+')}"
    content = {"ids": ids, "labels": labels} if form[-1] == "+" else labels
    if form == ".npy":
        np.save(file, labels)
    elif form == ".csv+":
        column = "index" if ids.dtype.kind == "i" else "path"
        with open(file, "w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["x", " given_label", f"{column} "])
            names = np.array(NAMES)[labels]
            writer.writerows(zip(names, names, ids, strict=True))
    elif form.startswith(".npz"):
        np.savez(file, **content if form[-1] == "+" else {"any": content})
    else:
        file.write_text(json.dumps(content, default=np.ndarray.tolist))
    return file


FORMS = [".json", ".json+", ".npy", ".npz", ".npz+", ".csv+"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ids", [np.arange(3000), PATHS])
def test_every_form_is_read_and_checked(tmp_path, form, ids):
    order = RNG.permutation(3000) if form[-1] == "+" else np.arange(3000)
    file = write(tmp_path, form, GIVEN[order], ids[order])
    kept = source(ids).train.take(np.arange(0, 3000, 2))
    found = noise.read_noise(file, kept, source(ids))
    assert found.dtype == np.int32 and found.tolist() == GIVEN[::2].tolist()
    for wrong, words in (
        (np.roll(GIVEN, 7), "labels in the wrong order, .*another order"),
        (np.sort(GIVEN), "labels in the wrong order, .*class by class"),
        ((TRUE + 1) % 10, "labels in the wrong order, .*other class numbers"),
        (GIVEN[:9], "holds 9 labels|no label for 1495 of the 1500"),
    ):
        file = write(tmp_path, form, wrong, ids[: len(wrong)])
        with pytest.raises(UserError, match=f"^{file}: .*{words}") as error:
            noise.read_noise(file, kept, source(ids))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("form", [".json+", ".npz+"])
def test_noise_at_chance_has_a_way_out(tmp_path, form):
    """sym_excl of 0.9 on ten classes tells nothing of the true labels."""
    ids = np.arange(3000)
    given = noise.draw("sym_excl", TRUE, 10, 0.9, 0)
    file = write(tmp_path, form, given, ids)
    sha256 = fingerprint.of_source(source(ids))
    with pytest.raises(UserError, match=f"source_sha256 {sha256}"):
        noise.read_noise(file, source(ids).train, source(ids))
    told = {"ids": ids, "labels": given, "source_sha256": sha256}
    if form == ".npz+":
        np.savez(file, **told)
    else:
        file.write_text(json.dumps(told, default=np.ndarray.tolist))
    found = noise.read_noise(file, source(ids).train, source(ids))
    assert found.tolist() == given.tolist()
    other = source(ids[::-1])
    with pytest.raises(UserError, match="made for another set"):
        noise.read_noise(file, other.train, other)


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("a.csv", "index,label\n0,a\n1,k\n", "row 2: label is 'a', no class"),
        ("a.csv", "index,label\n0,a\n-1,b\n", "row 3: index is '-1', no num"),
        ("a.csv", f"index,label\n{'9' * 5000},1\n", "9', no number of an"),
        ("a.csv", "index,label\n0,\n", "row 2 has no label"),
        ("a.csv", "index,label\n0\n", "row 2 has no label"),
        ("a.csv", "index,label\n", "lists no image"),
        ("a.csv", "", "no column index .nor path"),
        ("a.csv", "index,true_label\n0,1\n", "no column label .nor given_"),
        ("a.csv", "index,label\n0,11\n", "labels must be in 0..9, number 0"),
        ("a.csv", b"index,label\n\xff,1\n", "not a text in UTF-8"),
        ("a.csv", "index,label\n0,1\n0,1\n", "ids must differ"),
        ("a.npy", b"", "not an array"),
        ("a.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '<i8'", "its header"),
        ("a.npy", np.zeros(3), "one list of integers, are float64"),
        ("a.npy", np.zeros((3, 1), int), "integers, are int64 of shape"),
        ("a.npy", np.array([1, 10]), "must be in 0..9, number 1 is 10"),
        ("a.npy", np.array([1, 2**63], np.uint64), "number 1 is 9223"),
        ("a.npy", np.array([None, 3]), "is of the type"),
        ("a.npz", {"x": [1], "y": [2]}, "holds the arrays x, y, .*labels_file"),
        ("a.npz", {"ids": [1, 2], "labels": [3]}, "2 ids but 1 labels"),
        ("a.npz", {"ids": 1, "labels": [3]}, "ids must be numbers or paths"),
        ("a.npz", b"PK", "not an npz"),
        ("a.pt", b"", "is a PyTorch file; human labels are read by"),
    ],
)
def test_refused_in_one_line(tmp_path, name, content, words):
    file = tmp_path / name
    if isinstance(content, np.ndarray):
        np.save(file, content)
    elif isinstance(content, dict):
        np.savez(file, **content)
    else:
        data = content if isinstance(content, bytes) else content.encode()
        file.write_bytes(data)
    ids = np.arange(3000)
    with pytest.raises(UserError, match=f"{file}: .*{words}") as error:
        noise.read_noise(file, source(ids).train, source(ids))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("ending", ["json", "npy", "npz", "csv"])
def test_only_regular_files_are_opened(tmp_path, ending):
    file = tmp_path / f"a.{ending}"
    for make in (os.mkdir, os.mkfifo):  # A pipe would be waited for.
        make(file)
        with pytest.raises(UserError, match=f"{file}: is a (folder|pipe);"):
            label_lists.read(file, NAMES)
        file.rmdir() if file.is_dir() else file.unlink()


def test_a_file_shorter_than_it_says_takes_no_memory(tmp_path):
    file = tmp_path / "a.npy"
    np.save(file, np.arange(4))
    file.write_bytes(file.read_bytes().replace(b"(4,)", b"(9999999999999,)"))
    with pytest.raises(UserError, match="declares"):
        label_lists.read(file, NAMES)


def test_numbers_stand_for_classes_where_they_are_no_names(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("path,label\n./x/a.png,0\nx//b.png,2\n")
    found = label_lists.read(file, NAMES)
    assert found.labels.tolist() == [0, 2]
    assert found.ids == ["x/a.png", "x/b.png"]
    assert label_lists.read(file, ("2", "1", "0")).labels.tolist() == [2, 0]
