"""How well a detector tells wrong labels from right ones."""

import dataclasses

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from jaxnlt.results.metrics import calibration_error


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a detector says of N given labels.

    Attributes:
      quality: float [N], the lower the more suspect.
      flagged: bool [N], judged wrong; None where it does not judge.
      clean_probability: float [N] in [0, 1] that the label is right; None
        where the detector gives none.
    """

    quality: np.ndarray
    flagged: np.ndarray | None = None
    clean_probability: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> "Verdict":
        """The verdict on the labels of the given rows."""
        parts = (self.quality, self.flagged, self.clean_probability)
        found = [None if part is None else part[rows] for part in parts]
        quality, flagged, clean = found
        assert quality is not None
        return Verdict(quality, flagged, clean)


def average_precision(quality: np.ndarray, wrong: np.ndarray) -> float | None:
    """Average precision of the wrong labels, the most suspect first.

    Args:
      quality: float [N].
      wrong: bool [N].

    Returns:
      A fraction; None where no label is wrong.
    """
    if not wrong.any():
        return None
    return float(average_precision_score(wrong, -quality))


def auroc(quality: np.ndarray, wrong: np.ndarray) -> float | None:
    """Share of pairs of a wrong and a right label that are in order.

    Args:
      quality: float [N]; equal ones count half.
      wrong: bool [N].

    Returns:
      A fraction; None where all labels are right, or all wrong.
    """
    if wrong.all() or not wrong.any():
        return None
    return float(roc_auc_score(wrong, -quality))


def false_negative_rate(quality: np.ndarray, wrong: np.ndarray) -> float | None:
    """Share of wrong labels missed when as many are flagged as are wrong.

    Args:
      quality: float [N]; of equal ones the earlier is flagged.
      wrong: bool [N].

    Returns:
      A fraction; None where no label is wrong.

    Source: arXiv 2510.16211.
    """
    count = int(wrong.sum())
    if not count:
        return None
    flagged = np.argsort(quality, kind="stable")[:count]
    return float(1 - wrong[flagged].mean())


def tied(quality: np.ndarray) -> int:
    """How many labels share their quality with another label."""
    _, counts = np.unique(quality, return_counts=True)
    return int(counts[counts > 1].sum())


def tail_third(counts: np.ndarray) -> np.ndarray:
    """The smallest third of the classes, at least one, as int64 ids.

    Args:
      counts: int [C] images of each class; of equal classes the later counts
        as the smaller.
    """
    order = np.argsort(-np.asarray(counts), kind="stable")
    return np.sort(order[-max(1, len(counts) // 3) :])


def figures(
    verdict: Verdict, given: np.ndarray, wrong: np.ndarray, tail: np.ndarray
) -> dict[str, float | None]:
    """All figures of one detector.

    Args:
      verdict: on N labels.
      given: int [N] the labels.
      wrong: bool [N].
      tail: ids of the classes in the tail.

    Returns:
      ``ap auroc fnr`` of the ranking; ``precision recall right_flagged
      tail_flagged`` of the flags, the last two the share of right labels that
      are flagged, of all classes and of the tail; ``ece``; ``ties``, a number.
      None where undefined, or where the detector does not say.
    """
    quality, flagged = verdict.quality, verdict.flagged
    found: dict[str, float | None] = {
        "ap": average_precision(quality, wrong),
        "auroc": auroc(quality, wrong),
        "fnr": false_negative_rate(quality, wrong),
    }
    if flagged is not None:
        of_tail = ~wrong & np.isin(given, tail)
        found["precision"] = _share(wrong, flagged)
        found["recall"] = _share(flagged, wrong)
        found["right_flagged"] = _share(flagged, ~wrong)
        found["tail_flagged"] = _share(flagged, of_tail)
    if verdict.clean_probability is not None:
        found["ece"] = calibration_error(verdict.clean_probability, ~wrong)
    return {**found, "ties": tied(quality)}


def _share(values: np.ndarray, among: np.ndarray) -> float | None:
    """Share of true values; None among nothing."""
    return float(values[among].mean()) if among.any() else None
