"""H2E's identifier, trained step by step as the loop trains it.

Tolerances are those that were measured for the authors' code.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt import losses, step
from jaxnlt import method as base
from jaxnlt.methods import h2e
from jaxnlt.models import heads
from tests import typed
from tests.golden.cases import golden
from tests.golden.methods import labels_of, method
from tests.golden.test_h2e_losses import close, close_gradient
from tests.golden.test_h2e_training import before_robust

ENVIRONMENTS = ("raw", "reverse", "balance")


class Run:
    """The head on stored features, handed over from a base classifier."""

    def __init__(self, case, dtype, **options):
        self.case, self.dtype = case, dtype
        self.method = method(
            "h2e:digits,as_released",
            labels_of(case["irm__class_counts"]),
            {"optimizer.momentum": float(case["irm__momentum"])},
            identify_rate=float(case["irm__lr"]),
            identify_weight_decay=float(case["irm__weight_decay"]),
            **options,
        )
        self.epoch = self.method.config.h2e.starts.round1.identify
        self.phase = self.method.phase(self.epoch)
        prior = self.method.network_options["prior"]
        head = heads.Identifier(prior, np.dtype(dtype))

        def apply(variables, features, heads, train):
            assert heads == ("identifier",)
            params = {"params": variables["params"]["identifier"]}
            return {"identifier": head.apply(params, features)}, {}

        self.apply = apply
        self.steps = len(case.prefixes("__raw__features"))

    def start(self):
        classifier = {
            "kernel": jnp.asarray(self.case["irm__fc_weight"].T, self.dtype),
            "bias": jnp.asarray(self.case["irm__fc_bias"], self.dtype),
        }
        other = {
            "linear": jax.tree.map(jnp.zeros_like, classifier),
            "exponents": jnp.zeros(len(classifier["bias"]), self.dtype),
        }
        params = {"logits": classifier, "identifier": other}
        variables = {"params": params, "batch_stats": {}}
        states = [base.init_state(variables, ())]
        (state,), _ = self.method.enter(
            self.epoch, states, before_robust(), None
        )
        return state

    def batch(self, number):
        environments = {}
        for name in ENVIRONMENTS:
            stored = self.case.group(f"irm__step{number}__{name}__")
            features = jnp.asarray(stored["features"], self.dtype)
            labels = jnp.asarray(stored["labels"])
            environments[name] = typed.stream((features,), labels)
        epoch = jnp.asarray(self.epoch, self.dtype)
        return typed.batch(epoch, **environments)

    def outputs(self, params, features):
        variables = {"params": params}
        heads = ("identifier",)
        return self.apply(variables, features, heads, False)[0]["identifier"]

    def loss(self, params, number):
        net = base.Net(self.apply, {}, None)
        total, terms, _ = self.phase.loss(
            net, params, self.batch(number), (), typed.division(), ()
        )
        return total, terms

    def train(self):
        """Loss of each step and the head after it."""
        update = jax.jit(
            partial(
                step.update,
                self.apply,
                self.phase,
                momentum=self.method.config.optimizer.momentum,
                weight_decay=None,  # the phase has its own
            )
        )
        state, rate = self.start(), self.method.learning_rate(self.epoch)
        for number in range(self.steps):
            batch = self.batch(number)
            state, terms = update(
                state, None, batch, (), typed.division(), rate
            )
            yield terms["loss"], state.params["identifier"]


def parts(head):
    """The head's arrays by their names in the file."""
    return {
        "fc_weight": head["linear"]["kernel"].T,
        "fc_bias": head["linear"]["bias"],
        "tro": head["exponents"],
    }


def check(case, prefix, head):
    found = 0
    for name, value in parts(head).items():
        if f"{prefix}__{name}" in case:
            close(value, case[f"{prefix}__{name}"], rtol=1e-4, atol=1e-5)
            found += 1
    assert found


@golden("h2e_irm")
def test_first_step(case, dtype):
    run = Run(case, dtype, train_exponents=True)
    close(run.method.prior, case["irm__class_freq"])
    params = run.start().params
    for name, value in parts(params["identifier"]).items():
        stored = "tro_init" if name == "tro" else name
        close(value, case[f"irm__{stored}"])
    (exponents,) = case.jnp("irm__tro_init", dtype=dtype)
    adjustment = losses.prior_adjustment(run.method.prior, exponents)
    close(adjustment, case["irm__adjustments_at_init"])
    for name, stream in run.batch(0).streams.items():
        output = run.outputs(params, stream.views[0])
        if name == "raw":
            close(output, case["irm__step0__raw__output"])
        expected = case[f"irm__step0__{name}__penalty"]
        close(h2e.penalty(output, stream.labels), expected, 1e-4)
    (value, terms), grads = jax.jit(
        jax.value_and_grad(partial(run.loss, number=0), has_aux=True)
    )(params)
    close(value, case["irm__step0__loss"], 1e-4)
    close(terms["loss_penalty"], case["irm__step0__loss"], 1e-4)
    for name, grad in parts(grads["identifier"]).items():
        close_gradient(grad, case[f"irm__step0__grad_{name}"])
    # The base classifier is not what is trained.
    assert not np.any(grads["logits"]["kernel"])
    _, head = next(run.train())
    check(case, "irm__after_step0", head)


@golden("h2e_irm")
def test_exponents_that_train(case, dtype):
    """The adjustment is made anew in every step."""
    run = Run(case, dtype, train_exponents=True)
    for i, (value, head) in enumerate(run.train()):
        close(value, case["irm_recomputed__losses"][i], 1e-4)
        check(case, f"irm_recomputed__after_step{i}", head)
    assert i + 1 == len(case["irm_recomputed__losses"])


@golden("h2e_irm")
def test_exponents_as_released(case, dtype):
    """The adjustment stays that of exponents 1; the first step is alike."""
    run = Run(case, dtype)
    assert not run.method.options.train_exponents
    values, heads = zip(*run.train(), strict=True)
    expected = case["irm_tro_frozen__losses"]
    for value, reference in zip(values, expected, strict=True):
        close(value, reference, 1e-4)
    check(case, "irm_tro_frozen__after_last", heads[-1])
    final = heads[-1]["exponents"]
    np.testing.assert_array_equal(final, case["irm__tro_init"])
