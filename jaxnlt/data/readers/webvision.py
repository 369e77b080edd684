"""WebVision 1.0, its first classes in the images found by Google.

``info/{synsets,train_filelist_google,val_filelist}.txt``, the training
images ``google/q*/*.jpg`` and the validation images ``val_images_256/*.jpg``.
ImageNet's validation images, in a folder for each synset or class number, are
an additional test set if they are found beside or below, see ``IMAGENET``.

Source: ``papers/smr.md`` section 14, ``papers/sfa.md`` section 3.4.
"""

import collections
import pathlib

from jaxnlt.data import listing
from jaxnlt.data.files import file_split
from jaxnlt.data.readers import lists
from jaxnlt.data.records import ReadRequest, Source, Split

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


@lists.described
def read(request: ReadRequest) -> Source:
    """Lists WebVision's first classes.

    Args:
      request: ``path``, the folder; ``benchmark.num_classes`` of the 1,000
        classes are kept.

    Returns:
      The source, with WebVision's validation images as test set and
      ImageNet's as ``more_tests['imagenet']``.

    Raises:
      UserError: something is missing or damaged; it is named.

    Source: ``papers/smr.md`` section 14.
    """
    base = lists.locate(lists.folder(request.path), PLACES, TRAIN)
    synsets, names = _classes(base / "info" / "synsets.txt")
    classes = request.benchmark.num_classes
    assert classes is not None
    names = names[:classes]

    def kept(file: str) -> dict[str, int]:
        listed = lists.read_labels(base / file, len(synsets))
        return {path: k for path, k in listed.items() if k < classes}

    train = lists.labelled_split(base, kept(TRAIN), names, base / TRAIN)
    images = lists.locate(base, VAL_IMAGES).name
    tests = {f"{images}/{path}": k for path, k in kept(VAL).items()}
    test = lists.labelled_split(base, tests, names, base / VAL, right=True)
    more = {}
    place = _imagenet_folder(base, synsets[0])
    if place is not None:
        more["imagenet"] = _imagenet(place, synsets[:classes], names)
    return Source(train, test, names, str(base), more)


def _classes(file: pathlib.Path) -> tuple[list[str], tuple[str, ...]]:
    """Synsets, and the first word of each; no two names are equal."""
    synsets, first = [], []
    for line in lists.read_lines(file, str, "a synset"):
        synset, _, words = line.partition(" ")
        synsets.append(synset)
        first.append(words.partition(",")[0].strip() or synset)
    count = collections.Counter(first)
    return synsets, tuple(
        name if count[name] == 1 else f"{name} ({synset})"
        for name, synset in zip(first, synsets, strict=True)
    )


def _imagenet_folder(base: pathlib.Path, synset: str) -> pathlib.Path | None:
    """ImageNet's validation folder, None where there is none."""
    for root in (base, base.absolute().parent):
        for name in IMAGENET:
            # A flat folder without classes holds neither.
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
            continue  # A test set may lack a class.
        found = [
            f"{folder.name}/{path}" for path in listing.find(folder).images
        ]
        paths += found
        labels += [label] * len(found)
    split = file_split(place, paths, labels, labels)
    lists.check_range(str(place), split.labels, names)
    return split
