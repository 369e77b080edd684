"""Cleaned copies of a training set, and the list of what changed in them."""

import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from jaxnlt.clean.originals import Arrays, Files
from jaxnlt.clean.verdicts import Verdicts
from jaxnlt.data import cells, decisions, decode, listing
from jaxnlt.runtime.files import atomic

CHANGES, LABELS, NPZ = "changes.csv", "labels.csv", "data.npz"
# Bytes of the longest name that the usual file systems take, and of what is
# added to one that is taken.
_LONGEST, _ROOM = 255, 12


def write_changes(
    path: pathlib.Path, verdicts: Verdicts, labels: np.ndarray
) -> None:
    """Writes what changes, as ``decisions`` that ``--review`` takes back.

    Args:
      path: the file.
      verdicts: N of them.
      labels: objects [N], the new labels, None for an image that goes.
    """
    changed = np.flatnonzero(labels != verdicts.given)
    with atomic(path) as file:
        cells.write(
            file,
            [
                (
                    verdicts.id_column,
                    "given_label",
                    "new_label",
                    "action",
                    "label_quality",
                    "clean_probability",
                    "issue_kind",
                )
            ],
        )
        cells.write(
            file,
            (
                (
                    key,
                    given,
                    new or "",
                    decisions.DROP if new is None else decisions.RELABEL,
                    _digits(quality),
                    _digits(clean),
                    kind,
                )
                for key, given, new, quality, clean, kind in zip(
                    verdicts.ids[changed].tolist(),
                    verdicts.given[changed],
                    labels[changed],
                    verdicts.quality[changed].tolist(),
                    verdicts.clean_probability[changed].tolist(),
                    verdicts.kind[changed],
                    strict=True,
                )
            ),
        )


def _kept(verdicts: Verdicts, labels: np.ndarray) -> np.ndarray:
    """Rows of the images that stay, by index or path."""
    order = np.argsort(verdicts.ids, kind="stable")
    return order[[label is not None for label in labels[order]]]


def _digits(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"


def write_npz(
    folder: pathlib.Path,
    originals: Arrays,
    verdicts: Verdicts,
    labels: np.ndarray,
    class_names: Sequence[str],
) -> None:
    """Writes data.npz, and labels.csv with the index that each row had.

    Args:
      folder: where both go.
      originals: the arrays.
      verdicts: N of them.
      labels: objects [N], the new labels, None for an image that goes.
      class_names: C names, a label is the place of its class among them.
    """
    order = _kept(verdicts, labels)
    codes = {name: k for k, name in enumerate(class_names)}
    ids = verdicts.ids[order].tolist()
    rows = np.array([originals.ids[key] for key in ids], np.int64)
    kept = {name: array[rows] for name, array in originals.rows.items()}
    kind = originals.rows["train_labels"].dtype
    kept["train_labels"] = np.array([codes[n] for n in labels[order]], kind)
    with atomic(folder / NPZ, binary=True) as file:
        np.savez(file, **kept, **originals.others)  # type: ignore[arg-type]
    more = {name: column[order] for name, column in verdicts.more.items()}
    with atomic(folder / LABELS) as file:
        cells.write(file, [("index", "label", *more)])
        cells.write(file, zip(ids, labels[order], *more.values(), strict=True))


def write_folder(
    folder: pathlib.Path,
    originals: Files,
    verdicts: Verdicts,
    labels: np.ndarray,
    copy: bool,
) -> str:
    """Writes train/CLASS/, test/CLASS/, and labels.csv that lists train.

    Args:
      folder: where they go.
      originals: the files.
      verdicts: N of them.
      labels: objects [N], the new labels, None for an image that goes.
      copy: whether files are copied; else they are linked where the file
        system can.

    Returns:
      How the files got there: ``hard links``, ``links`` or ``copies``.
    """
    place = _Placer(copy)
    order = _kept(verdicts, labels)
    # What keeps its class keeps its name.
    moved = labels[order] != verdicts.given[order]
    names = _Names(originals.class_names)
    paths: dict[str, str] = {}
    for rows in (order[~moved], order[moved]):
        for row in rows:
            key = verdicts.ids[row]
            new = names.of("train", labels[row], key)
            place(originals.root / key, folder / new)
            paths[key] = new
    if originals.test is not None:
        test = originals.test
        for key, code in zip(test.ids.tolist(), test.labels, strict=True):
            new = names.of("test", originals.class_names[code], key)
            place(originals.root / key, folder / new)
    more = {name: column[order] for name, column in verdicts.more.items()}
    keys = verdicts.ids[order].tolist()
    with atomic(folder / LABELS) as file:
        cells.write(file, [("path", "label", *more, "original_path")])
        cells.write(
            file,
            zip(
                (paths[key] for key in keys),
                labels[order],
                *more.values(),
                keys,
                strict=True,
            ),
        )
    return place.how


class _Placer:
    """Brings files to other places, always in the cheapest way that works.

    Args:
      copy: whether they are copied from the start.

    Attributes:
      how: in words, what was done last.
    """

    def __init__(self, copy: bool) -> None:
        self._ways: list[tuple[str, Callable[[str, str], object]]] = [
            ("hard links", os.link),
            ("links", os.symlink),
            ("copies", shutil.copy2),
        ]
        if copy:
            self._ways = self._ways[-1:]

    @property
    def how(self) -> str:
        return self._ways[0][0]

    def __call__(self, file: pathlib.Path, new: pathlib.Path) -> None:
        # A link would lead nowhere from the new place.
        source = os.path.realpath(file)
        new.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                self._ways[0][1](source, str(new))
                return
            except OSError:
                # Other file systems, or files of somebody else.
                if len(self._ways) == 1:
                    raise
                del self._ways[0]


class _Names:
    """Names of files in a copy, each once, upper and lower case alike.

    Args:
      classes: all names of classes.
    """

    def __init__(self, classes: Iterable[str]) -> None:
        names = list(classes)
        mark = "class"
        while any(name.startswith(f"{mark} ") for name in names):
            mark += "_"
        self._folders = {
            name: name if usable(name) else f"{mark} {k}"
            for k, name in enumerate(names)
        }
        self._taken: set[str] = set()

    def of(self, part: str, label: str, path: str) -> str:
        """A path that has not been given out.

        Args:
          part: ``train`` or ``test``.
          label: name of the class.
          path: of the original.

        Returns:
          ``part/CLASS/NAME``, without the folders of part and class that the
          original stood in.
        """
        parts = [p for p in path.split("/") if p not in ("", ".", "..")]
        if len(parts) > 2 and parts[0] == part:
            parts = parts[2:]
        # Hidden ones would be passed over.
        parts = [f"_{p}" if listing.passed_over(p) else p for p in parts]
        stem, ending = os.path.splitext(parts.pop())
        above = "/".join([part, self._folders[label], *parts])
        number = 1
        while True:
            extra = f" ({number})" if number > 1 else ""
            found = f"{above}/{_cut(stem)}{extra}{ending}"
            if found.casefold() not in self._taken:
                self._taken.add(found.casefold())
                return found
            number += 1


def _cut(stem: str) -> str:
    """A name with room for an ending and a number."""
    room = _LONGEST - _ROOM - max(map(len, decode.SUFFIXES))
    return stem.encode()[:room].decode(errors="ignore")


def usable(name: str) -> bool:
    """Whether a folder may have the name of a class and be found by it.

    Args:
      name: of the class.
    """
    return (
        "/" not in name
        and "\0" not in name
        and not listing.passed_over(name)
        and len(name.encode()) <= _LONGEST
    )
