"""What every config file shares: the text after the colon, and base fields.

``--config=configs/METHOD.py:BENCHMARK[,key=value...]`` passes the part after
the colon to ``get_config(arg)`` of the file; ``parse`` reads it, ``base`` makes
the fields that all methods share, ``finish`` scales epochs and locks.
"""

import dataclasses
import hashlib
import json
import operator
from collections.abc import Mapping
from functools import reduce
from typing import Annotated, Any, Literal, NamedTuple

import ml_collections

from jaxnlt.augment import table
from jaxnlt.config import fields, modules, suggest
from jaxnlt.config.fields import (
    Decay,
    Factor,
    Natural,
    NotNegative,
    Positive,
    Range,
    Rate,
    Seed,
    Share,
    changeable,
)
from jaxnlt.data import registry
from jaxnlt.runtime.errors import UserError, one_of


class Key(NamedTuple):
    """A key that may stand after the colon.

    Attributes:
      kind: type of its value.
      default: None takes the benchmark's.
      about: for the help text.
    """

    kind: type
    default: Any
    about: str


KEYS: dict[str, Key] = {
    "imb": Key(
        float,
        None,
        "size of the smallest class over the largest, 1 = balanced",
    ),
    "noise": Key(
        str,
        None,
        "none sym sym_count sym_excl asym asym_block flip joint joint_any "
        "human:NAME",
    ),
    "rate": Key(float, None, "noise rate in [0, 1)"),
    "seed": Key(int, 0, "initialisation, shuffles, augmentation"),
    "data_seed": Key(int, None, "subset and noise; the seed if not given"),
    "epochs": Key(int, None, "epochs to run; epoch-valued fields scale along"),
    "split": Key(str, "", "dev: a development set in place of the test set"),
    "as_released": Key(bool, False, "every switch as in the authors' release"),
    "smoke": Key(bool, False, "one epoch of two steps of every phase"),
    "out_of_sample": Key(
        int, 0, "folds that give out-of-fold probabilities, 2-50; 0 = off"
    ),
}


class HelpRequested(Exception):
    """``parse`` found ``help`` among benchmark and keys.

    Attributes:
      keys: all keys of the method.
      rest: the text after the colon without ``help``.
    """

    def __init__(self, keys: Mapping[str, Key], rest: str):
        super().__init__("help")
        self.keys, self.rest = keys, rest


def _value(key: str, kind: type, text: str | None) -> Any:
    """The value of a key; a bool without a value is true."""
    if kind is bool:
        known = {"true": True, "1": True, "false": False, "0": False}
        if text is None or text.lower() in known:
            return True if text is None else known[text.lower()]
    elif text is not None:
        try:
            return kind(text)
        except ValueError:
            pass
    raise UserError(f"{key}: expects {kind.__name__}, is {text!r}")


def parse(arg: str | None, **extra: Key) -> Mapping[str, Any]:
    """Reads ``BENCHMARK[,key=value...]``.

    Args:
      arg: text after the colon, None or empty for the defaults.
      **extra: the method's own keys.

    Returns:
      Dict of ``benchmark`` and every key, None where neither given nor known.

    Raises:
      UserError: an unknown key, a value of the wrong type.
      HelpRequested: ``help`` is among them.
    """
    keys = KEYS | extra
    items = (arg or "digits").split(",")
    if "help" in items:
        raise HelpRequested(keys, ",".join(i for i in items if i != "help"))
    values = {name: key.default for name, key in keys.items()}
    first, *rest = items
    if "=" in first or first in keys:
        first, rest = "digits", [first, *rest]
    for item in rest:
        name, _, text = item.partition("=")
        if name not in keys:
            raise UserError(
                f"{name}: unknown key; known are {', '.join(sorted(keys))}"
                f"{_meant(name, keys)}"
            )
        given = text if "=" in item else None
        values[name] = _value(name, keys[name].kind, given)
    return {"benchmark": first, **values}


def _meant(name: str, keys: Mapping[str, Key]) -> str:
    """The key or the field that an unknown key may mean, as a question."""
    known = {key: entry.about for key, entry in keys.items()}
    for field, about in fields.describe(RunOptions, "--config.").items():
        known[field] = about.meaning
    near = suggest.nearest(name, known)
    return f"; did you mean {near}?" if near else ""


def shared_keys(arg: str | None) -> str:
    """The text after the colon without the keys that one method alone has."""
    items = (arg or "").split(",")
    first = items[0] if items[0] in registry.BENCHMARKS else "digits"
    kept = [item for item in items if item.partition("=")[0] in KEYS]
    return ",".join([first, *kept])


