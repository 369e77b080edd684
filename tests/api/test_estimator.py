"""scikit-learn's contract, and the tools that use it."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline

import jaxnlt
from tests.api.conftest import FIELDS


@pytest.fixture(scope="module")
def model(fitted):
    """As trained by ``fit``, whose programs are compiled already."""
    estimator = jaxnlt.NoisyLabelClassifier(**FIELDS)
    return estimator.fit(fitted.images, fitted.labels)


def test_it_is_a_fit(model, fitted):
    assert (model.classes_ == fitted.result.classes_).all()
    wanted = fitted.result.predict_proba(fitted.images)
    np.testing.assert_allclose(model.predict_proba(fitted.images), wanted)
    predicted = model.predict(fitted.images)
    accuracy = (predicted == fitted.labels).mean()
    assert model.score(fitted.images, fitted.labels) == accuracy > 0.5
    again = pickle.loads(pickle.dumps(model))
    assert (again.predict(fitted.images) == predicted).all()
    assert len(model.result_.labels["index"]) == 90


def test_parameters():
    model = jaxnlt.NoisyLabelClassifier(method="sfa", model__width=4)
    copy = clone(model).set_params(epochs=3, sfa__seed=1, model__width=8)
    wanted = {"method": "sfa", "epochs": 3, "seed": 0, "workdir": None}
    wanted |= {"verbose": False, "model__width": 8, "sfa__seed": 1}
    assert copy.get_params() == wanted
    assert model.get_params()["model__width"] == 4
    assert "model__width=8" in repr(copy)
    inside = make_pipeline(copy)
    inside.set_params(noisylabelclassifier__model__width=2)
    assert copy.get_params()["model__width"] == 2


def test_mistakes(arrays):
    images, labels = arrays
    model = jaxnlt.NoisyLabelClassifier(method="erm", modle__width=4)
    with pytest.raises(NotFittedError):
        model.predict(images)
    with pytest.raises(ValueError, match="^modle__width: no such field"):
        model.fit(images, labels)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(images, labels[:5])


@pytest.mark.slow
def test_tools_of_scikit_learn(arrays):
    images, labels = arrays
    model = jaxnlt.NoisyLabelClassifier(**FIELDS)
    probs = cross_val_predict(
        model, images, labels, cv=3, method="predict_proba"
    )
    assert probs.shape == (90, 3)
    assert (np.unique(labels)[probs.argmax(1)] == labels).mean() > 0.5
    grid = [{"loss": ["mixup"]}, {"model__width": [2]}]
    search = GridSearchCV(model, grid, cv=2).fit(images, labels)
    assert search.best_params_ in ({"loss": "mixup"}, {"model__width": 2})
    found = search.cv_results_
    folds = (found["split0_test_score"], found["split1_test_score"])
    assert len(set(zip(*folds, strict=True))) == 2


@pytest.mark.slow
def test_cleanlab_trains_it(arrays):
    cleanlab = pytest.importorskip("cleanlab.classification")
    images, names = arrays
    labels = np.unique(names, return_inverse=True)[1]
    wrong = np.arange(0, 90, 9)
    labels[wrong] = (labels[wrong] + 1) % 3
    # Rounding depends on the machine: trained less, it finds 5 to 9 of 10.
    fields = FIELDS | {"epochs": 20, "model__width": 8}
    model = jaxnlt.NoisyLabelClassifier(**fields)
    cleaner = cleanlab.CleanLearning(model, cv_n_folds=3)
    cleaner.fit(images, labels)
    found = cleaner.get_label_issues()["is_label_issue"]
    assert found[wrong].mean() > 0.5 > found.mean()
    assert len(cleaner.predict(images[:4])) == 4
