"""H2E (Yi et al., ECCV 2022, arXiv 2207.13378).

    python -m jaxnlt.main --config=configs/h2e.py
    python -m jaxnlt.main --config=configs/h2e.py:digits,rounds=2
    python -m jaxnlt.main --config=configs/h2e.py:digits,mix=weighted \\
        --config.h2e.scores=RUN/labels.csv

Numbers: ``papers/h2e.md``.
"""

import ml_collections

from jaxnlt.config import base, family, fields
from jaxnlt.config.base import Key
from jaxnlt.methods.h2e import Options, Rounds

# Epochs of base, identify and robust in one round.
SHORT = (20, 6, 14)
MEMORY = (60, 20, 20)  # CIFAR and users' files: our choice, not published
NLT = (180, 180, 20)  # section 1; identify shares base's flag, section 3
# Networks of ANIMAL-10N, WebVision and features, on which H2E has published
# nothing.
WHOLE = ("vgg19_bn", "inception_resnet_v2", "mlp")


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The configuration of one benchmark; see ``:help`` for the keys."""
    keys = base.parse(
        arg,
        rounds=Key(int, 1, "2 or more iterate; 0 is base training alone"),
        mix=Key(str, "mixup", "base training: ce, mixup, weighted (by scores)"),
    )
    config = base.base(keys)
    config.method = "h2e"
    # Plain training takes the batches of the other methods' warm-up.
    config.batch_size = config.warmup_batch_size
    released, rounds = keys["as_released"], keys["rounds"]
    fields.check_value(Rounds, rounds, "rounds")
    small = family.is_short(config)
    large = bool(config.data.transform)  # images on disk are streamed
    length = SHORT if small else NLT if large else MEMORY
    if large:  # sections 1 and 2
        config.batch_size = 512
        config.optimizer.learning_rate = 0.2
        config.optimizer.weight_decay = 1e-4
        if released:  # DataParallel on four GPUs
            config.model.bn_shard = 128
    first, identify, robust = length
    whole = first + identify + robust
    starts = {
        f"round{number + 1}": {
            "base": number * whole,
            "identify": number * whole + first,
            "robust": number * whole + first + identify,
        }
        for number in range(rounds)
    }
    if rounds > 0:
        del starts["round1"]["base"]
    config.epochs = rounds * whole if rounds > 0 else first
    ramp = 0.0 if released else 2.0 if small else 5.0
    options = Options(
        rounds=rounds,
        starts=starts,
        mix=keys["mix"],
        weight_decay_factor=3.0 if released else 1.0,
        base_peak=1.0 if large else 2.0,
        erm_weight=0.0 if released else 1.0,
        penalty_start=ramp,
        penalty_ramp=ramp,
        train_exponents=not released,
        prior_subtractions=2 if released else 1,
        frozen_bn="train" if released else "eval",
        freeze=config.model.name not in WHOLE,
    )
    config.h2e = fields.as_dict(options)
    return base.finish(
        config,
        keys,
        boundaries=tuple(
            f"h2e.starts.{number}.{step}"
            for number, steps in starts.items()
            for step in steps
        ),
        durations=(
            "h2e.penalty_start",
            "h2e.penalty_ramp",
            "h2e.rate_drop_every",
        ),
    )
