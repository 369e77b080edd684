"""Host-side sample selection: mixtures and centroids in NumPy, float64.

All functions are pure: arrays in, arrays out.  N samples, C classes, D feature
dimensions.
"""

import functools

import numpy as np
import threadpoolctl
from sklearn.mixture import GaussianMixture

from jaxnlt.selection import scores
from jaxnlt.selection.scores import Array


@functools.cache
def _pools() -> threadpoolctl.ThreadpoolController:
    """The thread pools of the loaded libraries, looked for once."""
    return threadpoolctl.ThreadpoolController()


def one_thread():
    """A context in which NumPy and scikit-learn compute with one thread.

    For sums over samples with a small result, mixtures among them: threads
    that share such a sum wait for each other far longer than they compute, and
    in scikit-learn more than two of them add in an order of chance.
    """
    return _pools().limit(limits=1)


def gmm_probability(values: Array, seed: int = 0, **settings) -> Array:
    """Posterior of the smaller-mean half of a two-component Gaussian mixture.

    Args:
      values: [n] losses.
      seed: random_state of the k-means start.
      **settings: passed to scikit-learn's GaussianMixture.

    Returns:
      float64[n] in [0, 1].  Ones where there is nothing to divide: fewer than
      two samples, or all values equal.
    """
    values = np.asarray(values, np.float64).reshape(-1, 1)
    if len(values) < 2 or np.ptp(values) == 0:
        return np.ones(len(values))
    mixture = GaussianMixture(2, random_state=seed, **settings)
    with one_thread():
        mixture.fit(values)
        return mixture.predict_proba(values)[:, mixture.means_.argmin()]


def per_class_gmm(values: Array, labels: Array, num_classes: int, seed=0):
    """`gmm_probability` fitted within every given class by itself.

    Args:
      values: [N] losses.
      labels: [N] given labels.
      num_classes: C.
      seed: random_state of every mixture.

    Returns:
      float64[N] clean probability.

    Source: DaSC section 3.2; sfa.md section 6.
    """
    probability = np.ones(len(values))
    for members in scores.class_rows(labels, num_classes):
        probability[members] = gmm_probability(values[members], seed)
    return probability
