"""Weakly augmented views in PyTorch, of images that are held in memory."""

from typing import NamedTuple

import numpy as np

from jaxnlt.augment.table import ImageStatistics
from jaxnlt.bench.torch.network import Tensor


class Crop(NamedTuple):
    """A crop of the zero-padded image, maybe mirrored.

    Attributes:
      share: of the image by which every edge is padded.
      least: pixels by which every edge is padded at least.
      flip: whether half of the crops are mirrored.
    """

    share: float
    least: int
    flip: bool


#: Name in ``augment.table.AUGMENTATIONS`` -> crop.
CROPS = {
    "none": Crop(0.0, 0, False),
    "shift": Crop(0.0, 1, False),
    "crop_flip": Crop(1 / 8, 0, True),
}


class Views:
    """Makes views of a batch, all crops by one gather.

    Args:
      images: uint8 [N, H, W, C].
      statistics: mean and standard deviation of their channels.
      crop: name in ``CROPS``.
      device: ``cpu`` or ``cuda``.
    """

    def __init__(
        self,
        images: np.ndarray,
        statistics: ImageStatistics,
        crop: str,
        device: str,
    ) -> None:
        import torch

        self._device = device
        height, width = images.shape[1:3]
        share, least, self._flip = CROPS[crop]
        self._pads = [max(int(n * share), least) for n in (height, width)]
        edges = [(0, 0), *((pad, pad) for pad in self._pads), (0, 0)]
        self._padded = torch.tensor(np.pad(images, edges), device=device)
        self._y = torch.arange(height, device=device)[None, :, None]
        self._x = torch.arange(width, device=device)[None, None, :]

        def levels(values: tuple[float, ...]) -> Tensor:
            return 255 * torch.tensor(values, device=device)[:, None, None]

        self._mean, self._std = levels(statistics.mean), levels(statistics.std)

    def weak(self, rows: Tensor, layout: str) -> Tensor:
        """A random crop of every image.

        Args:
          rows: int64 [B] of the images.
          layout: memory format of the result.

        Returns:
          float32 [B, C, H, W], standardised.
        """
        import torch

        size, (pad_y, pad_x), x = (len(rows), 1, 1), self._pads, self._x
        if self._flip:
            mirrored = torch.rand(size, device=self._device) < 0.5
            x = torch.where(mirrored, x.shape[2] - 1 - x, x)
        top = torch.randint(2 * pad_y + 1, size, device=self._device)
        left = torch.randint(2 * pad_x + 1, size, device=self._device)
        return self._cut(rows, self._y + top, x + left, layout)

    def plain(self, rows: Tensor, layout: str) -> Tensor:
        """The images as they are; arguments and result as of ``weak``."""
        pad_y, pad_x = self._pads
        return self._cut(rows, self._y + pad_y, self._x + pad_x, layout)

    def _cut(self, rows: Tensor, y: Tensor, x: Tensor, layout: str) -> Tensor:
        import torch

        levels = self._padded[rows[:, None, None], y, x].permute(0, 3, 1, 2)
        levels = levels.contiguous(memory_format=getattr(torch, layout))
        return levels.float().sub_(self._mean).div_(self._std)
