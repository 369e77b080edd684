"""Label noise as the published codes draw it.

Every draw comes from generator instances in the order of the authors' code,
so equal seeds give equal labels; nothing is seeded globally.
"""

import os
import random
from typing import Any

import numpy as np

from jaxnlt.data import fingerprint, untrusted
from jaxnlt.data.records import Dataset, Source, Split, labels_array
from jaxnlt.runtime import paths
from jaxnlt.runtime.errors import UserError

SYNTHETIC = (
    "none",
    "sym",
    "sym_count",
    "sym_excl",
    "asym",
    "asym_block",
    "flip",
    "joint",
    "joint_any",
)
# SFA and RoLT draw over images listed class by class, the others over images
# in official order.
CLASS_BY_CLASS = ("sym_excl", "joint", "joint_any")
# The pairing of DaSC's flip noise never changes: ``papers/dasc.md`` section
# 1.2.
FLIP_SEED = 1
BLOCK = 5

# truck>automobile, bird>airplane, cat<>dog, deer>horse.
CIFAR10_MAP = np.array([0, 1, 0, 5, 7, 3, 6, 7, 8, 1])
# The superclass of each of CIFAR-100's classes.
# fmt: off
CIFAR100_SUPERCLASS = np.array([
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11,
    6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5,
    5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17,
    10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13,
    16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13,
])
# fmt: on


def transition(
    kind: str,
    rate: float,
    num_classes: int,
    rng: np.random.RandomState | None = None,
    counts: np.ndarray | None = None,
) -> np.ndarray:
    """Probability of each given label, row by row of the true one.

    ``sym``: ``r / C + (1 - r) [i = j]``.  ``flip``: ``1 - r`` on the diagonal
    and ``r`` on one other class.  ``asym_block``: ``r`` on the next class of
    the block of five.  ``joint``, of changed labels: ``n_j / (N - n_i)``;
    ``joint_any``, of redrawn ones: ``n_j / N``.

    Args:
      kind: ``sym``, ``flip``, ``asym_block``, ``joint`` or ``joint_any``.
      rate: ``r`` in [0, 1); the joint kinds take none.
      num_classes: C.
      rng: draws the pairing of ``flip``.
      counts: int [C], true class sizes, for the joint kinds.

    Returns:
      float64 [C, C].

    Source: ``papers/dasc.md`` section 1.2, ``papers/sfa.md`` section 3.2,
    ``papers/unicon.md`` section 8, ``papers/dividemix_rolt.md`` section 4.1.
    """
    if kind == "sym":
        # Written as the authors do, for the same last bit.
        full = rate / num_classes * np.ones((num_classes, num_classes))
        return full + (1 - rate) * np.eye(num_classes)
    if kind == "joint_any":
        assert counts is not None
        return np.tile(counts / counts.sum(), (num_classes, 1))
    if kind == "joint":
        assert counts is not None
        sizes = counts.astype(np.float64)
        rest = np.maximum(sizes.sum() - sizes, 1.0)
        return sizes[None, :] * (1 - np.eye(num_classes)) / rest[:, None]
    matrix = (1 - rate) * np.eye(num_classes)
    classes = np.arange(num_classes)
    if kind == "flip":
        assert rng is not None
        for k in classes:
            matrix[k, rng.choice(classes[classes != k])] = rate
        return matrix
    if kind == "asym_block":
        start = classes // BLOCK * BLOCK
        matrix[classes, start + (classes - start + 1) % BLOCK] = rate
        return matrix
    raise ValueError(f"no transition matrix for {kind!r}")


def redrawn_share(rate: float, counts: np.ndarray) -> float:
    """Share of labels that ``joint_any`` redraws, ``r / (1 - sum_k q_k^2)``.

    A redrawn label keeps its class ``k`` with probability ``q_k = n_k / N``.

    Args:
      rate: ``r``, share of labels that shall end up wrong.
      counts: int [C], true class sizes.

    Returns:
      The share, at most 1.

    Raises:
      UserError: redrawing all labels would not make so many wrong.

    Source: ``papers/dividemix_rolt.md`` section 4.1.
    """
    wrong = 1 - np.square(counts / counts.sum()).sum()
    if rate > wrong + 1e-9:  # as much as the sum above may be off
        raise UserError(
            "config.data.rate: joint_any can make at most "
            f"{wrong:.3f} of these labels wrong, {rate:g} is asked for"
        )
    return min(1.0, float(rate / wrong)) if rate else 0.0


