"""Schedules by benchmark that the configs of DivideMix's kin share."""

from collections.abc import Mapping
from typing import Any

import ml_collections

#: Benchmark -> warm-up epochs and drops of the step size.
#: papers/dividemix_rolt.md §1 (both), papers/smr.md §2 and B1.
WEB_SCHEDULES = {
    "webvision": (1, (40,)),
    "clothing1m": (1, (40,)),
    "animal10n": (30, (80, 140)),
}
TEN_CLASSES = ("cifar10", "cifar10n")


def is_web(config: ml_collections.ConfigDict) -> bool:
    """Whether DivideMix's conventions for large images from the web hold.

    Red mini-ImageNet, whose papers shrink it to 32 pixels, is trained on as
    CIFAR is.

    Args:
      config: what `config.base` made.
    """
    small = config.benchmark == "red_mini_imagenet"
    return bool(config.data.transform) and not small


def semi_schedule(
    config: ml_collections.ConfigDict,
    epochs: int = 0,
    drops: tuple[int, ...] = (),
    warmups: tuple[int, int] = (10, 30),
) -> dict[str, Any]:
    """Sets epochs and drops of a method, but on `digits`.

    Large images from the web have those of WEB_SCHEDULES; where no paper has
    any, ours are a warm-up of a tenth of the epochs and a drop half-way.

    Args:
      config: what `config.base` made; changed.
      epochs: of CIFAR and what is trained on alike; 0 keeps the benchmark's.
      drops: of the same.
      warmups: of the same: of CIFAR-10, and of all others.

    Returns:
      Fields that differ from those of `config.semi_fields`.

    Source: papers/dividemix_rolt.md §1 and §2.2, papers/smr.md §2 and §14.
    """
    if config.benchmark == "digits":
        return {}
    if not is_web(config):
        config.epochs = epochs or config.epochs
        config.optimizer.drops = drops
        return {"warmup": warmups[config.benchmark not in TEN_CLASSES]}
    warmup, config.optimizer.drops = WEB_SCHEDULES.get(
        config.benchmark,
        (max(1, config.epochs // 10), (config.epochs // 2,)),
    )
    fields = {"warmup": warmup, "lambda_u": 0.0, "unlabelled_loss": False}
    if config.benchmark != "animal10n":  # SMR's alone; it keeps CIFAR's 4
        fields["alpha"] = 0.5
    if config.benchmark == "clothing1m":
        fields |= {"warmup_samples": 64_000, "pool_samples": 32_000}
    return fields


def with_recurring(
    config: ml_collections.ConfigDict, arg: Mapping[str, Any], period: str
) -> ml_collections.ConfigDict:
    """Makes room in a smoke run for an epoch that recurs within a phase.

    It then has a warm-up, a division, the recurring epoch and a division.

    Args:
      config: finished.
      arg: what `config.parse` returned.
      period: the field, in epochs.

    Returns:
      The same config, locked.
    """
    if arg["smoke"]:
        with config.unlocked():
            config.epochs = 4
            config.update_from_flattened_dict({period: 3.0})
    return config


# (benchmark, noise, rate) -> lambda_u: appendix, table 7 of DivideMix as its
# author confirmed it in the repository's issues 9, 10, 15, 26, 41.  The
# release's default of 25 does not reproduce the 0 rows.
LAMBDA_U = {
    ("cifar10", "sym_count", 0.2): 0.0,
    ("cifar10", "sym_count", 0.5): 25.0,
    ("cifar10", "asym", 0.4): 0.0,
    ("cifar100", "sym_count", 0.2): 25.0,
    ("cifar100", "sym_count", 0.5): 150.0,
    ("cifar100", "sym_count", 0.8): 150.0,
    ("cifar100", "sym_count", 0.9): 150.0,
}


def published_lambda_u(data: Mapping[str, Any], benchmark: str) -> float:
    """DivideMix's weight of the squared error in a published setting, else 25.

    Args:
      data: `noise` and `rate`; `sym` has the probabilities of `sym_count`.
      benchmark: its name.

    Returns:
      lambda_u after the ramp.

    Source: papers/dividemix_rolt.md section 1.
    """
    noise = "sym_count" if data["noise"] == "sym" else data["noise"]
    return LAMBDA_U.get((benchmark, noise, data["rate"]), 25.0)


def semi_fields(small: bool) -> dict[str, Any]:
    """Fields of the semi-supervised stage that DivideMix's kin share.

    Args:
      small: whether the benchmark is `digits`, whose schedule is shorter.

    Returns:
      Field names and values.

    Source: papers/dividemix_rolt.md section 1.
    """
    return {
        # First semi-supervised epoch.
        "warmup": 15 if small else 30,
        "lambda_u": 25.0,
        "ramp": 8.0 if small else 16.0,
        "alpha": 4.0,
        "sharpen_temperature": 0.5,
        "p_threshold": 0.5,
        # WebVision and Clothing1M leave the squared error out.
        "unlabelled_loss": True,
        # Mean sum p log p in warm-up, against asymmetric noise.
        "confidence_penalty": False,
        # Images of a class-balanced subset that every network draws anew each
        # epoch, to warm up on and to select from; 0 takes all.
        "warmup_samples": 0,
        "pool_samples": 0,
        # 'epoch_start' shows a network its peer as it was before the epoch,
        # as where both are trained at once; 'updated' as it is.
        "peer": "updated",
    }


def gmm_fields() -> dict[str, Any]:
    """Fields of `dividemix.LossGMM`, DivideMix's loss mixture."""
    return {
        "average_losses": 1,
        "gmm_max_iter": 10,
        "gmm_tol": 1e-2,
        "gmm_reg_covar": 5e-4,
    }
