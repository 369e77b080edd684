"""Selectors recombine: fields, refusals, and a run of foreign pairs."""

import numpy as np
import pytest

from jaxnlt import command_line, train
from jaxnlt import method as base
from jaxnlt.config import fields
from jaxnlt.runtime.errors import UserError
from jaxnlt.selection import registry as selectors
from tests import runs

#: Every two-network method with a selector of another, each selector once.
PAIRS = [
    ("dasc", "sfa"),
    ("dividemix", "dacc"),
    ("sfa", "unicon"),
    ("tabasco", "dividemix"),
    ("unicon", "tabasco"),
    ("smr", "rolt_plus"),
]


def parse(method, selector, *overrides, benchmark="npz,smoke"):
    config, _ = command_line.parse(
        [
            "main",
            f"--config=configs/{method}.py:{benchmark}",
            f"--config.selector={selector}",
            *overrides,
        ]
    )
    return config


def test_pairs_take_every_selector_once():
    assert sorted(name for _, name in PAIRS) == sorted(selectors.SELECTORS)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "selector"), PAIRS)
def test_trains_on_what_another_method_selects(method, selector, tmp_path):
    config = runs.shrink(parse(method, selector, benchmark="digits,smoke"))
    kind = selectors.find(selector).options_type
    assert set(config[selector]) == set(fields.names(kind))
    summary = train.run(config, str(tmp_path / "run"))
    assert summary["method"] == method


def test_takes_the_values_of_the_selectors_own_config():
    config = parse("dasc", "sfa", benchmark="digits,as_released")
    assert config.sfa.sampled_classes == "over_300"
    assert config.sfa.persist_moments is False
    assert config.dasc.midl_label == "arange"


def test_its_fields_can_be_set():
    config = parse("dasc", "sfa", "--config.sfa.beta=0.5")
    assert config.sfa.beta == 0.5


def test_an_own_selector_reads_the_methods_fields():
    config = parse("dasc", "dacc")
    assert "dacc" not in config
    info = base.DataInfo(np.zeros(4, int), 2)
    assert base.create(config, info).selector().options is not None


def test_keys_of_one_method_alone_do_not_reach_the_selectors_config():
    config = parse("rolt", "dividemix", benchmark="digits,plus,rate=0.9")
    assert config.dividemix.average_losses == 5


@pytest.mark.parametrize(
    ("method", "selector", "line"),
    [
        ("dividemix", "sfa", "config.selector: sfa reads balanced"),
        ("erm", "sfa", "config.selector: erm takes no other selector"),
        ("rolt", "sfa", "config.selector: rolt takes no other selector"),
    ],
)
def test_refuses_what_the_networks_lack(method, selector, line):
    config = parse(method, selector)
    info = base.DataInfo(np.zeros(4, int), 2)
    with pytest.raises(UserError, match=line):
        base.create(config, info)


def test_refuses_an_unknown_selector():
    with pytest.raises(UserError, match=r"config\.selector: 'best' is not one"):
        parse("dasc", "best")


def test_dacc_without_its_heads_asks_the_conventional_one_and_the_features():
    config = parse("dividemix", "dacc")
    where = "config.dacc"
    selector = selectors.create("dacc", config.dacc, where, ("logits",))
    assert selector.outputs == ("logits", "features")
    own = selectors.create(
        "dacc", config.dacc, where, ("logits", "balanced", "projection")
    )
    assert own.outputs == ("logits", "balanced", "projection")
