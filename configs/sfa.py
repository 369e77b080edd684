"""SFA (Li et al., IJCAI 2023, doi 10.24963/ijcai.2023/434).

    python -m jaxnlt.main --config=configs/sfa.py
    python -m jaxnlt.main --config=configs/sfa.py:cifar10,noise=sym,rate=0.6

CIFAR-10, imb 0.1, as TABASCO and DaSC report it: 86.81 % at sym 0.4, 82.89 %
at sym 0.6.  Numbers: papers/sfa.md section 4 of the project's notes.
"""

from jaxnlt.config import base as config_lib
from jaxnlt.config import family


def get_config(arg=None):
    """The configuration of one benchmark; see `:help` for the keys."""
    arg = config_lib.parse(arg)
    config = config_lib.base(arg)
    config.method = "sfa"
    small = config.benchmark == "digits"
    released = arg["as_released"]
    fields = family.semi_fields(small)
    del fields["confidence_penalty"]  # SFA never has it
    fields |= family.semi_schedule(config, 200, (150,), (30, 30))
    web = config.benchmark == "webvision"
    if web:
        config.epochs, config.optimizer.drops = 100, (49,)  # from 1: 50
        fields["peer"] = "epoch_start"  # its script trains both at once
    config.sfa = fields | {
        # Confidence above which a sample makes centroids, and its growth an
        # epoch; 0 takes 1 / C.
        "base_confidence": 0.02 if web else 0.0,
        "phi": 1.005,
        # Weight of the past in the moments; undecided until logged outputs
        # of a CIFAR run are replayed.
        "beta": 0.9 if web else 0.99,
        # The release throws the moments away after every epoch (6.1).
        "persist_moments": not released,
        # 'over_300' draws only where more samples are confident: head classes
        # alone, while the aim is the uncertainty of the tail (6.2).  The
        # release's WebVision script draws everywhere.
        "sampled_classes": "over_300" if released and not web else "all",
        # Draws of all centroids a selection, their scores summed: 5 in the
        # first release, 1 in the last (6.2).
        "draws": 1,
    }
    return config_lib.finish(
        config,
        arg,
        boundaries=("sfa.warmup",),
        durations=("sfa.ramp",),
    )
