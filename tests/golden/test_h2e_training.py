"""H2E's base and robust training against the authors' loops, epoch by epoch.

Tolerances are those that were measured for the authors' code.
"""

import functools
import operator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt import losses, step
from jaxnlt import method as base
from jaxnlt.losses.mixmatch import MixupDraws
from jaxnlt.methods import h2e
from jaxnlt.results import metrics
from tests import typed
from tests.golden import methods
from tests.golden.cases import golden
from tests.golden.test_h2e_losses import close, close_gradient

# The authors' layer -> where ours stands in the tree; the last block trains.
LAYERS = {
    "layer1": ("backbone", "stage1_block1"),
    "layer4.0": ("backbone", "stage2_block1"),
    "layer4.1": ("backbone", "stage2_block2"),
    "fc": ("logits",),
}
MIXES = {"plain": "ce", "mix_up": "mixup", "mix_up_weight": "weighted"}


def apply(variables, images, heads, train):
    """The authors' perceptron; what stands for statistics are its logits."""
    params = variables["params"]
    x = images.reshape(len(images), -1)
    for layer in ("stage1_block1", "stage2_block1", "stage2_block2"):
        part = params["backbone"][layer]
        x = jnp.maximum(x @ part["weight"].T + part["bias"], 0)
    logits = x @ params["logits"]["weight"].T + params["logits"]["bias"]
    return {"logits": logits}, {"logits": logits}


def tree(arrays, dtype):
    """Stored parameters laid out as our networks lay theirs out."""
    params: dict = {}
    for name, value in arrays.items():
        layer, _, kind = name.rpartition(".")
        place = params
        for key in LAYERS[layer]:
            place = place.setdefault(key, {})
        place[kind] = np.asarray(value, dtype)
    return params


def method(case, tmp_path, phase, mix="ce", released=True, freeze=True):
    """H2E whose base, or robust, training has the stored settings."""
    labels = case["train_labels"]
    epochs, rate = int(case["num_epochs"]), float(case["lr"])
    decay = float(case["weight_decay"])
    ids = np.arange(len(labels))
    file = tmp_path / "labels.csv"
    fields = {
        "epochs": 2 * epochs + 1,
        "model.blocks": (1, 2),
        "optimizer.momentum": float(case["momentum"]),
        "h2e.starts.round1": {"identify": epochs, "robust": epochs + 1},
    }
    options = {"base_peak": 1.0, "mix": mix, "freeze": freeze}
    if phase == "base":
        fields["optimizer.learning_rate"] = rate
        fields["optimizer.weight_decay"] = decay
    else:
        options |= {"robust_rate": rate, "robust_weight_decay": decay}
    if mix == "weighted":
        options["scores"] = str(file)
        scores = zip(ids, case["scores"], strict=True)
        rows = "".join(f"{i},{score:.17g}\n" for i, score in scores)
        file.write_text(f"index,clean_probability\n{rows}")
    text = f"h2e:digits,as_released={released}"
    classes = len(case["init__fc.bias"])
    return methods.method(text, labels, fields, classes, ids, **options)


def start(case, dtype):
    params = tree(case.group("init__"), dtype)
    return base.init_state({"params": params, "batch_stats": {}}, ())


def batches_of(case):
    """Rows of every step of an epoch: stored order, the last one partial."""
    size, rows = int(case["batch_size"]), np.arange(len(case["train_labels"]))
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def train(case, made, first, state, dtype, weights=None, draws=None):
    """Trains the epochs of one phase; yields each epoch's state and curves."""
    epochs, count = int(case["num_epochs"]), 0
    phase = made.phase(first)
    optimizer = {"momentum": made.config.optimizer.momentum}
    update = jax.jit(  # the phase has a weight decay of its own
        partial(step.update, apply, phase, weight_decay=None, **optimizer)
    )
    images = jnp.asarray(case["train_images"], dtype)
    for epoch in range(first, first + epochs):
        assert made.phase(epoch) is phase
        values, hits = [], 0
        for rows in batches_of(case):
            labels, given = case["train_labels"][rows], None
            if weights is not None:
                given = jnp.asarray(weights[rows], dtype)
            drawn = draws(count, len(rows)) if draws else ()
            x = typed.stream((images[rows],), labels, given, jnp.asarray(rows))
            batch = typed.batch(jnp.asarray(epoch, dtype), x=x)
            rate, division = made.learning_rate(epoch), typed.division()
            state, terms = update(state, None, batch, drawn, division, rate)
            values.append(float(terms["loss"]))
            logits = np.asarray(state.batch_stats["logits"])
            hits += int((logits.argmax(1) == labels).sum())
            count += 1
        accuracy = 100 * hits / len(case["train_labels"])
        yield state, np.mean(values), accuracy


def evaluate(case, made, state, memory, dtype):
    """Loss, mean over batches, and accuracy in percent of the vote."""
    images = jnp.asarray(case["test_images"], dtype)
    logits = apply(state.variables, images, ("logits",), False)[0]["logits"]
    labels = case["test_labels"]
    outputs = [{"logits": np.asarray(logits)}]
    scores = np.asarray(made.predict(outputs, memory), dtype)
    size = int(case["batch_size"])
    values = np.asarray(losses.cross_entropy(jnp.asarray(scores), labels))
    parts = [values[i : i + size] for i in range(0, len(values), size)]
    found = metrics.test_metrics(scores, labels, made.data.counts)
    mean = np.mean([part.mean(dtype=float) for part in parts])
    return mean, 100 * found["test_accuracy"]


