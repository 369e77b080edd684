"""CIFAR-10 and CIFAR-100 in one of three layouts, tried in this order.

The folder of python batches (``cifar-10-batches-py/`` with ``data_batch_1`` to
``data_batch_5``, ``test_batch``, ``batches.meta``; ``cifar-100-python/`` with
``train``, ``test``, ``meta``), its tar.gz, or a tensorflow-datasets copy
``cifar10/VERSION/`` in array_record format.  In every layout an image keeps its
official index: its place in the python batches.
"""

import gzip
import pathlib
import tarfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxnlt.data import untrusted
from jaxnlt.data.readers import lists, pickles, tfds_copy
from jaxnlt.data.records import (
    Benchmark,
    ReadRequest,
    Source,
    Split,
    labels_array,
)
from jaxnlt.runtime import paths
from jaxnlt.runtime.errors import UserError, logger

SIZE, CHANNELS = 32, 3


class _Layout(NamedTuple):
    """The python version of one of the two data sets.

    Attributes:
      train: names of the files with training images.
      test: names of the files with test images.
      meta: name of the file with class names.
      labels: key of the labels in the files of images.
      names: key of the class names.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    labels: str
    names: str


_LAYOUTS = {
    "cifar10": _Layout(
        train=tuple(f"data_batch_{k}" for k in range(1, 6)),
        test=("test_batch",),
        meta="batches.meta",
        labels="labels",
        names="label_names",
    ),
    "cifar100": _Layout(
        train=("train",),
        test=("test",),
        meta="meta",
        labels="fine_labels",
        names="fine_label_names",
    ),
}


def _layout(bench: Benchmark) -> _Layout:
    return _LAYOUTS[_family(bench)]


def _family(bench: Benchmark) -> str:
    """Name of the tensorflow-datasets copy, shared with the human labels."""
    return bench.files[-1]


def read(request: ReadRequest) -> Source:
    """Reads a CIFAR.

    Args:
      request: ``path``, the folder that holds one of the layouts, or the
        layout itself; '' searches the usual places.

    Returns:
      The source, ``images`` uint8 [N, 32, 32, 3], ids the official indices.

    Raises:
      UserError: not found, truncated, incomplete or not a CIFAR.
    """
    bench = request.benchmark
    batches, archive, tfds = bench.files
    roots = lists.usual_places()
    if request.path:
        roots = [lists.existing(request.path)]
    remarks: list[str] = []
    routes: list[tuple[Callable[..., Source], list[pathlib.Path]]] = [
        (_read_folder, [f for r in roots for f in (r / batches, r)]),
        (_read_archive, [f for r in roots for f in (r / archive, r)]),
        (_read_tfds, [f for r in roots for f in (r / tfds, r)]),
    ]
    for route, candidates in routes:
        for candidate in candidates:
            if _fits(route, candidate, bench, remarks):
                logger.info("%s: reading %s", bench.name, candidate)
                return route(candidate, bench)
    looked = ", ".join(str(r) for r in roots)
    extra = f" ({'; '.join(remarks)})" if remarks else ""
    raise UserError(
        f"config.data.path: {bench.name} not found, looked for {batches}, "
        f"{archive} and a tensorflow-datasets copy {tfds}/VERSION in {looked}"
        f"{extra}; python -m jaxnlt.data.download --dataset={_family(bench)} "
        f"fetches it, {bench.homepage} describes it"
    )


def _fits(
    route: Callable[..., Source],
    path: pathlib.Path,
    bench: Benchmark,
    remarks: list[str],
) -> bool:
    if route is _read_folder:
        # One file is enough; that others are missing is reported later.
        layout = _layout(bench)
        named = (layout.meta, *layout.train, *layout.test)
        return any((path / name).exists() for name in named)
    if route is _read_archive:
        return path.exists() and path.name.endswith((".tar.gz", ".tgz"))
    version = tfds_copy.newest(path)
    if version is None:
        return False
    try:
        info = tfds_copy.description(version)
    except UserError as error:
        remarks.append(str(error))
        return False
    if info.get("name") != _family(bench):
        return False
    if tfds_copy.ARRAY_RECORD not in tfds_copy.formats(info):
        remarks.append(
            f"{version} is in {info.get('fileFormat')} format, only "
            "array_record can be read without TensorFlow"
        )
        return False
    return True


def _read_folder(path: pathlib.Path, bench: Benchmark) -> Source:
    def content(name: str) -> bytes:
        return untrusted.read_bytes(path / name, pickles.LIMIT)

    return _assemble(content, path, bench)


def _read_archive(path: pathlib.Path, bench: Benchmark) -> Source:
    layout = _layout(bench)
    wanted = {layout.meta, *layout.train, *layout.test}
    members: dict[str, bytes] = {}
    with paths.open_regular(path) as packed:
        limit = untrusted.unpack_limit(path.stat().st_size)
        try:
            with gzip.open(packed) as unpacked:
                raw = untrusted.Bounded(unpacked, limit)
                with tarfile.open(fileobj=raw, mode="r|") as archive:
                    for member in archive:
                        name = pathlib.PurePosixPath(member.name).name
                        if member.isreg() and name in wanted:
                            file = archive.extractfile(member)
                            assert file is not None, "a regular file"
                            members[name] = file.read()
                # tarfile stops at its end mark; the checksum comes after it.
                while raw.read(1 << 20):
                    pass
        # A damaged archive fails in any of the ways of tarfile and zlib.
        except Exception as error:
            raise UserError(
                f"{path}: truncated or damaged archive ({error})"
            ) from None

    def content(name: str) -> bytes:
        if name not in members:
            raise UserError(f"{path}: holds no {name}; truncated archive?")
        return members[name]

    return _assemble(content, path, bench)


def _assemble(
    content: Callable[[str], bytes], path: pathlib.Path, bench: Benchmark
) -> Source:
    """Joins the parts of the python version, in official order."""
    layout = _layout(bench)

    def split(names: tuple[str, ...]) -> Split:
        images, labels = [], []
        for name in names:
            where = path / name
            batch = _keys(pickles.loads(content(name), where), where)
            images.append(_images(batch, where))
            labels.append(
                _labels(batch, layout.labels, len(images[-1]), bench, where)
            )
        return _split(
            # concatenate would keep the planes' memory order.
            np.ascontiguousarray(np.concatenate(images)),
            np.concatenate(labels),
        )

    train, test = split(layout.train), split(layout.test)
    where = path / layout.meta
    meta = _keys(pickles.loads(content(layout.meta), where), where)
    listed = meta.get(layout.names)
    if not isinstance(listed, list) or not all(
        isinstance(name, str | bytes) for name in listed
    ):
        raise UserError(f"{where}: holds no list {layout.names}")
    names = tuple(_text(name) for name in listed)
    if len(names) != bench.num_classes:
        raise UserError(
            f"{where}: names {len(names)} classes, {bench.name} has "
            f"{bench.num_classes}"
        )
    return Source(train, test, names, str(path))


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    return Split(images, labels, labels, np.arange(len(labels)))


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _keys(content: Any, where: pathlib.Path) -> Mapping[str, Any]:
    if not isinstance(content, dict):
        raise UserError(f"{where}: not a batch of CIFAR (no dictionary)")
    return {_text(key): value for key, value in content.items()}


def _images(batch: Mapping[str, Any], where: pathlib.Path) -> np.ndarray:
    rows = batch.get("data")
    width = SIZE * SIZE * CHANNELS
    if (
        not isinstance(rows, np.ndarray)
        or rows.dtype != np.uint8
        or rows.ndim != 2
        or rows.shape[1] != width
        or not len(rows)
    ):
        raise UserError(f"{where}: data must be uint8 rows of {width} numbers")
    planes = rows.reshape(-1, CHANNELS, SIZE, SIZE)
    return planes.transpose(0, 2, 3, 1)


def _labels(
    batch: Mapping[str, Any],
    key: str,
    size: int,
    bench: Benchmark,
    where: pathlib.Path,
) -> np.ndarray:
    if key not in batch:
        raise UserError(f"{where}: holds no {key}; not {bench.name}?")
    labels = lists.integers(f"{where}: {key}", batch[key])
    if labels.dtype.kind not in "iu" or labels.shape != (size,):
        raise UserError(f"{where}: {key} must be {size} integers")
    assert bench.num_classes is not None
    if labels.min() < 0 or labels.max() >= bench.num_classes:
        raise UserError(f"{where}: {key} must be in 0..{bench.num_classes - 1}")
    return labels_array(labels)


def _read_tfds(path: pathlib.Path, bench: Benchmark) -> Source:
    version = tfds_copy.newest(path)
    assert version is not None, "found by _fits"
    with tfds_copy.reading(version), tfds_copy.quiet() as tfds:
        builder = tfds_copy.opened(tfds, version)
        splits = {
            name: _tfds_split(builder.as_data_source(split=name))
            for name in ("train", "test")
        }
        names = tuple(builder.info.features["label"].names)
    return Source(splits["train"], splits["test"], names, str(version))


def _tfds_split(source: Any) -> Split:
    """Puts shuffled records in order; ``id`` holds the official index."""
    count = len(source)
    images = np.empty((count, SIZE, SIZE, CHANNELS), np.uint8)
    labels = np.empty(count, np.int32)
    seen = np.zeros(count, bool)
    for record in source:
        index = int(_text(record["id"]).rsplit("_", 1)[1])
        images[index], labels[index] = record["image"], record["label"]
        seen[index] = True
    if not seen.all():
        raise ValueError(f"{int((~seen).sum())} of {count} ids are missing")
    return _split(images, labels)
