"""Labels new images with the networks of a run.

python -m jaxnlt.predict --workdir=RUN --images=FOLDER|FILE.npz \
    --out=predictions.csv
"""

import concurrent.futures
import dataclasses
import functools
import io
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import ml_collections
import numpy as np
from absl import flags
from PIL import Image

from jaxnlt import infer as inference
from jaxnlt import method as base
from jaxnlt import models, selection, trainer
from jaxnlt.auditing.verdict import UNREADABLE
from jaxnlt.config import base as config_lib
from jaxnlt.config import fields, modules
from jaxnlt.config.fields import Count, Natural, Range
from jaxnlt.data import cells, decode, listing, untrusted
from jaxnlt.data.readers import npz
from jaxnlt.data.streaming import InMemory
from jaxnlt.results import files as result_files
from jaxnlt.results import summary
from jaxnlt.runtime import checkpoint, console, paths, sharding
from jaxnlt.runtime.errors import UserError, logger

USAGE = """\
Labels new images with the networks of a finished or running jaxnlt run: the
same vote as in its evaluation.

usage: python -m jaxnlt.predict --workdir=RUN --images=FOLDER|FILE.npz
                                [--out=predictions.csv] [--epoch=N]

  --workdir  a folder that python -m jaxnlt.main has left
  --images   a folder, searched with all folders in it; or a file with
             images (or test_images), uint8 [N, H, W, C]; of a run on
             features a file with features (or test_features), float [N, D]
  --out      the table to write: index or path, predicted_label, confidence;
             'unreadable' for an image that cannot be read
  --epoch    number of a folder in WORKDIR/checkpoints, whose names count from
             0 as all files do; the last one if not given
"""
# Batches that are decoded and held at once.
_BATCHES = 16
# A larger training set is a damaged dataset.json.
_MOST_IMAGES = 10**8


class Images(NamedTuple):
    """Images to label, read piece by piece.

    Attributes:
      ids: row numbers (int) or relative paths (str).
      read: (first, last) -> ``Piece`` of last - first images.
    """

    ids: Sequence[Any]
    read: Callable[[int, int], "Piece"]


class Piece(NamedTuple):
    """Some images.

    Attributes:
      pixels: uint8 [n, H, W, C], black for images that cannot be read; or
        float32 [n, D] rows of features.
      reasons: for each why it cannot be read, '' where it can.
      resized: those that had another size than the training images, which were
        not resized themselves.
    """

    pixels: np.ndarray
    reasons: Sequence[str]
    resized: Sequence[str] = ()


class TrainingSet(NamedTuple):
    """The training set, as dataset.json describes it.

    Attributes:
      class_names: C names.
      mean: per channel, in units of images scaled to [0, 1]; per feature, in
        its own.
      std: as ``mean``.
      image_shape: (H, W, channels), or (D,) of rows of features.
      labels: int[N] given labels in some order, for their counts.
    """

    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_shape: tuple[int, ...]
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class _DatasetFile:
    """What dataset.json says of a training set."""

    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Range(0, open_low=True)], ...]
    image_shape: tuple[Count, ...]
    given_counts: tuple[Natural, ...]


def read_run(
    workdir: str | pathlib.Path,
) -> tuple[ml_collections.ConfigDict, TrainingSet]:
    """The configuration and the training set of a run.

    Args:
      workdir: its folder.

    Returns:
      The configuration, lists as tuples again, and the training set.

    Raises:
      UserError: there is no run, or its method's module cannot be imported.
    """
    directory = pathlib.Path(workdir)
    config, facts = (
        _read(directory / name) for name in ("config.json", "dataset.json")
    )
    checkpoint.check_layout(facts, directory / "dataset.json")
    made = ml_collections.ConfigDict(config).lock()
    try:
        # Its module may bring the benchmark along.
        modules.load_method(str(config.get("method", "")))
        config_lib.check(made)
    except UserError as error:
        raise UserError(f"{directory / 'config.json'}: {error}") from error
    where = f"{directory / 'dataset.json'}"
    read = fields.read(_DatasetFile, facts, where)
    sizes = len(read.class_names), len(read.mean)
    if (
        sizes != (len(read.given_counts), len(read.std))
        or len(read.image_shape) not in (1, 3)
        or read.image_shape[-1] != len(read.mean)
        or sum(read.given_counts) > _MOST_IMAGES
    ):
        raise UserError(
            f"{where}: class_names and given_counts, or image_shape, mean and "
            "std, do not fit each other"
        )
    classes = np.arange(len(read.given_counts), dtype=np.int32)
    return made, TrainingSet(
        class_names=read.class_names,
        mean=read.mean,
        std=read.std,
        image_shape=read.image_shape,
        labels=np.repeat(classes, read.given_counts),
    )


