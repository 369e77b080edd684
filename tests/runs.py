"""Small configurations for tests that train, and whether a run resumes."""

import functools
import importlib
import pkgutil
import shutil

import jax
import numpy as np

import configs
from jaxnlt import train
from jaxnlt.config.base import KEYS, HelpRequested
from jaxnlt.results import files as result_files
from jaxnlt.runtime import checkpoint


@functools.cache
def methods():
    """Every method, {name: (module of its config file, text after the colon)}.

    A file makes more than one where a flag of its own asks for another: RoLT's
    `plus`.  One that makes none of its own name is a recipe of another method.
    """
    found = {}
    for file in pkgutil.iter_modules(configs.__path__):
        module = importlib.import_module(f"configs.{file.name}")
        try:
            module.get_config("help")
        except HelpRequested as request:
            own = {k: v for k, v in request.keys.items() if k not in KEYS}
        flags = [f",{key}" for key, (kind, *_) in own.items() if kind is bool]
        made = {
            module.get_config(f"digits{text}").method: (module, text)
            for text in ("", *flags)
        }
        if file.name in made:
            found |= made
    return found


# Options of the methods that have them.
FEW = {"projection_dim": 4, "memory_size": 24, "ramp": 8.0}


def tiny(method="dasc", arg="digits", **fields):
    """A config of a one-block net that runs every phase in seconds."""
    module, text = methods()[method]
    return shrink(module.get_config(arg + text), **fields)


def shrink(config, **fields):
    """Makes a config tiny, and gives it some fields.

    Runs of one method share their compiled programs as long as what is
    compiled into them agrees: sizes, views, and the numbers of the ramp.
    """
    method = config.method
    small = {
        "model.width": 4,
        "model.blocks": (1,),
        "batch_size": 16,
        "warmup_batch_size": 16,
        "max_steps": 3,
        "eval_batch_size": 128,
    }
    if config.benchmark == "digits":
        small["augment.strong"] = "shift"  # compiles fast
    few = {k: v for k, v in FEW.items() if k in config[method]}
    small |= {f"{method}.{name}": value for name, value in few.items()}
    if method == "dasc":
        small |= {"epochs": 4, "dasc.contrast_start": 1, "dasc.warmup": 2}
    with config.unlocked():
        config.update_from_flattened_dict(small | fields)
    return config


def same_figures(a, b):
    """Whether two epochs' records agree in all but their times."""
    timing = {"seconds", "images_per_second"}
    return {k: v for k, v in a.items() if k not in timing} == {
        k: v for k, v in b.items() if k not in timing
    }


def records(workdir):
    return result_files.read_jsonl(workdir / "metrics.jsonl")


def check_resume(config, workdir):
    """Asserts that a finished run ends alike if its last epoch is run again.

    The second run has a copy of the folder as a kill leaves it while the last
    checkpoint is written: metrics of all epochs, that checkpoint missing.
    """
    target = workdir.with_name(f"{workdir.name}-resumed")
    shutil.copytree(workdir, target)
    whole = result_files.read_json(target / "summary.json")
    (target / "summary.json").unlink()
    shutil.rmtree(target / "checkpoints" / str(config.epochs - 1))
    again = train.run(config, target)
    assert again["weights_sha256"] == whole["weights_sha256"]

    rows, rows_again = records(workdir), records(target)
    assert len(rows) == config.epochs
    for a, b in zip(rows, rows_again, strict=True):
        assert same_figures(a, b)
    # Times too: the earlier epochs were taken over, not trained again.
    assert rows[:-1] == rows_again[:-1]
    assert rows[-1]["seconds"] != rows_again[-1]["seconds"]

    kept, kept_again = checkpoint.load(workdir), checkpoint.load(target)
    assert kept.epoch == kept_again.epoch == config.epochs - 1
    for a, b in (
        (kept.memory, kept_again.memory),
        (kept.states, kept_again.states),
    ):
        jax.tree.map(_assert_same, a, b)


def _assert_same(a, b):
    np.testing.assert_array_equal(a, b)
    assert a.dtype == b.dtype


def write_npz(path, size=32, per_class=12, classes=3, channels=3, test=True):
    """Images that a net can tell apart by their brightness."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), per_class)
    shape = (len(labels), size, size, channels)
    images = rng.integers(0, 60, shape) + 60 * labels[:, None, None, None]
    arrays = {"train_images": images.astype(np.uint8), "train_labels": labels}
    if test:
        arrays |= {"test_images": arrays["train_images"], "test_labels": labels}
    np.savez(path, **arrays)
    return path
