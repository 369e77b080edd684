"""Loads a benchmark: reads it, draws its long tail and its label noise."""

import dataclasses
import math

import ml_collections
import numpy as np

from jaxnlt.data import (
    decode,
    files,
    fingerprint,
    folds,
    imbalance,
    noise,
    readable,
    registry,
)
from jaxnlt.data.records import (
    HELD_OUT,
    Benchmark,
    Dataset,
    Description,
    NoiseRequest,
    ReadRequest,
    Source,
    Split,
    classes_known,
    labels_array,
    verdicts,
)
from jaxnlt.runtime.errors import UserError, logger, one_of

# Without a test set about a tenth of the training set is held out: never less
# than a twentieth, and of a class of 30 images 10, so that it can tell.
_HELD_OUT, _LEAST_SHARE = 0.1, 0.05
_LEAST, _LARGE = 10, 30
# Images whose pixels are counted at a time.
_COUNTED = 1 << 10
# How many names a message lists.
_NAMED = 10
# Fields of config.data that not every benchmark uses, and their defaults.
_OPTIONAL = {
    "path": "",
    "labels_file": "",
    "name": "",
    "mean": (),
    "std": (),
    "image_size": 0,
    "transform": "",
    "on_bad_image": "stop",
    "workers": 0,
}


def check(config: ml_collections.ConfigDict) -> None:
    """Checks against the benchmark, without reading any file.

    Types and ranges of the fields are checked by ``config.base.check``.

    Args:
      config: see ``dataset``.

    Raises:
      UserError: unknown benchmark, long tail or noise, a development set that
        the benchmark does not have, or a field that it does not use.
    """
    bench = registry.get(config.benchmark)
    data = config.data
    imbalance.check(data.imb, data.imb_type)
    _check_noise(bench, data.noise)
    own = bench.own_noise(data.noise)
    used = bench.fields | (own.fields if own else frozenset())
    for field, unset in _OPTIONAL.items():
        if data[field] != unset and field not in used:
            entries = registry.BENCHMARKS.values()
            users = [entry.name for entry in entries if field in entry.fields]
            raise UserError(
                f"config.data.{field}: {bench.name} with noise={data.noise} "
                f"does not use it; {', '.join(users)} do"
            )
    statistics(bench, data.statistics)
    _check_given_statistics(data)
    if bench.transform:
        one_of("config.data.transform", data.transform, decode.TRANSFORMS)
    if data.noise_file and own and own.adds_images:
        raise UserError(
            "config.data.noise_file: does not hold the images that noise="
            f"{data.noise} adds; repeat the run by its data_seed"
        )
    if config.split == "dev" and bench.dev_n_max is None:
        raise UserError(
            f"config.split: {bench.name} has no development set; put the "
            "images to tune on into its test set"
        )


def _check_noise(bench: Benchmark, kind: str) -> None:
    if bench.own_noise(kind):
        return
    entries = registry.BENCHMARKS.values()
    homes = [entry.name for entry in entries if entry.own_noise(kind)]
    if homes:
        raise UserError(
            f"config.data.noise: {kind} exists for {', '.join(homes)} only"
        )
    one_of("config.data.noise", kind, [*noise.SYNTHETIC, *bench.noises])
    if kind == "asym" and not bench.asym:
        raise UserError(
            f"config.data.noise: asym needs a class map, which {bench.name} "
            "lacks; take flip"
        )


