"""What may change on resume, and which seeds there are."""

import pytest

from jaxnlt.config import base as config_lib
from jaxnlt.config import fields
from jaxnlt.runtime.errors import UserError


def test_what_changes_no_number_may_change_on_resume():
    free = fields.changeables(config_lib.RunOptions)
    assert {"data.workers", "data.path", "init_from"} <= free
    assert not free & {"seed", "data.noise", "model.width", "batch_size"}
    old = dict.fromkeys(free, 0)
    assert config_lib.difference(old, dict.fromkeys(free, 1)) == ""
    wrong = "seed 0 -> 1"
    assert config_lib.difference(old | {"seed": 0}, {"seed": 1}) == wrong


@pytest.mark.parametrize("seed, good", [(2**32 - 1, True), (2**32, False)])
def test_a_seed_is_what_numpy_takes(seed, good):
    if good:
        fields.check_value(fields.Seed, seed, "config.seed")
    else:
        with pytest.raises(UserError, match=r"seed: .*\[0, 4294967295\]"):
            fields.check_value(fields.Seed, seed, "config.seed")
