"""Looks a data set over before a run: ``python -m jaxnlt.data.check``."""

import collections
import dataclasses
import hashlib
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxnlt import command_line
from jaxnlt.config import base as config_lib
from jaxnlt.data import decode, load, readable, registry
from jaxnlt.data.files import ImageFiles
from jaxnlt.data.records import ReadRequest, Source, Split
from jaxnlt.runtime import console
from jaxnlt.runtime.errors import UserError

USAGE = """\
usage: python -m jaxnlt.data.check --path=DIR|FILE.npz [--labels_file=CSV]
       python -m jaxnlt.data.check --config=METHOD:BENCHMARK[,...]
           [--config.FIELD=VALUE ...]

Reads every image and lists: files that cannot be read, classes with few images,
sizes, modes, training images with equal pixels, and training images that are
test images as well.

  --path         your own images: DIR/train/CLASS/*.jpg, or an .npz file
  --labels_file  a CSV of labels instead of the names of the class folders
  --config       any other data set, as for python -m jaxnlt.main

Exit status: 0 where a run would be sound; 2 where images cannot be read, or
training images are test images.
"""
#: A class with fewer training images is called tiny.
TINY = 10
# How many sizes and modes are counted by themselves.
_SHOWN = 8


class Seen(NamedTuple):
    """What one image is.

    Attributes:
      size: width and height as stored, pixels; None of a row of features.
      mode: Pillow's.
      turned: whether EXIF turns or mirrors it.
      digest: of size and pixels as they are shown.
    """

    size: tuple[int, int] | None
    mode: str
    turned: bool
    digest: bytes


class Place(NamedTuple):
    """Where an image lies.

    Attributes:
      part: its set, such as ``train``.
      name: number or path.
      label: its class.
    """

    part: str
    name: str
    label: str


@dataclasses.dataclass(frozen=True)
class Findings:
    """What a data set holds.

    Attributes:
      path: where it was read from.
      counts: by set its number of images.
      classes: by class its number of training images that can be read.
      unreadable: every image that cannot be read.
      sizes: how many images have a width and height.
      modes: how many images have a mode.
      turned: how many images EXIF turns or mirrors.
      duplicates: training images with equal pixels, in groups.
      overlaps: images with equal pixels in training and in a test set, in
        groups.
    """

    path: str
    counts: Mapping[str, int]
    classes: Mapping[str, int]
    unreadable: Sequence[decode.BadImage]
    sizes: Mapping[tuple[int, int], int]
    modes: Mapping[str, int]
    turned: int
    duplicates: Sequence[Sequence[Place]]
    overlaps: Sequence[Sequence[Place]]

    @property
    def fault(self) -> str:
        """What makes a run's figures wrong, or '' for nothing."""
        faults = []
        if self.unreadable:
            faults.append(f"unreadable images: {len(self.unreadable)}")
        if self.overlaps:
            faults.append(
                f"training images that are test images: {len(self.overlaps)}"
            )
        return "; ".join(faults)


def look(source: Source) -> Findings:
    """Reads every image of a data set.

    Args:
      source: as a reader gives it.

    Returns:
      What was found, in the order of the set.
    """
    names = source.class_names
    items = [
        (Place(part, str(split.ids[row]), names[split.labels[row]]), split, row)
        for part, split in source.splits.items()
        for row in range(len(split))
    ]

    def see(item: tuple[Place, Split, int]) -> Seen | decode.BadImage:
        _, split, row = item
        try:
            return _see(split, row)
        except decode.BadImage as error:
            return error

    bad: list[decode.BadImage] = []
    seen: list[Seen] = []
    classes = dict.fromkeys(names, 0)
    equal: dict[bytes, list[Place]] = {}
    for (place, *_), found in zip(
        items, readable.in_threads(see, items), strict=True
    ):
        if isinstance(found, decode.BadImage):
            bad.append(found)
            continue
        seen.append(found)
        equal.setdefault(found.digest, []).append(place)
        if place.part == "train":
            classes[place.label] += 1
    groups = [[p for p in g if p.part != "web"] for g in equal.values()]
    parts = [{place.part for place in group} for group in groups]
    return Findings(
        path=source.path,
        counts={part: len(split) for part, split in source.splits.items()},
        classes=classes,
        unreadable=bad,
        sizes=collections.Counter(one.size for one in seen if one.size),
        modes=collections.Counter(one.mode for one in seen),
        turned=sum(one.turned for one in seen),
        duplicates=[
            group
            for group, where in zip(groups, parts, strict=True)
            if where == {"train"} and len(group) > 1
        ],
        overlaps=[
            group
            for group, where in zip(groups, parts, strict=True)
            if "train" in where and len(where) > 1
        ],
    )


