"""The yardstick: plain and mixed cross-entropy."""

import jax.numpy as jnp
import numpy as np
import pytest

from configs import erm as erm_config
from jaxnlt.errors import UserError
from jaxnlt.methods import base, erm
from jaxnlt.selection import softmax

from . import toy

VARIABLES = toy.variables(0)
LABELS = np.array([0, 2, 1, 2])


def make(arg=""):
    config = erm_config.get_config(f"digits{arg}")
    return erm.Method(config, base.DataInfo(LABELS, toy.CLASSES))


def batch():
    images = np.random.default_rng(0).normal(size=(4, toy.FEATURES))
    images = jnp.asarray(images, jnp.float32)
    return {"x": {"views": (images,), "labels": jnp.asarray(LABELS)}}


def loss(method, draws):
    net = base.Net(toy.apply, [], None)
    total, carry, terms = method.phase(0).loss(
        net, VARIABLES["params"], batch(), draws, {}, {"kept": 1}
    )
    assert carry == {"kept": 1} and terms == {"loss_ce": total}
    assert net.batch_stats == [(("logits",), 4)]
    return float(total)


def log_probs(images):
    logits = toy.apply(VARIABLES, images, ("logits",), False)[0]["logits"]
    return np.log(softmax(logits))


def test_ce_is_the_mean_over_rows():
    (images,) = batch()["x"]["views"]
    expected = -log_probs(images)[np.arange(4), LABELS].mean()
    np.testing.assert_allclose(loss(make(), {}), expected, rtol=1e-5)


def test_mixup_mixes_images_and_labels_alike():
    (images,) = batch()["x"]["views"]
    partner = np.array([1, 2, 3, 0])
    draws = {"coefficient": jnp.float32(0.3), "permutation": partner}
    mixed = 0.3 * images + 0.7 * images[partner]
    targets = 0.3 * np.eye(3)[LABELS] + 0.7 * np.eye(3)[LABELS[partner]]
    expected = -(targets * log_probs(mixed)).sum(-1).mean()
    value = loss(make(",loss=mixup"), draws)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_mixup_draws_are_not_folded(monkeypatch):
    seen = []
    monkeypatch.setattr(
        erm.semi, "mixup_draws", lambda *a, **k: seen.append((a, k))
    )
    make(",loss=mixup").phase(0).draws("key", {"x": 6})
    assert seen == [(("key", 1.0, 6), {"folded": False})]
    assert make().phase(0).draws("key", {"x": 6}) == {}


def test_fields_reach_the_method():
    method = make(",num_nets=2,view=strong")
    assert method.num_nets == 2
    assert method.phase(0).views == {"x": ("strong",)}
    assert method.phases() == (method.phase(3),)
    assert make().num_nets == 1
    assert make().phase(0).views == {"x": ("weak",)}
    votes = [{"logits": np.ones((1, 3))}, {"logits": np.full((1, 3), 2.0)}]
    np.testing.assert_array_equal(method.predict(votes, {}), [[3, 3, 3]])


@pytest.mark.parametrize(
    "arg, message",
    [
        ("loss=focal", "^config.erm.loss: .*'focal'"),
        ("view=strongest", "^config.erm.view: .*'strongest'"),
        ("num_nets=0", "^config.erm.num_nets: must be at least 1, is 0"),
    ],
)
def test_bad_fields_are_refused(arg, message):
    with pytest.raises(UserError, match=message):
        make(f",{arg}")
