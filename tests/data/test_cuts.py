"""What streaming makes of real files: squared first, then the paper's cut."""

import math

import numpy as np
import pytest
from PIL import Image

from jaxnlt.data import decode, files, load, streaming
from jaxnlt.data.nlt import build
from jaxnlt.data.records import WRONG, ListedImage
from jaxnlt.runtime import sharding
from tests.data import fake_nlt, fake_web, fakes

SEEDS = (3, 1, 4)
BILINEAR = Image.Resampling.BILINEAR


def streamed(split, transform):
    """The training and the evaluation view of every image."""
    images = files.CutImages(split.images, decode.TRANSFORMS[transform])
    reader = streaming.Streamed(images, sharding.make_mesh([1]), workers=1)
    want = streaming.Request(np.arange(len(split)), ("weak", "none"), SEEDS)
    (step,) = reader.read([{"x": want}])
    uniforms = np.random.default_rng(SEEDS).random(
        (len(split), 2, decode.UNIFORMS)
    )
    return [np.asarray(pixels) for pixels in step["x"].pixels], uniforms[:, 0]


def part(image, least, uniforms):
    """The box of a random-resized crop that keeps `least` of the area."""
    width, height = image.size
    for k in range(2, len(uniforms), 2):
        area = width * height * (least + uniforms[k] * (1 - least))
        shape = (3 / 4) ** (1 - 2 * uniforms[k + 1])
        w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if w <= width and h <= height:
            break
    left = int(uniforms[1] * (width - w + 1))
    top = int(uniforms[0] * (height - h + 1))
    return left, top, left + w, top + h


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Two classes with an image of every source; none is a square."""
    raw, out = (tmp_path_factory.mktemp(name) for name in ("raw", "nlt"))
    rows = []
    for label, sizes in enumerate(
        (((40, 100), (90, 30)), ((20, 16), (97, 61)))
    ):
        sources = ("imagenet", "swap"), ("web", "imagenet")
        for k, size in enumerate(sizes):
            path = f"{label}/{k}.jpg"
            fake_nlt.jpeg(raw / path, 2 * label + k, size)
            source = sources[label][k]
            true = WRONG if source == "web" else label
            rows.append(ListedImage(path, label, true, source))
    out.rmdir()
    build.write(out, rows, [rows[0], rows[3]], ("cat", "dog"))
    return fakes.read("imagenet_nlt", raw, labels_file=out), rows


def test_images_of_imagenet_are_squares_before_they_are_cut(manifest):
    source, rows = manifest
    assert source.train.images.squares.tolist() == [84, 84, 0, 84]
    assert source.test.images.squares.tolist() == [84, 84]
    (cut, whole), uniforms = streamed(source.train, "imagenet_nlt")
    (_, test), _ = streamed(source.test, "imagenet_nlt")
    np.testing.assert_array_equal(test, whole[[0, 3]])
    for i, row in enumerate(rows):
        image = Image.open(source.train.images.root / row.path).convert("RGB")
        before = image
        if row.source != "web":
            image = image.transform(
                (84, 84),
                Image.Transform.EXTENT,
                (0, 0, *image.size),
                BILINEAR,
            )
        box = part(image, 0.5, uniforms[i])
        expected = image.crop(box).resize((224, 224), BILINEAR)
        np.testing.assert_array_equal(cut[i], expected)
        short = min(image.size)
        expected = image.resize(
            [int(256 * side / short) for side in image.size], BILINEAR
        )
        middle = [round((side - 224) / 2) for side in expected.size]
        end = [start + 224 for start in middle]
        np.testing.assert_array_equal(whole[i], expected.crop([*middle, *end]))
        # Cut without a square, they would show something else.
        other = before.crop(part(before, 0.5, uniforms[i]))
        same = (np.asarray(other.resize((224, 224), BILINEAR)) == cut[i]).all()
        assert same == (row.source == "web")


def test_84_pixels_of_red_mini_imagenet(tmp_path):
    root = fake_web.red(tmp_path / "red")
    train_split = fakes.read("red_mini_imagenet", root).train
    split = train_split.take(np.arange(4))
    (cut, whole), uniforms = streamed(split, "red_mini_imagenet_84")
    for i in range(4):
        image = Image.fromarray(split.images.open(i))
        expected = image.crop(part(image, 0.08, uniforms[i]))
        np.testing.assert_array_equal(
            cut[i], expected.resize((84, 84), BILINEAR)
        )
        expected = image.resize((96, 96), BILINEAR).crop((6, 6, 90, 90))
        np.testing.assert_array_equal(whole[i], expected)

    config = fakes.config(
        "red_mini_imagenet", path=root, transform="red_mini_imagenet_84"
    )
    images = load.dataset(config).train.images
    assert images.shape[1:] == (84, 84, 3) and decode.crops(config)
