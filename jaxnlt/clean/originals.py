"""The images behind a run's labels, as its reader lists or holds them."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np
from PIL import Image

from jaxnlt.data import decode, load, registry, untrusted
from jaxnlt.data.files import ImageFiles
from jaxnlt.data.records import HELD_OUT, Split, classes_known
from jaxnlt.runtime import paths
from jaxnlt.runtime.errors import UserError

# Arrays of an npz file with one row for every training image start with this.
_ROWS = "train_"


@dataclasses.dataclass(frozen=True)
class Files:
    """Images on disk.

    Attributes:
      root: the folder that paths are relative to.
      ids: paths of all that may train.
      test: the test images, ids are paths; None where there are none.
      class_names: C names, for the labels of ``test``.
    """

    root: pathlib.Path
    ids: frozenset[str]
    test: Split | None
    class_names: tuple[str, ...]

    def picture(self, key: str) -> Image.Image | None:
        """One image in RGB; None where it cannot be read."""
        try:
            return decode.open_rgb(self.root / key)
        except decode.BadImage:
            return None


@dataclasses.dataclass(frozen=True)
class Arrays:
    """Images or features in memory.

    Attributes:
      ids: the index of each of the N rows.
      rows: arrays [N, ...] of an npz file, by name.
      others: what else belongs into it.
    """

    ids: dict[int, int]
    rows: dict[str, np.ndarray]
    others: dict[str, np.ndarray]

    def picture(self, key: int) -> Image.Image | None:
        """One image; None of a set of features."""
        images = self.rows.get("train_images")
        if images is None or images.dtype != np.uint8 or images.ndim != 4:
            return None
        pixels = images[self.ids[key]]
        return Image.fromarray(
            pixels[..., 0] if pixels.shape[-1] == 1 else pixels
        )


def located(
    config: ml_collections.ConfigDict, data: str = ""
) -> ml_collections.ConfigDict:
    """The configuration of a run whose data may have moved.

    Args:
      config: of the run.
      data: where its data lie now; '' is where they lay.

    Returns:
      The configuration that names this place.

    Raises:
      UserError: nothing is there.
    """
    field = "--data" if data else "config.data.path"
    place = data or config.data.path
    if place and not os.path.exists(paths.expanded(place, field)):
        raise UserError(
            f"{field}: {place}: is not there; --data=PLACE names where the "
            "data of the run lie now"
        )
    moved = ml_collections.ConfigDict(config.to_dict())
    moved.data.path = place
    return moved


def files(config: ml_collections.ConfigDict) -> Files:
    """The files of a run; they are listed, none is opened.

    Args:
      config: of the run, ``located``.

    Returns:
      The files.

    Raises:
      UserError: see the reader.
    """
    request = load.read_request(config)
    lister = registry.get(request.benchmark.lister or config.benchmark)
    source = lister.read(dataclasses.replace(request, benchmark=lister))
    images = source.train.images
    if not isinstance(images, ImageFiles):
        raise UserError(
            f"config.benchmark: {config.benchmark} has paths and holds its "
            "images in memory, of which no copy can be made"
        )
    ids = source.train.ids.tolist()
    if source.web is not None:
        ids += source.web.ids.tolist()
    return Files(images.root, frozenset(ids), source.test, source.class_names)


def arrays(config: ml_collections.ConfigDict) -> Arrays:
    """The arrays of a run.

    Args:
      config: of the run, ``located``.

    Returns:
      Of an npz file all that it holds; of any other data set what the run
      trained on and was measured with, as an npz file holds it.

    Raises:
      UserError: see the reader; the file has no ``train_labels``.
    """
    if config.benchmark == "npz":
        return _stored(paths.expanded(config.data.path, "config.data.path"))
    dataset = load.dataset(config)
    parts = list(dataset.audited.values())
    rows = {
        "train_images": np.concatenate([part.images for part in parts]),
        "train_labels": np.concatenate([part.labels for part in parts]),
    }
    true = [part.true_labels for part in parts if part.true_labels is not None]
    if len(true) == len(parts) and all(map(classes_known, true)):
        rows["train_true_labels"] = np.concatenate(true)
    others = {"class_names": np.array(dataset.class_names)}
    if dataset.test_kind != HELD_OUT:
        others["test_images"] = dataset.test.images
        others["test_labels"] = dataset.test.labels
    ids = np.concatenate([part.ids for part in parts]).tolist()
    return Arrays({key: row for row, key in enumerate(ids)}, rows, others)


def _stored(file: pathlib.Path) -> Arrays:
    """The arrays of an npz file."""
    found, _ = untrusted.read_npz(file)
    count = len(found.get("train_labels", ()))
    if not count or found["train_labels"].ndim != 1:
        raise UserError(
            f"{file}: holds no train_labels; --data names the run's npz file"
        )
    rows = {
        name: array
        for name, array in found.items()
        if name.startswith(_ROWS) and array.ndim and len(array) == count
    }
    others = {name: array for name, array in found.items() if name not in rows}
    return Arrays({k: k for k in range(count)}, rows, others)


def check_ids(
    originals: Files | Arrays, ids: Sequence[Any], file: pathlib.Path
) -> None:
    """Refuses labels of images that are not there.

    Args:
      originals: the images.
      ids: of the labels.
      file: that names them.

    Raises:
      UserError: the first one that is no image of the data.
    """
    for key in ids:
        known = key in originals.ids
        if isinstance(originals, Files) and known:
            known = os.path.isfile(originals.root / str(key))
        if not known:
            raise UserError(
                f"{file}: {key}: is no training image of the data as they are "
                "now; --data names another place to look for them"
            )
