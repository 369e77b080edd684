"""The user's own folder of large images, listed and not decoded."""

from jaxnlt.data.files import FileSource
from jaxnlt.data.readers import lists as image_lists
from jaxnlt.data.readers import user
from jaxnlt.data.records import ReadRequest, Source


def source(request: ReadRequest) -> Source:
    """What ``read`` returns, for an entry of the registry."""
    return read(request.path, request.labels_file)


def read(path: str, labels_file: str = "") -> FileSource:
    """Lists what ``user.folder`` would decode.

    Args:
      path: holds ``train/CLASS/*`` and optionally ``test/CLASS/*``.
      labels_file: CSV with the columns ``path`` (relative to ``path``),
        ``label`` and optionally ``true_label``; when given it is the list of
        training images, and ``train/CLASS`` is not read.

    Returns:
      The source, ``test`` None where there is none.

    Raises:
      UserError: nothing found, a class without images, a CSV that misses a
        column or names a missing file.
    """
    return user.listing(image_lists.folder(path), labels_file)
