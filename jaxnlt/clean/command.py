"""The command ``python -m jaxnlt.clean``."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnlt import command_line
from jaxnlt.clean import copies, originals, page, verdicts
from jaxnlt.clean.originals import Arrays, Files
from jaxnlt.clean.verdicts import Verdicts
from jaxnlt.predict import read_run
from jaxnlt.runtime import console, paths
from jaxnlt.runtime.errors import UserError, one_of
from jaxnlt.runtime.files import atomic_folder

USAGE = f"""\
usage: python -m jaxnlt.clean --workdir=RUN --out=DIR
           [--action=drop|relabel|review] [--review=FILE.csv]

Makes a cleaned copy of the data that a run was trained on, from its labels.csv;
the data themselves stay as they are.

  --workdir  a finished run
  --out      a new folder for the copy: train/CLASS/ and test/CLASS/, or
             data.npz; labels.csv, and changes.csv with every change
  --action   drop (default): flagged images go; relabel: mislabelled images take
             the suggested label, ambiguous ones stay; review: no copy, but
             DIR/review.html, on which you decide
  --review   decisions in place of the flags: the review.csv of that page, or a
             changes.csv; a row that you delete from it is a change undone
  --max_share_per_class
             at most this share of a class changes, the worst first
             ({verdicts.MOST_OF_A_CLASS:g}); without --review
  --most     how many labels the page shows ({page.MOST})
  --copy     copies files in place of hard links
  --data     where the data of the run lie now, if they moved
