"""Stratified folds of a training set, each left out of one run."""

from collections.abc import Sequence

import numpy as np

from jaxnlt.runtime.errors import UserError, logger


def assigned(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold that leaves each image out.

    The images of a class, shuffled, are dealt out one by one, the next class
    from where the last one ended: of a class, and of all, no fold leaves out
    more than one image more than another.  A class of two or more keeps an
    image in every training part; a single one stays in all of them.

    Args:
      labels: int [N] given labels.
      folds: K, at least 2.
      seed: of the shuffles.

    Returns:
      int [N] in 1, ..., K; 0 for the only image of its class.

    Raises:
      UserError: more folds than images.
    """
    rng = np.random.RandomState(seed)
    found, dealt = np.zeros(len(labels), np.int64), 0
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) > 1:
            rng.shuffle(members)
            found[members] = (dealt + np.arange(len(members))) % folds + 1
            dealt += len(members)
    if dealt < folds:
        raise UserError(
            f"config.audit: {dealt} images, without those that are alone in "
            f"their class, do not fill {folds} folds; ask for fewer"
        )
    return found


def warn_single(
    labels: np.ndarray, fold_of: np.ndarray, names: Sequence[str]
) -> None:
    """One warning for the classes that no fold leaves out.

    Args:
      labels: int [N] given labels.
      fold_of: what ``assigned`` returned.
      names: of the classes.
    """
    single = [names[k] for k in labels[fold_of == 0]]
    if single:
        logger.warning(
            "%d classes have one training image each, which no fold leaves "
            "out; its probabilities are in-sample: %s",
            len(single),
            ", ".join(single[:10] + ["..."] * (len(single) > 10)),
        )
