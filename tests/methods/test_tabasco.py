"""TABASCO's rules, guards and fields."""

import numpy as np
import pytest

from configs import tabasco as tabasco_config
from jaxnlt import method as base
from jaxnlt.methods import tabasco
from jaxnlt.runtime.errors import UserError


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
    chosen, memory = selector.select([out], 0, method.data, (), 20, rng)
    assert memory == ()
    clean = chosen.clean_probability
    assert ((clean >= 0) & (clean <= 1)).all()
    return chosen


def divide(wjsd, acd, confusable=False, **options):
    return tabasco.divide_class(
        np.asarray(wjsd, float),
        np.asarray(acd, float),
        confusable,
        np.random.RandomState(0),
        tabasco.BiDimensionalOptions(**options),
    )


def blob(centre, spread, size):
    return centre + spread * np.linspace(-1, 1, size)


def test_divergence_decides_where_it_separates():
    wjsd = np.r_[blob(0.1, 0.1, 20), blob(0.9, 0.01, 20)]
    acd = np.r_[blob(0.9, 0.05, 20), blob(0.1, 0.05, 20)]
    division = divide(wjsd, acd)
    assert division.used_wjsd and division.cluster == 1
    np.testing.assert_array_equal(division.clean > 0.5, np.arange(40) < 20)


# The divergence spreads more where it is large, so that the centroid decides.
WIDE = np.r_[blob(0.1, 0.02, 20), blob(0.7, 0.3, 20)]
NEAR = np.r_[blob(0.9, 0.05, 20), blob(0.1, 0.05, 20)]


def test_centroid_decides_and_the_near_half_is_clean():
    division = divide(WIDE, NEAR)
    assert not division.used_wjsd and division.cluster == 2
    np.testing.assert_array_equal(division.clean > 0.5, np.arange(40) < 20)


def test_confusable_class_takes_the_far_half_or_the_papers():
    division = divide(WIDE, NEAR, confusable=True)
    assert not division.used_wjsd and division.cluster == 1
    np.testing.assert_array_equal(division.clean > 0.5, np.arange(40) >= 20)
    division = divide(
        WIDE, NEAR, confusable=True, confusable_cluster="paper_eq10"
    )
    assert division.cluster == 2
    np.testing.assert_array_equal(division.clean > 0.5, np.arange(40) < 20)


def test_empty_cluster_leaves_the_divergence():
    division = divide(WIDE, np.ones(40))
    assert division.guarded == tabasco.EMPTY
    assert division.used_wjsd and np.isfinite(division.clean).all()
    np.testing.assert_array_equal(division.clean > 0.5, np.arange(40) < 20)


def test_one_sample_and_equal_samples_are_clean():
    single = divide([0.3], [0.2])
    assert single.guarded == tabasco.ONE_SAMPLE
    equal = divide([0.3] * 5, np.arange(5))
    assert equal.guarded == tabasco.EQUAL
    for division in (single, equal):
        np.testing.assert_array_equal(division.clean, 1)


def test_a_class_of_two_is_divided():
    division = divide([0.1, 0.5], [0.2, 0.9])
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
    assert {r.args[0]: r.getMessage() for r in caplog.records} == {
        1: "TABASCO: class 1 has no sample; it is left out",
        2: f"TABASCO: class 2 {tabasco.EQUAL}",
        3: f"TABASCO: class 3 {tabasco.ONE_SAMPLE}",
    }


def test_switches_reach_the_rules(monkeypatch):
    labels = np.repeat([0, 1, 2], 8)
    out = outputs(labels)
    seen = []
    scores = tabasco.tabasco_scores
    monkeypatch.setattr(
        tabasco,
        "tabasco_scores",
        lambda *args: seen.append(args[3:]) or scores(*args),
    )
    divide_class = tabasco.divide_class
    monkeypatch.setattr(
        tabasco,
        "divide_class",
        lambda *args: (
            seen.append(args[4].confusable_cluster) or divide_class(*args)
        ),
    )
    select(make(labels), out)
    select(
        make(
            labels,
            confusable_cluster="paper_eq10",
            centre="separate_draw",
            mean_batch=4,
        ),
        out,
    )
    batch, centre = seen.pop(4)
    assert batch == 4 and centre.shape == (4,)
    assert not np.allclose(centre, out["features"].mean(0))
    assert seen == [(0, None), *["code"] * 3, *["paper_eq10"] * 3]


def test_fields_of_the_release():
    config = tabasco_config.get_config("cifar100,as_released")
    assert config.tabasco.mean_batch == 64 and config.tabasco.warmup == 30
    config = tabasco_config.get_config("cifar10")
    assert config.tabasco.mean_batch == 0 and config.tabasco.warmup == 10
    assert config.epochs == 101 and config.optimizer.weight_decay == 5e-4
    assert config.tabasco.confusable_cluster == "code"


@pytest.mark.parametrize("field", ["confusable_cluster", "centre"])
def test_unknown_choices_are_refused(field):
    with pytest.raises(UserError, match=f"^config.tabasco.{field}: 'other'"):
        make([0, 1, 2], **{field: "other"})
