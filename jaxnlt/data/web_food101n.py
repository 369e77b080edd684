"""Food-101N with its verification labels, tested on Food-101.

``Food-101N_release/{images,meta}`` beside ``food-101/{images,meta}``.

Source: papers/h2e.md §14.2.
"""

import pathlib

from jaxnlt.data import nlt_raw, web_lists
from jaxnlt.data.files import FileSource


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

    Source: papers/h2e.md §14.2.
    """
    with web_lists.described("food101n"):
        root = web_lists.folder(path)
        listed = nlt_raw.food(root)
        names = listed.class_names
        rows = [row for images in listed.images for row in images]
        for part, file in (
            (rows, "meta/imagelist.tsv"),
            (listed.test, "meta/test.txt"),
        ):
            paths = [row.path for row in part]
            web_lists.check_folders(root, paths, pathlib.Path(file))
        return FileSource(
            web_lists.rows_split(root, rows, names),
            web_lists.rows_split(root, listed.test, names),
            names,
            str(root),
        )
