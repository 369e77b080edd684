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
    config = f"--config=configs/{method}.py:{benchmark}"
    words = ["main", config, f"--config.selector={selector}", *overrides]
    return command_line.parse(words)[0]


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
    given = ("dasc", "sfa", "--config.sfa.beta=0.5")
    config = parse(*given, benchmark="digits,as_released")
    assert config.sfa.beta == 0.5
    assert config.sfa.sampled_classes == "over_300"
    assert config.sfa.persist_moments is False
    assert config.dasc.midl_label == "arange"


def test_an_own_selector_reads_the_methods_fields():
    config = parse("dasc", "dacc")
    assert "dacc" not in config
    info = base.DataInfo(np.zeros(4, int), 2)
    assert base.create(config, info).selector().options is not None


def test_keys_of_one_method_alone_do_not_reach_the_selectors_config():
    config = parse("rolt", "dividemix", benchmark="digits,plus,rate=0.9")
    assert config.dividemix.average_losses == 5


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("dividemix", "sfa reads balanced"),
        ("erm", "erm takes no other"),
        ("rolt", "rolt takes no other"),
    ],
)
def test_refuses_a_selector_that_does_not_fit(method, why):
    info = base.DataInfo(np.zeros(4, int), 2)
    with pytest.raises(UserError, match=f"^config.selector: {why}"):
        base.create(parse(method, "sfa"), info)


def test_refuses_an_unknown_selector():
    with pytest.raises(UserError, match=r"config\.selector: 'best' is not one"):
        parse("dasc", "best")


def test_dacc_without_its_heads_asks_the_conventional_one_and_the_features():
    options = parse("dividemix", "dacc").dacc
    own = ("logits", "balanced", "projection")
    for heads, outputs in ((own, own), (("logits",), ("logits", "features"))):
        selector = selectors.create("dacc", options, "config.dacc", heads)
        assert selector.outputs == outputs
