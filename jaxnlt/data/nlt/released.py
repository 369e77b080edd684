"""The training sets that H2E's authors released, as lists of weights."""

import pathlib
import re

from jaxnlt.data import untrusted
from jaxnlt.data.nlt.protocol import relabelled
from jaxnlt.data.readers import lists
from jaxnlt.data.records import ListedImage
from jaxnlt.runtime.errors import UserError


def read(file: pathlib.Path, raw: lists.RawSet) -> list[list[ListedImage]]:
    """Reads the set that a ``final_dict.json`` defines.

    Its keys are the authors' absolute paths; the last two parts are the
    class folder, which is the given label, and the file name, which identifies
    the raw image.  The true label of an ImageNet image is that of its synset.

    Args:
      file: JSON, ``{path: weight}``.
      raw: what the raw folder holds.

    Returns:
      For each class its images.

    Raises:
      UserError: a damaged file, an image that the raw folder lacks or has
        under another label, a class without images.

    Source: ``papers/h2e.md`` section 12.
    """
    content = untrusted.read_json(file)
    if not isinstance(content, dict) or not all(
        isinstance(weight, int | float) for weight in content.values()
    ):
        raise UserError(f"{file}: must hold {{path: weight}}, one level deep")
    places: dict[str, list[ListedImage]] = {}
    for rows in (*raw.images, *raw.web):
        for row in rows:
            places.setdefault(pathlib.PurePath(row.path).stem, []).append(row)
    codes = {name: k for k, name in enumerate(raw.class_names)}
    classes: list[list[ListedImage]] = [[] for _ in raw.class_names]
    seen: set[tuple[str, int]] = set()
    for key in sorted(content):
        parts = re.split(r"[/\\]", key)
        folder = parts[-2] if len(parts) > 1 else ""
        label = codes.get(folder, -1)
        if folder.isdecimal() and len(folder) < 10:
            label = int(folder)
        if not 0 <= label < len(classes):
            raise UserError(f"{file}: {key}: its folder names no class")
        row = _find(file, key, label, places)
        if (row.path, label) in seen:
            raise UserError(f"{file}: {key}: is listed twice")
        seen.add((row.path, label))
        classes[label].append(row)
    for name, rows in zip(raw.class_names, classes, strict=True):
        if not rows:
            raise UserError(f"{file}: class {name} has no image")
        if all(row.wrong for row in rows):
            raise UserError(
                f"{file}: no image of class {name} is of this class; are the "
                "folders numbered in another order?"
            )
    return classes


def _find(
    file: pathlib.Path,
    key: str,
    label: int,
    places: dict[str, list[ListedImage]],
) -> ListedImage:
    """The raw image of a key, under the given label."""
    stem = re.split(r"[/\\]", key)[-1].rpartition(".")[0]
    rows = places.get(stem)
    if rows is None:
        raise UserError(f"{file}: {key}: the raw folder holds no such image")
    row = next((row for row in rows if row.label == label), rows[0])
    if row.source == "imagenet":
        return relabelled(row, label)
    if row.label != label:
        raise UserError(
            f"{file}: {key}: the label of this image is {row.label}, not "
            f"{label}"
        )
    return row
