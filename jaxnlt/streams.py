"""Host-side streams of row numbers: which images a step sees.

The last batch of an epoch is filled with the epoch's first rows, so that every
step has the same shape: steps = ceil(n / B).
"""

import numpy as np


def one_pass(index: np.ndarray, batch_size: int, rng) -> np.ndarray:
    """One shuffled pass over the rows, wrapped to whole batches.

    Args:
      index: int[n] rows, n > 0.
      batch_size: rows a step.
      rng: numpy Generator.

    Returns:
      int32[ceil(n / batch_size), batch_size].
    """
    order = rng.permutation(index)
    steps = -(-len(order) // batch_size)
    return np.resize(order, (steps, batch_size)).astype(np.int32)


def cycle(index: np.ndarray, steps: int, batch_size: int, rng) -> np.ndarray:
    """Shuffled passes one after the other until `steps` batches are full.

    Args:
      index: int[n] rows, n > 0.
      steps: batches wanted.
      batch_size: rows a step.
      rng: numpy Generator.

    Returns:
      int32[steps, batch_size].
    """
    wanted = steps * batch_size
    passes = [rng.permutation(index) for _ in range(-(-wanted // len(index)))]
    rows = np.concatenate(passes)[:wanted]
    return rows.reshape(steps, batch_size).astype(np.int32)
