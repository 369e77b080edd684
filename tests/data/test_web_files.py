"""Images that stay on disk, and how the papers cut them."""

import pickle

import numpy as np
import pytest
from PIL import Image

from jaxnlt.data import files, registry
from jaxnlt.data.records import Split
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
    assert files.is_streamed(part) and not hasattr(part.images, "shape")
    masked = split.images[np.array([False, True, False, True])]
    assert masked.paths.tolist() == ["a/1.jpg", "a/3.jpg"]


def test_arrays_are_not_streamed():
    labels = np.zeros(2, np.int32)
    images = np.zeros((2, 4, 4, 3), np.uint8)
    memory = Split(images, labels, None, labels)
    assert not files.is_streamed(memory)
    known, wrong = files.verdicts(memory)
    assert not known.any() and not wrong.any() and len(known) == 2


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
        (lambda content: b"", "unreadable image"),
        (lambda content: content[: len(content) // 2], "runcated"),
        (lambda content: b"no image at all", "cannot identify"),
    ],
)
def test_damaged_image_names_itself(split, damage, reason):
    path = split.images.root / "a" / "2.jpg"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(files.BadImage) as error:
        split.images.open(2)
    assert isinstance(error.value, UserError)
    assert str(error.value).startswith(f"{path}: unreadable image (")
    assert reason in str(error.value) and "\n" not in str(error.value)
    # From a process that decodes to the one that counts.
    copy = pickle.loads(pickle.dumps(error.value))
    assert str(copy) == str(error.value)
    assert (copy.path, copy.reason) == (error.value.path, error.value.reason)
    assert copy.path == str(path)
    assert split.images.open(1).shape == (21, 30, 3)


def bilinear(pixels, side):
    """Each pixel from its four neighbours, centres half a pixel in."""

    def weights(size):
        at = np.clip((np.arange(side) + 0.5) * size / side - 0.5, 0, size - 1)
        low = np.minimum(at.astype(int), size - 2)
        matrix = np.zeros((side, size))
        matrix[np.arange(side), low] = 1 - (at - low)
        matrix[np.arange(side), low + 1] += at - low
        return matrix

    rows, columns = (weights(size) for size in pixels.shape[:2])
    return np.einsum("ah,bw,hwc->abc", rows, columns, pixels)


def test_squares(split):
    squares = np.array([84, 84, 0, 8], np.int32)
    images = files.ImageFiles(split.images.root, split.images.paths, squares)
    for row in range(4):
        as_it_is, found = split.images.open(row), images.open(row)
        if squares[row]:
            side = int(squares[row])
            assert found.shape == (side, side, 3) and found.dtype == np.uint8
            expected = bilinear(as_it_is.astype(float), side)
            # Pillow cuts fractions off.
            assert (found - expected).min() > -1.001
            assert (found - expected).max() < 0.001
        else:
            np.testing.assert_array_equal(found, as_it_is)
    assert images[np.array([2, 3])].squares.tolist() == [0, 8]


def test_true_labels(tmp_path):
    def true(values):
        return files.file_split(
            tmp_path, ["a", "b"], [0, 1], values
        ).true_labels

    assert true(None) is None
    assert true([files.UNKNOWN] * 2) is None
    assert true([-1, files.UNKNOWN]).tolist() == [-1, files.UNKNOWN]
    assert true([-1, files.UNKNOWN]).dtype == np.int32
    known, wrong = files.verdicts(
        files.file_split(
            tmp_path, list("abcd"), [0, 1, 1, 0], [0, 0, -1, files.UNKNOWN]
        )
    )
    assert known.tolist() == [True, True, True, False]
    assert wrong.tolist() == [False, True, True, False]


def test_transforms():
    table = files.TRANSFORMS
    for name in [n for n, e in registry.BENCHMARKS.items() if e.transform]:
        assert registry.get(name).transform in table, name
    for name, entry in table.items():
        assert "papers/" in entry.source, name
        assert entry.crop in ("random_crop", "random_resized_crop", "none")
        assert 0 < entry.scale[0] <= entry.scale[1] <= 1, name
        # A crop fits into what was resized before it.
        assert entry.resize >= entry.size or not entry.resize, name
        assert entry.eval_resize >= entry.size, name
    numbers = {
        name: (table[name].resize, table[name].size, table[name].eval_resize)
        for name in ("webvision", "clothing1m", "animal10n", "food101n")
    }
    assert numbers == {
        "webvision": (320, 299, 320),
        "clothing1m": (256, 224, 256),
        "animal10n": (64, 64, 64),
        "food101n": (0, 224, 256),
    }
    assert table["webvision"].scale == (0.08, 1.0)
    assert table["webvision_smr"].crop == "random_crop"
