"""Builds the three NLT benchmarks of H2E from their raw downloads.

python -m jaxnlt.data.build_nlt --benchmark=imagenet_nlt --colour=blue \
    --rate=0.1 --raw=RAW --out=OUT

Images are not copied: the manifest names files of the raw folder.  The
authors store the ImageNet images as 84x84 JPEGs; here the reader shrinks the
images of the sources ``imagenet`` and ``swap``, so that one raw folder serves
every colour, rate and seed.  Every image of the training and the test list is
decoded once before anything is written; the first one that is missing or
damaged is named.

Source: ``papers/h2e.md`` section 14.
"""

import concurrent.futures
import io
import os
import pathlib
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import tqdm
from absl import flags

from jaxnlt.data import cells, decode, imbalance
from jaxnlt.data.nlt import protocol, raw, released
from jaxnlt.data.readers import animal10n, food101n, lists, nlt
from jaxnlt.data.records import WRONG, ListedImage
from jaxnlt.runtime import console, errors, paths
from jaxnlt.runtime.errors import UserError

USAGE = """\
Builds a long-tailed set with real or controlled label noise from the raw
downloads: lists of images with their labels, and a table of counts.

usage: python -m jaxnlt.data.build_nlt --benchmark=NAME --raw=DIR --out=DIR ...

  --benchmark  imagenet_nlt, animal10_nlt or food101_nlt
  --raw        the folder with the raw downloads, see below; links do as well
  --out        the folder to make: manifest.csv and test.csv with path (below
               --raw), label, true_label and source; labels.csv for the
               benchmark "folder"; classes.txt
  --colour     imagenet_nlt: red (web images), blue (labels exchanged) or
               purple (half of each)
  --rate       imagenet_nlt: share of noise; published are 0.1, 0.2, 0.3 (red,
               blue) and 0.2, 0.4 (purple)
  --n_max      images of the largest class: 1000 (imagenet_nlt), 5000
               (animal10_nlt); must be given for food101_nlt, whose number
               was not published
  --imb        smallest over largest class: 0.05 (imagenet_nlt), 0.01
  --seed       of all draws, 0; equal seeds give equal files
  --manifest   final_dict.json, a training set that the authors released, in
               place of colour, rate, n_max, imb and seed

A true label of -1 means that the given label is wrong and the true class not
known; an empty one means that nothing is known.

raw folder of imagenet_nlt   dataset_no_images/mini-imagenet/ and noisy_images/
                             (Controlled Noisy Web Labels), ILSVRC2012/train/
                             SYNSET/ and ILSVRC2012/val/
              animal10_nlt   training/ and testing/ (raw images of ANIMAL-10N)
              food101_nlt    Food-101N_release/ and food-101/ (its test set)
"""
_LISTERS = {
    "imagenet_nlt": raw.list_imagenet,
    "animal10_nlt": animal10n.list_raw,
    "food101_nlt": food101n.list_raw,
}
# Largest class and smallest over largest; H2E's Food-101 size is not known.
_SIZES = {
    "imagenet_nlt": (1000, 0.05),
    "animal10_nlt": (5000, 0.01),
    "food101_nlt": (None, 0.01),
}
_DRAWN_BY = ("colour", "rate", "n_max", "imb", "seed")
# Decoding releases Python's lock, so threads help.
_THREADS = 8


class Options(NamedTuple):
    """How a set is drawn.

    Attributes:
      benchmark: its name.
      colour: of the noise; '' for the sets with natural noise.
      rate: share of noise in [0, 1).
      n_max: images of the largest class.
      imb: smallest over largest class, in (0, 1].
      seed: of all draws.
    """

    benchmark: str
    colour: str
    rate: float
    n_max: int
    imb: float
    seed: int


