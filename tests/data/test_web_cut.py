"""What streaming makes of real files: squared first, then the paper's cut."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from jaxnlt import train
from jaxnlt.data import decode, files, load, streaming
from jaxnlt.data.nlt import manifest as manifests
from jaxnlt.data.nlt import protocol
from jaxnlt.runtime import sharding
from tests import runs
from tests.data import fake_nlt, fake_web

SEEDS = (3, 1, 4)
BILINEAR = Image.Resampling.BILINEAR


def streamed(split, transform):
    """The training and the evaluation view of every image."""
    images = decode.CutImages(split.images, files.TRANSFORMS[transform])
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
            true = protocol.WRONG if source == "web" else label
            rows.append(protocol.Row(path, label, true, source))
    out.rmdir()
    manifests.write(out, rows, [rows[0], rows[3]], ("cat", "dog"))
    return fake_web.read("imagenet_nlt", str(raw), labels_file=str(out)), rows


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
    train_split = fake_web.read("red_mini_imagenet", str(root)).train
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

    given = {
        "data.path": str(root),
        "data.transform": "red_mini_imagenet_84",
        "augment.weak": "jitter_flip",
        "augment.strong": "jitter_flip_autoaugment",
    }
    config = runs.tiny("tabasco", "red_mini_imagenet", **given)
    assert load.dataset(config).train.images.shape[1:] == (84, 84, 3)
    # As large as a network for tests can bear.
    small = {"batch_size": 4, "warmup_batch_size": 4, "eval_batch_size": 16}
    config = runs.tiny(
        "erm",
        "red_mini_imagenet",
        **{"epochs": 1, "max_steps": 1, "data.image_size": 16} | small | given,
    )
    summary = train.run(config, tmp_path / "run")
    assert summary["data"]["image_shape"] == [16, 16, 3]
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert kept["augment"]["weak"] == "jitter_flip"
