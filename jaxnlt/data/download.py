"""Downloads CIFAR and prepares it for training; nothing else ever downloads.

python -m jaxnlt.data.download --dataset=cifar10

The copy is written by tensorflow-datasets, without TensorFlow.  Its stock
builder unpacks archives, reads them and encodes images with TensorFlow; a
subclass that does these three with the standard library, numpy and Pillow
writes the same copy, where the stock builder looks for it, records in the same
order.
"""

import hashlib
import http.client
import os
import pathlib
import shutil
import sys
import tarfile
import tempfile
import types
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tqdm
from PIL import Image

from jaxnlt.data.readers import lists, tfds_copy
from jaxnlt.runtime import console, errors, paths
from jaxnlt.runtime.errors import UserError

USAGE = """\
Downloads CIFAR (170 MB) and prepares it with tensorflow-datasets, without
TensorFlow: a copy in array_record format of some 190 MB.

usage: python -m jaxnlt.data.download --dataset=NAME [--out=DIR]

  --dataset  cifar10 or cifar100; both serve the benchmarks with human labels,
             cifar10n and cifar100n, too
  --out      folder to write NAME/VERSION to; $TFDS_DATA_DIR if that is set,
             else ~/tensorflow_datasets, where training looks by itself

Size and SHA-256 are verified before anything is unpacked. What goes wrong
leaves nothing behind; training itself never downloads.
"""
_TIMEOUT_SECONDS = 60
_CHUNK = 1 << 20
_SHAPE = (3, 32, 32)


class Archive(NamedTuple):
    """A file on a server.

    Attributes:
      url: its address.
      size: in bytes.
      sha256: hex digits of its hash.
    """

    url: str
    size: int
    sha256: str


# As in the checksum lists of tensorflow-datasets.
ARCHIVES = {
    "cifar10": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        170052171,
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ),
    "cifar100": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        168513733,
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    ),
}


def default_folder() -> pathlib.Path:
    """Where tensorflow-datasets keeps its copies, and training looks."""
    given = os.environ.get("TFDS_DATA_DIR")
    return paths.expanded(given or "~/tensorflow_datasets", "TFDS_DATA_DIR")


def prepare(name: str, out: pathlib.Path, archive: Archive) -> pathlib.Path:
    """Downloads, verifies and prepares a CIFAR.

    Args:
      name: ``cifar10`` or ``cifar100``.
      out: the folder of all copies, made if it is missing.
      archive: the binary version.

    Returns:
      The folder of the copy, ``out/NAME/VERSION``; nothing is downloaded where
      there is one already.

    Raises:
      UserError: the server cannot be reached, it sends another file, the disk
        is full, or there is a copy in another format; ``out`` is as before.
    """
    there = tfds_copy.newest(out / name)
    if there is not None:
        return _usable(there)
    # Deepest first; removed again if they stay empty.
    made = [p for p in (out / name, out, *out.parents) if not p.exists()]
    try:
        (out / name).mkdir(parents=True, exist_ok=True)
        # Beside its final place, since a rename within one disk is atomic.
        folder = tempfile.TemporaryDirectory(prefix="incomplete-", dir=out)
        with folder as incomplete:
            temporary = pathlib.Path(incomplete)
            file = temporary / archive.url.rpartition("/")[2]
            fetch(archive, file)
            copy = _write(name, file, temporary)
            target = out / name / copy.name
            copy.rename(target)
            return target
    except OSError as error:
        where = error.filename or out
        raise UserError(f"{where}: {error.strerror or error}") from None
    finally:
        for path in made:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def _usable(version: pathlib.Path) -> pathlib.Path:
    try:
        kinds = tfds_copy.formats(tfds_copy.description(version))
    except UserError as error:
        what = f"{version}: damaged copy ({error}); remove it first"
        raise UserError(what) from None
    if tfds_copy.ARRAY_RECORD not in kinds:
        raise UserError(
            f"{version}: is there already, in {kinds[0]} format, which cannot "
            "be read without TensorFlow; name another folder with --out"
        )
    errors.logger.info("%s: is there already; remove it to renew it", version)
    return version


def _write(
    name: str, archive: pathlib.Path, folder: pathlib.Path
) -> pathlib.Path:
    """The version's folder of the copy made from a verified archive."""
    try:
        write_copy(name, archive, folder)
    except (OSError, UserError):
        raise
    # The writers' C++ code raises anything, on a full disk too.
    except Exception as error:
        free = shutil.disk_usage(folder).free
        raise UserError(
            f"{folder.parent}: tensorflow-datasets could not write the copy "
            f"({tfds_copy.first_line(error)}; {free >> 20} MiB are free)"
        ) from None
    copy = tfds_copy.newest(folder / name)
    assert copy is not None, "prepare writes a version or raises"
    return copy