def _read(path: pathlib.Path) -> dict[str, Any]:
    """A JSON object of a run, lists as tuples."""
    content = result_files.read_json(path)
    if content is None:
        raise UserError(f"{path.parent}: holds no run, {path.name} is missing")
    return {name: _with_tuples(value) for name, value in content.items()}


def _with_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_tuples(child) for key, child in value.items()}
    return tuple(value) if isinstance(value, list) else value


def find_images(
    path: str | pathlib.Path,
    shape: tuple[int, ...],
    image_size: int = 0,
    transform: decode.Transform | None = None,
) -> Images:
    """The images of a folder or an npz file.

    Args:
      path: the folder or file.
      shape: (H, W, channels) of the training images, or (D,) of the rows of
        features.
      image_size: not 0 where the run's training images were resized too, so
        that images of another size are nothing to warn of.
      transform: how the files of a folder are cut, as the run's test images
        were; None of a run whose images lay in memory.

    Returns:
      The images, files sorted by path.

    Raises:
      UserError: nothing there, or not of that shape.
    """
    place = paths.expanded(path, "--images")
    if place.is_dir():
        if len(shape) == 1:
            raise UserError(
                f"{place}: is a folder, and the run was trained on rows of "
                "features; give an .npz file with features"
            )
        return _folder(place, shape, image_size, transform)
    if place.exists() and place.suffix != ".npz":
        raise UserError(f"{place}: neither a folder nor an .npz file")
    kind = "features" if len(shape) == 1 else "images"
    names = (kind, f"test_{kind}")
    arrays, _ = untrusted.read_npz(place, names)
    name = next((n for n in names if n in arrays), None)
    if name is None:
        raise UserError(f"{place}: holds neither {names[0]} nor {names[1]}")
    images = arrays[name]
    if kind == "features":
        images = npz.features(place, arrays, name)
        if images.shape[1:] != shape:
            raise UserError(
                f"{place}: {name} have {images.shape[1]} numbers a row, the "
                f"training features {shape[0]}"
            )
    elif images.dtype != np.uint8 or images.shape[1:] != shape:
        raise UserError(
            f"{place}: {name} must be uint8 of shape (N, "
            f"{', '.join(map(str, shape))}) like the training images, is "
            f"{images.dtype} of shape {images.shape}"
        )
    if not len(images):
        raise UserError(f"{place}: {name} is empty")
    return in_memory(images)


def in_memory(images: np.ndarray) -> Images:
    """Images in memory, by their row numbers.

    Args:
      images: uint8 [N, H, W, C], or float32 [N, D] of a run on features.
    """
    return Images(
        range(len(images)),
        lambda first, last: Piece(images[first:last], [""] * (last - first)),
    )


def _folder(
    root: pathlib.Path,
    shape: tuple[int, ...],
    image_size: int,
    transform: decode.Transform | None,
) -> Images:
    listing.check_name(root)
    listed = listing.find(root)
    if not listed.images:
        raise UserError(f"{root}: holds no image")
    listing.warn(root, listed.others, listed.dead)

    def read_one(path: str) -> tuple[np.ndarray, bool] | decode.BadImage:
        """The pixels, and whether their size had to be changed."""
        try:
            image = decode.open_rgb(root / path)
        except decode.BadImage as error:
            return error
        if transform is not None:
            return decode.views(image, transform, [None])[0], False
        other = not image_size and image.size != shape[1::-1]
        pixels = decode.fit(image, shape[:2])
        if shape[2] == 1:
            grey = Image.fromarray(pixels).convert("L")
            return np.asarray(grey)[..., None], other
        return pixels, other

    def read(first: int, last: int) -> Piece:
        names = listed.images[first:last]
        # Decoding releases Python's lock.
        with concurrent.futures.ThreadPoolExecutor() as pool:
            found = list(pool.map(read_one, names))
        pixels = np.zeros((len(found), *shape), np.uint8)
        reasons, resized = [""] * len(found), []
        for i, one in enumerate(found):
            if isinstance(one, decode.BadImage):
                reasons[i] = str(one)
                continue
            pixels[i], other = one
            resized += [str(root / names[i])] * other
        return Piece(pixels, reasons, resized)

    return Images(listed.images, read)


