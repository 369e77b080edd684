"""The bench of the label audit: figures by hand, detectors, and its command."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest

from jaxnlt.auditing import pilot
from jaxnlt.bench import audit, detection, detectors
from jaxnlt.bench.detection import Verdict
from jaxnlt.bench.detectors import Row

# Figures ----------------------------------------------------------------------

WRONG = np.array([True, False, True, False])


@pytest.mark.parametrize(
    "quality, expected",
    [
        # Suspect first: wrong, right, wrong, right; (1 + 2/3) / 2 and 3 of 4.
        ([0.1, 0.2, 0.3, 0.4], [5 / 6, 0.75, 0.5, 0]),
        # Both wrong ones first.
        ([0.1, 0.8, 0.2, 0.9], [1, 1, 0, 0]),
        # All alike: the share of wrong ones, the order of the file.
        ([0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 4]),
        # Right ones first: (1/3 + 2/4) / 2.
        ([0.8, 0.1, 0.8, 0.2], [0.5, 0, 1, 2]),
    ],
)
def test_rankings_by_hand(quality, expected):
    found = detection.figures(
        Verdict(np.array(quality)), np.zeros(4, int), WRONG, np.array([0])
    )
    names = ("ap", "auroc", "fnr", "ties")
    np.testing.assert_allclose([found[name] for name in names], expected)
    assert "precision" not in found and "ece" not in found


def test_flags_by_hand():
    given = np.array([0, 0, 1, 1, 1])
    wrong = np.array([True, False, True, False, False])
    flagged = np.array([True, True, False, True, False])
    clean = np.array([0.05, 0.95, 0.95, 0.31, 1.0])
    verdict = Verdict(clean, flagged, clean)
    found = detection.figures(verdict, given, wrong, np.array([1]))
    assert found["precision"] == pytest.approx(1 / 3)
    assert found["recall"] == 0.5
    assert found["right_flagged"] == pytest.approx(2 / 3)
    assert found["tail_flagged"] == 0.5
    # Bins of .05; .31; .95 .95 1.0, of which two are right: |2.9 - 2|.
    assert found["ece"] == pytest.approx((0.05 + 0.69 + 0.9) / 5)
    none = detection.figures(
        Verdict(clean, np.zeros(5, bool)), given, np.zeros(5, bool), given
    )
    undefined = ("ap", "auroc", "fnr", "precision", "recall")
    assert [none[name] for name in undefined] == [None] * 5
    assert none["right_flagged"] == none["tail_flagged"] == 0


@pytest.mark.parametrize(
    "counts, tail",
    [([5, 5, 5], [2]), ([1, 9, 2, 8, 3, 7, 4], [0, 2]), ([4, 3], [1])],
)
def test_tail_third(counts, tail):
    assert detection.tail_third(np.array(counts)).tolist() == tail


# Detectors --------------------------------------------------------------------


def test_agreements_and_aggregations_by_hand():
    p = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])
    logits = np.log(np.stack([p, p, p[:, ::-1]]))
    labels = np.array([0, 2])
    expected = {
        "logit margin": [np.log(5 / 3), np.log(1 / 8)],
        "probability margin": [0.2, -0.7],
        "probability": [0.5, 0.1],
        "loss": np.log([0.5, 0.1]),
        "entropy": (p * np.log(p)).sum(1),
    }
    assert expected.keys() == detectors.AGREEMENTS.keys()
    for name, values in expected.items():
        found = detectors.AGREEMENTS[name](logits[0], labels)
        np.testing.assert_allclose(found, values, err_msg=name)
    found = {
        row.aggregation: verdict.quality[0]
        for row, verdict in detectors.in_sample("m", logits, labels).items()
        if row.agreement == "probability"
    }
    assert found == pytest.approx(
        {"last epoch": 0.2, "second half": 0.35, "all epochs": 0.4}
    )


@pytest.mark.parametrize("classifier", detectors.CLASSIFIERS)
def test_out_of_sample_probabilities(classifier):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 3], 20)
    features = rng.normal(size=(60, 40))
    features[:, :4] += 9 * np.eye(4)[np.append(3, labels[1:])]
    # The first label is wrong, which its classifier has not seen.
    make = detectors.CLASSIFIERS[classifier]
    found = pilot.out_of_sample(make, features, labels, 4, seed=0)
    assert found.shape == (60, 4) and not found[:, 2].any()
    np.testing.assert_allclose(found.sum(1), 1)
    assert (found.argmax(1) == labels)[1:].all() and found[0].argmax() == 3
    verdicts = detectors.audit("x", found, labels)
    if importlib.util.find_spec("cleanlab"):
        verdicts |= detectors.cleanlab("x", found, labels)
    for row, verdict in verdicts.items():
        assert row.sample == "out" and verdict.quality.argmin() == 0
        assert verdict.flagged.tolist() == [True] + [False] * 59


# The command ------------------------------------------------------------------


def test_a_table_of_two_seeds():
    row, other = Row("a", "b", "c", "in"), Row("d", "", "", "out")
    figures = {"ap": 0.5, "ties": 4, "seconds": 2.0}
    runs = [{row: figures}, {row: figures | {"ap": 0.7}, other: {"ap": 0.9}}]
    title, blank, head, _, first, second = audit.table("x", runs).split("\n")
    assert (title, blank) == ("x, 2 seeds", "") and "right flagged" in head
    cells = [cell.strip() for cell in second.split("|")]
    assert first.startswith("| d") and "60.0 ± 14.1" in cells
    assert "4 ± 0" in cells and "2.0 ± 0.0" in cells and "-" in cells


@pytest.mark.slow
def test_every_detector_judges_a_run(tmp_path, capsys):
    pytest.importorskip("cleanlab")
    file = tmp_path / "figures.json"
    flags = ["--settings=digits-sym40", "--method=dasc", "--keys=smoke"]
    assert audit.main(["bench", *flags, f"--json={file}"]) == 0
    assert "digits-sym40, 1 seeds" in capsys.readouterr().out
    ((rows,),) = json.loads(file.read_text()).values()
    named = {row["detector"] for row in rows}
    assert named >= {"jaxnlt dasc", "dasc AUM", "dasc small loss"}
    assert named >= {"cleanlab kNN", "cleanlab logistic regression"}
    assert all(0 < row["ap"] <= 1 and row["seconds"] > 0 for row in rows)


@pytest.mark.parametrize(
    "flag",
    ["--settings=digits-sym", "--seeds=1,x", "--method=x", "--workdir=nowhere"],
)
def test_mistakes_take_one_line(flag, capsys):
    assert audit.main(["bench", flag]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1
    assert err.startswith("jaxnlt: error: ")


def test_every_setting_has_a_config(tmp_path):
    for setting in audit.SETTINGS.values():
        config = audit.configured(setting, "dasc", "seed=3", tmp_path, "x")
        assert config.seed == 3
        path = pathlib.Path(config.data.path)
        assert path.exists() or config.benchmark in ("digits", "cifar10n")
