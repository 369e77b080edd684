"""A million samples: what is measured, and what selecting them may take."""

import json
import tracemalloc

import numpy as np
import pytest

from jaxnlt import method as base
from jaxnlt import selection
from jaxnlt.bench import selection as bench_selection
from jaxnlt import command_line
from jaxnlt.methods import dasc
from jaxnlt.results import labels as labels_csv
from jaxnlt.runtime.errors import UserError
from jaxnlt.selection import registry as selectors
from jaxnlt.selection import scores
from jaxnlt.trainer import Trainer

# What `select` takes at most, in outputs of one network, with 40 classes and 64
# dimensions; with copies in float64 it was 6, 4, 10, 4.5, 10 and 3.2.
MOST = {
    "dividemix": 2.0,
    "sfa": 3.0,
    "rolt_plus": 6.5,
    "tabasco": 3.2,
    "unicon": 4.0,
    "dacc": 2.0,
}


def test_every_figure_is_measured(monkeypatch):
    seen = []
    select, write = Trainer.select, labels_csv.write_labels_csv

    def selecting(self, epoch, phase, pooled, memory, which):
        seen.append((phase.name, list(which)))
        return select(self, epoch, phase, pooled, memory, which)

    def writing(path, *columns):
        write(path, *columns)
        seen.append(path.read_text().splitlines())

    monkeypatch.setattr(Trainer, "select", selecting)
    monkeypatch.setattr(labels_csv, "write_labels_csv", writing)
    found = bench_selection.measure("dacc", 1500, 3)
    assert seen[0] == ("semi", [0, 1])
    assert seen[1][0].startswith("path,given_label") and len(seen[1]) == 1501
    assert found["heads"] == {"logits": 3, "balanced": 3, "projection": 128}
    inputs = 2 * 1500 * (3 + 3 + 128) * 4 / 2**20
    assert found["inputs_mib"] == pytest.approx(inputs)
    assert all(value > 0 for value in found["seconds"].values())
    assert found["inside"] and found["beyond_mib"] < 256
    # 60 % of the labels are right, and a third of the others by chance.
    assert all(600 < trusted < 1200 for trusted in found["trusted"])
    assert json.loads(json.dumps(found)) == found
    text = bench_selection.table(found)
    assert "budget 120 s" in text and text.endswith("\ninside the budget")


def test_the_budget_can_be_missed(monkeypatch):
    monkeypatch.setattr(bench_selection, "SECONDS_LABELS", 0.0)
    found = bench_selection.measure("sfa", 300, 3, features=4)
    assert found["heads"] == {"features": 4, "balanced": 3}
    assert not found["inside"]
    assert bench_selection.table(found).endswith("\nOUTSIDE the budget")


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--selector=loss", "--selector: 'loss' "),
        ("--classes=1", "--classes: "),
        ("--samples=0", "--samples: "),
        ("--samples=x", "--samples: expects int"),
    ],
)
def test_mistakes_take_one_line(flag, expected, capsys):
    assert bench_selection.main(["benchmark_selection", flag]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1
    assert err.startswith(f"jaxnlt: error: {expected}")


def test_the_command_prints_and_writes(monkeypatch, tmp_path, capsys):
    asked = []

    def measure(*args):
        asked.append(args)
        return {"inside": True}

    monkeypatch.setattr(bench_selection, "measure", measure)
    monkeypatch.setattr(bench_selection, "table", lambda result: "table")
    file = tmp_path / "figures.json"
    flags = ["--selector=dacc", "--samples=7", f"--json={file}"]
    assert bench_selection.main(["benchmark_selection", *flags]) == 0
    assert asked == [("dacc", 7, 50, 512)]
    assert json.loads(file.read_text()) == {"inside": True}
    assert capsys.readouterr().out == "table\n"
    assert bench_selection.main(["benchmark_selection", "--help"]) == 0
    assert "dividemix, sfa" in capsys.readouterr().out


def test_classes_are_found_in_one_pass():
    labels = np.array([2, 0, 2, 4, 0, 2])
    rows = selection.class_rows(labels, 6)
    assert [own.tolist() for own in rows] == [
        *([1, 4], [], [0, 2, 5], [], [3], []),
    ]


def test_blocks_do_not_show(monkeypatch):
    """To the bit, but for sums over samples, which keep the blocks' order."""
    rng = np.random.default_rng(0)
    rows = (9 * rng.standard_normal((50, 7))).astype(np.float32)
    labels = rng.integers(0, 7, 50)

    def results():
        yield selection.softmax(rows)
        yield selection.normalise(rows)
        yield selection.lengths(rows)
        yield selection.cross_entropy(rows, labels)
        yield from dasc.dacc_scores(rows, rows, rows, labels, 0.5, 0.1)

    whole = list(results())
    monkeypatch.setattr(selection.blocks, "__defaults__", (8,))
    blocked = list(results())
    for a, b in zip(whole, blocked, strict=True):
        np.testing.assert_array_equal(a, b)
    monkeypatch.setattr(scores, "_SUMMED", 8)
    for a, b in zip(whole, results(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


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
    file, *keys = selectors.SELECTORS[name].config
    config = command_line.load_config(file, ",".join(["digits", *keys]))
    selector = selectors.create(
        name, config[config.method], ("logits", "balanced", "projection")
    )
    inputs = sum(outputs[0][head].nbytes for head in selector.outputs)
    memory, rng = selector.init_memory(), np.random.default_rng(0)
    tracemalloc.start()
    try:
        selector.select(outputs, 0, info, memory, 20, rng)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MOST[name] * inputs


def test_unknown_selector_is_named():
    with pytest.raises(UserError, match="^--selector"):
        bench_selection.measure("dasc", 10, 3)
