"""Lists what the raw downloads of the NLT benchmarks hold; reads no image.

Below the raw folder (links do as well) lie

ImageNet-NLT: the Controlled Noisy Web Labels ``dataset_no_images/`` with
``mini-imagenet/{class_name.txt,split/}``, its web images ``noisy_images/``,
and ILSVRC-2012, unpacked into ``ILSVRC2012/train/SYNSET/`` and
``ILSVRC2012/val/``.
Animal10-NLT: ANIMAL-10N's raw images ``training/`` and ``testing/``.
Food101-NLT: ``Food-101N_release/`` and, for the test set, ``food-101/``.

Other usual places are looked at too, see the tuples below.

Source: ``papers/h2e.md`` section 14.2.
"""

import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from jaxnlt.data.nlt.manifest import read_text
from jaxnlt.data.nlt.protocol import WRONG, Row
from jaxnlt.runtime.errors import UserError, logger

CNWL = ("dataset_no_images/mini-imagenet", "mini-imagenet", ".")
WEB = (
    "noisy_images",
    "dataset_no_images/noisy_images",
    "dataset_no_images/mini-imagenet/all_images",
    "mini-imagenet/all_images",
    "all_images",
)
ILSVRC = ("ILSVRC2012/{0}", "ILSVRC2012_img_{0}", "ILSVRC/Data/CLS-LOC/{0}")
TRAIN = tuple(p.format("train") for p in (*ILSVRC, "imagenet/{0}", "{0}"))
VAL = (
    *(p.format("val") for p in (*ILSVRC, "imagenet/{0}", "{0}")),
    "dataset_no_images/mini-imagenet/validation",
    "mini-imagenet/validation",
    "validation",
)
ANIMAL = (".", "raw_image", "raw_image_ver", "raw_image_ver/raw_image")
ANIMALS = (
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
FOOD_N = ("Food-101N_release", "Food-101N", ".")
FOOD = ("food-101", "Food-101")
WEB_SPLIT = "red_noise_nl_0.8"
TEST_SPLIT = "clean_validation"
_IMAGE = (".jpg", ".jpeg")
CLEAN = re.compile(r"n\d{8}")


class Raw(NamedTuple):
    """What a raw folder holds.

    Attributes:
      class_names: C names in the order of the labels.
      images: per class the training images under its label, those of the
        web aside, in a fixed order.
      web: per class the web images with its label; C empty lists but for
        ImageNet-NLT.
      test: the test images.
    """

    class_names: tuple[str, ...]
    images: list[list[Row]]
    web: list[list[Row]]
    test: list[Row]


def imagenet(raw: pathlib.Path) -> Raw:
    """Lists ILSVRC-2012 and the controlled noisy web labels.

    The synset of a label is that of the clean images which the split file
    gives this label.  Its other images, whose names do not start with ``n``,
    are the web images: all their labels are wrong.

    Args:
      raw: the raw folder.

    Returns:
      All training images of the 100 synsets, the web images, and the
      validation images that CNWL lists.

    Raises:
      UserError: something is missing or damaged; it is named.

    Source: ``papers/h2e.md`` section 14.2, section 14.3.
    """
    base = locate(raw, CNWL, "class_name.txt")
    names = tuple(read_text(base / "class_name.txt").splitlines())
    names = tuple(name.strip() for name in names if name.strip())
    file, listed = read_split(base, WEB_SPLIT, len(names))
    codes = synsets(file, listed, names)
    # Blue noise needs none of them; a missing one is named when it is read.
    folder = raw / next((p for p in WEB if (raw / p).is_dir()), WEB[0])
    web: list[list[Row]] = [[] for _ in names]
    for name, label in sorted(once(file, listed).items()):
        if not name.startswith("n"):
            path = _relative(raw, folder / name)
            web[label].append(Row(path, label, WRONG, "web"))
    train = locate(raw, TRAIN, codes[0])
    images = []
    for label, synset in enumerate(codes):
        found = _images(train / synset)
        images.append(
            [Row(_relative(raw, p), label, label, "imagenet") for p in found]
        )
    file, listed = read_split(base, TEST_SPLIT, len(names))
    folder = locate(raw, VAL)
    places = {path.stem: path for path in _images(folder)}
    test = []
    for name, label in sorted(once(file, listed).items()):
        place = places.get(name.split(".")[0])
        if place is None:
            raise UserError(f"{folder / name}: no such file, {file} lists it")
        test.append(Row(_relative(raw, place), label, label, "imagenet"))
    return Raw(names, images, web, test)


def animal(raw: pathlib.Path) -> Raw:
    """Lists ANIMAL-10N, whose files start with their given label.

    Args:
      raw: the raw folder.

    Returns:
      Its images; no true label of a training image is known, the labels of
      the test images are right.

    Raises:
      UserError: something is missing, or a file name bears no label.

    Source: ``papers/h2e.md`` section 14.2, section 14.4.
    """
    names = ANIMALS
    images: list[list[Row]] = [[] for _ in names]
    base = locate(raw, ANIMAL, "training")
    for path, label in _labelled(base / "training"):
        row = Row(_relative(raw, path), label, None, "animal")
        images[label].append(row)
    folder = next(
        (base / name for name in ("testing", "test") if (base / name).is_dir()),
        base / "testing",
    )
    test = [
        Row(_relative(raw, path), label, label, "animal")
        for path, label in _labelled(folder)
    ]
    return Raw(names, images, [[] for _ in names], test)


def food(raw: pathlib.Path) -> Raw:
    """Lists Food-101N, and the test images of Food-101.

    Args:
      raw: the raw folder.

    Returns:
      The images of ``imagelist.tsv``, classes in the order of their sorted
      names.  Whether a label is right is known of the verified images only.

    Raises:
      UserError: something is missing or damaged; it is named.

    Source: ``papers/h2e.md`` section 14.2, section 14.5.
    """
    base = locate(raw, FOOD_N, "meta/imagelist.tsv")
    meta = base / "meta"
    names = tuple(sorted(read_lines(meta / "classes.txt", str, header=True)))
    codes = {name: label for label, name in enumerate(names)}

    def key(line: str) -> tuple[str, int] | None:
        name, _, last = line.partition("/")
        return (line, codes[name]) if name in codes and last else None

    def verdict(line: str) -> tuple[str, str] | None:
        name, _, right = line.partition("\t")
        return (name, right) if right in ("0", "1") else None

    verdicts: dict[str, str] = {}
    for part in ("verified_train.tsv", "verified_val.tsv"):
        verdicts |= dict(read_lines(meta / part, verdict, header=True))
    images: list[list[Row]] = [[] for _ in names]
    file = meta / "imagelist.tsv"
    listed = once(file, read_lines(file, key, header=True))
    for name, label in sorted(listed.items()):
        path = _relative(raw, base / "images" / name)
        true = {"1": label, "0": WRONG}.get(verdicts.get(name, ""))
        images[label].append(Row(path, label, true, "food"))
    base = locate(raw, FOOD, "meta/test.txt")
    file = base / "meta" / "test.txt"
    listed = once(file, read_lines(file, key))
    test = [
        Row(
            _relative(raw, base / "images" / f"{name}.jpg"),
            label,
            label,
            "food",
        )
        for name, label in sorted(listed.items())
    ]
    return Raw(names, images, [[] for _ in names], test)


def locate(
    raw: pathlib.Path, places: Sequence[str], inside: str = ""
) -> pathlib.Path:
    """The first of the places that is there and holds ``inside``."""
    for place in places:
        if (raw / place / inside).exists():
            return raw / place
    more = ", ".join(str(pathlib.Path(p) / inside) for p in places[1:])
    raise UserError(
        f"{raw / places[0] / inside}: no such file or folder"
        + (f", nor {more} below {raw}" if more else "")
    )


def _relative(raw: pathlib.Path, path: pathlib.Path) -> str:
    return path.relative_to(raw).as_posix()


def _images(folder: pathlib.Path) -> list[pathlib.Path]:
    """JPEG files in a folder and all folders in it, sorted."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    found = [
        pathlib.Path(place, name)
        for place, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(_IMAGE) and not name.startswith(".")
    ]
    if not found:
        raise UserError(f"{folder}: holds no JPEG image")
    return sorted(found)


def _labelled(folder: pathlib.Path) -> Iterator[tuple[pathlib.Path, int]]:
    """ANIMAL-10N's images with the label in their names."""
    for path in _images(folder):
        if not re.match("[0-9]_", path.name):
            raise UserError(
                f"{path}: its name does not start with a label, as in "
                "0_img_1553497063706.jpg"
            )
        yield path, int(path.name[0])


def read_lines(
    file: pathlib.Path, parse: Callable, header: bool = False
) -> list:
    """The parsed lines of a list; a line that parses to None is named."""
    lines = read_text(file).splitlines()
    values = []
    for number, line in enumerate(lines[header:], start=1 + header):
        if not line.strip():
            continue
        value = parse(line.strip())
        if value is None:
            raise UserError(f"{file}: line {number}: {line.strip()!r}?")
        values.append(value)
    if not values:
        raise UserError(f"{file}: lists nothing")
    return values


def read_split(
    base: pathlib.Path, name: str, classes: int
) -> tuple[pathlib.Path, list[tuple[str, int]]]:
    """A split file of CNWL, with or without .txt, and its lines."""
    file = base / "split" / name
    if not file.exists() and file.with_name(f"{name}.txt").exists():
        file = file.with_name(f"{name}.txt")

    def entry(line: str) -> tuple[str, int] | None:
        match = re.fullmatch(r"(\S+)\s+(\d+)", line)
        return (match[1], int(match[2])) if match else None

    listed = read_lines(file, entry)
    top = max(label for _, label in listed)
    if top >= classes:
        raise UserError(
            f"{file}: label {top} has no line in {base / 'class_name.txt'}"
        )
    return file, listed


def once(file: pathlib.Path, listed: list[tuple[str, int]]) -> dict[str, int]:
    """Labels by image; of an image that is listed twice the first."""
    labels: dict[str, int] = {}
    for name, label in listed:
        labels.setdefault(name, label)
    if len(labels) < len(listed):
        logger.warning(
            "%s: lists %d images more than once; the first label is used",
            file,
            len(listed) - len(labels),
        )
    return labels


def synsets(
    file: pathlib.Path,
    listed: list[tuple[str, int]],
    names: tuple[str, ...],
) -> list[str]:
    """The synset of every label, from the names of the clean images."""
    found: dict[int, set[str]] = {label: set() for label in range(len(names))}
    for name, label in listed:
        match = CLEAN.match(name)
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