def dataset(config: ml_collections.ConfigDict) -> Dataset:
    """Reads a benchmark, draws its long tail and its noise.

    The order of the draws is that of the golden file dasc_dataset_build.

    Args:
      config: the whole configuration; ``benchmark``, ``seed``, ``data_seed``,
        ``split``, ``data`` and the folds in ``audit`` are read.

    Returns:
      The data set; equal configs give equal arrays.

    Raises:
      UserError: a field, a file or a class is wrong; see ``check``.
    """
    check(config)
    bench, data = registry.get(config.benchmark), config.data
    request = read_request(config)
    source = bench.read(request)
    if request.skip_bad:
        source = readable.without_unreadable(source, data.workers)
    seed = _data_seed(config)
    _warn_lacking(source)
    pool, test, test_kind = source.train, source.test, "test"
    if test is None:
        pool, test = _hold_out(source, np.random.RandomState(seed))
        test_kind = HELD_OUT
    # The long tail is one of true classes where they are known.
    true = pool.true_labels
    if true is None or not classes_known(true):
        true = pool.labels
    rng = np.random.RandomState(seed)
    kept, unused = _draw_long_tail(config, bench, true, source, rng)
    if config.split == "dev":
        test = pool.take(_dev_rows(bench, unused, source.class_names))
        test_kind = "dev"
    by_class = np.concatenate(kept)
    rows = np.sort(by_class)
    train = pool.take(rows)
    _warn_empty(train.labels, source.class_names, "the long tail")
    given = NoiseRequest(request, source, train, data.rate, rng)
    order = np.searchsorted(rows, by_class)
    train, fold_of = _add_noise(config, given, order), None
    count = config.audit.out_of_sample or config.audit.folds
    if count:
        fold_of = folds.assigned(train.labels, count, seed)
        folds.warn_single(train.labels, fold_of, source.class_names)
    if config.audit.fold:
        # What is left out takes the place of every test set.
        test = train.take(np.flatnonzero(fold_of == config.audit.fold))
        train = train.take(np.flatnonzero(fold_of != config.audit.fold))
        source = dataclasses.replace(source, more_tests={})
        test_kind = HELD_OUT
    if not request.skip_bad:
        used = {"train": train, "test": test, **source.more_tests}
        readable.refuse_unreadable(used, data.workers)
    mean, std = statistics(bench, data.statistics)
    if data.mean:
        channels = train.images.shape[-1]
        mean = _for_channels(data.mean, channels, "mean")
        std = _for_channels(data.std, channels, "std")
    if mean is None or std is None:
        mean, std = _mean_and_std(train.images)
    train, test = _cut(train, config), _cut(test, config)
    return Dataset(
        train=train,
        test=test,
        class_names=source.class_names,
        mean=mean,
        std=std,
        test_kind=test_kind,
        description=_describe(config, source, train, test, test_kind),
        more_tests={n: _cut(s, config) for n, s in source.more_tests.items()},
        top5=bench.top5,
        source_sha256=fingerprint.of_source(source),
        unreadable=source.unreadable,
        fold_of=fold_of,
    )


def read_request(config: ml_collections.ConfigDict) -> ReadRequest:
    """What the reader of a configuration is asked for.

    Args:
      config: ``benchmark`` and ``data`` are read.
    """
    data = config.data
    return ReadRequest(
        registry.get(config.benchmark),
        path=data.path,
        labels_file=data.labels_file,
        image_size=data.image_size,
        transform=data.transform,
        name=data.name,
        noise=data.noise,
        skip_bad=data.on_bad_image == "skip",
    )


