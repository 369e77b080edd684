"""Complete steps of DivideMix and SFA on stored logits."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt.losses import mixmatch
from tests import typed
from tests.golden import precision
from tests.golden.cases import golden
from tests.golden.methods import method
from tests.golden.scripted import Script, spy

near = partial(precision.near, rtol=1e-5)

# Method -> head -> its logits on the mixed rows, and their gradient.
MIXED = {
    "dividemix": {"logits": ("logits_net_mixed", "grad_logits_mixed")},
    "sfa": {
        "logits": ("logits_net_mixed", "grad_logits_net_mixed"),
        "balanced": ("logits_balanced_mixed", "grad_logits_balanced_mixed"),
    },
}
# Our term -> the authors' name of it; a file has those of its losses.
TERMS = [
    ("loss_ce", "Lx"),
    ("loss_mse", "Lu"),
    ("lambda_u", "lamb"),
    ("loss_penalty", "penalty"),
    ("loss_balanced_ce", "balanced_Lx"),
    ("loss_balanced_ce", "balanced_loss"),
    ("loss_balanced_mse", "balanced_Lu"),
]


@golden(
    "dividemix_step_cifar",
    "dividemix_step_webvision",
    "sfa_step_cifar",
    "sfa_step_webvision",
)
def test_step(case, dtype):
    name = case.file.partition("_")[0]
    made = method(
        f"{name}:cifar10",
        range(int(case["num_class"])),
        {"batch_size": int(case["batch_size"])},
        unlabelled_loss="s0_out_Lu" in case,
        sharpen_temperature=float(case["T"]),
        lambda_u=float(case["lambda_u"]),
        warmup=int(case["warm_up"]),
    )
    epoch = int(case["epoch"]) - made.first_epoch
    phase = made.phase(epoch)
    assert phase is made.semi
    compiled = jax.jit(partial(traced, phase))
    if "all_noisy_labels" in case:
        for s in case.prefixes("_index_x"):
            labels = case["all_noisy_labels"][case[f"{s}_index_x"]]
            np.testing.assert_array_equal(labels, case[f"{s}_labels_x"])
    for number in range(len(case.prefixes("_out_loss"))):
        time = jnp.asarray([epoch, number], dtype)
        check_step(case, dtype, phase, compiled, f"s{number}_", time)


def traced(phase, params, batch, draws, division, guesses, peers):
    """Loss, gradients, and all that the loss was made of."""
    script = Script(guesses, peers)
    with pytest.MonkeyPatch.context() as patch:
        sharpened = spy(patch, mixmatch, "sharpen")
        mixed = spy(patch, mixmatch, "terms")

        def loss(params):
            net = script.net()
            result = phase.loss(net, params, batch, draws, division, ())
            assert not script.guesses and not script.peers
            guessed = [(before, after) for (before, _), after in sharpened]
            targets = mixed[0][0][1]
            seen = (script.seen, script.seen_by_peer, guessed, targets)
            return result.loss, (result.terms, *seen)

        return jax.value_and_grad(loss, has_aux=True)(params)


def check_step(case, dtype, phase, compiled, s, time):
    stored = case.group(s)

    def arrays(source, *names):
        return [jnp.asarray(source[name], dtype) for name in names]

    views_x = arrays(stored, "inputs_x1", "inputs_x2")
    views_u = arrays(case, "inputs_u1", "inputs_u2")
    (weights,) = arrays(stored, "w_x")
    x = typed.stream(views_x, stored["labels_x"], weights)
    batch = typed.batch(*time, x=x, u=typed.stream(views_u))
    (labelled,) = arrays(case, "n_labeled")
    counts = arrays(case, "class_counts")[0] if "class_counts" in case else None
    division = typed.division(counts, labelled)

    sizes = {"x": len(views_x[0]), "u": len(views_u[0])}
    with pytest.MonkeyPatch.context() as patch:
        (raw,) = arrays(stored, "beta_sample")
        patch.setattr(jax.random, "beta", lambda *a: raw)
        draws = phase.draws(jax.random.key(0), sizes)
    assert draws.permutation.shape == (2 * sum(sizes.values()),)
    folded = stored["out_l_used"]
    np.testing.assert_allclose(draws.coefficient, folded, rtol=1e-6)
    draws = draws._replace(permutation=jnp.asarray(stored["perm"]))

    heads = MIXED[case.file.partition("_")[0]]
    params = {h: arrays(stored, name)[0] for h, (name, _) in heads.items()}
    names = (f"logits_net_{v}" for v in ("u1", "u2", "x1", "x2"))
    guesses = arrays(stored, *names)
    peers = arrays(stored, "logits_peer_u1", "logits_peer_u2")
    (value, aux), grads = compiled(
        params, batch, draws, division, guesses, peers
    )
    terms, seen, seen_by_peer, guessed, targets = aux
    expected = [*views_u, *views_x, stored["out_mixed_input"]]
    jax.tree.map(near, seen, expected)
    jax.tree.map(np.testing.assert_array_equal, seen_by_peer, views_u)
    for side, (before, after) in zip("xu", guessed, strict=True):
        near(before, stored[f"out_p{side}"])
        near(after, stored[f"out_targets_{side}"])
    near(targets, stored["out_mixed_target"])
    expected = {
        ours: stored[f"out_{theirs}"]
        for ours, theirs in TERMS
        if f"out_{theirs}" in stored
    }
    jax.tree.map(near, terms, expected)
    near(value, stored["out_loss"])
    for head, (_, name) in heads.items():
        near(grads[head], stored[f"out_{name}"])
