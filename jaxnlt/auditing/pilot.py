"""Out-of-sample probabilities of simple classifiers, before any training."""

import warnings
from collections.abc import Callable

import numpy as np
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline

# Principal components that nearest neighbours are sought in.
_COMPONENTS = 30
# Of 5, 10, 15, weighed or not, the best or nearly so on digits, split=dev.
_NEIGHBOURS = 10


def knn(dimensions: int) -> Pipeline:
    """Nearest neighbours in at most 30 principal components, by distance."""
    return make_pipeline(
        PCA(min(_COMPONENTS, dimensions), random_state=0),
        KNeighborsClassifier(_NEIGHBOURS, weights="distance"),
    )


def out_of_sample(
    make: Callable[[int], Pipeline],
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    seed: int,
    folds: int = 5,
) -> np.ndarray:
    """Probabilities of every sample by a classifier that has not seen it.

    Args:
      make: dimensions of the features -> classifier.
      features: float [N, D], of comparable units.
      labels: int [N] given labels.
      classes: C.
      seed: of the stratified folds.
      folds: their number.

    Returns:
      float [N, C]; 0 for a class without samples.
    """
    # A component cannot outnumber the samples that it is computed from.
    dimensions = min(features.shape[1], len(labels) * (folds - 1) // folds)
    with warnings.catch_warnings():
        # Of classes with fewer samples than folds.
        warnings.simplefilter("ignore")
        found = cross_val_predict(
            make(dimensions),
            features,
            labels,
            cv=StratifiedKFold(folds, shuffle=True, random_state=seed),
            method="predict_proba",
        )
    probs = np.zeros((len(labels), classes))
    probs[:, np.unique(labels)] = found
    return probs
