import shutil

import numpy as np
import pytest

from jaxnlt.data.files import ImageFiles
from tests.data import fake_web, fakes
from tests.data.readers.checks import check, refused


def test_forms_agree(made, tmp_path):
    raw = made("animal_raw")
    files = fakes.read("animal10n", raw)
    check(files, [30, 20])
    assert files.train.true_labels is None
    assert files.train.ids[0] == "training/0_img_1553496000000.jpg"
    folder = fake_web.animal_binary(tmp_path / "binary", raw)
    for path in (tmp_path, folder):
        arrays = fakes.read("animal10n", path)
        for part in ("train", "test"):
            one, other = getattr(files, part), getattr(arrays, part)
            np.testing.assert_array_equal(one.labels, other.labels)
            opened = [one.images.open(row) for row in range(len(one))]
            np.testing.assert_array_equal(opened, other.images)
    assert arrays.class_names == files.class_names
    assert arrays.class_names[9] == "guinea pig"
    numbers = [*range(1000, 1020), *range(1000, 1010)]
    assert arrays.train.ids.tolist() == numbers
    assert arrays.train.true_labels is None
    np.testing.assert_array_equal(arrays.test.true_labels, arrays.test.labels)


def test_raw_images_are_preferred(made, tmp_path):
    raw = made("animal_raw")
    for place in raw.iterdir():
        (tmp_path / place.name).symlink_to(place)
    fake_web.animal_binary(tmp_path / "binary", raw)
    images = fakes.read("animal10n", tmp_path).train.images
    assert isinstance(images, ImageFiles)


def test_images_in_folders_are_sorted_by_path(copy):
    root = copy("animal_raw")
    for file in sorted((root / "training").iterdir()):
        folder = file.parent / "ba"[int(file.name[0]) % 2]
        folder.mkdir(exist_ok=True)
        file.rename(folder / file.name)
    split = fakes.read("animal10n", root).train
    assert len(split) == 30 and split.ids.tolist() == sorted(split.ids)
    given = [int(path.split("/")[2][0]) for path in split.ids]
    np.testing.assert_array_equal(split.labels, given)


def test_neither_form(copy):
    root = copy("animal_raw")
    shutil.rmtree(root / "training")
    assert refused("animal10n", root).startswith(f"{root}: neither")


def test_class_without_image(copy):
    root = copy("animal_raw")
    for file in (root / "training").glob("4_*"):
        file.unlink()
    assert refused("animal10n", root).startswith(f"{root}: class cheetah")


@pytest.fixture
def binary(made, tmp_path):
    root = fake_web.animal_binary(tmp_path / "b", made("animal_raw"))
    return root, root / "data_batch_1.bin"


def test_damaged_binary(binary):
    root, file = binary
    whole = file.read_bytes()
    for content, words in (
        (whole[:-1], f"has {20 * 12296 - 1} bytes"),
        (b"", "has 0 bytes"),
        (whole[:12303] + b"\x0a" + whole[12304:], "record 1 has label 10"),
    ):
        file.write_bytes(content)
        assert refused("animal10n", root).startswith(f"{file}: {words}")


def test_missing_binary(binary):
    root, file = binary
    file.rename(root / "data_batch_3.bin")
    assert refused("animal10n", root).startswith(f"{file}: no such file")
    (root / "data_batch_3.bin").unlink()
    (root / "data_batch_2.bin").rename(file)
    message = refused("animal10n", root)
    assert message.startswith(f"{root}/data_batch_*.bin: class cat")
