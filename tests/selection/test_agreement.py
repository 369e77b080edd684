"""Selector and vote together, and floors of the classes, by hand."""

import numpy as np
import pytest

from jaxnlt import command_line
from jaxnlt import method as base
from jaxnlt.config.family import SemiOptions
from jaxnlt.methods.agreement import Agreement
from jaxnlt.selection import agreement

LABELS = np.array([0, 0, 0, 0, 1, 1, 1])
BELIEF = np.array([0.9, 0.8, 0.3, 0.2, 0.1, 0.4, 0.4])
TRUSTED = BELIEF > 0.5


def test_the_mean_of_probabilities_predicts():
    """One sure head outvotes two that are hardly of another mind."""
    sure, hardly = np.array([[3.0, 0]]), np.array([[0, 0.1]])
    assert agreement.mean_prediction([sure, hardly, hardly]) == [0]
    assert agreement.mean_prediction([hardly, hardly]) == [1]


@pytest.mark.parametrize(
    "by, rows",
    [("selector", [0, 1]), ("both", [1]), ("either", [0, 1, 2, 6])],
)
def test_who_has_to_agree(by, rows):
    agrees = np.isin(np.arange(7), [1, 2, 6])
    found = agreement.combined(TRUSTED, agrees, by)
    assert np.flatnonzero(found).tolist() == rows


@pytest.mark.parametrize(
    "least, rows",
    [
        (0, [0, 1]),
        (0.1, [0, 1, 5]),  # one of three, the first of equals
        (0.5, [0, 1, 5, 6]),  # two of three
        (0.75, [0, 1, 2, 4, 5, 6]),
        (1, list(range(7))),
    ],
)
def test_floors_take_the_likeliest(least, rows):
    found = agreement.filled(TRUSTED, BELIEF, LABELS, 2, least)
    assert np.flatnonzero(found).tolist() == rows
    assert TRUSTED.sum() == 2


def test_a_floor_is_not_raised_by_rounding():
    nothing = np.zeros(30, bool)
    labels = np.zeros(30, int)
    found = agreement.filled(nothing, np.arange(30.0), labels, 1, 0.1)
    assert np.flatnonzero(found).tolist() == [27, 28, 29]


class Sure(base.Selector):
    """Trusts what it believes in more than 1/2."""

    outputs = ("features",)

    def select(self, outputs, k, data, memory, epoch, rng):
        return base.Selection(
            labelled=np.flatnonzero(TRUSTED),
            unlabelled=np.flatnonzero(~TRUSTED),
            weights=BELIEF,
            counts=np.array([2, 0]),
            clean_probability=BELIEF,
            shared="kept",
        ), "memory"


def test_what_a_method_is_handed():
    """The networks agree with rows 1, 2 and 6, one of them for both."""
    selector = Agreement(
        Sure(), ("z",), SemiOptions(trust_by="either", trust_floor=0.5)
    )
    assert selector.outputs == ("features", "z")
    right = np.where(np.isin(np.arange(7), [1, 2, 6]), 1.0, -1.0)
    sign = right * np.where(LABELS == 0, 1, -1)
    outputs = [{"z": np.outer(sign, [scale, 0])} for scale in (5.0, -1.0)]
    info = base.DataInfo(LABELS, 2)
    found, memory = selector.select(outputs, 0, info, (), 3, None)
    assert found.labelled.tolist() == [0, 1, 2, 5, 6]
    assert found.unlabelled.tolist() == [3, 4]
    assert found.counts.tolist() == [3, 2]
    assert found.weights is BELIEF and found.clean_probability is BELIEF
    assert (found.shared, memory) == ("kept", "memory")
    alone = Agreement(Sure(), ("z",), SemiOptions(trust_floor=0.1))
    assert alone.outputs == ("features",)


@pytest.mark.parametrize("name", ["dasc", "dividemix", "unicon"])
def test_every_two_network_method_takes_it_and_none_by_default(name):
    config = command_line.load_config(name)
    info = base.DataInfo(np.arange(40) % 10, 10)
    plain = base.create(config, info).semi.selector
    assert not isinstance(plain, Agreement)
    with config.unlocked():
        config[name].trust_by = "both"
    method = base.create(config, info)
    assert isinstance(method.semi.selector, Agreement)
    assert set(method.vote) <= set(method.outputs)
    method.check()
