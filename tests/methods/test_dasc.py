"""DaSC's phases, settings and warm-up."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt import method as base
from jaxnlt.methods import dasc
from jaxnlt.runtime.errors import UserError
from tests import typed
from tests.methods import toy
from tests.methods.dasc_case import OWN, SIZE, carry, make, views

# Phases ----------------------------------------------------------------------


def test_phases_by_epoch():
    method = make(contrast_start=2, warmup=4)
    names = [method.phase(epoch).name for epoch in range(6)]
    assert names == ["warmup"] * 2 + ["warmup_contrast"] * 2 + ["semi"] * 2
    assert [p.name for p in method.phases()] == [*dict.fromkeys(names)]


def test_without_contrast_there_is_one_warmup():
    method = make(contrast=False, midl=False, contrast_start=2, warmup=4)
    names = [method.phase(epoch).name for epoch in range(6)]
    assert names == ["warmup"] * 4 + ["semi"] * 2
    assert [p.name for p in method.phases()] == ["warmup", "semi"]


def test_the_peer_teaches_and_is_seen_updated():
    method = make()
    assert method.semi.taught_by == "peer"
    assert (method.semi.peer, method.semi.order) == ("updated", "in_turn")
    for warmup in (method.warmup, method.warmup_contrast):
        assert warmup.selector is None and warmup.peer == "none"
        assert warmup.views == {"x": ("weak", "weak")}
    strong = ("strong", "strong", "weak")
    assert method.semi.views == {"x": strong, "u": strong}


@pytest.mark.parametrize("contrast", [True, False])
def test_projectors_train_where_contrast_does(contrast):
    method = make(contrast=contrast, midl=contrast)
    for head in ("projector", "prototype_projector"):
        assert not method.warmup.trainable((head, "kernel"))
        assert method.warmup_contrast.trainable((head, "kernel"))
        assert method.semi.trainable((head, "kernel")) == contrast
    for phase in method.phases():
        for part in ("backbone", "bottleneck", "logits", "balanced"):
            assert phase.trainable((part, "kernel"))


def test_midl_without_contrast_is_refused():
    with pytest.raises(UserError, match="^config.dasc.midl: "):
        make(contrast=False)


def test_lr_decay():
    def rates(**options):
        method = make(lr_decay_epoch=3.0, **options)
        return [method.learning_rate(epoch) for epoch in range(5)]

    constant = rates()
    assert len(set(constant)) == 1
    np.testing.assert_allclose(
        rates(lr_decay=True), np.multiply(constant, [1, 1, 1, 0.1, 0.1])
    )


def test_memories_are_exchanged_after_semi_supervised_epochs_only():
    carries = [dasc.ContrastMemory(10 + k, k) for k in (0, 1)]
    states = [base.TrainState(k, None, None, carries[k]) for k in (0, 1)]
    method = make()
    swapped = method.end_epoch(method.semi, states)
    assert [s.carry for s in swapped] == carries[::-1]
    assert [s.params for s in swapped] == [0, 1]
    for phase in (method.warmup, method.warmup_contrast):
        assert method.end_epoch(phase, states) == states
    method = make(memory_exchange=False)
    assert method.end_epoch(method.semi, states) == states


# Warm-up ---------------------------------------------------------------------


def warmup(phase, counts=(4.0, 2, 1)):
    """What a step returns, and the passes of the network."""
    net = base.Net(toy.apply, [], None)
    x = typed.stream(views(1, 2), jnp.asarray([0, 2]))
    batch = typed.batch(x=x)
    everyone = typed.division(jnp.asarray(counts))
    found = phase.loss(net, OWN["params"], batch, (), everyone, carry())
    return found, net.batch_stats


def test_no_projector_runs_before_the_contrast():
    after, passes = warmup(make().warmup)
    assert passes == [(dasc.BOTH_HEADS, SIZE)] * 2
    assert after.carry.fill == 3


def test_warmup_fills_no_memory_without_midl():
    after, _ = warmup(make(midl=False).warmup_contrast)
    assert after.carry.fill == 3


@pytest.mark.parametrize("name", ["warmup", "warmup_contrast"])
def test_the_prior_of_the_warmup_is_an_argument(name):
    """As a constant it would compile a program for every seed."""
    phase = getattr(make(), name)
    given, even = (
        warmup(phase, counts)[0].terms for counts in ((4.0, 2, 1), (1.0, 1, 1))
    )
    assert given["loss_ce"] == even["loss_ce"]
    assert abs(given["loss_balanced_ce"] - even["loss_balanced_ce"]) > 0.01