def statistics(
    bench: Benchmark, name: str
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and deviation of a benchmark, or of the one of another name."""
    if not name:
        return bench.mean, bench.std
    known = {
        entry.name: entry
        for entry in registry.BENCHMARKS.values()
        if entry.mean and entry.channels == bench.channels
    }
    if not known:
        raise UserError(
            f"config.data.statistics: {bench.name} takes no other benchmark's; "
            "leave it empty"
        )
    one_of("config.data.statistics", name, known)
    return known[name].mean, known[name].std


def _check_given_statistics(data: ml_collections.ConfigDict) -> None:
    if bool(data.mean) != bool(data.std):
        lacking = "std" if data.mean else "mean"
        raise UserError(
            f"config.data.{lacking}: is empty; mean and std are given both or "
            "neither"
        )


def _for_channels(
    values: tuple[float, ...], channels: int, field: str
) -> tuple[float, ...]:
    """One number a channel, from one for all or from as many."""
    if len(values) not in (1, channels):
        raise UserError(
            f"config.data.{field}: expects one number, or {channels} for the "
            f"channels of the images, is {values}"
        )
    return tuple(map(float, values)) * (channels // len(values))


def _data_seed(config: ml_collections.ConfigDict) -> int:
    return config.seed if config.data_seed == -1 else config.data_seed


def _draw_long_tail(
    config: ml_collections.ConfigDict,
    bench: Benchmark,
    true: np.ndarray,
    source: Source,
    rng: np.random.RandomState,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Kept and unused rows of each class, in the order of the draws."""
    dev = config.split == "dev"
    available = np.bincount(true, minlength=len(source.class_names))
    n_max = config.data.n_max or (bench.dev_n_max if dev else bench.n_max)
    if n_max is None:
        # The user's files keep their sizes unless imb asks for others.
        n_max = int(available.max())
    imb = config.data.imb
    counts = bench.tail(available, n_max, imb, config.data.imb_type)
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
    bench: Benchmark,
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
    """Takes a part of the training set as test set, with its given labels.

    The part that the files mark, else one that is as balanced over the classes
    as its size allows.
    """
    labels, names = source.train.labels, source.class_names
    out, origin = source.held_out, "as the file of labels marks them"
    if out is None:
        counts = np.bincount(labels, minlength=len(names))
        sizes = held_out_sizes(counts)
        if not sizes.any():
            raise UserError(
                f"{source.path}: no test set, and one image a class leaves "
                "none to hold out"
            )
        out = np.zeros(len(labels), bool)
        for k in np.flatnonzero(sizes):
            members = np.flatnonzero(labels == k)
            rng.shuffle(members)
            out[members[: sizes[k]]] = True
        _warn_whole(names, counts, sizes)
        few, many = sizes[sizes > 0].min(), sizes.max()
        origin = f"{few} a class" if few == many else f"{few}-{many} a class"
    logger.info(
        "%s: no test set; %d training images, %s, are held out and replace it "
        "with their given labels",
        source.path,
        out.sum(),
        origin,
    )
    rows = np.arange(len(labels))
    return source.train.take(rows[~out]), source.train.take(rows[out])


def held_out_sizes(counts: np.ndarray) -> np.ndarray:
    """How many images of each class are held out.

    Of every class the same number, about a tenth of the mean class, but of
    none more than a third; at least 10 of a class with 30 images.  Smaller
    classes stay whole, and all give the same, as long as a twentieth of the
    set is reached.

    Args:
      counts: int [C] images of each class.

    Returns:
      int [C]; 0 for a class that stays whole.
    """
    total, sizes = counts.sum(), np.zeros_like(counts)
    for smallest in (_LARGE, 2):
        room = np.where(counts >= smallest, np.maximum(counts // 3, 1), 0)
        if room.sum() >= _LEAST_SHARE * total:
            break
    if not room.any():
        return sizes
    size = math.ceil(_HELD_OUT * total / len(counts))
    size = min(size, int(room[room > 0].min()))
    least = np.where(counts >= _LARGE, _LEAST, 0)
    while True:
        sizes = np.minimum(np.maximum(size, least), room)
        if sizes.sum() >= _LEAST_SHARE * total or size >= room.max():
            return sizes
        size += 1


def _warn_whole(
    names: tuple[str, ...], counts: np.ndarray, sizes: np.ndarray
) -> None:
    """One warning for the classes of which nothing is held out."""
    whole = np.flatnonzero((sizes == 0) & (counts > 0))
    if len(whole):
        listed = [f"{names[k]} ({counts[k]})" for k in whole[:_NAMED]]
        logger.warning(
            "%d classes are too small for a part to be held out and stay whole "
            "in training: %s",
            len(whole),
            ", ".join(listed + ["..."] * (len(whole) > _NAMED)),
        )


def _warn_lacking(source: Source) -> None:
    """One warning for each test set that lacks classes."""
    tests = {} if source.test is None else {"test": source.test}
    for name, split in {**tests, **source.more_tests}.items():
        counts = np.bincount(split.labels, minlength=len(source.class_names))
        lacking = np.flatnonzero(counts == 0)
        if len(lacking):
            listed = [source.class_names[k] for k in lacking[:_NAMED]]
            logger.warning(
                "%s: the set %s holds no image of %d classes: %s",
                source.path,
                name,
                len(lacking),
                ", ".join(listed + ["..."] * (len(lacking) > _NAMED)),
            )


def _add_noise(
    config: ml_collections.ConfigDict, given: NoiseRequest, order: np.ndarray
) -> Split:
    """The training set with its noisy labels.

    ``order`` lists the rows of the training set class by class.
    """
    data, train = config.data, given.train
    names = given.source.class_names
    own = given.request.benchmark.own_noise(data.noise)
    if data.noise_file:
        labels = noise.read_noise(data.noise_file, train, given.source)
        noisy = dataclasses.replace(train, labels=labels)
    elif own is not None:
        noisy = own.apply(given)
    elif data.noise == "none":
        noisy = train
    else:
        if data.noise not in noise.CLASS_BY_CLASS:
            order = np.arange(len(train))
        labels = np.empty(len(train), np.int32)
        labels[order] = noise.draw(
            data.noise,
            train.labels[order],
            len(names),
            data.rate,
            _data_seed(config),
            given.rng,
        )
        # The labels of the user's files count as true where noise is drawn.
        true = train.labels if train.true_labels is None else train.true_labels
        noisy = dataclasses.replace(
            train, labels=labels, true_labels=labels_array(true)
        )
    before = np.bincount(train.labels, minlength=len(names))
    _warn_empty(noisy.labels, names, "the noise", before)
    return noisy


def _cut(split: Split, config: ml_collections.ConfigDict) -> Split:
    """The same split; image files know how they are cut."""
    transform = decode.transform_of(config)
    if isinstance(split.images, files.ImageFiles):
        assert transform is not None, "benchmarks of files have a transform"
        images = files.CutImages(split.images, transform)
        return dataclasses.replace(split, images=images)
    # Of one benchmark of files another form is read into memory.
    size, wanted = split.images.shape[1], config.data.image_size
    if transform is not None and wanted not in (0, size):
        raise UserError(
            f"config.data.image_size: the images have {size} pixels and are "
            "held in memory as they are"
        )
    return split


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


def _mean_and_std(
    images: np.ndarray,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per channel in [0, 1] image units, or per feature."""
    if images.ndim == 2:
        return _feature_statistics(images)
    # Histograms, of some images at a time: bincount counts in int64.
    histograms = np.zeros((images.shape[-1], 256), np.int64)
    for start in range(0, len(images), _COUNTED):
        some = images[start : start + _COUNTED]
        for channel, counts in enumerate(histograms):
            counts += np.bincount(some[..., channel].ravel(), minlength=256)
    mean, std = [], []
    for counts in histograms:
        share, value = counts / counts.sum(), np.arange(256) / 255
        centre = float(share @ value)
        spread = math.sqrt(share @ (value - centre) ** 2)
        mean.append(centre)
        # A constant channel carries nothing; dividing by 1 keeps it at 0.
        std.append(spread or 1.0)
    return tuple(mean), tuple(std)


def _feature_statistics(
    rows: np.ndarray,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every column, in float64."""
    mean = rows.mean(axis=0, dtype=np.float64)
    std = rows.std(axis=0, dtype=np.float64)
    # Rounding gives a constant feature a deviation; see ``_mean_and_std``.
    constant = (rows == rows[0]).all(axis=0) | (std < np.finfo(np.float32).tiny)
    return tuple(mean.tolist()), tuple(np.where(constant, 1.0, std).tolist())


def _describe(
    config: ml_collections.ConfigDict,
    source: Source,
    train: Split,
    test: Split,
    test_kind: str,
) -> Description:
    classes = len(source.class_names)
    true, data = train.true_labels, config.data
    from_file = bool(data.noise_file)
    verified, wrong = verdicts(train)
    counts_true = None
    if true is not None and classes_known(true):
        counts_true = tuple(np.bincount(true, minlength=classes).tolist())
    rate = None
    if verified.any():
        rate = float(wrong.sum() / verified.sum())
    return Description(
        benchmark=config.benchmark,
        source=source.path,
        data_seed=_data_seed(config),
        imb=data.imb,
        imb_type=data.imb_type,
        noise=f"file:{data.noise_file}" if from_file else data.noise,
        noise_rate_asked=None if from_file else data.rate,
        noise_rate_realised=rate,
        counts_given=tuple(
            np.bincount(train.labels, minlength=classes).tolist()
        ),
        counts_true=counts_true,
        n_train=len(train),
        n_test=len(test),
        test_kind=test_kind,
        image_shape=tuple(train.images.shape[1:]),
        n_more_tests={n: len(s) for n, s in source.more_tests.items()},
        n_unreadable=source.n_unreadable,
    )
