"""What a data set is known by: its images, labels and classes.

A run records the fingerprint of its data, so that other data are refused in its
workdir, with counts of what has changed.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxnlt.data.files import CutImages
from jaxnlt.data.records import UNKNOWN, WRONG, Dataset, Source, Split

#: Size of a file that is not there.
MISSING = -1
# Asking a file system over a network for sizes is waiting, so threads help.
_THREADS, _CHUNK = 16, 1000


@dataclasses.dataclass(frozen=True)
class Rows:
    """The images of one set.

    Attributes:
      ids: N, number or path of each.
      labels: N given labels.
      true_labels: N; None where nothing is known.
      contents: N; of images in memory 64 bits of the SHA-256 of the pixels, of
        streamed ones the size of the file, which is not opened.
    """

    ids: Sequence[int | str]
    labels: Sequence[int]
    true_labels: Sequence[int] | None
    contents: Sequence[int]

    def named(self, class_names: Sequence[str]) -> "dict[int | str, _Image]":
        """The images by id, their labels as names of classes."""
        names = {
            UNKNOWN: "unknown",
            WRONG: "wrong",
            **dict(enumerate(class_names)),
        }
        true = self.true_labels or [UNKNOWN] * len(self.ids)
        rows = zip(self.ids, self.labels, true, self.contents, strict=True)
        return {
            key: _Image(names[label], names[truth], content)
            for key, label, truth, content in rows
        }


@dataclasses.dataclass(frozen=True)
class _Image:
    """One image as a person compares it."""

    label: str
    true_label: str
    content: int


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """The fingerprint of a loaded data set.

    Attributes:
      class_names: C names.
      test_kind: see ``records.Dataset``.
      sets: ``train``, ``test`` and further test sets by name.
    """

    class_names: Sequence[str]
    test_kind: str
    sets: Mapping[str, Rows]

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) of everything."""
        return _sha256(self.as_json())

    @functools.cached_property
    def train_sha256(self) -> str:
        """SHA-256 (hex) of the class names and the training set."""
        return _sha256([self.class_names, vars(self.sets["train"])])

    def as_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        # dataclasses.asdict would copy every number.
        return {
            "class_names": self.class_names,
            "test_kind": self.test_kind,
            "sets": {name: vars(rows) for name, rows in self.sets.items()},
        }


def of_dataset(dataset: Dataset) -> Fingerprint:
    """The fingerprint of what a run trains on and is measured with.

    Args:
      dataset: as loaded, after long tail and noise.

    Returns:
      The fingerprint; equal for equal data on every machine.
    """
    sets = {"train": dataset.train, **dataset.tests}
    return Fingerprint(
        list(dataset.class_names),
        dataset.test_kind,
        {name: _rows(split) for name, split in sets.items()},
    )


def from_json(content: Any) -> Fingerprint | None:
    """The inverse of ``Fingerprint.as_json``.

    Args:
      content: of a JSON file.

    Returns:
      The fingerprint; None where the content is of another kind.
    """
    try:
        sets = {name: Rows(**rows) for name, rows in content["sets"].items()}
        return Fingerprint(**content | {"sets": sets})
    except (AttributeError, KeyError, TypeError):
        return None


def of_source(source: Source) -> str:
    """SHA-256 (hex) by which a list of labels knows the set it is made for.

    Of class names and ids of the whole training set; numbers alone tell
    nothing, so that the labels of the files count where they are the ids.

    Args:
      source: the data set as it is stored.
    """
    train = source.train
    numbers = train.ids.dtype.kind in "iu"
    labels = train.labels.tolist() if numbers else None
    return _sha256([source.class_names, train.ids.tolist(), labels])


