import logging

import numpy as np
import pytest
from PIL import Image

from jaxnlt.data.readers import user
from jaxnlt.runtime.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def npz(path, **changes):
    content = {"train_images": IMAGES, "train_labels": LABELS} | changes
    np.savez(path, **{k: v for k, v in content.items() if v is not None})
    return str(path)


def test_npz_without_test_set(tmp_path):
    source = user.npz(npz(tmp_path / "a.npz"))
    assert source.test is None and source.train.true_labels is None
    assert source.train.labels.tolist() == LABELS.tolist()
    assert source.train.ids.tolist() == list(range(6))
    assert source.class_names == ("0", "1", "2")


def test_npz_with_everything(tmp_path):
    true = np.roll(LABELS, 1)
    source = user.npz(
        npz(
            tmp_path / "a.npz",
            train_true_labels=true,
            test_images=IMAGES[:3],
            test_labels=LABELS[:3],
            class_names=np.array(["a", "b", "c"]),
        )
    )
    assert source.train.true_labels is not None and source.test is not None
    assert source.train.true_labels.tolist() == true.tolist()
    assert source.test.labels.tolist() == [0, 1, 2]
    assert source.class_names == ("a", "b", "c")


@pytest.mark.parametrize(
    "changes, word",
    [
        ({"train_images": None}, "holds no train_images"),
        ({"train_labels": None}, "holds no train_labels"),
        ({"test_images": IMAGES}, "holds no test_labels"),
        ({"test_labels": LABELS}, "holds no test_images"),
        ({"train_labels": LABELS[:5]}, r"shape \(6,\) like its images"),
        ({"train_labels": LABELS * 1.0}, "must be integers, is float64"),
        ({"train_labels": LABELS - 1}, "class numbers from 0"),
        ({"train_labels": LABELS * 2}, "train_labels: class 1 has no image"),
        ({"train_labels": LABELS * 0}, "one class, at least two"),
        ({"train_true_labels": LABELS[:5]}, "train_true_labels must have"),
        ({"train_images": IMAGES / 255}, "must be uint8"),
        ({"train_images": IMAGES[..., 0]}, "must be uint8 .*shape"),
        ({"train_images": IMAGES[..., :2]}, "1 or 3 channels"),
        ({"train_images": IMAGES[:0], "train_labels": LABELS[:0]}, "channels"),
        (
            {"test_images": IMAGES[:, :3], "test_labels": LABELS},
            "test_images are",
        ),
        (
            {"test_images": IMAGES[:2], "test_labels": LABELS[:2]},
            "test_labels: class 2 has no image",
        ),
        (
            {"class_names": np.array(["a", "b"])},
            r"train_labels: must lie in 0\.\.1",
        ),
        (
            {"class_names": np.array(["a", "b", "c", "d"])},
            "class d has no image",
        ),
    ],
)
def test_npz_refused(tmp_path, changes, word):
    path = npz(tmp_path / "a.npz", **changes)
    with pytest.raises(UserError, match=word) as error:
        user.npz(path)
    assert str(error.value).startswith(path)


def test_npz_missing_or_damaged(tmp_path):
    with pytest.raises(UserError, match="config.data.path"):
        user.npz("")
    with pytest.raises(UserError, match="no such file"):
        user.npz(str(tmp_path / "x.npz"))
    path = npz(tmp_path / "a.npz")
    data = (tmp_path / "a.npz").read_bytes()
    for size in (0, 10, 200, len(data) - 30):
        (tmp_path / "a.npz").write_bytes(data[:size])
        with pytest.raises(UserError, match="truncated, damaged or not") as e:
            user.npz(path)
        assert "\n" not in str(e.value)
    np.save(tmp_path / "a.npy", LABELS)
    with pytest.raises(UserError, match="not an npz"):
        user.npz(str(tmp_path / "a.npy"))


def test_npz_pickled_labels_are_not_read(tmp_path):
    path = npz(tmp_path / "a.npz", train_labels=np.array([None] * 6))
    with pytest.raises(UserError, match="not an npz|pickle"):
        user.npz(path)


def test_npz_unknown_key_is_named(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "jaxnlt"):
        user.npz(npz(tmp_path / "a.npz", train_true_label=LABELS))
    assert "not used: train_true_label" in caplog.text


def picture(path, size=(5, 4), value=7):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


@pytest.fixture
def root(tmp_path):
    for k, name in enumerate(["cat", "dog"]):
        for i in range(3):
            picture(tmp_path / "train" / name / f"{i}.png", value=10 * k + i)
    return tmp_path


def test_folder(root):
    (root / "train" / "cat" / ".DS_Store").write_text("x")
    source = user.folder(str(root))
    assert source.class_names == ("cat", "dog") and source.test is None
    assert source.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert source.train.images.shape == (6, 4, 5, 3)
    assert source.train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12]
    assert source.train.ids[3] == "train/dog/0.png"


def test_folder_with_test_set(root):
    picture(root / "test" / "cat" / "a.bmp")
    picture(root / "test" / "dog" / "b.bmp")
    source = user.folder(str(root))
    assert source.test is not None
    assert source.test.labels.tolist() == [0, 1]
    picture(root / "test" / "owl" / "b.bmp")
    with pytest.raises(UserError, match="test/owl: no training image"):
        user.folder(str(root))


