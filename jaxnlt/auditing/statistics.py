"""What the vote says of every sample, averaged over the training."""

from typing import NamedTuple

import numpy as np

from jaxnlt import selection


class Statistics(NamedTuple):
    """Sums over epochs, in which the given labels play no part.

    Attributes:
      epochs: int scalar, how many were added.
      probs: float32 [N, C], sum of the probabilities of the vote.
    """

    epochs: np.ndarray
    probs: np.ndarray

    @property
    def mean_probs(self) -> np.ndarray:
        """float64 [N, C]."""
        return self.probs / np.float64(max(int(self.epochs), 1))


def empty(samples: int, classes: int) -> Statistics:
    """Statistics of N samples before the first epoch."""
    zeros = np.zeros((samples, classes), np.float32)
    return Statistics(np.zeros((), np.int64), zeros)


def added(statistics: Statistics, logits: np.ndarray) -> Statistics:
    """The statistics with one epoch more.

    Args:
      statistics: of N samples; not changed.
      logits: float [N, C], mean logits of the vote.

    Returns:
      The new statistics.
    """
    probs = statistics.probs.copy()
    for part in selection.blocks(len(logits)):
        probs[part] += selection.softmax(logits[part])
    return Statistics(statistics.epochs + 1, probs)
