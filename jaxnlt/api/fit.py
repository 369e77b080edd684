"""Trains on arrays in memory, through the same run as the command line."""

import contextlib
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnlt import command_line, train
from jaxnlt.api import arrays
from jaxnlt.api.errors import ArgumentError, naming_arguments
from jaxnlt.api.result import Result
from jaxnlt.config import base as config_lib
from jaxnlt.data import untrusted
from jaxnlt.results import journal
from jaxnlt.runtime import console, paths
from jaxnlt.runtime.errors import file_problem
from jaxnlt.runtime.files import atomic

#: The arrays that a run of ``fit`` trains on, in its workdir.
DATA_FILE = "data.npz"


def fit(
    images: Any,
    labels: Any,
    method: str | None = None,
    test: tuple[Any, Any] | None = None,
    workdir: str | pathlib.Path | None = None,
    epochs: int | None = None,
    *,
    verbose: bool = False,
    **fields: Any,
) -> Result:
    """Trains on images with partly wrong labels, and judges every label.

    The arrays are written to ``WORKDIR/data.npz`` and trained on as by
    ``python -m jaxnlt.main --config=METHOD:npz``: the same call on the same
    workdir goes on where it was stopped, and all commands read that workdir.

    Args:
      images: uint8 [N, H, W, C] of one or three channels, or [N, H, W]; or
        features float [N, D] of any encoder.
      labels: [N], numbers or texts of any values.
      method: a config file, such as dasc or erm; None takes dasc for images,
        and for features erm, whose loss of features does not memorise.
      test: images and clean labels to measure accuracy on; None holds out a
        tenth of the training set, with its given labels.
      workdir: where the files of the run go; None takes a temporary folder
        that is deleted with the result.
      epochs: how many; None takes the default.
      verbose: prints the lines of every epoch.
      **fields: keys of the command line (``seed=1``, ``noise="sym"``,
        ``loss="elr"``), and fields of the config with two underscores for a
        dot: ``model__width=16`` is ``--config.model.width=16``.

    Returns:
      The result, which predicts.

    Raises:
      ArgumentError: an argument is wrong (a UserError and a ValueError).

    Example:
      >>> import jaxnlt
      >>> from sklearn.datasets import load_digits
      >>> digits = load_digits()
      >>> images = (15 * digits.images).astype("uint8")
      >>> small = {"smoke": True, "model__width": 4, "model__blocks": (1,)}
      >>> result = jaxnlt.fit(images, digits.target, method="erm", **small)
      >>> result.predict(images[:3]).shape
      (3,)
    """
    pixels = arrays.images(images, "images")
    numbers, known = arrays.classes(labels, "labels")
    stored = {"train_images": pixels, "train_labels": numbers}
    if test is not None:
        if not isinstance(test, tuple | list) or len(test) != 2:
            raise ArgumentError("test: must be (images, labels)")
        stored["test_images"] = arrays.images(test[0], "test")
        stored["test_labels"] = arrays.numbers(test[1], known, "test")
    for part, name in (("train", "images"), ("test", "test")):
        rows = len(stored.get(f"{part}_images", ()))
        if rows != (count := len(stored.get(f"{part}_labels", ()))):
            raise ArgumentError(f"{name}: {rows} images, {count} labels")
    stored["class_names"] = np.array(known.names)
    has_features = pixels.ndim == 2
    if has_features:
        stored = {k.replace("_images", "_features"): stored[k] for k in stored}
    method = method or ("erm" if has_features else "dasc")
    given = {} if epochs is None else {"epochs": epochs}
    return _fit(method, stored, known, workdir, given | fields, verbose)


def _fit(
    method: str,
    stored: Mapping[str, Any],
    known: arrays.Classes,
    workdir: str | pathlib.Path | None,
    fields: Mapping[str, Any],
    verbose: bool,
) -> Result:
    temporary = None
    if workdir is None:
        temporary = tempfile.TemporaryDirectory(prefix="jaxnlt-")
        workdir = temporary.name
    with naming_arguments():
        directory = paths.expanded(workdir, "workdir", "/" + "-" * 100)
        directory = directory.absolute()
        argv = _command_line(method, fields, directory / DATA_FILE)
    made = _write_data(directory, stored)
    try:
        with naming_arguments(directory / DATA_FILE), console.without_absl():
            config, _ = command_line.parse(argv)
            call = _call(method, fields)
            train.run(config, directory, call, quiet=not verbose)
    except BaseException:
        if not (directory / journal.CONFIG_FILE).exists():
            _remove(made)
        raise
    return Result(directory, known.values, temporary)


def _keys(method: str) -> Mapping[str, config_lib.Key]:
    """The keys that may stand after the colon of a method's config."""
    try:
        command_line.load_config(method, "help")
    except config_lib.HelpRequested as request:
        return request.keys
    return config_lib.KEYS


def _write_data(
    directory: pathlib.Path, stored: Mapping[str, Any]
) -> list[pathlib.Path]:
    """Writes the arrays unless they are there; what it made, in order."""
    file, made = directory / DATA_FILE, list[pathlib.Path]()
    if file.exists():
        with naming_arguments():
            found, more = untrusted.read_npz(file, tuple(stored))
        same = found.keys() == stored.keys() and not more
        if same and all(np.array_equal(found[k], stored[k]) for k in stored):
            return made
    if file.exists() or (directory / journal.CONFIG_FILE).exists():
        raise ArgumentError(
            f"workdir: {directory}: holds other images or labels; choose "
            "another workdir"
        )
    try:
        for folder in reversed([directory, *directory.parents]):
            if not folder.exists():
                folder.mkdir()
                made.append(folder)
        with atomic(file, binary=True) as opened:
            np.savez(opened, **stored)
    except OSError as error:
        _remove(made)
        raise ArgumentError(f"workdir: {file_problem(error, file)}") from error
    return [*made, file]


def _remove(made: list[pathlib.Path]) -> None:
    """Removes what a refused call has made and nobody else has used."""
    for path in reversed(made):
        with contextlib.suppress(OSError):
            path.unlink() if path.is_file() else path.rmdir()


def _command_line(
    method: str, fields: Mapping[str, Any], file: pathlib.Path
) -> list[str]:
    """The arguments of the command that trains the same."""
    keys, after, rest = _keys(method), ["npz"], list[str]()
    for name, value in fields.items():
        if name in ("method", "benchmark", "data__path"):
            raise ArgumentError(
                f"{name}: fit trains on its arrays; jaxnlt.load_config and "
                "jaxnlt.run train on every benchmark"
            )
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, list):
            value = tuple(value)
        if value is None:  # the default
            continue
        if name in keys and "," in str(value):
            raise ArgumentError(f"{name}: {value!r} holds a comma")
        if name in keys:
            after.append(f"{name}={value}")
        else:
            rest.append(f"--config.{name.replace('__', '.')}={value}")
    path = f"--config.data.path={file}"
    return ["fit", f"--config={method}:{','.join(after)}", path, *rest]


def _call(method: str, fields: Mapping[str, Any]) -> str:
    """The call, for the report."""
    shown = {"method": method, **fields}
    given = ", ".join(f"{name}={value!r}" for name, value in shown.items())
    return f"jaxnlt.fit(images, labels, {given})"
