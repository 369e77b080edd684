"""The records of data sets: how one is requested, read, loaded, described."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxnlt.data import imbalance

#: A true label: the given label is known to be wrong, the true class is none
#: of the data set's or not known.
WRONG = -1
#: How a CSV of labels says so.
WRONG_WORD = "wrong"
#: A true label: nothing is known.
UNKNOWN = -2
#: Name of an additional test set that decides which checkpoint is the best.
VALIDATION = "val"
#: Kind of a test set that is a part of the training set, with given labels.
HELD_OUT = "held_out"


class ListedImage(NamedTuple):
    """One image in the lists of a data set.

    Attributes:
      path: relative to the folder of the images, with ``/``.
      label: the given label, 0-based.
      true_label: 0-based, or ``WRONG``; None where nothing is known.
      source: where the image comes from, such as ``imagenet`` or ``web``.
    """

    path: str
    label: int
    true_label: int | None
    source: str

    @property
    def wrong(self) -> bool | None:
        """Whether the given label is wrong; None where nothing is known."""
        return (
            None if self.true_label is None else self.label != self.true_label
        )


@dataclasses.dataclass(frozen=True)
class Split:
    """Images with their labels.

    Attributes:
      images: uint8 [N, H, W, C]; of images on disk ``files.ImageFiles`` as
        read, ``files.CutImages`` once loaded; or float32 [N, D], rows of
        features of any encoder.
      labels: int32 [N], the given labels, wrong ones included.
      true_labels: int32 [N] where known, else None; ``WRONG`` and ``UNKNOWN``
        may be among them.  Only diagnostics and the drawing of noise read
        them, training never does.
      ids: [N], the official index (int64) or the relative path (str).
    """

    images: Any
    labels: np.ndarray
    true_labels: np.ndarray | None
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def has_features(self) -> bool:
        """Whether it holds rows of features in place of images."""
        return isinstance(self.images, np.ndarray) and self.images.ndim == 2

    def take(self, rows: np.ndarray) -> "Split":
        """The split of the given rows, in their order; itself of all rows."""
        if np.array_equal(rows, np.arange(len(self))):
            return self
        true = self.true_labels
        return Split(
            self.images[rows],
            self.labels[rows],
            None if true is None else true[rows],
            self.ids[rows],
        )


def verdicts(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """What is known of the given labels.

    Args:
      split: N images.

    Returns:
      bool [N], where it is known whether the given label is right; and
      bool [N], where it is known to be wrong.
    """
    true = split.true_labels
    if true is None:
        nothing = np.zeros(len(split), bool)
        return nothing, nothing
    known = true != UNKNOWN
    return known, known & (true != split.labels)


def classes_known(true_labels: np.ndarray | None) -> bool:
    """Whether the true class of every image is known.

    Args:
      true_labels: int [N] of a split, or None.

    Returns:
      False for None, and where ``WRONG`` or ``UNKNOWN`` is among them.
    """
    return true_labels is not None and bool((true_labels >= 0).all())


def labels_array(values: Any) -> np.ndarray:
    """A copy of labels as int32 [N]."""
    return np.array(values, dtype=np.int32)


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set as it is stored, before long tail and noise.

    Attributes:
      train: the whole training set with the labels of the files.
      test: the test set, or None where the files hold none.
      class_names: one name for each of the C classes.
      path: where it was read from.
      more_tests: additional test sets by name, over the same classes.
      web: images of the web from which noise is drawn, under their given
        labels, their true labels all ``WRONG``; None where there are none.
      held_out: bool [N], training images that the files mark as held out, for
        want of a test set; None where they mark none.
      unreadable: training images that were left out because they cannot be
        read, ``images`` None; None where there are none.
      n_unreadable: how many images were left out, of all sets.
    """

    train: Split
    test: Split | None
    class_names: tuple[str, ...]
    path: str
    more_tests: Mapping[str, Split] = dataclasses.field(default_factory=dict)
    web: Split | None = None
    held_out: np.ndarray | None = None
    unreadable: Split | None = None
    n_unreadable: int = 0

    @property
    def splits(self) -> dict[str, Split]:
        """All its images: ``train``, ``test``, ``web``, further test sets."""
        named = {"train": self.train, "test": self.test, "web": self.web}
        found = {k: split for k, split in named.items() if split is not None}
        return {**found, **self.more_tests}


@dataclasses.dataclass(frozen=True)
class ReadRequest:
    """What a reader is asked for; fields of ``config.data`` as they stand.

    Attributes:
      benchmark: the entry whose files are read.
      path: file or folder; '' searches the usual places, where there are any.
      labels_file: file of labels, or ''.
      image_size: side of the square to which images in memory are resized; 0
        expects images of one size.
      transform: how the user wants streamed images to be cut, or ''.
      name: set of ``tfds``.
      noise: kind of label noise.
      skip_bad: whether images that cannot be read are left out.
    """

    benchmark: "Benchmark"
    path: str = ""
    labels_file: str = ""
    image_size: int = 0
    transform: str = ""
    name: str = ""
    noise: str = "none"
    skip_bad: bool = False


