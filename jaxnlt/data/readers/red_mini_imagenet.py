"""Red mini-ImageNet: controlled noise from the web (CNWL).

``mini-imagenet/{class_name.txt,split/}``, the training images of the lists in
``all_images/``, ``noisy_images/`` or ``training/SPLIT/CLASS/``, and the
validation images in ``validation/``, flat or in a folder per class.

Source: ``papers/dasc.md`` section 1.3, ``papers/h2e.md`` section 14.2.
"""

import itertools
import pathlib
from collections.abc import Sequence

import numpy as np

from jaxnlt.data.files import FileSource, ImageFiles, file_split
from jaxnlt.data.nlt import raw as nlt_raw
from jaxnlt.data.nlt.protocol import WRONG
from jaxnlt.data.readers import lists as image_lists
from jaxnlt.data.readers import user
from jaxnlt.data.records import ReadRequest, Source, Split
from jaxnlt.runtime.errors import UserError

CLEAN_SPLIT = "blue_noise_nl_0.0"
_TRAINING = tuple(
    f"{base}training/"
    for base in ("", "mini-imagenet/", "dataset_no_images/mini-imagenet/")
)
_VAL = (*nlt_raw.VAL, "val", "mini-imagenet/val")
# A few may be missing; whoever opens them says so.
_PROBED = 100


def source(request: ReadRequest) -> Source:
    """What ``read`` returns, for an entry of the registry."""
    split = ""
    if request.noise.startswith("split:"):
        split = request.noise.removeprefix("split:")
    return read(request.path, split)


def read(path: str, split: str = "") -> FileSource:
    """Lists mini-ImageNet with the noise of the web, or a split as it stands.

    Args:
      path: the folder, see above.
      split: '' takes all clean images and gives the web images as ``web``,
        for ``add_web``; a name such as ``red_noise_nl_0.4`` takes that list
        of the release.

    Returns:
      The source.  The true label of an ImageNet image is that of its synset,
      the one of a web image ``nlt.WRONG``.

    Raises:
      UserError: something is missing or damaged; it is named.

    Source: ``papers/dasc.md`` section 1.3.
    """
    with image_lists.described("red_mini_imagenet"):
        root = image_lists.folder(path)
        base = nlt_raw.locate(root, nlt_raw.CNWL, "class_name.txt")
        names = tuple(image_lists.file_keys(base / "class_name.txt"))
        file, listed = nlt_raw.read_split(base, CLEAN_SPLIT, len(names))
        synsets = nlt_raw.synsets(file, listed, names)
        codes = {synset: label for label, synset in enumerate(synsets)}
        web = None
        if split:
            file, listed = nlt_raw.read_split(base, split, len(names))
        else:
            origin, others = nlt_raw.read_split(
                base, nlt_raw.WEB_SPLIT, len(names)
            )
            others = [row for row in others if not row[0].startswith("n")]
            web = _train(root, origin, others, codes, nlt_raw.WEB_SPLIT)
        train = _train(root, file, listed, codes, split or CLEAN_SPLIT)
        user.check_classes(str(file), train.labels, names)
        file, listed = nlt_raw.read_split(base, nlt_raw.TEST_SPLIT, len(names))
        tests = nlt_raw.once(file, listed)
        paths = _placed(root, file, sorted(tests.items()), _VAL)
        labels = [tests[name] for name in sorted(tests)]
        test = file_split(root, paths, labels, labels)
        user.check_classes(str(file), test.labels, names)
        return FileSource(train, test, names, str(root), {}, web)


def add_web(
    train: Split, web: Split, rate: float, rng: np.random.RandomState
) -> Split:
    """Appends ``int(S / (1 - r) - S)`` random web images to ``S`` images.

    Their classes are as the web images' are, not long-tailed.

    Args:
      train: the clean images that the long tail has kept.
      web: where the web images are drawn from.
      rate: ``r`` in [0, 1), the share of web images afterwards.
      rng: source of the draw.

    Returns:
      The clean images and the web images after them.

    Raises:
      UserError: there are too few web images.

    Source: ``papers/dasc.md`` section 1.3.
    """
    size = len(train)
    wanted = int(size / (1 - rate) - size)
    if wanted > len(web):
        raise UserError(
            f"config.data.rate: {rate:g} of {size} clean images needs {wanted} "
            f"web images, there are {len(web)}"
        )
    drawn = web.take(rng.permutation(len(web))[:wanted])
    assert train.true_labels is not None and drawn.true_labels is not None
    ids = np.concatenate([train.ids, drawn.ids])
    return Split(
        ImageFiles(train.images.root, ids),
        np.concatenate([train.labels, drawn.labels]),
        np.concatenate([train.true_labels, drawn.true_labels]),
        ids,
    )


def _train(
    root: pathlib.Path,
    file: pathlib.Path,
    listed: list[tuple[str, int]],
    codes: dict[str, int],
    split: str,
) -> Split:
    """The images of a list, sorted by name, with their true labels."""
    labels = nlt_raw.once(file, listed)
    rows = sorted(labels.items())
    places = (*nlt_raw.WEB, *(f"{place}{split}" for place in _TRAINING))
    true, kinds = [], []
    for name, _ in rows:
        clean = name.startswith("n")
        synset = nlt_raw.CLEAN.match(name)
        if clean and (synset is None or synset[0] not in codes):
            raise UserError(f"{file}: {name} is of none of its classes")
        true.append(codes[synset[0]] if synset else WRONG)
        kinds.append(clean)
    # ImageNet's images and those of the web may lie in two folders.
    paths: dict[str, str] = {}
    for clean in set(kinds):
        part = [r for r, k in zip(rows, kinds, strict=True) if k == clean]
        found = _placed(root, file, part, places)
        paths |= dict(zip((n for n, _ in part), found, strict=True))
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
    """Paths relative to the root, of the first layout that has an image."""

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
            (root / path(*layout, *row)).is_file() for row in rows[:_PROBED]
        ):
            return [path(*layout, *row) for row in rows]
    raise UserError(
        f"{root / places[0] / rows[0][0]}: no such file, {file} lists it; "
        f"looked in {', '.join(places)} below {root}"
    )
