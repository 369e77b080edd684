"""Random images, and Pillow's own operations on them."""

import numpy as np
from PIL import Image, ImageEnhance, ImageOps


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

    def transform(*arguments):
        affine = (picture.size, Image.Transform.AFFINE, *arguments)
        return picture.transform(*affine, fillcolor=fill)

    def enhance(kind):
        return lambda: kind(picture).enhance(value)

    nearest, cubic = Image.Resampling.NEAREST, Image.Resampling.BICUBIC
    run = {
        "identity": lambda: picture,
        "invert": lambda: ImageOps.invert(picture),
        "posterize": lambda: ImageOps.posterize(picture, int(value)),
        "solarize": lambda: ImageOps.solarize(picture, value),
        "autocontrast": lambda: ImageOps.autocontrast(picture),
        "equalize": lambda: ImageOps.equalize(picture),
        "color": enhance(ImageEnhance.Color),
        "contrast": enhance(ImageEnhance.Contrast),
        "brightness": enhance(ImageEnhance.Brightness),
        "sharpness": enhance(ImageEnhance.Sharpness),
        "translateX": lambda: transform((1, 0, value, 0, 1, 0), nearest),
        "translateY": lambda: transform((1, 0, 0, 0, 1, value), nearest),
        "shearX": lambda: transform((1, value, 0, 0, 1, 0), cubic),
        "shearY": lambda: transform((1, 0, 0, value, 1, 0), cubic),
        "rotate": lambda: picture.rotate(value, nearest, fillcolor=fill),
    }
    return np.asarray(run[op]()).reshape(image.shape)


def compare(out, expected, sheared=False):
    """Exact but for shears: float32 against Pillow's float64."""
    difference = np.abs(out.astype(int) - expected)
    assert difference.max() <= sheared and difference.mean() <= 0.01 * sheared