#: Epochs of a run.
Epochs = Annotated[int, Range(1, 100_000)]
#: Images of one step.
BatchSize = Annotated[int, Range(1, 65_536)]


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Which images and labels are read, and what is drawn from them.

    Attributes:
      path: file or folder of the data.
      imb: size of the smallest class over that of the largest, 1 = balanced.
      imb_type: shape of the long tail.
      n_max: images of the largest class; 0 takes the benchmark's number.
      noise: kind of label noise.
      rate: noise rate.
      noise_file: noise.json of another run, whose labels are taken.
      labels_file: CSV of labels, or file of human labels.
      name: set of ``tfds``, such as mnist, mnist:3.0.1 or NAME/CONFIG.
      image_size: ``folder`` and ``tfds`` resize every image to this square, 0
        lets ``folder`` choose and expects equal sizes in ``tfds``; streamed
        images are cut to it, 0 takes the paper's size.
      statistics: benchmark whose mean and deviation standardise the images; ''
        takes the data set's own.
      mean: that the images of ``npz`` are standardised by, scaled to [0, 1]:
        one number, or one for each channel; () computes it from the training
        images, as ``std``.
      std: see ``mean``.
      transform: how streamed images are cut, a name in jaxnlt/data/decode.py;
        '' lets ``folder`` choose.
      on_bad_image: what happens where image files cannot be read: ``stop``
        names them, ``skip`` leaves them out, for which all files are read
        through before the first epoch.
      workers: threads that decode streamed images; 0 takes all cores.
      divided: each device holds a part of the images in memory, not a copy;
        for sets that do not fit, at some cost a step.
    """

    path: str = changeable("")
    imb: Annotated[float, Range(1e-4, 1)] = 1.0
    imb_type: str = "exp"
    n_max: Natural = 0
    noise: str = "none"
    rate: Decay = 0.0
    noise_file: str = changeable("")
    labels_file: str = changeable("")
    name: str = ""
    image_size: Annotated[int, Range(0, 4096)] = 0
    statistics: str = ""
    mean: tuple[Share, ...] = ()
    std: tuple[Positive, ...] = ()
    transform: str = ""
    on_bad_image: Literal["stop", "skip"] = changeable("stop")
    workers: Annotated[int, Range(0, 1024)] = changeable(0)
    divided: bool = False


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """The network; ``folder`` chooses it where the name is ''.

    Attributes:
      name: of the backbone.
      width: channels of its first stage; 0 takes the published number.
      blocks: residual blocks of each stage; () takes the published numbers.
      dtype: of the computation; parameters stay in float32 under bfloat16.
      pretrained: .pth or .safetensors file with torchvision's ResNet weights
        to start from; the classifier alone is not taken from it.
      ema: decay of an exponential moving average of the weights over the
        epochs, 0.9 averages about the last ten; the averaged networks vote,
        audit and predict, training does not see them.  0 is none.
      ema_teaches: what the averaged networks of the last epoch also do, in
        eval mode: guesses makes the targets, the peer's part too; selection
        infers what selectors read; both.
      bn_shard: images of a batch that batch normalisation takes statistics
        of, one group after the other, as where PyTorch's DataParallel gives
        every GPU so many; the first group moves the running ones.  0 is the
        whole batch, whatever the devices.
    """

    name: str = "preact_resnet18"
    width: Annotated[int, Range(0, 1024)] = 0
    blocks: tuple[Annotated[int, Range(1, 400)], ...] = ()
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    pretrained: str = changeable("")
    ema: Decay = 0.0
    ema_teaches: Literal["none", "guesses", "selection", "both"] = "none"
    bn_shard: Annotated[int, Range(0, 65_536)] = 0


@dataclasses.dataclass(frozen=True)
class AugmentOptions:
    """Names in jaxnlt/augment/table.py of the two augmented views.

    '' lets ``folder`` choose.

    Attributes:
      weak: the weakly augmented view.
      strong: the strongly augmented view.
    """

    weak: str = "crop_flip"
    strong: str = "autoaugment"


@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
    """Stochastic gradient descent.

    Attributes:
      learning_rate: step size at the start.
      momentum: of the gradients.
      weight_decay: weight of the squared parameters.
      drops: epochs after which the step size is multiplied by
        ``drop_factor``.
      drop_factor: see ``drops``.
      schedule: drops follows ``drops``; cosine falls to ``final`` over all
        epochs; h2e and unicon, which have their own, refuse it.
      rise: epochs over which the step size first rises to its full size.
      final: share of the step size after the last epoch of a cosine.
    """

    learning_rate: Rate = 0.02
    momentum: Decay = 0.9
    weight_decay: Share = 5e-4
    drops: tuple[Natural, ...] = ()
    drop_factor: Factor = 0.1
    schedule: Literal["drops", "cosine"] = "drops"
    rise: NotNegative = 0.0
    final: Share = 0.0


#: A number of folds; 0 is none, 1 is refused by ``check``.
Folds = Annotated[int, Range(0, 50)]


@dataclasses.dataclass(frozen=True)
class AuditOptions:
    """How the given labels are judged.

    Attributes:
      planted: share of the labels that are made wrong on purpose.
      out_of_sample: number of further runs, 2-50, each without one fold of the
        training images, whose probabilities become WORKDIR/pred_probs.npy; 0
        makes none.
      folds: number of folds into which ``fold`` divides, 2-50.
      fold: the fold, from 1, that this run leaves out of training; 0 leaves
        none out.
    """

    planted: Annotated[float, Range(0, 0.5, open_high=True)] = 0.0
    out_of_sample: Folds = changeable(0)
    folds: Folds = 0
    fold: Folds = 0


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Fields that all methods share.

    Attributes:
      method: file in jaxnlt/methods/, entry point of the group
        ``jaxnlt.methods``, or dotted name of any module.
      benchmark: entry of jaxnlt/data/registry.py.
      seed: of initialisation, shuffles, augmentation, mixtures.
      data_seed: of subset and noise; -1 takes the seed.
      epochs: number of epochs run.
      batch_size: images a step; 0 lets ``folder`` choose, as in the warm-up.
      warmup_batch_size: images a step of the warm-up; methods of plain training
        alone (erm, h2e, rolt) do not use it.
      eval_batch_size: images a step of inference.
      max_steps: at most so many steps a pass; 0 takes all.
      split: dev puts a development set in place of the test set.
      groups: auto: more than 100, 20-100, fewer than 20 training images, or
        thirds of the classes by size; paper: classes 0-1, 2-6, 7-9.
      selector: another method's selector, of jaxnlt/selection/registry.py;
        '' is the method's own.
      deterministic: bit-identical reruns on GPU, at some cost; CPU always is.
      log_outputs: keep what every selection reads in WORKDIR/outputs, for
        launch/study_selector.py.
      wandb: project of Weights & Biases that the figures go to as well; '' is
        none.
      init_from: WORKDIR[@EPOCH] whose networks to start from, never averaged
        ones.
      start_phase: phase to start at, with memory and momentum of
        ``init_from``.
      data: see ``DataOptions``.
      model: see ``ModelOptions``.
      augment: see ``AugmentOptions``.
      optimizer: see ``OptimizerOptions``.
      audit: see ``AuditOptions``.
    """

    method: str = ""
    benchmark: str = "digits"
    seed: Seed = 0
    data_seed: Annotated[int, Range(-1, 2**32 - 1)] = -1
    epochs: Epochs = 1
    batch_size: BatchSize = 1
    warmup_batch_size: BatchSize = 1
    eval_batch_size: BatchSize = 1
    max_steps: Natural = 0
    split: Literal["", "dev"] = ""
    groups: Literal["auto", "paper"] = "auto"
    selector: str = ""
    deterministic: bool = False
    log_outputs: bool = changeable(False)
    wandb: str = changeable("")
    init_from: str = changeable("")
    start_phase: str = ""
    data: DataOptions = DataOptions()
    model: ModelOptions = ModelOptions()
    augment: AugmentOptions = AugmentOptions()
    optimizer: OptimizerOptions = OptimizerOptions()
    audit: AuditOptions = AuditOptions()


