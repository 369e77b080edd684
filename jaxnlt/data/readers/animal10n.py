"""ANIMAL-10N: its raw images, or the official binary files.

Raw: ``training/`` and ``testing/`` with files such as ``0_img_155.jpg`` that
start with their label.  Binary: ``data_batch_*.bin`` and ``test_batch.bin``,
records of four bytes of number and four of label, most significant first,
and 3x64x64 bytes of pixels, colour after colour.

Source: ``papers/smr.md`` section 14, ``papers/h2e.md`` section 14.2; the format
of the binary: README and reader of github.com/kaist-dmlab/SELFIE.
"""

import pathlib
import re

import numpy as np

from jaxnlt.data.files import FileSource
from jaxnlt.data.nlt import raw as nlt_raw
from jaxnlt.data.readers import lists as image_lists
from jaxnlt.data.readers import user
from jaxnlt.data.records import ReadRequest, Source, Split, labels_array
from jaxnlt.runtime.errors import UserError

PLACES = (*nlt_raw.ANIMAL, "binary", "binary_ver")
NAMES = nlt_raw.ANIMALS
SIDE = 64
_TEST = "test_batch.bin"
_RECORD = np.dtype(
    [("id", ">u4"), ("label", ">u4"), ("pixels", np.uint8, (3, SIDE, SIDE))]
)


def source(request: ReadRequest) -> Source:
    """What ``read`` returns, for an entry of the registry."""
    return read(request.path)


def read(path: str) -> FileSource:
    """Reads either form; the raw images are listed, not decoded.

    Args:
      path: the folder, see above; raw images go before binary files.

    Returns:
      The source.  Ids are paths, or in memory the numbers of the binary.

    Raises:
      UserError: neither form is there, or a file is damaged; it is named.

    Source: ``papers/smr.md`` section 14.
    """
    with image_lists.described("animal10n"):
        root = image_lists.folder(path)
        raw = [p for p in nlt_raw.ANIMAL if (root / p / "training").is_dir()]
        binary = [root / p for p in PLACES if (root / p / _TEST).is_file()]
        if not raw and binary:
            return _binary(binary[0])
        if not raw:
            raise UserError(
                f"{root}: neither holds the folders training and testing of "
                f"the raw images nor data_batch_1.bin and {_TEST}"
            )
        listed = nlt_raw.animal(root)
        rows = [row for images in listed.images for row in images]
        return FileSource(
            image_lists.rows_split(root, rows, NAMES),
            image_lists.rows_split(root, listed.test, NAMES),
            NAMES,
            str(root),
        )


def _binary(base: pathlib.Path) -> FileSource:
    found = {
        int(match[1]): file
        for file in base.iterdir()
        if (match := re.fullmatch(r"data_batch_(\d+)\.bin", file.name))
    }
    # A file that is missing between others would go unnoticed.
    files = [
        found.get(number, base / f"data_batch_{number}.bin")
        for number in range(1, max(found, default=1) + 1)
    ]
    train = [_records(file) for file in files]
    test = _records(base / _TEST)
    return FileSource(
        _memory(np.concatenate(train), False, str(base / "data_batch_*.bin")),
        _memory(test, True, str(base / _TEST)),
        NAMES,
        str(base),
    )


def _records(file: pathlib.Path) -> np.ndarray:
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    size = file.stat().st_size
    if not size or size % _RECORD.itemsize:
        raise UserError(
            f"{file}: has {size} bytes, not a multiple of the "
            f"{_RECORD.itemsize} of an image: cut short or another file"
        )
    records = np.fromfile(file, _RECORD)
    wrong = np.flatnonzero(records["label"] >= len(NAMES))
    if len(wrong):
        raise UserError(
            f"{file}: record {wrong[0]} has label "
            f"{records['label'][wrong[0]]}, not one of 0..{len(NAMES) - 1}"
        )
    return records


def _memory(records: np.ndarray, right: bool, where: str) -> Split:
    labels = labels_array(records["label"])
    user.check_classes(where, labels, NAMES)
    return Split(
        np.ascontiguousarray(records["pixels"].transpose(0, 2, 3, 1)),
        labels,
        labels if right else None,
        records["id"].astype(np.int64),
    )
