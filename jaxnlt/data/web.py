"""Data sets of files on disk by the name of their benchmark."""

from collections.abc import Callable
from typing import Any

from jaxnlt.data import (
    web_animal10n,
    web_clothing1m,
    web_food101n,
    web_images,
    web_nlt,
    web_red,
    web_webvision,
)
from jaxnlt.data.files import FileSource
from jaxnlt.errors import one_of

READERS: dict[str, Callable[..., FileSource]] = {
    "webvision": web_webvision.read,
    "animal10n": web_animal10n.read,
    "food101n": web_food101n.read,
    "clothing1m": web_clothing1m.read,
    "red_mini_imagenet": web_red.read,
    "imagenet_nlt": web_nlt.read,
    "animal10_nlt": web_nlt.read,
    "food101_nlt": web_nlt.read,
    "images": web_images.read,
}


def read(benchmark: str, path: str, **options: Any) -> FileSource:
    """Lists a data set; no image is opened.

    Args:
      benchmark: of ``READERS``.
      path: ``config.data.path``.
      **options: the reader's further arguments.

    Returns:
      The source, whose images are ``ImageFiles`` but for the binary files of
      ANIMAL-10N, which are arrays.

    Raises:
      UserError: something is missing or damaged; it is named.
    """
    one_of("config.benchmark", benchmark, READERS)
    return READERS[benchmark](path, **options)
