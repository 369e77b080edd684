"""What every config file shares: the text after the colon, and base fields.

`--config=configs/METHOD.py:BENCHMARK[,key=value...]` hands the part after the
colon to `get_config(arg)` of the file; `parse` reads it, `base` makes the
fields that all methods have, `finish` scales epochs and checks.
"""

import hashlib
import json
import math
import operator
from collections.abc import Mapping
from functools import reduce
from typing import Any

import ml_collections

from jaxnlt.data import registry
from jaxnlt.runtime.errors import UserError, one_of

Keys = Mapping[str, tuple[type, Any, str]]

KEYS: dict[str, tuple[type, Any, str]] = {
    "imb": (
        float,
        None,
        "size of the smallest class over the largest, 1 = balanced",
    ),
    "noise": (
        str,
        None,
        "none sym sym_count sym_excl asym asym_block flip joint joint_any "
        "human:NAME",
    ),
    "rate": (float, None, "noise rate in [0, 1)"),
    "seed": (int, 0, "initialisation, shuffles, augmentation"),
    "data_seed": (int, None, "subset and noise; the seed if not given"),
    "epochs": (int, None, "epochs to run; epoch-valued fields scale along"),
    "split": (str, "", "dev: a development set in place of the test set"),
    "as_released": (bool, False, "every switch as in the authors' release"),
    "smoke": (bool, False, "one epoch of two steps of every phase"),
}


class HelpRequested(Exception):
    """`parse` met `help` in place of a benchmark.

    Attributes:
      keys: all keys of the method, {name: (type, default, help)}.
    """

    def __init__(self, keys: Keys):
        super().__init__("help")
        self.keys = keys


def _value(key: str, kind: type, text: str | None):
    if kind is bool:
        known = {
            None: True,
            "true": True,
            "1": True,
            "false": False,
            "0": False,
        }
        if text is None or text.lower() in known:
            return known[text and text.lower()]
    elif text is not None:
        try:
            return kind(text)
        except ValueError:
            pass
    raise UserError(f"{key}: expects {kind.__name__}, is {text!r}")


def parse(arg: str | None, **extra: tuple[type, Any, str]) -> Mapping[str, Any]:
    """Reads `BENCHMARK[,key=value...]`.

    Args:
      arg: text after the colon, None or empty for the defaults.
      **extra: the method's own keys, name=(type, default, help).

    Returns:
      Dict of `benchmark` and every key, None where neither given nor known.

    Raises:
      UserError: an unknown key, a value of the wrong type.
      HelpRequested: the text is `help`.
    """
    keys = KEYS | extra
    if arg == "help":
        raise HelpRequested(keys)
    values = {key: default for key, (_, default, _) in keys.items()}
    first, *rest = (arg or "digits").split(",")
    if "=" in first or first in keys:
        first, rest = "digits", [first, *rest]
    for item in rest:
        key, _, text = item.partition("=")
        if key not in keys:
            raise UserError(
                f"{key}: unknown key; known are {', '.join(sorted(keys))}"
            )
        values[key] = _value(key, keys[key][0], text if "=" in item else None)
    return {"benchmark": first, **values}


def shared_keys(arg: str | None) -> str:
    """The text after the colon without the keys that one method alone has."""
    items = (arg or "").split(",")
    first = items[0] if items[0] in registry.BENCHMARKS else "digits"
    kept = [item for item in items if item.partition("=")[0] in KEYS]
    return ",".join([first, *kept])


