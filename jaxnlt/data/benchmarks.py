"""The table of data sets and the numbers that go with each."""

import dataclasses
import difflib

from jaxnlt.errors import UserError


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One data set and its defaults; a method's config may replace the latter.

    Attributes:
      name: as written after ``--config=configs/METHOD.py:``.
      about: one line for ``:help``.
      num_classes: None where the user's files decide.
      n_max: images of the largest class before the long tail; None keeps
        every image of the user's files.
      image_size: height and width in pixels; None where the files decide.
      channels: colour channels; None where the files decide.
      mean: per channel in [0, 1] image units; None computes it from the
        training images, as ``std``.
      std: see ``mean``.
      weak: name of the weak augmentation.
      strong: name of the strong augmentation.
      imb: default ratio of the smallest to the largest class.
      noise: default noise.
      rate: default noise rate.
      width: channels of the network's first stage.
      blocks: residual blocks of each stage.
      batch_size: rows of a batch.
      warmup_batch_size: rows of a batch in the warm-up.
      eval_batch_size: rows of a batch where nothing is trained.
      epochs: number of epochs run.
      learning_rate: of SGD.
      momentum: of SGD.
      weight_decay: of SGD.
      dev_n_max: ``n_max`` under ``split=dev``; None where there is no
        development set.
      dev_per_class: images a class of the development set.
      files: usual names of its files, in the order in which they are tried.
      labels_files: usual names of its files of human labels.
      homepage: where it is officially described.
    """

    name: str
    about: str
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
    width: int = 64
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    batch_size: int = 64
    warmup_batch_size: int = 128
    eval_batch_size: int = 256
    epochs: int = 101
    learning_rate: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 5e-4
    dev_n_max: int | None = None
    dev_per_class: int | None = None
    files: tuple[str, ...] = ()
    labels_files: tuple[str, ...] = ()
    homepage: str = ""


# Constants of both CIFARs: papers/dasc.md §2.
_CIFAR10 = Benchmark(
    name="cifar10",
    about="CIFAR-10: 10 kinds of things, 32x32; files on disk are needed",
    num_classes=10,
    n_max=5000,
    image_size=32,
    channels=3,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
    imb=0.1,
    noise="sym",
    rate=0.4,
    dev_n_max=4500,
    dev_per_class=500,
    files=("cifar-10-batches-py", "cifar-10-python.tar.gz", "cifar10"),
    labels_files=("CIFAR-10_human.pt", "cifar10n.npz"),
    homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
)
_CIFAR100 = dataclasses.replace(
    _CIFAR10,
    name="cifar100",
    about="CIFAR-100: 100 kinds of things, 32x32; files on disk are needed",
    num_classes=100,
    n_max=500,
    mean=(0.507, 0.487, 0.441),
    std=(0.267, 0.256, 0.276),
    dev_n_max=450,
    dev_per_class=50,
    files=("cifar-100-python", "cifar-100-python.tar.gz", "cifar100"),
    labels_files=("CIFAR-100_human.pt", "cifar100n.npz"),
)
_NPZ = Benchmark(
    name="npz",
    about="your own images in one .npz file (--config.data.path=FILE.npz)",
)

_TABLE = (
    # Settings of the trial in DESIGN.md §9.
    Benchmark(
        name="digits",
        about="scikit-learn's 8x8 handwritten digits; nothing to download",
        num_classes=10,
        n_max=134,
        image_size=8,
        channels=1,
        weak="shift",
        strong="digits_strong",
        imb=0.1,
        noise="sym",
        rate=0.4,
        width=16,
        blocks=(1, 1, 1, 1),
        batch_size=32,
        warmup_batch_size=32,
        epochs=40,
        dev_n_max=104,
        dev_per_class=30,
        homepage="https://scikit-learn.org/stable/datasets/toy_dataset.html",
    ),
    _NPZ,
    dataclasses.replace(
        _NPZ,
        name="folder",
        about="your own images as DIR/train/CLASS/*.jpg "
        "(--config.data.path=DIR)",
    ),
    _CIFAR10,
    _CIFAR100,
    dataclasses.replace(
        _CIFAR10,
        name="cifar10n",
        about="CIFAR-10 with human labels (CIFAR-10N, 40 % of 'worse' wrong)",
        noise="human:worse",
        rate=0.0,
    ),
    dataclasses.replace(
        _CIFAR100,
        name="cifar100n",
        about="CIFAR-100 with human labels (CIFAR-100N, 40 % wrong)",
        noise="human:noisy",
        rate=0.0,
    ),
)
BENCHMARKS: dict[str, Benchmark] = {entry.name: entry for entry in _TABLE}


def get(name: str) -> Benchmark:
    """Looks a benchmark up.

    Args:
      name: as written on the command line.

    Returns:
      The entry of the table.

    Raises:
      UserError: the name is unknown; the message lists the known ones.
    """
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    close = difflib.get_close_matches(name, BENCHMARKS, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise UserError(
        f"benchmark {name!r}: unknown{hint}; known are {', '.join(BENCHMARKS)}"
    )