@dataclasses.dataclass(eq=False)
class Networks:
    """The networks of a run, which vote on new images.

    They can be pickled; what is compiled stays behind.

    Attributes:
      where: the run's folder, for messages.
      config: of the run.
      training_set: of the run.
      kept: the checkpoint with the networks' weights and the memory.
    """

    where: str
    config: ml_collections.ConfigDict
    training_set: TrainingSet
    kept: checkpoint.Restored

    @classmethod
    def load(
        cls, workdir: str | pathlib.Path, epoch: int | None = None
    ) -> "Networks":
        """Reads the networks of a run at one epoch.

        Args:
          workdir: the run's folder.
          epoch: 0-based; None takes the newest checkpoint that verifies.

        Raises:
          UserError: no run, or no such checkpoint.
        """
        config, training_set = read_run(workdir)
        method, network = _built(config, training_set)
        shapes = network.shapes(training_set.image_shape)
        empty = jax.tree.map(
            lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes
        )
        fresh = [base.init_state(empty, ()) for _ in range(method.num_nets)]
        # Those that voted in the run: its averaged networks, if it has any.
        part = "average" if config.model.ema else ""
        kept = checkpoint.load(
            workdir,
            epoch,
            [{part: s.variables} if part else s.variables for s in fresh],
            trainer.init_memory(method, fresh, len(training_set.labels)),
        )
        # Of a run at work the last epoch is not there yet.
        complete = (pathlib.Path(workdir) / summary.FILE).exists()
        if epoch is None and complete and kept.epoch < config.epochs - 1:
            logger.warning(
                "%s: the checkpoint of its last epoch, %d, is missing; that of "
                "epoch %d is taken",
                workdir,
                config.epochs - 1,
                kept.epoch,
            )
        networks = [state[part] if part else state for state in kept.states]
        kept = kept._replace(states=networks)
        return cls(str(workdir), config, training_set, kept)

    @functools.cached_property
    def _ready(self) -> "_Ready":
        """What every vote uses, made for the first."""
        method, network = _built(self.config, self.training_set)
        mesh = sharding.make_mesh(method.batch_sizes)
        sharding.enable_compilation_cache()
        return _Ready(
            method,
            inference.Inference(
                network, method.outputs, self.config, self.training_set, mesh
            ),
            sharding.replicated(mesh),
            jax.device_put(self.kept.states, sharding.replicated(mesh)),
        )

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "_ready"}

    def vote(self, found: Images) -> np.ndarray:
        """Probabilities of the classes.

        Args:
          found: N images of the training images' shape.

        Returns:
          float [N, C], softmax of the mean of all voting logits; NaN for
          images that cannot be read.

        Raises:
          UserError: none can be read, or the networks' outputs are not finite.
        """
        method, infer, everywhere, states = self._ready
        scores, reasons, resized = list[np.ndarray](), list[str](), list[str]()
        size = _BATCHES * infer.batch_size
        for first in range(0, len(found.ids), size):
            piece = found.read(first, min(first + size, len(found.ids)))
            pixels = piece.pixels
            reasons += piece.reasons
            resized += piece.resized
            held = jax.device_put(InMemory.of(pixels), everywhere)
            rows = np.arange(len(pixels))
            outputs = sharding.fetch([infer(s, held, rows) for s in states])
            inference.require_finite(
                outputs,
                f"{self.where}: epoch {self.kept.epoch}",
                "its training diverged, choose another --epoch or run",
            )
            scores.append(
                inference.vote(
                    method, outputs, len(pixels), self.kept.memory
                ).scores
            )
        probs = selection.softmax(np.concatenate(scores))
        if resized:
            height, width, _ = self.training_set.image_shape
            logger.warning(
                "%s: has another size than the training images and was resized "
                "to %dx%d, as were %d of %d images; their labels are less "
                "certain",
                resized[0],
                width,
                height,
                len(resized),
                len(reasons),
            )
        if bad := list(filter(None, reasons)):
            if len(bad) == len(reasons):
                raise UserError(f"{bad[0]}; nor can any other image be read")
            logger.warning(
                "%s; of %d images %d cannot be read",
                bad[0],
                len(reasons),
                len(bad),
            )
            probs[[reason != "" for reason in reasons]] = np.nan
        return probs


