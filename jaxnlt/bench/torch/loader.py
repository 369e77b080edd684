"""PyTorch's DataLoader, the other side of the bench of reading."""

import time

import numpy as np

from jaxnlt.data import decode, files


class _Crops:
    """A map-style data set: a training crop for every position of ``rows``."""

    def __init__(self, images: files.CutImages, rows: np.ndarray) -> None:
        self.images, self.rows = images, rows

    def __len__(self) -> int:
        return self.rows.size

    def __getitem__(self, position: int) -> np.ndarray:
        numbers = np.random.default_rng(position).random(decode.UNIFORMS)
        pixels = self.images.files.open(int(self.rows.flat[position]))
        (view,) = decode.views(pixels, self.images.transform, [numbers])
        return view.copy()  # a tensor wants memory that it may write to


def reading(images: files.CutImages, rows: np.ndarray, workers: int) -> float:
    """PyTorch's DataLoader over the same files, decoded and cut by Pillow.

    Args:
      images: the files and how they are cut; every crop is a training crop.
      rows: int [batches, B] which of them, two batches at least.
      workers: processes that decode.

    Returns:
      Images a second from the second batch on: the processes have started.
    """
    from torch.utils.data import DataLoader

    loader = DataLoader(
        _Crops(images, rows),  # type: ignore[arg-type, unused-ignore]
        batch_size=rows.shape[1],
        num_workers=workers,
        # A fork of a process in which JAX has threads may hang.
        multiprocessing_context="spawn",
    )
    batches = iter(loader)
    next(batches)
    began = time.perf_counter()
    seen = sum(len(batch) for batch in batches)
    return seen / (time.perf_counter() - began)
