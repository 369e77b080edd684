"""Augmentation: against Pillow, operation by operation and as a policy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image, ImageEnhance, ImageOps

from jaxnlt.augment import autoaugment, digits, pillow, table

BATCH = 32


def random_images(count, height, width, channels, seed=0):
    """Images with full, narrow and one-sided ranges; some constant."""
    rng = np.random.default_rng(seed)
    shape = (count, 1, 1, channels)
    low = rng.integers(0, 200, shape)
    span = rng.integers(0, 256 - low)
    span[0] = 0
    full = rng.random(shape) < 0.3
    low, span = np.where(full, 0, low), np.where(full, 255, span)
    noise = rng.random((count, height, width, channels))
    return (low + np.round(noise * span)).astype(np.uint8)


def with_pillow(image, op, value):
    """One operation by Pillow itself, uint8 [H, W, C] -> the same."""
    grey = image.shape[-1] == 1
    picture = Image.fromarray(image[..., 0] if grey else image)
    fill = 128 if grey else (128, 128, 128)

    def transform(matrix, resample):
        return picture.transform(
            picture.size,
            Image.Transform.AFFINE,
            matrix,
            resample,
            fillcolor=fill,
        )

    nearest, cubic = Image.Resampling.NEAREST, Image.Resampling.BICUBIC
    run = {
        "identity": lambda: picture,
        "invert": lambda: ImageOps.invert(picture),
        "posterize": lambda: ImageOps.posterize(picture, int(value)),
        "solarize": lambda: ImageOps.solarize(picture, value),
        "autocontrast": lambda: ImageOps.autocontrast(picture),
        "equalize": lambda: ImageOps.equalize(picture),
        "color": lambda: ImageEnhance.Color(picture).enhance(value),
        "contrast": lambda: ImageEnhance.Contrast(picture).enhance(value),
        "brightness": lambda: ImageEnhance.Brightness(picture).enhance(value),
        "sharpness": lambda: ImageEnhance.Sharpness(picture).enhance(value),
        "translateX": lambda: transform((1, 0, value, 0, 1, 0), nearest),
        "translateY": lambda: transform((1, 0, 0, 0, 1, value), nearest),
        "shearX": lambda: transform((1, value, 0, 0, 1, 0), cubic),
        "shearY": lambda: transform((1, 0, 0, value, 1, 0), cubic),
        "rotate": lambda: picture.rotate(value, nearest, fillcolor=fill),
    }
    return np.asarray(run[op]()).reshape(image.shape)


# Compiled once each: operation by operation is slower than compiling.
apply_digits = jax.jit(digits.apply_digits)
sample_digits = jax.jit(digits.sample_digits, static_argnums=(1, 2, 3))
sample_policy = jax.jit(autoaugment.sample_policy, static_argnums=1)
sample_crop_flip = jax.jit(table.sample_crop_flip, static_argnums=(1, 2, 3))
AUGMENTATIONS = {
    name: jax.jit(functools.partial(table.augment, parts=parts))
    for name, parts in table.AUGMENTATIONS.items()
}


@functools.partial(jax.jit, static_argnames="choices")
def apply_choices(images, choices, which):
    return pillow.apply_choices(images, choices, which)


@pytest.mark.parametrize("shape", [(17, 24, 3), (8, 8, 1)])
@pytest.mark.parametrize("op", pillow.OPS)
def test_every_operation_equals_pillow(op, shape):
    height, width, _ = shape
    magnitudes = [
        *autoaugment.MAGNITUDES[op],
        0.123 if op != "posterize" else 3,
    ]
    choices = {
        autoaugment.resolve(op, float(magnitude), sign, height, width): None
        for magnitude in magnitudes
        for sign in (-1, 1)
    }
    choices = (pillow.IDENTITY, *choices)
    images = random_images(3 * len(choices), *shape)
    which = np.arange(len(images), dtype=np.int32) % len(choices)
    out = np.asarray(apply_choices(images, choices, which))
    expected = np.stack(
        [
            with_pillow(image, *choices[k])
            for image, k in zip(images, which, strict=True)
        ]
    )
    assert out.dtype == np.uint8
    difference = np.abs(out.astype(int) - expected)
    if op in pillow.SHEAR_OPS:
        # float32 against Pillow's float64, before truncation
        assert difference.max() <= 1
        assert difference.mean() < 0.01
    else:
        np.testing.assert_array_equal(out, expected)
    if shape[-1] == 3:
        assert (out[which > 0] != images[which > 0]).any()


def test_autocontrast_rounds_as_float64_does():
    # in some ranges Pillow sends the lightest level to 254, not 255
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4000, 1, 3, 1), np.uint8)
    choices = (("autocontrast", 0.0),)
    out = apply_choices(images, choices, np.zeros(len(images), np.int32))
    expected = [with_pillow(image, *choices[0]) for image in images]
    np.testing.assert_array_equal(out, expected)
    assert (np.max(expected, (1, 2, 3)) == 254).any()


def test_other_operations_and_channels_are_refused():
    images, which = jnp.zeros((1, 4, 4, 3), jnp.uint8), jnp.zeros(1, jnp.int32)
    with pytest.raises(ValueError, match="twist"):
        pillow.apply_choices(images, (("twist", 1.0),), which)
    with pytest.raises(ValueError, match="channels"):
        pillow.apply_choices(images[..., :2], (pillow.IDENTITY,), which)


# ``papers/dasc.md`` section 2: value without sign, translations as a share
# of the size
TABLE = """
invert - 0.1 contrast 0.6 0.2
rotate 6.667 0.7 translateX 0.4532 0.3
sharpness 0.1 0.8 sharpness 0.3 0.9
shearY 0.2667 0.5 translateY 0.4532 0.7
autocontrast - 0.5 equalize - 0.9
shearY 0.2333 0.2 posterize 5 0.3
color 0.3 0.4 brightness 0.7 0.6
sharpness 0.9 0.3 brightness 0.9 0.7
equalize - 0.6 equalize - 0.5
contrast 0.7 0.6 sharpness 0.5 0.6
color 0.7 0.7 translateX 0.4028 0.5
equalize - 0.3 autocontrast - 0.4
translateY 0.1511 0.4 sharpness 0.6 0.2
brightness 0.6 0.9 color 0.8 0.2
solarize 199.11 0.5 invert - 0.0
equalize - 0.2 autocontrast - 0.6
equalize - 0.2 equalize - 0.8
color 0.9 0.9 equalize - 0.6
autocontrast - 0.8 solarize 28.44 0.2
brightness 0.3 0.1 color 0 0.7
solarize 113.78 0.4 autocontrast - 0.9
translateY 0.4532 0.9 translateY 0.4532 0.7
autocontrast - 0.9 solarize 170.67 0.8
equalize - 0.8 invert - 0.1
translateY 0.4532 0.7 autocontrast - 0.9
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()]


