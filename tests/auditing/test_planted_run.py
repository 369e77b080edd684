"""A run with planted errors: what it trains on, and what it tells."""

import json

import numpy as np

from jaxnlt import train
from jaxnlt.data import load
from jaxnlt.results import labels
from tests.runs import tiny


def test_labels_are_judged_as_they_were_given(tmp_path, monkeypatch):
    config = tiny("erm", "digits,smoke")
    with config.unlocked():
        config.audit.planted = 0.1
    trained_on = {}
    make = train.Trainer

    def remember(given, dataset):
        trained_on.update(labels=dataset.train.labels, given=dataset.given)
        return make(given, dataset)

    monkeypatch.setattr(train, "Trainer", remember)
    summary = train.run(config, tmp_path / "run", quiet=True)
    given = load.dataset(config).train
    made = trained_on["labels"] != given.labels
    assert (trained_on["given"] == given.labels).all()
    assert summary["planted_labels"] == made.sum() > 20
    low, high = (summary[f"planted_found_{end}"] for end in ("low", "high"))
    assert 0 <= low <= summary["planted_found"] <= high <= 1
    facts = json.loads((tmp_path / "run/audit.json").read_text())
    assert facts["planted_labels"] == made.sum()
    # The user's labels, not those that were trained on.
    rows = labels.read(tmp_path / "run/labels.csv")
    shown = rows["given_index"][np.argsort(rows["index"])]
    order = np.argsort(given.ids)
    assert (shown == given.labels[order]).all()
    noise = json.loads((tmp_path / "run/noise.json").read_text())
    assert noise["labels"] == given.labels.tolist()
