"""What the methods of the DivideMix family share: options and schedules."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import ml_collections

from jaxnlt.config import fields
from jaxnlt.config.fields import (
    Decay,
    Factor,
    Natural,
    NotNegative,
    Positive,
    Range,
    Share,
)
from jaxnlt.data import registry
from jaxnlt.runtime.errors import UserError, logger

#: Growth of a confidence threshold an epoch.
Growth = Annotated[float, Range(0.5, 2)]
#: Largest margin and scale of LDAM's cosines.
Margin = Annotated[float, Range(0, 2)]
Scale = Annotated[float, Range(1e-3, 1e3)]
#: Length of embeddings; hidden layers are four times as wide.
ProjectionDim = Annotated[int, Range(1, 4096)]


@dataclasses.dataclass(frozen=True)
class SemiOptions:
    """The semi-supervised stage of every method of the family.

    Attributes:
      warmup: epochs before the semi-supervised ones.
      warmup_view: augmentation of the images of supervised epochs.
      lambda_u: weight of the squared error of unlabelled samples after the
        ramp.
      ramp: epochs over which ``lambda_u`` rises from 0.
      alpha: parameter of the Beta distribution of mixup.
      sharpen_temperature: of the sharpening of targets.
      align_to: class shares that the guesses of unlabelled samples are brought
        to: equal ones, or estimated as those of the trusted labels.
      align_decay: of the running mean of the guesses, over steps.
      trust_by: who has to find a given label right: the selector; both, it and
        the vote of all networks; or either of them.
      trust_floor: least share of every given class that is trusted, its
        likeliest labels; 0 lets a class be lost.
      retrain_epochs: the last epochs, which train on the trusted labels alone,
        classes drawn evenly; 0 is none.
      retrain_part: what they train: the voting heads, on a frozen backbone, or
        all.
      retrain_rate: their share of the step size.

    Source: ``papers/dividemix_rolt.md`` section 1.
    """

    warmup: Natural = 30
    warmup_view: Literal["weak", "strong"] = "weak"
    lambda_u: NotNegative = 25.0
    ramp: Positive = 16.0
    alpha: fields.BetaParameter = 4.0
    sharpen_temperature: Annotated[float, Range(0.1, 100)] = 0.5
    align_to: Literal["none", "uniform", "estimated"] = "none"
    align_decay: Decay = 0.99
    trust_by: Literal["selector", "both", "either"] = "selector"
    trust_floor: Share = 0.0
    retrain_epochs: Natural = 0
    retrain_part: Literal["heads", "all"] = "heads"
    retrain_rate: Factor = 0.1


@dataclasses.dataclass(frozen=True)
class FamilyOptions(SemiOptions):
    """What the methods that train with DivideMix's step share.

    Attributes:
      unlabelled_loss: whether unlabelled samples have a squared error;
        WebVision and Clothing1M leave it out.
      warmup_samples: images of a class-balanced subset that every network
        draws anew each epoch to warm up on; 0 takes all.
      pool_samples: images of such a subset to select from; 0 takes all.
      peer: epoch_start shows a network its peer as it was before the epoch, as
        when both are trained at once; updated shows it as it is.
    """

    unlabelled_loss: bool = True
    warmup_samples: Natural = 0
    pool_samples: Natural = 0
    peer: Literal["updated", "epoch_start"] = "updated"


def check_subsets(options: FamilyOptions, where: str, num_classes: int) -> None:
    """Refuses subsets that are too small for a mixture of two.

    Args:
      options: of a method.
      where: dotted name of the options.
      num_classes: C.

    Raises:
      UserError: a subset has fewer than two images a class.
    """
    for name in ("warmup_samples", "pool_samples"):
        size = getattr(options, name)
        if 0 < size < 2 * num_classes:
            raise UserError(
                f"{where}.{name}: must be 0, which takes all, or at least two "
                f"a class, {2 * num_classes}; is {size}"
            )


@dataclasses.dataclass(frozen=True)
class PenaltyOptions(FamilyOptions):
    """Of methods that warm up on the cross-entropy of the given labels.

    Attributes:
      confidence_penalty: mean of sum p log p in the warm-up, against the noise
        ``asym``.

    Source: ``papers/dividemix_rolt.md`` sections 3.1 and 6.
    """

    confidence_penalty: bool = False


@dataclasses.dataclass(frozen=True)
class ThresholdOptions:
    """A split by the clean probability.

    Attributes:
      p_threshold: samples of a larger clean probability are trusted.
    """

    p_threshold: Decay = 0.5


@dataclasses.dataclass(frozen=True)
class MixtureOptions:
    """A mixture of two Gaussians, fitted by scikit-learn.

    Attributes:
      gmm_max_iter: most iterations.
      gmm_tol: gain of the log-likelihood at which the fit stops.
      gmm_reg_covar: added to the variances.
    """

    gmm_max_iter: Annotated[int, Range(1, 10_000)] = 10
    gmm_tol: Share = 1e-2
    gmm_reg_covar: Annotated[float, Range(1e-10, 1)] = 5e-4


#: Benchmark -> warm-up epochs and drops of the step size.
#: ``papers/dividemix_rolt.md`` section 1 (both), ``papers/smr.md`` section 2
#: and B1.
WEB_SCHEDULES = {
    "webvision": (1, (40,)),
    "clothing1m": (1, (40,)),
    "animal10n": (30, (80, 140)),
}
TEN_CLASSES = ("cifar10", "cifar10n")


def is_web(config: ml_collections.ConfigDict) -> bool:
    """Whether DivideMix's settings for large images from the web apply.

    Red mini-ImageNet, whose images are shrunk to 32 pixels, has those of CIFAR.

    Args:
      config: what ``base.base`` made.
    """
    small = config.benchmark == "red_mini_imagenet"
    return bool(config.data.transform) and not small


def is_short(config: ml_collections.ConfigDict) -> bool:
    """Whether methods take schedules for some 40 epochs of a small set.

    Args:
      config: what ``base.base`` made.
    """
    return registry.get(config.benchmark).short


# (benchmark, noise, rate) -> lambda_u on balanced data: appendix, table 7 of
# DivideMix as its author confirmed it in the repository's issues 9, 10, 15, 26,
# 41.  The release's default of 25 does not reproduce the 0 rows.
LAMBDA_U = {
    ("cifar10", "sym_count", 0.2): 0.0,
    ("cifar10", "sym_count", 0.5): 25.0,
    ("cifar10", "asym", 0.4): 0.0,
    ("cifar100", "sym_count", 0.2): 25.0,
    ("cifar100", "sym_count", 0.5): 150.0,
    ("cifar100", "sym_count", 0.8): 150.0,
    ("cifar100", "sym_count", 0.9): 150.0,
}
DEFAULT_LAMBDA_U = 25.0


def published_lambda_u(data: Mapping[str, Any], benchmark: str) -> float:
    """DivideMix's weight of the squared error in a published setting, else 25.

    The settings are balanced; a long tail takes 25, which a note says.

    Args:
      data: ``imb``, ``noise`` and ``rate``; ``sym`` has the probabilities of
        ``sym_count``.
      benchmark: its name.

    Returns:
      lambda_u after the ramp.

    Source: ``papers/dividemix_rolt.md`` section 1.
    """
    noise = "sym_count" if data["noise"] == "sym" else data["noise"]
    published = LAMBDA_U.get((benchmark, noise, data["rate"]), DEFAULT_LAMBDA_U)
    if data["imb"] == 1 or published == DEFAULT_LAMBDA_U:
        return published
    logger.info(
        "lambda_u: is %g on a long tail; the published %g of %s with noise=%s, "
        "rate=%g holds for balanced data (imb=1)",
        DEFAULT_LAMBDA_U,
        published,
        benchmark,
        data["noise"],
        data["rate"],
    )
    return DEFAULT_LAMBDA_U


def semi_fields(
    config: ml_collections.ConfigDict,
    options: type[SemiOptions],
    epochs: int = 0,
    drops: tuple[int, ...] = (),
    warmups: tuple[int, int] = (10, 30),
) -> dict[str, Any]:
    """Semi-supervised fields on a benchmark; sets epochs and drops too.

    Small sets have a short schedule, ours.  Large images from the web have
    those of ``WEB_SCHEDULES``; where no paper has any, ours are a warm-up of a
    tenth of the epochs and a drop half-way.

    Args:
      config: what ``base.base`` made; its epochs and drops are set.
      options: the method's options; fields that it lacks are left out.
      epochs: epochs of CIFAR and similar sets; 0 keeps the benchmark's.
      drops: drops of the same.
      warmups: warm-up epochs of CIFAR-10, and of all other such sets.

    Returns:
      Fields that differ from the defaults of ``options``.

    Source: ``papers/dividemix_rolt.md`` sections 1 and 2.2, ``papers/smr.md``
    sections 2 and 14.
    """
    found: dict[str, Any] = {"confidence_penalty": config.data.noise == "asym"}
    if config.data.rate == 0.9:  # section 3.2
        found["average_losses"] = 5
    if is_short(config):
        found |= {"warmup": 15, "ramp": 8.0}
    elif not is_web(config):
        config.epochs = epochs or config.epochs
        config.optimizer.drops = drops
        found["warmup"] = warmups[config.benchmark not in TEN_CLASSES]
    else:
        found["warmup"], config.optimizer.drops = WEB_SCHEDULES.get(
            config.benchmark,
            (max(1, config.epochs // 10), (config.epochs // 2,)),
        )
        found |= {"lambda_u": 0.0, "unlabelled_loss": False}
        if config.benchmark != "animal10n":  # only SMR runs it, with CIFAR's 4
            found["alpha"] = 0.5
        if config.benchmark == "clothing1m":
            found |= {"warmup_samples": 64_000, "pool_samples": 32_000}
    known = fields.names(options)
    return {name: value for name, value in found.items() if name in known}


def with_recurring(
    config: ml_collections.ConfigDict, arg: Mapping[str, Any], period: str
) -> ml_collections.ConfigDict:
    """Makes room in a smoke run for an epoch that recurs within a phase.

    The run then has a warm-up, a division, the recurring epoch and a division.

    Args:
      config: finished.
      arg: what ``base.parse`` returned.
      period: the field, in epochs.

    Returns:
      The same config, locked.
    """
    if arg["smoke"]:
        with config.unlocked():
            config.epochs = 4
            config.update_from_flattened_dict({period: 3.0})
    return config