def test_class_numbers_sort_as_numbers(tmp_path):
    for k in range(11):
        picture(tmp_path / "train" / str(k) / "a.png")
    source = user.folder(str(tmp_path))
    assert source.class_names == tuple(str(k) for k in range(11))


def test_grey_and_transparent_images_become_rgb(root):
    Image.new("L", (5, 4), 99).save(root / "train" / "cat" / "0.png")
    Image.new("RGBA", (5, 4), (1, 2, 3, 0)).save(
        root / "train" / "cat" / "1.png"
    )
    images = user.folder(str(root)).train.images
    assert images[0, 0, 0].tolist() == [99] * 3
    assert images[1, 0, 0].tolist() == [1, 2, 3]


def test_other_size_is_named_or_resized(root):
    picture(root / "train" / "dog" / "1.png", size=(9, 8))
    with pytest.raises(UserError, match="dog/1.png: is 9x8 .* 5x4.*image_size"):
        user.folder(str(root))
    picture(root / "train" / "cat" / "0.png", size=(3, 3), value=77)
    source = user.folder(str(root), image_size=3)
    assert source.train.images.shape == (6, 3, 3, 3)
    assert (source.train.images[0] == 77).all()


def test_test_images_of_other_size_are_named(root):
    picture(root / "test" / "cat" / "a.png")
    picture(root / "test" / "dog" / "b.png", size=(6, 4))
    with pytest.raises(UserError, match="test/dog/b.png: is 6x4"):
        user.folder(str(root))


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_bad_image_is_named(root, content):
    file = root / "train" / "dog" / "1.png"
    whole = file.read_bytes()
    # None: a cut one.
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(UserError, match="dog/1.png: (empty|unread)") as error:
        user.folder(str(root))
    assert "\n" not in str(error.value)


def test_empty_class_and_missing_folders(root, tmp_path):
    with pytest.raises(UserError, match="config.data.path"):
        user.folder("")
    with pytest.raises(UserError, match="no such folder"):
        user.folder(str(tmp_path / "x"))
    (root / "train" / "owl").mkdir()
    with pytest.raises(UserError, match="class owl has no image"):
        user.folder(str(root))
    (tmp_path / "e" / "train").mkdir(parents=True)
    with pytest.raises(UserError, match="no class folder"):
        user.folder(str(tmp_path / "e"))
    with pytest.raises(UserError, match="no such folder; expected"):
        user.folder(str(tmp_path / "e" / "train"))
    picture(tmp_path / "e" / "train" / "one" / "a.png")
    with pytest.raises(UserError, match="one class"):
        user.folder(str(tmp_path / "e"))


def test_class_missing_from_the_test_set(root):
    picture(root / "test" / "cat" / "a.png")
    with pytest.raises(UserError, match="class dog has no image"):
        user.folder(str(root))


def test_files_that_are_no_images_are_named(root, caplog):
    (root / "train" / "cat" / "notes.txt").write_text("x")
    with caplog.at_level(logging.WARNING, "jaxnlt"):
        assert len(user.folder(str(root)).train) == 6
    assert "1 files are no images" in caplog.text
    assert "notes.txt" in caplog.text


CSV = """path,label,true_label
train/cat/0.png,cat,cat
train/cat/1.png,dog,cat
train/dog/0.png,dog,owl
"""


def test_csv_lists_the_training_images(root):
    file = root / "labels.csv"
    file.write_text(CSV.replace("owl", "cat"))
    source = user.folder(str(root), str(file))
    assert source.class_names == ("cat", "dog")
    assert source.train.labels.tolist() == [0, 1, 1]
    assert source.train.true_labels is not None
    assert source.train.true_labels.tolist() == [0, 0, 0]
    assert source.train.ids.tolist() == [
        "train/cat/0.png",
        "train/cat/1.png",
        "train/dog/0.png",
    ]


def test_csv_class_known_by_true_labels_only(root):
    (root / "labels.csv").write_text(CSV)
    with pytest.raises(UserError, match="class owl has no image"):
        user.folder(str(root), str(root / "labels.csv"))


def test_csv_of_class_numbers_without_true_labels(root):
    file = root / "labels.csv"
    file.write_text("path,label\ntrain/cat/0.png,10\ntrain/dog/1.png,9\n")
    source = user.folder(str(root), str(file))
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
        ("cat/1.png", "cat/9.png", "cat/9.png: no such file, .*row 3"),
        ("cat,cat\n", "dog,cat\n", "one class|class cat has no image"),
        (CSV.split("\n", 1)[1], "", "lists no image"),
    ],
)
def test_bad_csv(root, old, new, word):
    file = root / "labels.csv"
    text = CSV.replace("owl", "cat")
    old = old.replace("owl", "cat")
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=word):
        user.folder(str(root), str(file))


def test_csv_missing_or_binary(root):
    with pytest.raises(UserError, match="labels_file: .*No such file"):
        user.folder(str(root), str(root / "x.csv"))
    (root / "x.csv").write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(UserError, match="not a CSV in UTF-8"):
        user.folder(str(root), str(root / "x.csv"))
