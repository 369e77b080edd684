"""Senseless values of every field are one line, sensible ones pass.

Only the start check of a run is called: no data are read, nothing is trained.
"""

import contextlib
import dataclasses
import random
import typing

import numpy as np
import pytest

from jaxnlt import command_line, models
from jaxnlt import method as method_lib
from jaxnlt.config import base as config_lib
from jaxnlt.config import fields
from jaxnlt.data import load
from jaxnlt.results import metrics
from jaxnlt.runtime.errors import UserError
from tests import runs

METHODS = sorted(runs.methods())
NAN, INF = float("nan"), float("inf")
INFO = method_lib.DataInfo(np.arange(200) % 10, 10, np.arange(200))


def config_of(method, arg="digits"):
    module, plus = runs.methods()[method]
    return module.get_config(arg + plus)


def start(config):
    """What a run checks before it writes anything."""
    config_lib.check(config)
    load.check(config)
    method = method_lib.create(config, INFO)
    method.check()
    models.build(config.model, 10, method.heads, **method.network_options)


def put(config, values):
    """Sets fields, whatever their type, as a user of Python may."""
    with config.unlocked():
        for path, value in values.items():
            *groups, last = path.split(".")
            place = config
            for group in groups:
                place = place[group]
            with place.ignore_type():
                place[last] = value
    return config


