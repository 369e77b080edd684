"""SMR (Zhang et al., Mathematics 2024, 12(15), 2389).

    python -m jaxnlt.main --config=configs/smr.py
    python -m jaxnlt.main --config=configs/smr.py:cifar10,imb=1,rate=0.5

Numbers: papers/smr.md section 2 of the project's notes.
"""

from jaxnlt import config as lib


def get_config(arg=None):
    """The configuration of one benchmark; see `:help` for the keys."""
    arg = lib.parse(arg)
    config = lib.base(arg)
    config.method = "smr"
    small = config.benchmark == "digits"
    released = arg["as_released"]
    fields = lib.semi_fields(small) | lib.gmm_fields()
    del fields["confidence_penalty"]  # SMR never has it
    if not small:
        config.epochs = 301
        config.batch_size, config.warmup_batch_size = 128, 256
        config.optimizer.drops = (150,)
        ten_classes = config.benchmark in ("cifar10", "cifar10n")
        fields["warmup"] = 10 if ten_classes else 30
    if not released:  # the release's default is 25 whatever the noise
        fields["lambda_u"] = lib.published_lambda_u(
            config.data, config.benchmark
        )
    if config.data.rate == 0.9:
        fields["average_losses"] = 5
    config.smr = fields | {
        # Every so many epochs the last one is a recalibration.  The paper's
        # 30 of 301 epochs scale along; rounded, to 2 at least, where used.
        "period": 4.0 if small else 30.0,
        # Every published schedule ends with a semi-supervised epoch (29, 59
        # ... 299 of 0..300); another number of epochs must not end with one
        # on wrong labels.  The released rule has no such guard.
        "spare_last_epoch": not released,
    }
    config = lib.finish(
        config,
        arg,
        boundaries=("smr.warmup",),
        durations=("smr.ramp", "smr.period"),
    )
    if arg["smoke"]:  # warm-up, division, recalibration, division
        with config.unlocked():
            config.epochs, config.smr.period = 4, 3.0
    return config
