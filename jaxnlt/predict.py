"""Labels new images with the networks of a run.

python -m jaxnlt.predict --workdir=RUN --images=FOLDER|FILE.npz \
    --out=predictions.csv
"""

import concurrent.futures
import csv
import io
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from absl import flags
from PIL import Image

from jaxnlt import infer as inference
from jaxnlt import method as base
from jaxnlt import models, selection
from jaxnlt.config import modules
from jaxnlt.data import decode
from jaxnlt.data.readers import npz
from jaxnlt.results import files as result_files
from jaxnlt.runtime import checkpoint, console, sharding
from jaxnlt.runtime.errors import UserError, logger

USAGE = """\
Labels new images with the networks of a finished or running jaxnlt run: the
same vote as in its evaluation.

usage: python -m jaxnlt.predict --workdir=RUN --images=FOLDER|FILE.npz
                                [--out=predictions.csv] [--epoch=N]

  --workdir  a folder that python -m jaxnlt.main has left
  --images   a folder, searched with all folders in it; or a file with
             images (or test_images), uint8 [N, H, W, C]
  --out      the table to write: index or path, predicted_label, confidence
  --epoch    number of a folder in WORKDIR/checkpoints, whose names count from
             0 as all files do; the last one if not given
"""
# Batches that are decoded and held at once.
_BATCHES = 16


class Images(NamedTuple):
    """Images to label, read piece by piece.

    Attributes:
      ids: row numbers (int) or relative paths (str).
      read: (first, last) -> uint8 [last - first, H, W, C].
    """

    ids: Sequence[Any]
    read: Callable[[int, int], np.ndarray]


class TrainingSet(NamedTuple):
    """The training set, as dataset.json describes it.

    Attributes:
      class_names: C names.
      mean: per channel, in units of images scaled to [0, 1].
      std: per channel, same units.
      image_shape: (H, W, channels).
      labels: int[N] given labels in some order, for their counts.
    """

    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_shape: tuple[int, int, int]
    labels: np.ndarray


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
    config = result_files.read_json(directory / "config.json")
    facts = result_files.read_json(directory / "dataset.json")
    for name, content in (("config", config), ("dataset", facts)):
        if content is None:
            raise UserError(
                f"{directory}: holds no run, {name}.json is missing"
            )
    checkpoint.check_layout(facts, directory)
    modules.load_method(config["method"])  # it may bring the benchmark along
    counts = facts["given_counts"]
    return ml_collections.ConfigDict(_with_tuples(config)).lock(), TrainingSet(
        class_names=tuple(facts["class_names"]),
        mean=tuple(facts["mean"]),
        std=tuple(facts["std"]),
        image_shape=tuple(facts["image_shape"]),
        labels=np.repeat(np.arange(len(counts), dtype=np.int32), counts),
    )


def _with_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_tuples(child) for key, child in value.items()}
    return tuple(value) if isinstance(value, list) else value


def find_images(
    path: str | pathlib.Path,
    shape: tuple[int, int, int],
    image_size: int = 0,
    transform: decode.Transform | None = None,
) -> Images:
    """The images of a folder or an npz file.

    Args:
      path: the folder or file.
      shape: (H, W, channels) of the training images.
      image_size: whether images of another size are resized, as the run's
        training images were: 0 refuses them.
      transform: how the files of a folder are cut, as the run's test images
        were; None of a run whose images lay in memory.

    Returns:
      The images, files sorted by path.

    Raises:
      UserError: nothing there, or not of that shape; unreadable images are
        named when they are read.
    """
    place = pathlib.Path(path).expanduser()
    if place.is_dir():
        return _folder(place, shape, image_size, transform)
    if place.exists() and place.suffix != ".npz":
        raise UserError(f"{place}: neither a folder nor an .npz file")
    arrays = npz.read_arrays(place)
    name = next((n for n in ("images", "test_images") if n in arrays), None)
    if name is None:
        raise UserError(f"{place}: holds neither images nor test_images")
    images = arrays[name]
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        raise UserError(
            f"{place}: {name} must be uint8 of shape (N, "
            f"{', '.join(map(str, shape))}) like the training images, is "
            f"{images.dtype} of shape {images.shape}"
        )
    if not len(images):
        raise UserError(f"{place}: {name} is empty")
    return Images(range(len(images)), lambda first, last: images[first:last])


