"""DivideMix (Li et al., ICLR 2020, arXiv 2002.07394).

    python -m jaxnlt.main --config=configs/dividemix.py
    python -m jaxnlt.main --config=configs/dividemix.py:cifar10,imb=1,rate=0.5

Numbers: papers/dividemix_rolt.md section 1 of the project's notes.
"""

from jaxnlt import config as lib


def get_config(arg=None):
    """The configuration of one benchmark; see `:help` for the keys."""
    arg = lib.parse(arg)
    config = lib.base(arg)
    config.method = "dividemix"
    small = config.benchmark == "digits"
    released = arg["as_released"]
    fields = lib.semi_fields(small) | lib.gmm_fields()
    if not small:
        config.epochs = 301
        config.optimizer.drops = (150,)
        ten_classes = config.benchmark in ("cifar10", "cifar10n")
        fields["warmup"] = 10 if ten_classes else 30
    if not released:  # the release's default is 25 whatever the noise
        fields["lambda_u"] = lib.published_lambda_u(
            config.data, config.benchmark
        )
    if config.data.rate == 0.9:
        fields["average_losses"] = 5
        if not released:  # issue 10
            fields["p_threshold"] = 0.6
    fields["confidence_penalty"] = config.data.noise in (
        *("asym", "asym_block", "flip"),
    )
    config.dividemix = fields
    return lib.finish(
        config,
        arg,
        boundaries=("dividemix.warmup",),
        durations=("dividemix.ramp",),
    )