def draw(
    kind: str,
    labels: np.ndarray,
    num_classes: int,
    rate: float,
    seed: int,
    rng: np.random.RandomState | None = None,
) -> np.ndarray:
    """Draws noisy labels.

    Args:
      kind: one of ``SYNTHETIC``.
      labels: int [N], true labels in the order of the authors' draws: official
        order, or class by class for the kinds in ``CLASS_BY_CLASS``.
      num_classes: C.
      rate: ``r`` in [0, 1).
      seed: of the generators made here.
      rng: the generator that drew the subset, whose stream ``sym`` and the
        joint kinds continue; None makes a new one from ``seed``.

    Returns:
      int32 [N].

    Raises:
      UserError: the noise does not fit the number of classes or their sizes.

    Source: ``papers/dasc.md`` section 1.2 (sym, flip),
    ``papers/dividemix_rolt.md`` section 2.1 (sym_count, asym) and section 4.1
    (joint_any), ``papers/sfa.md`` section 3.2 (sym_excl, joint),
    ``papers/unicon.md`` section 8 (asym_block).
    """
    if rng is None:
        rng = np.random.RandomState(seed)
    if kind == "none":
        return labels_array(labels)
    if kind in ("sym", "flip"):
        if kind == "flip":
            rng = np.random.RandomState(FLIP_SEED)
        matrix = transition(kind, rate, num_classes, rng)
        return labels_array(
            [rng.choice(num_classes, p=matrix[y]) for y in labels]
        )
    if kind == "asym_block":
        if num_classes % BLOCK:
            raise UserError(
                "config.data.noise: asym_block needs a multiple of "
                f"{BLOCK} classes, here are {num_classes}"
            )
        rng = np.random.RandomState(seed)
        matrix = transition(kind, rate, num_classes)
        return labels_array(
            [_multinomial_class(matrix[y], rng) for y in labels]
        )
    return _draw_counted(kind, labels, num_classes, rate, seed, rng)


def _multinomial_class(probs: np.ndarray, rng: np.random.RandomState) -> int:
    """The class that ``rng.multinomial(1, probs)`` drew up to NumPy 2.4.

    From 2.5 on it spends random numbers on classes of probability 0, too.
    """
    left = 1.0
    for k, share in enumerate(probs[:-1]):
        if share and rng.binomial(1, share / left):
            return k
        left -= share
    return len(probs) - 1


def _draw_counted(
    kind: str,
    labels: np.ndarray,
    num_classes: int,
    rate: float,
    seed: int,
    rng: np.random.RandomState,
) -> np.ndarray:
    """The kinds that change a fixed number of labels, shuffled by Python."""
    counts = np.bincount(labels, minlength=num_classes)
    share = redrawn_share(rate, counts) if kind == "joint_any" else rate
    python = random.Random(seed)
    order = list(range(len(labels)))
    python.shuffle(order)
    chosen = sorted(order[: int(share * len(labels))])
    noisy = np.array(labels)
    if kind in ("joint", "joint_any"):
        matrix = transition(kind, rate, num_classes, counts=counts)
    elif kind == "asym":
        target = asym_map(num_classes)
    for i in chosen:
        y = int(labels[i])
        if kind == "sym_count":
            noisy[i] = python.randint(0, num_classes - 1)
        elif kind == "sym_excl":
            noisy[i] = (python.randint(1, num_classes - 1) + y) % num_classes
        elif kind in ("joint", "joint_any"):
            noisy[i] = rng.choice(num_classes, p=matrix[y])
        elif kind == "asym":
            noisy[i] = target[y]
        else:
            raise ValueError(f"no noise is called {kind!r}")
    return labels_array(noisy)


def asym_map(num_classes: int) -> np.ndarray:
    """The class to which asymmetric noise sends each class.

    CIFAR-10: the semantic pairs.  CIFAR-100: the next class of the superclass,
    the last one to the first.

    Args:
      num_classes: C, 10 or 100.

    Returns:
      int64 [C].

    Raises:
      UserError: the classes are neither CIFAR-10's nor CIFAR-100's.
    """
    if num_classes == len(CIFAR10_MAP):
        return CIFAR10_MAP
    if num_classes != len(CIFAR100_SUPERCLASS):
        raise UserError(
            "config.data.noise: asym needs the classes of cifar10 or cifar100"
        )
    target = np.empty(num_classes, np.int64)
    for group in range(CIFAR100_SUPERCLASS.max() + 1):
        members = np.flatnonzero(group == CIFAR100_SUPERCLASS)
        target[members] = np.roll(members, -1)
    return target


def as_json(dataset: Dataset) -> dict[str, Any]:
    """The given labels as a JSON object, to be read by ``read_noise``.

    Args:
      dataset: as loaded.

    Returns:
      ``class_names``, ``source_sha256`` of the set that the images are of,
      ``ids`` and ``labels``.
    """
    return {
        "class_names": list(dataset.class_names),
        "source_sha256": dataset.source_sha256,
        "ids": dataset.train.ids.tolist(),
        "labels": dataset.train.labels.tolist(),
    }