def base(arg: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """Fields that all methods share, with the benchmark's defaults.

    Args:
      arg: what ``parse`` returned.

    Returns:
      An unlocked ConfigDict with the fields of ``RunOptions``.
    """
    entry = registry.get(arg["benchmark"])

    def given(key: str) -> Any:
        return getattr(entry, key) if arg[key] is None else arg[key]

    options = RunOptions(
        benchmark=arg["benchmark"],
        seed=arg["seed"],
        data_seed=-1 if arg["data_seed"] is None else arg["data_seed"],
        epochs=entry.epochs,
        batch_size=entry.batch_size,
        warmup_batch_size=entry.warmup_batch_size,
        eval_batch_size=entry.eval_batch_size,
        split=arg["split"],
        data=DataOptions(
            imb=given("imb"),
            noise=given("noise"),
            rate=given("rate"),
            transform=entry.transform,
        ),
        model=ModelOptions(
            name=entry.model, width=entry.width, blocks=entry.blocks
        ),
        augment=AugmentOptions(weak=entry.weak, strong=entry.strong),
        optimizer=OptimizerOptions(
            learning_rate=entry.learning_rate,
            momentum=entry.momentum,
            weight_decay=entry.weight_decay,
        ),
        audit=AuditOptions(out_of_sample=arg["out_of_sample"]),
    )
    return ml_collections.ConfigDict(fields.as_dict(options))


def _get(config: ml_collections.ConfigDict, path: str) -> Any:
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
      arg: what ``parse`` returned.
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
            f"is {fields.shown(wanted)}"
        )
    fields.check_value(Epochs, wanted, "epochs")
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
    scaled["optimizer.rise"] = config.optimizer.rise * ratio
    if ratio != 1:
        config.update_from_flattened_dict(scaled)
        config.epochs = wanted
    return config.lock()


