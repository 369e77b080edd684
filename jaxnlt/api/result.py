"""What a finished run says, and its networks, in Python."""

import importlib
import pathlib
import tempfile
from typing import Any

import numpy as np

from jaxnlt.api import arrays
from jaxnlt.api.errors import ArgumentError, naming_arguments
from jaxnlt.predict import Networks, in_memory
from jaxnlt.results import files, summary
from jaxnlt.results import labels as labels_csv
from jaxnlt.results.files import Record

# Columns of labels.csv that hold names of classes.
_NAMES = ("given_label", "predicted_label", "suggested_label", "true_label")


class Result:
    """A finished run: figures, verdicts on the labels, and networks that vote.

    It can be pickled, networks included; the files of its workdir stay where
    they are.

    Args:
      workdir: its folder, of ``jaxnlt.fit`` or of any command.
      classes: [C] labels that ``predict`` returns, in the order of the class
        names; None takes the names.
      temporary: the folder, if it shall be deleted with the result.

    Attributes:
      workdir: its folder.
      classes_: [C] labels in the order of the columns of ``predict_proba``.
      summary: summary.json.
      metrics: metrics.jsonl, one dict an epoch.
      labels: the columns of labels.csv by name, the most suspicious row first.
      report: path of report.html.

    Raises:
      ArgumentError: the folder holds no finished run.

    Example:
      >>> import jaxnlt
      >>> result = jaxnlt.Result("runs/mine")
      >>> result.summary["method"], len(result.metrics), len(result.classes_)
      ('erm', 1, 10)
      >>> float(result.labels["clean_probability"].max()) <= 1
      True
    """

    def __init__(
        self,
        workdir: str | pathlib.Path,
        classes: np.ndarray | None = None,
        temporary: tempfile.TemporaryDirectory | None = None,
    ) -> None:
        self.workdir = pathlib.Path(workdir)
        self._temporary = temporary
        with naming_arguments():
            found = files.read_json(self.workdir / summary.FILE)
            if found is None:
                raise ArgumentError(
                    f"workdir: {self.workdir}: holds no finished run"
                )
            self._networks = Networks.load(self.workdir)
            self.metrics = files.read_jsonl(self.workdir / "metrics.jsonl")
        self.summary: Record = found
        self.report = self.workdir / "report.html"
        names = self._networks.training_set.class_names
        self.classes_ = np.asarray(names if classes is None else classes)
        if len(self.classes_) != len(names):
            raise ArgumentError(
                f"classes: {len(self.classes_)} of them, the run has "
                f"{len(names)}: {', '.join(names[:10])}"
            )
        self.labels = Labels(labels_csv.read(self.workdir / "labels.csv"))
        if classes is not None:
            rows = {name: k for k, name in enumerate(names)}
            for column in set(_NAMES) & self.labels.keys():
                numbers = [rows[name] for name in self.labels[column]]
                self.labels[column] = self.classes_[numbers]

    def predict_proba(self, images: Any) -> np.ndarray:
        """Probabilities of the classes, as all networks of the run vote.

        Args:
          images: as ``jaxnlt.fit`` takes them, of the training images' shape.

        Returns:
          float [N, C].

        Raises:
          ArgumentError: another type or shape.
        """
        found = arrays.images(images, "images")
        shape = self._networks.training_set.image_shape
        if found.shape[1:] != shape:
            raise ArgumentError(
                f"images: are of shape {found.shape[1:]}, the training images "
                f"of {shape}"
            )
        with naming_arguments():
            return self._networks.vote(in_memory(found))

    def predict(self, images: Any) -> np.ndarray:
        """The most probable class of each image.

        Args:
          images: see ``predict_proba``.

        Returns:
          [N] of ``classes_``.
        """
        return self.classes_[self.predict_proba(images).argmax(1)]

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_temporary": None}

    def __repr__(self) -> str:
        return f"Result({str(self.workdir)!r})"


class Labels(dict[str, np.ndarray]):
    """Columns of labels.csv, arrays of one length by name."""

    def to_pandas(self) -> Any:
        """The same as a pandas DataFrame.

        Raises:
          ArgumentError: pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError as error:
            raise ArgumentError(
                "to_pandas: pandas is missing; pip install pandas"
            ) from error
        return pandas.DataFrame(dict(self))
