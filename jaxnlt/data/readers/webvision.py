"""WebVision 1.0, its first classes in the images found by Google.

``info/{synsets,train_filelist_google,val_filelist}.txt``, the training
images ``google/q*/*.jpg`` and the validation images ``val_images_256/*.jpg``.
ImageNet's validation images, sorted into a folder per class, are a second
test set where they are found.

Source: ``papers/smr.md`` section 14, ``papers/sfa.md`` section 3.4.
"""

import collections
import os
import pathlib

from jaxnlt.data.files import FileSource, file_split
from jaxnlt.data.nlt import raw as nlt_raw
from jaxnlt.data.readers import lists as image_lists
from jaxnlt.data.readers import user
from jaxnlt.data.records import ReadRequest, Source, Split
from jaxnlt.runtime.errors import UserError

PLACES = (".", "webvision", "WebVision", "WebVision1.0")
TRAIN = "info/train_filelist_google.txt"
VAL = "info/val_filelist.txt"
VAL_IMAGES = ("val_images_256", "val_images")
IMAGENET = (
    "imagenet/val",
    "ILSVRC2012/val",
    "ILSVRC2012_img_val",
    "ILSVRC/Data/CLS-LOC/val",
)


def source(request: ReadRequest) -> Source:
    """What ``read`` returns, for an entry of the registry."""
    return read(request.path)


def read(path: str, num_classes: int = 50, imagenet: str = "") -> FileSource:
    """Lists WebVision's first classes.

    Args:
      path: the folder, see above.
      num_classes: how many of its 1,000 classes are kept.
      imagenet: ImageNet's validation folder with a folder per synset or per
        class number; '' looks for one below and beside ``path``.

    Returns:
      The source, with WebVision's validation images as test set and
      ImageNet's as ``more_tests['imagenet']``.

    Raises:
      UserError: something is missing or damaged; it is named.

    Source: ``papers/smr.md`` section 14.
    """
    with image_lists.described("webvision"):
        base = nlt_raw.locate(image_lists.folder(path), PLACES, TRAIN)
        synsets, names = _classes(base / "info" / "synsets.txt")
        if not 1 < num_classes <= len(names):
            raise UserError(
                f"num_classes: must lie in 2..{len(names)}, is {num_classes}"
            )
        names = names[:num_classes]

        def kept(file: str) -> dict[str, int]:
            listed = image_lists.file_labels(base / file, len(synsets))
            return {p: k for p, k in listed.items() if k < num_classes}

        train = image_lists.split_of(base, kept(TRAIN), names, base / TRAIN)
        folder = nlt_raw.locate(base, VAL_IMAGES).name
        tests = {f"{folder}/{p}": k for p, k in kept(VAL).items()}
        test = image_lists.split_of(base, tests, names, base / VAL, True)
        more = {}
        place = _imagenet_folder(base, synsets[0], imagenet)
        if place is not None:
            more["imagenet"] = _imagenet(place, synsets[:num_classes], names)
        return FileSource(train, test, names, str(base), more)


def _classes(file: pathlib.Path) -> tuple[list[str], tuple[str, ...]]:
    """Synsets, and the first of the names of each; no two are alike."""
    synsets, first = [], []
    for line in image_lists.file_keys(file):
        synset, _, words = line.partition(" ")
        synsets.append(synset)
        first.append(words.partition(",")[0].strip() or synset)
    count = collections.Counter(first)
    return synsets, tuple(
        name if count[name] == 1 else f"{name} ({synset})"
        for name, synset in zip(first, synsets, strict=True)
    )


def _imagenet_folder(
    base: pathlib.Path, synset: str, given: str
) -> pathlib.Path | None:
    """The validation folder, None where none is named or found."""
    if given:
        place = pathlib.Path(given).expanduser()
        if not place.is_dir():
            raise UserError(f"{place}: no such folder")
        return place
    for root in (base, base.absolute().parent):
        for name in IMAGENET:
            # Others hold the images in one flat folder, without labels.
            if any((root / name / k).is_dir() for k in (synset, "0")):
                return root / name
    return None


def _imagenet(
    place: pathlib.Path, synsets: list[str], names: tuple[str, ...]
) -> Split:
    by_number = not (place / synsets[0]).is_dir()
    paths: list[str] = []
    labels: list[int] = []
    for label, synset in enumerate(synsets):
        folder = place / (str(label) if by_number else synset)
        if not folder.is_dir():
            raise UserError(
                f"{folder}: no such folder; ImageNet's validation images of "
                f"class {names[label]} belong there"
            )
        found = sorted(
            f"{folder.name}/{entry.name}"
            for entry in os.scandir(folder)
            if os.path.splitext(entry.name)[1].lower() in user.SUFFIXES
            and not entry.name.startswith(".")
        )
        if not found:
            raise UserError(f"{folder}: holds no image")
        paths += found
        labels += [label] * len(found)
    return file_split(place, paths, labels, labels)
