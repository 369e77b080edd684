"""Every reader on a miniature in the layout of the official files."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from jaxnlt.data import imbalance, load, registry
from jaxnlt.data.files import UNKNOWN, is_streamed, verdicts
from jaxnlt.data.nlt import protocol
from jaxnlt.data.readers import red_mini_imagenet, user, webvision
from jaxnlt.runtime.errors import UserError
from tests.data import fake_nlt, fake_web, fakes


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Makes a miniature once: ``made('food')`` is its folder."""
    folder, kept = tmp_path_factory.mktemp("web"), {}

    def make(name, *args, **options):
        key = (name, args, tuple(options.items()))
        if key not in kept:
            root = folder / str(len(kept))
            kept[key] = getattr(fake_web, name)(root, *args, **options)
        return kept[key]

    return make


def check(source, sizes):
    """What holds for every source of files; sizes of train, test, more."""
    splits = [source.train, source.test, *source.more_tests.values()]
    assert [len(split) for split in splits] == sizes
    for split in splits:
        assert is_streamed(split)
        assert split.labels.dtype == np.int32
        paths = split.images.paths.tolist()
        assert paths == split.ids.tolist() == list(dict.fromkeys(paths))
        assert all((split.images.root / path).is_file() for path in paths)
        counts = np.bincount(split.labels, minlength=len(source.class_names))
        assert (counts > 0).all() and len(counts) == len(source.class_names)
        assert split.images.open(len(split) - 1).dtype == np.uint8
    for split in splits[1:]:
        np.testing.assert_array_equal(split.labels, split.true_labels)


