"""What the vote says of every sample, averaged over the training."""

from typing import NamedTuple

import numpy as np

from jaxnlt import selection
from jaxnlt.auditing.probabilities import Probabilities


class Statistics(NamedTuple):
    """Sums over epochs, in which the given labels play no part.

    Attributes:
      epochs: int scalar, how many were added.
      probs: float32 [N, C], sum of the probabilities of the vote.
    """

    epochs: np.ndarray
    probs: np.ndarray

    @property
    def mean_probs(self) -> Probabilities:
        """Of N samples and C classes; the sums are not copied."""
        return Probabilities(self.probs, max(int(self.epochs), 1))

    def without(self, lost: np.ndarray) -> "Statistics":
        """The same with NaN for images that cannot be read.

        Args:
          lost: bool [N], which they are.
        """
        lost = lost[:, None]
        return self._replace(probs=np.where(lost, np.nan, self.probs))


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
    for part in selection.row_blocks(logits.shape):
        probs[part] += selection.softmax(logits[part])
    return Statistics(statistics.epochs + 1, probs)