def difference(old: Fingerprint, new: Fingerprint) -> str:
    """What has changed, with counts and the first image of each kind.

    Args:
      old: of the data a run was trained on.
      new: of the data as they are now.

    Returns:
      One line for a message; '' where nothing has changed.
    """
    found = [_classes_changed(old.class_names, new.class_names)]
    before, after = dict(old.sets), dict(new.sets)
    if old.test_kind == new.test_kind != "test":
        # Parts of one pool, which are drawn anew wherever it changes.
        for sets in (before, after):
            sets["train"] = _joined(sets["train"], sets.pop("test"))
    elif old.test_kind != new.test_kind:
        found.append(f"the test set was {old.test_kind}, is {new.test_kind}")
        del before["test"], after["test"]
    for name in before | after:
        if name not in before or name not in after:
            state = "is new" if name in after else "is gone"
            found.append(f"the set {name} {state}")
            continue
        title = "" if name == "train" else f"{name}: "
        changes = _rows_changed(
            before[name], after[name], old.class_names, new.class_names
        )
        found += [title + change for change in changes]
    if not any(found) and old.sets != new.sets:
        found.append("the images are in another order or in other parts")
    return "; ".join(filter(None, found))


def _classes_changed(old: Sequence[str], new: Sequence[str]) -> str:
    """What has changed of the class names; '' for nothing."""
    if list(old) == list(new):
        return ""
    if len(old) != len(new):
        gone = [f"{name} is gone" for name in old if name not in set(new)]
        come = [f"{name} is new" for name in new if name not in set(old)]
        first = (gone + come)[0]
        return f"{len(old)} classes -> {len(new)}, first: {first}"
    pairs = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    what = "class names changed"
    if sorted(old) == sorted(new):
        what = "classes changed their places"
    return f"{len(pairs)} {what}, first: {pairs[0][0]} -> {pairs[0][1]}"


def _rows_changed(
    old: Rows,
    new: Rows,
    old_names: Sequence[str],
    new_names: Sequence[str],
) -> list[str]:
    """What has changed in one set."""
    before, after = old.named(old_names), new.named(new_names)
    gone = [key for key in before if key not in after]
    come = [key for key in after if key not in before]
    common = [key for key in before if key in after]
    found = []
    for keys, words in ((gone, "gone"), (come, "new")):
        if keys:
            found.append(f"{_count(keys, 'image')} {words}, first: {keys[0]}")

    def compare(what: str, value: Callable[[_Image], Any], shown: bool) -> None:
        keys = [k for k in common if value(before[k]) != value(after[k])]
        if keys:
            first = before[keys[0]], after[keys[0]]
            change = f", {value(first[0])} -> {value(first[1])}" * shown
            found.append(
                f"{_count(keys, what)} changed, first: {keys[0]}{change}"
            )

    compare("label", lambda image: image.label, True)
    compare("true label", lambda image: image.true_label, True)
    compare("image", lambda image: image.content, False)
    return found


def _count(keys: Sequence[Any], what: str) -> str:
    return f"{len(keys)} {what}{'s' * (len(keys) > 1)}"


def _joined(one: Rows, other: Rows) -> Rows:
    """The images of two parts of one pool, by id as order tells nothing."""
    true = None
    if one.true_labels is not None and other.true_labels is not None:
        true = [*one.true_labels, *other.true_labels]
    return Rows(
        [*one.ids, *other.ids],
        [*one.labels, *other.labels],
        true,
        [*one.contents, *other.contents],
    )


def _rows(split: Split) -> Rows:
    true = split.true_labels
    return Rows(
        split.ids.tolist(),
        split.labels.tolist(),
        None if true is None else true.tolist(),
        _contents(split.images),
    )


def _contents(images: Any) -> list[int]:
    """See ``Rows.contents``."""
    if not isinstance(images, CutImages):
        return [
            int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:8], "big")
            for image in images
        ]
    root, paths = str(images.files.root), images.files.paths.tolist()

    def sizes(start: int) -> list[int]:
        places = paths[start : start + _CHUNK]
        return [_size(os.path.join(root, place)) for place in places]

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        chunks = pool.map(sizes, range(0, len(paths), _CHUNK))
        return [size for chunk in chunks for size in chunk]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return MISSING


def _sha256(content: Any) -> str:
    # JSON without spaces: the bytes are the same on every machine.
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
