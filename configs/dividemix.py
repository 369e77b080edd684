"""DivideMix (Li et al., ICLR 2020, arXiv 2002.07394).

    python -m jaxnlt.main --config=configs/dividemix.py
    python -m jaxnlt.main --config=configs/dividemix.py:cifar10,imb=1,rate=0.5
    python -m jaxnlt.main --config=configs/dividemix.py:clothing1m \\
        --config.data.path=DIR --config.model.pretrained=resnet50.pth

Numbers: papers/dividemix_rolt.md section 1 of the project's notes; those of
WebVision are its script for one GPU.
"""

from jaxnlt.config import base as config_lib
from jaxnlt.config import family


def get_config(arg=None):
    """The configuration of one benchmark; see `:help` for the keys."""
    arg = config_lib.parse(arg)
    config = config_lib.base(arg)
    config.method = "dividemix"
    small = config.benchmark == "digits"
    released = arg["as_released"]
    fields = family.semi_fields(small) | family.gmm_fields()
    if not released:  # the release's default is 25 whatever the noise
        fields["lambda_u"] = family.published_lambda_u(
            config.data, config.benchmark
        )
    if config.data.rate == 0.9:
        fields["average_losses"] = 5
        if not released:  # issue 10
            fields["p_threshold"] = 0.6
    fields["confidence_penalty"] = config.data.noise in (
        *("asym", "asym_block", "flip"),
    )
    fields |= family.semi_schedule(config, 301, drops=(150,))
    if config.benchmark == "clothing1m":  # section 3.1
        fields["confidence_penalty"] = True
    config.dividemix = fields
    return config_lib.finish(
        config,
        arg,
        boundaries=("dividemix.warmup",),
        durations=("dividemix.ramp",),
    )
