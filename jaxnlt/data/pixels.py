"""How decoded images become arrays of one size."""

import numpy as np
from PIL import Image


def fit(
    image: Image.Image, mode: str, shape: tuple[int, ...] | None
) -> np.ndarray:
    """The pixels of an image, resized if it has another size.

    Args:
      image: as opened.
      mode: Pillow's, ``RGB`` or ``L``.
      shape: height and width wanted, bilinear with antialiasing; None leaves
        the size.

    Returns:
      uint8 [H, W, 3], of mode ``L`` [H, W].

    Raises:
      Exception: whatever Pillow's decoders raise at damaged content.
    """
    converted = image.convert(mode)
    if shape is not None and converted.size != (shape[1], shape[0]):
        converted = converted.resize(
            (shape[1], shape[0]), Image.Resampling.BILINEAR
        )
    return np.asarray(converted)
