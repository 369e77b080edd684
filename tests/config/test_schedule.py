"""Cosines and rises of the step size, for methods without their own."""

import math

import numpy as np
import pytest

from jaxnlt import command_line
from jaxnlt import method as base
from jaxnlt.config import base as config_lib
from jaxnlt.runtime.errors import UserError


def rates(arg="digits,loss=ce", method="erm", **fields):
    config = command_line.load_config(method, arg)
    with config.unlocked():
        config.epochs = 8
        config.optimizer.update({"learning_rate": 0.2} | fields)
    made = base.create(config, base.DataInfo(np.arange(40) % 10, 10))
    return [made.learning_rate(epoch) for epoch in range(8)]


def test_nothing_rises_or_falls_by_default():
    assert rates() == [0.2] * 8


def test_a_cosine_by_hand():
    """Half a cosine of eight epochs from .2 to a tenth of it."""
    found = rates(schedule="cosine", final=0.1)
    assert found[0] == 0.2
    np.testing.assert_allclose(found[4], 0.2 * (1 + 0.1) / 2)
    wanted = 0.1 + 0.9 * (1 + math.cos(math.pi * 7 / 8)) / 2
    np.testing.assert_allclose(found[7], 0.2 * wanted)


def test_a_rise_by_hand():
    """Four epochs up, then half a cosine over the other four."""
    found = rates(schedule="cosine", rise=4.0)
    np.testing.assert_allclose(found[:5], [0.05, 0.1, 0.15, 0.2, 0.2])
    np.testing.assert_allclose(found[6], 0.1)
    np.testing.assert_allclose(rates(rise=2.0)[:3], [0.1, 0.2, 0.2])


def test_methods_of_the_family_take_it():
    taken = rates(method="dividemix", arg="digits", schedule="cosine")
    assert taken == rates(schedule="cosine")


def test_a_rise_is_scaled_with_the_epochs():
    parsed = config_lib.parse("digits,epochs=20")
    config = config_lib.base(parsed)
    assert config.epochs == 40
    config.optimizer.rise = 5.0
    assert config_lib.finish(config, parsed).optimizer.rise == 2.5


@pytest.mark.parametrize(
    "fields, named",
    [
        ({"schedule": "cosine", "drops": (3,)}, "schedule"),
        ({"rise": 40.0}, "rise"),
    ],
)
def test_schedules_that_contradict_themselves(fields, named):
    config = command_line.load_config("erm")
    with config.unlocked():
        config.optimizer.update(fields)
    with pytest.raises(UserError, match=rf"^config\.optimizer\.{named}: "):
        config_lib.check(config)


@pytest.mark.parametrize("method", ["h2e", "unicon"])
@pytest.mark.parametrize("field, value", [("schedule", "cosine"), ("rise", 2)])
def test_methods_with_their_own_schedule_refuse_it(method, field, value):
    config = command_line.load_config(method, "cifar10")
    with config.unlocked():
        config.optimizer[field] = value
    made = base.create(config, base.DataInfo(np.arange(40) % 10, 10))
    with pytest.raises(UserError, match=rf"^config\.optimizer\.{field}: "):
        made.check()


def test_unicon_without_its_cosine_takes_another():
    config = command_line.load_config("unicon", "cifar10")
    with config.unlocked():
        config.optimizer.schedule, config.unicon.cosine_epochs = "cosine", 0
    base.create(config, base.DataInfo(np.arange(40) % 10, 10)).check()