@pytest.mark.parametrize("slot", [0, 1])
def test_the_policy_is_the_published_table(slot):
    choices, index = autoaugment.slot_choices(slot, 40, 20)
    assert len(ROWS) == len(autoaugment.SUB_POLICIES) == len(index) == 25
    assert choices[0] == pillow.IDENTITY
    for number, row in enumerate(ROWS):
        op, magnitude, probability = row[3 * slot : 3 * slot + 3]
        assert autoaugment.probabilities()[number, slot] == pytest.approx(
            float(probability)
        )
        for sign, k in zip((-1, 1), index[number], strict=True):
            assert choices[k][0] == op
            if magnitude == "-":
                continue
            expected = float(magnitude)
            if op in pillow.BLEND_OPS:
                expected = 1 + sign * expected
            elif op.startswith("translate"):
                expected *= sign * {"X": 20, "Y": 40}[op[-1]]
            elif op == "shearY":
                expected *= sign
            assert choices[k][1] == pytest.approx(expected, abs=6e-3)


def test_autoaugment_equals_pillow_with_the_same_draws():
    batch = 256
    images = random_images(batch, 32, 32, 3)
    key = jax.random.key(3)
    out = np.asarray(AUGMENTATIONS["autoaugment"](key, images))

    crop_key, policy_key = jax.random.split(key)
    cropped = np.asarray(AUGMENTATIONS["crop_flip"](crop_key, images))
    draws = jax.device_get(sample_policy(policy_key, batch))
    touched = set()
    for i in range(batch):
        expected, sheared = cropped[i], False
        for slot in (0, 1):
            number = int(draws.policy[i])
            op, level, _ = autoaugment.SUB_POLICIES[number][slot]
            if draws.applied[slot, i]:
                magnitude = float(autoaugment.MAGNITUDES[op][level])
                sign = 1 if draws.positive[slot, i] else -1
                expected = with_pillow(
                    expected, *autoaugment.resolve(op, magnitude, sign, 32, 32)
                )
                sheared |= op == "shearY"
                touched.add((number, slot))
        difference = np.abs(out[i].astype(int) - expected)
        assert difference.mean() <= (0.05 if sheared else 0.0), number
    assert len(touched) >= 40  # of 49 that have a chance


