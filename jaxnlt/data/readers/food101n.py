"""Food-101N with its verification labels, tested on Food-101.

``Food-101N_release/{images,meta}`` beside ``food-101/{images,meta}``.

Source: ``papers/h2e.md`` section 14.2.
"""

import pathlib

from jaxnlt.data.files import FileSource
from jaxnlt.data.nlt import raw as nlt_raw
from jaxnlt.data.readers import lists as image_lists
from jaxnlt.data.records import ReadRequest, Source


def source(request: ReadRequest) -> Source:
    """What ``read`` returns, for an entry of the registry."""
    return read(request.path)


def read(path: str) -> FileSource:
    """Lists Food-101N.

    Args:
      path: the folder, see above.

    Returns:
      The source.  The true label of a training image is its given one where
      a person verified it, ``nlt.WRONG`` where a person rejected it, and
      ``UNKNOWN`` elsewhere.

    Raises:
      UserError: something is missing or damaged; it is named.

    Source: ``papers/h2e.md`` section 14.2.
    """
    with image_lists.described("food101n"):
        root = image_lists.folder(path)
        listed = nlt_raw.food(root)
        names = listed.class_names
        rows = [row for images in listed.images for row in images]
        for part, file in (
            (rows, "meta/imagelist.tsv"),
            (listed.test, "meta/test.txt"),
        ):
            paths = [row.path for row in part]
            image_lists.check_folders(root, paths, pathlib.Path(file))
        return FileSource(
            image_lists.rows_split(root, rows, names),
            image_lists.rows_split(root, listed.test, names),
            names,
            str(root),
        )
