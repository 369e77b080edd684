"""Clothing1M from its lists of keys.

``{noisy,clean}_label_kv.txt``, ``noisy_train_key_list.txt`` and
``clean_{val,test}_key_list.txt``, in the folder or its ``annotations/``, and
the images ``images/0/00/*.jpg``, or ``0/00/*.jpg`` as in the authors' tree.

Source: ``papers/smr.md`` section 14.
"""

import pathlib

from jaxnlt.data.files import FileSource
from jaxnlt.data.nlt import raw as nlt_raw
from jaxnlt.data.readers import lists as image_lists
from jaxnlt.data.records import ReadRequest, Source, Split
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


def source(request: ReadRequest) -> Source:
    """What ``read`` returns, for an entry of the registry."""
    return read(request.path)


def read(path: str) -> FileSource:
    """Lists the million noisy images and the clean ones.

    Args:
      path: the folder, see above.

    Returns:
      The source: noisy training images, the clean test images, and the clean
      validation images as ``more_tests['val']``.

    Raises:
      UserError: something is missing or damaged; it is named.

    Source: ``papers/smr.md`` section 14.
    """
    with image_lists.described("clothing1m"):
        lists = nlt_raw.locate(image_lists.folder(path), PLACES, TRAIN)
        root = lists.parent if lists.name == "annotations" else lists
        labels = {
            kind: image_lists.file_labels(
                lists / f"{kind}_label_kv.txt", len(NAMES)
            )
            for kind in ("noisy", "clean")
        }

        def split(kind: str, part: str) -> Split:
            file = lists / f"{kind}_{part}_key_list.txt"
            given = _given(root, file, labels[kind], kind)
            right = kind == "clean"
            return image_lists.split_of(root, given, NAMES, file, right)

        return FileSource(
            split("noisy", "train"),
            split("clean", "test"),
            NAMES,
            str(root),
            {"val": split("clean", "val")},
        )


def _given(
    root: pathlib.Path, file: pathlib.Path, labels: dict[str, int], kind: str
) -> dict[str, int]:
    """Labels of the keys of a list, by path."""
    # The authors' tree holds the images without the folder of the keys.
    cut = "" if (root / _PREFIX).is_dir() else _PREFIX
    given = {}
    for key in image_lists.file_keys(file):
        if key not in labels:
            raise UserError(
                f"{file}: {key} has no label in {kind}_label_kv.txt"
            )
        given[key.removeprefix(cut)] = labels[key]
    return given