def test_policy_draws_follow_the_table():
    batch = 50_000
    draws = jax.device_get(sample_policy(jax.random.key(0), batch))
    counts = np.bincount(draws.policy, minlength=25)
    assert len(counts) == 25
    np.testing.assert_allclose(counts / batch, 1 / 25, atol=0.004)
    np.testing.assert_allclose(draws.positive.mean(1), 0.5, atol=0.01)
    for slot in (0, 1):
        rate = np.bincount(draws.policy, draws.applied[slot]) / counts
        expected = autoaugment.probabilities()[:, slot]
        np.testing.assert_allclose(rate, expected, atol=0.05)
        assert (rate[expected == 0] == 0).all()
    # the two operations of a pair do not share sign or coin
    assert abs(np.mean(draws.positive[0] == draws.positive[1]) - 0.5) < 0.01


def test_crop_flip_cuts_the_padded_image():
    images = random_images(BATCH, 32, 32, 3)
    key = jax.random.key(1)
    draws = jax.device_get(sample_crop_flip(key, BATCH, 32, 32))
    out = np.asarray(AUGMENTATIONS["crop_flip"](key, images))
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    assert out.dtype == np.uint8 and draws.flip.any()
    for i in range(BATCH):
        top, left = 4 + draws.top[i], 4 + draws.left[i]
        crop = padded[i, top : top + 32, left : left + 32]
        crop = crop[:, ::-1] if draws.flip[i] else crop
        np.testing.assert_array_equal(out[i], crop)


def test_crop_draws_are_even():
    draws = sample_crop_flip(jax.random.key(0), 20_000, 32, 32)
    for offset in draws.top, draws.left:
        values, counts = np.unique(offset, return_counts=True)
        assert values.tolist() == list(range(-4, 5))
        np.testing.assert_allclose(counts / 20_000, 1 / 9, atol=0.01)
    assert abs(float(draws.flip.mean()) - 0.5) < 0.02
    correlation = np.corrcoef(np.stack(draws))
    assert np.abs(correlation - np.eye(3)).max() < 0.03


def test_shift_moves_by_one_pixel_and_fills_with_black():
    images = random_images(400, 8, 8, 1) | 1  # no black inside
    out = np.asarray(AUGMENTATIONS["shift"](jax.random.key(0), images))
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    found = np.zeros((3, 3), int)
    for i in range(len(images)):
        hits = [
            (y, x)
            for y in range(3)
            for x in range(3)
            if (padded[i, y : y + 8, x : x + 8] == out[i]).all()
        ]
        assert hits
        if len(hits) == 1:
            found[hits[0]] += 1
    assert found.min() > 20


def unchanged(batch):
    """Draws of digits_strong that change nothing: the square lies outside."""
    zero, one = np.zeros(batch, np.float32), np.ones(batch, np.float32)
    far = np.full(batch, -9, np.int32)
    return digits.DigitDraws(zero, one, zero, zero, zero, one, one, far, far)


