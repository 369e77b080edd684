"""The table of data sets and the numbers that go with each."""

import dataclasses
import difflib

from jaxnlt.runtime.errors import UserError


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
      model: name of the network.
      width: channels of the network's first stage; 0 takes the published.
      blocks: residual blocks of each stage; none take the published.
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
      transform: name in ``files.TRANSFORMS`` of the way in which images that
        stay on disk are cut; '' where all are held in memory.
      files: usual names of its files, in the order in which they are tried.
      labels_files: usual names of its files of human labels.
      top5: whether its papers tell top-5 accuracies.
      homepage: where it is officially described.
      reader: file in jaxnlt/data/readers/ whose ``source`` reads it, or
        FILE:FUNCTION.
      family: set whose human labels and class maps its noise uses.
      resizes: whether images are resized to ``config.data.image_size``.
      named: whether ``config.data.name`` chooses among several sets.
      takes_labels_file: whether ``config.data.labels_file`` lists its labels.
      natural_tail: whether its own class sizes go on with the long tail.
      web_noise: whether its noise adds images from the web.
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
    model: str = "preact_resnet18"
    width: int = 0
    blocks: tuple[int, ...] = ()
    batch_size: int = 64
    warmup_batch_size: int = 128
    eval_batch_size: int = 256
    epochs: int = 101
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
    reader: str = "images"
    family: str = ""
    resizes: bool = False
    named: bool = False
    takes_labels_file: bool = False
    natural_tail: bool = False
    web_noise: bool = False


# Constants of both CIFARs: ``papers/dasc.md`` section 2.
_CIFAR10 = Benchmark(
    name="cifar10",
    reader="cifar",
    family="cifar10",
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
    family="cifar100",
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
    reader="user:npz_source",
    about="your own images in one .npz file (--config.data.path=FILE.npz)",
)

# Constants of ImageNet: ``papers/smr.md`` section 3.  Crops are the host's,
# mirror images and policies the device's.
_ON_DISK = Benchmark(
    name="images",
    resizes=True,
    takes_labels_file=True,
    about="your own large images as DIR/train/CLASS/*.jpg, streamed from disk",
    channels=3,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    weak="flip",
    strong="flip_autoaugment",
    model="resnet18",
    batch_size=32,
    warmup_batch_size=64,
    transform="images",
)
# H2E's settings: ``papers/h2e.md`` section 2, section 9.
_NLT = dataclasses.replace(
    _ON_DISK,
    name="imagenet_nlt",
    reader="nlt",
    about="ImageNet-NLT, from a manifest of jaxnlt.data.build_nlt",
    num_classes=100,
    weak="flip_rotate",
    strong="flip_rotate_randaugment_pypi",
    transform="imagenet_nlt",
    homepage="https://github.com/yxymessi/H2E-Framework",
)
_LARGE = (
    _ON_DISK,
    _NLT,
    dataclasses.replace(
        _NLT,
        name="animal10_nlt",
        about="Animal10-NLT, from a manifest of jaxnlt.data.build_nlt",
        num_classes=10,
        transform="animal10_nlt",
    ),
    dataclasses.replace(
        _NLT,
        name="food101_nlt",
        about="Food101-NLT, from a manifest of jaxnlt.data.build_nlt",
        num_classes=101,
        transform="food101_nlt",
    ),
    # ``papers/dividemix_rolt.md`` section 1, ``papers/sfa.md`` section 4.
    dataclasses.replace(
        _ON_DISK,
        name="webvision",
        reader="webvision",
        takes_labels_file=False,
        natural_tail=True,
        about="mini WebVision 1.0: 50 classes of images from the web",
        num_classes=50,
        model="inception_resnet_v2",
        epochs=81,
        learning_rate=0.01,
        transform="webvision",
        # ``papers/smr.md`` section 12, ``papers/sfa.md`` section 8.
        top5=True,
        homepage="https://data.vision.ee.ethz.ch/cvl/webvision/"
        "dataset2017.html",
    ),
    # ``papers/dividemix_rolt.md`` section 1, section 2.2; ``papers/smr.md``
    # section 2, section 3.
    dataclasses.replace(
        _ON_DISK,
        name="clothing1m",
        reader="clothing1m",
        takes_labels_file=False,
        about="Clothing1M: a million images of 14 kinds of clothes",
        num_classes=14,
        mean=(0.6959, 0.6537, 0.6371),
        std=(0.3113, 0.3192, 0.3214),
        model="resnet50",
        epochs=81,
        learning_rate=0.002,
        weight_decay=1e-3,
        transform="clothing1m",
        homepage="https://github.com/Cysu/noisy_label",
    ),
    # ``papers/smr.md`` section 2, section 3.
    dataclasses.replace(
        _ON_DISK,
        name="animal10n",
        reader="animal10n",
        takes_labels_file=False,
        about="ANIMAL-10N: 10 animals that are easily confused, 64x64",
        num_classes=10,
        mean=(0.6959, 0.6537, 0.6371),
        std=(0.3113, 0.3192, 0.3214),
        model="vgg19_bn",
        batch_size=128,
        warmup_batch_size=256,
        epochs=201,
        learning_rate=0.01,
        weight_decay=1e-3,
        transform="animal10n",
        homepage="https://dm.kaist.ac.kr/datasets/animal-10n/",
    ),
    dataclasses.replace(
        _NLT,
        name="food101n",
        reader="food101n",
        takes_labels_file=False,
        about="Food-101N: 101 dishes from the web, tested on Food-101",
        num_classes=101,
        transform="food101n",
        homepage="https://kuanghuei.github.io/Food-101N/",
    ),
    # ``papers/dasc.md`` section 1.3, section 2, section 4: 32 pixels, padded
    # and cropped on the device; the policy is CIFAR's.  DaSC and TABASCO jitter
    # the colours in every view.
    dataclasses.replace(
        _ON_DISK,
        name="red_mini_imagenet",
        reader="red_mini_imagenet",
        takes_labels_file=False,
        web_noise=True,
        about="red mini-ImageNet: 100 classes with images from the web, 32x32",
        num_classes=100,
        weak="crop_jitter_flip",
        strong="crop_jitter_flip_autoaugment",
        imb=0.1,
        noise="red",
        rate=0.4,
        model="resnet18_small",
        batch_size=64,
        warmup_batch_size=128,
        transform="red_mini_imagenet",
        homepage="https://google.github.io/controlled-noisy-web-labels/",
    ),
)

_TABLE = (
    # Settings of the trial in.
    Benchmark(
        name="digits",
        reader="digits",
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
        reader="user:folder_source",
        resizes=True,
        takes_labels_file=True,
        about="your own images as DIR/train/CLASS/*.jpg "
        "(--config.data.path=DIR)",
    ),
    dataclasses.replace(
        _NPZ,
        name="tfds",
        reader="tfds",
        resizes=True,
        named=True,
        about="any tensorflow-datasets set of which an array_record copy is on "
        "disk (--config.data.name=NAME)",
        homepage="https://www.tensorflow.org/datasets",
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
    *_LARGE,
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
