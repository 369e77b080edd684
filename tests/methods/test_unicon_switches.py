"""UNICON's switches: as released, scoring in train mode, resumption."""

import numpy as np
import pytest

from configs import unicon as unicon_config
from jaxnlt import method as base
from jaxnlt import train
from jaxnlt.config import base as config_lib
from jaxnlt.methods import unicon
from jaxnlt.runtime.errors import UserError
from tests import runs

# The project's table of switches: (default, as released).
TABLE = {
    "unicon.jsd_log": ("2", "e"),
    "unicon.scoring_mode": ("eval", "train"),
    "unicon.unfilled": ("none", "repeat_index_0"),
    "unicon.unlabelled_batch": ("rounded", "exact"),
}
# Batches of the release's scoring: ``papers/unicon.md`` section 3.
SCORED = {"eval_batch_size": (256, 100)}


def make(arg="digits", **fields):
    info = base.DataInfo(np.arange(48) % 3, 3)
    return unicon.Method(runs.tiny("unicon", arg, **fields), info)


@pytest.mark.parametrize(
    "benchmark, expected", [("digits", TABLE), ("cifar10", TABLE | SCORED)]
)
def test_as_released_sets_the_table_s_values_and_no_other(benchmark, expected):
    ours, released = (
        config_lib.flatten(
            unicon_config.get_config(f"{benchmark}{text}").to_dict()
        )
        for text in ("", ",as_released")
    )
    changed = {
        name: (ours[name], released[name])
        for name in ours
        if ours[name] != released[name]
    }
    assert changed == expected


@pytest.mark.parametrize("arg, train", [("", False), (",as_released", True)])
def test_scoring_mode_is_that_of_the_phase(arg, train):
    semi = make(f"digits{arg}").semi
    assert semi.pool_train is train
    assert (semi.pool_view, semi.order) == ("none", "select_train_each")


def test_an_unknown_mode_is_refused():
    with pytest.raises(UserError, match="^config.unicon.scoring_mode: "):
        make(**{"unicon.scoring_mode": "both"})


def test_as_released_runs_and_resumes(tmp_path):
    config = runs.tiny(
        "unicon",
        "digits,as_released,epochs=3",
        **{
            "max_steps": 2,
            "unicon.warmup": 1,
        },
    )
    train.run(config, tmp_path / "run")
    rows = runs.records(tmp_path / "run")
    assert [r["phase"] for r in rows] == ["warmup", "semi", "semi"]
    assert all(np.isfinite(r["loss"]) and r["labelled"] for r in rows[1:])
    runs.check_resume(config, tmp_path / "run")
