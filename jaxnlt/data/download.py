"""Downloads CIFAR and prepares it for training; nothing else ever downloads.

python -m jaxnlt.data.download --dataset=cifar10
"""

import hashlib
import http.client
import os
import pathlib
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import tqdm
from absl import flags

from jaxnlt.data.readers import cifar, tfds_cifar, tfds_copy
from jaxnlt.runtime import console, errors
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


class Archive(NamedTuple):
    """A file on a server.

    Attributes:
      url: where it lies.
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
    return pathlib.Path(given or "~/tensorflow_datasets").expanduser()


def prepare(name: str, out: pathlib.Path, archive: Archive) -> pathlib.Path:
    """Downloads, verifies and prepares a CIFAR.

    Args:
      name: ``cifar10`` or ``cifar100``.
      out: the folder of all copies, made if need be.
      archive: the binary version.

    Returns:
      The folder of the copy, ``out/NAME/VERSION``; nothing is downloaded where
      there is one already.

    Raises:
      UserError: the server cannot be reached, what it sends is not what it
        should be, the disk does not take it, or there is a copy in another
        format; ``out`` is as before.
    """
    there = tfds_copy.newest(out / name)
    if there is not None:
        return _usable(there)
    # Deepest first, to be removed again if nothing comes to lie in them.
    made = [p for p in (out / name, out, *out.parents) if not p.exists()]
    try:
        (out / name).mkdir(parents=True, exist_ok=True)
        # Beside its final place: a rename within one disk is all or nothing.
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
    except (OSError, ValueError) as error:
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
        tfds_cifar.prepare(name, archive, folder)
    except (OSError, UserError):
        raise
    # Its writers raise whatever their C++ side likes, on a full disk too.
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


def _command(argv: list[str]) -> None:
    if console.HELP_FLAGS & set(argv[1:]):
        print(USAGE, end="")
        return
    values = flags.FlagValues()
    for name in ("dataset", "out"):
        flags.DEFINE_string(name, None, "", flag_values=values)
    console.parse_flags(values, argv)
    if not values.dataset:
        raise UserError("--dataset: is missing, see --help")
    errors.one_of("--dataset", values.dataset, ARCHIVES)
    out = default_folder()
    if values.out:
        out = pathlib.Path(values.out).expanduser()
    copy = prepare(values.dataset, out, ARCHIVES[values.dataset])
    where = f" --config.data.path={out}"
    print(
        f"{copy}: ready for --config=configs/dasc.py:{values.dataset}"
        f"{'' if out in cifar.usual_places() else where}"
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
