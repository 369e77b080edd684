"""The last phase: balanced training on what the selector trusts."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt import command_line, losses
from jaxnlt import method as base
from jaxnlt.methods import retrain
from jaxnlt.runtime.errors import UserError
from tests import typed
from tests.methods import toy
from tests.toy_epochs import Recorder, phase, run

FAMILY = ["dividemix", "smr", "sfa", "tabasco", "unicon", "dasc"]
LABELS = np.repeat(np.arange(10), 4)


def make(name="dasc", **options):
    config = command_line.load_config(name)
    with config.unlocked():
        config[name].update(options)
    return base.create(config, base.DataInfo(LABELS, 10))


@pytest.mark.parametrize("name", FAMILY)
def test_the_last_epochs_of_every_method(name):
    plain, ending = make(name), make(name, retrain_epochs=3)
    assert plain.ending == () and len(plain.phases()) + 1 == len(
        ending.phases()
    )
    assert plain.phase(39).name != retrain.NAME
    names = [ending.phase(epoch).name for epoch in range(30, 41)]
    assert names[7:] == [retrain.NAME] * 4
    assert retrain.NAME not in names[:7] and "semi" in names
    ending.check()
    (last,) = ending.ending
    assert last.selector is ending.semi.selector and last.remembers == "semi"
    assert last.rate == 0.1


@pytest.mark.parametrize("name", FAMILY)
def test_supervised_epochs_take_weak_views_unless_told(name):
    for view in ("weak", "strong"):
        told = {} if view == "weak" else {"warmup_view": view}
        for each in make(name, **told).phases():
            assert set(each.views["x"]) == {view} or each.name == "semi"


@pytest.mark.parametrize("name", ["dasc", "dividemix"])
def test_it_must_leave_semi_supervised_epochs(name):
    make(name, retrain_epochs=24).check()
    with pytest.raises(UserError, match=r"retrain_epochs: must be below 25"):
        make(name, retrain_epochs=25).check()


def test_selectors_go_on_with_their_memory(toy_trainer):
    """Of three selections in two phases each is shown those before."""
    selector = Recorder([0, 1, 2])
    first = phase(selector=selector)
    last = replace(first, name="last", remembers="toy")
    trainer = toy_trainer(first, last)
    memory = run(trainer, 3).memory
    assert [c.visits for c in selector.calls if c.k == 0] == [0, 1, 2]
    assert list(memory.selector) == ["toy"]


def test_streams_draw_the_trusted_classes_evenly():
    (last,) = make(retrain_epochs=1).ending
    trusted = base.Selection(
        labelled=np.array([0, 1, 2, 3, 4, 8]),  # classes 0, 0, 0, 0, 1, 2
        unlabelled=np.arange(10, 40),
        weights=np.ones(40),
        counts=np.ones(10),
    )
    rows = last.streams(trusted, np.random.default_rng(0))["x"]
    first = rows.ravel()[:6]
    assert np.bincount(LABELS[first]).tolist() == [2, 2, 2]


@pytest.mark.parametrize("part", ["heads", "all"])
def test_loss_and_what_it_trains(part):
    (last,) = make(retrain_epochs=1, retrain_part=part).ending
    whole = part == "all"
    trained = {name: last.trainable((name,)) for name in ("balanced", "logits")}
    assert all(trained.values()) and last.trainable(("backbone",)) is whole
    assert not last.trainable(("projector",))
    own, labels = toy.variables(3), jnp.asarray([0, 2])
    images = jnp.asarray(
        np.random.default_rng(1).normal(size=(2, toy.FEATURES)), jnp.float32
    )
    net = base.Net(toy.apply, [], None)
    batch = typed.batch(x=typed.stream([images], labels))
    result = last.loss(net, own["params"], batch, (), None, "kept")
    wanted = [
        jnp.mean(losses.cross_entropy(images @ own["params"][head], labels))
        for head in ("logits", "balanced")
    ]
    np.testing.assert_allclose(result.loss, sum(wanted), rtol=1e-6)
    assert result.carry == "kept" and len(net.batch_stats) == whole
    assert jax.tree.leaves(result.terms) == [wanted[1], wanted[0]]


def test_a_phase_has_its_share_of_the_step_size(toy_trainer):
    trainer = toy_trainer(phase(), phase("last", rate=0.5))
    assert [r.learning_rate for r in run(trainer, 2).results] == [1, 0.5]
