"""Lists the raw downloads behind ImageNet-NLT; reads no image.

Below the raw folder (links do as well): the Controlled Noisy Web Labels
``dataset_no_images/`` with ``mini-imagenet/{class_name.txt,split/}``, its web
images ``noisy_images/``, and ILSVRC-2012, unpacked into
``ILSVRC2012/train/SYNSET/`` and ``ILSVRC2012/val/``.  Other usual places are
searched too, see ``TRAIN`` here and the tuples of ``red_mini_imagenet``.

Source: ``papers/h2e.md`` section 14.2.
"""

import pathlib

from jaxnlt.data.readers import lists
from jaxnlt.data.readers import red_mini_imagenet as cnwl
from jaxnlt.data.records import WRONG, ListedImage
from jaxnlt.runtime.errors import UserError

#: Places of ILSVRC-2012's training images.
TRAIN = (
    "ILSVRC2012/train",
    "ILSVRC2012_img_train",
    "ILSVRC/Data/CLS-LOC/train",
    "imagenet/train",
    "train",
)


def list_imagenet(raw: pathlib.Path) -> lists.RawSet:
    """Lists ILSVRC-2012 and the controlled noisy web labels.

    The synset of a label is that of the clean images to which the split file
    gives this label.  Its other images, whose names do not start with ``n``,
    are the web images: all their labels are wrong.

    Args:
      raw: the raw folder.

    Returns:
      All training images of the 100 synsets, the web images, and the
      validation images that CNWL lists.

    Raises:
      UserError: something is missing or damaged; it is named.

    Source: ``papers/h2e.md`` sections 14.2 and 14.3.
    """

    def image(
        path: pathlib.Path, label: int, true: int, source: str
    ) -> ListedImage:
        relative = path.relative_to(raw).as_posix()
        return ListedImage(relative, label, true, source)

    base = lists.locate(raw, cnwl.CNWL, "class_name.txt")
    names = cnwl.class_names(base)
    file, listed = cnwl.read_split(base, cnwl.WEB_SPLIT, len(names))
    codes = cnwl.synsets(file, listed, names)
    # Blue noise needs none of the web images; a missing one is reported when
    # it is read.
    places = [raw / place for place in cnwl.WEB]
    folder = next((place for place in places if place.is_dir()), places[0])
    web: list[list[ListedImage]] = [[] for _ in names]
    for name, label in sorted(listed.items()):
        if not name.startswith("n"):
            web[label].append(image(folder / name, label, WRONG, "web"))
    train = lists.locate(raw, TRAIN, codes[0])
    images = [
        [
            image(path, label, label, "imagenet")
            for path in lists.jpegs(train / synset)
        ]
        for label, synset in enumerate(codes)
    ]
    file, listed = cnwl.read_split(base, cnwl.TEST_SPLIT, len(names))
    folder = lists.locate(raw, cnwl.VAL)
    found = {path.stem: path for path in lists.jpegs(folder)}
    test = []
    for name, label in sorted(listed.items()):
        path = found.get(name.split(".")[0])
        if path is None:
            raise UserError(f"{folder / name}: no such file, {file} lists it")
        test.append(image(path, label, label, "imagenet"))
    return lists.RawSet(names, images, web, test)