def construct(
    listed: lists.RawSet, options: Options
) -> list[list[ListedImage]]:
    """Draws a training set.

    Args:
      listed: what the raw folder holds.
      options: what to draw.

    Returns:
      For each class its images, sorted by path; equal arguments give equal
      lists.

    Raises:
      UserError: a class has too few images.

    Source: ``papers/h2e.md`` sections 14.3 to 14.5.
    """
    names = listed.class_names
    counts = imbalance.class_counts(options.n_max, len(names), options.imb)
    if counts[-1] < 1:
        raise UserError(
            f"--n_max: class {names[-1]} would have no image with "
            f"{options.n_max} and --imb={options.imb:g}"
        )
    rng = np.random.default_rng(options.seed)
    if options.benchmark == "imagenet_nlt":
        rates = protocol.noise_rates(options.colour, options.rate)
        classes = protocol.imagenet_nlt(
            listed.images, listed.web, names, counts, rates, rng
        )
    else:
        classes = protocol.keep_counts(listed.images, names, counts, rng)
    # In the order of the draws noise would come last in its class.
    return [sorted(images, key=lambda i: i.path) for images in classes]


def check_images(root: pathlib.Path, paths: Sequence[str]) -> None:
    """Decodes images, to find the damaged ones.

    Args:
      root: the raw folder.
      paths: relative to it.

    Raises:
      BadImage: the first that is missing or unreadable.
    """
    pool = concurrent.futures.ThreadPoolExecutor(_THREADS)
    try:
        # map gives errors in the order of the paths, so the first is named.
        for _ in tqdm.tqdm(
            pool.map(decode.read_through, [root / path for path in paths]),
            desc="reading images",
            total=len(paths),
            leave=False,
            disable=None,
        ):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def write(
    out: pathlib.Path,
    train: Sequence[ListedImage],
    test: Sequence[ListedImage],
    class_names: Sequence[str],
) -> None:
    """Writes the folder of a benchmark; it appears at once or not at all.

    ``manifest.csv`` and ``test.csv`` for the reader ``nlt``, ``labels.csv``
    for the benchmark ``folder``, with the true labels only where the class
    of every image is known, and ``classes.txt``.

    Args:
      out: the folder; it must not exist or be empty.
      train: N images.
      test: test images.
      class_names: C names.

    Raises:
      UserError: it cannot be written.
    """
    out = out.absolute()
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    known = all(i.true_label not in (None, WRONG) for i in train)
    columns = nlt.COLUMNS[: 3 if known else 2]
    contents = {
        nlt.MANIFEST: _csv(nlt.COLUMNS, train),
        nlt.TEST: _csv(nlt.COLUMNS, test),
        "labels.csv": _csv(columns, (i[: len(columns)] for i in train)),
        nlt.CLASSES: "".join(f"{name}\n" for name in class_names),
    }
    try:
        temporary.mkdir()
        for name, text in contents.items():
            (temporary / name).write_text(text, encoding="utf-8", newline="")
        os.replace(temporary, out)
    except OSError as error:
        raise UserError(
            f"--out: {out}: cannot be written ({error.strerror})"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _csv(columns: Sequence[str], rows: Iterable[tuple]) -> str:
    text = io.StringIO(newline="")
    cells.write(text, [columns])
    cells.write(text, rows)
    return text.getvalue()


def table(
    class_names: Sequence[str],
    classes: Sequence[Sequence[ListedImage]],
    expected: float | None,
) -> str:
    """Counts by class, and the realised noise.

    Args:
      class_names: C names.
      classes: for each class its images.
      expected: share of wrong labels by construction, None where natural.

    Returns:
      Lines of text.
    """
    everything = [image for images in classes for image in images]
    lines = ["class  given  wrong    web   swap unknown  name"]
    labels = [*map(str, range(len(classes))), "all"]
    for label, name, images in zip(
        labels, [*class_names, ""], [*classes, everything], strict=True
    ):
        web = sum(image.source == "web" for image in images)
        swap = sum(image.source == "swap" for image in images)
        wrong = sum(image.wrong is True for image in images)
        unknown = sum(image.wrong is None for image in images)
        lines.append(
            f"{label:>5} {len(images):>6} {wrong:>6} {web:>6} {swap:>6} "
            f"{unknown:>7}  {name}".rstrip()
        )
    known = [i.wrong for i in everything if i.wrong is not None]
    if not known:
        lines.append("realised noise: not known")
    elif len(known) < len(everything):
        lines.append(
            f"noise of the {len(known)} verified images: "
            f"{sum(known) / len(known):.4f}"
        )
    else:
        meant = "" if expected is None else f" (expected {expected:.4f})"
        lines.append(f"realised noise: {sum(known) / len(known):.4f}{meant}")
    return "\n".join(lines)


def _options(values: flags.FlagValues) -> Options:
    """What to draw; checked before any file is read."""
    benchmark = values.benchmark
    n_max, imb = _SIZES[benchmark]
    n_max = n_max if values.n_max is None else values.n_max
    imb = imb if values.imb is None else values.imb
    seed = values.seed or 0
    if n_max is None:
        raise UserError(
            "--n_max: is missing; H2E does not state the size of its largest "
            "class of Food-101N"
        )
    if n_max < 1:
        raise UserError(f"--n_max: must be positive, is {n_max}")
    if not 0 < imb <= 1:
        raise UserError(f"--imb: must be in (0, 1], is {imb:g}")
    if seed < 0:
        raise UserError(f"--seed: must be >= 0, is {seed}")
    if benchmark != "imagenet_nlt":
        for name in ("colour", "rate"):
            if values[name].value is not None:
                raise UserError(
                    f"--{name}: {benchmark} has the noise of its labels only"
                )
        return Options(benchmark, "", 0.0, n_max, imb, seed)
    for name in ("colour", "rate"):
        if values[name].value is None:
            raise UserError(f"--{name}: is missing, see --help")
    errors.one_of("--colour", values.colour, protocol.COLOURS)
    if not 0 <= values.rate < 1:
        raise UserError(f"--rate: must be in [0, 1), is {values.rate:g}")
    return Options(benchmark, values.colour, values.rate, n_max, imb, seed)


def _command(argv: list[str]) -> None:
    if console.HELP_FLAGS & set(argv[1:]):
        print(USAGE, end="")
        return
    values = console.read_flags(
        argv,
        {
            "benchmark": str,
            "raw": str,
            "out": str,
            "colour": str,
            "rate": float,
            "n_max": int,
            "imb": float,
            "seed": int,
            "manifest": str,
        },
        required=("benchmark", "raw", "out"),
    )
    errors.one_of("--benchmark", values.benchmark, _LISTERS)
    options = None
    if values.manifest is None:
        options = _options(values)
    else:
        for name in _DRAWN_BY:
            if values[name].value is not None:
                raise UserError(f"--{name}: cannot be given with --manifest")
    root = paths.expanded(values.raw, "--raw")
    if not root.is_dir():
        raise UserError(f"--raw: {root}: no such folder")
    out = paths.expanded(values.out, "--out", "-" * 20)
    if not out.absolute().parent.is_dir():
        raise UserError(f"--out: {out.absolute().parent}: no such folder")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out: {out}: exists already; name a new folder")
    listed = _LISTERS[values.benchmark](root)
    expected = None
    if options is None:
        file = paths.expanded(values.manifest, "--manifest")
        classes = released.read(file, listed)
    else:
        classes = construct(listed, options)
        if options.colour:
            expected = protocol.expected_noise(
                *protocol.noise_rates(options.colour, options.rate),
                len(classes),
            )
    train = [image for images in classes for image in images]
    check_images(root, [image.path for image in (*train, *listed.test)])
    write(out, train, listed.test, listed.class_names)
    console.echo(table(listed.class_names, classes, expected))
    console.echo(
        f"all {len(train)} training and {len(listed.test)} test images can be "
        f"read; see {out / 'manifest.csv'}"
    )


def main(argv: Sequence[str]) -> int:
    """Runs the command line.

    Args:
      argv: program name and arguments.

    Returns:
      The exit status: 0, 2 for a mistake of the user's, 130 after Ctrl-C.
    """
    return console.guarded(_command, argv, "interrupted; nothing was written")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
