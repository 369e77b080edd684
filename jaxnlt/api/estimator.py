"""``jaxnlt.fit`` as an estimator of scikit-learn."""

import pathlib
from typing import Any, Self

import numpy as np
import sklearn.base
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from jaxnlt.api.fit import fit


class NoisyLabelClassifier(
    sklearn.base.ClassifierMixin, sklearn.base.BaseEstimator
):
    """A classifier that does not learn the wrong ones among its labels.

    It works where scikit-learn's do: in ``cross_val_predict``, in
    ``GridSearchCV`` (over every key and field), in pipelines, and in
    cleanlab's ``CleanLearning``.

    Args:
      method: a config file, such as dasc or erm; None takes dasc for images,
        and erm for features.
      epochs: how many; None takes the default.
      seed: of initialisation, shuffles and augmentation.
      workdir: where the files of a run go; None takes a temporary folder,
        which every fit of a cross-validation needs for its own.
      verbose: prints the lines of every epoch.
      **fields: keys and fields, as ``jaxnlt.fit`` takes them.

    Attributes:
      classes_: [C] labels in the order of the columns of ``predict_proba``.
      n_features_in_: second dimension of X: features, or height of images.
      result_: the ``Result`` of the run, with its verdict on every label.

    Example:
      >>> import jaxnlt
      >>> from sklearn.datasets import load_digits
      >>> X, y = load_digits(return_X_y=True)
      >>> images = (15 * X).astype("uint8").reshape(-1, 8, 8)
      >>> small = {"smoke": True, "model__width": 4, "model__blocks": (1,)}
      >>> model = jaxnlt.NoisyLabelClassifier(method="erm", **small)
      >>> model.fit(images, y).predict_proba(images[:2]).shape
      (2, 10)
    """

    def __init__(
        self,
        method: str | None = None,
        epochs: int | None = None,
        seed: int = 0,
        workdir: str | pathlib.Path | None = None,
        verbose: bool = False,
        **fields: Any,
    ) -> None:
        self.method = method
        self.epochs = epochs
        self.seed = seed
        self.workdir = workdir
        self.verbose = verbose
        self._fields = fields

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments of the constructor, ``fields`` among them.

        Args:
          deep: scikit-learn's; there are no estimators inside.
        """
        return super().get_params(deep) | self._fields

    def set_params(self, **params: Any) -> Self:
        """Sets arguments of the constructor.

        Args:
          **params: by name; what is no argument is a key or a field.

        Returns:
          The estimator.
        """
        own = self._get_param_names()
        for name, value in params.items():
            if name in own:
                setattr(self, name, value)
            else:
                self._fields = self._fields | {name: value}
        return self

    def fit(self, X: Any, y: Any) -> Self:
        """Trains, see ``jaxnlt.fit``.

        Args:
          X: features, real [N, D]; or images, integers of [0, 255] of shape
            [N, H, W] or [N, H, W, C].
          y: [N] labels, numbers or texts.

        Returns:
          The estimator.

        Raises:
          ValueError: wrong arguments.
        """
        X, y = validate_data(self, X, y, allow_nd=True)
        check_classification_targets(y)
        self.result_ = fit(
            X,
            y,
            self.method,
            workdir=self.workdir,
            epochs=self.epochs,
            verbose=self.verbose,
            seed=self.seed,
            **self._fields,
        )
        self.classes_ = self.result_.classes_
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes.

        Args:
          X: as in ``fit``, of the same shape but for N.

        Returns:
          float [N, C], in the order of ``classes_``.

        Raises:
          NotFittedError: before ``fit``.
          ValueError: another shape.
        """
        check_is_fitted(self)
        X = validate_data(self, X, allow_nd=True, reset=False)
        return self.result_.predict_proba(X)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row.

        Args:
          X: as in ``predict_proba``.

        Returns:
          [N] of ``classes_``.
        """
        probs = self.predict_proba(X)
        return self.classes_[probs.argmax(1)]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags
