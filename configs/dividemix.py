"""DivideMix (Li et al., ICLR 2020, arXiv 2002.07394).

    python -m jaxnlt.main --config=configs/dividemix.py
    python -m jaxnlt.main --config=configs/dividemix.py:cifar10,imb=1,rate=0.5

Numbers: papers/dividemix_rolt.md section 1 of the project's notes.
"""

from jaxnlt import config as lib

# (benchmark, noise, rate) -> lambda_u: the paper's appendix, table 7, as its
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
        fields["warmup"] = 10 if config.benchmark == "cifar10" else 30
    cell = (config.benchmark, config.data.noise, config.data.rate)
    if not released:
        fields["lambda_u"] = LAMBDA_U.get(cell, fields["lambda_u"])
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
