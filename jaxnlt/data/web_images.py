"""The user's own folder of large images, listed and not decoded."""

import pathlib

from jaxnlt.data import user, web_lists
from jaxnlt.data.files import FileSource, file_split
from jaxnlt.errors import UserError


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
    root = web_lists.folder(path)
    true: list[str] | None = None
    if labels_file:
        listed = pathlib.Path(labels_file).expanduser()
        files, given, true = user.read_csv(listed, root)
        names = user.ordered(given + (true or []))
        origin = str(listed)
    else:
        files, given, names = user.scan(root, "train")
        origin = str(root / "train")
    codes = {name: k for k, name in enumerate(names)}
    labels = [codes[name] for name in given]
    known = None if true is None else [codes[name] for name in true]
    train = file_split(root, files, labels, known)
    user.check_classes(origin, train.labels, names)
    test = None
    if (root / "test").is_dir():
        files, given, found = user.scan(root, "test")
        strange = [name for name in found if name not in codes]
        if strange:
            raise UserError(
                f"{root / 'test' / strange[0]}: no training image is of this "
                "class"
            )
        labels = [codes[name] for name in given]
        test = file_split(root, files, labels, labels)
        user.check_classes(str(root / "test"), test.labels, names)
    return FileSource(train, test, names, str(root))
