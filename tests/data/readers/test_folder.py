import logging

import numpy as np
import pytest
from PIL import Image

from jaxnlt.runtime.errors import UserError
from tests.data import fake_web, fakes
from tests.data.readers.checks import check


def picture(path, size=(5, 4), value=7):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


@pytest.fixture
def root(tmp_path):
    for k, name in enumerate(["cat", "dog"]):
        for i in range(3):
            picture(tmp_path / "train" / name / f"{i}.png", value=10 * k + i)
    return tmp_path


def refused(root, words, **fields):
    with pytest.raises(UserError, match=rf"^{root}/{words}.*\Z"):
        fakes.read("folder", root, **fields)


def test_training_images(root, caplog):
    for name in (".DS_Store", "notes.txt"):
        (root / "train" / "cat" / name).write_text("x")
    with caplog.at_level(logging.WARNING, "jaxnlt"):
        source = fakes.read("folder", root)
    assert "1 files" in caplog.text and "notes.txt" in caplog.text
    assert source.class_names == ("cat", "dog") and source.test is None
    assert source.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert source.train.images.shape == (6, 4, 5, 3)
    assert source.train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12]
    assert source.train.ids[3] == "train/dog/0.png"


def test_test_images(root):
    picture(root / "test" / "cat" / "a.bmp")
    assert fakes.read("folder", root).test.labels.tolist() == [0]
    picture(root / "test" / "dog" / "b.png", size=(6, 4))
    refused(root, "test/dog/b.png: is 6x4")
    picture(root / "test" / "dog" / "b.png")
    assert fakes.read("folder", root).test.labels.tolist() == [0, 1]
    picture(root / "test" / "owl" / "b.bmp")
    refused(root, "test/owl: no training image")


def test_class_numbers_sort_as_numbers(tmp_path):
    for k in range(11):
        picture(tmp_path / "train" / str(k) / "a.png")
    source = fakes.read("folder", tmp_path)
    assert source.class_names == tuple(str(k) for k in range(11))


def test_other_size_is_named_or_resized(root):
    picture(root / "train" / "dog" / "1.png", size=(9, 8))
    refused(root, "train/dog/1.png: is 9x8 .* 5x4.*image_size")
    picture(root / "train" / "cat" / "0.png", size=(3, 3), value=77)
    images = fakes.read("folder", root, image_size=3).train.images
    assert images.shape == (6, 3, 3, 3) and (images[0] == 77).all()


def test_bad_image_is_named(root):
    (root / "train" / "dog" / "1.png").write_bytes(b"no image")
    refused(root, "train/dog/1.png: unreadable")


def test_empty_class_and_missing_folders(root):
    for path in ("", root / "x"):
        with pytest.raises(UserError, match="^config.data.path: "):
            fakes.read("folder", path)
    (root / "train" / "owl").mkdir()
    refused(root, "train/owl: class owl has no image")
    other = root / "e"
    (other / "train").mkdir(parents=True)
    refused(other, "train: holds no class folder; expected are train/CLASS/")
    (other / "test" / "a").mkdir(parents=True)
    (other / "train").rmdir()
    refused(other, "train: no such folder")
    picture(other / "train" / "one" / "a.png")
    refused(other, "train: holds one class")


# A CSV of labels -------------------------------------------------------------

CSV = """path,label,true_label
train/cat/0.png,cat,cat
train/cat/1.png,dog,cat
train/dog/0.png,dog,cat
"""


def test_csv_lists_the_training_images(root):
    file = root / "labels.csv"
    file.write_text(CSV)
    source = fakes.read("folder", root, labels_file=file)
    assert source.class_names == ("cat", "dog")
    assert source.train.labels.tolist() == [0, 1, 1]
    assert source.train.true_labels.tolist() == [0, 0, 0]
    paths = ["train/cat/0.png", "train/cat/1.png", "train/dog/0.png"]
    assert source.train.ids.tolist() == paths
    file.write_text("path,label\ntrain/cat/0.png,10\ntrain/dog/1.png,9\n")
    source = fakes.read("folder", root, labels_file=file)
    assert source.class_names == ("9", "10")
    assert source.train.labels.tolist() == [1, 0]
    assert source.train.true_labels is None


@pytest.mark.parametrize(
    "old, new, word",
    [
        ("path,label,true_label", "file,label,true_label", "no column path"),
        ("path,label,true_label", "path,class,true_label", "no column label"),
        ("1.png,dog,cat", "1.png,,cat", "row 3 has no label"),
        ("1.png,dog,cat", "1.png,dog", "row 3 has no true_label"),
        ("cat/1.png", "cat/0.png", "row 3 repeats train/cat/0.png"),
        (CSV.split("\n", 1)[1], "", "lists no image"),
    ],
)
def test_bad_csv(root, old, new, word):
    file = root / "labels.csv"
    file.write_text(CSV.replace(old, new))
    refused(root, f"labels.csv: {word}", labels_file=file)


def test_csv_and_its_files_must_exist(root):
    file = root / "labels.csv"
    with pytest.raises(UserError, match=f"^config.data.labels_file: {file}: "):
        fakes.read("folder", root, labels_file=file)
    file.write_text(CSV.replace("cat/1.png", "cat/9.png"))
    refused(root, "train/cat/9.png: no such file, .*row 3", labels_file=file)
    file.write_bytes(b"\xff\xfe\x00path")
    refused(root, "labels.csv: not a text in UTF-8", labels_file=file)


# Images that are streamed ----------------------------------------------------


@pytest.mark.parametrize("labels", [False, True])
def test_listed_images_are_the_decoded_ones(made, tmp_path, labels):
    root, file = made("images"), ""
    if labels:
        rows = ["path,label,true_label", "train/dog/1.jpg,cat,dog"]
        rows += ["train/cat/0.jpg,dog,cat", "train/cat/2.jpg,cat,cat"]
        file = tmp_path / "labels.csv"
        fake_web.text(file, rows)
    source = fakes.read("images", root, labels_file=file)
    check(source, [3 if labels else 8, 4])
    decoded = fakes.read("folder", root, labels_file=file, image_size=16)
    for part in ("train", "test"):
        one, other = getattr(source, part), getattr(decoded, part)
        assert one.ids.tolist() == other.ids.tolist()
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.true_labels, other.true_labels)
    assert source.class_names == decoded.class_names == ("cat", "dog")
    with Image.open(root / source.train.ids[1]) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(source.train.images.open(1), expected)
