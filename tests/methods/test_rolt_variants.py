"""RoLT's measures of nearness, and RoLT+'s mean over the last losses."""

import itertools

import numpy as np
import pytest

from jaxnlt import method as base
from jaxnlt import selection
from jaxnlt.methods import rolt
from tests import runs

LABELS = np.repeat([0, 1, 3], (30, 20, 10))
INFO = base.DataInfo(LABELS, 4)


def outputs(seed):
    rng = np.random.default_rng(seed)
    features = 2 * np.eye(4)[LABELS] + rng.normal(size=(60, 4))
    return [{"features": features, "logits": features}]


def test_scores_by_hand():
    rows, means = np.array([[0.6, 0.8]]), np.array([[0.3, 0.0], [0.0, 0.1]])
    absent = np.array([False, False])
    for nearness, expected in (
        ("l2", [[-(0.3**2) - 0.8**2, -(0.6**2) - 0.7**2]]),
        ("cosine", [[0.6, 0.8]]),
        ("product", [[0.09, 0.04]]),
    ):
        found = rolt.scores(rows, means, absent, nearness)
        np.testing.assert_allclose(found, expected)
        far = rolt.scores(rows, means, ~absent, nearness)
        assert (far < found.min()).all()


NEARNESS = ("l2", "cosine", "product")


def selected(method, **fields):
    """The method, a selection of it and what it keeps, of each measure."""
    found = []
    for nearness in NEARNESS:
        fields |= {"nearness": nearness}
        own = {f"{method}.{name}": value for name, value in fields.items()}
        made = base.create(runs.tiny(method, **own), INFO)
        selector = made.phases()[-1].selector
        memory, rng = selector.init_memory(), np.random.default_rng(0)
        chosen, kept = selector.select(outputs(0), 0, INFO, memory, 20, rng)
        found.append((made, chosen.clean_probability, kept))
    return found


def test_votes_and_guesses_take_the_measure():
    """Unit rows of one class are in the same order by every measure."""
    found = selected("rolt", vote_by="ncm")
    for made, clean, kept in found:
        np.testing.assert_allclose(clean, found[0][1], atol=1e-6)
        memory = base.Memory({"train": [kept]}, (), {})
        voted = made.predict(outputs(0), memory)
        np.testing.assert_allclose(voted, kept.ncm / 0.4)  # a first mean
        assert (voted.argmax(1) != 2).all()  # the absent class
    l2, cosine, product = (kept.ncm for *_, kept in found)
    length = np.linalg.norm(found[0][2].centroids, axis=1)
    present = [0, 1, 3]
    np.testing.assert_allclose(
        (cosine * length / 4)[:, present], product[:, present], atol=1e-9
    )
    assert (l2.argmax(1) != product.argmax(1)).any()


def test_one_mixture_of_all_classes_takes_the_measure():
    found = selected("rolt_plus", per_class=False)
    cleans = [clean for _, clean, _ in found]
    for one, other in itertools.combinations(cleans, 2):
        assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("per_class", [True, False])
def test_losses_are_averaged_over_the_last_selections(per_class, monkeypatch):
    """At a rate of 0.9, before they are divided by class or not."""
    arg = "cifar10,rate=0.9,noise=sym_excl"
    fields = {"rolt_plus.basis": "loss", "rolt_plus.per_class": per_class}
    made = base.create(runs.tiny("rolt_plus", arg, **fields), INFO)
    assert made.options.average_losses == 5
    seen = []
    name = "per_class_gmm" if per_class else "gmm_probability"
    fit = getattr(selection, name)

    def spy(values, *args, **kwargs):
        seen.append(values)
        return fit(values, *args, **kwargs)

    monkeypatch.setattr(selection, name, spy)
    selector = made.semi.selector
    memory, normalised = selector.init_memory(), []
    for seed in range(7):
        out = outputs(seed)
        _, memory = selector.select(
            out, 0, INFO, memory, seed, np.random.default_rng(0)
        )
        losses = selection.cross_entropy(out[0]["logits"], LABELS)
        normalised.append(selection.min_max(losses))
        np.testing.assert_allclose(seen[-1], np.mean(normalised[-5:], axis=0))
    assert len(memory.losses) == 4
