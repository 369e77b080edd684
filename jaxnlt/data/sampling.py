"""Streams of row numbers: which images the steps of an epoch read.

A stream is int32 [steps, batch_size].  Plain streams pass over all rows;
resampled ones draw the classes more evenly than they are; a balanced subset
takes equally many rows of each class.
"""

from typing import Literal, Protocol

import numpy as np

#: Values of ``config.*.sampling``, and the exponents of the class sizes.
EXPONENTS = {
    "instance": 1.0,
    "square_root": 0.5,
    "class_balanced": 0.0,
    "reversed": -1.0,
}


#: What becomes of the rows of a pass that do not fill a batch.
LastBatch = Literal["filled", "dropped"]


class Permutes(Protocol):
    """A source of random orders, such as numpy's Generator."""

    def permutation(self, x: np.ndarray, /) -> np.ndarray:
        """The elements of ``x`` in random order."""


# Passes over the rows --------------------------------------------------------


def one_pass(
    index: np.ndarray,
    batch_size: int,
    rng: np.random.Generator,
    last: LastBatch = "filled",
) -> np.ndarray:
    """One shuffled pass over the rows, in whole batches.

    Args:
      index: int [n] rows, n > 0.
      batch_size: rows a step.
      rng: source of the draws.
      last: whether a short last batch is filled from the start of the pass or
        dropped; a pass that is shorter than a batch is filled.

    Returns:
      int32 [ceil(n / batch_size), batch_size], or floor.
    """
    order = rng.permutation(index)
    steps = -(-len(order) // batch_size)
    if last == "dropped":
        steps = max(1, len(order) // batch_size)
    return np.resize(order, (steps, batch_size)).astype(np.int32)


def cycle(
    index: np.ndarray,
    steps: int,
    batch_size: int,
    rng: np.random.Generator,
    last: LastBatch = "filled",
) -> np.ndarray:
    """Shuffled passes one after the other until ``steps`` batches are full.

    Args:
      index: int [n] rows, n > 0.
      steps: batches wanted.
      batch_size: rows a step.
      rng: source of the draws.
      last: ``dropped`` leaves out the rows of every pass that do not fill a
        batch.

    Returns:
      int32 [steps, batch_size].
    """
    wanted, length = steps * batch_size, len(index)
    if last == "dropped" and length > batch_size:
        length -= length % batch_size
    passes = [
        rng.permutation(index)[:length] for _ in range(-(-wanted // length))
    ]
    rows = np.concatenate(passes)[:wanted]
    return rows.reshape(steps, batch_size).astype(np.int32)


# Resampled classes -----------------------------------------------------------


def class_weights(counts: np.ndarray, exponent: float) -> np.ndarray:
    r"""Weights of the classes, :math:`w_k = (n_k / \max n)^q`.

    Args:
      counts: int [C], samples of each class, not all 0; an empty class has
        weight 0.
      exponent: q; 1 as the data are, 0 class-balanced, -1 reversed.

    Returns:
      float64 [C], to be divided by their sum.

    Source: Kang et al. 2020, eq. 1; ``papers/h2e.md`` section 3.
    """
    counts = np.asarray(counts)
    share = (counts.max() / np.maximum(counts, 1)) ** -exponent
    return np.where(counts > 0, share, 0.0)


def class_quota(
    counts: np.ndarray, exponent: float, total: int, rng: np.random.Generator
) -> np.ndarray:
    r"""Rows that each class gives, :math:`\propto n_k^q`, ``total`` in all.

    Args:
      counts: int [C], samples of each class; an empty class gives none.
      exponent: q; 1 as the data are, 1/2 square-root, 0 class-balanced, -1
        reversed.
      total: rows wanted.
      rng: decides which classes get one of the rows that remain, each with the
        probability of the fraction of its share.

    Returns:
      int64 [C].

    Source: Kang et al. 2020, eq. 1.
    """
    share = class_weights(counts, exponent)
    bounds = np.cumsum(share / share.sum()) * total
    bounds[-1] = total  # whatever the rounding of the sum
    # One shift for all, so that each share is rounded up or down.
    edges = np.floor(bounds + rng.random()).astype(np.int64)
    edges[-1] = total
    edges[np.flatnonzero(counts)[-1] :] = total
    return np.diff(edges, prepend=0)


def resampled(
    index: np.ndarray,
    labels: np.ndarray,
    exponent: float,
    batch_size: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """As many rows as ``index`` has, of classes drawn more evenly.

    Within a class the rows come in shuffled cycles, so that none is repeated
    before all have come.  The last batch is filled up from the start.

    Args:
      index: int [n] rows, n > 0.
      labels: int [N] classes, indexed by row number.
      exponent: of the class sizes, as in ``class_quota``.
      batch_size: rows a step.
      rng: source of the draws.

    Returns:
      int32 [ceil(n / batch_size), batch_size].

    Source: ``papers/dividemix_rolt.md`` section 4.4.  An epoch there has max
    n_k * C rows; here it has n, so that it costs what a plain one costs.
    """
    own = labels[index]
    quota = class_quota(np.bincount(own), exponent, len(index), rng)
    rows = [
        cycle(index[own == c], 1, wanted, rng)[0]
        for c, wanted in enumerate(quota)
        if wanted
    ]
    return one_pass(np.concatenate(rows), batch_size, rng)


def drawn_classes(weights: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    r"""The first class whose cumulative weight reaches :math:`u \sum w`.

    Args:
      weights: [C] of at least 0, not all 0; never gives a class of weight 0.
      uniform: [n] numbers u in [0, 1).

    Returns:
      int64 [n].

    Source: ``papers/h2e.md`` section 3 (inverse distribution function).
    """
    possible = np.flatnonzero(weights)
    reached = np.cumsum(weights[possible])
    return possible[np.searchsorted(reached, uniform * reached[-1])]


def independent(
    index: np.ndarray,
    labels: np.ndarray,
    exponent: float,
    steps: int,
    batch_size: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draws rows one by one: a class, then one of its rows uniformly.

    Args:
      index: int [n] rows, n > 0.
      labels: int [N] classes, indexed by row number.
      exponent: of the class sizes, as in ``class_weights``.
      steps: batches wanted.
      batch_size: rows a step.
      rng: source of the draws.

    Returns:
      int32 [steps, batch_size].

    Source: ``papers/h2e.md`` section 3, the reversed (-1) and the balanced (0)
    environment.
    """
    own = labels[index]
    counts = np.bincount(own)
    by_class = index[np.argsort(own, kind="stable")]
    first = np.cumsum(counts) - counts
    total = steps * batch_size
    weights = class_weights(counts, exponent)
    classes = drawn_classes(weights, rng.random(total))
    rows = by_class[first[classes] + rng.integers(counts[classes])]
    return rows.reshape(steps, batch_size).astype(np.int32)


def class_aware(
    index: np.ndarray,
    labels: np.ndarray,
    group: int,
    steps: int,
    batch_size: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Groups of rows of one class, the classes in shuffled cycles.

    Within a class the rows come in shuffled cycles too; one with fewer rows
    than ``group`` repeats inside a group.

    Args:
      index: int [n] rows, n > 0.
      labels: int [N] classes, indexed by row number.
      group: rows of a class that follow one another.
      steps: batches wanted; the last group is cut where they are full.
      batch_size: rows a step.
      rng: source of the draws.

    Returns:
      int32 [steps, batch_size].

    Source: ``papers/h2e.md`` section 10.
    """
    own = labels[index]
    total = steps * batch_size
    order = cycle(np.unique(own), 1, -(-total // group), rng)[0]
    rows = np.empty((len(order), group), np.int32)
    for c in np.unique(order):
        wanted = order == c
        rows[wanted] = cycle(index[own == c], wanted.sum(), group, rng)
    return rows.reshape(-1)[:total].reshape(steps, batch_size)


# A balanced subset -----------------------------------------------------------


def balanced_subset(
    labels: np.ndarray, num_classes: int, size: int, rng: Permutes
) -> np.ndarray:
    """Draws a random subset in which no class is larger than the others.

    All rows are shuffled and passed through in order; a row is taken while
    fewer than ``size / C`` of its class (not rounded, so a class may reach the
    next whole number) and fewer than ``size`` in all are taken.  The rows
    taken are shuffled again.  Where classes are too small, the subset is
    smaller than ``size``.  (The authors then pad its losses with zeros, which
    the mixture takes for clean images; here they are not padded.)

    Args:
      labels: int [N], given labels in 0..C-1.
      num_classes: C.
      size: rows wanted.
      rng: source of the two shuffles, one for each network and epoch.

    Returns:
      int64 [at most ``size``], distinct.

    Source: ``papers/smr.md`` section 14, ``papers/dividemix_rolt.md`` section
    2.2; golden smr_clothing_subset.
    """
    order = rng.permutation(np.arange(len(labels)))
    given = labels[order]
    by_class = np.argsort(given, kind="stable")
    counts = np.bincount(given, minlength=num_classes)
    firsts = np.repeat(np.cumsum(counts) - counts, counts)
    # How many rows of its class come before each row.
    before = np.empty(len(labels), np.int64)
    before[by_class] = np.arange(len(labels)) - firsts
    taken = order[before < size / num_classes][:size]
    return rng.permutation(taken)


def balanced_counts(counts: np.ndarray, size: int) -> np.ndarray:
    """Class sizes of a balanced subset, whichever rows are drawn.

    Args:
      counts: int [C], samples of each class.
      size: rows wanted, see ``balanced_subset``; 0 takes all.

    Returns:
      int [C], at most ``size / C`` rounded up.
    """
    return np.minimum(counts, -(-size // len(counts))) if size else counts
