"""The table of benchmarks: who reads each, and the numbers that go with it."""

import dataclasses
import difflib

from jaxnlt.data import choice, imbalance
from jaxnlt.data.readers import (
    animal10n,
    cifar,
    cifar_human,
    clothing1m,
    digits,
    folder,
    food101n,
    nlt,
    npz,
    red_mini_imagenet,
    tfds,
    webvision,
)
from jaxnlt.data.records import Benchmark
from jaxnlt.runtime import tables
from jaxnlt.runtime.errors import UserError

#: Fields of ``config.data`` that all benchmarks of streamed images use.
_STREAMED = frozenset(
    {"path", "image_size", "transform", "on_bad_image", "workers"}
)

# Constants of both CIFARs: ``papers/dasc.md`` section 2.
_CIFAR10 = Benchmark(
    name="cifar10",
    about="CIFAR-10: 10 kinds of things, 32x32; files on disk are needed",
    read=cifar.read,
    noises=cifar_human.noises(
        "human:aggre",
        "human:worse",
        "human:random1",
        "human:random2",
        "human:random3",
    ),
    asym=True,
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
    noises=cifar_human.noises("human:noisy"),
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
    about="your own images, or features, in one .npz file "
    "(--config.data.path=FILE.npz)",
    read=npz.read_images,
)

# Constants of ImageNet: ``papers/smr.md`` section 3.  The host crops, the
# device mirrors and applies policies.
_ON_DISK = Benchmark(
    name="images",
    about="your own large images as DIR/train/CLASS/*.jpg, streamed from disk",
    read=folder.read_listed,
    fields=_STREAMED | {"labels_file"},
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
# H2E's settings: ``papers/h2e.md`` sections 2 and 9.
_NLT = dataclasses.replace(
    _ON_DISK,
    name="imagenet_nlt",
    about="ImageNet-NLT, from a manifest of jaxnlt.data.build_nlt",
    read=nlt.read,
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
        about="mini WebVision 1.0: 50 classes of images from the web",
        read=webvision.read,
        fields=_STREAMED,
        tail=imbalance.natural_tail,
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
    # ``papers/dividemix_rolt.md`` sections 1 and 2.2, ``papers/smr.md``
    # sections 2 and 3.
    dataclasses.replace(
        _ON_DISK,
        name="clothing1m",
        about="Clothing1M: a million images of 14 kinds of clothes",
        read=clothing1m.read,
        fields=_STREAMED,
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
    # ``papers/smr.md`` sections 2 and 3.
    dataclasses.replace(
        _ON_DISK,
        name="animal10n",
        about="ANIMAL-10N: 10 animals that are easily confused, 64x64",
        read=animal10n.read,
        fields=_STREAMED,
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
        about="Food-101N: 101 dishes from the web, tested on Food-101",
        read=food101n.read,
        fields=_STREAMED,
        num_classes=101,
        transform="food101n",
        homepage="https://kuanghuei.github.io/Food-101N/",
    ),
    # ``papers/dasc.md`` sections 1.3, 2 and 4: 32 pixels, padded and cropped on
    # the device; the policy is CIFAR's.  DaSC and TABASCO jitter the colours in
    # every view.
    dataclasses.replace(
        _ON_DISK,
        name="red_mini_imagenet",
        about="red mini-ImageNet: 100 classes with images from the web, 32x32",
        read=red_mini_imagenet.read,
        fields=_STREAMED,
        noises=red_mini_imagenet.NOISES,
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
    Benchmark(
        name="digits",
        about="scikit-learn's 8x8 handwritten digits; nothing to download",
        read=digits.read,
        fields=frozenset(),
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
        short=True,
        dev_n_max=104,
        dev_per_class=30,
        homepage="https://scikit-learn.org/stable/datasets/toy_dataset.html",
    ),
    dataclasses.replace(
        _NPZ,
        fits=npz.holds_images,
        fields=frozenset({"path", "mean", "std"}),
        otherwise="features",
        misfit="holds features in place of images",
    ),
    dataclasses.replace(
        _NPZ,
        name="features",
        about="your own features, of any encoder, in one .npz file "
        "(--config.data.path=FILE.npz)",
        read=npz.read_features,
        weak="feature_jitter",
        strong="feature_jitter_dropout",
        model="mlp",
        batch_size=32,
        warmup_batch_size=32,
        epochs=40,
        short=True,
        # Chosen on held-out rows, docs/results.md.
        learning_rate=0.005,
        weight_decay=5e-3,
    ),
    dataclasses.replace(
        _NPZ,
        name="folder",
        about="your own images as DIR/train/CLASS/*.jpg "
        "(--config.data.path=DIR)",
        read=folder.read_decoded,
        choose=choice.choose,
        lister="images",
        fields=_STREAMED | {"labels_file"},
        model="",
        weak="",
        strong="",
        batch_size=0,
        warmup_batch_size=0,
    ),
    dataclasses.replace(
        _NPZ,
        name="tfds",
        about="any tensorflow-datasets set of which an array_record copy is on "
        "disk (--config.data.name=NAME)",
        read=tfds.read,
        fields=frozenset({"path", "name", "image_size"}),
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


def register(entry: Benchmark) -> None:
    """Adds a benchmark; called where the module of a method is imported.

    Args:
      entry: its reader is ``entry.read``, from a ``ReadRequest`` to a
        ``Source``.

    Raises:
      UserError: another benchmark has the name, or it is no name.
    """
    tables.add(BENCHMARKS, "benchmark", entry.name, entry)


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
