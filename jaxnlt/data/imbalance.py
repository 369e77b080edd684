"""Long-tailed class sizes and the draw of the images that are kept."""

import numpy as np

from jaxnlt.runtime.errors import UserError, one_of

TYPES = ("exp", "step")


def check(imb: float | None, imb_type: str) -> None:
    """Refuses what describes no long tail.

    Args:
      imb: smallest over largest class; None is balanced.
      imb_type: shape of the tail.

    Raises:
      UserError: ``imb`` is outside (0, 1] or ``imb_type`` is unknown.
    """
    if imb is not None and not 0 < imb <= 1:
        raise UserError(f"config.data.imb: must be in (0, 1], is {imb:g}")
    one_of("config.data.imb_type", imb_type, TYPES)


def class_counts(
    n_max: float, num_classes: int, imb: float | None, imb_type: str = "exp"
) -> np.ndarray:
    r"""Class sizes of a long tail; class 0 is the largest.

    ``exp``: :math:`n_k = \lfloor n_{max}\, imb^{k / (C - 1)} \rfloor`.
    ``step``: the first ``C // 2`` classes hold ``int(n_max)`` images, the
    others ``int(n_max imb)``.

    Args:
      n_max: size of the largest class.
      num_classes: C, at least 2 unless balanced.
      imb: smallest over largest class in (0, 1]; None or 1 is balanced.
      imb_type: ``exp`` or ``step``.

    Returns:
      int64 [C].

    Raises:
      UserError: see ``check``.

    Source: ``papers/dasc.md`` section 1.1, ``papers/sfa.md`` section 3.1.
    """
    check(imb, imb_type)
    if imb is None or imb == 1:
        return np.full(num_classes, int(n_max), np.int64)
    if imb_type == "step":
        head = num_classes // 2
        sizes = [int(n_max)] * head
        sizes += [int(n_max * imb)] * (num_classes - head)
    else:
        # Python's own power: numpy's may differ in the last bit, which int()
        # turns into one image more or less.
        sizes = [
            int(n_max * imb ** (k / (num_classes - 1.0)))
            for k in range(num_classes)
        ]
    return np.array(sizes, np.int64)


def tail(
    available: np.ndarray, n_max: int, imb: float | None, imb_type: str
) -> np.ndarray:
    """Class sizes in the order of the class numbers.

    Args:
      available: int [C], images of each class; their number alone counts.
      n_max: size of the largest class.
      imb: see ``class_counts``.
      imb_type: see ``class_counts``.

    Returns:
      int64 [C]; a class may have fewer images.

    Raises:
      UserError: see ``check``.
    """
    return class_counts(n_max, len(available), imb, imb_type)


def natural_tail(
    available: np.ndarray, n_max: int, imb: float | None, imb_type: str
) -> np.ndarray:
    r"""Class sizes that lengthen a tail which the classes have by themselves.

    The class that is k-th by size keeps
    :math:`\min(n_k, \lfloor n_{max}\, imb^{k / (C - 1)} \rfloor)` images; of
    two classes of one size the smaller number comes first.

    Args:
      available: int [C], images of each class.
      n_max: size of the largest class; larger classes are cut first.
      imb: in (0, 1]; None or 1 keeps up to ``n_max`` images of each class.
        The authors' code cuts below 0.5 only.
      imb_type: see ``class_counts``.

    Returns:
      int64 [C].

    Raises:
      UserError: see ``check``.

    Source: ``papers/sfa.md`` section 3.4; golden sfa_data.
    """
    capped = np.minimum(available, n_max)
    sizes = class_counts(int(capped.max()), len(capped), imb, imb_type)
    counts = np.empty(len(capped), np.int64)
    counts[np.argsort(-capped, kind="stable")] = sizes
    return np.minimum(counts, capped)


def draw_subset(
    labels: np.ndarray, counts: np.ndarray, rng: np.random.RandomState
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Shuffles each class and keeps its first ``counts[k]`` images.

    The order of the draws is the authors': class after class, one shuffle of
    the indices of each class.

    Args:
      labels: int [N] in official order, in [0, C).
      counts: int [C] sizes wanted; a class may have fewer images.
      rng: source of the draws, left where the authors' generator would be.

    Returns:
      For each class the kept and the unused indices, each in shuffled order.

    Source: ``papers/dasc.md`` section 1.1; golden dasc_dataset_build.
    """
    kept, unused = [], []
    for k, size in enumerate(counts):
        members = np.flatnonzero(labels == k)
        rng.shuffle(members)
        kept.append(members[:size])
        unused.append(members[size:])
    return kept, unused
