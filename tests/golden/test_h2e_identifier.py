"""H2E's identifier, trained step by step as the loop trains it.

Tolerances are those that were measured for the authors' code.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from configs import h2e as h2e_config
from jaxnlt import method as base
from jaxnlt import step
from jaxnlt.methods import h2e
from jaxnlt.models import heads
from tests import typed
from tests.golden.cases import golden
from tests.golden.precision import PRECISIONS, precision
from tests.golden.test_h2e_losses import close, close_gradient

ENVIRONMENTS = ("raw", "reverse", "balance")


def method(case, **options):
    """H2E with the stored settings, in the identifier's first epoch."""
    config = h2e_config.get_config("digits,as_released")
    with config.unlocked():
        config.optimizer.momentum = float(case["irm__momentum"])
        config.h2e.identify_rate = float(case["irm__lr"])
        config.h2e.identify_weight_decay = float(case["irm__weight_decay"])
        config.h2e.update(options)
    counts = case["irm__class_counts"]
    labels = np.repeat(np.arange(len(counts)), counts)
    return h2e.Method(config, base.DataInfo(labels, len(counts)))


class Run:
    """The head on stored features, handed over from a base classifier."""

    def __init__(self, case, dtype, **options):
        self.case, self.dtype = case, dtype
        self.method = method(case, **options)
        self.epoch = self.method.config.h2e.starts.round1.identify
        self.phase = self.method.phase(self.epoch)
        prior = self.method.network_options["prior"]
        head = heads.Identifier(prior, np.dtype(dtype))

        def apply(variables, features, heads, train):
            assert heads == ("identifier",)
            params = {"params": variables["params"]["identifier"]}
            return {"identifier": head.apply(params, features)}, {}

        self.apply = apply
        self.steps = sum(key.endswith("__raw__features") for key in case.keys())

    def start(self):
        classifier = {
            "kernel": jnp.asarray(self.case["irm__fc_weight"].T, self.dtype),
            "bias": jnp.asarray(self.case["irm__fc_bias"], self.dtype),
        }
        other = {
            "linear": jax.tree.map(jnp.zeros_like, classifier),
            "exponents": jnp.zeros(len(classifier["bias"]), self.dtype),
        }
        variables = {
            "params": {"logits": classifier, "identifier": other},
            "batch_stats": {},
        }
        hand_over = h2e.HandOver(np.asarray(False), [{}])
        memory = base.Memory({}, hand_over, np.zeros((0, 1)))
        (state,), _ = self.method.enter(
            self.epoch, [base.init_state(variables, ())], memory, None
        )
        return state

    def batch(self, number):
        environments = {}
        for name in ENVIRONMENTS:
            stored = self.case.group(f"irm__step{number}__{name}__")
            environments[name] = typed.stream(
                (jnp.asarray(stored["features"], self.dtype),),
                jnp.asarray(stored["labels"]),
            )
        epoch = jnp.asarray(self.epoch, self.dtype)
        return typed.batch(epoch, **environments)

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


@PRECISIONS
@golden("h2e_irm")
def test_first_step(case, dtype):
    with precision(dtype):
        run = Run(case, dtype, train_exponents=True)
        close(run.method.prior, case["irm__class_freq"])
        params = run.start().params
        for name, value in parts(params["identifier"]).items():
            stored = "tro_init" if name == "tro" else name
            close(value, case[f"irm__{stored}"])
        features = run.batch(0).streams["raw"].views[0]
        output = run.apply({"params": params}, features, ("identifier",), False)
        close(output[0]["identifier"], case["irm__step0__raw__output"])
        (value, terms), grads = jax.jit(
            jax.value_and_grad(partial(run.loss, number=0), has_aux=True)
        )(params)
        close(value, case["irm__step0__loss"], 1e-4)
        close(terms["loss_penalty"], case["irm__step0__loss"], 1e-4)
        each = [case[f"irm__step0__{e}__penalty"] for e in ENVIRONMENTS]
        close(terms["loss_penalty"], np.mean(each), 1e-4)
        for name, grad in parts(grads["identifier"]).items():
            close_gradient(grad, case[f"irm__step0__grad_{name}"])
        # The base classifier is not what is trained.
        assert not np.any(grads["logits"]["kernel"])
        _, head = next(run.train())
        check(case, "irm__after_step0", head)


@PRECISIONS
@golden("h2e_irm")
def test_exponents_that_train(case, dtype):
    """The adjustment is made anew in every step."""
    with precision(dtype):
        run = Run(case, dtype, train_exponents=True)
        for i, (value, head) in enumerate(run.train()):
            close(value, case["irm_recomputed__losses"][i], 1e-4)
            check(case, f"irm_recomputed__after_step{i}", head)
        assert i + 1 == len(case["irm_recomputed__losses"])


@PRECISIONS
@golden("h2e_irm")
def test_exponents_as_released(case, dtype):
    """The adjustment stays that of exponents 1; the first step is alike."""
    with precision(dtype):
        run = Run(case, dtype)
        assert not run.method.options.train_exponents
        values, heads = zip(*run.train(), strict=True)
        expected = case["irm_tro_frozen__losses"]
        for value, reference in zip(values, expected, strict=True):
            close(value, reference, 1e-4)
        head = heads[-1]
        check(case, "irm_tro_frozen__after_last", head)
        np.testing.assert_array_equal(head["exponents"], case["irm__tro_init"])
