"""RoLT and RoLT+: phases, selection, soft labels, votes and runs."""

import numpy as np
import pytest

from configs import rolt as rolt_config
from jaxnlt import method as base
from jaxnlt import train
from jaxnlt.methods import rolt, rolt_plus
from jaxnlt.runtime.errors import UserError
from tests import runs

LABELS = np.repeat([0, 1, 3], (30, 20, 10))
CLASSES = 4


def make(arg="digits", **fields):
    info = base.DataInfo(LABELS, CLASSES)
    return rolt.Method(runs.tiny("rolt", arg, **fields), info)


def outputs(seed=0):
    """Separable features, one in five of them of another class."""
    rng = np.random.default_rng(seed)
    true = np.where(rng.random(60) < 0.2, rng.choice([0, 1, 3], 60), LABELS)
    features = 4 * np.eye(CLASSES)[true] + 0.3 * rng.normal(size=(60, CLASSES))
    return true, [{"features": features, "logits": features + 1}]


def select(method, epoch, memory=None, out=None):
    selector = method.train.selector
    return selector.select(
        out or outputs()[1],
        0,
        method.data,
        memory or selector.init_memory(),
        epoch,
        None,
    )


def test_clean_samples_are_found():
    true, out = outputs()
    chosen, _ = select(make(), 0, out=out)
    clean = np.isin(np.arange(60), chosen.labelled)
    assert (clean == (true == LABELS)).mean() > 0.9
    np.testing.assert_array_equal(
        np.sort(np.concatenate([chosen.labelled, chosen.unlabelled])),
        np.arange(60),
    )


def test_targets_by_epoch():
    method = make(**{"rolt.soft_start": 2, "rolt.drw_start": 4})
    memory, seen = None, {}
    for epoch in range(6):
        seen[epoch], memory = select(method, epoch, memory)
    np.testing.assert_allclose(seen[1].shared.shares, [0, 0, 1, 0, 0, 0, 0])
    assert not seen[1].per_sample.soft.any()
    np.testing.assert_allclose(
        seen[3].shared.shares, [0.4, 0.2, 0.2, *([0.05] * 4)]
    )
    soft = seen[3].per_sample.soft
    np.testing.assert_array_equal(np.flatnonzero(soft), seen[3].unlabelled)
    first = seen[3].per_sample.first
    np.testing.assert_array_equal(first[~soft], LABELS[~soft])
    np.testing.assert_array_equal(
        first[soft], outputs()[0][soft]
    )  # the classifier is right here
    np.testing.assert_array_equal(seen[1].shared.class_weights, 1)
    np.testing.assert_array_equal(memory.frozen, seen[4].per_sample.first)
    np.testing.assert_array_equal(
        seen[5].counts, np.bincount(memory.frozen, minlength=CLASSES)
    )
    assert seen[5].shared.class_weights[2] > 1
    for chosen in seen.values():
        np.testing.assert_allclose(chosen.shared.shares.sum(), 1)
        assert all(len(values) == 60 for values in chosen.per_sample)


def test_the_running_mean_is_corrected_once():
    method = make()
    (_, first), (_, second) = outputs(0), outputs(1)
    _, memory = select(method, 0, out=first)
    _, memory = select(method, 1, memory, second)
    logits = [out[0]["logits"] for out in (first, second)]
    expected = 0.6 * 0.4 * logits[0] + 0.4 * logits[1]
    np.testing.assert_allclose(memory.erm, expected)
    kept, corrected = rolt.ensemble(None, logits[0], 1, 0.6, False)
    np.testing.assert_allclose(corrected, logits[0])
    _, released = rolt.ensemble(None, logits[0], 1, 0.6, True)
    np.testing.assert_allclose(released, 2.5 * logits[0])


def test_an_absent_class_and_equal_samples_do_no_harm(caplog):
    features = np.ones((60, 5))
    features[:30] += np.arange(30)[:, None] * np.eye(5)[0]
    out = [{"features": features, "logits": np.zeros((60, CLASSES))}]
    chosen, memory = select(make(), 20, out=out)
    for values in (chosen.clean_probability, memory.ncm, chosen.weights):
        assert np.isfinite(values).all()
    assert (memory.ncm.argmax(1) != 2).all()
    assert any("class 1" in r.getMessage() for r in caplog.records)


def test_the_learning_rate_rises_and_falls():
    method = rolt.Method(
        rolt_config.get_config("cifar10"), base.DataInfo(LABELS, CLASSES)
    )
    rates = [method.learning_rate(e) for e in (0, 3, 158, 159, 179)]
    np.testing.assert_allclose(rates, [0.04, 0.1, 0.1, 1e-3, 1e-5])


def test_votes_of_the_nearest_centroid():
    method = make(**{"rolt.vote_by": "ncm"})
    true, out = outputs()
    _, kept = select(method, 0, out=out)
    memory = base.Memory({"train": [kept]}, (), np.zeros((0, 60)))
    scores = method.predict(out, memory)
    assert (scores.argmax(1) == true).mean() > 0.95
    logits = make().predict(out, memory)
    np.testing.assert_array_equal(logits, out[0]["logits"])


@pytest.mark.parametrize(
    "field, value",
    [
        ("loss", "hinge"),
        ("ensembling", "mean"),
        ("vote_by", "toss"),
        ("clean_on", "both"),
        ("ensemble_decay", 1.0),
    ],
)
def test_bad_fields_are_refused(field, value):
    with pytest.raises(UserError, match=f"^config.rolt.{field}: "):
        make(**{f"rolt.{field}": value})


@pytest.mark.parametrize("per_class", [True, False])
@pytest.mark.parametrize("basis", ["loss", "dist"])
def test_co_divide(basis, per_class):
    fields = {"rolt_plus.basis": basis, "rolt_plus.per_class": per_class}
    info = base.DataInfo(LABELS, CLASSES)
    method = rolt_plus.Method(runs.tiny("rolt_plus", **fields), info)
    true, out = outputs()
    chosen, _ = method.semi.selector.select(
        out, 0, info, (), 20, np.random.default_rng(0)
    )
    clean = np.isin(np.arange(60), chosen.labelled)
    assert (clean == (true == LABELS)).mean() > 0.85
    assert chosen.counts[2] == 0


def test_ldam_and_votes_of_centroids_resume(tmp_path):
    fields = {"rolt.vote_by": "ncm"}
    config = runs.tiny("rolt", "digits,loss=ldam,epochs=3", **fields)
    train.run(config, tmp_path / "run")
    rows = runs.records(tmp_path / "run")
    assert [r["phase"] for r in rows] == ["train"] * 3
    assert all(np.isfinite(r["loss"]) for r in rows)
    runs.check_resume(config, tmp_path / "run")
