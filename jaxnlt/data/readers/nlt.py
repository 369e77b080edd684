"""The NLT sets of H2E, from the manifests that ``build_nlt`` writes.

``OUT/manifest.csv``, ``OUT/test.csv`` (columns path, label, true_label,
source) and ``OUT/classes.txt``; the images are below the raw folder that was
given to the builder.

Source: ``papers/h2e.md`` section 14.
"""

import csv
import io
import pathlib

from jaxnlt.data import cells
from jaxnlt.data.files import file_split
from jaxnlt.data.readers import lists
from jaxnlt.data.records import (
    UNKNOWN,
    WRONG,
    ListedImage,
    ReadRequest,
    Source,
    Split,
)
from jaxnlt.runtime import paths
from jaxnlt.runtime.errors import UserError

#: Columns of ``manifest.csv`` and ``test.csv``.
COLUMNS = ("path", "label", "true_label", "source")
#: What the last column may hold.
SOURCES = ("imagenet", "web", "swap", "animal", "food")
MANIFEST, TEST, CLASSES = "manifest.csv", "test.csv", "classes.txt"
#: The authors keep ImageNet's images as squares of this side, pixels.
SIDE = 84
_SQUARE = ("imagenet", "swap")


@lists.described
def read(request: ReadRequest) -> Source:
    """Lists the images of a manifest.

    Args:
      request: ``path``, the raw folder that ``build_nlt --raw`` named;
        ``labels_file``, the ``manifest.csv`` or its folder.

    Returns:
      The source, in the order of the manifest.  A true label is ``WRONG``
      where the given one is wrong and the class not known; ImageNet's images
      are resized to squares of 84 pixels first.

    Raises:
      UserError: a file is missing or not the builder's.

    Source: ``papers/h2e.md`` section 14.3.
    """
    if not request.labels_file:
        raise UserError(
            "config.data.labels_file: is missing, it names the manifest.csv "
            "that python -m jaxnlt.data.build_nlt writes"
        )
    root = lists.folder(request.path)
    file = paths.expanded(request.labels_file, "config.data.labels_file")
    if file.is_dir():
        file = file / MANIFEST
    names = class_names(file)
    train = _split(root, file, names)
    lists.check_classes(str(file), train.labels, names)
    test = _split(root, file.with_name(TEST), names)
    return Source(train, test, names, str(file))


def class_names(file: pathlib.Path) -> tuple[str, ...]:
    """The names of the classes beside a manifest.

    Args:
      file: the manifest.

    Returns:
      C names in the order of the labels.

    Raises:
      UserError: ``classes.txt`` is missing.
    """
    names = lists.read_text(file.with_name(CLASSES)).removesuffix("\n")
    return tuple(names.split("\n"))


def read_manifest(file: pathlib.Path, classes: int) -> list[ListedImage]:
    """Reads ``manifest.csv`` or ``test.csv`` of the builder.

    Args:
      file: the file.
      classes: number of classes.

    Returns:
      Its images, in the order of the file.

    Raises:
      UserError: a missing file, or one that the builder has not written; the
        line is named.
    """
    try:
        text = io.StringIO(lists.read_text(file), newline="")
        lines = list(csv.reader(text))
    except csv.Error as error:
        raise UserError(f"{file}: not a CSV ({error})") from None
    if not lines or tuple(lines[0]) != COLUMNS:
        raise UserError(f"{file}: the first line must be {','.join(COLUMNS)}")
    known = {str(k): k for k in range(classes)}
    truths = {**known, str(WRONG): WRONG, "": None}
    images = []
    for number, fields in enumerate(lines[1:], start=2):
        if (
            len(fields) != len(COLUMNS)
            or not fields[0]
            or fields[1] not in known
            or fields[2] not in truths
            or fields[3] not in SOURCES
        ):
            raise UserError(
                f"{file}: line {number} is not a path, a label below "
                f"{classes}, a true label and a source"
            )
        path, label, true, source = fields
        images.append(
            ListedImage(cells.plain(path), known[label], truths[true], source)
        )
    if not images:
        raise UserError(f"{file}: lists no image")
    return images


def _split(
    root: pathlib.Path, file: pathlib.Path, names: tuple[str, ...]
) -> Split:
    images = read_manifest(file, len(names))
    paths = [image.path for image in images]
    lists.check_folders(root, paths, file)
    true = [image.true_label for image in images]
    split = file_split(
        root,
        paths,
        [image.label for image in images],
        # Unknown labels of some images make all unknown.
        None
        if None in true
        else [UNKNOWN if label is None else label for label in true],
        [SIDE if image.source in _SQUARE else 0 for image in images],
    )
    return split
