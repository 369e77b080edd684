"""Probabilities of many samples, read block by block.

A verdict looks at all of them several times; a float64 copy of a million
samples with a thousand classes would take 8 GB each time.
"""

import functools
from typing import Any

import numpy as np

from jaxnlt import selection


class Probabilities:
    """Mean probabilities of N samples for C classes, float64 where read.

    Args:
      sums: float [N, C], which is kept and must not change.
      epochs: how many were added up; 1 of probabilities as they are.
    """

    def __init__(self, sums: np.ndarray, epochs: int = 1) -> None:
        self._sums, self._epochs = np.asarray(sums), np.float64(epochs)

    @classmethod
    def of(cls, probs: "np.ndarray | Probabilities") -> "Probabilities":
        """The same, without a copy."""
        return probs if isinstance(probs, cls) else cls(np.asarray(probs))

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C)."""
        return self._sums.shape

    def __len__(self) -> int:
        return len(self._sums)

    def __getitem__(self, index: Any) -> np.ndarray:
        """float64, of what the index is of in an [N, C] array."""
        return self._sums[index] / self._epochs

    def take(self, rows: np.ndarray) -> "Probabilities":
        """Those of the samples in the given rows."""
        return Probabilities(self._sums[rows], int(self._epochs))

    def own(self, classes: np.ndarray) -> np.ndarray:
        """Of every sample the probability of its class, float64 [N].

        Args:
          classes: int [N].
        """
        return self[np.arange(len(self)), classes]

    @functools.cached_property
    def predicted(self) -> np.ndarray:
        """Int64 [N], the most probable class."""
        return self._sums.argmax(-1)

    @functools.cached_property
    def largest(self) -> np.ndarray:
        """float64 [N], its probability."""
        return self.own(self.predicted)

    @functools.cached_property
    def usual(self) -> np.ndarray:
        """float64 [C], the mean of all samples."""
        sums = np.zeros(self.shape[1])
        for part in selection.row_blocks(self.shape):
            sums += self[part].sum(0)
        return sums / len(self)

    def best_other(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The most probable class but the given one.

        Args:
          labels: int [N] given labels.

        Returns:
          float64 [N], its probability, and int64 [N], the class.
        """
        # It is the predicted one wherever that is another.
        classes = self.predicted.copy()
        for part in selection.row_blocks(self.shape):
            agreed = part.start + np.flatnonzero(classes[part] == labels[part])
            others = self._sums[agreed]
            others[np.arange(len(agreed)), labels[agreed]] = -np.inf
            classes[agreed] = others.argmax(-1)
        return self.own(classes), classes
