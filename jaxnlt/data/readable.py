"""Images that cannot be read: found before training, refused or left out.

What is left out is as if it were not there: it is drawn into no long tail,
trains, selects, tests and votes nowhere, and labels.csv calls it unreadable.
"""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
import tqdm

from jaxnlt.data import decode
from jaxnlt.data.decode import BadImage
from jaxnlt.data.files import ImageFiles
from jaxnlt.data.readers import lists
from jaxnlt.data.records import Source, Split
from jaxnlt.runtime import machine, processes
from jaxnlt.runtime.errors import logger

#: Up to so many files are read through before every run; more would take
#: longer than seconds.  Where unreadable ones are to be skipped, all are.
CHECKED = 10_000
# How many unreadable files an error names.
_NAMED = 10
_PIECE = 10_000

#: By set (``train``, ``test``, ``web`` or a further test set) its unreadable
#: rows.
Bad = Mapping[str, Mapping[int, BadImage]]
Item = TypeVar("Item")
T = TypeVar("T")


def without_unreadable(source: Source, workers: int) -> Source:
    """Reads the files of a data set through and leaves out unreadable ones.

    Args:
      source: as a reader lists it; images in memory have been read.
      workers: threads; 0 takes all cores.

    Returns:
      The source without them.

    Raises:
      UserError: a class has no image that can be read.
    """
    return settled(source, _bad(source.splits, workers), skip=True)


def refuse_unreadable(splits: Mapping[str, Split], workers: int) -> None:
    """Reads the files of a run through, up to ``CHECKED`` of them.

    Args:
      splits: by set its images.
      workers: threads; 0 takes all cores.

    Raises:
      BadImage: the first image that cannot be read; it names more.
    """
    total = sum(map(len, splits.values()))
    if total <= CHECKED:
        _refuse(_bad(splits, workers), total)


def _bad(splits: Mapping[str, Split], workers: int) -> Bad:
    """The unreadable images among those on disk, on every process."""
    files = {
        name: split.images
        for name, split in splits.items()
        if isinstance(split.images, ImageFiles)
    }
    # A host may have a copy of its own.
    found = processes.gathered(find(files, workers))
    return {name: _merged(one[name] for one in found) for name in files}


def _merged(found: Iterable[Mapping[int, BadImage]]) -> dict[int, BadImage]:
    merged: dict[int, BadImage] = {}
    for one in found:
        merged = {**one, **merged}
    return dict(sorted(merged.items()))


def find(
    files: Mapping[str, ImageFiles], workers: int = 0
) -> dict[str, dict[int, BadImage]]:
    """Finds the unreadable images of several sets.

    Args:
      files: by set its images.
      workers: threads; 0 takes all cores.

    Returns:
      By set its unreadable rows, ascending.
    """

    def reason(item: tuple[ImageFiles, int]) -> BadImage | None:
        images, row = item
        try:
            decode.read_through(images.root / str(images.paths[row]))
        except BadImage as error:
            return error
        return None

    items = [
        (files[name], i) for name in files for i in range(len(files[name]))
    ]
    reasons = in_threads(reason, items, workers)
    return {
        name: {
            row: error
            for row in range(len(images))
            if (error := next(reasons)) is not None
        }
        for name, images in files.items()
    }


def in_threads(
    function: Callable[[Item], T], items: Sequence[Item], workers: int = 0
) -> Iterator[T]:
    """The results for all items in their order, with a bar on a terminal.

    Args:
      function: of one item.
      items: are begun a piece at a time, as a million would take memory.
      workers: threads; 0 takes all cores.

    Yields:
      Each result.
    """
    with (
        concurrent.futures.ThreadPoolExecutor(
            workers or machine.cores()
        ) as pool,
        tqdm.tqdm(
            desc="reading images", total=len(items), leave=False, disable=None
        ) as bar,
    ):
        for start in range(0, len(items), _PIECE):
            for result in pool.map(function, items[start : start + _PIECE]):
                bar.update()
                yield result


def settled(source: Source, bad: Bad, skip: bool) -> Source:
    """Leaves the unreadable images out of a data set, or refuses them.

    Args:
      source: with them.
      bad: which they are.
      skip: whether they are left out.

    Returns:
      The source without them; those of training in ``unreadable``.

    Raises:
      BadImage: the first image that cannot be read; it names more.
      UserError: a class has no image that can be read.
    """
    errors = [error for rows in bad.values() for error in rows.values()]
    if not errors:
        return source
    if not skip:
        _refuse(bad, sum(map(len, source.splits.values())))
    for error in errors:
        logger.warning("%s: %s; skipped", error.path, error.reason)

    def kept(name: str, split: Split) -> Split:
        return split.take(np.delete(np.arange(len(split)), list(bad[name])))

    parts = {
        name: kept(name, split) if bad.get(name) else split
        for name, split in source.splits.items()
    }
    where = f"{source.path}: without {len(errors)} unreadable images"
    lists.check_classes(where, parts["train"].labels, source.class_names)
    for name in ("test", *source.more_tests):
        if name in parts:
            lists.check_some(f"{where}: {name}", parts[name].labels)
    train = source.train
    lost = np.array(list(bad.get("train", ())), np.int64)
    true = train.true_labels
    return dataclasses.replace(
        source,
        train=parts["train"],
        test=parts.get("test"),
        web=parts.get("web"),
        more_tests={name: parts[name] for name in source.more_tests},
        unreadable=Split(
            None,
            train.labels[lost],
            None if true is None else true[lost],
            train.ids[lost],
        ),
        n_unreadable=len(errors),
    )


def _refuse(bad: Bad, total: int) -> None:
    """Says what is wrong with the first image, which others are bad too."""
    errors = [error for rows in bad.values() for error in rows.values()]
    if not errors:
        return
    text = errors[0].reason
    if len(errors) > 1:
        named = [error.path for error in errors[1:_NAMED]]
        named += ["..."] * (len(errors) > _NAMED)
        text += (
            f"; {len(errors) - 1} more of {total} images cannot be read: "
            f"{', '.join(named)}"
        )
    raise BadImage(
        errors[0].path,
        f"{text}; python -m jaxnlt.data.check lists such files, "
        "--config.data.on_bad_image=skip leaves them out",
    )