"""
_ACTIONS = ("drop", "relabel", "review")


def _read_flags(argv: list[str]) -> Any:
    """The flags, each in its range."""
    values = console.read_flags(
        argv,
        {
            "workdir": str,
            "out": str,
            "action": str,
            "review": "",
            "max_share_per_class": float,
            "most": int,
            "copy": False,
            "data": "",
        },
        required=("workdir", "out"),
    )
    if values.action is not None:
        one_of("--action", values.action, _ACTIONS)
    share = values.max_share_per_class
    if share is not None and not 0 <= share <= 1:
        raise UserError(
            f"--max_share_per_class: must lie in [0, 1], is {share:g}"
        )
    if values.most is not None and values.most < 1:
        raise UserError(f"--most: must be at least 1, is {values.most}")
    unused = {
        "action": values.review,
        "max_share_per_class": values.review or values.action == "review",
        "most": values.action != "review",
    }
    for name, is_unused in unused.items():
        if is_unused and values[name].value is not None:
            by = "--review" if values.review else f"--action={values.action}"
            raise UserError(f"--{name}: is not used by {by}; leave it out")
    return values


def _command(argv: list[str]) -> None:
    values = _read_flags(argv)
    directory = paths.expanded(values.workdir, "--workdir")
    out = paths.expanded(values.out, "--out", ".tmp")
    config, training_set = read_run(directory)
    names = training_set.class_names
    found = verdicts.read(directory, names)
    config = originals.located(config, values.data)
    images = (
        originals.arrays(config)
        if found.id_column == "index"
        else originals.files(config)
    )
    if isinstance(images, Files):
        _check_outside(out, images.root)
    if values.action == "review":
        title = f"{config.method} on {config.benchmark}: {directory.name}"
        _write_page(out, images, found, names, title, values)
        return
    if values.review:
        review = paths.expanded(values.review, "--review")
        labels = verdicts.by_decisions(found, review, names)
    else:
        share = values.max_share_per_class
        if share is None:
            share = verdicts.MOST_OF_A_CLASS
        labels = verdicts.by_flags(found, values.action == "relabel", share)
    # Some methods are one of several of a config file, others are the user's.
    known = config.method in command_line.methods()
    method = config.method if known else "METHOD"
    if isinstance(images, Files):
        how = _write_folder(out, images, found, labels, values.copy)
        hint = _train_on_folder(method, out, names, how)
    else:
        _write_npz(out, images, found, labels, names)
        whole = all(label is not None for label in labels)
        own = config.benchmark == "npz"
        hint = _train_on_npz(method, out, whole and not own)
    changed = labels != found.given
    dropped = sum(label is None for label in labels)
    console.echo(
        f"{len(found)} labels: {dropped} dropped, "
        f"{changed.sum() - dropped} changed, {(~changed).sum()} as they were; "
        f"see {out / copies.CHANGES}\n{hint}"
    )


def _write_page(
    out: pathlib.Path,
    images: Files | Arrays,
    found: Verdicts,
    names: Sequence[str],
    title: str,
    values: Any,
) -> None:
    """Writes the page for reviews and says how to go on."""
    originals.check_ids(images, found.ids.tolist(), found.file)
    most = page.MOST if values.most is None else values.most
    with atomic_folder(out, "--out") as folder:
        file = folder / page.FILE
        shown = page.write(file, images, found, names, title, most)
    console.echo(
        f"{shown} of {len(found)} labels, the worst first: open "
        f"{out / page.FILE} in a browser, download review.csv there, then\n"
        f"python -m jaxnlt.clean --workdir={values.workdir} "
        "--review=review.csv --out=DIR"
    )


def _write_folder(
    out: pathlib.Path,
    images: Files,
    found: Verdicts,
    labels: np.ndarray,
    copy: bool,
) -> str:
    """Writes a copy of files; see ``copies.write_folder``."""
    originals.check_ids(images, _staying(found, labels), found.file)
    with atomic_folder(out, "--out") as folder:
        copies.write_changes(folder / copies.CHANGES, found, labels)
        return copies.write_folder(folder, images, found, labels, copy)


def _write_npz(
    out: pathlib.Path,
    images: Arrays,
    found: Verdicts,
    labels: np.ndarray,
    names: Sequence[str],
) -> None:
    """Writes a copy of arrays; see ``copies.write_npz``."""
    originals.check_ids(images, _staying(found, labels), found.file)
    with atomic_folder(out, "--out") as folder:
        copies.write_changes(folder / copies.CHANGES, found, labels)
        copies.write_npz(folder, images, found, labels, names)


def _staying(found: Verdicts, labels: np.ndarray) -> list[Any]:
    """Ids of the images that stay."""
    pairs = zip(found.ids.tolist(), labels, strict=True)
    return [key for key, label in pairs if label is not None]


def _check_outside(out: pathlib.Path, root: pathlib.Path) -> None:
    """Refuses a copy that would become a part of its original."""
    if out.resolve().is_relative_to(root.resolve()):
        raise UserError(
            f"--out: {out}: lies in the data, {root}; name a folder outside"
        )


def _train_on_folder(
    method: str, out: pathlib.Path, names: Sequence[str], how: str
) -> str:
    """What to do with a folder."""
    listed = ""
    if not all(map(copies.usable, names)):
        # Its folders cannot have the names of their classes.
        listed = f" --config.data.labels_file={out / copies.LABELS}"
    return (
        f"{out} holds {how}; train on it with\npython -m jaxnlt.main "
        f"--config={method}:folder --config.data.path={out}{listed}"
    )


def _train_on_npz(method: str, out: pathlib.Path, listed: bool) -> str:
    """What to do with an npz file."""
    text = (
        "train on it with\npython -m jaxnlt.main "
        f"--config={method}:npz --config.data.path={out / copies.NPZ}"
    )
    if listed:
        text += (
            "\nor with the command of the run, another --workdir and\n"
            f"--config.data.noise_file={out / copies.LABELS}"
        )
    return text


def main(argv: Sequence[str]) -> int:
    """Runs the command line.

    Args:
      argv: program name and arguments.

    Returns:
      The exit status: 0, 2 for a mistake of the user's, 130 after Ctrl-C.
    """
    return console.guarded(
        _command, argv, "interrupted; nothing was written", USAGE
    )
