"""Data sets, long tails and label noise: ``load(config)`` gives all of it."""

import importlib
import math
from typing import Any

import numpy as np

from jaxnlt.data import disk, files, imbalance, noise, registry
from jaxnlt.data.readers import cifar, human, tfds_copy
from jaxnlt.data.records import (
    Dataset,
    ReadRequest,
    Source,
    Split,
    labels_array,
)
from jaxnlt.runtime.errors import UserError, logger

# Of a training set without a test set about a tenth is held out.
_HELD_OUT = 0.1


def check(config: Any) -> None:
    """Refuses what can be refused without reading any file.

    Args:
      config: see ``load``.

    Raises:
      UserError: unknown benchmark, noise or split, a number out of range, or
        a field that the benchmark does not use.
    """
    bench = registry.get(config.benchmark)
    data = config.data
    imbalance.check_imb(data.imb, data.imb_type)
    if bench.web_noise and disk.is_web_noise(data.noise):
        noise.check("none", data.rate, bench.family)
    else:
        noise.check(data.noise, data.rate, bench.family)
    disk.check(config, bench)
    if data.noise_file and data.noise == disk.RED:
        raise UserError(
            "config.data.noise_file: does not hold the web images that "
            "noise=red adds; repeat the run by its data_seed"
        )
    if data.n_max < 0:
        raise UserError(f"config.data.n_max: must be >= 0, is {data.n_max}")
    if data.get("image_size", 0) < 0:
        raise UserError(
            f"config.data.image_size: must be >= 0, is {data.image_size}"
        )
    if data.get("image_size", 0) and not bench.resizes:
        raise UserError(
            f"config.data.image_size: {bench.name} keeps the size of its images"
        )
    if bench.named:
        tfds_copy.check_name(data.get("name", ""))
    elif data.get("name", ""):
        raise UserError(f"config.data.name: {bench.name} is a single set")
    if config.split not in ("", "dev"):
        raise UserError(
            f"config.split: must be '' or 'dev', is {config.split!r}"
        )
    if config.split == "dev" and bench.dev_n_max is None:
        raise UserError(
            f"config.split: {bench.name} has no development set; put the "
            "images to tune on into its test set"
        )
    human = data.noise.startswith("human:")
    if data.labels_file and not (bench.takes_labels_file or human):
        raise UserError(
            f"config.data.labels_file: {bench.name} does not take labels from "
            "a file; benchmarks of images and noise=human:* do"
        )
    if not 0 <= _data_seed(config) < 2**32:
        raise UserError(
            f"config.data_seed: must lie in 0..2**32-1, is {_data_seed(config)}"
        )


def dataset(config: Any) -> Dataset:
    """Reads a benchmark, draws its long tail and its noise.

    Args:
      config: ConfigDict with ``benchmark``, ``seed``, ``data_seed`` (None or
        -1: as ``seed``), ``split`` and ``data`` with ``path``, ``imb``,
        ``imb_type``, ``n_max``, ``noise``, ``rate``, ``noise_file``,
        ``labels_file``, ``on_bad_image``, ``workers``, ``transform`` and
        optionally ``image_size`` and ``name``.

    Returns:
      The data set; equal configs give equal arrays.

    Raises:
      UserError: whatever the user can mend, in one line.

    The order of the draws is that of the golden file dasc_dataset_build.
    """
    check(config)
    bench = registry.get(config.benchmark)
    source = read(_request(config, bench))
    seed = _data_seed(config)
    pool, test, test_kind = source.train, source.test, "test"
    if test is None:
        pool, test = _hold_out(source, np.random.RandomState(seed))
        test_kind = "held_out"
    # The long tail is one of true classes where they are known.
    true = pool.true_labels
    if true is None or not disk.classes_known(true):
        true = pool.labels
    rng = np.random.RandomState(seed)
    kept, unused = _draw_long_tail(config, bench, true, source, rng)
    if config.split == "dev":
        test = pool.take(_dev_rows(bench, unused, source.class_names))
        test_kind = "dev"
    rows = np.sort(np.concatenate(kept))
    train = pool.take(rows)
    _warn_empty(train.labels, source.class_names, "the long tail")
    by_class = np.concatenate(kept)
    train = _add_noise(config, bench, source, train, rows, by_class, rng)
    mean, std = bench.mean, bench.std
    if mean is None or std is None:
        mean, std = _moments(train.images)
    train, test = disk.cut(train, config), disk.cut(test, config)
    more = source.more_tests if isinstance(source, files.FileSource) else {}
    facts = _facts(config, source, train, test, test_kind, seed)
    if more:
        facts["n_more_tests"] = {name: len(s) for name, s in more.items()}
    return Dataset(
        train=train,
        test=test,
        class_names=source.class_names,
        mean=mean,
        std=std,
        test_kind=test_kind,
        facts=facts,
        more_tests={name: disk.cut(s, config) for name, s in more.items()},
        top5=bench.top5,
    )