@dataclasses.dataclass(frozen=True)
class Choice:
    """What suits the user's own images; replaces fields that he left empty.

    Attributes:
      benchmark: the entry that reads them.
      images: what they are and how they are held, for the note.
      transform: ``config.data.transform``, '' where they are held in memory.
      image_size: ``config.data.image_size``.
      model: name of the network.
      width: channels of its first stage; 0 takes the published number.
      blocks: residual blocks of each stage; () takes the published ones.
      batch_size: images of a step, of the warm-up too.
      weak: name of the weak augmentation.
      strong: name of the strong augmentation.
    """

    benchmark: str
    images: str
    transform: str
    image_size: int
    model: str
    width: int
    blocks: tuple[int, ...]
    batch_size: int
    weak: str
    strong: str


@dataclasses.dataclass(frozen=True)
class NoiseRequest:
    """What a benchmark's own noise is drawn from.

    Attributes:
      request: what was read.
      source: the whole data set.
      train: the training images that the long tail keeps.
      rate: ``config.data.rate``.
      rng: the generator that drew the long tail.
    """

    request: ReadRequest
    source: Source
    train: Split
    rate: float
    rng: np.random.RandomState


class OwnNoise(NamedTuple):
    """A label noise that a benchmark's files bring along.

    Attributes:
      apply: gives the noisy training set.
      adds_images: whether it adds images to the training set.
      fields: fields of ``config.data`` that it reads.
    """

    apply: Callable[[NoiseRequest], Split]
    adds_images: bool = False
    fields: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One data set and its defaults; a method's config may replace the latter.

    Attributes:
      name: as written after ``--config=configs/METHOD.py:``.
      about: one line for ``:help``.
      read: reads its files.
      fits: whether it is the entry for the files that are asked for; None
        where it always is.
      otherwise: name of the entry for files that do not fit.
      misfit: what a note says of files that do not fit.
      choose: looks at the files and says what suits them; None where the
        entry's numbers hold for all files.  The entry then leaves empty what is
        chosen: ``model``, ``weak``, ``strong`` and the sizes of batches.
      lister: name of the entry that lists the same files and opens none, ''
        for itself.
      fields: fields of ``config.data`` that it uses and others may not.
      noises: its own noises by name; a name that ends in ``:`` stands for all
        names that start with it.
      asym: whether there is a class map for the noise ``asym``.
      tail: sizes of the classes in the long tail; (available int [C], n_max,
        imb, imb_type) -> int [C].
      num_classes: None where the user's files decide.
      n_max: images of the largest class before the long tail; None keeps
        every image of the user's files.
      image_size: height and width in pixels; None where the files decide.
      channels: colour channels; None where the files decide.
      mean: for each channel in [0, 1] image units, for each feature in its
        own; None computes it from the training images, as ``std``.
      std: see ``mean``.
      weak: name of the weak augmentation.
      strong: name of the strong augmentation.
      imb: default ratio of the smallest to the largest class.
      noise: default noise.
      rate: default noise rate.
      model: name of the network.
      width: channels of the network's first stage; 0 takes the published.
      blocks: residual blocks of each stage; () takes the published.
      batch_size: rows of a batch.
      warmup_batch_size: rows of a batch in the warm-up.
      eval_batch_size: rows of a batch where nothing is trained.
      epochs: number of epochs run.
      short: whether methods take schedules for some 40 epochs of a small set.
      learning_rate: of SGD.
      momentum: of SGD.
      weight_decay: of SGD.
      dev_n_max: ``n_max`` under ``split=dev``; None where there is no
        development set.
      dev_per_class: images of each class in the development set.
      transform: name in ``decode.TRANSFORMS`` of the way in which streamed
        images are cut; '' where all images are held in memory.
      files: usual names of its files, in the order in which they are tried.
      labels_files: usual names of its files of human labels.
      top5: whether its papers report top-5 accuracies.
      homepage: where it is officially described.
    """

    name: str
    about: str
    read: Callable[[ReadRequest], Source]
    fits: Callable[[ReadRequest], bool] | None = None
    otherwise: str = ""
    misfit: str = ""
    choose: Callable[[ReadRequest], Choice] | None = None
    lister: str = ""
    fields: frozenset[str] = frozenset({"path"})
    noises: Mapping[str, OwnNoise] = dataclasses.field(default_factory=dict)
    asym: bool = False
    tail: Callable[[np.ndarray, int, float | None, str], np.ndarray] = (
        imbalance.tail
    )
    num_classes: int | None = None
    n_max: int | None = None
    image_size: int | None = None
    channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    weak: str = "crop_flip"
    strong: str = "autoaugment"
    imb: float = 1.0
    noise: str = "none"
    rate: float = 0.0
    model: str = "preact_resnet18"
    width: int = 0
    blocks: tuple[int, ...] = ()
    batch_size: int = 64
    warmup_batch_size: int = 128
    eval_batch_size: int = 256
    epochs: int = 101
    short: bool = False
    learning_rate: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 5e-4
    dev_n_max: int | None = None
    dev_per_class: int | None = None
    transform: str = ""
    files: tuple[str, ...] = ()
    labels_files: tuple[str, ...] = ()
    top5: bool = False
    homepage: str = ""

    def own_noise(self, noise: str) -> OwnNoise | None:
        """The noise of this name if it is one of ``noises``, else None."""
        prefix = noise[: noise.find(":") + 1]
        return self.noises.get(noise) or self.noises.get(prefix)


@dataclasses.dataclass(frozen=True)
class Description:
    """What summaries record of the data.

    Attributes:
      benchmark: its name.
      source: where it was read from.
      data_seed: seed of long tail and noise.
      imb: ratio of the smallest to the largest class that was asked for.
      imb_type: shape of the long tail.
      noise: kind of noise, or ``file:`` and the file of labels.
      noise_rate_asked: None where the labels come from a file.
      noise_rate_realised: share of wrong labels among those of which it is
        known whether they are right; None where it is known of none.
      counts_given: training images of each given label.
      counts_true: training images of each true label, None if unknown.
      n_train: number of training images.
      n_test: number of test images.
      test_kind: see ``Dataset``.
      image_shape: height, width, channels; or the length of a row of
        features.
      n_more_tests: number of images of each additional test set.
      n_unreadable: images that were left out, of all sets.
    """

    benchmark: str = ""
    source: str = ""
    data_seed: int = 0
    imb: float | None = None
    imb_type: str = "exp"
    noise: str = "none"
    noise_rate_asked: float | None = None
    noise_rate_realised: float | None = None
    counts_given: tuple[int, ...] = ()
    counts_true: tuple[int, ...] | None = None
    n_train: int = 0
    n_test: int = 0
    test_kind: str = "test"
    image_shape: tuple[int, ...] = ()
    n_more_tests: Mapping[str, int] = dataclasses.field(default_factory=dict)
    n_unreadable: int = 0

    def as_json(self) -> dict[str, Any]:
        """The fields as plain JSON values; the last two only if any."""
        values = dataclasses.asdict(self)
        for name in ("n_more_tests", "n_unreadable"):
            if not values[name]:
                del values[name]
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What a run trains on and what it is measured with.

    Attributes:
      train: training set after long tail and noise.
      test: test set, or what stands in for it.
      class_names: one name for each of the C classes.
      mean: for each channel, in units of images scaled to [0, 1]; for each
        feature, in its own.
      std: as ``mean``.
      test_kind: ``test``, ``dev`` (clean unused training images) or
        ``held_out`` (a part of the training set with its given labels).
      description: counts, realised noise and origin.
      more_tests: additional test sets by name, over the same classes.
      top5: whether top-5 accuracies are reported, as in the data set's papers.
      source_sha256: of the whole set as it is stored, see
        ``fingerprint.of_source``.
      unreadable: see ``Source``.
      fold_of: int [N], for every row of the training set before a fold was
        left out, the fold that leaves it out, or 0 where none does; None where
        there are no folds.
      given: int [N], the labels of ``train`` before some were made wrong on
        purpose; None where none were.
    """

    train: Split
    test: Split
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    test_kind: str
    description: Description = dataclasses.field(default_factory=Description)
    more_tests: Mapping[str, Split] = dataclasses.field(default_factory=dict)
    top5: bool = False
    source_sha256: str = ""
    unreadable: Split | None = None
    fold_of: np.ndarray | None = None
    given: np.ndarray | None = None

    @property
    def num_classes(self) -> int:
        """The number of classes C."""
        return len(self.class_names)

    @property
    def tests(self) -> dict[str, Split]:
        """Every test set by name, ``test`` the first."""
        return {"test": self.test, **self.more_tests}

    @property
    def as_given(self) -> "Dataset":
        """The same with the labels as they were given."""
        if self.given is None:
            return self
        train = dataclasses.replace(self.train, labels=self.given)
        return dataclasses.replace(self, train=train, given=None)

    @property
    def audited(self) -> dict[str, Split]:
        """The sets in labels.csv: ``train`` and, if any, ``held_out``."""
        held_out = {HELD_OUT: self.test} if self.test_kind == HELD_OUT else {}
        return {"train": self.train, **held_out}

    @property
    def choosing(self) -> str:
        """The test set that decides the best checkpoint: validation if any."""
        return VALIDATION if VALIDATION in self.more_tests else "test"

    @property
    def given_counts(self) -> np.ndarray:
        """Training images of each given label, int64 [C]."""
        return np.bincount(self.train.labels, minlength=self.num_classes)

    @property
    def true_counts(self) -> np.ndarray | None:
        """Training images of each true label, int64 [C]; None if unknown."""
        true = self.train.true_labels
        if true is None or not classes_known(true):
            return None
        return np.bincount(true, minlength=self.num_classes)
