"""SMR (Zhang et al., Mathematics 2024, 12(15), 2389).

    python -m jaxnlt.main --config=configs/smr.py
    python -m jaxnlt.main --config=configs/smr.py:cifar10,imb=1,rate=0.5

Numbers: papers/smr.md section 2 of the project's notes.
"""

from jaxnlt.config import base as config_lib
from jaxnlt.config import family

PERIODS = {"animal10n": 15.0, "clothing1m": 10.0, "webvision": 15.0}


def get_config(arg=None):
    """The configuration of one benchmark; see `:help` for the keys."""
    arg = config_lib.parse(arg)
    config = config_lib.base(arg)
    config.method = "smr"
    small = config.benchmark == "digits"
    released = arg["as_released"]
    fields = family.semi_fields(small) | family.gmm_fields()
    del fields["confidence_penalty"]  # SMR never has it
    web, period = family.is_web(config), 4.0 if small else 30.0
    if not small and not web:
        config.batch_size, config.warmup_batch_size = 128, 256
    if not released:  # the release's default is 25 whatever the noise
        fields["lambda_u"] = family.published_lambda_u(
            config.data, config.benchmark
        )
    if config.data.rate == 0.9:
        fields["average_losses"] = 5
    fields |= family.semi_schedule(config, 301, drops=(150,))
    clothing = config.benchmark == "clothing1m"
    webvision = config.benchmark == "webvision"
    if webvision:
        config.epochs, config.optimizer.drops = 121, (40, 80)
        config.data.transform = "webvision_smr"
    elif config.benchmark == "animal10n":
        # The release's second stage never comes: its condition is empty (B1).
        fields["animal10n_lr"] = "released" if released else "three_stage"
    if web:  # of the others a tenth of the epochs, ours
        period = PERIODS.get(config.benchmark, config.epochs / 10)
    config.smr = fields | {
        # Every so many epochs the last one is a recalibration.  The paper's
        # 30 of 301 epochs scale along; rounded, to 2 at least, where used.
        "period": period,
        # Whether the first epoch after the warm-up never is one; the scripts
        # of Clothing1M and WebVision have no such rule (section 11).
        "spare_first_epoch": not (clothing or webvision),
        # Every published schedule ends with a semi-supervised epoch (29, 59
        # ... 299 of 0..300); another number of epochs must not end with one
        # on wrong labels.  The released rule has no such guard.
        "spare_last_epoch": not released,
        # On the images of the 'warmup', drawn and augmented as there.  The
        # release's Clothing1M script takes what its last selection left over,
        # a 'pool': half as many, unaugmented, in a fixed order and the same
        # for both networks.
        "recalibrate_on": "pool" if released and clothing else "warmup",
    }
    config = config_lib.finish(
        config,
        arg,
        boundaries=("smr.warmup",),
        durations=("smr.ramp", "smr.period"),
    )
    return family.with_recurring(config, arg, "smr.period")
