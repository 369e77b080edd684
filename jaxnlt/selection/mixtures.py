"""Gaussian mixtures of one-dimensional scores, on the host with one thread.

The component with the smaller mean is the clean one.  N samples, C classes.
"""

import functools
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import threadpoolctl
from jaxtyping import Float, Int, Num
from sklearn.mixture import GaussianMixture

from jaxnlt.selection import scores


@functools.cache
def _pools() -> threadpoolctl.ThreadpoolController:
    """The thread pools of the loaded libraries; finding them is slow."""
    return threadpoolctl.ThreadpoolController()


def one_thread() -> AbstractContextManager:
    """A context in which NumPy and scikit-learn compute with one thread.

    For sums over samples with a small result, such as a mixture's: threads
    that share such a sum spend most of their time waiting, and with more than
    two of them the order of scikit-learn's additions varies from run to run.

    Returns:
      The context manager.
    """
    return _pools().limit(limits=1)


def gmm_probability(
    values: Num[np.ndarray, "n"], seed: int = 0, **settings: Any
) -> Float[np.ndarray, "n"]:
    """Posterior of the smaller mean in a two-component Gaussian mixture.

    Args:
      values: [n] losses or distances.
      seed: ``random_state`` of the k-means start.
      **settings: passed to scikit-learn's GaussianMixture.

    Returns:
      float64[n] in [0, 1]; ones if there are fewer than two samples or all
      values are ``alike``.

    Source: ``papers/dividemix_rolt.md`` section 3.2.
    """
    values = np.asarray(values, np.float64).reshape(-1, 1)
    if len(values) < 2 or scores.alike(values):
        return np.ones(len(values))
    mixture = GaussianMixture(2, random_state=seed, **settings)
    with one_thread():
        mixture.fit(values)
        return mixture.predict_proba(values)[:, mixture.means_.argmin()]


def per_class_gmm(
    values: Num[np.ndarray, "N"],
    labels: Int[np.ndarray, "N"],
    num_classes: int,
    seed: int = 0,
) -> Float[np.ndarray, "N"]:
    """``gmm_probability`` fitted to the samples of every given class.

    Args:
      values: [N] losses or distances.
      labels: [N] given labels.
      num_classes: C.
      seed: ``random_state`` of every mixture.

    Returns:
      float64[N] clean probability.

    Source: ``papers/dasc.md`` section 6.1; ``papers/sfa.md`` section 6.
    """
    probability = np.ones(len(values))
    for members in scores.class_rows(labels, num_classes):
        probability[members] = gmm_probability(values[members], seed)
    return probability