def _data_seed(config: Any) -> int:
    given = config.get("data_seed")
    return config.seed if given is None or given == -1 else given


def _request(config: Any, bench: registry.Benchmark) -> ReadRequest:
    data = config.data
    return ReadRequest(
        benchmark=bench,
        path=data.path,
        labels_file=data.labels_file,
        image_size=data.get("image_size", 0),
        name=data.get("name", ""),
        noise=data.noise,
    )


def read(request: ReadRequest) -> Source:
    """Calls the reader that the benchmark's entry names.

    Args:
      request: the entry, and where its files are.

    Returns:
      The whole data set, before long tail and noise.

    Raises:
      UserError: something is missing or damaged; it is named.
    """
    file, _, function = request.benchmark.reader.partition(":")
    module = importlib.import_module(f"jaxnlt.data.readers.{file}")
    return getattr(module, function or "source")(request)


def _draw_long_tail(
    config: Any,
    bench: registry.Benchmark,
    true: np.ndarray,
    source: Source,
    rng: np.random.RandomState,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Kept and unused rows of each class, in the order of the draws."""
    classes = len(source.class_names)
    dev = config.split == "dev"
    available = np.bincount(true, minlength=classes)
    n_max = config.data.n_max or (bench.dev_n_max if dev else bench.n_max)
    if n_max is None:
        # The user's files, whose sizes are as they are unless imb says else.
        n_max = int(available.max())
    imb, imb_type = config.data.imb, config.data.imb_type
    if bench.natural_tail:
        capped = np.minimum(available, n_max)
        counts = imbalance.longer_tail(capped, imb, imb_type)
    else:
        counts = imbalance.class_counts(n_max, classes, imb, imb_type)
    short = np.flatnonzero(available < counts)
    if len(short) and imb not in (None, 1):
        k = int(short[0])
        logger.warning(
            "%d classes have fewer images than the long tail wants, the first "
            "is %s: %d of %d",
            len(short),
            source.class_names[k],
            available[k],
            counts[k],
        )
    return imbalance.draw_subset(true, counts, rng)


def _dev_rows(
    bench: registry.Benchmark,
    unused: list[np.ndarray],
    names: tuple[str, ...],
) -> np.ndarray:
    """Rows of the class-balanced development set, ascending."""
    size = bench.dev_per_class
    assert size is not None
    for name, rows in zip(names, unused, strict=True):
        if len(rows) < size:
            raise UserError(
                f"class {name}: split=dev needs {size} images that training "
                f"does not use, {len(rows)} are left; lower config.data.n_max"
            )
    # From the end, where no smaller n_max or imb reaches.
    return np.sort(np.concatenate([rows[-size:] for rows in unused]))


def _hold_out(
    source: Source, rng: np.random.RandomState
) -> tuple[Split, Split]:
    """Takes a class-balanced part of the training set as test set."""
    labels, names = source.train.labels, source.class_names
    counts = np.bincount(labels, minlength=len(names))
    single = np.flatnonzero(counts == 1)
    if len(single):
        logger.warning(
            "class %s has a single image, which stays in training: the "
            "held-out test set lacks %d of %d classes",
            names[single[0]],
            len(single),
            len(names),
        )
    several = counts[counts > 1]
    if not len(several):
        raise UserError(
            f"{source.path}: no test set, and one image a class leaves none "
            "to hold out"
        )
    # A balanced test set is as large as the smallest class lets it be.
    size = math.ceil(_HELD_OUT * len(labels) / len(names))
    size = max(1, min(size, int(several.min()) // 2))
    out = np.zeros(len(labels), bool)
    for k in np.flatnonzero(counts > 1):
        members = np.flatnonzero(labels == k)
        rng.shuffle(members)
        out[members[:size]] = True
    logger.info(
        "%s: no test set; %d training images, %d a class, are held out and "
        "stand in with their given labels",
        source.path,
        out.sum(),
        size,
    )
    rows = np.arange(len(labels))
    return source.train.take(rows[~out]), source.train.take(rows[out])


def _add_noise(
    config: Any,
    bench: registry.Benchmark,
    source: Source,
    train: Split,
    rows: np.ndarray,
    by_class: np.ndarray,
    rng: np.random.RandomState,
) -> Split:
    """The training set with its given labels."""
    data, classes = config.data, len(source.class_names)
    true = train.true_labels
    if data.noise_file:
        labels = noise.read_noise(
            data.noise_file, train.ids, classes, source.train.ids
        )
    elif data.noise == disk.RED:
        return disk.add_web(source, train, data.rate, rng)
    elif data.noise.startswith("human:"):
        labels = _human_labels(config, bench, source)[train.ids]
    elif data.noise == "none" or disk.is_web_noise(data.noise):
        labels = train.labels
    else:
        base = train.labels
        # What the user's files say counts as true when noise is asked for.
        true = base if true is None else true
        if data.noise in noise.CLASS_BY_CLASS:
            order = np.searchsorted(rows, by_class)
        else:
            order = np.arange(len(rows))
        labels = np.empty(len(rows), np.int32)
        labels[order] = noise.draw(
            data.noise,
            base[order],
            classes,
            data.rate,
            _data_seed(config),
            rng,
        )
    if labels is not train.labels:
        before = np.bincount(train.labels, minlength=classes)
        _warn_empty(labels, source.class_names, "the noise", before)
    return Split(
        train.images,
        labels_array(labels),
        None if true is None else labels_array(true),
        train.ids,
    )


def _human_labels(
    config: Any, bench: registry.Benchmark, source: Source
) -> np.ndarray:
    """Human labels of the whole official training set."""
    path = config.data.path
    if path:
        given = cifar.existing(path)
        places = [] if given.is_file() else [given]
        places.append(given.absolute().parent)
    else:
        places = cifar.usual_places()
    file = human.find(bench, config.data.labels_file, places)
    logger.info("%s: human labels from %s", bench.name, file)
    true = source.train.labels
    return human.read(file, config.data.noise, true, len(source.class_names))


def _warn_empty(
    labels: np.ndarray,
    names: tuple[str, ...],
    cause: str,
    before: np.ndarray | None = None,
) -> None:
    """One warning for the classes that are empty, and were not before."""
    gone = np.bincount(labels, minlength=len(names)) == 0
    if before is not None:
        gone &= before > 0
    if gone.any():
        listed = ", ".join(names[k] for k in np.flatnonzero(gone))
        logger.warning("%s left no training image labelled %s", cause, listed)


def _moments(
    images: np.ndarray,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, in [0, 1] image units."""
    mean, std = [], []
    for channel in range(images.shape[-1]):
        # A histogram: exact, and no float copy of the whole set.
        counts = np.bincount(images[..., channel].ravel(), minlength=256)
        share, value = counts / counts.sum(), np.arange(256) / 255
        centre = float(share @ value)
        spread = math.sqrt(share @ (value - centre) ** 2)
        mean.append(centre)
        # A constant channel carries nothing; dividing by 1 keeps it at 0.
        std.append(spread or 1.0)
    return tuple(mean), tuple(std)


def _facts(
    config: Any,
    source: Source,
    train: Split,
    test: Split,
    test_kind: str,
    seed: int,
) -> dict[str, Any]:
    """What every summary says about the data; plain JSON values."""
    classes = len(source.class_names)
    true, data = train.true_labels, config.data
    from_file = bool(data.noise_file)
    judged, wrong = files.verdicts(train)
    return {
        "benchmark": config.benchmark,
        "source": source.path,
        "data_seed": seed,
        "imb": data.imb,
        "imb_type": data.imb_type,
        "noise": f"file:{data.noise_file}" if from_file else data.noise,
        "noise_rate_asked": None if from_file else data.rate,
        # Of the labels that someone has judged.
        "noise_rate_realised": float(wrong.sum() / judged.sum())
        if judged.any()
        else None,
        "counts_given": np.bincount(train.labels, minlength=classes).tolist(),
        "counts_true": np.bincount(true, minlength=classes).tolist()
        if true is not None and disk.classes_known(true)
        else None,
        "n_train": len(train),
        "n_test": len(test),
        "test_kind": test_kind,
        "image_shape": list(train.images.shape[1:]),
    }
