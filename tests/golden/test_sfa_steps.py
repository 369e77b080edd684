"""SFA's losses and training steps against the authors'."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt import losses
from jaxnlt import method as base
from jaxnlt.losses import mixmatch
from jaxnlt.losses.mixmatch import MixupDraws
from jaxnlt.methods import dividemix
from tests import typed
from tests.golden.cases import golden
from tests.golden.test_sfa import equal, method


@golden("sfa_balanced_loss")
def test_balanced_loss(case):
    counts = case["class_counts"]
    x, u = jnp.asarray(case["logits_x"]), jnp.asarray(case["logits_u"])
    targets_x, targets_u = case["targets_x"], case["targets_u"]

    def hard(logits):
        return losses.balanced_softmax(logits, case["labels_x"], counts)

    equal(hard(x), case["hard_loss_per_sample_f64"])
    value, grad = jax.value_and_grad(lambda z: hard(z).mean())(x)
    equal(value, case["hard_loss_f64"])
    equal(grad, case["hard_grad_f64"])

    def both(x, u, counts=counts):
        return mixmatch.terms(
            jnp.concatenate([x, u]),
            jnp.concatenate([targets_x, targets_u]),
            len(x),
            losses.log_prior(counts),
        )

    value_x, value_u = both(x, u)
    equal(value_x, case["semi_Lx_f64"])
    equal(value_u, case["semi_Lu_f64"])
    equal(value_x, case["soft_loss_webvision_f64"])
    grads = jax.grad(lambda x, u: both(x, u)[0] + 3 * both(x, u)[1], (0, 1))
    grad_x, grad_u = grads(x, u)
    equal(grad_x, case["semi_grad_x_f64"])
    equal(grad_u, case["semi_grad_u_times3_f64"])
    # The authors' loss is infinite where a class is empty; ours counts one.
    emptied = case["zero_count_class_counts"]
    clipped = both(x, u, emptied)
    assert np.isfinite(clipped).all()
    equal(clipped, both(x, u, np.maximum(emptied, 1)))


@golden("sfa_balanced_loss")
def test_warmup_loss(case):
    counts = case["class_counts"]
    given = np.repeat(np.arange(len(counts)), counts)
    chosen = method(given, len(counts))
    heads = {"logits": "logits_x", "balanced": "warmup_logits2"}
    params = {head: jnp.asarray(case[name]) for head, name in heads.items()}

    def apply(variables, images, heads, train):
        assert train
        return {h: variables["params"][h] for h in heads}, {}

    batch = typed.batch(x=typed.stream((None,), case["labels_x"]))

    def loss(params):
        net = base.Net(apply, {}, None)
        result = chosen.phase(0).loss(
            net, params, batch, (), typed.division(), ()
        )
        return result.loss, result.terms

    (total, terms), grads = jax.value_and_grad(loss, has_aux=True)(params)
    equal(terms["loss_ce"], case["warmup_ce"])
    equal(terms["loss_balanced_ce"], case["warmup_balanced"])
    equal(total, case["warmup_total"])
    equal(grads["logits"], case["warmup_grad1"])
    equal(grads["balanced"], case["warmup_grad2"])


class Script:
    """A network whose outputs are stored, handed out in call order.

    The last call gets the parameters, so that gradients reach its outputs.
    """

    def __init__(self, own, peer):
        self.own, self.peer, self.images = list(own), list(peer), None

    def apply(self, variables, images, heads, train):
        queue = self.own if train else self.peer
        if queue:
            return {"logits": queue.pop(0)}, {}
        assert train
        self.images = images
        return {h: variables["params"][h] for h in heads}, {}


@golden("sfa_step_cifar", "sfa_step_webvision")
def test_step(case):
    web = case.file.endswith("webvision")
    num_classes = int(case["num_class"])
    chosen = method(
        case["all_noisy_labels"],
        num_classes,
        int(case["batch_size"]),
        lambda_u=float(case["lambda_u"]),
        sharpen_temperature=float(case["T"]),
        warmup=int(case["warm_up"]),
        unlabelled_loss=not web,
    )
    steps = 0
    while f"s{steps}_inputs_x1" in case:
        check_step(case, chosen, steps, f"s{steps}_", web)
        steps += 1
    assert steps


def channels_last(images):
    return jnp.moveaxis(jnp.asarray(images), 1, -1)


def check_step(case, chosen, b, s, web):
    labels = case["all_noisy_labels"][case[f"{s}index_x"]]
    np.testing.assert_array_equal(labels, case[f"{s}labels_x"])
    params = {
        "logits": jnp.asarray(case[f"{s}logits_net_mixed"]),
        "balanced": jnp.asarray(case[f"{s}logits_balanced_mixed"]),
    }
    x = typed.stream(
        [channels_last(case[f"{s}inputs_x{v}"]) for v in (1, 2)],
        labels,
        jnp.asarray(case[f"{s}w_x"]),
    )
    u = typed.stream([channels_last(case[f"inputs_u{v}"]) for v in (1, 2)])
    epoch = jnp.float32(case["epoch"] - 1)
    batch = typed.batch(epoch, jnp.float32(b), x=x, u=u)
    drawn = float(case[f"{s}beta_sample"])
    used = max(drawn, 1 - drawn)
    equal(used, case[f"{s}out_l_used"])
    draws = MixupDraws(jnp.float32(used), jnp.asarray(case[f"{s}perm"]))
    division = typed.division(
        jnp.asarray(case["class_counts"]), jnp.float32(case["n_labeled"])
    )
    own = [case[f"{s}logits_net_{v}"] for v in ("u1", "u2", "x1", "x2")]
    peer = [case[f"{s}logits_peer_{v}"] for v in ("u1", "u2")]
    own, peer = ([jnp.asarray(z) for z in logits] for logits in (own, peer))

    guessed = mixmatch.mean_probs(own[:2] + peer)
    equal(guessed, case[f"{s}out_pu"])
    refined = mixmatch.refine(x.labels, mixmatch.mean_probs(own[2:]), x.weights)
    equal(refined, case[f"{s}out_px"])
    temperature = float(case["T"])
    net = base.Net(Script(own, peer).apply, {}, {})
    targets = dividemix.two_view_targets(net, params, x, u, temperature)
    equal(targets.labelled, case[f"{s}out_targets_x"])
    equal(targets.unlabelled, case[f"{s}out_targets_u"])
    mixed = mixmatch.mixed_batch(x.views, u.views, targets, draws)
    rows = len(case[f"{s}out_mixed_target"])
    equal(mixed.targets[:rows], case[f"{s}out_mixed_target"])
    expected = channels_last(case[f"{s}out_mixed_input"])
    equal(mixed.images[:rows], expected)

    def loss(params):
        script = Script(own, peer)
        net = base.Net(script.apply, {}, {})
        result = chosen.semi_loss(net, params, batch, draws, division, ())
        assert not script.own and not script.peer
        return result.loss, (result.terms, script.images)

    (total, (terms, fed)), grads = jax.value_and_grad(loss, has_aux=True)(
        params
    )
    equal(fed, expected)
    names = {"loss_ce": "Lx", "loss_penalty": "penalty"}
    if web:
        names |= {"loss_balanced_ce": "balanced_loss"}
    else:
        names |= {
            "loss_mse": "Lu",
            "loss_balanced_ce": "balanced_Lx",
            "loss_balanced_mse": "balanced_Lu",
            "lambda_u": "lamb",
        }
    assert set(terms) == set(names)
    for ours, theirs in names.items():
        equal(terms[ours], case[f"{s}out_{theirs}"])
    equal(total, case[f"{s}out_loss"])
    equal(grads["logits"], case[f"{s}out_grad_logits_net_mixed"])
    equal(grads["balanced"], case[f"{s}out_grad_logits_balanced_mixed"])
