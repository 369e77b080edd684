"""Test sets that lack a class are legal, and told."""

import numpy as np
import pytest

from jaxnlt.data import load
from tests.data import fake_nlt, fake_web, fakes

VAL = "imagenet/val"


def lines(file, mark):
    """Leaves out the lines of one class."""
    kept = [x for x in file.read_text().splitlines() if mark not in f"{x}\n"]
    fake_nlt.text(file, kept)


def images(folder, mark):
    """Removes the files of one class."""
    for file in folder.glob(mark):
        file.unlink()


def binary(file, mark):
    records = np.fromfile(file, np.uint8).reshape(-1, 8 + 64 * 64 * 3)
    records[records[:, 7] != mark].tofile(file)


# Benchmark, miniature, its options, and what to take away where.
CUTS = [
    ("webvision", "webvision", {}, lines, "info/val_filelist.txt", " 1\n"),
    ("webvision", "webvision", {"imagenet": "number"}, images, VAL, "1/*"),
    ("clothing1m", "clothing", {}, lines, "clean_test_key_list.txt", "/01/"),
    ("clothing1m", "clothing", {}, lines, "clean_val_key_list.txt", "/01/"),
    (
        "red_mini_imagenet",
        "red",
        {},
        lines,
        "mini-imagenet/split/clean_validation",
        " 1\n",
    ),
    (
        "food101n",
        "food",
        {},
        lines,
        "food-101/meta/test.txt",
        f"{fake_nlt.FOODS[1]}/",
    ),
    ("animal10n", "animal_raw", {}, images, "testing", "1_*"),
    ("animal10n", "animal_binary", {}, binary, "test_batch.bin", 1),
    ("imagenet_nlt", "nlt", {}, lines, "out/test.csv", ",1,1,"),
]


@pytest.mark.parametrize("name, miniature, more, take, file, mark", CUTS)
def test_a_class_is_lacking(
    tmp_path, caplog, name, miniature, more, take, file, mark
):
    fields = {"path": tmp_path / "x"}
    if miniature == "nlt":
        fake_web.nlt(name, tmp_path / "x", tmp_path / "x" / "out")
        fields["labels_file"] = tmp_path / "x" / "out"
    elif miniature == "animal_binary":
        raw = fake_web.animal_raw(tmp_path / "raw")
        fake_web.animal_binary(tmp_path / "x", raw)
    else:
        getattr(fake_web, miniature)(tmp_path / "x", **more)
    take(tmp_path / "x" / file, mark)
    data = load.dataset(fakes.config(name, **fields))
    lacking = {
        key: np.setdiff1d(range(data.num_classes), split.labels).tolist()
        for key, split in data.tests.items()
    }
    assert sorted(filter(None, lacking.values())) == [[1]]
    key = next(key for key, classes in lacking.items() if classes)
    words = f"the set {key} holds no image of 1 classes: {data.class_names[1]}"
    assert words in caplog.text
