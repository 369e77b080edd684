"""Clothing1M from its lists of keys.

``{noisy,clean}_label_kv.txt``, ``noisy_train_key_list.txt`` and
``clean_{val,test}_key_list.txt``, in the folder or its ``annotations/``, and
the images ``images/0/00/*.jpg``, or ``0/00/*.jpg`` as in the authors' tree.

Source: ``papers/smr.md`` section 14.
"""

import pathlib

from jaxnlt.data.readers import lists
from jaxnlt.data.records import VALIDATION, ReadRequest, Source, Split
from jaxnlt.runtime.errors import UserError

NAMES = (
    "T-Shirt",
    "Shirt",
    "Knitwear",
    "Chiffon",
    "Sweater",
    "Hoodie",
    "Windbreaker",
    "Jacket",
    "Downcoat",
    "Suit",
    "Shawl",
    "Dress",
    "Vest",
    "Underwear",
)
PLACES = (".", "annotations", "clothing1m", "Clothing1M")
TRAIN = "noisy_train_key_list.txt"
_PREFIX = "images/"


@lists.described
def read(request: ReadRequest) -> Source:
    """Lists the million noisy images and the clean ones.

    Args:
      request: ``path``, the folder.

    Returns:
      The source: noisy training images, the clean test images, and the clean
      validation images in ``more_tests``.

    Raises:
      UserError: something is missing or damaged; it is named.

    Source: ``papers/smr.md`` section 14.
    """
    base = lists.locate(lists.folder(request.path), PLACES, TRAIN)
    root = base.parent if base.name == "annotations" else base
    labels = {
        kind: lists.read_labels(base / f"{kind}_label_kv.txt", len(NAMES))
        for kind in ("noisy", "clean")
    }

    def split(kind: str, part: str) -> Split:
        file = base / f"{kind}_{part}_key_list.txt"
        given = _given(root, file, labels[kind], kind)
        right = kind == "clean"
        return lists.labelled_split(root, given, NAMES, file, right)

    return Source(
        split("noisy", "train"),
        split("clean", "test"),
        NAMES,
        str(root),
        {VALIDATION: split("clean", "val")},
    )


def _given(
    root: pathlib.Path, file: pathlib.Path, labels: dict[str, int], kind: str
) -> dict[str, int]:
    """Labels of the keys of a list, by path."""
    # The authors' tree has no folder ``images``, which the keys start with.
    cut = "" if (root / _PREFIX).is_dir() else _PREFIX
    given = {}
    for key in lists.read_lines(file, str, "a key"):
        if key not in labels:
            raise UserError(
                f"{file}: {key} has no label in {kind}_label_kv.txt"
            )
        given[key.removeprefix(cut)] = labels[key]
    return given