def _see(split: Split, row: int) -> Seen:
    if isinstance(split.images, ImageFiles):
        images = split.images
        with decode.opened(images.root / str(images.paths[row])) as image:
            size, mode = image.size, image.mode
            turned = decode.orientation(image) != 1
            pixels = np.asarray(decode.shown(image, "RGB"))
    elif split.has_features:
        pixels, turned = split.images[row], False
        size, mode = None, f"{pixels.size} features"
    else:
        pixels = split.images[row]
        size, turned = (pixels.shape[1], pixels.shape[0]), False
        mode = {1: "L", 3: "RGB"}.get(
            pixels.shape[-1], f"{pixels.shape[-1]} channels"
        )
    text = f"{pixels.shape}".encode()
    data = np.ascontiguousarray(pixels).data
    digest = hashlib.blake2b(data, digest_size=16, key=text).digest()
    return Seen(size, mode, turned, digest)


def report(findings: Findings) -> str:
    """The findings as text.

    Args:
      findings: of a data set.

    Returns:
      Lines without a newline at the end.
    """
    counts = ", ".join(
        f"{count:,} {part}" for part, count in findings.counts.items()
    )
    lines = [
        f"{console.printable(findings.path)}: {counts} images, "
        f"{len(findings.classes)} classes"
    ]

    def section(title: str, rows: Sequence[str]) -> None:
        lines.append(f"\n{title}: {len(rows) or 'none'}")
        lines.extend(f"  {console.printable(row)}" for row in rows)

    section("images that cannot be read", list(map(str, findings.unreadable)))
    tiny = [(n, name) for name, n in findings.classes.items() if n < TINY]
    section(
        f"classes with fewer than {TINY} training images",
        [f"{name}: {n}" for n, name in sorted(tiny)],
    )
    sizes = {f"{w}x{h}": n for (w, h), n in findings.sizes.items()}
    if sizes:
        lines.append(f"\nsizes: {_most_frequent(sizes)}")
        lines.append(f"modes: {_most_frequent(findings.modes)}")
        lines.append(f"turned by EXIF: {findings.turned or 'none'}")
    else:
        lines.append(f"\nrows: {_most_frequent(findings.modes)}")
    section(
        "training images with equal pixels",
        [_group(group, labels=True) for group in findings.duplicates],
    )
    section(
        "training images that are test images",
        [_group(group) for group in findings.overlaps],
    )
    return "\n".join(lines)


def _most_frequent(counts: Mapping[str, int]) -> str:
    ranked = collections.Counter(counts).most_common(_SHOWN)
    shown = [f"{name} ({count:,})" for name, count in ranked]
    more = len(counts) - len(shown)
    return ", ".join(shown + [f"{more} others"] * (more > 0)) or "none"


def _group(group: Sequence[Place], labels: bool = False) -> str:
    text = " = ".join(
        place.name if place.part == "train" else f"{place.part} {place.name}"
        for place in group
    )
    given = sorted({place.label for place in group})
    if labels and len(given) > 1:
        text += f" (labelled differently: {', '.join(given)})"
    return text


def _request(argv: list[str]) -> ReadRequest:
    """What the flags name."""
    if any(re.match(r"--?config[.=]|--?config$", text) for text in argv):
        try:
            config, workdir = command_line.parse(argv)
        except config_lib.HelpRequested:
            raise UserError("--config: help is given by jaxnlt.main") from None
        if workdir is not None:
            raise UserError("--workdir: nothing is written")
        load.check(config)
        request = load.read_request(config)
    else:
        values = console.read_flags(
            argv, {"path": str, "labels_file": ""}, required=("path",)
        )
        npz = pathlib.Path(values.path).suffix == ".npz"
        if npz and values.labels_file:
            raise UserError("--labels_file: an .npz file holds its labels")
        request = ReadRequest(
            registry.get("npz" if npz else "folder"),
            path=values.path,
            labels_file=values.labels_file,
        )
    bench = request.benchmark
    other = bench.lister
    if bench.fits and not bench.fits(request):
        other = bench.otherwise
    if other:
        request = dataclasses.replace(request, benchmark=registry.get(other))
    return request


def _command(argv: list[str]) -> None:
    request = _request(argv)
    findings = look(request.benchmark.read(request))
    console.echo(report(findings))
    if findings.fault:
        raise UserError(f"{findings.path}: {findings.fault}; all are listed")


def main(argv: Sequence[str]) -> int:
    """Runs the command line.

    Args:
      argv: program name and arguments.

    Returns:
      The exit status: 0; 2 for faults of the data set or a mistake of the
      user's; 130 after Ctrl-C.
    """
    return console.guarded(_command, argv, "interrupted", USAGE)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
