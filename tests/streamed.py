"""Folders of small real images, and tiny runs that stream them."""

import numpy as np
from PIL import Image

from . import runs

SIDE, CLASSES, PER_CLASS = 8, 3, 10


def write_folder(root, sizes=(SIDE,), bad=()):
    """train/CLASS/*.png and test/CLASS/*.png that brightness tells apart."""
    rng = np.random.default_rng(0)
    for part, count in (("train", PER_CLASS), ("test", 4)):
        for label in range(CLASSES):
            folder = root / part / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                side = sizes[i % len(sizes)]
                pixels = rng.integers(0, 60, (side, side + side % 3, 3))
                pixels = (pixels[:, :side] + 70 * label).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:02}.png")
    for name in bad:
        path = root / name
        path.write_bytes(path.read_bytes()[:40])
    return root


def configuration(method, path, **fields):
    """A tiny run on streamed images; random crops of 8 pixels."""
    small = {
        "data.path": str(path),
        "data.transform": "clothing1m",
        "data.image_size": SIDE,
        "data.workers": 2,
        "model.name": "preact_resnet18",
        "batch_size": 8,
        "warmup_batch_size": 8,
        "eval_batch_size": 16,
    }
    return runs.tiny(method, "images", **small | fields)
