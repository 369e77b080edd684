"""scikit-learn's own checks of an estimator, on rows of features."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

import jaxnlt

MODEL = jaxnlt.NoisyLabelClassifier(
    epochs=20, model__width=8, optimizer__learning_rate=0.1
)


@pytest.mark.slow
@parametrize_with_checks([MODEL])
def test_scikit_learn(estimator, check):
    check(estimator)
