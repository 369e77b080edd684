import numpy as np
import pytest

from jaxnlt.data.decode import BadImage
from tests.data import fakes
from tests.data.readers.checks import append, check, refused


@pytest.mark.parametrize("images", ["images/", ""])
def test_splits(made, images):
    source = fakes.read("clothing1m", made("clothing", images=images))
    check(source, [42, 28, 14])
    assert source.class_names[3] == "Chiffon" and len(source.class_names) == 14
    assert source.train.true_labels is None
    assert list(source.more_tests) == ["val"]
    for split in (source.train, source.test, source.more_tests["val"]):
        folders = [int(path.split("/")[-2]) for path in split.ids]
        np.testing.assert_array_equal(split.labels, folders)
        assert split.ids.tolist() == sorted(split.ids)
    assert source.train.ids[0] == f"{images}0/00/0,11n.jpg"


def test_lists_in_annotations(made, tmp_path):
    root = made("clothing")
    (tmp_path / "annotations").mkdir()
    for file in root.glob("*.txt"):
        (tmp_path / "annotations" / file.name).symlink_to(file)
    (tmp_path / "images").symlink_to(root / "images")
    check(fakes.read("clothing1m", tmp_path), [42, 28, 14])


def test_key_without_label(copy):
    root = copy("clothing")
    file = root / "clean_val_key_list.txt"
    append(file, "images/0/00/7.jpg")
    message = refused("clothing1m", root)
    assert message.startswith(f"{file}: images/0/00/7.jpg has no label")


def test_a_missing_image_is_named_when_it_is_opened(copy):
    root = copy("clothing")
    images = fakes.read("clothing1m", root).train.images
    path = root / images.paths[5]
    path.unlink()
    again = fakes.read("clothing1m", root).train.images
    np.testing.assert_array_equal(again.paths, images.paths)
    with pytest.raises(BadImage, match=f"^{path}: no such file$"):
        again.open(5)
