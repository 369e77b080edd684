"""Evaluation transforms against the numbers of torchvision and Pillow."""

import numpy as np

from jaxnlt.augment import table
from jaxnlt.data import decode, registry
from tests.golden.cases import golden


def standardised(image, mean, std):
    """What the network sees of an image, colours first."""
    out = table.normalise(image, tuple(mean), tuple(std))
    return np.asarray(out).transpose(2, 0, 1)


def names(case, suffix):
    found = [k.removesuffix(suffix) for k in case.keys() if k.endswith(suffix)]
    assert found
    return found


@golden("smr_eval_preprocess")
def test_images_that_are_only_standardised(case):
    for name in names(case, "_eval_chw_f32"):
        image = case[f"{name}_image_uint8"]
        bench = registry.get("animal10n" if name == "animal" else name)
        if bench.transform:
            transform = decode.scaled(
                decode.TRANSFORMS[bench.transform], min(image.shape[:2])
            )
            (image,) = decode.views(image, transform, [None])
        out = standardised(image, bench.mean, bench.std)
        expected = case[f"{name}_eval_chw_f32"]
        assert out.dtype == expected.dtype
        np.testing.assert_allclose(out, expected, atol=1e-5)


@golden("smr_eval_preprocess")
def test_padding_of_a_crop_is_black_before_it_is_standardised(case):
    for name in names(case, "_value_of_crop_padding"):
        bench = registry.get(name)
        image = np.full((1, 2, 2, 3), 255, np.uint8)
        draws = table.CropDraws(
            *(np.array([k]) for k in (-1, -1)), np.array([False])
        )
        cut = np.asarray(table.apply_crop(image, draws))[0]
        out = standardised(cut, bench.mean, bench.std)
        np.testing.assert_allclose(
            out[:, 0, 0], case[f"{name}_value_of_crop_padding"], atol=1e-5
        )


@golden("smr_eval_preprocess")
def test_resize_and_centre_crop(case):
    for name in names(case, "_resized_cropped_uint8_hwc"):
        bench = registry.get("clothing1m" if name == "clothing" else name)
        expected = case[f"{name}_resized_cropped_uint8_hwc"]
        transform = decode.TRANSFORMS[bench.transform]
        assert expected.shape == (transform.size, transform.size, 3)
        (out,) = decode.views(case[f"{name}_image_uint8"], transform, [None])
        np.testing.assert_array_equal(out, expected)
        assert bench.mean == tuple(case[f"{name}_mean"])
        assert bench.std == tuple(case[f"{name}_std"])
        corner = case[f"{name}_normalized_corner_chw"]
        seen = standardised(out, bench.mean, bench.std)
        height, width = corner.shape[1:]
        np.testing.assert_allclose(seen[:, :height, :width], corner, atol=1e-5)
