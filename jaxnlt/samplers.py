"""Resampled streams of row numbers: classes drawn more evenly than they are."""

import numpy as np

from jaxnlt import streams

#: config.*.sampling -> exponent of the class sizes.
EXPONENTS = {
    "instance": 1.0,
    "square_root": 0.5,
    "class_balanced": 0.0,
    "reversed": -1.0,
}


def class_weights(counts: np.ndarray, exponent: float) -> np.ndarray:
    r"""Weights of the classes, :math:`w_k = (n_k / \max n)^q`.

    Args:
      counts: int[C] samples a class, not all 0; an empty class weighs 0.
      exponent: q; 1 as the data are, 0 class-balanced, -1 reversed.

    Returns:
      float64[C], to be divided by their sum.

    Source: Kang et al. 2020, eq. 1; papers/h2e.md section 3.
    """
    counts = np.asarray(counts)
    share = (counts.max() / np.maximum(counts, 1)) ** -exponent
    return np.where(counts > 0, share, 0.0)


def class_quota(
    counts: np.ndarray, exponent: float, total: int, rng: np.random.Generator
) -> np.ndarray:
    r"""How many rows each class gives, :math:`\propto n_k^q`, of sum `total`.

    Args:
      counts: int[C] samples a class; an empty class gives none.
      exponent: q; 1 as the data are, 1/2 square-root, 0 class-balanced, -1
        reversed.
      total: rows wanted.
      rng: decides which classes get the rows that do not divide, each with
        the chance that its share leaves over.

    Returns:
      int64[C].

    Source: Kang et al. 2020, eq. 1.
    """
    share = class_weights(counts, exponent)
    bounds = np.cumsum(share / share.sum()) * total
    bounds[-1] = total  # whatever the rounding of the sum
    # One shift for all: every class gets its share rounded up or down.
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
    """As many rows as `index` has, classes evened out, wrapped to batches.

    Within a class the rows come in shuffled cycles, so that none comes twice
    before all have come.

    Args:
      index: int[n] rows, n > 0.
      labels: int[N] classes, indexed by row number.
      exponent: of the class sizes, as in `class_quota`.
      batch_size: rows a step.
      rng: numpy Generator.

    Returns:
      int32[ceil(n / batch_size), batch_size].

    Source: papers/dividemix_rolt.md 4.4.  An epoch there has max n_k * C rows;
    here it has n, so that it costs what a plain one costs.
    """
    own = labels[index]
    quota = class_quota(np.bincount(own), exponent, len(index), rng)
    rows = [
        streams.cycle(index[own == c], 1, wanted, rng)[0]
        for c, wanted in enumerate(quota)
        if wanted
    ]
    return streams.one_pass(np.concatenate(rows), batch_size, rng)


def drawn_classes(weights: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    r"""The first class whose cumulative weight reaches :math:`u \sum w`.

    Args:
      weights: [C] of at least 0, not all 0; never gives a class of weight 0.
      uniform: [n] numbers u in [0, 1).

    Returns:
      int64[n].

    Source: papers/h2e.md section 3 (inverse distribution function).
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
    """Rows drawn one by one: a class, then a row of it, all alike.

    Args:
      index: int[n] rows, n > 0.
      labels: int[N] classes, indexed by row number.
      exponent: of the class sizes, as in `class_weights`.
      steps: batches wanted.
      batch_size: rows a step.
      rng: numpy Generator.

    Returns:
      int32[steps, batch_size].

    Source: papers/h2e.md section 3, the reversed (-1) and the balanced (0)
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
    than `group` repeats inside a group.

    Args:
      index: int[n] rows, n > 0.
      labels: int[N] classes, indexed by row number.
      group: rows of a class that follow one another.
      steps: batches wanted; the last group is cut where they are full.
      batch_size: rows a step.
      rng: numpy Generator.

    Returns:
      int32[steps, batch_size].

    Source: papers/h2e.md section 10.
    """
    own = labels[index]
    total = steps * batch_size
    order = streams.cycle(np.unique(own), 1, -(-total // group), rng)[0]
    rows = np.empty((len(order), group), np.int32)
    for c in np.unique(order):
        wanted = order == c
        rows[wanted] = streams.cycle(index[own == c], wanted.sum(), group, rng)
    return rows.reshape(-1)[:total].reshape(steps, batch_size)