class _Ready(NamedTuple):
    """A method, its compiled networks, and their weights on the devices."""

    method: base.Method
    infer: inference.Inference
    everywhere: Any
    states: Any


def _built(
    config: ml_collections.ConfigDict, training_set: TrainingSet
) -> tuple[base.Method, models.Network]:
    """The method of a run, and its network without weights."""
    classes = len(training_set.class_names)
    method = base.create(config, base.DataInfo(training_set.labels, classes))
    network = models.build(
        config.model, classes, method.heads, **method.network_options
    )
    return method, network


def predict(
    workdir: str | pathlib.Path,
    images: str | pathlib.Path,
    epoch: int | None = None,
) -> tuple[Sequence[Any], np.ndarray, tuple[str, ...]]:
    """Votes of a run's networks on new images.

    Args:
      workdir: the run's folder.
      images: a folder of images or an npz file.
      epoch: 0-based; None takes the newest checkpoint that verifies.

    Returns:
      The ids (row numbers or relative paths), the probabilities float [N, C]
      that softmax makes of the mean of all voting logits, NaN for images that
      cannot be read, and the C class names.

    Raises:
      UserError: no run, no such checkpoint, no or unsuitable images, none that
        can be read.

    Example:
      >>> import jaxnlt, numpy
      >>> numpy.savez("new.npz", images=numpy.zeros((5, 8, 8, 1), "uint8"))
      >>> ids, probs, names = jaxnlt.predict("runs/mine", "new.npz")
      >>> probs.shape, names[0]
      ((5, 10), '0')
    """
    networks = Networks.load(workdir, epoch)
    found = find_images(
        images,
        networks.training_set.image_shape,
        networks.config.data.get("image_size", 0),
        decode.transform_of(networks.config),
    )
    return found.ids, networks.vote(found), networks.training_set.class_names


def write_csv(
    path: pathlib.Path,
    ids: Sequence[Any],
    probs: np.ndarray,
    class_names: Sequence[str],
) -> None:
    """Writes the table of predictions; it is replaced at once or not at all.

    Args:
      path: the file.
      ids: N row numbers or relative paths.
      probs: float [N, C], NaN for images that cannot be read.
      class_names: C names.

    Raises:
      UserError: it cannot be written.
    """
    text = io.StringIO(newline="")
    first = "path" if isinstance(ids[0], str) else "index"
    cells.write(text, [(first, "predicted_label", "confidence")])
    best = np.nan_to_num(probs).argmax(1)
    cells.write(
        text,
        (
            (name, UNREADABLE, "")
            if np.isnan(row).any()
            else (name, class_names[k], f"{row[k]:.6g}")
            for name, k, row in zip(ids, best, probs, strict=True)
        ),
    )
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        temporary.write_text(text.getvalue(), encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"--out: {path}: cannot be written ({error.strerror})"
        ) from error


def _command(argv: list[str]) -> None:
    if console.HELP_FLAGS & set(argv[1:]):
        print(USAGE, end="")
        return
    values = flags.FlagValues()
    for name in ("workdir", "images"):
        flags.DEFINE_string(name, None, "", flag_values=values)
    flags.DEFINE_string("out", "predictions.csv", "", flag_values=values)
    flags.DEFINE_integer("epoch", None, "", flag_values=values)
    console.parse_flags(values, argv)
    for name in ("workdir", "images", "out"):
        if not values[name].value:
            raise UserError(f"--{name}: is missing, see --help")
    out = paths.expanded(values.out, "--out", ".tmp")
    if out.is_dir():
        raise UserError(f"--out: {out}: is a folder")
    if not out.absolute().parent.is_dir():
        raise UserError(f"--out: {out.parent}: no such folder")
    console.set_environment(deterministic=False)
    console.check_devices()
    workdir = paths.expanded(values.workdir, "--workdir")
    ids, probs, names = predict(workdir, values.images, values.epoch)
    write_csv(out, ids, probs, names)
    labelled = len(ids) - np.isnan(probs).any(1).sum()
    console.echo(f"{labelled} images labelled, see {out}")


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
