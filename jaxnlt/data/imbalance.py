"""Long-tailed class sizes and the draw of the images that are kept."""

import numpy as np

from jaxnlt.runtime.errors import UserError

TYPES = ("exp", "step")


def class_counts(
    n_max: float, num_classes: int, imb: float | None, imb_type: str = "exp"
) -> np.ndarray:
    """Class sizes, ``n_k = int(n_max imb^(k / (C - 1)))`` for ``exp``.

    ``step``: the first ``C // 2`` classes hold ``int(n_max)``, the others
    ``int(n_max imb)``.  Both truncate; class 0 is the largest.

    Args:
      n_max: size of the largest class.
      num_classes: ``C``, at least 2 unless balanced.
      imb: smallest over largest class in (0, 1]; None or 1 is balanced.
      imb_type: ``exp`` or ``step``.

    Returns:
      ``int64 [C]``.

    Raises:
      UserError: ``imb`` lies outside (0, 1] or ``imb_type`` is unknown.

    Source: ``papers/dasc.md`` section 1.1, ``papers/sfa.md`` section 3.1.
    """
    check_imb(imb, imb_type)
    if imb is None or imb == 1:
        return np.full(num_classes, int(n_max), np.int64)
    if imb_type == "step":
        head = num_classes // 2
        sizes = [int(n_max)] * head
        sizes += [int(n_max * imb)] * (num_classes - head)
    else:
        # Python's own power: numpy's may differ in the last bit, and int()
        # turns that into an image more or less.
        sizes = [
            int(n_max * imb ** (k / (num_classes - 1.0)))
            for k in range(num_classes)
        ]
    return np.array(sizes, np.int64)


def check_imb(imb: float | None, imb_type: str) -> None:
    """Raises UserError unless the two describe a long tail."""
    if imb is not None and not 0 < imb <= 1:
        raise UserError(f"config.data.imb: must lie in (0, 1], is {imb:g}")
    if imb_type not in TYPES:
        raise UserError(
            f"config.data.imb_type: must be one of {', '.join(TYPES)}, "
            f"is {imb_type!r}"
        )


def draw_subset(
    labels: np.ndarray, counts: np.ndarray, rng: np.random.RandomState
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Shuffles each class and keeps its first ``counts[k]`` images.

    The order of the draws is the authors': class after class, one shuffle of
    the class's indices each.

    Args:
      labels: ``[N]`` in official order, in ``[0, C)``.
      counts: ``[C]`` sizes wanted; a class may have fewer images.
      rng: source of the draws, left where the authors' generator would be.

    Returns:
      Per class the kept and the unused indices, each in shuffled order.

    Source: ``papers/dasc.md`` section 1.1; golden dasc_dataset_build.
    """
    kept, unused = [], []
    for k, size in enumerate(counts):
        members = np.flatnonzero(labels == k)
        rng.shuffle(members)
        kept.append(members[:size])
        unused.append(members[size:])
    return kept, unused


def longer_tail(
    available: np.ndarray, imb: float | None, imb_type: str = "exp"
) -> np.ndarray:
    """Sizes of a longer tail than the natural one.

    The class that is ``k``-th by size keeps
    ``min(n_k, int(n_max imb^(k / (C - 1))))`` images; the smaller number goes
    first where two are of one size.

    Args:
      available: int [C], images of each class.
      imb: in (0, 1]; None or 1 keeps every image.  The authors' code cuts
        below 0.5 only.
      imb_type: see ``class_counts``.

    Returns:
      int64 [C].

    Raises:
      UserError: ``imb`` lies outside (0, 1] or ``imb_type`` is unknown.

    Source: ``papers/sfa.md`` section 3.4; golden sfa_data.
    """
    sizes = class_counts(int(available.max()), len(available), imb, imb_type)
    counts = np.empty(len(available), np.int64)
    counts[np.argsort(-available, kind="stable")] = sizes
    return np.minimum(counts, available)
