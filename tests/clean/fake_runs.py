"""Runs to clean: what ``jaxnlt.clean`` reads of a workdir, and its data."""

import json

import numpy as np
from PIL import Image

from configs import erm
from jaxnlt.config import base as config_lib
from jaxnlt.data import cells
from jaxnlt.runtime import checkpoint

COLUMNS = (
    "given_label",
    "is_label_issue",
    "label_quality",
    "clean_probability",
    "predicted_label",
    "predicted_probability",
    "suggested_label",
    "margin",
    "issue_kind",
)


def write(workdir, benchmark, path, names, rows, key="path", more=()):
    """Writes a finished run.

    Args:
      workdir: a new folder.
      benchmark: with keys.
      path: of the data.
      names: of the classes.
      rows: (id, given, predicted, kind, *more), the worst first; those with a
        kind are flagged.
      key: ``path`` or ``index``.
      more: names of further columns.
    """
    workdir.mkdir()
    config = erm.get_config(benchmark)
    config.data.path = str(path)
    # What a run would settle by the images.
    config.batch_size = config.warmup_batch_size = 4
    config.augment.weak = config.augment.strong = "none"
    config.model.name = "preact_resnet18"
    text = json.dumps(config_lib.as_json(config))
    (workdir / "config.json").write_text(text)
    facts = {
        "layout": checkpoint.LAYOUT,
        "class_names": list(names),
        "mean": [0.5],
        "std": [0.5],
        "image_shape": [8, 8, 1],
        "given_counts": [1] * len(names),
    }
    (workdir / "dataset.json").write_text(json.dumps(facts))
    table = [(key, *COLUMNS, *more)]
    for k, (image, given, predicted, kind, *others) in enumerate(rows):
        quality = f"{(k + 1) / (len(rows) + 1):.6g}"
        suggested = predicted if kind else given
        clean = f"{0.4 * (k + 1) / (len(rows) + 1):.6g}"
        values = [given, bool(kind), quality, clean, predicted, "0.9"]
        values += [suggested, -1.5, kind]
        if kind == "unreadable":
            values = [given, False, "", "", kind, "", given, "", kind]
        table.append((image, *values, *others))
    with open(workdir / "labels.csv", "w", newline="") as file:
        cells.write(file, table)
    return workdir


def picture(path, shade=0):
    """Writes an 8x8 image, no two of which are equal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((8, 8, 3), 90, np.uint8)
    pixels[0, 0] = shade % 256
    Image.fromarray(pixels).save(path)
