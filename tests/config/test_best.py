"""Our recipe is DaSC with other fields, on every benchmark."""

import pytest

from jaxnlt import command_line
from jaxnlt.config import base as config_lib
from jaxnlt.runtime.errors import UserError

PIECES = {"warmup_view", "retrain_epochs", "retrain_part"}


@pytest.mark.parametrize(
    "arg, last", [("digits,epochs=20,seed=3", 5), ("cifar10", 25)]
)
def test_it_differs_in_its_pieces_alone(arg, last):
    ours, theirs = (
        config_lib.flatten(config_lib.as_json(command_line.load_config(n, arg)))
        for n in ("best", "dasc")
    )
    assert ours.keys() == theirs.keys()
    assert {name for name in ours if ours[name] != theirs[name]} == {
        f"dasc.{piece}" for piece in PIECES
    }
    assert ours["dasc.retrain_epochs"] == last


def test_nothing_of_it_is_released():
    with pytest.raises(UserError, match="^as_released: "):
        command_line.load_config("best", "digits,as_released")
