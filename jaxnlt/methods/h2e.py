"""H2E: hard noise told from hard samples by an invariant classifier.

Yi, Tang, Hua, Lim, Zhang, "Identifying Hard Noise in Long-Tailed Sample
Distribution", ECCV 2022, arXiv 2207.13378.

One network, three phases a round.  base: plain training or mixup.  identify:
on the frozen backbone a classifier of its own learns to be invariant over
three class distributions; what it then thinks of every label becomes a weight.
robust: the base network's last block and classifier, with these weights.  The
next round starts a new network without the images that weigh least.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np

from jaxnlt import (
    h2e_parts,
    irm,
    losses,
    samplers,
    semi,
    sharding,
    streams,
)
from jaxnlt.errors import UserError, one_of
from jaxnlt.methods import base

# Stream -> exponent of the class sizes; None takes every image once.
ENVIRONMENTS = {"raw": None, "reverse": -1.0, "balance": 0.0}
CHOICES = {
    "mix": ("ce", "mixup", "weighted"),
    "iterate": ("drop", "scores"),
    "frozen_bn": ("eval", "train"),
    "view": ("weak", "strong", "none"),
    "raw_view": ("weak", "strong", "none"),
}
NOT_NEGATIVE = (
    *("rounds", "erm_weight", "penalty_weight", "penalty_start"),
    *("penalty_ramp", "weight_decay_factor", "prior_subtractions"),
    "base_peak",
)


class InstanceWeights(base.Selector):
    """Weights of the samples, by the identifier as robust's start met it.

    The weights stay until `Method.enter` empties the memory.

    Args:
      options: of config.h2e.
    """

    outputs: tuple[str, ...] = ("identifier",)

    def init_memory(self):
        return {"weights": np.zeros(0)}

    def select(self, outputs, k, data, memory, epoch, rng):
        if not len(memory["weights"]):
            logits = np.asarray(outputs[k]["identifier"], np.float64)
            # The head has subtracted the prior once.
            again = self.options.prior_subtractions - 1
            ones = np.ones(data.num_classes)
            prior = irm.log_prior(irm.class_prior(data.counts), ones)
            weights, _ = irm.instance_weights(
                logits - again * prior, data.labels
            )
            memory = {"weights": weights}
        weights = memory["weights"]
        return replace(
            kept_selection(weights, data),
            weights=weights,
            clean_probability=weights,
        ), memory


class Kept(InstanceWeights):
    """What the weights of the round before say of the images.

    Args:
      options: of config.h2e.
    """

    outputs: tuple[str, ...] = ()

    def select(self, outputs, k, data, memory, epoch, rng):
        chosen = kept_selection(memory["weights"], data)
        if self.options.iterate == "scores":
            scores = irm.class_scores(data.labels, memory["weights"])
            chosen = replace(chosen, per_sample={"scores": scores})
        return chosen, memory


def kept_selection(weights: np.ndarray, data: base.DataInfo):
    """Trusts the samples that are not flagged; all of them weigh 1."""
    kept = weights > irm.FLAGGED_WEIGHT
    return base.Selection(
        labelled=np.flatnonzero(kept),
        unlabelled=np.flatnonzero(~kept),
        weights=np.ones(len(weights)),
        counts=np.bincount(data.labels[kept], minlength=data.num_classes),
    )


class Method(base.Method):
    """H2E with the switches of config.h2e."""

    heads = ("logits", "identifier")

    def __init__(self, config, data):
        super().__init__(config, data)
        self.options = options = config.h2e
        for name, known in CHOICES.items():
            one_of(f"config.h2e.{name}", options[name], known)
        for name in NOT_NEGATIVE:
            if not options[name] >= 0:
                raise UserError(
                    f"config.h2e.{name}: must be at least 0, is {options[name]}"
                )
        if options.rounds and options.freeze:
            h2e_parts.check_block(config.model)
        self.spans = h2e_parts.schedule(
            options.rounds, options.starts, config.epochs
        )
        self.prior = irm.class_prior(data.counts)
        self.network_options = {"prior": tuple(self.prior.tolist())}
        self.scores = self._given_scores()
        self.first, self.later = self._make_phases()

    def _given_scores(self):
        """Scores of config.h2e.scores, of sum 1 within every class."""
        path, weighted = self.options.scores, self.options.mix == "weighted"
        if weighted != bool(path):
            raise UserError(
                "config.h2e.scores: mix=weighted needs the labels.csv of a run"
                if weighted
                else "config.h2e.scores: is for mix=weighted only"
            )
        # Without ids nothing is trained, and the file may be gone.
        if not weighted or self.data.ids is None:
            return None
        scores = h2e_parts.read_scores(path, self.data.ids)
        return irm.class_scores(self.data.labels, scores)

    def _make_phases(self):
        """The phases of the first round and of all later ones, by STEPS."""
        options, config = self.options, self.config
        one_pass = base.single_stream(config.warmup_batch_size)
        everyone = base.trust_all(self.data)
        factor = options.weight_decay_factor
        block = h2e_parts.last_block(config.model)

        def in_base(path):
            return path[0] != "identifier"

        def in_robust(path):
            on_top = path[0] == "logits" or path[:2] == block
            return in_base(path) and (on_top or not options.freeze)

        def in_identifier(path):
            fixed = not options.train_exponents and path[-1] == "exponents"
            return path[0] == "identifier" and not fixed

        first = {
            "base": base.Phase(
                name="base",
                loss=partial(self.base_loss, options.mix),
                draws=self.mixing_draws(options.mix),
                streams=h2e_parts.class_aware(
                    self.data.labels, config.warmup_batch_size
                )
                if options.resample
                else one_pass,
                views={"x": (options.view,)},
                trainable=in_base,
                weight_decay=factor * config.optimizer.weight_decay,
            ),
            "identify": base.Phase(
                name="identify",
                loss=self.identify_loss,
                streams=self.environments,
                views={
                    "raw": (options.raw_view,),
                    "reverse": ("strong",),
                    "balance": ("weak",),
                },
                trainable=in_identifier,
                weight_decay=options.identify_weight_decay,
                evaluated=False,
            ),
            "robust": base.Phase(
                name="robust",
                loss=self.robust_loss,
                # Also the flagged images are trained on, with their weight.
                streams=lambda selection, rng: one_pass(everyone, rng),
                views={"x": (options.view,)},
                selector=InstanceWeights(options),
                trainable=in_robust,
                weight_decay=factor * options.robust_weight_decay,
            ),
        }
        kept = Kept(options)
        if options.iterate == "drop":
            again = {
                name: replace(first[name], selector=kept)
                for name in ("base", "identify")
            }
        else:
            again = {
                "base": replace(
                    first["base"],
                    name="base_scored",
                    loss=partial(self.base_loss, "weighted"),
                    draws=self.mixing_draws("weighted"),
                    streams=first["robust"].streams,
                    selector=kept,
                )
            }
        return first, first | again

    def _span(self, epoch: int) -> h2e_parts.Span:
        """The span of an epoch; the last one lasts."""
        return [s for s in self.spans if s.first <= epoch][-1]

    def phases(self):
        found: list[base.Phase] = []
        for span in self.spans:
            phase = self._phase(span)
            if not any(phase is known for known in found):
                found.append(phase)
        return tuple(found)

    def _phase(self, span: h2e_parts.Span) -> base.Phase:
        return (self.first if span.round == 1 else self.later)[span.step]

    def phase(self, epoch):
        return self._phase(self._span(epoch))

    def learning_rate(self, epoch):
        """Cosine in base and robust, drops in identify, each from its start.

        Source: papers/h2e.md sections 2, 3 and 5.
        """
        options, span = self.options, self._span(epoch)
        past = epoch - span.first
        if span.step == "identify":
            return irm.step_rate(
                options.identify_rate,
                past,
                options.rate_drop_every,
                options.rate_drop_factor,
            )
        initial = options.robust_rate
        if span.step == "base":
            rate = self.config.optimizer.learning_rate
            initial = options.base_peak * rate
        return irm.cosine_rate(initial, past, span.end - span.first)

    def environments(self, selection, rng):
        """Three streams of the same length: as the data are, reversed, even.

        Source: papers/h2e.md section 3.
        """
        rows, size = selection.labelled, self.config.warmup_batch_size
        raw = streams.one_pass(rows, size, rng)
        return {
            name: raw
            if exponent is None
            else samplers.independent(
                *(rows, self.data.labels, exponent, len(raw), size, rng)
            )
            for name, exponent in ENVIRONMENTS.items()
        }

    def enter(self, epoch, states, memory, fresh):
        """Hands over from phase to phase.

        identify starts from the base classifier; robust from the base network,
        with its statistics where identify has moved them; a new round from new
        networks and what the last one thought of the images.
        """
        span, method = self._span(epoch), dict(memory["method"])
        selector, history = dict(memory["selector"]), memory["history"]
        robust = self.first["robust"]
        if span.step == "base" and span.round > 1:
            states, method["adjusted"] = fresh(), np.asarray(False)
            weighed = selector[robust.name]
            for phase in self.later.values():
                if isinstance(phase.selector, Kept):
                    selector[phase.name] = weighed
        elif span.step == "identify":
            states = [h2e_parts.with_identifier(state) for state in states]
            if self.options.frozen_bn == "train":
                method["batch_stats"] = [
                    sharding.fetch(state["batch_stats"]) for state in states
                ]
        elif span.step == "robust":
            moved = [state["batch_stats"] for state in states]
            kept = method.pop("batch_stats", moved)
            states = [
                h2e_parts.at_rest(state) | {"batch_stats": stats}
                for state, stats in zip(states, kept, strict=True)
            ]
            method["adjusted"] = np.asarray(True)
            selector[robust.name] = [robust.selector.init_memory()]
            # What an earlier round believed is no belief of this one.
            history = history[:0]
        return states, memory | {
            "method": method,
            "selector": selector,
            "history": history,
        }

    # Losses ------------------------------------------------------------------

    def mixing_draws(self, mix: str):
        """Coefficient and partners; weighted mixup uses the partners alone."""
        if mix == "ce":
            return lambda key, sizes: {}
        alpha = self.options.mixup_alpha
        return lambda key, sizes: semi.mixup_draws(
            key, alpha, sizes["x"], folded=False
        )

    def base_loss(self, mix, net, params, batch, draws, selection, carry):
        """Cross-entropy, of images mixed alike or by their scores.

        Source: papers/h2e.md section 2.
        """
        x = batch["x"]
        (images,), labels = x["views"], x["labels"]
        if mix == "ce":
            logits = net(params, images, ("logits",))["logits"]
            total = losses.cross_entropy(logits, labels).mean()
            return total, carry, {"loss_ce": total}
        partner = draws["permutation"]
        if mix == "mixup":
            share = jnp.asarray(draws["coefficient"], images.dtype)
        else:
            share, _ = irm.mixing_shares(self._scores_of(x), partner)
        own = share.reshape(-1, *[1] * (images.ndim - 1))
        images = semi.mixup(images, own, partner)
        logits = net(params, images, ("logits",))["logits"]
        total = losses.mixup_cross_entropy(
            logits, labels, labels[partner], share.astype(logits.dtype)
        ).mean()
        return total, carry, {"loss_ce": total}

    def _scores_of(self, x):
        """Scores of a batch: of the round before, or of the file."""
        if "scores" in x:
            return x["scores"]
        return jnp.asarray(self.scores)[x["index"]]

    def identify_loss(self, net, params, batch, draws, selection, carry):
        """Risk and invariance penalty, means over the environments.

        Source: papers/h2e.md section 3.
        """
        options = self.options
        run = net.frozen if options.frozen_bn == "eval" else net
        risks, penalties, norms = [], [], []
        for name in ENVIRONMENTS:
            (images,), labels = batch[name]["views"], batch[name]["labels"]
            logits = run(params, images, ("identifier",))["identifier"]
            risks.append(losses.cross_entropy(logits, labels).mean())
            penalties.append(irm.penalty(logits, labels))
            norms.append(jnp.mean(jnp.sum(logits**2, axis=1)))
        risk, penalty, norm = (
            sum(values) / len(ENVIRONMENTS)
            for values in (risks, penalties, norms)
        )
        weight = options.penalty_weight * h2e_parts.ramp_since(
            batch["epoch"],
            [span.first for span in self.spans if span.step == "identify"],
            options.penalty_start,
            options.penalty_ramp,
        )
        total = options.erm_weight * risk + weight * penalty
        terms = {"loss_ce": risk, "loss_penalty": penalty}
        terms |= {"penalty_weight": weight, "logits_norm": jnp.sqrt(norm)}
        return total, carry, terms

    def robust_loss(self, net, params, batch, draws, selection, carry):
        """Cross-entropy by the weights, normalised in the batch.

        Source: papers/h2e.md section 5.
        """
        (images,) = batch["x"]["views"]
        logits = net(params, images, ("logits",))["logits"]
        total = irm.normalised_weighted_ce(
            logits, batch["x"]["labels"], batch["x"]["weights"]
        )
        return total, carry, {"loss_ce": total}

    def predict(self, outputs: Sequence[base.Outputs], memory):
        """Logits; from robust on less the log prior.

        Source: papers/h2e.md section 5.
        """
        logits = super().predict(outputs, memory)
        if not memory["method"].get("adjusted"):
            return logits
        return logits - irm.log_prior(self.prior, np.ones(len(self.prior)))
