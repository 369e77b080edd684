"""Benchmarks whose images stay on disk: who reads them, how they are cut."""

import dataclasses
from typing import Any

import numpy as np

from jaxnlt.data import decode, files, registry
from jaxnlt.data.readers import (
    red_mini_imagenet,
)
from jaxnlt.data.records import Source, Split
from jaxnlt.runtime.errors import UserError, one_of

#: What may become of an image that cannot be read.
ON_BAD_IMAGE = ("stop", "skip")
#: Noise of red mini-ImageNet: drawn from its web images at config.data.rate,
#: or a split of the release as it stands.
RED, SPLIT = "red", "split:"


def check(config: Any, bench: registry.Benchmark) -> None:
    """Refuses fields of streaming that are out of range or unused.

    Args:
      config: the whole configuration.
      bench: its benchmark.

    Raises:
      UserError: naming the field.
    """
    data = config.data
    given = {
        "transform": data.get("transform", ""),
        "on_bad_image": data.get("on_bad_image", "stop"),
        "workers": data.get("workers", 0),
    }
    if not bench.transform:
        unused = {"transform": "", "on_bad_image": "stop", "workers": 0}
        for name, value in given.items():
            if value != unused[name]:
                raise UserError(
                    f"config.data.{name}: {bench.name} is held in memory, "
                    "it is for images that stay on disk"
                )
        return
    one_of("config.data.transform", given["transform"], files.TRANSFORMS)
    one_of("config.data.on_bad_image", given["on_bad_image"], ON_BAD_IMAGE)
    if given["workers"] < 0:
        raise UserError(f"config.data.workers: must be >= 0, is {data.workers}")


def is_web_noise(noise: str) -> bool:
    """Whether a noise is that of red mini-ImageNet alone.

    Args:
      noise: `config.data.noise`.

    Returns:
      True of 'red' and 'split:NAME'.
    """
    return noise == RED or noise.startswith(SPLIT)


def add_web(
    source: Source, train: Split, rate: float, rng: np.random.RandomState
) -> Split:
    """The training set with its share of web images; see `web_red.add_web`."""
    assert isinstance(source, files.FileSource) and source.web is not None
    return red_mini_imagenet.add_web(train, source.web, rate, rng)


def transform_of(config: Any) -> files.Transform | None:
    """How a run cuts its images.

    Args:
      config: `data.transform` and `data.image_size` of it are read.

    Returns:
      The paper's transform, shrunk or grown to `image_size` where that is
      given; None where images lie in memory.
    """
    name = config.data.get("transform", "")
    if not name:
        return None
    return decode.scaled(files.TRANSFORMS[name], config.data.image_size)


def crops(config: Any) -> bool:
    """Whether training images are cropped before the device sees them.

    Args:
      config: as `transform_of` takes it.

    Returns:
      False of images in memory, too.
    """
    transform = transform_of(config)
    return transform is not None and transform.crop != "none"


def cut(split: Split, config: Any) -> Split:
    """A split whose files, if it is one of files, know how they are cut.

    Args:
      split: as read.
      config: the whole configuration.

    Returns:
      The same split with `decode.CutImages`, or as it is.

    Raises:
      UserError: images in memory are to have another size.
    """
    if not files.is_streamed(split):
        size = split.images.shape[1]
        wanted = config.data.get("image_size", 0) or size
        if config.data.get("transform", "") and wanted != size:
            raise UserError(
                f"config.data.image_size: the images have {size} pixels and "
                "are held in memory as they are"
            )
        return split
    transform = transform_of(config)
    assert transform is not None, "benchmarks of files have a transform"
    images = decode.CutImages(split.images, transform)
    return dataclasses.replace(split, images=images)


def classes_known(true_labels: np.ndarray | None) -> bool:
    """Whether the true class of every image is known.

    Args:
      true_labels: int [N] of a split, or None.

    Returns:
      False where there are none, or `nlt.WRONG` or `files.UNKNOWN` among them.
    """
    return true_labels is not None and bool((true_labels >= 0).all())
