"""Resampled streams of row numbers: classes drawn more evenly than they are."""

import numpy as np

from jaxnlt import streams

#: config.*.sampling -> exponent of the class sizes.
EXPONENTS = {"instance": 1.0, "square_root": 0.5, "class_balanced": 0.0}


def class_quota(
    counts: np.ndarray, exponent: float, total: int, rng: np.random.Generator
) -> np.ndarray:
    r"""How many rows each class gives, :math:`\propto n_k^q`, of sum `total`.

    Args:
      counts: int[C] samples a class; an empty class gives none.
      exponent: q; 1 as the data are, 1/2 square-root, 0 class-balanced.
      total: rows wanted.
      rng: decides which classes get the rows that do not divide, each with
        the chance that its share leaves over.

    Returns:
      int64[C].

    Source: Kang et al. 2020, eq. 1.
    """
    share = np.where(counts > 0, np.maximum(counts, 1) ** exponent, 0.0)
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
