"""Empirical risk minimisation, the yardstick: one loss on all given labels.

Losses against noise and long tails, resampling, and a second phase: deferred
re-weighting (Cao et al. 2019), classifier re-training or tau-normalisation
(Kang et al. 2020).  mixup: Zhang et al., ICLR 2018.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt import losses, models
from jaxnlt import method as base
from jaxnlt.data import sampling
from jaxnlt.losses import active_passive, mixmatch
from jaxnlt.runtime.errors import UserError, one_of

SECOND = ("none", "drw", "crt", "tau_norm")


class Method(base.Method):
    """One or more networks, each trained by itself on every given label."""

    def __init__(self, config, data):
        super().__init__(config, data)
        self.options = options = config.erm
        self.num_nets = options.num_nets
        self.losses = {
            "ce": self.ce,
            "mixup": self.mixup,
            "focal": self.focal,
            "balanced_softmax": self.balanced_softmax,
            "ldam": self.ldam,
            "logit_adjustment": self.logit_adjustment,
            "gce": self.gce,
            "sce": self.sce,
            "nce_rce": self.nce_rce,
            "elr": self.elr,
        }
        one_of("config.erm.loss", options.loss, self.losses)
        one_of("config.erm.view", options.view, ("weak", "strong", "none"))
        one_of("config.erm.sampling", options.sampling, sampling.EXPONENTS)
        one_of("config.erm.second", options.second, SECOND)
        if options.num_nets < 1:
            raise UserError(
                f"config.erm.num_nets: must be at least 1, is {self.num_nets}"
            )
        if options.second != "none" and options.second_start < 1:
            raise UserError(
                "config.erm.second_start: must be at least 1, is "
                f"{options.second_start}; second={options.second} after the "
                "benchmark sets it"
            )
        self.class_weights = losses.effective_weights(
            data.counts, options.drw_beta
        )
        self.train = self._phase("train", partial(self.loss, None))
        self.second = {
            "none": lambda: self.train,
            "drw": lambda: self._phase(
                "drw", partial(self.loss, self.class_weights)
            ),
            "crt": self._crt_phase,
            "tau_norm": self._tau_phase,
        }[options.second]()

    def _phase(self, name, loss) -> base.Phase:
        """All data through the loss of config.erm.loss."""
        options = self.options
        cosine = options.loss == "ldam"
        return base.Phase(
            name=name,
            loss=loss,
            draws=self.mixup_draws
            if options.loss == "mixup"
            else lambda key, sizes: {},
            streams=self._streams(options.sampling),
            views={"x": (options.view,)},
            # A cosine classifier has no bias.
            trainable=lambda path: not cosine or path != ("logits", "bias"),
        )

    def _crt_phase(self) -> base.Phase:
        """A new classifier on the frozen network, classes sampled evenly."""
        return base.Phase(
            name="crt",
            loss=self.crt_loss,
            streams=self._streams("class_balanced"),
            views={"x": (self.options.view,)},
            trainable=lambda path: path[0] == "logits",
        )

    def _tau_phase(self) -> base.Phase:
        """One batch without training; `enter` has rescaled the classifier."""
        whole = self._streams("instance")
        return base.Phase(
            name="tau_norm",
            loss=self.idle_loss,
            streams=lambda selection, rng: {
                "x": whole(selection, rng)["x"][:1]
            },
            views={"x": ("none",)},
            trainable=lambda path: False,
        )

    def _streams(self, sampling):
        batch, labels = self.config.warmup_batch_size, self.data.labels
        if sampling == "instance":
            return base.single_stream(batch)
        exponent = sampling.EXPONENTS[sampling]
        return lambda selection, rng: {
            "x": sampling.resampled(
                selection.labelled, labels, exponent, batch, rng
            )
        }

    def phases(self):
        same = self.second is self.train
        return (self.train,) if same else (self.train, self.second)

    def phase(self, epoch):
        later = epoch >= self.options.second_start
        return self.second if later else self.train

    def init_carry(self):
        """Running targets of ELR, zero until a sample is first seen."""
        if self.options.loss != "elr":
            return {}
        shape = (len(self.data.labels), self.data.num_classes)
        dtype = models.DTYPES[self.config.model.dtype][1]
        return {"targets": np.zeros(shape, dtype)}

    def enter(self, epoch, states, memory, fresh):
        """A second phase begins with a new or a rescaled classifier."""
        if epoch < self.options.second_start:
            return states, memory
        if self.options.second == "crt":
            states = [
                _with_classifier(state, **new["params"]["logits"])
                for state, new in zip(states, fresh(), strict=True)
            ]
        if self.options.second == "tau_norm":
            states = [
                _with_classifier(
                    state,
                    losses.tau_normalised(
                        state["params"]["logits"]["kernel"], self.options.tau
                    ),
                    jnp.zeros_like(state["params"]["logits"]["bias"]),
                )
                for state in states
            ]
        return states, memory

    def end_epoch(self, phase, states):
        """After LDAM the classifier's weights are unit vectors, no bias.

        Its loss does not see their length, and the plain linear head then
        votes as the cosine classifier does.
        """
        if self.options.loss != "ldam" or phase.name not in ("train", "drw"):
            return states
        return [as_cosine(state) for state in states]

    # Losses ------------------------------------------------------------------
    # Each gives [(share, [B] values, [B] labels)] and the carry.

    def loss(self, weights, net, params, batch, draws, selection, carry):
        """Mean loss, its rows weighed by their class if there are weights."""
        parts, carry = self.losses[self.options.loss](
            net, params, batch, draws, carry
        )
        shares, values, rows = [], [], []
        for share, value, labels in parts:
            shares.append(jnp.broadcast_to(share, value.shape))
            values.append(value)
            row = jnp.ones_like(value)
            if weights is not None:
                row = jnp.asarray(weights, value.dtype)[labels]
            rows.append(row)
        share, value, row = map(jnp.concatenate, (shares, values, rows))
        total = losses.weighted_mean(value, share * row)
        name = {"mixup": "ce"}.get(self.options.loss, self.options.loss)
        return total, carry, {f"loss_{name}": total}

    def _given(self, net, params, batch):
        """Logits and given labels of the batch."""
        (images,) = batch["x"]["views"]
        logits = net(params, images, ("logits",))["logits"]
        return logits, batch["x"]["labels"]

    def ce(self, net, params, batch, draws, carry):
        """Cross-entropy."""
        logits, labels = self._given(net, params, batch)
        return [(1.0, losses.cross_entropy(logits, labels), labels)], carry

    def mixup_draws(self, key, sizes):
        """Coefficient and partners; Beta(alpha, alpha), not folded."""
        alpha = self.options.mixup_alpha
        return mixmatch.mixup_draws(key, alpha, sizes["x"], folded=False)

    def mixup(self, net, params, batch, draws, carry):
        """Cross-entropy of mixed images with both labels, mixed alike."""
        (images,) = batch["x"]["views"]
        labels = batch["x"]["labels"]
        coefficient, partner = draws["coefficient"], draws["permutation"]
        mixed = mixmatch.mixup(images, coefficient, partner)
        logits = net(params, mixed, ("logits",))["logits"]
        other = labels[partner]
        return [
            (coefficient, losses.cross_entropy(logits, labels), labels),
            (1 - coefficient, losses.cross_entropy(logits, other), other),
        ], carry

    def focal(self, net, params, batch, draws, carry):
        """Focal loss."""
        logits, labels = self._given(net, params, batch)
        gamma = self.options.focal_gamma
        return [(1.0, losses.focal(logits, labels, gamma), labels)], carry

    def balanced_softmax(self, net, params, batch, draws, carry):
        """Balanced softmax with the given labels' counts."""
        logits, labels = self._given(net, params, batch)
        values = losses.balanced_softmax(logits, labels, self.data.counts)
        return [(1.0, values, labels)], carry

    def logit_adjustment(self, net, params, batch, draws, carry):
        """Logit-adjusted cross-entropy; its strength 1 is balanced softmax."""
        logits, labels = self._given(net, params, batch)
        values = losses.logit_adjusted(
            logits, labels, self.data.counts, self.options.adjustment
        )
        return [(1.0, values, labels)], carry

    def ldam(self, net, params, batch, draws, carry):
        """LDAM on the cosines of features and class weights."""
        (images,) = batch["x"]["views"]
        labels = batch["x"]["labels"]
        features = net(params, images, ("features",))["features"]
        values = losses.ldam(
            losses.cosines(features, params["logits"]["kernel"]),
            labels,
            losses.ldam_margins(self.data.counts, self.options.ldam_margin),
            self.options.ldam_scale,
        )
        return [(1.0, values, labels)], carry

    def gce(self, net, params, batch, draws, carry):
        """Generalised cross-entropy."""
        logits, labels = self._given(net, params, batch)
        values = losses.generalised_cross_entropy(
            logits, labels, self.options.gce_q
        )
        return [(1.0, values, labels)], carry

    def sce(self, net, params, batch, draws, carry):
        """Symmetric cross-entropy."""
        logits, labels = self._given(net, params, batch)
        options = self.options
        values = losses.symmetric_cross_entropy(
            *(logits, labels, options.sce_forward, options.sce_backward),
            options.sce_log_zero,
        )
        return [(1.0, values, labels)], carry

    def nce_rce(self, net, params, batch, draws, carry):
        """Normalised cross-entropy and reverse cross-entropy."""
        logits, labels = self._given(net, params, batch)
        options = self.options
        values = active_passive.combined(
            *(logits, labels, "nce", "rce"),
            *(options.apl_active, options.apl_passive),
        )
        return [(1.0, values, labels)], carry

    def elr(self, net, params, batch, draws, carry):
        """Cross-entropy with the early-learning regulariser."""
        logits, labels = self._given(net, params, batch)
        options, index = self.options, batch["x"]["index"]
        targets = losses.elr_update(
            carry["targets"], index, logits, options.elr_momentum
        )
        values = losses.cross_entropy(logits, labels)
        values += options.elr_weight * losses.early_learning(
            logits, targets[index]
        )
        return [(1.0, values, labels)], {"targets": targets}

    def crt_loss(self, net, params, batch, draws, selection, carry):
        """Cross-entropy of the new classifier on frozen features."""
        (images,) = batch["x"]["views"]
        logits = net.frozen(params, images, ("logits",))["logits"]
        labels = batch["x"]["labels"]
        total = jnp.mean(losses.cross_entropy(logits, labels))
        return total, carry, {"loss_ce": total}

    def idle_loss(self, net, params, batch, draws, selection, carry):
        """Nothing: the phase only evaluates."""
        return jnp.zeros((), batch["x"]["weights"].dtype), carry, {}


def _with_classifier(state, kernel, bias):
    """The state with another classifier, whose momentum starts from rest."""
    classifier = {"kernel": kernel, "bias": bias}
    rest = jax.tree.map(jnp.zeros_like, classifier)
    trace = state["opt_state"].trace | {"logits": rest}
    return state | {
        "params": state["params"] | {"logits": classifier},
        "opt_state": state["opt_state"]._replace(trace=trace),
    }


def as_cosine(state):
    """The state with unit class weights and no bias; momentum is kept."""
    kernel = state["params"]["logits"]["kernel"]
    classifier = {
        "kernel": losses.unit(kernel, 0),
        "bias": jnp.zeros_like(state["params"]["logits"]["bias"]),
    }
    return state | {"params": state["params"] | {"logits": classifier}}
