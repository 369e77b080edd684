"""Label noise as the published codes draw it.

Every draw comes from generator instances in the order of the authors' code,
so equal seeds give equal labels; nothing is seeded globally.
"""

import os
import random
from typing import Any

import numpy as np

from jaxnlt.data import agreement, fingerprint
from jaxnlt.data.readers import label_lists
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
      path: a list that names its images, as ``as_json`` does, or one label for
        every image of the full official training set, or one for every kept
        image in ascending order, as DivideMix's; for the forms see
        ``label_lists.read``.
      train: the N kept images.
      source: the full set, in official order.

    Returns:
      int32 [N] in the order of ``train``.

    Raises:
      UserError: see ``label_lists.read``; of the wrong length, without a label
        for an image, made for another set, or in another order, see
        ``agreement.check_order``.
    """
    path = paths.expanded(path, "config.data.noise_file")
    found, ids = label_lists.read(path, source.class_names), train.ids.tolist()
    labels = found.labels
    if found.ids is not None:
        labels = labels[_rows_of(path, found.ids, len(labels), ids)]
    else:
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
    sha256 = fingerprint.of_source(source)
    if found.source_sha256 is None:
        agreement.check_order(
            path,
            labels,
            train.true_labels,
            len(source.class_names),
            ", or if they are and the noise is that heavy, write them as JSON "
            f"with ids, labels and source_sha256 {sha256}",
        )
    elif found.source_sha256 != sha256:
        raise UserError(
            f"{path}: made for another set of images than {source.path}, or "
            "for another order of it; a list for these holds ids and labels "
            "alone"
        )
    return labels


def _rows_of(
    path: str | os.PathLike, listed: Any, count: int, ids: list[int | str]
) -> list[int]:
    """The rows of a list of ``count`` labels that are those of ``ids``."""
    try:
        where = {key: row for row, key in enumerate(listed)}
    except TypeError:
        raise UserError(f"{path}: ids must be numbers or paths") from None
    if len(listed) != count:
        raise UserError(f"{path}: {len(listed)} ids but {count} labels")
    if len(where) < count:
        raise UserError(f"{path}: ids must differ, {len(where)} of them do")
    missing = [key for key in ids if key not in where]
    if missing:
        raise UserError(
            f"{path}: no label for {len(missing)} of the {len(ids)} training "
            f"images, the first is {missing[0]}; drawn with another seed, imb "
            "or data set?"
        )
    return [where[key] for key in ids]