def test_digits_draws_around_unchanged():
    images = random_images(4, 8, 8, 1)
    out = apply_digits(images, unchanged(4))
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out, images)

    draws = sample_digits(jax.random.key(0), 5000, 8, 8)
    limits = (15, 0.15, 0.2, 1, 1, 0.2, 0.2)
    for values, middle, limit in zip(
        draws[:7], unchanged(1)[:7], limits, strict=True
    ):
        offset = np.asarray(values) - middle
        assert np.abs(offset).max() <= limit * 1.0001
        assert offset.min() < -0.99 * limit and offset.max() > 0.99 * limit
    correlation = np.corrcoef(np.stack(draws))  # each drawn by itself
    assert np.abs(correlation - np.eye(len(draws))).max() < 0.06
    assert np.unique(draws.cut_y).tolist() == [-3, *range(8)]
    assert np.unique(draws.cut_x).tolist() == list(range(8))
    # Half of the digits keep each property, both shifts at once.
    pairs = zip(draws[:7], unchanged(1)[:7], strict=True)
    still = [values == middle for values, middle in pairs]
    still.append(draws.cut_y < 0)
    assert all(abs(kept.mean() - 0.5) < 0.03 for kept in still)
    np.testing.assert_array_equal(still[3], still[4])


def test_digits_affine_map_equals_scipy():
    images = random_images(8, 8, 8, 1)
    drawn = sample_digits(jax.random.key(2), 8, 8, 8)
    still = unchanged(8)
    draws = drawn._replace(
        contrast=still.contrast,
        brightness=still.brightness,
        cut_y=still.cut_y,
        cut_x=still.cut_x,
    )
    out = np.asarray(apply_digits(images, draws))
    for i in range(8):
        angle = np.deg2rad(drawn.angle[i])
        turn = np.array(
            [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        )
        shear = np.array([[1, 0], [drawn.shear[i], 1]])
        matrix = turn @ shear / np.asarray(drawn.scale)[i]
        middle = np.array([3.5, 3.5])
        shift = np.array([drawn.shift_y[i], drawn.shift_x[i]])
        expected = scipy.ndimage.affine_transform(
            images[i, ..., 0].astype(float),
            matrix,
            offset=middle - matrix @ (middle + shift),
            order=1,
            mode="grid-constant",
        )
        np.testing.assert_allclose(out[i, ..., 0], expected, atol=1e-2)


def test_digits_contrast_brightness_and_cutout():
    images = random_images(2, 8, 8, 1)
    draws = unchanged(2)._replace(
        contrast=np.array([0.8, 1.2], np.float32),
        brightness=np.array([1.1, 0.9], np.float32),
        cut_y=np.array([3, 0], np.int32),
        cut_x=np.array([4, 7], np.int32),
    )
    levels = images.astype(float)
    mean = levels.mean((1, 2, 3), keepdims=True)
    contrast = np.array([0.8, 1.2])[:, None, None, None]
    brightness = np.array([1.1, 0.9])[:, None, None, None]
    expected = np.clip(brightness * (mean + contrast * (levels - mean)), 0, 255)
    expected[0, 2:5, 3:6] = 0
    expected[1, :2, 6:] = 0
    out = apply_digits(images, draws)
    np.testing.assert_allclose(out, expected, atol=1e-3)


def test_digits_strong_never_mirrors():
    draws = sample_digits(jax.random.key(0), 2000, 8, 8)
    assert (jnp.linalg.det(digits.affine_matrix(draws)) > 0.7).all()
    # light in the upper left corner stays there
    images = np.zeros((2000, 16, 16, 1), np.uint8)
    images[:, :8, :8] = 200
    strong = AUGMENTATIONS["digits_strong"]
    out = np.asarray(strong(jax.random.key(1), images))
    assert (out[:, :, :8].sum((1, 2, 3)) > out[:, :, 8:].sum((1, 2, 3))).all()
    assert (out[:, :8].sum((1, 2, 3)) > out[:, 8:].sum((1, 2, 3))).all()


def test_normalise():
    images = random_images(2, 4, 4, 3)
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    expected = (images / 255 - np.array(mean)) / np.array(std)
    out = table.normalise(jnp.asarray(images), mean, std)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, expected, atol=1e-5)
    half = table.normalise(jnp.asarray(images), mean, std, jnp.bfloat16)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half, out.astype(jnp.bfloat16))
    with jax.enable_x64(True):
        wide = table.normalise(jnp.asarray(images), mean, std, jnp.float64)
    assert wide.dtype == jnp.float64
    np.testing.assert_allclose(wide, expected, atol=1e-12)
