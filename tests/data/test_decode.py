"""Where crops lie, what they hold, and how images of odd shapes fare."""

import math
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from jaxnlt.data import decode, registry
from jaxnlt.data.decode import Transform
from tests.data import fakes


def picture(height, width):
    """Every pixel says where it lies: row, column, 7."""
    y, x = np.indices((height, width))
    return np.stack([y, x, np.full_like(y, 7)], -1).astype(np.uint8)


def uniforms(*first):
    numbers = np.full(decode.UNIFORMS, 0.5)
    numbers[: len(first)] = first
    return numbers


def cut(pixels, transform, numbers):
    (out,) = decode.views(pixels, transform, [numbers])
    assert out.dtype == np.uint8
    assert out.shape == (transform.size, transform.size, 3)
    return out


@pytest.mark.parametrize(
    "height, width, size",
    # int(4 * 7 / 5) = 5; an image with the wanted shorter side stays.
    [(5, 7, (5, 4)), (7, 5, (4, 5)), (6, 6, (4, 4)), (4, 9, (9, 4))],
)
def test_the_longer_side_follows_the_shorter(height, width, size):
    image = Image.fromarray(picture(height, width))
    out = decode.resize(image, 4)
    assert out.size == size
    expected = image.resize(size, Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(np.asarray(out), np.asarray(expected))
    assert decode.resize(image, 0) is image


@pytest.mark.parametrize(
    # round((9 - 4) / 2) is 2, round((11 - 4) / 2) is 4: halves go to even.
    "height, width, top, left",
    [(9, 11, 2, 4), (4, 4, 0, 0), (6, 8, 1, 2)],
)
def test_where_the_centre_crop_starts(height, width, top, left):
    transform = Transform(0, 4, "random_crop")
    out = cut(picture(height, width), transform, None)
    assert out[0, 0].tolist() == [top, left, 7]
    assert out[-1, -1].tolist() == [top + 3, left + 3, 7]


def test_a_random_crop_reaches_every_place_alike():
    transform = Transform(0, 4, "random_crop")
    rng = np.random.default_rng(0)
    corners = [
        tuple(cut(picture(6, 5), transform, numbers)[0, 0])
        for numbers in rng.random((600, decode.UNIFORMS))
    ]
    places, counts = np.unique(corners, axis=0, return_counts=True)
    expected = [[y, x, 7] for y in range(3) for x in range(2)]
    assert places.tolist() == expected
    assert counts.min() > 70
    last = uniforms(1 - 1e-12, 1 - 1e-12)
    assert cut(picture(6, 5), transform, last)[0, 0].tolist() == [2, 1, 7]


def test_what_an_image_lacks_is_black():
    transform = Transform(0, 6, "random_crop")
    for numbers in (None, uniforms(0.0, 0.99)):
        out = cut(picture(4, 6), transform, numbers)
        assert not out[0].any() and not out[-1].any()
        assert out[1, 0].tolist() == [0, 0, 7]
        assert out[4, 5].tolist() == [3, 5, 7]


SCALED = Transform(
    0, 8, "random_resized_crop", (0.25, 0.5), (3 / 4, 4 / 3), eval_resize=8
)


def test_a_random_resized_crop_keeps_area_and_shape_within_bounds():
    image, rng = mock.Mock(size=(400, 300)), np.random.default_rng(1)
    for numbers in rng.random((2000, decode.UNIFORMS)):
        decode.random_resized_crop(
            image, 8, (0.25, 0.5), (3 / 4, 4 / 3), numbers
        )
    boxes = [call.args[0] for call in image.crop.call_args_list]
    left, top, right, bottom = np.array(boxes).T
    width, height = right - left, bottom - top
    assert left.min() == 0 and top.min() == 0
    assert right.max() == 400 and bottom.max() == 300
    areas, shapes = width * height / (400 * 300), np.log(width / height)
    assert 0.249 < areas.min() < 0.26 and 0.49 < areas.max() < 0.502
    assert abs(areas.mean() - 0.375) < 0.005
    bound = math.log(4 / 3)
    assert -bound - 0.01 < shapes.min() < -bound + 0.02
    assert bound - 0.02 < shapes.max() < bound + 0.01
    # Uniform in the logarithm, as the ratio itself is not.
    assert abs(shapes.mean()) < 0.01
    assert abs(shapes.std() - bound / math.sqrt(3)) < 0.006
    share = left / np.maximum(400 - width, 1)
    assert abs(share.mean() - 0.5) < 0.02


def test_a_random_resized_crop_is_pillow_s_of_its_rectangle():
    # Half of the area and the shape 1: 14 of 20 pixels, at 3 of 0..6, 5 of 6.
    numbers = uniforms(3 / 7, 5.5 / 7, 1.0, 0.5)
    pixels = np.random.default_rng(2).integers(0, 256, (20, 20, 3), np.uint8)
    out = cut(pixels, SCALED, numbers)
    part = Image.fromarray(pixels[3:17, 5:19])
    expected = part.resize((8, 8), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(out, np.asarray(expected))


def test_the_first_try_that_fits_is_taken():
    # Ratio 4/3 at the whole area does not fit; the second try does.
    wide = Transform(0, 8, "random_resized_crop", (0.25, 1.0))
    numbers = uniforms(0.0, 0.0, 1.0, 1.0, 0.0, 0.5)
    out = cut(picture(16, 16), wide, numbers)
    np.testing.assert_array_equal(out, picture(16, 16)[:8, :8])


@pytest.mark.parametrize(
    "size, box",
    # Too long for any try: the largest allowed shape in the middle.
    [
        ((8, 40), (14, 0, 25, 8)),
        ((40, 8), (0, 14, 8, 25)),
        ((16, 16), (0, 0, 16, 16)),
    ],
)
def test_if_none_fits_the_middle_is_taken(size, box):
    whole = Transform(0, 8, "random_resized_crop", (1.0, 1.0))
    out = cut(picture(*size), whole, np.full(decode.UNIFORMS, 1.0 - 1e-9))
    part = Image.fromarray(picture(*size)).crop(box)
    expected = part.resize((8, 8), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(out, np.asarray(expected))


def test_views_of_one_image_differ_and_the_last_is_the_evaluation_s():
    transform = Transform(12, 8, "random_crop", eval_resize=10)
    pixels = picture(20, 30)
    numbers = [uniforms(0.0, 0.0), uniforms(0.9, 0.9), None]
    a, b, c = decode.views(pixels, transform, numbers)
    large, small = (
        np.asarray(decode.resize(Image.fromarray(pixels), side))
        for side in (12, 10)
    )
    np.testing.assert_array_equal(a, large[:8, :8])
    np.testing.assert_array_equal(b, large[4:, 9:17])
    np.testing.assert_array_equal(c, small[1:9, 4:12])
    # Without a crop training sees the middle.
    whole = Transform(10, 8, "none", eval_resize=10)
    for view in decode.views(pixels, whole, [uniforms(0.9, 0.9), None]):
        np.testing.assert_array_equal(view, c)


def test_another_size_scales_every_side():
    paper = Transform(320, 299, "random_crop", eval_resize=320)
    small = decode.scaled(paper, 30)
    assert (small.size, small.resize, small.eval_resize) == (30, 32, 32)
    assert small.crop == "random_crop"
    assert decode.scaled(paper, 0) is paper
    # Sides that are equal stay equal, and what is not resized stays so.
    assert decode.scaled(Transform(64, 64, "none"), 9).resize == 9
    assert decode.scaled(SCALED, 4).resize == 0


def test_transforms():
    table = decode.TRANSFORMS
    for name, entry in registry.BENCHMARKS.items():
        assert not entry.transform or entry.transform in table, name
    assert table["images_small"].crop == "squeeze"  # ours, of no paper
    for name, entry in table.items():
        if name == "images_small":
            continue
        assert "papers/" in entry.source, name
        assert entry.crop in ("random_crop", "random_resized_crop", "none")
        assert 0 < entry.scale[0] <= entry.scale[1] <= 1, name
        # A crop fits into what was resized before it.
        assert entry.resize >= entry.size or not entry.resize, name
        assert entry.eval_resize >= entry.size, name
    numbers = {
        "webvision": (320, 299, 320, (0.08, 1.0)),
        "clothing1m": (256, 224, 256, (1.0, 1.0)),
        "animal10n": (64, 64, 64, (1.0, 1.0)),
        "food101n": (0, 224, 256, (0.5, 1.0)),
        "red_mini_imagenet_84": (0, 84, 96, (0.08, 1.0)),
    }
    for name, expected in numbers.items():
        entry = table[name]
        found = entry.resize, entry.size, entry.eval_resize, entry.scale
        assert found == expected
    assert table["webvision_smr"].crop == "random_crop"
    small = fakes.config("red_mini_imagenet", image_size=16)
    assert decode.transform_of(small).size == 16 and not decode.crops(small)
    small.data.transform = "red_mini_imagenet_84"
    assert decode.crops(small)
    assert decode.transform_of(fakes.config("digits")) is None
