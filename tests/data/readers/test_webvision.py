import numpy as np

from jaxnlt.data import load
from tests.data import fake_web, fakes
from tests.data.readers.checks import check, refused

TRAIN = "info/train_filelist_google.txt"


def test_classes_and_test_sets(made):
    source = fakes.read("webvision", made("webvision", imagenet="synset"))
    check(source, [100, 50, 50])
    names = [f"google/q0000/img {i}_0.jpg" for i in range(2)]
    assert source.train.ids[:2].tolist() == names
    np.testing.assert_array_equal(source.train.labels, np.arange(100) // 2)
    assert source.train.true_labels is None
    # The validation images are numbered from the last class on.
    assert source.test.ids[0] == "val_images_256/val000003.jpg"
    np.testing.assert_array_equal(source.test.labels, np.arange(50)[::-1])
    imagenet = source.more_tests["imagenet"]
    np.testing.assert_array_equal(imagenet.labels, np.arange(50))
    name = f"{fake_web.SYNSETS[1]}/ILSVRC2012_val_00000001.JPEG"
    assert imagenet.ids[1] == name
    # Two classes have the same first word.
    same = "thing 0 (n01440000)", "thing 0 (n01440007)"
    assert source.class_names[:2] == same
    assert len(set(source.class_names)) == 50


def test_imagenet_in_numbered_folders_or_not_at_all(made):
    check(fakes.read("webvision", made("webvision")), [100, 50])
    source = fakes.read("webvision", made("webvision", imagenet="number"))
    check(source, [100, 50, 50])
    split = source.more_tests["imagenet"]
    assert split.ids[10] == "10/ILSVRC2012_val_00000010.JPEG"
    np.testing.assert_array_equal(split.labels, np.arange(50))


def test_imagenet_beside_webvision(made, tmp_path):
    beside = tmp_path / "webvision"
    beside.symlink_to(made("webvision"))
    place = tmp_path / "ILSVRC2012" / "val"
    place.mkdir(parents=True)
    # A flat folder has no classes and is not used.
    assert not fakes.read("webvision", tmp_path).more_tests
    for label in range(50):
        for i in (5, 2, 8, 1, 9, 3) if label == 7 else (0,):
            name = f"{fake_web.SYNSETS[label]}/ILSVRC2012_val_{i:08d}.JPEG"
            fake_web.jpeg(place / name, i)
    for path in (tmp_path, beside):
        split = fakes.read("webvision", path).more_tests["imagenet"]
        assert len(split) == 55 and split.ids.tolist() == sorted(split.ids)


def test_imagenet_without_images(made, tmp_path):
    (tmp_path / "webvision").symlink_to(made("webvision"))
    place = tmp_path / "imagenet" / "val"
    (place / "0").mkdir(parents=True)
    message = refused("webvision", tmp_path)
    assert message.startswith(f"{place}: holds no image")


def test_class_without_image(copy):
    root = copy("webvision")
    lines = (root / TRAIN).read_text().splitlines()
    fake_web.text(root / TRAIN, [x for x in lines if x[-3:] != " 17"])
    message = refused("webvision", root)
    assert message.startswith(f"{root / TRAIN}: class thing 8 (n01440119)")


def test_the_tail_is_cut_by_size(copy):
    """A class that comes late but is large keeps more than an early one."""
    root = copy("webvision")
    lines = (root / TRAIN).read_text().splitlines()
    lines += [f"google/q0030/more {i}.jpg 30" for i in range(18)]
    fake_web.text(root / TRAIN, lines)
    for i in range(18):
        fake_web.jpeg(root / f"google/q0030/more {i}.jpg", i)
    config = fakes.config("webvision", path=root, imb=0.1)
    counts = load.dataset(config).given_counts
    assert counts[30] == 20 and counts.sum() == 20 + 2 * 48 + 2
    config.data.n_max = 10
    counts = load.dataset(config).given_counts
    assert counts[30] == 10 and (np.delete(counts, 30) <= 2).all()