def one_sample(actual, expected, size):
    """Percentages that differ by one sample of so many at most."""
    close(actual, expected, rtol=0, atol=100 / size + 1e-6)


def check_curves(case, mode, epochs, made, memory, dtype):
    """Every epoch's figures; gives the last state and all test accuracies."""
    stored = case.group(f"{mode}__")
    accuracies = []
    for i, (state, loss, accuracy) in enumerate(epochs):
        close(loss, stored["train_loss_per_epoch"][i], 1e-4)
        size = len(case["train_labels"])
        one_sample(accuracy, stored["train_acc_per_epoch"][i], size)
        loss, accuracy = evaluate(case, made, state, memory, dtype)
        close(loss, stored["test_loss_per_epoch"][i], 1e-4)
        size = len(case["test_labels"])
        one_sample(accuracy, stored["test_acc_per_epoch"][i], size)
        accuracies.append(accuracy)
    assert len(accuracies) == len(stored["train_loss_per_epoch"])
    final = tree(case.group(f"{mode}__final__"), np.float64)
    jax.tree.map(partial(close, rtol=2e-4, atol=2e-5), state.params, final)
    return state, accuracies


@golden("h2e_stage1_training")
def test_base_training(case, dtype, tmp_path):
    for mode in case.prefixes("__train_loss_per_epoch"):

        def draws(count, rows, mode=mode):
            share = partner = None
            if f"{mode}__perm_per_step_padded_minus1" in case:
                partner = case[f"{mode}__perm_per_step_padded_minus1"]
                partner = jnp.asarray(partner[count, :rows])
            if f"{mode}__lam_per_step" in case:
                share = case[f"{mode}__lam_per_step"][count]
                share = jnp.asarray(share, dtype)
            return MixupDraws(share, partner)

        made = method(case, tmp_path, "base", MIXES[mode])
        state, memory = start(case, dtype), before_robust()
        epochs = train(case, made, 0, state, dtype, draws=draws)
        _, accuracies = check_curves(case, mode, epochs, made, memory, dtype)
        best = case[f"{mode}__best_test_acc"]
        one_sample(max(accuracies), best, len(case["test_labels"]))


def before_robust():
    """A memory that does not adjust the vote."""
    hand_over = h2e.HandOver(np.asarray(False), [{}])
    return base.Memory({}, hand_over, np.zeros((0, 1)))


def enter_robust(made, state):
    """What the method does before robust: the memory then adjusts the vote."""
    (epoch,) = (s.first for s in made.spans if s.step == "robust")
    (state,), memory = made.enter(epoch, [state], before_robust(), None)
    return epoch, state, memory


@golden("h2e_stage2_training")
def test_robust_training(case, dtype, tmp_path):
    size, weights = len(case["test_labels"]), case["instance_weights"]
    for mode in case.prefixes("__train_loss_per_epoch"):
        freeze = mode == "freeze"
        made = method(case, tmp_path, "robust", freeze=freeze)
        state = start(case, dtype)
        _, before = evaluate(case, made, state, before_robust(), dtype)
        expected = case[f"{mode}__base_test_acc_without_adjustment"]
        one_sample(before, expected, size)
        first, state, memory = enter_robust(made, state)
        zero = {"logits": np.zeros((1, made.data.num_classes))}
        (scores,) = made.predict([zero], memory)
        close(-scores, case[f"{mode}__adjustments"])
        epochs = train(case, made, first, state, dtype, weights)
        last, accuracies = check_curves(case, mode, epochs, made, memory, dtype)
        best = case[f"{mode}__reported_best_test_acc"]
        one_sample(max(before, *accuracies), best, size)
        moved = jax.tree.map(
            lambda a, b: bool((a != b).any()), state.params, last.params
        )
        for path in LAYERS.values():
            place = functools.reduce(operator.getitem, path, moved)
            block = path in (("logits",), ("backbone", "stage2_block2"))
            assert set(place.values()) == {block or not freeze}


@golden("h2e_stage2_training")
def test_weighted_cross_entropy(case, dtype):
    prefix = "weighted_ce__"
    names = (f"{prefix}logits", f"{prefix}weights")
    logits, weights = case.jnp(*names, dtype=dtype)
    labels = jnp.asarray(case[f"{prefix}labels"])
    value, grad = jax.value_and_grad(h2e.normalised_weighted_ce)(
        logits, labels, weights
    )
    close(value, case[f"{prefix}loss"])
    close_gradient(grad, case[f"{prefix}grad_logits"])


@golden("h2e_stage2_training")
def test_the_decay_of_the_release_is_a_switch(case, tmp_path):
    """By default a step decays by the weight decay alone, not three times."""
    decay = float(case["weight_decay"])
    for phase in ("base", "robust"):
        for released, factor in ((False, 1), (True, 3)):
            made = method(case, tmp_path, phase, released=released)
            used = made.first[phase].weight_decay
            assert used == pytest.approx(factor * decay)
    assert made.first["identify"].weight_decay == 1e-4
