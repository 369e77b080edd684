"""RoLT: its running means, edge cases and votes."""

import numpy as np

from jaxnlt import method as base
from jaxnlt.methods import rolt
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


def test_votes_of_the_nearest_centroid():
    method = make(**{"rolt.vote_by": "ncm"})
    true, out = outputs()
    _, kept = select(method, 0, out=out)
    memory = base.Memory({"train": [kept]}, (), np.zeros((0, 60)))
    scores = method.predict(out, memory)
    assert (scores.argmax(1) == true).mean() > 0.95
    logits = make().predict(out, memory)
    np.testing.assert_array_equal(logits, out[0]["logits"])
