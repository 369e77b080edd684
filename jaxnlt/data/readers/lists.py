"""What the readers of data sets on disk share: lists, folders, messages."""

import contextlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from jaxnlt.data import registry
from jaxnlt.data.files import UNKNOWN, file_split
from jaxnlt.data.nlt import raw as nlt_raw
from jaxnlt.data.nlt.manifest import read_text
from jaxnlt.data.nlt.protocol import Row
from jaxnlt.data.readers import user
from jaxnlt.data.records import Split
from jaxnlt.runtime.errors import UserError


@contextlib.contextmanager
def described(name: str) -> Iterator[None]:
    """Adds to every error where a data set is described.

    Args:
      name: its benchmark.

    Yields:
      Nothing.

    Raises:
      UserError: the one raised inside, and the address after it.
    """
    try:
        yield
    except UserError as error:
        raise UserError(
            f"{error}; its files are described at {registry.get(name).homepage}"
        ) from None


def folder(path: str) -> pathlib.Path:
    """The folder that the user names.

    Args:
      path: ``config.data.path``.

    Returns:
      The same, ``~`` expanded.

    Raises:
      UserError: none is named, or there is none.
    """
    if not path:
        raise UserError("config.data.path: is missing, it names the folder")
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"config.data.path: {root}: no such folder")
    return root


def file_keys(file: pathlib.Path) -> list[str]:
    """The lines of a list of files.

    Args:
      file: the list.

    Returns:
      Its lines, none empty.

    Raises:
      UserError: it is missing, no text or empty.
    """
    return nlt_raw.read_lines(file, str)


def file_labels(file: pathlib.Path, classes: int) -> dict[str, int]:
    """The lines ``path label`` of a list.

    Args:
      file: the list.
      classes: a label must be smaller than this.

    Returns:
      Labels by path; of a path that is listed twice the first, with a
      warning.

    Raises:
      UserError: it is missing or empty; a line that is something else, or
        bears an unknown label, is named.
    """
    listed = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        name, _, label = line.strip().rpartition(" ")
        if not line.strip():
            continue
        if not name or not label.isdecimal() or int(label) >= classes:
            raise UserError(
                f"{file}: line {number}: {line.strip()!r} is not a path and a "
                f"label in 0..{classes - 1}"
            )
        listed.append((name.strip(), int(label)))
    if not listed:
        raise UserError(f"{file}: lists nothing")
    return nlt_raw.once(file, listed)


def check_folders(
    root: pathlib.Path, paths: Sequence[str], file: pathlib.Path
) -> None:
    """Refuses a list whose folders are not there; looks at no image.

    Args:
      root: the folder of the images.
      paths: listed images, relative to it.
      file: the list, for the message.

    Raises:
      UserError: the first folder that is missing.
    """
    for name in sorted({path.rpartition("/")[0] for path in paths}):
        if not (root / name).is_dir():
            raise UserError(
                f"{root / name}: no such folder, {file} lists images in it"
            )


def split_of(
    root: pathlib.Path,
    labels: Mapping[str, int],
    names: tuple[str, ...],
    file: pathlib.Path,
    right: bool = False,
) -> Split:
    """A split of listed files, sorted by path.

    Args:
      root: the folder of the images.
      labels: given labels by path.
      names: C class names.
      file: the list, for messages.
      right: whether the labels are the true ones.

    Returns:
      The split.

    Raises:
      UserError: a folder is missing, or a class has no image.
    """
    paths = sorted(labels)
    check_folders(root, paths, file)
    given = [labels[path] for path in paths]
    split = file_split(root, paths, given, given if right else None)
    user.check_classes(str(file), split.labels, names)
    return split


def rows_split(
    root: pathlib.Path,
    rows: Sequence[Row],
    names: tuple[str, ...],
) -> Split:
    """A split of rows of the raw lists, sorted by path.

    Args:
      root: the folder that their paths are relative to.
      rows: the images.
      names: C class names.

    Returns:
      The split.

    Raises:
      UserError: a class has no image.
    """
    rows = sorted(rows)
    split = file_split(
        root,
        [row.path for row in rows],
        [row.label for row in rows],
        [UNKNOWN if r.true_label is None else r.true_label for r in rows],
    )
    user.check_classes(str(root), split.labels, names)
    return split
