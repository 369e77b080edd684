"""Red mini-ImageNet: controlled noise from the web (CNWL).

``mini-imagenet/{class_name.txt,split/}``, the training images of the lists in
``all_images/``, ``noisy_images/`` or ``training/SPLIT/CLASS/``, and the
validation images in ``validation/``, flat or in a folder for each class.

Source: ``papers/dasc.md`` section 1.3, ``papers/h2e.md`` section 14.2.
"""

import itertools
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from jaxnlt.data.files import ImageFiles, file_split
from jaxnlt.data.readers import lists
from jaxnlt.data.records import (
    WRONG,
    NoiseRequest,
    OwnNoise,
    ReadRequest,
    Source,
    Split,
)
from jaxnlt.runtime.errors import UserError

#: Prefix of the noise that is a split of the release, such as
#: ``split:red_noise_nl_0.4``.
SPLIT = "split:"
#: Places of the folder ``mini-imagenet`` below the user's folder.
CNWL = ("dataset_no_images/mini-imagenet", "mini-imagenet", ".")
#: Places of the images of the web.
WEB = (
    "noisy_images",
    "dataset_no_images/noisy_images",
    "dataset_no_images/mini-imagenet/all_images",
    "mini-imagenet/all_images",
    "all_images",
)
#: Places of the validation images.
VAL = (
    "ILSVRC2012/val",
    "ILSVRC2012_img_val",
    "ILSVRC/Data/CLS-LOC/val",
    "imagenet/val",
    "val",
    "dataset_no_images/mini-imagenet/validation",
    "mini-imagenet/validation",
    "validation",
)
CLEAN_SPLIT = "blue_noise_nl_0.0"
WEB_SPLIT = "red_noise_nl_0.8"
TEST_SPLIT = "clean_validation"
_TRAINING = ("", "mini-imagenet/", "dataset_no_images/mini-imagenet/")
_SYNSET = re.compile(r"n\d{8}")
# A few of the images may be missing, which is reported when one is opened.
_PROBED = 100


@lists.described
def read(request: ReadRequest) -> Source:
    """Lists mini-ImageNet with the images of the web, or a released split.

    Args:
      request: ``path``, the folder; ``noise``, where ``split:NAME`` takes that
        list of the release as it is.  Otherwise the training set is that of
        all clean images, and ``web`` those of the web, for ``add_web``.

    Returns:
      The source.  The true label of an ImageNet image is that of its synset,
      the one of a web image ``WRONG``.

    Raises:
      UserError: something is missing or damaged; it is named.

    Source: ``papers/dasc.md`` section 1.3.
    """
    split = ""
    if request.noise.startswith(SPLIT):
        split = request.noise.removeprefix(SPLIT)
    root = lists.folder(request.path)
    base = lists.locate(root, CNWL, "class_name.txt")
    names = class_names(base)
    file, listed = read_split(base, CLEAN_SPLIT, len(names))
    codes = {synset: k for k, synset in enumerate(synsets(file, listed, names))}
    web = None
    if split:
        file, listed = read_split(base, split, len(names))
    else:
        origin, others = read_split(base, WEB_SPLIT, len(names))
        others = {name: k for name, k in others.items() if name[0] != "n"}
        web = _train(root, origin, others, codes, WEB_SPLIT)
    train = _train(root, file, listed, codes, split or CLEAN_SPLIT)
    lists.check_classes(str(file), train.labels, names)
    file, listed = read_split(base, TEST_SPLIT, len(names))
    rows = sorted(listed.items())
    paths = _placed(root, file, rows, VAL)
    labels = [label for _, label in rows]
    test = file_split(root, paths, labels, labels)
    lists.check_range(str(file), test.labels, names)
    return Source(train, test, names, str(root), web=web)


def add_web(request: NoiseRequest) -> Split:
    """Appends ``int(S / (1 - r) - S)`` random web images to S images.

    Their classes are distributed as those of all web images, not long-tailed.

    Args:
      request: the clean images, the web images and the rate r, the share of
        web images afterwards.

    Returns:
      The clean images, then the web images.

    Raises:
      UserError: there are too few web images.

    Source: ``papers/dasc.md`` section 1.3.
    """
    train, web, rate = request.train, request.source.web, request.rate
    assert web is not None, "read lists the web images for this noise"
    size = len(train)
    wanted = int(size / (1 - rate) - size)
    if wanted > len(web):
        raise UserError(
            f"config.data.rate: {rate:g} of {size} clean images needs {wanted} "
            f"web images, there are {len(web)}"
        )
    drawn = web.take(request.rng.permutation(len(web))[:wanted])
    assert train.true_labels is not None and drawn.true_labels is not None
    ids = np.concatenate([train.ids, drawn.ids])
    return Split(
        ImageFiles(train.images.root, ids),
        np.concatenate([train.labels, drawn.labels]),
        np.concatenate([train.true_labels, drawn.true_labels]),
        ids,
    )


