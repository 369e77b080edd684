"""Folders of small real images, and tiny runs that stream them."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tests import runs
from tests.data import fake_tfds, fake_web

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


# Data sets of files in their true layouts ------------------------------------


class Miniature(NamedTuple):
    """A data set of real JPEGs as its users have it on disk."""

    benchmark: str
    #: Folder -> config.data's fields, without the prefix.
    make: Callable[[pathlib.Path], dict[str, Any]]
    #: What else the command line says, by names without `config.`.
    fields: dict[str, Any] = {}


def _path(write) -> Callable[[pathlib.Path], dict[str, Any]]:
    return lambda root: {"path": write(root)}


def _nlt(benchmark: str) -> Miniature:
    """A raw folder and the manifest that the builder wrote."""

    def make(root):
        root.mkdir()
        out = fake_web.nlt(benchmark, root / "raw", root / "out")
        return {"path": root / "raw", "labels_file": out / "manifest.csv"}

    return Miniature(benchmark, make)


def _binary(root: pathlib.Path) -> dict[str, Any]:
    raw = fake_web.animal_raw(root / "raw")
    return {"path": fake_web.animal_binary(root / "binary", raw)}


def _tfds(root: pathlib.Path) -> dict[str, Any]:
    root.mkdir()
    rows = fake_tfds.rows
    parts = {"train": rows(12, form="JPEG"), "test": rows(6, 50, form="JPEG")}
    return {"path": fake_tfds.write(root, parts), "name": "fake"}


#: Every set whose images lie on disk as files or as records of a copy.
MINIATURES = {
    "webvision": Miniature(
        "webvision",
        _path(lambda root: fake_web.webvision(root, imagenet="synset")),
    ),
    "clothing1m": Miniature("clothing1m", _path(fake_web.clothing)),
    "animal10n": Miniature("animal10n", _path(fake_web.animal_raw)),
    # The official binary, in memory.
    "animal10n_binary": Miniature("animal10n", _binary),
    "food101n": Miniature("food101n", _path(fake_web.food)),
    "red_mini_imagenet": Miniature("red_mini_imagenet", _path(fake_web.red)),
    "red_mini_imagenet_84": Miniature(
        "red_mini_imagenet",
        _path(fake_web.red),
        {
            "data.transform": "red_mini_imagenet_84",
            "augment.weak": "jitter_flip",
            "augment.strong": "jitter_flip_autoaugment",
        },
    ),
    "imagenet_nlt": _nlt("imagenet_nlt"),
    "animal10_nlt": _nlt("animal10_nlt"),
    "food101_nlt": _nlt("food101_nlt"),
    "images": Miniature("images", _path(fake_web.images)),
    # In memory.
    "tfds": Miniature("tfds", _tfds),
}


def given(name: str, root: pathlib.Path) -> dict[str, Any]:
    """Makes a miniature: all fields that a run on it is given."""
    made = MINIATURES[name]
    data = {f"data.{k}": str(v) for k, v in made.make(root).items()}
    return data | made.fields