def read_noise(
    path: str | os.PathLike, train: Split, source: Source
) -> np.ndarray:
    """Reads given labels for the images of a training set.

    Args:
      path: either our own JSON object, see ``as_json``, of which ``ids`` and
        ``labels`` suffice, or DivideMix's flat JSON list: one label for every
        image of the full official training set, or one for every kept image in
        ascending order.
      train: the N kept images.
      source: the full set, in official order.

    Returns:
      int32 [N] in the order of ``train``.

    Raises:
      UserError: unreadable, of the wrong length, not integers, out of range,
        without a label for an image, made for another set or other classes, or
        in another order, see ``check_order``.
    """
    field = "config.data.noise_file"
    path = paths.expanded(path, field)
    content = untrusted.read_json(path, field)
    classes, ids = len(source.class_names), train.ids.tolist()
    if isinstance(content, list):
        labels = _checked(path, content, classes)
        all_ids = source.train.ids.tolist()
        if len(labels) == len(all_ids):
            rows = {key: row for row, key in enumerate(all_ids)}
            labels = labels[[rows[key] for key in ids]]
        elif len(labels) != len(ids):
            raise UserError(
                f"{path}: holds {len(labels)} labels; needed are "
                f"{len(all_ids)} (all training images) or {len(ids)} (those "
                "kept)"
            )
        check_order(path, labels, train.true_labels, classes)
        return labels
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("ids", "labels")
    ):
        raise UserError(
            f"{path}: neither a list of labels nor an object with the lists "
            "ids and labels"
        )
    names = content.get("class_names", list(source.class_names))
    _check_names(path, names, source.class_names)
    labels = _checked(path, content["labels"], classes)
    if len(content["ids"]) != len(labels):
        raise UserError(
            f"{path}: {len(content['ids'])} ids but {len(labels)} labels"
        )
    try:
        where = {key: row for row, key in enumerate(content["ids"])}
    except TypeError:
        raise UserError(f"{path}: ids must be numbers or paths") from None
    if len(where) < len(labels):
        raise UserError(f"{path}: ids must differ, {len(where)} of them do")
    missing = [key for key in ids if key not in where]
    if missing:
        raise UserError(
            f"{path}: no label for {len(missing)} of the {len(ids)} training "
            f"images, the first is {missing[0]}; drawn with another seed, imb "
            "or data set?"
        )
    labels = labels[[where[key] for key in ids]]
    sha256 = content.get("source_sha256")
    if sha256 is None:
        check_order(path, labels, train.true_labels, classes)
    elif sha256 != fingerprint.of_source(source):
        raise UserError(
            f"{path}: made for another set of images than {source.path}, or "
            "for another order of it; a list for these holds ids and labels "
            "alone"
        )
    return labels


def _check_names(
    path: str | os.PathLike, names: Any, wanted: tuple[str, ...]
) -> None:
    """Refuses a list whose label codes stand for other classes."""
    if not isinstance(names, list) or len(names) != len(wanted):
        count = len(names) if isinstance(names, list) else "no list of"
        raise UserError(
            f"{path}: class_names: holds {count} names, the data have "
            f"{len(wanted)} classes"
        )
    for code, (name, other) in enumerate(zip(names, wanted, strict=True)):
        if name != other:
            raise UserError(
                f"{path}: class_names: label {code} is {name!r} there and "
                f"{other!r} in the data; a list of other classes, or in "
                "another order of them"
            )


def check_order(
    where: str | os.PathLike,
    labels: np.ndarray,
    true_labels: np.ndarray | None,
    num_classes: int,
) -> None:
    """Refuses labels that seem to belong to the images in another order.

    They agree with the true labels as often as a shuffled list would, ``z`` < 3
    standard deviations more than expected of the two class counts; and either
    they agree in the order class by class, as SFA stores its lists, or there
    are so many of them that a list with a tenth of the possible agreement (90 %
    symmetric noise) would lie 8 deviations higher.

    Args:
      where: what holds the labels, for the message.
      labels: int [N] given labels.
      true_labels: int [N]; None, ``WRONG`` and ``UNKNOWN`` tell nothing.
      num_classes: C.

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
    by_class = z(labels == np.sort(true)) >= 6
    if z(labels == true) >= 3 or not (by_class or tenth >= 8 * deviation):
        return
    hint = "they agree class by class" if by_class else "another order?"
    raise UserError(
        f"{where}: labels in the wrong order, or of other classes: "
        f"{100 * (labels == true).mean():.1f} % agree with the true labels, "
        f"by chance {100 * expected / n:.1f} % would ({hint}); bring them into "
        "the order of the images"
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


def _checked(
    path: str | os.PathLike, values: list[Any], num_classes: int
) -> np.ndarray:
    """The labels of a JSON list, int32 [N]."""
    for row, value in enumerate(values):
        # True and False are ints in Python.
        if not isinstance(value, int) or isinstance(value, bool):
            raise UserError(
                f"{path}: labels must be integers, number {row} is "
                f"{untrusted.shown(value)}"
            )
        if not 0 <= value < num_classes:
            raise UserError(
                f"{path}: labels must be in 0..{num_classes - 1}, number "
                f"{row} is {untrusted.shown(value)}"
            )
    return labels_array(values)