def as_read(request: NoiseRequest) -> Split:
    """Keeps the images of a released split as ``read`` gave them.

    Args:
      request: the training images.

    Returns:
      The same images.
    """
    return request.train


#: The entries of ``Benchmark.noises``.
NOISES = {
    "red": OwnNoise(add_web, adds_images=True),
    SPLIT: OwnNoise(as_read),
}


# The lists of the release ----------------------------------------------------


def class_names(base: pathlib.Path) -> tuple[str, ...]:
    """The names of the classes, in the order of the labels.

    Args:
      base: the folder that holds ``class_name.txt``.

    Returns:
      C names.

    Raises:
      UserError: the file is missing or empty.
    """
    file = base / "class_name.txt"
    return tuple(lists.read_lines(file, str, "the name of a class"))


def read_split(
    base: pathlib.Path, name: str, classes: int
) -> tuple[pathlib.Path, dict[str, int]]:
    """Reads a list of images.

    Args:
      base: the folder that holds ``split/``.
      name: of the list, whose file may end in ``.txt``.
      classes: number of classes.

    Returns:
      The file, and labels by the name of the image.

    Raises:
      UserError: the list is missing or damaged, or a label is too large.
    """
    file = base / "split" / name
    if not file.exists() and file.with_name(f"{name}.txt").exists():
        file = file.with_name(f"{name}.txt")

    def entry(line: str) -> tuple[str, int] | None:
        match = re.fullmatch(r"(\S+)\s+(\d{1,9})", line)
        return (match[1], int(match[2])) if match else None

    listed = lists.read_lines(file, entry, "an image and a label")
    top = max(label for _, label in listed)
    if top >= classes:
        raise UserError(
            f"{file}: label {top} has no line in {base / 'class_name.txt'}"
        )
    return file, lists.first_labels(file, listed)


def synsets(
    file: pathlib.Path, listed: dict[str, int], names: Sequence[str]
) -> list[str]:
    """The synset of every label, from the names of the clean images.

    Args:
      file: the list, for messages.
      listed: its labels by the name of the image.
      names: C class names.

    Returns:
      C synsets.

    Raises:
      UserError: the clean images of a class are of no or several synsets, or
        two classes have the same one.
    """
    found: dict[int, set[str]] = {label: set() for label in range(len(names))}
    for name, label in listed.items():
        match = _SYNSET.match(name)
        if match:
            found[label].add(match[0])
    for label, codes in found.items():
        if len(codes) != 1:
            raise UserError(
                f"{file}: class {names[label]} must have clean images of one "
                f"synset, has {', '.join(sorted(codes)) or 'none'}"
            )
    ordered = [found[label].pop() for label in range(len(names))]
    if len(set(ordered)) < len(names):
        raise UserError(f"{file}: two classes have the same synset")
    return ordered


def _train(
    root: pathlib.Path,
    file: pathlib.Path,
    listed: dict[str, int],
    codes: dict[str, int],
    split: str,
) -> Split:
    """The images of a list, sorted by name, with their true labels."""
    rows = sorted(listed.items())
    places = (*WEB, *(f"{base}training/{split}" for base in _TRAINING))
    true = []
    for name, _ in rows:
        synset = _SYNSET.match(name)
        if name[0] == "n" and (synset is None or synset[0] not in codes):
            raise UserError(f"{file}: {name} is of none of its classes")
        true.append(codes[synset[0]] if synset else WRONG)
    # ImageNet's images and those of the web may be in two folders.
    paths: dict[str, str] = {}
    for clean in (True, False):
        part = [row for row in rows if (row[0][0] == "n") == clean]
        if part:
            found = _placed(root, file, part, places)
            paths |= dict(zip((name for name, _ in part), found, strict=True))
    return file_split(
        root,
        [paths[name] for name, _ in rows],
        [label for _, label in rows],
        true,
    )


def _placed(
    root: pathlib.Path,
    file: pathlib.Path,
    rows: Sequence[tuple[str, int]],
    places: Sequence[str],
) -> list[str]:
    """Paths relative to the root, in the first layout that has an image."""

    def path(
        place: str, folder: str, suffix: str, name: str, label: int
    ) -> str:
        if suffix:
            name = name.rpartition(".")[0] + suffix
        return f"{place}/{folder.format(label)}{name}"

    layouts = itertools.product(
        places, ("", "{}/", "{:02d}/"), ("", ".JPEG", ".jpg")
    )
    for layout in layouts:
        if (root / layout[0]).is_dir() and any(
            os.path.isfile(root / path(*layout, *row)) for row in rows[:_PROBED]
        ):
            return [path(*layout, *row) for row in rows]
    raise UserError(
        f"{root / places[0] / rows[0][0]}: no such file, {file} lists it; "
        f"looked in {', '.join(places)} below {root}"
    )
