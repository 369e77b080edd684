"""The NLT sets of H2E, from the manifests that ``build_nlt`` writes.

Source: ``papers/h2e.md`` section 14.
"""

import pathlib

from jaxnlt.data.files import FileSource, file_split
from jaxnlt.data.nlt import manifest
from jaxnlt.data.readers import lists as image_lists
from jaxnlt.data.readers import user
from jaxnlt.data.records import ReadRequest, Source, Split
from jaxnlt.runtime.errors import UserError

#: The authors keep ImageNet's images as squares of so many pixels.
SIDE = 84
_SQUARE = ("imagenet", "swap")


def source(request: ReadRequest) -> Source:
    """What ``read`` returns, for an entry of the registry."""
    return read(request.path, request.labels_file)


def read(path: str, labels_file: str) -> FileSource:
    """Lists the images of a manifest.

    Args:
      path: the raw folder that ``build_nlt --raw`` named.
      labels_file: ``OUT/manifest.csv``, or the folder ``OUT``; ``test.csv``
        and ``classes.txt`` lie beside it.

    Returns:
      The source, in the order of the manifest.  A true label is ``nlt.WRONG``
      where the given one is wrong and the class not known; ImageNet's images
      are brought to squares of 84 pixels first.

    Raises:
      UserError: a file is missing or not the builder's.

    Source: ``papers/h2e.md`` section 14.3.
    """
    with image_lists.described("imagenet_nlt"):
        if not labels_file:
            raise UserError(
                "config.data.labels_file: is missing, it names the "
                "manifest.csv that python -m jaxnlt.data.build_nlt writes"
            )
        root = image_lists.folder(path)
        file = pathlib.Path(labels_file).expanduser()
        if file.is_dir():
            file = file / "manifest.csv"
        train, names = _split(root, file)
        test, others = _split(root, file.with_name("test.csv"))
        assert names == others, "both read the same classes.txt"
        return FileSource(train, test, names, str(file))


def _split(
    root: pathlib.Path, file: pathlib.Path
) -> tuple[Split, tuple[str, ...]]:
    listed = manifest.read_manifest(file)
    image_lists.check_folders(root, listed.paths, file)
    split = file_split(
        root,
        listed.paths,
        listed.labels,
        listed.true_labels,
        [SIDE * (source in _SQUARE) for source in listed.sources],
    )
    user.check_classes(str(file), split.labels, listed.class_names)
    return split, listed.class_names
