"""DaSC's selection: features, thresholds, probabilities, warnings."""

import logging
import math

import numpy as np
import pytest

from jaxnlt import method as base
from jaxnlt import selection
from jaxnlt.methods import dasc
from tests.methods.dasc_case import make

WITHOUT = {"contrast": False, "midl": False}


@pytest.mark.parametrize(
    "options, head",
    [
        ({}, "projection"),
        ({"feature_type": "default"}, "features"),
        (WITHOUT, "features"),
        (WITHOUT | {"untrained_projector": True}, "projection"),
        ({"feature_type": "default", "untrained_projector": True}, "features"),
    ],
)
def test_feature_head(options, head):
    assert make(**options).outputs == ("logits", "balanced", head)


def dacc(logits, balanced, threshold):
    size = len(logits)
    return dasc.dacc_scores(
        np.eye(size), logits, balanced, np.zeros(size, int), threshold, 0.1
    )


def test_dacc_asks_both_heads_and_strictly():
    sure, even = [math.log(3), 0.0], [0.0, 0.0]
    logits = np.array([sure, sure, even, sure])
    balanced = np.array([sure, even, sure, sure])
    threshold = selection.softmax(np.array(sure)).max()
    below = dacc(logits, balanced, np.nextafter(threshold, 0))
    np.testing.assert_array_equal(below.mask, [True, False, False, True])
    none = dacc(logits, balanced, threshold)
    assert not none.mask.any()
    # Then everyone makes the centroids.
    everyone = dacc(logits, balanced, 0.0)
    assert everyone.mask.all() and np.isfinite(none.losses).all()
    np.testing.assert_array_equal(none.centroids, everyone.centroids)


def select(k=0, **options):
    """Of rows near their class's axis; a fifth of the labels are wrong."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 40)
    labels = np.where(rng.random(40) < 0.2, (true + 1) % 3, true)
    centre = np.eye(3)[true]
    outputs = {
        "projection": centre + 0.1 * rng.normal(size=(40, 3)),
        "logits": 4 * centre + rng.normal(size=(40, 3)),
        "balanced": 4 * centre + rng.normal(size=(40, 3)),
    }
    chosen, _ = make(**options).semi.selector.select(
        [outputs, None] if k == 0 else [None, outputs],
        k,
        base.DataInfo(labels, 3),
        {},
        15,
        np.random.default_rng(0),
    )
    return chosen


def test_dacc_reads_the_outputs_of_its_network():
    np.testing.assert_array_equal(
        select(k=0).clean_probability, select(k=1).clean_probability
    )


def test_p_threshold_is_strict():
    clean = select().clean_probability
    level = float(np.unique(clean)[-2])
    chosen = select(p_threshold=level)
    np.testing.assert_array_equal(
        chosen.labelled, np.flatnonzero(clean > level)
    )


def test_aligned_clean_prob_switch():
    aligned, released = select(), select(aligned_clean_prob=False)
    rows, clean = aligned.labelled, aligned.clean_probability
    np.testing.assert_array_equal(rows, released.labelled)
    np.testing.assert_array_equal(aligned.weights[rows], clean[rows])
    np.testing.assert_array_equal(released.weights[rows], clean[: len(rows)])
    assert (released.weights[rows] <= 0.5).any()


def test_dacc_says_when_no_sample_is_confident(caplog):
    with caplog.at_level(logging.WARNING, "jaxnlt"):
        chosen = select(phi=2.0)
    assert "DaCC: no sample of network 0" in caplog.text
    assert len(chosen.labelled)