def fetch(archive: Archive, file: pathlib.Path) -> None:
    """Downloads a file and verifies it.

    Args:
      archive: what to download.
      file: where to write it; damaged where this raises.

    Raises:
      UserError: the server cannot be reached or refuses, what it sends has
        another size or hash.
      OSError: the disk.
    """
    digest, received = hashlib.sha256(), 0
    shown = {"desc": f"downloading {file.name}", "leave": False}
    shown |= {"unit": "B", "unit_scale": True, "disable": None}
    with (
        tqdm.tqdm(total=archive.size, **shown) as bar,
        open(file, "wb") as target,
    ):
        for chunk in _chunks(archive.url):
            digest.update(chunk)
            received += len(chunk)
            if received > archive.size:
                break
            target.write(chunk)
            bar.update(len(chunk))
    if received != archive.size:
        sign = "more than" if received > archive.size else f"{received} of"
        raise UserError(
            f"{archive.url}: {sign} {archive.size} bytes came; cut short, or "
            "another file; nothing was kept"
        )
    if digest.hexdigest() != archive.sha256:
        raise UserError(
            f"{archive.url}: has SHA-256 {digest.hexdigest()}, expected is "
            f"{archive.sha256}; nothing was kept"
        )


def _chunks(url: str) -> Iterator[bytes]:
    """The bytes of a file on a server; its errors, not those of the disk."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer:
            while chunk := answer.read(_CHUNK):
                yield chunk
    except http.client.IncompleteRead as error:
        yield error.partial
    except urllib.error.HTTPError as error:
        raise UserError(
            f"{url}: the server answers {error.code} {error.reason}"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{url}: cannot be downloaded ({reason})") from None


# The copy --------------------------------------------------------------------


def write_copy(
    name: str, archive: pathlib.Path, data_dir: pathlib.Path
) -> None:
    """Writes ``data_dir/NAME/VERSION`` with tensorflow-datasets.

    The feature ``id`` of a record, ``train_00000`` and so on, holds the place
    of its image in the archive.

    Args:
      name: ``cifar10`` or ``cifar100``.
      archive: the official binary version, a tar.gz, verified.
      data_dir: a folder without such a copy.

    Raises:
      UserError: the archive lacks a file or is none; a file is damaged.
      OSError: the disk.
      Exception: any error of tensorflow-datasets while it writes.

    """
    with tfds_copy.quiet() as tfds:
        # Its bars overwrite one another, and it takes some seconds only.
        tfds.disable_progress_bar()
        builder = _builder_class(name, archive)(
            data_dir=str(data_dir), file_format=tfds_copy.ARRAY_RECORD
        )
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )


def _builder_class(name: str, archive: pathlib.Path) -> type:
    """The stock class but for what would need TensorFlow."""
    from tensorflow_datasets.image_classification import cifar

    stock = {"cifar10": cifar.Cifar10, "cifar100": cifar.Cifar100}[name]

    def info(self: Any) -> Any:
        found = stock._info(self)
        # Would ask a server for what it knows of the data set and leave a
        # temporary folder.
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


# The command line ------------------------------------------------------------


def _command(argv: list[str]) -> None:
    if console.HELP_FLAGS & set(argv[1:]):
        print(USAGE, end="")
        return
    values = console.read_flags(
        argv, {"dataset": str, "out": str}, required=("dataset",)
    )
    errors.one_of("--dataset", values.dataset, ARCHIVES)
    out = default_folder()
    if values.out:
        out = paths.expanded(values.out, "--out", "/" + "-" * 100)
    copy = prepare(values.dataset, out, ARCHIVES[values.dataset])
    where = f" --config.data.path={out}"
    console.echo(
        f"{copy}: ready for --config=configs/dasc.py:{values.dataset}"
        f"{'' if out in lists.usual_places() else where}"
    )


def main(argv: Sequence[str]) -> int:
    """Runs the command line.

    Args:
      argv: program name and arguments.

    Returns:
      The exit status: 0, 2 for a mistake of the user's, 130 after Ctrl-C.
    """
    return console.guarded(_command, argv, "interrupted; nothing was kept")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
