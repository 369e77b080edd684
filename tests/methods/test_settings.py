"""Fields of every method that are refused, and what `as_released` changes."""

import importlib

import numpy as np
import pytest

from jaxnlt import method as base
from jaxnlt.config import base as config_lib
from jaxnlt.runtime.errors import UserError
from tests import runs

BAD = {
    "dasc": (("midl_label", "al"), ("midl_key", "al"), ("memory_rows", "al")),
    "dividemix": (("average_losses", 0), ("peer", "old")),
    "erm": (
        ("loss", "hinge"),
        ("sampling", "rare"),
        ("second", "third"),
        ("view", "strongest"),
        ("num_nets", 0),
    ),
    "h2e": (
        ("mix", "blend"),
        ("iterate", "often"),
        ("frozen_bn", "off"),
        ("view", "odd"),
        ("raw_view", "odd"),
        ("rounds", 2),
        ("rounds", -1),
        ("erm_weight", -1.0),
        ("penalty_ramp", -1.0),
        ("starts.round1.robust", 3),
        ("scores", "labels.csv"),
    ),
    "rolt": (
        ("loss", "hinge"),
        ("ensembling", "mean"),
        ("vote_by", "toss"),
        ("clean_on", "both"),
        ("ensemble_decay", 1.0),
        ("nearness", "cos"),
    ),
    "rolt_plus": (
        ("basis", "toss"),
        ("nearness", "cos"),
        ("average_losses", 0),
        ("drw_start", -1.0),
        ("drw_beta", 1.0),
        ("drw_beta", -0.1),
    ),
    "sfa": (
        ("sampled_classes", "tail"),
        ("draws", 0),
        ("beta", 1.0),
        ("warmup_samples", -1),
    ),
    "smr": (("recalibrate_on", "test"),),
    "tabasco": (
        ("confusable_cluster", "other"),
        ("centre", "other"),
        ("pool_samples", -1),
    ),
    "unicon": (
        ("jsd_log", "10"),
        ("unfilled", "some"),
        ("scoring_mode", "both"),
        ("unlabelled_batch", "most"),
        ("cutoff_tau", 0.5),
        ("passes", 0),
        ("added_pass", -1.0),
        ("keep", "first"),
    ),
}
SEVERAL = [(name, *pair) for name, pairs in BAD.items() for pair in pairs]


@pytest.mark.parametrize("method, field, value", SEVERAL)
def test_a_bad_value_is_refused(method, field, value):
    config = runs.tiny(method, **{f"{method}.{field}": value})
    with pytest.raises(UserError, match=rf"^config.{method}.{field}: "):
        base.create(config, base.DataInfo(np.arange(10), 10))


@pytest.mark.parametrize(
    "method, arg, refused, fields",
    [
        ("erm", "digits,loss=dmi,second=drw", "second", {}),
        ("erm", "digits", "second_start", {"second": "crt"}),
        # Of pools, which every epoch draws anew, no losses are averaged.
        ("dividemix", "clothing1m", "pool_samples", {"average_losses": 5}),
    ],
)
def test_a_bad_pair_is_refused(method, arg, refused, fields):
    fields = {f"{method}.{name}": value for name, value in fields.items()}
    config = runs.tiny(method, arg, **fields)
    with pytest.raises(UserError, match=rf"^config.{method}.{refused}: "):
        base.create(config, base.DataInfo(np.arange(14), 14))


ROLT = {
    "rolt.ensembling": ("standard", "compounding"),
    "rolt.clean_on": ("eval", "augmented"),
    "rolt.last_batch": ("filled", "dropped"),
}
UNICON = {
    "unicon.jsd_log": ("2", "e"),
    "unicon.scoring_mode": ("eval", "train"),
    "unicon.unfilled": ("none", "repeat_index_0"),
    "unicon.unlabelled_batch": ("rounded", "exact"),
    "unicon.last_batch": ("filled", "dropped"),
}
# Batches of the release's scoring: ``papers/unicon.md`` section 3.
SCORED = {"eval_batch_size": (256, 100)}


@pytest.mark.parametrize(
    "file, arg, expected",
    [
        *(
            ("rolt", benchmark + text, expected)
            for benchmark in ("digits", "cifar10")
            for text, expected in (
                ("", ROLT),
                (",loss=ldam", ROLT),
                (",plus", {}),
            )
        ),
        ("unicon", "digits", UNICON),
        ("unicon", "cifar10", UNICON | SCORED),
    ],
)
def test_as_released_changes_this_alone(file, arg, expected):
    module = importlib.import_module(f"configs.{file}")
    ours, released = (
        config_lib.flatten(module.get_config(arg + text).to_dict())
        for text in ("", ",as_released")
    )
    changed = {
        name: (value, released[name])
        for name, value in ours.items()
        if value != released[name]
    }
    assert changed == expected
