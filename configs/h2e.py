"""H2E (Yi et al., ECCV 2022, arXiv 2207.13378).

    python -m jaxnlt.main --config=configs/h2e.py
    python -m jaxnlt.main --config=configs/h2e.py:digits,rounds=2
    python -m jaxnlt.main --config=configs/h2e.py:digits,mix=weighted \\
        --config.h2e.scores=RUN/labels.csv

Numbers: papers/h2e.md of the project's notes.
"""

from jaxnlt.config import base as config_lib

# Epochs of base, identify and robust in one round.
DIGITS = (20, 6, 14)
MEMORY = (60, 20, 20)  # CIFAR and users' files, which H2E has not: ours
NLT = (180, 180, 20)  # section 1; identify shares base's flag, section 3
# Networks of ANIMAL-10N and WebVision, on which H2E has published nothing.
WHOLE = ("vgg19_bn", "inception_resnet_v2")


def get_config(arg=None):
    """The configuration of one benchmark; see `:help` for the keys."""
    arg = config_lib.parse(
        arg,
        rounds=(int, 1, "2 or more iterate; 0 is base training alone"),
        mix=(str, "mixup", "base training: ce, mixup, weighted (by scores)"),
    )
    config = config_lib.base(arg)
    config.method = "h2e"
    released, rounds = arg["as_released"], arg["rounds"]
    small = config.benchmark == "digits"
    large = bool(config.data.transform)  # images that stay on disk
    length = DIGITS if small else NLT if large else MEMORY
    if large:  # sections 1 and 2
        config.batch_size = config.warmup_batch_size = 512
        config.optimizer.learning_rate = 0.2
        config.optimizer.weight_decay = 1e-4
    base, identify, robust = length
    whole = base + identify + robust
    starts = {
        f"round{number + 1}": {
            "base": number * whole,
            "identify": number * whole + base,
            "robust": number * whole + base + identify,
        }
        for number in range(rounds)
    }
    if rounds > 0:
        del starts["round1"]["base"]
    config.epochs = rounds * whole if rounds > 0 else base
    config.h2e = {
        # Further rounds drop the flagged images in base and identify, or, with
        # 'scores', mix all by their weights; the release has no code for it.
        "rounds": rounds,
        "iterate": "drop",
        # First epoch of every phase of every round but the first.
        "starts": starts,
        # Base training: 'ce', 'mixup', or 'weighted' by the clean
        # probabilities of any run's labels.csv, SCORES.
        "mix": arg["mix"],
        "mixup_alpha": 1.0,
        "scores": "",
        # Class-aware batches in base training; the release can, none of its
        # configs does.
        "resample": False,
        # Of base and robust: the release has RandAugment in both.
        "view": "strong",
        # Of the identifier's first environment, which the release leaves
        # without any; the others are strong (reversed) and weak (balanced).
        "raw_view": "weak",
        # The release adds an L2 term to SGD's own decay in base and robust.
        "weight_decay_factor": 3.0 if released else 1.0,
        "identify_weight_decay": 1e-4,
        "robust_weight_decay": 1e-5,
        # The base cosine starts from so many times the learning rate; from
        # twice, its mean is the rate that other methods keep.
        "base_peak": 1.0 if large else 2.0,
        "identify_rate": 0.001,
        "rate_drop_every": 5.0,
        "rate_drop_factor": 0.9,
        "robust_rate": 0.01,
        # A penalty alone is least where all logits are 0; the release has no
        # term that keeps them up.
        "erm_weight": 0.0 if released else 1.0,
        "penalty_weight": 1.0,
        # Epochs of identify before the penalty, and of its rise.
        "penalty_start": 0.0 if released else 2.0 if small else 5.0,
        "penalty_ramp": 0.0 if released else 2.0 if small else 5.0,
        # The release computes the adjustment once, from exponents of 1.
        "train_exponents": not released,
        # The release subtracts the prior in the head and once more.
        "prior_subtractions": 2 if released else 1,
        # The release's frozen backbone still moves its BN statistics.
        "frozen_bn": "train" if released else "eval",
        # Robust trains the last block and the classifier only; all of a
        # network that has no residual stages.
        "freeze": config.model.name not in WHOLE,
    }
    return config_lib.finish(
        config,
        arg,
        boundaries=tuple(
            f"h2e.starts.{number}.{step}"
            for number, steps in starts.items()
            for step in steps
        ),
        durations=(
            *("h2e.penalty_start", "h2e.penalty_ramp", "h2e.rate_drop_every"),
        ),
    )
