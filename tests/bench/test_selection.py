"""The bench of selection, and the memory that a selector takes."""

import json
import tracemalloc
from unittest import mock

import numpy as np
import pytest

from jaxnlt import command_line
from jaxnlt import method as base
from jaxnlt.bench import selection as bench_selection
from jaxnlt.results import labels as labels_csv
from jaxnlt.selection import registry as selectors
from jaxnlt.selection import scores
from jaxnlt.trainer import Trainer

# What ``select`` takes at most, in outputs of one network, with 40 classes and
# 64 dimensions; with copies in float64 it was 6, 4, 10, 4.5, 10 and 3.2.
MOST = {
    "dividemix": 2.0,
    "sfa": 3.0,
    "rolt_plus": 6.5,
    "tabasco": 3.2,
    "unicon": 4.0,
    "dacc": 1.2,
}


def test_every_figure_is_measured(monkeypatch, tmp_path, capsys):
    """Through the command, which prints them and writes them as JSON."""
    select = mock.Mock(wraps=Trainer.select)
    monkeypatch.setattr(Trainer, "select", lambda *args: select(*args))
    seen, write = [], labels_csv.write

    def writing(path, *rest):
        write(path, *rest)
        seen.extend(path.read_text().splitlines())

    monkeypatch.setattr(labels_csv, "write", writing)
    file = tmp_path / "figures.json"
    flags = ["--selector=dacc", "--samples=1500", "--classes=3"]
    assert bench_selection.main(["bench", *flags, f"--json={file}"]) == 0
    found = json.loads(file.read_text())
    _, _, phase, _, _, which = select.call_args.args
    assert (phase.name, list(which)) == ("semi", [0, 1])
    assert seen[0].startswith("path,given_label") and len(seen) == 1501
    assert found["heads"] == {"logits": 3, "balanced": 3, "projection": 128}
    inputs = 2 * 1500 * (3 + 3 + 128) * 4 / 2**20
    assert found["inputs_mib"] == pytest.approx(inputs)
    assert all(value > 0 for value in found["seconds"].values())
    assert found["inside"] and found["beyond_mib"] < 256
    # 60 % of the labels are right, and a third of the others by chance.
    assert all(600 < trusted < 1200 for trusted in found["trusted"])
    text = capsys.readouterr().out
    assert "budget 120 s" in text and text.endswith("\ninside the budget\n")
    monkeypatch.setattr(bench_selection, "SECONDS_LABELS", 0.0)
    found = bench_selection.measure("sfa", 300, 3, features=4)
    assert found["heads"] == {"features": 4, "balanced": 3}
    assert not found["inside"]
    assert bench_selection.table(found).endswith("\nOUTSIDE the budget")


@pytest.mark.parametrize(
    "flag", ["--selector=loss", "--classes=1", "--samples=0", "--samples=x"]
)
def test_mistakes_take_one_line(flag, capsys):
    field = flag.partition("=")[0]
    assert bench_selection.main(["bench", flag]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1
    assert err.startswith(f"jaxnlt: error: {field}: ")


@pytest.fixture(scope="module")
def many():
    size, classes, dimensions = 20_000, 40, 64
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, size).astype(np.int32)
    outputs = []
    for _ in range(2):
        logits = rng.standard_normal((size, classes), dtype=np.float32)
        logits[np.arange(size), labels] += 5 * (rng.random(size) < 0.6)
        features = rng.standard_normal((size, dimensions), dtype=np.float32)
        features[np.arange(size), labels] += logits.max(1)
        heads = {"logits": logits, "balanced": logits}
        outputs.append(heads | {"projection": features, "features": features})
    return outputs, base.DataInfo(labels, classes)


@pytest.mark.parametrize("name", selectors.SELECTORS)
def test_no_selector_keeps_copies_of_its_inputs(name, many, monkeypatch):
    # As for sets of more than one block.
    monkeypatch.setattr(scores, "_SUMMED", 4096)
    outputs, info = many
    entry = selectors.SELECTORS[name]
    arg = ",".join(["digits", *entry.keys])
    config = command_line.load_config(entry.config, arg)
    where = f"config.{config.method}"
    heads = ("logits", "balanced", "projection")
    selector = selectors.create(name, config[config.method], where, heads)
    inputs = sum(outputs[0][head].nbytes for head in selector.outputs)
    memory, rng = selector.init_memory(), np.random.default_rng(0)
    tracemalloc.start()
    try:
        selector.select(outputs, 0, info, memory, 20, rng)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MOST[name] * inputs
