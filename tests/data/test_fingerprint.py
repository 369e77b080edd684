"""A run knows its data: every difference is told with its count."""

import dataclasses
import json
import time

import numpy as np
import pytest

from jaxnlt.data import decode, files, fingerprint
from jaxnlt.data.records import WRONG, Dataset, Source, Split

NAMES = ("cat", "dog", "owl")
IDS = np.array([f"train/{k}.png" for k in range(12)])
LABELS = np.arange(12, dtype=np.int32) % 3
PIXELS = np.arange(12 * 4, dtype=np.uint8).reshape(12, 2, 2, 1)


def dataset(rows=range(12), test=range(6), kind="test", **changes):
    """A small set; ``changes`` replace fields of its training set."""
    rows, test = np.array(rows), np.array(test)
    whole = Split(PIXELS, LABELS, LABELS, IDS)
    names = changes.pop("names", NAMES)
    train = dataclasses.replace(whole.take(rows), **changes)
    return Dataset(train, whole.take(test), names, (0.5,), (0.5,), kind)


def changed(values, *rows, by=1):
    values = values.copy()
    values[list(rows)] += by
    return values


def compare(old, new):
    """The difference, after the way through a JSON file."""
    prints = [fingerprint.of_dataset(data) for data in (old, new)]
    text = json.dumps(prints[0].as_json())
    stored = fingerprint.from_json(json.loads(text))
    assert stored.sha256 == prints[0].sha256
    found = fingerprint.difference(stored, prints[1])
    assert bool(found) == (prints[0].sha256 != prints[1].sha256)
    return found


@pytest.mark.parametrize(
    "changes, words",
    [
        ({}, ""),
        (
            {"labels": changed(LABELS, 3, 7)},
            "2 labels changed, first: train/3.png, cat -> dog",
        ),
        (
            {"true_labels": np.where(LABELS == 2, WRONG, LABELS)},
            "4 true labels changed, first: train/2.png, owl -> wrong",
        ),
        (
            {"true_labels": None},
            "12 true labels changed, first: train/0.png, cat -> unknown",
        ),
        (
            {"images": changed(PIXELS, 5)},
            "1 image changed, first: train/5.png",
        ),
        (
            {"names": ("cat", "dog", "emu")},
            "1 class names changed, first: owl -> emu",
        ),
        (
            {"names": ("dog", "cat", "owl")},
            "2 classes changed their places, first: cat -> dog",
        ),
        ({"names": (*NAMES, "yak")}, "3 classes -> 4, first: yak is new"),
        ({"names": (*"abcd",)}, "3 classes -> 4, first: cat is gone"),
        ({"rows": range(11)}, "1 image gone, first: train/11.png"),
        ({"rows": range(11, -1, -1)}, "the images are in another order"),
        ({"test": range(5)}, "test: 1 image gone, first: train/5.png"),
        ({"kind": "dev"}, "the test set was test, is dev"),
    ],
)
def test_every_change_is_told(changes, words):
    found = compare(dataset(), dataset(**changes))
    assert found.startswith(words) and bool(found) == bool(words)


@pytest.mark.parametrize("kind", ["held_out", "dev"])
def test_held_out_images_are_of_the_same_pool(kind):
    """A mended label draws another hold-out, which is no change of its own."""
    one = dataset(range(9), range(9, 12), kind)
    mended = changed(LABELS, 4)[3:]
    for field, what in (("labels", "label"), ("true_labels", "true label")):
        other = dataset(range(3, 12), range(3), kind, **{field: mended})
        words = f"1 {what} changed, first: train/4.png, dog -> owl"
        assert compare(one, other) == words
    assert "other parts" in compare(one, dataset(range(3, 12), range(3), kind))


def test_further_test_sets_come_and_go():
    one = dataset()
    other = dataclasses.replace(one, more_tests={"val": one.test})
    assert compare(one, other) == "the set val is new"
    assert compare(other, one) == "the set val is gone"


def test_pixels_are_told_apart():
    pixels = (
        np.arange(4000, dtype=np.uint16).view(np.uint8).reshape(-1, 1, 2, 1)
    )
    split = Split(pixels, np.zeros(4000, int), None, np.arange(4000))
    data = dataclasses.replace(dataset(), train=split)
    assert len(set(fingerprint.of_dataset(data).sets["train"].contents)) == 4000


@pytest.mark.parametrize(
    "content", [None, [], {}, {"sets": 1}, {"sets": {"train": {}}}]
)
def test_a_damaged_file_gives_none(content):
    assert fingerprint.from_json(content) is None


def test_streamed_files_are_known_by_size(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "_CHUNK", 2)
    paths = ["a.png", "b.png", "gone.png"]
    for path, text in zip(paths, ("12", "123"), strict=False):
        (tmp_path / path).write_text(text)
    split = files.file_split(tmp_path, paths, [0, 1, 2])
    images = files.CutImages(split.images, decode.TRANSFORMS["images"])
    split = dataclasses.replace(split, images=images)
    data = Dataset(split, split, NAMES, (0.5,), (0.5,), "test")
    found = fingerprint.of_dataset(data).sets["train"]
    assert found.contents == [2, 3, fingerprint.MISSING]


def test_a_hundred_thousand_images_take_seconds():
    n = 100_000
    images, labels = np.zeros((n, 16, 16, 3), np.uint8), np.zeros(n, np.int32)
    split = Split(images, labels, None, np.arange(n).astype(str))
    few = split.take(np.arange(1))
    began = time.perf_counter()
    found = fingerprint.of_dataset(Dataset(split, few, NAMES, (), (), "test"))
    assert len(found.sha256) == 64
    assert time.perf_counter() - began < 10


def test_a_source_is_known_by_classes_ids_and_of_numbers_by_labels():
    def of(ids, names=NAMES, labels=LABELS):
        return fingerprint.of_source(
            Source(Split(None, labels, None, ids), None, names, "")
        )

    numbers, other = np.arange(12), LABELS[::-1]
    assert of(IDS) == of(IDS, labels=other) != of(IDS[::-1])
    assert of(numbers) != of(numbers, labels=other)
    assert of(IDS) != of(IDS, names=("a", "b", "c"))
