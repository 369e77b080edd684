"""Prepares CIFAR with tensorflow-datasets, without TensorFlow.

The stock builder unpacks archives, reads them and encodes images with
TensorFlow.  A subclass that does these three with the standard library, numpy
and Pillow writes the same copy: where the stock builder looks for it, records
in the same order.
"""

import pathlib
import tarfile
import types
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from jaxnlt.data.readers import tfds_copy
from jaxnlt.runtime.errors import UserError

_SHAPE = (3, 32, 32)


def prepare(name: str, archive: pathlib.Path, data_dir: pathlib.Path) -> None:
    """Writes ``data_dir/NAME/VERSION`` in array_record format.

    The feature ``id`` of a record, ``train_00000`` and so on, holds the place
    of its image in the archive.

    Args:
      name: ``cifar10`` or ``cifar100``.
      archive: the official binary version, a tar.gz, verified.
      data_dir: a folder without such a copy.

    Raises:
      UserError: the archive lacks a file or is none; a file is damaged.
      OSError: the disk.
      Exception: whatever tensorflow-datasets raises while it writes.

    """
    with tfds_copy.quiet() as tfds:
        # Its bars overwrite one another; the whole takes some seconds.
        tfds.disable_progress_bar()
        builder = _builder_class(name, archive)(
            data_dir=str(data_dir), file_format=tfds_copy.ARRAY_RECORD
        )
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )


def _builder_class(name: str, archive: pathlib.Path) -> type:
    """The stock class in all but what would need TensorFlow."""
    from tensorflow_datasets.image_classification import cifar

    stock = {"cifar10": cifar.Cifar10, "cifar100": cifar.Cifar100}[name]

    def info(self: Any) -> Any:
        found = stock._info(self)
        # It would ask a server of Google's for what it knows of the set, and
        # leave a temporary folder.
        found.initialize_from_bucket = lambda: None
        return found

    def split_generators(self: Any, dl_manager: Any) -> Mapping[str, Any]:
        about = self._cifar_info
        wanted = [*about.label_files, *about.train_files, *about.test_files]
        content = _members(archive, [about.prefix + file for file in wanted])
        for key, file in zip(about.label_keys, about.label_files, strict=True):
            text = content[about.prefix + file].decode()
            self.info.features[key].names = text.split()
        return {
            split: _examples(
                f"{split}_",
                [content[about.prefix + file] for file in files],
                about.label_keys,
            )
            for split, files in (
                ("train", about.train_files),
                ("test", about.test_files),
            )
        }

    return types.new_class(
        # The name of a copy's folder is that of the class.
        stock.__name__,
        (stock,),
        {"skip_registration": True},
        lambda body: body.update(
            __module__=stock.__module__,
            _info=info,
            _split_generators=split_generators,
        ),
    )


def _members(archive: pathlib.Path, names: Sequence[str]) -> dict[str, bytes]:
    """Content of files of a tar.gz; nothing is written to disk."""
    found = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = str(pathlib.PurePosixPath(member.name))
                file = tar.extractfile(member)
                if file is not None and name in names:
                    found[name] = file.read()
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(f"{archive.name}: damaged archive ({error})") from None
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(f"{archive.name}: holds no {missing[0]}")
    return found


def _examples(
    prefix: str, files: Sequence[bytes], label_keys: Sequence[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Records of the binary version: a byte per label, then three planes."""
    pixels = int(np.prod(_SHAPE))
    index = 0
    for content in files:
        rows = np.frombuffer(content, np.uint8)
        if len(rows) % (len(label_keys) + pixels):
            raise UserError(
                f"{prefix}: {len(rows)} bytes are no multiple of "
                f"{len(label_keys) + pixels}"
            )
        for row in rows.reshape(-1, len(label_keys) + pixels):
            labels, planes = np.split(row, [len(label_keys)])
            image = planes.reshape(_SHAPE).transpose(1, 2, 0)
            yield (
                index,
                {
                    "id": f"{prefix}{index:05d}",
                    # Arrays would be encoded by TensorFlow.
                    "image": Image.fromarray(np.ascontiguousarray(image)),
                    **dict(zip(label_keys, labels.tolist(), strict=True)),
                },
            )
            index += 1