def leaves(kind, prefix=""):
    """(dotted name, annotation) of every field of an options class."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint, name = hints[field.name], prefix + field.name
        if dataclasses.is_dataclass(hint):
            yield from leaves(hint, f"{name}.")
        elif name not in ("method", "benchmark") and hint is not typing.Any:
            yield name, hint


def all_fields(method):
    own = method_lib.find(method).options_type
    return dict(leaves(own, f"{method}."))


SHARED = dict(leaves(config_lib.RunOptions))
EVERY = [("erm", *field) for field in SHARED.items()] + [
    (method, *field)
    for method in METHODS
    for field in all_fields(method).items()
]

# Senseless --------------------------------------------------------------------

#: Senseless in whatever field.
NEVER = [None, b"", [[1]], {"a": 1}, 10**300, "x" * 100_000]
NUMBERS = ["3", (), NAN, INF, -INF]
BY_TYPE = {
    int: [*NUMBERS, True, 1.5, 2**32, 2**63, 10**20, 10**5000, -2],
    float: [*NUMBERS, -1000.0, 1e39, 1e-40, 1e300],
    bool: [0, 1, "true", 1.0, ()],
    str: [0, 1.5, (), "a\nb", "\x1b[31m", "\u2028", "\0"],
    tuple: [
        3,
        "abc",
        (-1,),
        (1.5,),
        ("a",),
        (2**31,),
        ((1,),),
        (NAN,),
        (True,),
    ],
    typing.Literal: ["unknown", 0, 1.5, ()],
}
#: Names that end as these have no sense in the values behind them.
BY_NAME = {
    "weight learning_rate rate sce_forward sce_backward": [-1e-9, -1.0],
    "ramp alpha period warmup_batch_size batch_size epochs num_nets": [0, -1],
    "temperature ldam_scale rate_drop_every phi lr_rise memory_size": [-1.0],
    "sharpen_temperature contrast_temperature midl_temperature": [0.0, 1e-9],
    "projection_dim draws average_losses gmm_max_iter eval_batch_size": [0, -1],
    "momentum beta drw_beta ensemble_decay elr_momentum": [1.0, 2.0, -0.1],
    "p_threshold": [2.0, 1.0, -0.1],
    "confidence_threshold disagreement_limit": [2.0, -1.0],
    "lambda_u contrast_weight midl_weight alpha mixup_alpha": [-1.0, 1e30],
    "weight_decay identify_weight_decay gmm_tol gmm_reg_covar": [-1.0, 2.0],
    "drop_factor rate_drop_factor": [0.0, 2.0, -0.1],
    "width image_size workers": [-1, 2**31 - 1],
    "memory_size projection_dim num_nets rounds draws": [2**31 - 1],
    "batch_size warmup_batch_size eval_batch_size epochs": [2**31 - 1],
    "imb": [0.0, -0.1, 1.1, 1e-30],
    "imb_type noise name strong weak selector statistics": ["unknown"],
    "gce_q": [0.0, 1.5],
    "tau cutoff_tau": [-1.0, 1e30],
    "blocks": [(0,), (500,), (2,) * 9],
    "drops": [(30, 10)],
    "spread_ratio ldam_margin focal_gamma base_peak penalty_ramp": [1e30],
}


def senseless(path, hint):
    kind = typing.get_origin(hint) or hint
    if kind is typing.Annotated:
        kind = typing.get_args(hint)[0]
    found = [*NEVER, *BY_TYPE[kind]]
    last = path.rpartition(".")[2]
    for names, values in BY_NAME.items():
        if last in names.split():
            found += values
    return found


def check_line(error, field):
    """The message is one short line that names the field first."""
    text = str(error)
    assert text.isprintable() and len(text) < 500, text[:500]
    assert text.startswith(field)


@pytest.mark.parametrize(
    ("method", "path", "hint"), EVERY, ids=[path for _, path, _ in EVERY]
)
def test_senseless_values_are_one_line(method, path, hint):
    accepted = []
    for value in senseless(path, hint):
        try:
            start(put(config_of(method), {path: value}))
        except UserError as error:
            check_line(error, f"config.{path}:")
        else:
            accepted.append(value)
    assert not accepted


@pytest.mark.parametrize("value", [3, "x", None, ()])
@pytest.mark.parametrize(
    "group", ["data", "optimizer", "model", "augment", "audit"]
)
def test_a_group_is_not_a_value(group, value):
    with pytest.raises(UserError) as caught:
        start(put(config_of("erm"), {group: value}))
    check_line(caught.value, f"config.{group}:")


CROSS = [
    ("dividemix", "digits", {"dividemix.warmup": 99}, "dividemix.warmup"),
    ("dividemix", "digits", {"epochs": 10}, "dividemix.warmup"),
    ("sfa", "digits", {"sfa.warmup": 40}, "sfa.warmup"),
    ("dasc", "digits", {"dasc.contrast_start": 15}, "dasc.warmup"),
    ("dasc", "digits", {"dasc.contrast": False}, "dasc.midl"),
    ("rolt", "digits", {"rolt.drw_start": 10}, "rolt.drw_start"),
    ("rolt", "digits", {"rolt.soft_start": 99}, "rolt.soft_start"),
    ("erm", "digits,second=crt", {"erm.second_start": 0}, "erm.second_start"),
    ("erm", "digits,second=drw", {"epochs": 9}, "erm.second_start"),
    ("erm", "digits,loss=dmi,second=drw", {}, "erm.second"),
    (
        "erm",
        "digits,loss=sce",
        {"erm.sce_forward": 0.0, "erm.sce_backward": 0.0},
        "erm.sce_forward",
    ),
    (
        "erm",
        "digits,loss=nce_rce",
        {"erm.apl_active": 0.0, "erm.apl_passive": 0.0},
        "erm.apl_active",
    ),
    ("unicon", "digits", {"optimizer.learning_rate": 1e-5}, "unicon.min_lea"),
    ("smr", "digits", {"smr.pool_samples": 5}, "smr.pool_samples"),
    ("smr", "digits", {"smr.warmup_samples": 1}, "smr.warmup_samples"),
    ("h2e", "digits", {"h2e.starts.round1.robust": 3}, "h2e.starts.round1"),
    ("h2e", "digits", {"h2e.starts.round1.robust": 99}, "h2e.starts.round1"),
    ("h2e", "digits", {"h2e.starts.round1.identify": "a"}, "h2e.starts"),
    ("h2e", "digits", {"h2e.starts": None}, "h2e.starts"),
    ("h2e", "digits", {"h2e.starts": {"round1": 3}}, "h2e.starts.round1"),
    ("h2e", "digits", {"h2e.rounds": 2}, "h2e.rounds"),
    ("h2e", "digits", {"h2e.mix": "weighted"}, "h2e.scores"),
    ("h2e", "digits", {"h2e.scores": "x.csv"}, "h2e.scores"),
    (
        "h2e",
        "digits",
        {"h2e.erm_weight": 0.0, "h2e.penalty_weight": 0.0},
        "h2e.erm_weight",
    ),
    ("h2e", "digits", {"model.name": "vgg19_bn"}, "h2e.freeze"),
    ("rolt", "digits", {"rolt.vote_by": "ncm", "model.ema": 0.9}, "model.ema"),
    ("erm", "digits", {"selector": "sfa"}, "selector"),
    ("dasc", "digits", {"selector": "sfa"}, "sfa"),
    ("dasc", "digits", {"start_phase": "semi"}, "start_phase"),
    ("dasc", "digits", {"data.transform": "webvision"}, "data.transform"),
    ("dasc", "digits", {"data.path": "x"}, "data.path"),
    ("dasc", "digits", {"data.noise": "asym"}, "data.noise"),
    ("dasc", "digits", {"data.noise": "human:worse"}, "data.noise"),
    ("dasc", "npz", {"split": "dev"}, "split"),
    ("dasc", "digits", {"model.pretrained": "x.pth"}, "model.pretrained"),
    ("erm", "digits", {"model.name": "vgg20"}, "model.name"),
    ("erm", "digits", {"audit.out_of_sample": 1}, "audit.out_of_sample"),
    ("erm", "digits", {"audit.folds": 1, "audit.fold": 1}, "audit.folds"),
    ("erm", "digits", {"audit.folds": 2}, "audit.fold"),
    ("erm", "digits", {"audit.folds": 2, "audit.fold": 3}, "audit.fold"),
    (
        "erm",
        "digits,out_of_sample=5",
        {"audit.folds": 2, "audit.fold": 2},
        "audit.out_of_sample",
    ),
    (
        "erm",
        "digits,out_of_sample=5",
        {"start_phase": "train", "init_from": "runs/one"},
        "audit.out_of_sample",
    ),
]


@pytest.mark.parametrize(("method", "arg", "values", "field"), CROSS)
def test_fields_that_do_not_fit_one_another(method, arg, values, field):
    with pytest.raises(UserError) as caught:
        start(put(config_of(method, arg), values))
    check_line(caught.value, f"config.{field}")


KEYS = [
    "imb=0 imb=-1 imb=nan imb=2 imb=x imb",
    "rate=1 rate=-0.1 rate=nan rate=inf rate=x rate",
    "noise= noise=unknown noise=human:worst",
    "seed=-1 seed=1e3 seed=99999999999999999999 seed=x seed",
    "data_seed=-2 data_seed=99999999999999999999 data_seed=1.5",
    "epochs=0 epochs=-1 epochs=2000000000 epochs=1.5 epochs=nan epochs",
    "split=test as_released=2 smoke=x unknown=3 =",
    "epochs=" + "9" * 400,
    "epochs=" + "9" * 5000,
]
OWN_KEYS = {
    "erm": "loss=x loss= view=x num_nets=0 num_nets=999999999 sampling=x "
    "second=x schedule=x schedule=paper",
    "h2e": "rounds=-1 rounds=999999999999 rounds=x mix=x mix=weighted",
    "rolt": "plus=x loss=x drw=2",
}


@pytest.mark.parametrize("method", command_line.methods())
def test_senseless_keys_are_one_line(method):
    for text in " ".join([*KEYS, OWN_KEYS.get(method, "")]).split():
        with pytest.raises(UserError) as caught:
            start(command_line.load_config(method, f"digits,{text}"))
        line = str(caught.value)
        # Not the line of a config file at which Python gave up.
        assert line.isprintable() and ".py" not in line, text


# Sensible ---------------------------------------------------------------------

SENSIBLE = {
    "seed": [0, 1, 2**31, 2**32 - 1],
    "data_seed": [-1, 0, 123, 2**32 - 1],
    "epochs": [50, 2000],
    "batch_size": [1, 8, 100, 4096, 32_768],
    "warmup_batch_size": [1, 256, 32_768],
    "eval_batch_size": [1, 1000],
    "max_steps": [0, 1, 10_000],
    "split": ["", "dev"],
    "groups": ["auto", "paper"],
    "deterministic": [True],
    "log_outputs": [True],
    "init_from": ["runs/one", "runs/one@7", "/tmp/\u00fcber mich/\u4e2d"],
    "data.imb": [1, 0.5, 0.01, 0.005, 1e-3],
    "data.imb_type": ["exp", "step"],
    "data.n_max": [0, 10, 5000],
    "data.noise": ["none", "sym", "sym_excl", "flip", "joint", "joint_any"],
    "data.rate": [0, 0.2, 0.95],
    "data.noise_file": ["noise.json"],
    "data.divided": [True],
    "model.name": sorted({*models.BACKBONES} - {"inception_resnet_v2"}),
    "model.width": [0, 1, 16, 640],
    "model.blocks": [(), (1, 1, 1), (2, 2, 2, 2), (3, 4, 23, 3), (18, 18, 18)],
    "model.dtype": ["float32", "bfloat16"],
    "model.ema": [0, 0.5, 0.9, 0.999],
    "model.bn_shard": [0, 2, 128],
    "augment.weak": ["none", "shift"],
    "augment.strong": ["shift", "digits_strong"],
    "optimizer.learning_rate": [1e-6, 0.1, 1, 10],
    "optimizer.momentum": [0, 0.9, 0.999],
    "optimizer.weight_decay": [0, 1e-6, 1e-2, 0.1],
    "optimizer.drops": [(), (10,), (10, 10), (10, 20, 500)],
    "optimizer.drop_factor": [0.01, 0.5, 1],
    "optimizer.rise": [0, 1, 5.5],
    "optimizer.final": [0, 0.01, 1],
    "audit.planted": [0, 0.05, 0.49],
    "audit.out_of_sample": [0, 2, 50],
    "warmup": [16, 30],
    "contrast_start": [0, 5],
    "lambda_u": [0, 25, 150, 3000],
    "ramp": [0.1, 16, 300],
    "alpha": [0.1, 0.5, 1, 8, 32],
    "sharpen_temperature": [0.1, 0.5, 1],
    "align_decay": [0, 0.9, 0.999],
    "trust_floor": [0, 0.2, 1],
    "retrain_epochs": [0, 1, 5],
    "retrain_rate": [0.01, 1],
    "p_threshold": [0, 0.03, 0.5, 0.99],
    "phi": [0.99, 1, 1.005, 1.1],
    "beta": [0, 0.5, 0.9999],
    "base_confidence": [0, 0.02],
    "first_exponent": [0, 1],
    "fresh_selections": [1, 2],
    "draws": [1, 5, 100],
    "gmm_max_iter": [1, 10, 1000],
    "gmm_tol": [0, 1e-6, 1e-2],
    "gmm_reg_covar": [1e-6, 1e-3],
    "average_losses": [1, 5, 20],
    "contrast_weight": [0, 0.025, 1],
    "contrast_temperature": [0.01, 0.07, 0.5, 1],
    "eval_temperature": [0.05, 1],
    "confidence_threshold": [0, 0.5, 0.95, 1],
    "projection_dim": [1, 64, 128, 2048],
    "midl_weight": [0, 0.3],
    "memory_size": [1, 4096, 65_536],
    "period": [2, 15, 30],
    "restart_every": [0, 25],
    "passes": [1, 2],
    "added_pass": [0, 101],
    "cosine_epochs": [0, 40, 280],
    "min_learning_rate": [0, 1e-5],
    "disagreement_limit": [0, 0.7, 1],
    "cutoff_tau": [1, 5, 100],
    "mean_batch": [0, 64],
    "spread_ratio": [0, 0.65, 1],
    "warmup_samples": [0, 100, 64_000],
    "pool_samples": [0, 20, 32_000],
    "soft_start": [0, 8],
    "drw_beta": [0, 0.9, 0.99999],
    "ldam_margin": [0, 0.5, 1],
    "ldam_scale": [1, 30, 64],
    "lr_rise": [1, 5, 15],
    "ensemble_decay": [0, 0.6, 0.99],
    "num_nets": [1, 2, 10],
    "mixup_alpha": [0.2, 1, 8],
    "focal_gamma": [0, 0.5, 2, 5],
    "adjustment": [0, 0.5, 1, 2],
    "gce_q": [0.01, 0.7, 1],
    "sce_forward": [0, 0.1, 6],
    "sce_log_zero": [-4, -6],
    "apl_active": [0, 1, 100],
    "elr_weight": [0, 3, 7],
    "elr_momentum": [0, 0.7, 0.99],
    "tau": [0, 0.5, 1, 2],
    "weight_decay_factor": [0, 1, 3],
    "base_peak": [0.5, 1, 2],
    "identify_rate": [1e-4, 0.1],
    "rate_drop_every": [0.04, 1, 5],
    "rate_drop_factor": [0.1, 0.9, 1],
    "erm_weight": [0, 1],
    "penalty_weight": [0, 1, 10_000],
    "penalty_start": [0, 5],
    "penalty_ramp": [0, 5],
    "prior_subtractions": [0, 1, 2],
}


@pytest.mark.parametrize(
    ("method", "path", "hint"), EVERY, ids=[path for _, path, _ in EVERY]
)
def test_sensible_values_pass(method, path, hint):
    last = path if path in SHARED else path.rpartition(".")[2]
    own = method == "rolt" and last == "drw_start"
    for value in [] if own else SENSIBLE.get(last, []):
        config = config_of(method)
        fields = {path: value}
        if path == "warmup_batch_size" and method == "erm":
            fields["batch_size"] = value  # the one that counts
        start(put(config, fields))


def test_every_number_has_sensible_values():
    """A new field must be listed, so that its range is tried."""
    numbers = {
        path if path in SHARED else path.rpartition(".")[2]
        for _, path, hint in EVERY
        if typing.get_origin(hint) is typing.Annotated
    }
    unlisted = numbers - set(SENSIBLE)
    assert unlisted <= {
        "data.image_size",  # not of digits
        "data.workers",
        "audit.folds",  # not without the other
        "audit.fold",
        "apl_passive",
        "sce_backward",
        "midl_temperature",
        "lr_decay_epoch",
        "second_start",
        "drw_start",
        "restart_rate",
        "identify_weight_decay",
        "robust_weight_decay",
        "robust_rate",
        "rounds",
    }


# At random --------------------------------------------------------------------

POOL = [0, -1, 1, 0.5, 2.0, 1e-30, 1e30, NAN, INF, 2**31, 2**63, 10**20]
POOL += ["", "x", "\n", None, (), (1, 2), (-1,), True, {}, [], 10**300, b"x"]


def draw(seed):
    """A few random values at once: one line, or all is well."""
    rng = random.Random(seed)
    method = rng.choice(METHODS)
    names = [path for own, path, _ in EVERY if own == method] + list(SHARED)
    chosen = rng.sample(names, rng.randint(1, 4))
    values = {name: rng.choice(POOL) for name in chosen}
    with contextlib.suppress(UserError):
        start(put(config_of(method), values))
        return 1
    return 0


def test_random_values():
    passed = sum(draw(seed) for seed in range(400))
    assert 0 < passed < 200


@pytest.mark.slow
def test_many_random_values():
    assert sum(draw(seed) for seed in range(400, 10_400)) < 5000


# Advice -----------------------------------------------------------------------


def test_advice_is_not_the_step_size_alone():
    with pytest.raises(UserError, match="learning_rate.*weights, ramps"):
        metrics.mean_terms([{"loss": np.float32(NAN)}], [1], 3)


def test_a_value_is_shown_short():
    assert fields.shown("x" * 1000).endswith("...")
    assert (
        fields.shown(10**5000)
        == f"an integer of {(10**5000).bit_length()} bits"
    )
