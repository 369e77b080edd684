"""Quality, calibrated probability, kinds and suggestions of an audit."""

import numpy as np
import pytest

import jaxnlt
from jaxnlt.auditing import flags, statistics, verdict
from jaxnlt.runtime.errors import UserError


def test_quality_follows_the_score_and_never_ties():
    scores = np.array([0.75, 0.0, 0.75, 1.0, 0.5])
    found = verdict.quality(scores)
    assert np.argsort(found).tolist() == [1, 4, 0, 2, 3]
    assert (found >= 0).all() and (found <= 1).all()
    np.testing.assert_allclose(found, scores, atol=1e-3)
    assert len(np.unique(verdict.quality(np.ones(1_000_000)))) == 1_000_000


def test_where_few_are_wrong_few_have_been_missed():
    margin = np.array([-0.9, 0.1, 0.9])
    none = verdict.clean_probability(margin, np.zeros(3, bool))
    assert (none == 1).all()
    flagged = np.array([True, False, False])
    found = verdict.clean_probability(margin, flagged)
    assert found[0] < 0.05 and 0.8 < found[1] < found[2] < 1
    unsure = verdict.clean_probability(margin, flagged, sure=0.0)
    assert unsure[0] == 0.6 and (unsure[1:] == found[1:]).all()


@pytest.mark.parametrize(
    "largest, sure", [(0.2, 0.0), (0.46, 0.55), (0.9, 1.0)]
)
def test_networks_that_learnt_little_are_unsure(largest, sure, caplog):
    rest = (1 - largest) / 9
    probs = np.full((20, 10), rest)
    probs[np.arange(20), np.arange(20) % 10] = largest
    assert verdict.sureness(probs) == pytest.approx(sure)
    verdict.of_training(np.arange(20) % 10, probs, probs, held_out=False)
    assert ("unsure of most images" in caplog.text) == (sure < 0.5)


def judged(suggestions=None):
    labels = np.array([0, 0, 0, 1, 1, 1])
    probs = np.array(
        [[0.9, 0.1, 0], [0.8, 0.2, 0], [0.1, 0.9, 0]]
        + [[0.2, 0.8, 0], [0.1, 0.9, 0], [0.35, 0.25, 0.4]]
    )
    flagged = np.array([0, 0, 1, 0, 0, 1], bool)
    scores = probs if suggestions is None else suggestions
    own = probs[np.arange(6), labels]
    return labels, probs, verdict.judge(labels, probs, flagged, own, scores)


def test_kinds_predictions_and_alternatives():
    _, _, found = judged()
    assert found.issue_kind.tolist() == ["", "", "mislabelled"] + [
        "",
        "",
        "ambiguous",
    ]
    assert found.predicted.tolist() == [0, 0, 1, 1, 1, 2]
    assert found.alternative.tolist() == [1, 1, 1, 0, 0, 2]
    assert found.suggested.tolist() == [0, 0, 1, 1, 1, 2]
    np.testing.assert_allclose(found.margin[[0, 5]], [0.8, -0.15])


def test_a_flagged_label_is_never_suggested_again():
    scores = np.zeros((6, 3))
    scores[:, 0] = 1
    _, _, found = judged(scores)
    # Row 5 takes what another head says, row 2 what the vote says.
    assert found.suggested.tolist() == [0, 0, 1, 1, 1, 0]


def test_statistics_are_means_of_probabilities():
    first = np.log([[0.5, 0.5], [0.9, 0.1]])
    second = np.log([[0.1, 0.9], [0.7, 0.3]])
    kept = statistics.added(statistics.empty(2, 2), first)
    both = statistics.added(kept, second)
    assert int(kept.epochs) == 1 and int(both.epochs) == 2
    np.testing.assert_allclose(both.mean_probs[:, 0], [0.3, 0.8], rtol=1e-6)
    assert not statistics.empty(2, 2).mean_probs[:].any()


def test_unreadable_images_have_no_numbers():
    labels, probs, _ = judged()
    lost = probs.copy()
    lost[0] = np.nan
    found = verdict.of_training(labels, lost, probs, held_out=False)
    assert found.readable.tolist() == [False] + [True] * 5
    assert np.isnan([found.label_quality[0], found.margin[0]]).all()
    margins = flags.margins(probs[1:], labels[1:])
    np.testing.assert_allclose(found.margin[1:], margins)
    # Networks that saw the labels are ranked by the labels' probabilities.
    own = probs[np.arange(1, 6), labels[1:]]
    np.testing.assert_allclose(found.label_quality[1:], own, atol=2e-3)
    other = verdict.of_training(labels, lost, probs, held_out=True)
    scores = (1 + margins) / 2
    np.testing.assert_allclose(other.label_quality[1:], scores, atol=2e-3)


def test_anyones_probabilities():
    labels, probs, _ = judged()
    found = jaxnlt.audit(labels, probs)
    assert found.is_label_issue[2] and not found.is_label_issue[:2].any()
    names = np.array(["cat", "dog", "owl"])
    again = jaxnlt.audit(names[labels], probs, class_names=names)
    np.testing.assert_array_equal(again.label_quality, found.label_quality)


GOOD = [[0.9, 0.1], [0.2, 0.8]]


@pytest.mark.parametrize(
    "labels, probs, names, message",
    [
        ([0, 1], [0.9, 0.1], None, "pred_probs: must be numbers of shape"),
        ([0, 1], [["a", "b"]] * 2, None, "pred_probs: must be numbers"),
        ([0, 1], [[0.9, 0.2]] * 2, None, "pred_probs: row 0 does not add up"),
        ([0, 1], [[0.5, 0.5], [-1, 2]], None, "pred_probs: row 1 holds a neg"),
        ([0, 1], [[np.nan, 1], [1, 0]], None, "pred_probs: row 0 .* finite"),
        ([0], GOOD, None, r"labels: must be of shape \(2,\)"),
        ([0, 2], GOOD, None, "labels: 2 is no column"),
        ([-1, 1], GOOD, None, "labels: -1 is no column"),
        (["a", "b"], GOOD, None, "labels: must be integers"),
        (["a", "b"], GOOD, ["a", "c"], "labels: 'b' is not one of"),
        (["a", "b"], GOOD, ["a"], "class_names: names 1 classes"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(labels, probs, names, message):
    with pytest.raises(UserError, match=message):
        jaxnlt.audit(labels, probs, class_names=names)
