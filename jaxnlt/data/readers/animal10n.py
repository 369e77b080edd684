"""ANIMAL-10N: its raw images, or the official binary files.

Raw: ``training/`` and ``testing/`` with files such as ``0_img_155.jpg`` whose
names start with their label.  Binary: ``data_batch_*.bin`` and
``test_batch.bin``, records of four bytes of number and four of label, most
significant first, and 3x64x64 bytes of pixels, colour after colour.

Source: ``papers/smr.md`` section 14, ``papers/h2e.md`` section 14.2; the
format of the binary: README and reader of github.com/kaist-dmlab/SELFIE.
"""

import pathlib
import re

import numpy as np

from jaxnlt.data import untrusted
from jaxnlt.data.readers import lists
from jaxnlt.data.records import (
    ListedImage,
    ReadRequest,
    Source,
    Split,
    labels_array,
)
from jaxnlt.runtime.errors import UserError

NAMES = (
    "cat",
    "lynx",
    "wolf",
    "coyote",
    "cheetah",
    "jaguar",
    "chimpanzee",
    "orangutan",
    "hamster",
    "guinea pig",
)
RAW = (".", "raw_image", "raw_image_ver", "raw_image_ver/raw_image")
BINARY = (*RAW, "binary", "binary_ver")
SIDE = 64
_TEST = "test_batch.bin"
_RECORD = np.dtype(
    [("id", ">u4"), ("label", ">u4"), ("pixels", np.uint8, (3, SIDE, SIDE))]
)


@lists.described
def read(request: ReadRequest) -> Source:
    """Reads either form; the raw images are listed, not decoded.

    Args:
      request: ``path``, the folder; raw images are preferred to binary files.

    Returns:
      The source.  Ids are paths, or the numbers in the binary, whose images
      are held in memory.

    Raises:
      UserError: neither form is there, or a file is damaged; it is named.

    Source: ``papers/smr.md`` section 14.
    """
    root = lists.folder(request.path)
    if any((root / place / "training").is_dir() for place in RAW):
        return lists.raw_source(root, list_raw(root))
    binary = [root / p for p in BINARY if (root / p / _TEST).is_file()]
    if binary:
        return _read_binary(binary[0])
    raise UserError(
        f"{root}: neither holds the folders training and testing of the raw "
        f"images nor data_batch_1.bin and {_TEST}"
    )


def list_raw(root: pathlib.Path) -> lists.RawSet:
    """Lists the raw images, whose names start with their given label.

    Args:
      root: the folder, see above.

    Returns:
      Its images; no true label of a training image is known, the labels of
      the test images are right.

    Raises:
      UserError: something is missing, or a file name holds no label.

    Source: ``papers/h2e.md`` sections 14.2 and 14.4.
    """
    images: list[list[ListedImage]] = [[] for _ in NAMES]
    base = lists.locate(root, RAW, "training")
    for path, label in _labelled(root, base / "training"):
        images[label].append(ListedImage(path, label, None, "animal"))
    folders = [base / "testing", base / "test"]
    folder = next((place for place in folders if place.is_dir()), folders[0])
    test = [
        ListedImage(path, label, label, "animal")
        for path, label in _labelled(root, folder)
    ]
    return lists.RawSet(NAMES, images, [[] for _ in NAMES], test)


def _labelled(
    root: pathlib.Path, folder: pathlib.Path
) -> list[tuple[str, int]]:
    """Images with the label in their names, by path relative to the root."""
    found = []
    for path in lists.jpegs(folder):
        if not re.match("[0-9]_", path.name):
            raise UserError(
                f"{path}: its name does not start with a label, as in "
                "0_img_1553497063706.jpg"
            )
        found.append((path.relative_to(root).as_posix(), int(path.name[0])))
    return found


def _read_binary(base: pathlib.Path) -> Source:
    found = {
        int(match[1]): file
        for file in base.iterdir()
        if (match := re.fullmatch(r"data_batch_(\d+)\.bin", file.name))
    }
    # All numbers up to the largest, so that a missing file is noticed.
    files = [
        found.get(number, base / f"data_batch_{number}.bin")
        for number in range(1, max(found, default=1) + 1)
    ]
    train = np.concatenate([_records(file) for file in files])
    test = _records(base / _TEST)
    return Source(
        _split(train, right=False, where=str(base / "data_batch_*.bin")),
        _split(test, right=True, where=str(base / _TEST)),
        NAMES,
        str(base),
    )


def _records(file: pathlib.Path) -> np.ndarray:
    # The training images of all batches have 586 MiB.
    data = untrusted.read_bytes(file, 768 * untrusted.MIB)
    size = len(data)
    if not size or size % _RECORD.itemsize:
        raise UserError(
            f"{file}: has {size} bytes, not a multiple of the "
            f"{_RECORD.itemsize} of an image: cut short or another file"
        )
    records = np.frombuffer(data, _RECORD)
    wrong = np.flatnonzero(records["label"] >= len(NAMES))
    if len(wrong):
        raise UserError(
            f"{file}: record {wrong[0]} has label "
            f"{records['label'][wrong[0]]}, not one of 0..{len(NAMES) - 1}"
        )
    return records


def _split(records: np.ndarray, right: bool, where: str) -> Split:
    labels = labels_array(records["label"])
    # A test set may lack a class.
    check = lists.check_range if right else lists.check_classes
    check(where, labels, NAMES)
    return Split(
        np.ascontiguousarray(records["pixels"].transpose(0, 2, 3, 1)),
        labels,
        labels if right else None,
        records["id"].astype(np.int64),
    )
