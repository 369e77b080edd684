"""Class counts, transition matrices and whole noisy sets of the authors."""

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from jaxnlt.data import imbalance, load, noise, registry
from jaxnlt.data.records import Source, Split, labels_array
from tests.data import fakes
from tests.golden.cases import golden


def kind(case, key):
    """The authors' name of a noise kind, or ours where it differs."""
    return str(case[key]).replace("unif", "sym")


def imb(case):
    value = float(case["imb_factor"])
    return None if math.isnan(value) else value


@golden("dasc_class_counts")
def test_class_counts(case):
    counts = imbalance.class_counts(
        float(case["img_max"]), int(case["num_classes"]), imb(case)
    )
    np.testing.assert_array_equal(counts, case["counts"])


@golden("sfa_data")
def test_long_tails(case):
    stored = case.group("counts_")
    assert stored
    for key, counts in stored.items():
        name, imb_type, factor = key.split("_")
        classes = int(name.removeprefix("c"))
        imb_type = "exp" if imb_type == "none" else imb_type
        got = imbalance.class_counts(
            50000 / classes, classes, float(factor), imb_type
        )
        np.testing.assert_array_equal(got, counts)
    raw = case["web_raw_counts"]
    order = np.argsort(-raw)
    for factor, counts in case.group("web_counts_exp_").items():
        sizes = imbalance.class_counts(raw.max(), len(raw), float(factor))
        # The classes in the order of their sizes, as the project numbers them.
        labels = np.repeat(np.arange(len(raw)), raw[order])
        rng = np.random.RandomState(0)
        kept, _ = imbalance.draw_subset(labels, sizes, rng)
        np.testing.assert_array_equal(counts[order], [len(k) for k in kept])


def of_our_kinds(cases):
    """Without flip2, circle and manual, which nothing in the release uses."""
    known = {"unif", "flip"}
    return [case for case in cases if str(case.peek("kind")) in known]


@golden("dasc_transition", keep=of_our_kinds)
def test_transition(case):
    seed, classes = int(case["seed"]), int(case["num_classes"])
    rng = None if seed == -1 else np.random.RandomState(seed)
    matrix = noise.transition(
        kind(case, "kind"), float(case["noise_rate"]), classes, rng
    )
    np.testing.assert_allclose(matrix, case["matrix"], rtol=1e-15, atol=0)
    if "flip_target" in case:
        away = matrix - np.diag(np.diag(matrix))
        np.testing.assert_array_equal(away.argmax(1), case["flip_target"])


@golden("sfa_data", "rolt_data")
def test_symmetric_frequencies(case):
    """How often each other class is drawn, against the authors' matrix."""
    matrix = case["sym_transition"]
    classes, each = len(matrix), 5000
    prefix = "small_" if "small_noise_ratio" in case else ""
    rate = float(case[f"{prefix}noise_ratio"])
    labels = np.repeat(np.arange(classes), each)
    noisy = noise.draw("sym_excl", labels, classes, rate, int(case["seed"]))
    found = confusion_matrix(labels, noisy, labels=range(classes)) / each
    deviation = np.sqrt(matrix * (1 - matrix) / each)
    assert (np.abs(found - matrix) <= 5 * deviation).all()
    assert (noisy != labels).sum() == int(rate * len(labels))


@golden("dasc_dataset_build")
def test_dataset_build(case, monkeypatch):
    """The whole of load, on 1x1 images in the order of the vector."""
    labels = labels_array(case["true_labels_full"])
    classes = len(case["noisy_counts"])
    benchmark = str(case["dataset"])
    rows = np.arange(len(labels))
    pixels = np.zeros((len(labels), 1, 1, 3), np.uint8)
    train = Split(pixels, labels, labels, rows)
    names = tuple(str(k) for k in range(classes))
    source = Source(train, train.take(rows[:10]), names, "golden")
    entry = replace(registry.get(benchmark), read=lambda request: source)
    monkeypatch.setitem(registry.BENCHMARKS, benchmark, entry)
    config = fakes.config(
        benchmark,
        seed=int(case["numpy_seed"]),
        imb=imb(case),
        noise=kind(case, "noise_kind"),
        rate=float(case["noise_rate"]),
    )
    built = load.dataset(config)
    for found, name in (
        (built.train.ids, "kept_index"),
        (built.train.true_labels, "true_labels"),
        (built.train.labels, "noisy_labels"),
        (built.given_counts, "noisy_counts"),
    ):
        np.testing.assert_array_equal(found, case[name], name)
    changed = (case["noisy_labels"] != case["true_labels"]).mean()
    assert built.description.noise_rate_realised == pytest.approx(changed)
