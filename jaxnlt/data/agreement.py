"""Whether given labels stand in the order of their images."""

import os

import numpy as np

from jaxnlt.runtime.errors import UserError


def check_order(
    where: str | os.PathLike,
    labels: np.ndarray,
    true_labels: np.ndarray | None,
    num_classes: int,
    way_out: str = "",
) -> None:
    """Refuses labels that seem to belong to the images in another order.

    They agree with the true labels as often as a shuffled list would, ``z`` < 3
    standard deviations more than expected of the two class counts; and either
    they agree in the order class by class, as SFA stores its lists, or there
    are so many of them that a list with a tenth of the possible agreement (90 %
    symmetric noise) would lie 8 deviations higher.  Noise that leaves almost no
    agreement looks the same, and needs a way out.

    Args:
      where: what holds the labels, for the message.
      labels: int [N] given labels.
      true_labels: int [N]; None, ``WRONG`` and ``UNKNOWN`` tell nothing.
      num_classes: C.
      way_out: what to do where the noise is that heavy, for the message.

    Raises:
      UserError: naming both shares of agreement.
    """
    if true_labels is None:
        return
    known = true_labels >= 0
    labels, true = labels[known], true_labels[known]
    given = np.bincount(labels, minlength=num_classes)
    counts = np.bincount(true, minlength=num_classes)
    n = len(true)
    expected = float(given @ counts) / max(n, 1)
    deviation = _deviation(given, counts)
    if not deviation:  # one class, or nothing known
        return

    def z(agreement: np.ndarray) -> float:
        return float(agreement.sum() - expected) / deviation

    tenth = 0.1 * (np.minimum(given, counts).sum() - expected)
    found, by_class = z(labels == true), z(labels == np.sort(true)) >= 6
    if found >= 3 or not (by_class or tenth >= 8 * deviation):
        return
    hint = "other class numbers?" if found <= -3 else "another order?"
    if by_class:
        hint = "they agree class by class"
    raise UserError(
        f"{where}: labels in the wrong order, or of other classes: "
        f"{100 * (labels == true).mean():.1f} % agree with the true labels, "
        f"by chance {100 * expected / n:.1f} % would ({hint}); bring them into "
        f"the order of the images{way_out}"
    )


def _deviation(given: np.ndarray, true: np.ndarray) -> float:
    """Standard deviation of how many labels agree after a shuffle.

    ``Var = sum_ij d_ij^2 / (N - 1)`` with the matches of every label with every
    image, centred by rows and columns (Hoeffding's combinatorial theorem); all
    labels of a class share their entries.

    Args:
      given: int [C] sizes of the given classes.
      true: int [C] sizes of the true ones.
    """
    n = int(true.sum())
    if n < 2:
        return 0.0
    a, b = given / n, true / n
    centred = np.eye(len(a)) - b[:, None] - a[None, :] + a @ b
    return float(np.sqrt(n * n / (n - 1) * (a @ centred**2 @ b)))
