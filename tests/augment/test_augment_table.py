"""The table of augmentations: what each is made of, and every part of it."""

import jax
import numpy as np
import pytest

from jaxnlt.augment import autoaugment, digits, pillow, randaugment, table
from tests.augment.test_augment import BATCH, random_images

# What all augmentations are made of, one after another.
PARTS = {
    function.__name__: function
    for function in (
        table.shift,
        digits.strong,
        table.crop_flip,
        table.flip,
        table.flip_rotate,
        pillow.jitter,
        autoaugment.policy,
        randaugment.standard,
        randaugment.pypi,
    )
}
MADE_OF = {
    "none": [],
    "shift": ["shift"],
    "digits_strong": ["strong"],
    "crop_flip": ["crop_flip"],
    "autoaugment": ["crop_flip", "policy"],
    "randaugment": ["crop_flip", "standard"],
    "randaugment_pypi": ["crop_flip", "pypi"],
    "crop_jitter_flip": ["crop_flip", "jitter"],
    "crop_jitter_flip_autoaugment": ["crop_flip", "jitter", "policy"],
    "flip": ["flip"],
    "flip_rotate": ["flip_rotate"],
    "flip_autoaugment": ["flip", "policy"],
    "flip_randaugment": ["flip", "standard"],
    "flip_randaugment_pypi": ["flip", "pypi"],
    "flip_rotate_randaugment_pypi": ["flip_rotate", "pypi"],
    "jitter_flip": ["flip", "jitter"],
    "jitter_flip_autoaugment": ["flip", "jitter", "policy"],
}


def test_what_augmentations_are_made_of():
    """Compiling every one of them would cost minutes and say no more."""
    found = {
        name: [part.__name__ for part in parts]
        for name, parts in table.AUGMENTATIONS.items()
    }
    assert found == MADE_OF
    for parts in table.AUGMENTATIONS.values():
        assert all(PARTS[part.__name__] is part for part in parts)
    assert {part for made in found.values() for part in made} == {*PARTS}


def test_no_augmentation_keeps_the_images():
    images = random_images(2, 4, 4, 3)
    out = table.augment(jax.random.key(5), images, table.AUGMENTATIONS["none"])
    np.testing.assert_array_equal(out, images)


@pytest.mark.parametrize("name", PARTS)
def test_every_augmentation(name):
    images = random_images(BATCH, 16, 16, 1 if name == "strong" else 3)
    function = jax.jit(PARTS[name])
    key = jax.random.key(5)
    out = np.asarray(function(key, images))
    assert out.shape == images.shape
    assert out.dtype in (np.uint8, np.float32)
    assert out.min() >= 0 and out.max() <= 255
    np.testing.assert_array_equal(function(key, images), out)
    assert (np.asarray(function(jax.random.key(6), images)) != out).any()
    # an image's result does not depend on its neighbours
    others = images.copy()
    others[1:] = 255 - others[1:]
    np.testing.assert_array_equal(function(key, others)[0], out[0])
    # nor on jax_enable_x64, but for the digits' last bits
    with jax.enable_x64(True):
        wide = np.asarray(function(key, images))
    exact = name == "strong"
    assert wide.dtype == (np.float64 if exact else out.dtype)
    np.testing.assert_allclose(wide, out, rtol=0, atol=1e-3)
