"""Arrays of the user's as a run reads them."""

from typing import Any, NamedTuple

import numpy as np

from jaxnlt.api.errors import ArgumentError


class Classes(NamedTuple):
    """The classes of a training set.

    Attributes:
      values: [C], sorted, as the user writes them.
      names: C texts, by which a run's files name them.
    """

    values: np.ndarray
    names: tuple[str, ...]


def images(values: Any, argument: str) -> np.ndarray:
    """Images, or rows of features, in the type that is trained on.

    Args:
      values: integers in [0, 255] of shape [N, H, W, C] or [N, H, W], or
        features [N, D] of any real type.
      argument: their name, for messages.

    Returns:
      uint8 [N, H, W, C] or float32 [N, D].

    Raises:
      ArgumentError: another type, shape or range.
    """
    found = np.asarray(values)
    if found.ndim not in (2, 3, 4) or found.dtype.kind not in "biuf":
        raise ArgumentError(
            f"{argument}: must be images, uint8 [N, H, W, C] or [N, H, W], or "
            f"features, float [N, D]; is {_shown(found)}"
        )
    if not found.size:
        raise ArgumentError(f"{argument}: is empty, {_shown(found)}")
    if found.ndim == 2:
        with np.errstate(over="ignore"):
            rows = found.astype(np.float32, copy=False)
        bad = np.flatnonzero(~np.isfinite(rows).all(1))
        if len(bad):
            raise ArgumentError(
                f"{argument}: row {bad[0]} holds a number that is not finite "
                f"in 32 bits; {len(bad)} rows do, leave them out"
            )
        return rows
    if found.ndim == 3:
        found = found[..., None]
    if found.dtype == np.uint8:
        return found
    if found.dtype.kind == "f":
        # 0 to 1, 0 to 255, standardised: a guess may be wrong for new images.
        raise ArgumentError(
            f"{argument}: images must be uint8, are {_shown(found)}; of values "
            "in [0, 1] take (255 * x).round().astype('uint8')"
        )
    low, high = int(found.min()), int(found.max())
    if low < 0 or high > 255:
        raise ArgumentError(
            f"{argument}: images must lie in [0, 255], reach from {low} to "
            f"{high}"
        )
    return found.astype(np.uint8)


def classes(labels: Any, argument: str) -> tuple[np.ndarray, Classes]:
    """The classes among labels, and the labels as their numbers.

    Args:
      labels: [N] numbers or texts.
      argument: their name, for messages.

    Returns:
      int32 [N], and the C classes.

    Raises:
      ArgumentError: no labels, of another shape, not comparable with each
        other, missing, or that no file can hold.
    """
    found = _flat(labels, argument)
    try:
        values, numbers = np.unique(found, return_inverse=True)
    except TypeError:
        kinds = sorted({type(value).__name__ for value in found.tolist()})
        raise ArgumentError(
            f"{argument}: mix {' and '.join(kinds)}; use one type for all"
        ) from None
    names = tuple(map(str, values.tolist()))
    for name in names:
        if name in ("", "nan", "None") or not name.isprintable():
            raise ArgumentError(
                f"{argument}: {name!r} names no class; give every image a "
                "label, without control characters"
            )
    if len(set(names)) < len(names):
        raise ArgumentError(
            f"{argument}: two classes are written alike; use one type for all"
        )
    return numbers.astype(np.int32), Classes(values, names)


def numbers(labels: Any, known: Classes, argument: str) -> np.ndarray:
    """Labels as the numbers of known classes.

    Args:
      labels: [N] of the values in ``known``.
      known: the classes of the training set.
      argument: name of the labels, for messages.

    Returns:
      int32 [N].

    Raises:
      ArgumentError: a label of no class.
    """
    found = _flat(labels, argument)
    rows = {value: k for k, value in enumerate(known.values.tolist())}
    for value in found.tolist():
        if value not in rows:
            raise ArgumentError(
                f"{argument}: {value!r} is no class of the training labels, "
                f"{', '.join(known.names[:10])}"
            )
    return np.array([rows[value] for value in found.tolist()], np.int32)


def _flat(labels: Any, argument: str) -> np.ndarray:
    found = np.asarray(labels)
    if found.ndim != 1 or not len(found):
        raise ArgumentError(
            f"{argument}: must be one label an image, [N], is {_shown(found)}"
        )
    return found


def _shown(array: np.ndarray) -> str:
    return f"{array.dtype} of shape {array.shape}"