def check(config: ml_collections.ConfigDict) -> None:
    """Checks the fields that all methods share.

    Raises:
      UserError: a field of another type, out of its range, not finite, or a
        name that does not exist; or a method's group of fields is called like
        one that all methods share.
    """
    options = fields.read(RunOptions, config, "config")
    group = modules.options_group(config.method)
    if group in fields.names(RunOptions):
        raise UserError(
            f"config.method: {config.method!r} would have its fields in "
            f"config.{group}, which all methods share; rename the module"
        )
    for view in fields.names(AugmentOptions):
        name = getattr(options.augment, view)
        one_of(f"config.augment.{view}", name, table.AUGMENTATIONS)
    drops = list(options.optimizer.drops)
    if drops != sorted(drops):
        raise UserError(
            f"config.optimizer.drops: must be in order, is {tuple(drops)}"
        )
    optimizer = options.optimizer
    if drops and optimizer.schedule == "cosine":
        raise UserError(
            "config.optimizer.schedule: cosine knows no config.optimizer.drops,"
            f" which are {tuple(drops)}; set one of both"
        )
    if optimizer.rise >= options.epochs:
        raise UserError(
            f"config.optimizer.rise: must end within the {options.epochs} "
            f"epochs, is {optimizer.rise:g}"
        )
    if options.start_phase and not options.init_from:
        raise UserError("config.start_phase: needs config.init_from")
    if options.model.ema_teaches != "none" and not options.model.ema:
        raise UserError(
            "config.model.ema_teaches: needs config.model.ema, by which the "
            "teachers are averaged"
        )
    shard = options.model.bn_shard
    for size in (options.batch_size, options.warmup_batch_size):
        if shard == 1 or (shard and size % shard == 1):
            raise UserError(
                f"config.model.bn_shard: {shard} leaves one image alone in a "
                f"batch of {size}, and one has no variance; choose a divisor "
                "of the batch size"
            )
    _check_folds(options)


def _check_folds(options: RunOptions) -> None:
    """Checks the fields of the folds against one another."""
    audit = options.audit
    for name in ("out_of_sample", "folds"):
        if getattr(audit, name) == 1:
            raise UserError(
                f"config.audit.{name}: must be 0 or in [2, 50], is 1"
            )
    if (audit.fold == 0) != (audit.folds == 0) or audit.fold > audit.folds:
        raise UserError(
            "config.audit.fold: must be in [1, config.audit.folds], or both 0, "
            f"is {audit.fold} of {audit.folds}"
        )
    if audit.out_of_sample and audit.fold:
        raise UserError(
            "config.audit.out_of_sample: a run that leaves out a fold is not "
            "divided again; leave out config.audit.fold"
        )
    if audit.out_of_sample and options.start_phase:
        raise UserError(
            "config.audit.out_of_sample: does not go with config.start_phase, "
            "whose networks and memory have seen all images; leave one out"
        )


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
    """The first fields in which two resolved configs differ, on one line.

    Args:
      old: resolved config.
      new: the same of the run that would go on with it.

    Returns:
      The line; '' where they differ only in fields that may change then.
    """
    a, b = flatten(old), flatten(new)
    free = fields.changeables(RunOptions)
    changed = [
        key
        for key in sorted(a | b)
        if a.get(key) != b.get(key)
        if key not in free
    ]
    shown = [f"{key} {a.get(key)!r} -> {b.get(key)!r}" for key in changed[:3]]
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return ", ".join(shown) + more
