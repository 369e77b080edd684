"""DivideMix: two networks divide the data for each other and mix it.

Li, Socher, Hoi, "DivideMix: Learning with Noisy Labels as Semi-supervised
Learning", ICLR 2020, arXiv 2002.07394.

Warm-up on all given labels, then every epoch a two-component mixture of each
network's losses divides the data for its peer; MixMatch with co-guessing and
co-refinement trains on the division.  SMR, RoLT+, TABASCO and SFA start here.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from jaxnlt import losses, selection
from jaxnlt import method as base
from jaxnlt.data import sampling
from jaxnlt.losses import mixmatch
from jaxnlt.runtime.errors import UserError, logger, one_of


class LossGMM(base.Selector):
    """One mixture of the min-max normalised losses of all samples.

    Args:
      options: `p_threshold`, `average_losses` (over how many selections, this
        one included, a sample's loss is averaged), `gmm_max_iter`, `gmm_tol`,
        `gmm_reg_covar`.

    Raises:
      UserError: `average_losses` is not positive.

    Source: DivideMix section 3.2 and appendix A (averaging at 90 % noise).
    """

    outputs = ("logits",)

    def __init__(self, options, heads=()):
        super().__init__(options, heads)
        if options.average_losses < 1:
            raise UserError(
                "average_losses: must be at least 1, is "
                f"{options.average_losses}"
            )

    def init_memory(self):
        """Normalised losses [h, N] of the selections to average, oldest first.

        Before the first selection there are none, and N is not known.
        """
        return {"losses": np.zeros((0, 0))}

    def select(self, outputs, k, data, memory, epoch, rng):
        options = self.options
        losses_now = selection.min_max(
            selection.cross_entropy(outputs[k]["logits"], data.labels)
        )
        latest = options.average_losses
        history = np.stack([*memory["losses"], losses_now])[-latest:]
        # The oldest of a full history leaves before the next one comes.
        kept = history[max(0, len(history) + 1 - latest) :]
        clean = selection.gmm_probability(
            history.mean(0),
            int(rng.integers(2**31)),
            max_iter=options.gmm_max_iter,
            tol=options.gmm_tol,
            reg_covar=options.gmm_reg_covar,
        )
        divided = divide(clean, options.p_threshold, data)
        return divided, {"losses": kept}


def divide(clean, threshold: float, data: base.DataInfo) -> base.Selection:
    """Trusts samples whose clean probability is above the threshold.

    Args:
      clean: float[N] clean probability, also the weight of the given label.
      threshold: strict lower bound.
      data: labels and number of classes.

    Returns:
      The selection, with counts of the trusted samples.
    """
    labelled = np.flatnonzero(clean > threshold)
    return base.Selection(
        labelled=labelled,
        unlabelled=np.flatnonzero(~(clean > threshold)),
        weights=clean,
        counts=np.bincount(data.labels[labelled], minlength=data.num_classes),
        clean_probability=clean,
    )


def recurs(epoch: int, period: float) -> bool:
    """Whether an epoch, counted from 0, is the last of a period.

    Args:
      epoch: which.
      period: in epochs; rounded, and 2 at least: a short schedule must leave
        epochs to the semi-supervised stage.
    """
    return (epoch + 1) % max(2, round(period)) == 0


def given_label_loss(net, params, x):
    """Mean cross-entropy of a batch's only view, and the logits [B, C]."""
    (images,) = x["views"]
    logits = net(params, images, ("logits",))["logits"]
    return jnp.mean(losses.cross_entropy(logits, x["labels"])), logits


class Method(base.Method):
    """DivideMix; subclasses replace the selector, a phase or the loss.

    Raises:
      UserError: a field out of range.
    """

    own_selector = "dividemix"
    num_nets = 2
    # What the paper calls its first epoch; the ramp counts from there.
    first_epoch = 0

    def __init__(self, config, data):
        super().__init__(config, data)
        self.options = options = config[config.method]
        name = f"config.{config.method}"
        one_of(f"{name}.peer", options.peer, ("updated", "epoch_start"))
        for field in ("warmup_samples", "pool_samples"):
            if options[field] < 0:
                raise UserError(
                    f"{name}.{field}: must be at least 0, is {options[field]}"
                )
        # Class sizes of what the warm-up sees.
        self.warmup_counts = sampling.capped(
            data.counts, options.warmup_samples
        )
        self.warmup = self.supervised_phase("warmup", self.warmup_loss)
        self.semi = self.semi_phase()
        selector = self.semi.selector
        assert selector is not None, "the division is a selector's"
        averaged = selector.options.get("average_losses", 1)
        if options.pool_samples and averaged > 1:
            raise UserError(
                f"{name}.pool_samples: every epoch draws other samples, so "
                "average_losses must be 1"
            )
        self.warn_of_scratch()

    def warn_of_scratch(self) -> None:
        """Says where published figures cannot be expected.

        Source: papers/dividemix_rolt.md section 1, papers/smr.md section 2.
        """
        config = self.config
        begun = config.model.pretrained or config.init_from
        # Without ids nothing is trained.
        if (
            config.benchmark == "clothing1m"
            and not begun
            and self.data.ids is not None
        ):
            logger.warning(
                "%s: the published settings start from ImageNet weights, this "
                "run from random ones; see config.model.pretrained",
                config.benchmark,
            )

    def supervised_phase(self, name: str, loss, **fields) -> base.Phase:
        """One pass over the given labels, a weak view each."""
        data, batch = self.data, self.config.warmup_batch_size
        streams = base.single_stream(batch)
        if self.options.warmup_samples:
            streams = sampling.stream(
                *(data.labels, data.num_classes),
                *(self.options.warmup_samples, batch),
            )
        phase = base.Phase(
            name=name, loss=loss, streams=streams, views={"x": ("weak",)}
        )
        return replace(phase, **fields)

    def semi_phase(self) -> base.Phase:
        """The semi-supervised phase, trained on the peer's division."""
        batch = self.config.batch_size
        return base.Phase(
            name="semi",
            loss=self.semi_loss,
            streams=base.split_streams(batch, batch),
            views={"x": ("weak", "weak"), "u": ("weak", "weak")},
            draws=lambda key, sizes: mixmatch.mixup_draws(
                key, self.options.alpha, 2 * (sizes["x"] + sizes["u"])
            ),
            selector=self.selector(),
            taught_by="peer",
            peer=self.options.peer,
            pool=self.pool(),
        )

    def pool(self):
        """What a selection looks at, as `Phase.pool` wants it."""
        return sampling.pool(
            *(self.data.labels, self.data.num_classes),
            self.options.pool_samples,
        )

    def phases(self):
        return (self.warmup, self.semi)

    def phase(self, epoch):
        return self.warmup if epoch < self.options.warmup else self.semi

    def ce_loss(self, net, params, batch, draws, selection, carry):
        """Mean cross-entropy with the given labels."""
        ce, _ = given_label_loss(net, params, batch["x"])
        return ce, carry, {"loss_ce": ce}

    def warmup_loss(self, net, params, batch, draws, selection, carry):
        """Cross-entropy, with the confidence penalty if asked for.

        Source: DivideMix section 3.1.
        """
        ce, logits = given_label_loss(net, params, batch["x"])
        terms = {"loss_ce": ce}
        if self.options.confidence_penalty:
            penalty = jnp.mean(losses.negative_entropy(logits))
            terms["loss_negative_entropy"] = penalty
            ce = ce + penalty
        return ce, carry, terms

    def semi_loss(self, net, params, batch, draws, selection, carry):
        """Cross-entropy, ramped squared error and prior penalty, all mixed.

        Source: DivideMix eq. 9-12.
        """
        options, x, u = self.options, batch["x"], batch["u"]
        targets_x, targets_u = mixmatch.two_view_targets(
            net, params, x, u, options.sharpen_temperature
        )
        terms_u, loss_u = self.unlabelled_terms(net, params, u)
        # The first two views make targets, the last two are trained on.
        images, targets = mixmatch.mixed_batch(
            x["views"][-2:], u["views"][-2:], targets_x, targets_u, draws
        )
        num_x = 2 * len(targets_x)
        if not options.unlabelled_loss:  # partners still come from all rows
            images, targets = images[:num_x], targets[:num_x]
        out = net(params, images, self.vote)
        terms, total = self.mixed_terms(out, targets, num_x, selection)
        terms["loss_penalty"] = losses.prior_penalty(out["logits"])
        if options.unlabelled_loss:
            now = batch | {"epoch": batch["epoch"] + self.first_epoch}
            time = mixmatch.ramp_time(now, selection, self.config.batch_size)
            ramp = mixmatch.ramp(time, options.warmup, options.ramp)
            terms["lambda_u"] = options.lambda_u * ramp
            squares = sum(v for k, v in terms.items() if k.endswith("mse"))
            loss_u += terms["lambda_u"] * squares
        # Copies of labelled rows, where nothing is unlabelled, weigh 0.
        some = selection["num_unlabelled"] > 0
        total += terms["loss_penalty"] + jnp.where(some, loss_u, 0)
        return total, carry, terms | terms_u

    def unlabelled_terms(self, net, params, u):
        """Further terms of the unlabelled rows, and their weighted sum."""
        return {}, 0.0

    def mixed_terms(self, out, targets, num_x, selection):
        """Terms of the mixed batch, and the sum of those without a ramp."""
        ce, mse = mixmatch.terms(out["logits"], targets, num_x)
        terms = {"loss_ce": ce}
        if self.options.unlabelled_loss:
            terms["loss_mse"] = mse
        return terms, ce
