"""TABASCO's rules, guards and fields."""

import numpy as np

from configs import tabasco as tabasco_config
from jaxnlt import method as base
from jaxnlt.methods import tabasco
from tests.golden.scripted import spy


def make(labels, classes=3, **options):
    config = tabasco_config.get_config("digits")
    config.tabasco.update(options)
    info = base.DataInfo(np.asarray(labels), classes)
    return tabasco.Method(config, info)


def outputs(labels, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "features": rng.normal(size=(len(labels), 4)).astype(np.float32),
        "logits": rng.normal(size=(len(labels), classes)).astype(np.float32),
    }


def select(method, out, seed=0):
    selector, rng = method.semi.selector, np.random.default_rng(seed)
    chosen, _ = selector.select([out], 0, method.data, (), 20, rng)
    clean = chosen.clean_probability
    assert ((clean >= 0) & (clean <= 1)).all()
    return chosen


def divide(wjsd, acd, confusable=False, **options):
    options = tabasco.BiDimensionalOptions(**options)
    random = np.random.RandomState(0)
    return tabasco.divide_class(wjsd, acd, confusable, random, options)


# The divergence spreads more where it is large, so that the centroid decides.
LINE = np.linspace(-1, 1, 20)
WIDE = np.r_[0.1 + 0.02 * LINE, 0.7 + 0.3 * LINE]
NEAR = np.r_[0.9 + 0.05 * LINE, 0.1 + 0.05 * LINE]


def test_confusable_class_takes_the_near_half_as_in_the_paper():
    division = divide(WIDE, NEAR, True, confusable_cluster="paper_eq10")
    assert not division.used_wjsd and division.cluster == 2
    np.testing.assert_array_equal(division.clean > 0.5, np.arange(40) < 20)


def test_empty_cluster_leaves_the_divergence():
    division = divide(WIDE, np.ones(40))
    assert division.guarded == tabasco.EMPTY
    assert division.used_wjsd and np.isfinite(division.clean).all()
    np.testing.assert_array_equal(division.clean > 0.5, np.arange(40) < 20)


def test_a_class_of_two_is_divided():
    division = divide(np.array([0.1, 0.5]), np.array([0.2, 0.9]))
    assert np.isfinite(division.clean).all() and not division.guarded


def test_confusable_needs_a_near_and_surer_class():
    similarity = np.array([[0.4, 0.37, 0.23], [0.3, 0.4, 0.3], [0, 0, 0]])
    assert tabasco.confusable(similarity, np.array([2, 5, 0]), 0)
    assert not tabasco.confusable(similarity, np.array([5, 5, 0]), 0)
    assert not tabasco.confusable(similarity, np.array([2, 5, 9]), 1)


def test_short_batches_weigh_as_much_only_if_asked():
    rows = np.array([[0.0], [0.0], [0.0], [3.0]])
    assert tabasco.batched_mean(rows, 0) == 0.75
    assert tabasco.batched_mean(rows, 3) == 1.5


def test_nobody_sure_makes_everyone_a_centroid():
    sure = tabasco.confident_members(np.full((4, 3), 1 / 3))
    assert sure.mask.all()


def test_numbers_of_cifar():
    """Its switches: docs/methods.md."""
    config = tabasco_config.get_config("cifar100,as_released")
    assert config.optimizer.weight_decay == 5e-4
    assert config.tabasco.mean_batch == 64


def test_underflowing_probabilities_make_no_nan():
    probs = np.array([[0.0, 1.0], [0.0, 1.0]])
    scores = tabasco.tabasco_scores(np.eye(2), probs, np.zeros(2, int))
    assert np.isfinite(scores.wjsd).all() and np.isfinite(scores.acd).all()


def test_degenerate_classes_are_named(caplog):
    labels = np.array([0] * 9 + [2] * 5 + [3])
    out = outputs(labels, 4)
    for name in out:
        out[name][labels == 2] = out[name][9]
    chosen = select(make(labels, 4), out)
    assert (chosen.clean_probability[labels >= 2] == 1).all()
    said = {r.args[0]: r.getMessage() for r in caplog.records}
    assert set(said) == {1, 2, 3} and "left out" in said[1]
    assert tabasco.EQUAL in said[2] and tabasco.ONE_SAMPLE in said[3]


def test_switches_reach_the_rules(monkeypatch):
    labels = np.repeat([0, 1, 2], 8)
    out = outputs(labels)
    scored = spy(monkeypatch, tabasco, "tabasco_scores")
    divided = spy(monkeypatch, tabasco, "divide_class")
    switched = {
        "confusable_cluster": "paper_eq10",
        "centre": "separate_draw",
        "mean_batch": 4,
    }
    for options in ({}, switched):
        select(make(labels, **options), out)
    (plain, _), ((*_, batch, centre), _) = scored
    assert plain[3:] == (0, None)
    assert batch == 4 and centre.shape == (4,)
    assert not np.allclose(centre, out["features"].mean(0))
    rules = [args[4].confusable_cluster for args, _ in divided]
    assert rules == ["code"] * 3 + ["paper_eq10"] * 3
