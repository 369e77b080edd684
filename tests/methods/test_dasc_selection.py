"""DaSC's selection: features, thresholds, probabilities, warnings."""

import logging

import numpy as np
import pytest

from jaxnlt import method as base
from jaxnlt.methods import dasc
from tests.methods.dasc_case import make


@pytest.mark.parametrize(
    "options, head",
    [
        ({}, "projection"),
        ({"feature_type": "default"}, "features"),
        ({"contrast": False, "midl": False}, "features"),
        (
            {"contrast": False, "midl": False, "untrained_projector": True},
            "projection",
        ),
        (
            {"feature_type": "default", "untrained_projector": True},
            "features",
        ),
    ],
)
def test_feature_head(options, head):
    method = make(**options)
    assert method.outputs == ("logits", "balanced", head)


def outputs(seed=0, size=40):
    """Rows near their class's axis; a fifth of the labels are wrong."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, size)
    labels = np.where(rng.random(size) < 0.2, (true + 1) % 3, true)
    centre = np.eye(3)[true]
    out = {
        "projection": centre + 0.1 * rng.normal(size=(size, 3)),
        "logits": 4 * centre + rng.normal(size=(size, 3)),
        "balanced": 4 * centre + rng.normal(size=(size, 3)),
    }
    return out, labels, labels == true


def select(k=0, epoch=15, others=None, **options):
    out, labels, _ = outputs()
    return make(**options).semi.selector.select(
        [out, others] if k == 0 else [others, out],
        k,
        base.DataInfo(labels, 3),
        {"kept": 1},
        epoch,
        np.random.default_rng(0),
    )


def test_dacc_finds_the_wrong_labels():
    chosen, memory = select()
    _, labels, right = outputs()
    clean = chosen.clean_probability
    assert ((clean > 0.5) == right).mean() > 0.9
    np.testing.assert_array_equal(chosen.labelled, np.flatnonzero(clean > 0.5))
    both = np.concatenate([chosen.labelled, chosen.unlabelled])
    np.testing.assert_array_equal(np.sort(both), np.arange(len(labels)))
    np.testing.assert_array_equal(
        chosen.counts, np.bincount(labels[chosen.labelled], minlength=3)
    )
    assert memory == {"kept": 1}


def test_dacc_reads_the_outputs_of_its_network():
    first, second = select(k=0)[0], select(k=1)[0]
    np.testing.assert_array_equal(
        first.clean_probability, second.clean_probability
    )


def test_dacc_threshold_is_of_the_absolute_epoch(monkeypatch):
    seen = []
    whole = dasc.dacc_scores

    def spy(*args, **kwargs):
        seen.append(kwargs["threshold"])
        return whole(*args, **kwargs)

    monkeypatch.setattr(dasc, "dacc_scores", spy)
    for epoch in (15, 100):
        select(epoch=epoch)
    np.testing.assert_allclose(seen, [1.005**15 / 3, 1.005**100 / 3])


def test_p_threshold_is_strict():
    clean = select()[0].clean_probability
    level = float(np.sort(clean)[len(clean) // 2])
    assert (clean == level).any()
    chosen = select(p_threshold=level)[0]
    np.testing.assert_array_equal(
        chosen.labelled, np.flatnonzero(clean > level)
    )


def test_aligned_clean_prob_switch():
    aligned = select()[0]
    released = select(aligned_clean_prob=False)[0]
    rows = aligned.labelled
    np.testing.assert_array_equal(rows, released.labelled)
    clean = aligned.clean_probability
    np.testing.assert_array_equal(aligned.weights[rows], clean[rows])
    np.testing.assert_array_equal(released.weights[rows], clean[: len(rows)])
    assert (released.weights[rows] <= 0.5).any()


def test_dacc_says_when_no_sample_is_confident(caplog):
    with caplog.at_level(logging.WARNING, "jaxnlt"):
        chosen = select(phi=2.0)[0]
    assert "DaCC: no sample of network 0" in caplog.text
    assert len(chosen.labelled)
