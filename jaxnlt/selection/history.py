"""Losses of the last selections, and their mean."""

from typing import NamedTuple

import numpy as np

from jaxnlt.selection import scores


class LossHistory(NamedTuple):
    """What a selector keeps of the losses.

    Attributes:
      losses: float64 [h, N] normalised losses of the last selections, oldest
        first; [0, 0] before the first one.
    """

    losses: np.ndarray


def mean_losses(
    logits: np.ndarray, labels: np.ndarray, memory: LossHistory, latest: int
) -> tuple[np.ndarray, LossHistory]:
    """Mean of the normalised losses of the last selections, this one included.

    Args:
      logits: [N, C].
      labels: [N] given labels.
      memory: losses of the selections before.
      latest: of how many selections the mean is taken, fewer at the start.

    Returns:
      float64 [N] in [0, 1], and the memory to keep.

    Source: DivideMix appendix A; ``papers/dividemix_rolt.md`` section 3.2.
    """
    losses_now = scores.min_max(scores.cross_entropy(logits, labels))
    history = np.stack([*memory.losses, losses_now])[-latest:]
    # The oldest of a full history leaves before the next one comes.
    kept = history[max(0, len(history) + 1 - latest) :]
    return history.mean(0), LossHistory(kept)
