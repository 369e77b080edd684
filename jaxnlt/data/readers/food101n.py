"""Food-101N with its verification labels, tested on Food-101.

``Food-101N_release/{images,meta}`` beside ``food-101/{images,meta}``.

Source: ``papers/h2e.md`` section 14.2.
"""

import pathlib

from jaxnlt.data.readers import lists
from jaxnlt.data.records import WRONG, ListedImage, ReadRequest, Source

TRAIN = ("Food-101N_release", "Food-101N", ".")
TEST = ("food-101", "Food-101")
_TRAIN_LIST = "meta/imagelist.tsv"
_TEST_LIST = "meta/test.txt"


@lists.described
def read(request: ReadRequest) -> Source:
    """Lists Food-101N.

    Args:
      request: ``path``, the folder.

    Returns:
      The source.  The true label of a training image is its given one where
      a person verified it, ``WRONG`` where a person rejected it, and
      ``UNKNOWN`` elsewhere.

    Raises:
      UserError: something is missing or damaged; it is named.

    Source: ``papers/h2e.md`` section 14.2.
    """
    root = lists.folder(request.path)
    raw = list_raw(root)
    train = [image for images in raw.images for image in images]
    for images, file in ((train, _TRAIN_LIST), (raw.test, _TEST_LIST)):
        paths = [image.path for image in images]
        lists.check_folders(root, paths, pathlib.Path(file))
    return lists.raw_source(root, raw)


def list_raw(root: pathlib.Path) -> lists.RawSet:
    """Lists Food-101N, and the test images of Food-101.

    Args:
      root: the folder, see above.

    Returns:
      The images of ``imagelist.tsv``, classes in the order of their sorted
      names.  Whether a label is right is known of the verified images only.

    Raises:
      UserError: something is missing or damaged; it is named.

    Source: ``papers/h2e.md`` sections 14.2 and 14.5.
    """
    base = lists.locate(root, TRAIN, _TRAIN_LIST)
    meta = base / "meta"
    listed = lists.read_lines(meta / "classes.txt", str, "a class", header=True)
    names = tuple(sorted(listed))
    codes = {name: label for label, name in enumerate(names)}

    def key(line: str) -> tuple[str, int] | None:
        name, _, last = line.partition("/")
        return (line, codes[name]) if name in codes and last else None

    def verdict(line: str) -> tuple[str, str] | None:
        name, _, right = line.partition("\t")
        return (name, right) if right in ("0", "1") else None

    verdicts: dict[str, str] = {}
    for part in ("verified_train.tsv", "verified_val.tsv"):
        verdicts |= dict(
            lists.read_lines(
                meta / part, verdict, "an image and 0 or 1", header=True
            )
        )

    def labels(file: pathlib.Path, header: bool) -> list[tuple[str, int]]:
        found = lists.read_lines(file, key, "CLASS/IMAGE", header)
        return sorted(lists.first_labels(file, found).items())

    def path(base: pathlib.Path, image: str) -> str:
        return (base / "images" / image).relative_to(root).as_posix()

    images: list[list[ListedImage]] = [[] for _ in names]
    for name, label in labels(base / _TRAIN_LIST, header=True):
        true = {"1": label, "0": WRONG}.get(verdicts.get(name, ""))
        images[label].append(ListedImage(path(base, name), label, true, "food"))
    base = lists.locate(root, TEST, _TEST_LIST)
    test = [
        ListedImage(path(base, f"{name}.jpg"), label, label, "food")
        for name, label in labels(base / _TEST_LIST, header=False)
    ]
    return lists.RawSet(names, images, [[] for _ in names], test)