def test_webvision(made):
    root = made("webvision", imagenet="synset")
    source = fake_web.read("webvision", str(root))
    check(source, [100, 50, 50])
    assert source.train.ids[:2].tolist() == [
        "google/q0000/img 0_0.jpg",
        "google/q0000/img 1_0.jpg",
    ]
    np.testing.assert_array_equal(source.train.labels, np.arange(100) // 2)
    assert source.train.true_labels is None
    # The validation images are numbered from the last class on.
    assert source.test.ids[0] == "val_images_256/val000003.jpg"
    np.testing.assert_array_equal(source.test.labels, np.arange(50)[::-1])
    np.testing.assert_array_equal(
        source.more_tests["imagenet"].labels, np.arange(50)
    )
    assert source.more_tests["imagenet"].ids[1] == (
        f"{fake_web.SYNSETS[1]}/ILSVRC2012_val_00000001.JPEG"
    )
    # Two classes of the same name keep apart.
    assert source.class_names[:2] == (
        "thing 0 (n01440000)",
        "thing 0 (n01440007)",
    )
    assert len(set(source.class_names)) == 50
    full = webvision.read(str(root), num_classes=53)
    assert full.class_names[52] == "thing 26" and len(full.train) == 106


def test_webvision_without_and_with_numbered_imagenet(made, tmp_path):
    alone = made("webvision")
    check(fake_web.read("webvision", str(alone)), [100, 50])
    other = made("webvision", imagenet="number")
    found = webvision.read(str(alone), imagenet=str(other / "imagenet" / "val"))
    check(found, [100, 50, 50])
    split = found.more_tests["imagenet"]
    assert split.ids[10] == "10/ILSVRC2012_val_00000010.JPEG"
    np.testing.assert_array_equal(split.labels, np.arange(50))
    # A flat folder says nothing of classes, and is not asked for.
    beside = tmp_path / "webvision"
    beside.symlink_to(alone)
    (tmp_path / "ILSVRC2012" / "val").mkdir(parents=True)
    assert not fake_web.read("webvision", str(tmp_path)).more_tests
    # Sorted, whatever the order in which the folder gives them.
    for label in range(50):
        for i in (5, 2, 8, 1, 9, 3) if label == 7 else (0,):
            name = f"{fake_web.SYNSETS[label]}/ILSVRC2012_val_{i:08d}.JPEG"
            fake_web.jpeg(tmp_path / "ILSVRC2012" / "val" / name, i)
    for path in (tmp_path, beside):
        split = fake_web.read("webvision", str(path)).more_tests["imagenet"]
        assert len(split) == 55 and split.ids.tolist() == sorted(split.ids)


def test_webvision_tail():
    available = np.array([5, 100, 80, 100])
    counts = imbalance.longer_tail(available, 0.027)
    # The second of the two largest classes is the second of the tail.
    assert counts.tolist() == [2, 100, 9, 30]
    for imb in (None, 1):
        counts = imbalance.longer_tail(available, imb)
        assert counts.tolist() == available.tolist()
    with pytest.raises(UserError, match="config.data.imb"):
        imbalance.longer_tail(available, 1.5)


def test_animal10n_forms_agree(made, tmp_path):
    raw = made("animal_raw")
    files = fake_web.read("animal10n", str(raw))
    check(files, [30, 20])
    assert files.train.true_labels is None
    assert files.train.ids[0] == "training/0_img_1553496000000.jpg"
    folder = fake_web.animal_binary(tmp_path / "binary", raw)
    for path in (tmp_path, folder):
        arrays = fake_web.read("animal10n", str(path))
        for one, other in (
            (files.train, arrays.train),
            (files.test, arrays.test),
        ):
            assert not is_streamed(other)
            np.testing.assert_array_equal(one.labels, other.labels)
            for row in range(len(one)):
                np.testing.assert_array_equal(
                    one.images.open(row), other.images[row]
                )
    assert arrays.class_names == files.class_names
    assert arrays.class_names[9] == "guinea pig"
    assert arrays.train.ids.tolist() == [
        *range(1000, 1020),
        *range(1000, 1010),
    ]
    assert arrays.train.true_labels is None
    np.testing.assert_array_equal(arrays.test.true_labels, arrays.test.labels)


def test_animal10n_raw_images_go_first(made, tmp_path):
    raw = made("animal_raw")
    for place in raw.iterdir():
        (tmp_path / place.name).symlink_to(place)
    fake_web.animal_binary(tmp_path / "binary", raw)
    assert is_streamed(fake_web.read("animal10n", str(tmp_path)).train)


def test_animal10n_in_folders(made, tmp_path):
    """Sorted by path, not by class."""
    root = tmp_path / "raw"
    shutil.copytree(made("animal_raw"), root)
    for file in sorted((root / "training").iterdir()):
        folder = file.parent / "ba"[int(file.name[0]) % 2]
        folder.mkdir(exist_ok=True)
        file.rename(folder / file.name)
    split = fake_web.read("animal10n", str(root)).train
    assert len(split) == 30 and split.ids.tolist() == sorted(split.ids)
    given = [int(path.split("/")[2][0]) for path in split.ids]
    np.testing.assert_array_equal(split.labels, given)


def test_food101n(made):
    source = fake_web.read("food101n", str(made("food")))
    check(source, [12, 6])
    assert source.class_names == fake_web.FOODS
    np.testing.assert_array_equal(source.train.labels, np.arange(12) // 4)
    expected = [[k, protocol.WRONG, UNKNOWN, UNKNOWN] for k in range(3)]
    np.testing.assert_array_equal(source.train.true_labels, np.ravel(expected))
    known, wrong = verdicts(source.train)
    np.testing.assert_array_equal(known, [1, 1, 0, 0] * 3)
    np.testing.assert_array_equal(wrong, [0, 1, 0, 0] * 3)
    assert source.test.ids[0] == "food-101/images/apple_pie/1000.jpg"


def test_food101n_verified_by_nobody(made):
    split = fake_web.read("food101n", str(made("food"))).train
    true = np.full(2, UNKNOWN)
    assert not verdicts(split.take(np.array([2, 3])))[0].any()
    np.testing.assert_array_equal(
        split.take(np.array([2, 3])).true_labels, true
    )


@pytest.mark.parametrize("images", ["images/", ""])
def test_clothing1m(made, images):
    source = fake_web.read("clothing1m", str(made("clothing", images=images)))
    check(source, [42, 28, 14])
    assert source.class_names[3] == "Chiffon" and len(source.class_names) == 14
    assert source.train.true_labels is None
    assert list(source.more_tests) == ["val"]
    for split in (source.train, source.test, source.more_tests["val"]):
        folders = [int(path.split("/")[-2]) for path in split.ids]
        np.testing.assert_array_equal(split.labels, folders)
        assert split.ids.tolist() == sorted(split.ids)
    assert source.train.ids[0] == f"{images}0/00/0,11n.jpg"


def test_clothing1m_lists_apart(made, tmp_path):
    root = made("clothing")
    (tmp_path / "annotations").mkdir()
    for file in root.glob("*.txt"):
        (tmp_path / "annotations" / file.name).symlink_to(file)
    (tmp_path / "images").symlink_to(root / "images")
    check(fake_web.read("clothing1m", str(tmp_path)), [42, 28, 14])


@pytest.mark.parametrize("layout", ["all_images", "release", "training"])
def test_red_mini_imagenet(made, layout):
    source = fake_web.read("red_mini_imagenet", str(made("red", layout=layout)))
    check(source, [20, 4])
    assert source.class_names == fake_nlt.NAMES
    np.testing.assert_array_equal(source.train.labels, source.train.true_labels)
    order = np.argsort(source.train.labels, kind="stable")
    names = [path.rpartition("/")[2] for path in source.train.ids[order]]
    assert names == [
        f"{synset}{i:08d}.jpg" for synset in fake_nlt.SYNSETS for i in range(5)
    ]
    assert len(source.web) == 12 and (source.web.true_labels == -1).all()
    np.testing.assert_array_equal(np.bincount(source.web.labels), [3] * 4)
    for row in range(12):
        assert source.web.images.open(row).shape == (84, 84, 3)
        assert "/n0" not in str(source.web.ids[row])


def test_red_web_noise(made):
    source = fake_web.read("red_mini_imagenet", str(made("red")))
    kept = source.train.take(np.arange(3, 16))
    for rate, wanted in ((0.0, 0), (0.2, 3), (0.4, 8)):
        rng = np.random.RandomState(4)
        noisy = red_mini_imagenet.add_web(kept, source.web, rate, rng)
        assert len(noisy) == 13 + wanted
        assert noisy.ids[:13].tolist() == kept.ids.tolist()
        new = noisy.ids[13:]
        assert len(set(new)) == wanted and set(new) <= set(source.web.ids)
        given = dict(zip(source.web.ids, source.web.labels, strict=True))
        assert [given[path] for path in new] == noisy.labels[13:].tolist()
        assert (noisy.true_labels[13:] == protocol.WRONG).all()
        assert noisy.images.paths.tolist() == noisy.ids.tolist()
        again = red_mini_imagenet.add_web(
            kept, source.web, rate, np.random.RandomState(4)
        )
        assert again.ids.tolist() == noisy.ids.tolist()
    other = red_mini_imagenet.add_web(
        kept, source.web, 0.4, np.random.RandomState(5)
    )
    assert other.ids.tolist() != noisy.ids.tolist()
    with pytest.raises(UserError, match="13 clean images needs 13 web images"):
        red_mini_imagenet.add_web(kept, source.web, 0.5, rng)


@pytest.mark.parametrize("layout", ["release", "training"])
def test_red_splits_of_the_release(made, layout):
    root = str(made("red", layout=layout))
    source = fake_web.read("red_mini_imagenet", root, split="red_noise_nl_0.4")
    assert source.web is None and len(source.train) == 18
    known, wrong = verdicts(source.train)
    assert known.all() and wrong.sum() == 6
    for row in range(18):
        assert source.train.images.open(row).shape == (84, 84, 3)
    web_image = ["/n0" not in path for path in source.train.ids]
    np.testing.assert_array_equal(wrong, web_image)
    blue = fake_web.read("red_mini_imagenet", root, split="blue_noise_nl_0.2")
    wrong = np.flatnonzero(verdicts(blue.train)[1])
    assert [
        (blue.train.labels[i], blue.train.true_labels[i]) for i in wrong
    ] == [(1, 0), (0, 1)]


def test_nlt(tmp_path, capsys):
    raw, out = tmp_path / "raw", tmp_path / "out"
    fake_web.nlt(raw, out)
    source = fake_web.read(
        "imagenet_nlt", str(raw), labels_file=str(out / "manifest.csv")
    )
    with open(out / "manifest.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    check(source, [len(rows), 8])
    assert source.class_names == fake_nlt.NAMES
    train = source.train
    assert train.ids.tolist() == [row["path"] for row in rows]
    assert train.labels.tolist() == [int(row["label"]) for row in rows]
    assert train.true_labels.tolist() == [int(r["true_label"]) for r in rows]
    known, wrong = verdicts(train)
    assert known.all() and (train.true_labels[wrong] == protocol.WRONG).any()
    # ImageNet's images as the authors keep them, those of the web as they are.
    for row, fields in enumerate(rows):
        side = train.images.open(row).shape
        assert side == (
            (30, 24, 3) if fields["source"] == "web" else (84,) * 2 + (3,)
        ), fields
    assert source.test.images.open(0).shape == (84, 84, 3)
    folder = fake_web.read("imagenet_nlt", str(raw), labels_file=str(out))
    assert folder.train.ids.tolist() == train.ids.tolist()


@pytest.mark.parametrize("labels", [False, True])
def test_images(made, tmp_path, labels):
    root, file = made("images"), ""
    if labels:
        rows = ["path,label,true_label", "train/dog/1.jpg,cat,dog"]
        rows += ["train/cat/0.jpg,dog,cat", "train/cat/2.jpg,cat,cat"]
        file = str(tmp_path / "labels.csv")
        fake_web.text(tmp_path / "labels.csv", rows)
    source = fake_web.read("images", str(root), labels_file=file)
    check(source, [3 if labels else 8, 4])
    decoded = user.folder(str(root), file, image_size=16)
    for one, other in (
        (source.train, decoded.train),
        (source.test, decoded.test),
    ):
        assert one.ids.tolist() == other.ids.tolist()
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.true_labels, other.true_labels)
    assert source.class_names == decoded.class_names == ("cat", "dog")
    with Image.open(root / source.train.ids[1]) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(source.train.images.open(1), expected)


def test_images_without_test_set(tmp_path):
    root = fake_web.images(tmp_path)
    (root / "test").rename(root / "unused")
    assert fake_web.read("images", str(root)).test is None


def test_unknown_benchmark():
    with pytest.raises(UserError, match="webvison"):
        registry.get("webvison")


def test_every_reader_has_a_homepage():
    homes = {
        name: registry.get(name).homepage
        for name in [n for n, e in registry.BENCHMARKS.items() if e.transform]
    }
    assert [name for name, home in homes.items() if not home] == ["images"]


def test_webvision_s_tail_is_cut_by_size(tmp_path):
    """A class that comes late but is large keeps more than an early one."""
    root = fake_web.webvision(tmp_path)
    file = root / "info" / "train_filelist_google.txt"
    lines = file.read_text().splitlines()
    lines += [f"google/q0030/more {i}.jpg 30" for i in range(18)]
    fake_web.text(file, lines)
    given = {"path": str(root), "imb": 0.1}
    config = fakes.config("webvision", **given)
    config.data.transform = "webvision"
    counts = load.dataset(config).given_counts
    assert counts[30] == 20 and counts.sum() == 20 + 2 * 48 + 2
    config.data.n_max = 10
    counts = load.dataset(config).given_counts
    assert counts[30] == 10 and (np.delete(counts, 30) <= 2).all()
