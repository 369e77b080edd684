"""Evaluation transforms against the numbers of torchvision and Pillow."""

import numpy as np

from jaxnlt.augment import table
from jaxnlt.data import decode, registry
from tests.golden.cases import golden
from tests.golden.precision import near


def standardised(image, mean, std):
    """What the network sees of an image, colours first."""
    out = table.normalise(image, tuple(mean), tuple(std))
    return np.asarray(out).transpose(2, 0, 1)


@golden("smr_eval_preprocess")
def test_images_that_are_only_standardised(case):
    for name in case.prefixes("_eval_chw_f32"):
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
        near(out, expected)


@golden("smr_eval_preprocess")
def test_padding_of_a_crop_is_black_before_it_is_standardised(case):
    for name in case.prefixes("_value_of_crop_padding"):
        bench = registry.get(name)
        image = np.full((1, 2, 2, 3), 255, np.uint8)
        shift, flip = np.array([-1]), np.array([False])
        draws = table.CropDraws(shift, shift, flip)
        cut = np.asarray(table.apply_crop(image, draws))[0]
        out = standardised(cut, bench.mean, bench.std)
        near(out[:, 0, 0], case[f"{name}_value_of_crop_padding"])


@golden("smr_eval_preprocess")
def test_resize_and_centre_crop(case):
    for name in case.prefixes("_resized_cropped_uint8_hwc"):
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
        near(seen[:, :height, :width], corner)