def _folder(
    root: pathlib.Path,
    shape: tuple[int, int, int],
    image_size: int,
    transform: decode.Transform | None,
) -> Images:
    found = sorted(p for p in root.rglob("*") if p.is_file())
    kept = [p for p in found if not p.name.startswith(".")]
    chosen = [p for p in kept if p.suffix.lower() in decode.SUFFIXES]
    if not chosen:
        raise UserError(f"{root}: holds no image")
    if len(chosen) < len(kept):
        strange = next(p for p in kept if p not in chosen)
        logger.warning(
            "%s: %d files are no images by their names and are left out, the "
            "first is %s",
            root,
            len(kept) - len(chosen),
            strange,
        )

    def pixels_of(file: pathlib.Path) -> np.ndarray:
        if transform is not None:
            return decode.views(decode.read_rgb(file), transform, [None])[0]
        pixels = decode.read_rgb(file, shape[:2] if image_size else None)
        if pixels.shape[:2] != shape[:2]:
            raise UserError(
                f"{file}: is {pixels.shape[1]}x{pixels.shape[0]} pixels, the "
                f"training images {shape[1]}x{shape[0]}"
            )
        if shape[2] == 1:
            return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
        return pixels

    def read(first: int, last: int) -> np.ndarray:
        # Decoding releases Python's lock; the first error in order is raised.
        with concurrent.futures.ThreadPoolExecutor() as pool:
            return np.stack(list(pool.map(pixels_of, chosen[first:last])))

    return Images([p.relative_to(root).as_posix() for p in chosen], read)


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
      that softmax makes of the mean of all voting logits, and the C class
      names.

    Raises:
      UserError: no run, no such checkpoint, no or unsuitable images.
    """
    config, training_set = read_run(workdir)
    classes, shape = len(training_set.class_names), training_set.image_shape
    found = find_images(
        images,
        shape,
        config.data.get("image_size", 0),
        decode.transform_of(config),
    )
    method = base.create(config, base.DataInfo(training_set.labels, classes))
    network = models.build(
        config.model, classes, method.heads, **method.network_options
    )
    empty = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype), network.shapes(shape)
    )
    fresh = [base.init_state(empty, ()) for _ in range(method.num_nets)]
    kept = checkpoint.load(
        workdir,
        epoch,
        [state.variables for state in fresh],
        base.init_memory(method, fresh, len(training_set.labels)),
    )
    mesh = sharding.make_mesh(method.batch_sizes)
    infer = inference.Inference(
        network, method.outputs, config, training_set, mesh
    )
    everywhere = sharding.replicated(mesh)
    sharding.enable_compilation_cache()
    states = jax.device_put(kept.states, everywhere)
    scores = []
    size = _BATCHES * infer.batch_size
    for first in range(0, len(found.ids), size):
        pixels = found.read(first, min(first + size, len(found.ids)))
        held = jax.device_put(pixels, everywhere)
        rows = np.arange(len(pixels))
        outputs = sharding.fetch([infer(s, held, rows) for s in states])
        scores.append(
            inference.vote(method, outputs, len(pixels), kept.memory).scores
        )
    votes = method.num_nets * len(method.vote)
    probs = selection.softmax(np.concatenate(scores) / votes)
    return found.ids, probs, training_set.class_names


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
      probs: float [N, C].
      class_names: C names.

    Raises:
      UserError: it cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    first = "path" if isinstance(ids[0], str) else "index"
    writer.writerow((first, "predicted_label", "confidence"))
    for name, row in zip(ids, probs, strict=True):
        best = int(row.argmax())
        writer.writerow((name, class_names[best], f"{row[best]:.6g}"))
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
    out = pathlib.Path(values.out).expanduser()
    if out.is_dir():
        raise UserError(f"--out: {out}: is a folder")
    if not out.absolute().parent.is_dir():
        raise UserError(f"--out: {out.parent}: no such folder")
    console.set_environment(deterministic=False)
    console.check_devices()
    workdir = pathlib.Path(values.workdir).expanduser()
    ids, probs, names = predict(workdir, values.images, values.epoch)
    write_csv(out, ids, probs, names)
    print(f"{len(ids)} images labelled, see {out}")


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
