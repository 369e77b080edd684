"""Any image classification set that tensorflow-datasets has prepared.

The copy ``NAME/[CONFIG/]VERSION/`` must be in array_record format; it is read
without TensorFlow.
"""

import concurrent.futures
import io
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from jaxnlt.data import decode
from jaxnlt.data.readers import lists, tfds_copy
from jaxnlt.data.records import ReadRequest, Source, Split, labels_array
from jaxnlt.runtime.errors import UserError, logger

_MODES = {1: "L", 3: "RGB"}
# Records parsed at once, and threads that decode them: decoding releases
# Python's lock.
_CHUNK, _THREADS = 512, 8


def read(request: ReadRequest) -> Source:
    """Reads a copy into memory.

    Args:
      request: ``name``, see ``tfds_copy.find``; ``path``, the folder of all
        copies, '' searches the usual places; ``image_size``.

    Returns:
      The source; ids are the feature ``id`` as text, or the places of the
      records (int64) where there is none.  The test set is the split ``test``,
      else ``validation``; None where neither has labels.

    Raises:
      UserError: no copy, or one in another format; it lacks a split ``train``
        or the features ``image`` and ``label``; a record is damaged; sizes
        differ; a class has no image.
    """
    roots = lists.usual_places()
    if request.path:
        roots = [lists.existing(request.path)]
    version = tfds_copy.find(request.name, roots)
    _check_format(version)
    with tfds_copy.quiet() as tfds:
        return _read(tfds, version, request.image_size)


def _check_format(version: pathlib.Path) -> None:
    kinds = tfds_copy.formats(tfds_copy.description(version))
    if tfds_copy.ARRAY_RECORD not in kinds:
        raise UserError(
            f"{version}: is in {kinds[0]} format, only array_record can be "
            "read without TensorFlow; where TensorFlow is installed, tfds "
            f"convert_format --dataset_version_dir={version} "
            "--out_file_format=array_record makes such a copy"
        )


def _read(tfds: Any, version: pathlib.Path, image_size: int) -> Source:
    with tfds_copy.reading(version):
        builder = tfds_copy.opened(tfds, version)
        features = dict(builder.info.features.items())
        splits = list(builder.info.splits)
    mode = _check_features(tfds, version, features)
    if "train" not in splits:
        raise UserError(
            f"{version}: has no split train, only {', '.join(splits)}"
        )
    # Encoded images are left as they are, for our own decoder.
    skip = {
        key: tfds.decode.SkipDecoding()
        for key, feature in features.items()
        if isinstance(feature, tfds.features.Image)
    }

    def part(split: str, shape: tuple[int, ...] | None) -> Split:
        with tfds_copy.reading(version):
            records = builder.as_data_source(
                split=split, decoders=skip, file_format=tfds_copy.ARRAY_RECORD
            )
        where = f"{version}: split {split}"
        chunks = _chunks(version, records)
        return _part(where, len(records), chunks, mode, shape, image_size)

    train = part("train", None)
    names = tuple(getattr(features["label"], "names", None) or ())
    if not names:
        where = f"{version}: split train"
        names = lists.numbered_classes(where, train.labels)
    lists.check_classes(f"{version}: split train", train.labels, names)
    test = None
    for split in ("test", "validation"):
        if test is None and split in splits:
            test = part(split, train.images.shape[1:3])
            if (test.labels < 0).all():
                logger.info("%s: split %s has no labels", version, split)
                test = None
            elif split == "validation":
                logger.info("%s: validation is the test set", version)
    if test is not None:
        lists.check_range(f"{version}: test set", test.labels, names)
        test = Split(test.images, test.labels, test.labels, test.ids)
    return Source(train, test, names, str(version))


def _check_features(
    tfds: Any, version: pathlib.Path, features: Mapping[str, Any]
) -> str:
    """Checks the features and gives Pillow's mode of the images."""
    image, label = features.get("image"), features.get("label")
    listed = ", ".join(
        f"{key} {type(features[key]).__name__}" for key in sorted(features)
    )
    if (
        not isinstance(image, (tfds.features.Image, tfds.features.Tensor))
        or image.np_dtype != np.uint8
        or len(image.shape) != 3
        or image.shape[-1] not in _MODES
        or not isinstance(label, tfds.features.Tensor)
        or label.shape != ()
        or np.dtype(label.np_dtype).kind not in "iu"
    ):
        raise UserError(
            f"{version}: needs the features image, of 8 bits and 1 or 3 "
            f"channels, and label, one class number; it has {listed}"
        )
    return _MODES[image.shape[-1]]


def _part(
    where: str,
    count: int,
    chunks: Iterator[list[tuple[int, Mapping[str, Any]]]],
    mode: str,
    shape: tuple[int, ...] | None,
    image_size: int,
) -> Split:
    """Decodes a split; ``shape`` None is that of the first image."""
    if not count:
        raise UserError(f"{where}: is empty")
    if image_size:
        shape = (image_size, image_size)
    images, labels, ids = None, [], []

    def pixels(item: tuple[int, Mapping[str, Any]]) -> np.ndarray:
        number, record = item
        try:
            with _opened(record["image"]) as image:
                converted = decode.shown(image, mode)
            found = decode.fit(converted, shape if image_size else None)
        # Pillow's decoders raise SyntaxError, struct.error and others too.
        except Exception as error:
            raise UserError(
                f"{where}: record {number}: unreadable image ({error})"
            ) from None
        return found.reshape(*found.shape[:2], -1)

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        for chunk in chunks:
            # map gives errors in the order of the records.
            for (number, record), found in zip(
                chunk, pool.map(pixels, chunk), strict=True
            ):
                if images is None:
                    shape = shape or found.shape[:2]
                    images = _empty(where, (count, *shape, found.shape[2]))
                if found.shape != images.shape[1:]:
                    raise UserError(
                        f"{where}: record {number}: is {found.shape[1]}x"
                        f"{found.shape[0]} pixels, the first image "
                        f"{images.shape[2]}x{images.shape[1]}; "
                        "--config.data.image_size=N resizes all to NxN"
                    )
                images[number] = found
                labels.append(int(record["label"]))
                ids.append(record.get("id"))
    return Split(images, labels_array(labels), None, _ids(where, ids))


def _opened(content: bytes | np.ndarray) -> Image.Image:
    """Opens an encoded feature Image, or a feature Tensor [H, W, C]."""
    if isinstance(content, bytes):
        image = Image.open(io.BytesIO(content))
        decode.check_declared(image)
        return image
    return Image.fromarray(
        content[..., 0] if content.shape[2] == 1 else content
    )


def _empty(where: str, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return np.empty(shape, np.uint8)
    except MemoryError as error:
        raise UserError(f"{where}: too large for memory ({error})") from None


def _chunks(
    version: pathlib.Path, records: Any
) -> Iterator[list[tuple[int, Mapping[str, Any]]]]:
    """Records with their places, in chunks."""
    for start in range(0, len(records), _CHUNK):
        rows = range(start, min(start + _CHUNK, len(records)))
        with tfds_copy.reading(version):
            found = records.__getitems__(list(rows))
        yield list(zip(rows, found, strict=True))


def _ids(where: str, values: list[Any]) -> np.ndarray:
    if values[0] is None:
        return np.arange(len(values))
    text = [
        v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v)
        for v in values
    ]
    if len(set(text)) < len(text):
        raise UserError(f"{where}: the feature id is not unique")
    return np.array(text, np.str_)
