"""A split that collapses trains on, says so once, and shows in the metrics."""

import logging

import numpy as np
import pytest

from jaxnlt import train
from jaxnlt.methods import dividemix
from jaxnlt.results import files as result_files
from jaxnlt.runtime import errors
from tests import runs

# Whole runs: too dear for every change.
pytestmark = pytest.mark.slow

LAST = "leaves nothing unlabelled"
NOBODY = "trusts no sample"


@pytest.mark.parametrize(
    ("probability", "sentence"), [(1.0, LAST), (0.0, NOBODY)]
)
def test_a_collapsed_split_trains_on(
    probability, sentence, tmp_path, monkeypatch, caplog
):
    """All of the mixture's posteriors are one or zero, in three epochs."""

    def collapsed(values, *args, **fields):
        return np.full(len(values), probability)

    monkeypatch.setattr(dividemix.selection, "gmm_probability", collapsed)
    data = runs.write_npz(tmp_path / "data.npz")
    config = runs.tiny("dividemix", "npz,smoke", **{"data.path": str(data)})
    with config.unlocked():
        config.epochs = 4
    caplog.set_level(logging.WARNING, errors.logger.name)
    train.run(config, str(tmp_path / "run"))
    said = [
        record.getMessage()
        for record in caplog.records
        if sentence in record.getMessage()
    ]
    # Once for each of the two networks, not in every epoch.
    assert [line.split()[1] for line in said] == ["0", "1"]
    semi = result_files.read_jsonl(tmp_path / "run" / "metrics.jsonl")[1:]
    assert len(semi) == 3
    for record in semi:
        assert record["collapsed_splits"] == 2
        assert record["unlabelled"] == 0
        assert np.isfinite(record["loss"])