def base(arg: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """Fields that all methods share, with the benchmark's defaults.

    Args:
      arg: what `parse` returned.

    Returns:
      An unlocked ConfigDict.
    """
    table = registry.get(arg["benchmark"])

    def given(key):
        return getattr(table, key) if arg[key] is None else arg[key]

    return ml_collections.ConfigDict(
        {
            "method": "",
            "benchmark": arg["benchmark"],
            "seed": arg["seed"],
            # -1 takes the seed.
            "data_seed": -1 if arg["data_seed"] is None else arg["data_seed"],
            "epochs": table.epochs,
            # Images a step; warm-up and plain training take the second.
            "batch_size": table.batch_size,
            "warmup_batch_size": table.warmup_batch_size,
            "eval_batch_size": table.eval_batch_size,
            # At most so many steps an epoch; 0 takes all.
            "max_steps": 0,
            "split": arg["split"],
            # 'auto': >100 / 20-100 / <20 training images, else thirds of the
            # classes; 'paper': classes 0-1 / 2-6 / 7-9.
            "groups": "auto",
            # Another method's way to select, of jaxnlt/selection/registry.py; empty is
            # the method's own.
            "selector": "",
            # Bit-identical reruns on GPU, at some cost; CPU always is.
            "deterministic": False,
            # Keep what every selection reads, in WORKDIR/outputs, for
            # launch/study_selector.py.
            "log_outputs": False,
            # WORKDIR[@EPOCH] whose networks to start from; with a phase name in
            # start_phase also its memory and momentum.
            "init_from": "",
            "start_phase": "",
            "data": {
                "path": "",
                "imb": given("imb"),
                "imb_type": "exp",
                "n_max": 0,
                "noise": given("noise"),
                "rate": given("rate"),
                "noise_file": "",
                "labels_file": "",
                # `tfds`: the set, as mnist, mnist:3.0.1 or NAME/CONFIG.
                "name": "",
                # `folder`, `tfds`: resize every image to this square; 0 wants
                # equal sizes.  Images that stay on disk are cut to it; 0 is the
                # paper's size.
                "image_size": 0,
                # How images that stay on disk are cut: a name in
                # jaxnlt/data/files.py; 'stop' or 'skip' at one that cannot be
                # read; threads that decode, 0 takes all cores.
                "transform": table.transform,
                "on_bad_image": "stop",
                "workers": 0,
                # Each device holds its part of the images in memory in place
                # of a copy: for sets that do not fit, at some cost a step.
                "divided": False,
            },
            "model": {
                "name": table.model,
                "width": table.width,
                "blocks": table.blocks,
                "dtype": "float32",
                # A .pth or .safetensors with torchvision's ResNet, where to
                # start from; only the classifier is left out.
                "pretrained": "",
            },
            "augment": {"weak": table.weak, "strong": table.strong},
            "optimizer": {
                "learning_rate": table.learning_rate,
                "momentum": table.momentum,
                "weight_decay": table.weight_decay,
                "drops": (),
                "drop_factor": 0.1,
            },
        }
    )


def _get(config, path: str):
    return reduce(operator.getitem, path.split("."), config)


def finish(
    config: ml_collections.ConfigDict,
    arg: Mapping[str, Any],
    boundaries: tuple[str, ...] = (),
    durations: tuple[str, ...] = (),
) -> ml_collections.ConfigDict:
    """Scales epoch-valued fields to the epochs asked for, then locks.

    Args:
      config: with the fields of its default number of epochs.
      arg: what `parse` returned.
      boundaries: fields that hold the first epoch of a phase, in order; every
        phase keeps at least one epoch.
      durations: fields that hold a number of epochs or an epoch that starts no
        phase.

    Returns:
      The same config, locked.

    Raises:
      UserError: fewer epochs than phases.
    """
    least = len(boundaries) + 1
    wanted = config.epochs if arg["epochs"] is None else arg["epochs"]
    if arg["smoke"]:
        wanted, config.max_steps = least, 2
    if wanted < least:
        raise UserError(
            f"epochs: {config.method} needs at least {least}, one a phase, "
            f"is {wanted}"
        )
    ratio = wanted / config.epochs
    scaled: dict[str, Any] = {}
    previous = 0
    for i, path in enumerate(boundaries):
        latest = wanted - len(boundaries) + i
        epoch = round(_get(config, path) * ratio)
        previous = scaled[path] = min(max(epoch, previous + 1), latest)
    for path in durations:
        scaled[path] = _get(config, path) * ratio
    drops = config.optimizer.drops
    scaled["optimizer.drops"] = tuple(round(drop * ratio) for drop in drops)
    if ratio != 1:
        config.update_from_flattened_dict(scaled)
        config.epochs = wanted
    return config.lock()


# The least that makes sense, where nothing further down says so.
LEAST = {
    "seed": 0,
    "epochs": 1,
    "batch_size": 1,
    "warmup_batch_size": 1,
    "eval_batch_size": 1,
    "max_steps": 0,
    "optimizer.learning_rate": 0,
    "optimizer.momentum": 0,
    "optimizer.weight_decay": 0,
}


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses numbers that no run can use.

    Raises:
      UserError: a field below its least value, or not finite.
    """
    for name, value in flatten(config.to_dict()).items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise UserError(f"config.{name}: must be finite, is {number}")
    for name, least in LEAST.items():
        if not _get(config, name) >= least:
            raise UserError(
                f"config.{name}: must be at least {least}, "
                f"is {_get(config, name)}"
            )
    one_of("config.groups", config.groups, ("auto", "paper"))


def as_json(config: ml_collections.ConfigDict) -> dict:
    """The resolved config as plain JSON values."""
    return json.loads(config.to_json())


def short_hash(config: ml_collections.ConfigDict) -> str:
    """Eight hex digits that name a resolved config."""
    text = json.dumps(as_json(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def flatten(tree: Mapping, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict of dotted names."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def difference(old: Mapping, new: Mapping) -> str:
    """The first fields in which two resolved configs differ, on one line."""
    a, b = flatten(old), flatten(new)
    changed = [key for key in sorted(a | b) if a.get(key) != b.get(key)]
    shown = [f"{key} {a.get(key)!r} -> {b.get(key)!r}" for key in changed[:3]]
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return ", ".join(shown) + more
