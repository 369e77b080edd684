"""Images on disk, in the place of an array of images."""

import pickle
from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image

from jaxnlt.data import decode, files
from jaxnlt.data.records import UNKNOWN, WRONG, classes_known, verdicts
from jaxnlt.runtime.errors import UserError
from tests.data import fake_web


@pytest.fixture
def split(tmp_path):
    for i in range(4):
        fake_web.jpeg(tmp_path / "a" / f"{i}.jpg", i, (20 + i, 30))
    paths = [f"a/{i}.jpg" for i in range(4)]
    return files.file_split(tmp_path, paths, [0, 1, 0, 1])


def test_take(split):
    part = split.take(np.array([3, 1]))
    assert part.ids.tolist() == ["a/3.jpg", "a/1.jpg"]
    assert part.images.paths.tolist() == part.ids.tolist()
    assert len(part) == len(part.images) == 2
    assert part.images.squares is None and part.true_labels is None
    assert part.images.open(0).shape == (23, 30, 3)
    masked = split.images[np.array([False, True, False, True])]
    assert masked.paths.tolist() == ["a/1.jpg", "a/3.jpg"]


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "1"])
def test_every_mode_becomes_rgb(split, mode):
    path = split.images.root / "a" / "0.jpg"
    with Image.open(path) as image:
        other = image.convert(mode)
    other.save(path, "TIFF")
    pixels = split.images.open(0)
    assert pixels.shape == (20, 30, 3) and pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.asarray(other.convert("RGB")))


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda content: b"", "empty file"),
        (lambda content: content[: len(content) // 2], "unreadable"),
        (lambda content: b"no image at all", "unreadable"),
    ],
)
def test_damaged_image_names_itself(split, damage, reason):
    path = split.images.root / "a" / "2.jpg"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=rf"^{path}: {reason}.*\Z") as error:
        split.images.open(2)
    # As it travels between processes.
    copy = pickle.loads(pickle.dumps(error.value))
    assert isinstance(copy, decode.BadImage) and str(copy) == str(error.value)
    assert (copy.path, copy.reason) == (str(path), error.value.reason)
    assert split.images.open(1).shape == (21, 30, 3)


def test_squares(split):
    images = replace(split.images, squares=np.array([84, 84, 0, 8], np.int32))
    for row, side in ((0, 84), (1, 84), (3, 8)):
        found, pixels = images.open(row), split.images.open(row).astype(float)
        # Of four neighbours, centres half a pixel in.
        expected = jax.image.resize(
            pixels, (side, side, 3), "linear", antialias=False
        )
        assert found.shape == (side, side, 3) and found.dtype == np.uint8
        # Pillow cuts fractions off.
        assert (found - expected).min() > -1.001
        assert (found - expected).max() < 0.001
    np.testing.assert_array_equal(images.open(2), split.images.open(2))
    assert images[np.array([2, 3])].squares.tolist() == [0, 8]


def test_true_labels(tmp_path):
    def of(*true):
        count = len(true)
        return files.file_split(tmp_path, "abcd"[:count], [0] * count, true)

    assert of(UNKNOWN, UNKNOWN).true_labels is None
    assert of(WRONG, UNKNOWN).true_labels.dtype == np.int32
    split = of(0, 1, WRONG, UNKNOWN)
    known, wrong = verdicts(split)
    assert known.tolist() == [True, True, True, False]
    assert wrong.tolist() == [False, True, True, False]
    assert not classes_known(split.true_labels) and not classes_known(None)
    assert classes_known(of(0, 0).true_labels)
    known, wrong = verdicts(of(UNKNOWN, UNKNOWN))
    assert known.tolist() == wrong.tolist() == [False, False]


def test_cut_images_look_like_an_array(tmp_path):
    paths = [f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / path)
    (tmp_path / "1.png").write_bytes(b"")
    split = files.file_split(tmp_path, paths, [0] * 3)
    transform = decode.Transform(0, 6, "none", eval_resize=8)
    images = files.CutImages(split.images, transform)
    assert len(images) == 3 and images.shape == (3, 6, 6, 3)
    some = images[np.array([2, 0])]
    assert some.shape == (2, 6, 6, 3)
    assert (some[0] == 2).all() and (images[np.int64(0)] == 0).all()
    # Only looked at: a report is not stopped by a broken file.
    assert (images[1] == 128).all()
