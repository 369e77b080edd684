"""The class-balanced subset that every network draws anew from Clothing1M."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from jaxnlt import streams


class Permutes(Protocol):
    """What is asked of a source of randomness; numpy's Generator has it."""

    def permutation(self, x: np.ndarray, /) -> np.ndarray:
        """The elements of ``x`` in random order."""


def subset(
    labels: np.ndarray, num_classes: int, size: int, rng: Permutes
) -> np.ndarray:
    """Rows of a random subset in which no class is larger than the others.

    All rows are shuffled and walked through; a row is taken while fewer than
    ``size / C`` of its class (not rounded, so a class may reach the next
    whole number) and fewer than ``size`` in all are taken.  What was taken is
    shuffled.  Where classes are too small the subset is smaller than
    ``size``; the authors then fill its losses up with zeros, which the
    mixture takes for clean images, and that is not done here.

    Args:
      labels: int [N], given labels in 0..C-1.
      num_classes: ``C``.
      size: rows wanted.
      rng: source of the two shuffles, one for each network and epoch.

    Returns:
      int64 [at most ``size``], distinct.

    Source: papers/smr.md §14, papers/dividemix_rolt.md §2.2; golden
    smr_clothing_subset.
    """
    order = rng.permutation(np.arange(len(labels)))
    given = labels[order]
    by_class = np.argsort(given, kind="stable")
    counts = np.bincount(given, minlength=num_classes)
    firsts = np.repeat(np.cumsum(counts) - counts, counts)
    # How many of its class stand before each row.
    before = np.empty(len(labels), np.int64)
    before[by_class] = np.arange(len(labels)) - firsts
    taken = order[before < size / num_classes][:size]
    return rng.permutation(taken)


def capped(counts: np.ndarray, size: int) -> np.ndarray:
    """Sizes of the classes in a subset, whatever its draw.

    Args:
      counts: int [C], samples of each class.
      size: rows wanted, as of ``subset``; 0 takes all.

    Returns:
      int [C], to the whole number that a share of ``size`` is rounded up to.
    """
    return np.minimum(counts, -(-size // len(counts))) if size else counts


def pool(labels: np.ndarray, num_classes: int, size: int) -> Callable | None:
    """Rows to select from, as ``methods.base.Phase.pool`` wants it.

    Args:
      labels: int [N], given labels in 0..C-1.
      num_classes: ``C``.
      size: rows wanted; 0 takes all.

    Returns:
      (epoch, network, rng) -> ``subset``; None where all are taken.
    """
    if not size:
        return None
    return lambda epoch, k, rng: subset(labels, num_classes, size, rng)


def stream(
    labels: np.ndarray, num_classes: int, size: int, batch_size: int
) -> Callable:
    """One pass over a subset, as ``methods.base.Phase.streams`` wants it.

    Args:
      labels: int [N], given labels in 0..C-1.
      num_classes: ``C``.
      size: rows wanted.
      batch_size: rows a step.

    Returns:
      (selection, rng) -> {"x": int32 [steps, batch_size]}; the selection,
      which trusts all, is not asked.
    """

    def rows(selection: Any, rng: np.random.Generator):
        drawn = subset(labels, num_classes, size, rng)
        return {"x": streams.one_pass(drawn, batch_size, rng)}

    return rows
