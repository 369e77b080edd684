"""DaSC: distribution-aware sample selection and contrastive learning.

Baik, Yoon, Kim, Choi, "Distribution-Aware Robust Learning from Long-Tailed
Data with Noisy Labels", ECCV 2024, arXiv 2407.16802.

Two networks, each with a conventional and a balanced head and a projector.
Warm-up trains both heads on all given labels, from some epoch on with a
class-balanced contrastive loss (SBCL).  Then every epoch divides the data by
distribution-aware centroids (DaCC), trains on DivideMix's terms for both
heads, keeps SBCL for confident samples and discriminates instances of the
others (MIDL) against a memory that the networks exchange.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt import losses, models, selection
from jaxnlt import method as base
from jaxnlt.losses import mixmatch
from jaxnlt.runtime.errors import UserError, logger, one_of

Array = np.ndarray
CONTRASTIVE = ("projector", "prototype_projector")
BOTH_HEADS = ("logits", "balanced")


def feature_head(options) -> str:
    """Head whose output DaCC clusters.

    An untrained projector says nothing, so without contrast the features do;
    the release takes it all the same (papers/dasc.md B3).
    """
    one_of("feature_type", options.feature_type, ("project", "default"))
    trained = options.contrast or options.untrained_projector
    use_projection = options.feature_type == "project" and trained
    return "projection" if use_projection else "features"


CHOICES = {
    "midl_label": ("zero", "arange"),
    "midl_key": ("mixed_batch", "two_views"),
    "memory_rows": ("all", "low_confidence"),
}


class DaCC(base.Selector):
    """Distribution-aware class centroids and one mixture per given class.

    Args:
      options: `phi`, `eval_temperature`, `p_threshold`, `feature_type`,
        `contrast`, `untrained_projector`, `aligned_clean_prob` of config.dasc.
      heads: heads of the networks.  Where there is no balanced head, the
        conventional one is asked twice; where no projector, features cluster.
    """

    def __init__(self, options, heads=()):
        super().__init__(options, heads)
        self.feature_head = "features"
        if "projection" in heads:
            self.feature_head = feature_head(options)
        self.balanced = "balanced" if "balanced" in heads else "logits"
        self.outputs = tuple(
            dict.fromkeys(("logits", self.balanced, self.feature_head))
        )

    def select(self, outputs, k, data, memory, epoch, rng):
        options, out = self.options, outputs[k]
        threshold = selection.growing_threshold(
            epoch, data.num_classes, options.phi
        )
        scores = dacc_scores(
            features=out[self.feature_head],
            logits=out["logits"],
            balanced=out[self.balanced],
            labels=data.labels,
            threshold=threshold,
            temperature=options.eval_temperature,
        )
        if not scores.mask.any():
            logger.warning(
                "DaCC: no sample of network %d passes the confidence "
                "threshold %.3f in epoch %d; all make the centroids",
                *(k, threshold, epoch),
            )
        clean = selection.per_class_gmm(
            scores.losses, data.labels, data.num_classes
        )
        chosen = clean > options.p_threshold
        labelled = np.flatnonzero(chosen)
        counts = np.bincount(data.labels[labelled], minlength=data.num_classes)
        weights = labelled_weights(clean, labelled, options.aligned_clean_prob)
        return base.Selection(
            labelled=labelled,
            unlabelled=np.flatnonzero(~chosen),
            weights=weights,
            counts=counts,
            clean_probability=clean,
        ), memory


class Method(base.Method):
    """DaSC with every switch of config.dasc."""

    own_selector = "dacc"
    num_nets = 2
    heads = ("logits", "balanced", "projection", "prototypes")
    vote = BOTH_HEADS

    def __init__(self, config, data):
        super().__init__(config, data)
        self.options = options = config.dasc
        for name, known in CHOICES.items():
            one_of(f"config.dasc.{name}", options[name], known)
        if options.midl and not options.contrast:
            raise UserError(
                "config.dasc.midl: needs the projector that "
                "config.dasc.contrast=True trains"
            )
        self.network_options = {
            "bottleneck": True,
            "projection_dim": options.projection_dim,
        }
        weak_pair = {"x": ("weak", "weak")}
        all_rows = base.single_stream(config.warmup_batch_size)
        self.warmup = base.Phase(
            name="warmup",
            loss=self.warmup_loss,
            streams=all_rows,
            views=weak_pair,
            # Parameters without a gradient are left alone, decay included.
            trainable=lambda path: path[0] not in CONTRASTIVE,
        )
        self.warmup_contrast = base.Phase(
            name="warmup_contrast",
            loss=self.warmup_contrast_loss,
            streams=all_rows,
            views=weak_pair,
        )
        batch = config.batch_size
        views = ("strong", "strong", "weak")
        self.semi = base.Phase(
            name="semi",
            loss=self.semi_loss,
            streams=base.split_streams(batch, batch),
            views={"x": views, "u": views},
            draws=lambda key, sizes: mixmatch.mixup_draws(
                key, options.alpha, 2 * (sizes["x"] + sizes["u"])
            ),
            selector=self.selector(),
            taught_by="peer",
            peer="updated",
            trainable=lambda path: (
                options.contrast or path[0] not in CONTRASTIVE
            ),
        )

    def phases(self):
        if self.options.contrast:
            return (self.warmup, self.warmup_contrast, self.semi)
        return (self.warmup, self.semi)

    def phase(self, epoch):
        if epoch >= self.options.warmup:
            return self.semi
        if self.options.contrast and epoch >= self.options.contrast_start:
            return self.warmup_contrast
        return self.warmup

    def learning_rate(self, epoch):
        decayed = self.options.lr_decay and epoch >= self.options.lr_decay_epoch
        return super().learning_rate(epoch) * (0.1 if decayed else 1.0)

    def init_carry(self):
        shape = (self.options.memory_size, self.options.projection_dim)
        memory = np.zeros(shape, models.DTYPES[self.config.model.dtype][1])
        return {"memory": memory, "fill": np.int32(0)}

    def end_epoch(self, phase, states):
        """After a semi-supervised epoch the networks exchange memories."""
        if phase is not self.semi or not self.options.memory_exchange:
            return states
        first, second = states
        return [
            first | {"carry": second["carry"]},
            second | {"carry": first["carry"]},
        ]

    # Warm-up -----------------------------------------------------------------

    def _both_heads(self, out, labels):
        """Mean losses of the two heads on one view."""
        ce = jnp.mean(losses.cross_entropy(out["logits"], labels))
        balanced = losses.balanced_softmax(
            out["balanced"], labels, self.data.counts
        )
        return ce, jnp.mean(balanced)

    def warmup_loss(self, net, params, batch, draws, selection, carry):
        """Both heads on two weak views, summed over heads, halved for views.

        Source: DaSC section 3.1; papers/dasc.md section 5.
        """
        labels = batch["x"]["labels"]
        first, second = (
            self._both_heads(net(params, view, BOTH_HEADS), labels)
            for view in batch["x"]["views"]
        )
        ce, balanced = (first[0] + second[0]) / 2, (first[1] + second[1]) / 2
        terms = {"loss_ce": ce, "loss_balanced_ce": balanced}
        return ce + balanced, carry, terms

    def warmup_contrast_loss(self, net, params, batch, draws, selection, carry):
        """Warm-up with the supervised contrastive loss, filling the memory.

        Source: DaSC section 3.3; papers/dasc.md sections 5 and 6.3.
        """
        options, labels = self.options, batch["x"]["labels"]
        view_a, view_b = batch["x"]["views"]
        heads = (*BOTH_HEADS, "projection")
        a = net(params, view_a, (*heads, "prototypes"))
        b = net(params, view_b, heads)
        (ce_a, balanced_a), (ce_b, balanced_b) = (
            self._both_heads(out, labels) for out in (a, b)
        )
        ce, balanced = (ce_a + ce_b) / 2, (balanced_a + balanced_b) / 2
        projections = jnp.concatenate([a["projection"], b["projection"]])
        targets = jax.nn.one_hot(
            jnp.tile(labels, 2), self.data.num_classes, dtype=projections.dtype
        )
        contrast = jnp.mean(
            losses.class_balanced_contrastive(
                projections,
                targets,
                a["prototypes"],
                options.contrast_temperature,
            )
        )
        if options.midl:
            everyone = jnp.ones(labels.shape, bool)
            carry = base.fifo(carry, a["projection"], everyone)
        total = ce + balanced + options.contrast_weight * contrast
        terms = {
            "loss_ce": ce,
            "loss_balanced_ce": balanced,
            "loss_contrast": contrast,
        }
        return total, carry, terms

    # Semi-supervised stage ---------------------------------------------------

    def targets(self, net, params, x, u):
        """Sharpened targets of both sides, from the third, weak view.

        Unlabelled rows are guessed by the conventional heads alone, labelled
        rows refined by both heads of both networks.

        Source: DivideMix eq. 3-5; papers/dasc.md 6.2, steps 1 and 2.
        """
        view_x, view_u = x["views"][2], u["views"][2]
        own_u = net.guess(params, view_u, ("logits",))
        own_x = net.guess(params, view_x, BOTH_HEADS)
        other_u = net.peer(view_u, ("logits",))
        other_x = net.peer(view_x, BOTH_HEADS)
        guessed = mixmatch.mean_probs([own_u["logits"], other_u["logits"]])
        refined = mixmatch.refine(
            x["labels"],
            mixmatch.mean_probs(
                [out[head] for out in (own_x, other_x) for head in BOTH_HEADS]
            ),
            x["weights"],
        )
        temperature = self.options.sharpen_temperature
        return (
            mixmatch.sharpen(refined, temperature),
            mixmatch.sharpen(guessed, temperature),
        )

    def semi_loss(self, net, params, batch, draws, selection, carry):
        """MixMatch on both heads, SBCL and MIDL.

        Source: DaSC section 3; papers/dasc.md 6.2.
        """
        options, x, u = self.options, batch["x"], batch["u"]
        targets_x, targets_u = self.targets(net, params, x, u)
        images = jnp.concatenate([*x["views"][:2], *u["views"][:2]])
        targets = jnp.concatenate([targets_x, targets_x, targets_u, targets_u])
        mix = (draws["coefficient"], draws["permutation"])
        mixed_images = mixmatch.mixup(images, *mix)
        mixed_targets = mixmatch.mixup(targets, *mix)
        heads = BOTH_HEADS + ("projection",) * options.contrast
        mixed = net(params, mixed_images, heads)

        prior = losses.log_prior(selection["counts"])
        prior = prior.astype(mixed["balanced"].dtype)
        num_x = 2 * len(targets_x)
        ce, mse = mixmatch.terms(mixed["logits"], mixed_targets, num_x)
        balanced_ce, balanced_mse = mixmatch.terms(
            mixed["balanced"], mixed_targets, num_x, prior
        )
        time = mixmatch.ramp_time(batch, selection, self.config.batch_size)
        ramp = mixmatch.ramp(time, options.warmup, options.ramp)
        lambda_u = options.lambda_u * ramp
        terms = {
            "loss_ce": ce,
            "loss_mse": mse,
            "loss_balanced_ce": balanced_ce,
            "loss_balanced_mse": balanced_mse,
            "lambda_u": lambda_u,
        }
        # Copies of labelled rows, where nothing is unlabelled, weigh nothing.
        weight_u = jnp.where(selection["num_unlabelled"] > 0, lambda_u, 0)
        total = ce + balanced_ce + weight_u * (mse + balanced_mse)
        if options.prior_penalty:
            terms["loss_penalty"] = losses.prior_penalty(mixed["logits"])
            total += terms["loss_penalty"]
        if options.contrast:
            plain = net(params, images, ("projection", "prototypes"))
            confident, unsure = confidence(
                targets.max(-1), options.confidence_threshold
            )
            terms["loss_contrast"] = losses.masked_mean(
                losses.class_balanced_contrastive(
                    plain["projection"],
                    targets,
                    plain["prototypes"],
                    options.contrast_temperature,
                ),
                confident,
            )
            total += options.contrast_weight * terms["loss_contrast"]
            if options.midl:
                sizes = len(targets_x), len(targets_u)
                terms["loss_midl"] = self.midl(
                    plain["projection"], unsure, carry, sizes
                )
                total += options.midl_weight * terms["loss_midl"]
                keys = mixed["projection"]
                if options.midl_key == "two_views":
                    keys = self.two_view_keys(net, params, images, mix, sizes)
                carry = self.remember(carry, keys, unsure, sizes)
        return total, carry, terms

    def midl(self, projections, unsure, carry, sizes):
        """Instance discrimination of the rows that are not confident.

        Args:
          projections: [2 Bx + 2 Bu, D] in the order x1, x2, u1, u2.
          unsure: bool[2 Bx + 2 Bu] rows below the confidence threshold.
          carry: the memory.
          sizes: Bx and Bu.

        Returns:
          Scalar mean over the unsure first views, 0 if there are none.

        Source: DaSC section 3.4; papers/dasc.md 6.4 and B2.
        """
        queries, keys = _views(projections, sizes)
        released = self.options.midl_label == "arange"
        values = losses.info_nce(
            queries,
            keys,
            carry["memory"],
            carry["fill"],
            self.options.midl_temperature,
            jnp.arange(len(queries)) if released else None,
        )
        return losses.masked_mean(values, _views(unsure, sizes)[0])

    def two_view_keys(self, net, params, images, mix, sizes):
        """Keys of mixed views of the same image, as DaSC's figure shows them.

        Returns:
          [2 Bx + 2 Bu, D], each key twice, in the order x1, x2, u1, u2.

        Source: papers/dasc.md D1.
        """
        first, second = _views(images, sizes)
        coefficient = jnp.asarray(mix[0], images.dtype)
        blend = coefficient * first + (1 - coefficient) * second
        keys = net.guess(params, blend, ("projection",))["projection"]
        keys_x, keys_u = jnp.split(keys, [sizes[0]])
        return jnp.concatenate([keys_x, keys_x, keys_u, keys_u])

    def remember(self, carry, keys, unsure, sizes):
        """Appends second-view keys, all of them or only those of unsure rows.

        Source: papers/dasc.md 6.4 and D2.
        """
        _, rows = _views(keys, sizes)
        keep = _views(unsure, sizes)[1]
        if self.options.memory_rows == "all":
            keep = jnp.ones_like(keep)
        return base.fifo(carry, rows, keep)


def confidence(largest, threshold):
    """Rows strictly above and strictly below the threshold, bool each.

    A row that meets it exactly is an anchor of neither contrastive loss.
    """
    return largest > threshold, largest < threshold


def _views(rows, sizes):
    """First and second views, [x; u] each, of rows ordered x1, x2, u1, u2."""
    size_x, size_u = sizes
    x1, x2, u1, u2 = jnp.split(rows, [size_x, 2 * size_x, 2 * size_x + size_u])
    return jnp.concatenate([x1, u1]), jnp.concatenate([x2, u2])


class DaccScores(NamedTuple):
    """What DaCC computes before its mixtures.

    Attributes:
      mask: bool[N] samples that make the centroids.
      weights: [N, C] share of a sample in each centroid.
      centroids: [C, D] unit rows.
      assignment: [N, C] softmax of the cosines to the centroids.
      losses: [N] minus the assignment to the given label, min-max normalised
        over all samples.
    """

    mask: Array
    weights: Array
    centroids: Array
    assignment: Array
    losses: Array


def dacc_scores(
    features: Array,
    logits: Array,
    balanced: Array,
    labels: Array,
    threshold: float,
    temperature: float,
) -> DaccScores:
    r"""Distribution-aware class centroids and the distance of each sample.

    .. math:: c_k = \mathrm{norm}\Big(\sum_{i \in M}
       \mathrm{softmax}(z_i/T)_k\, f_i\Big)

    where M holds the samples of which both heads are more confident than the
    threshold.  Given labels play no part in the centroids.

    Args:
      features: [N, D]; normalised here.
      logits: [N, C] of the conventional head, which also makes the weights.
      balanced: [N, C] of the balanced head.
      labels: [N] given labels.
      threshold: strict lower bound of both heads' largest probability.
      temperature: T, divides the logits.

    Returns:
      DaccScores.  When no sample is confident, all make the centroids.

    Source: DaSC section 3.2; papers/dasc.md 6.1, steps 2-5.
    """
    size = len(labels)
    mask, weights = np.empty(size, bool), np.empty(logits.shape)
    for part in selection.blocks(size):
        sure = (
            selection.softmax(logits[part]).max(-1),
            selection.softmax(balanced[part]).max(-1),
        )
        mask[part] = np.minimum(*sure) > threshold
        scaled = np.asarray(logits[part], np.float64) / temperature
        weights[part] = selection.softmax(scaled)
    used = mask if mask.any() else np.ones_like(mask)
    sums = np.zeros((logits.shape[1], features.shape[1]))
    with selection.one_thread():
        for part in selection.sum_blocks(size):
            these = used[part]
            sums += weights[part][these].T @ selection.normalise(
                features[part][these]
            )
    centroids, assignment = selection.normalise(sums), np.empty_like(weights)
    for part in selection.sum_blocks(size):
        assignment[part] = selection.softmax(
            selection.normalise(features[part]) @ centroids.T
        )
    own = assignment[np.arange(size), labels]
    return DaccScores(
        mask, weights, centroids, assignment, selection.min_max(-own)
    )


def labelled_weights(clean: Array, labelled: Array, aligned: bool) -> Array:
    """Weight of each sample's given label in refinement.

    Args:
      clean: [N] clean probability.
      labelled: int[n] selected rows.
      aligned: whether a selected sample gets its own probability.  DaSC's
        release hands the j-th selected sample the probability of sample j.

    Returns:
      [N] weights; those of unselected rows are not used.

    Source: papers/dasc.md B1.
    """
    if aligned:
        return clean
    weights = clean.copy()
    weights[labelled] = clean[: len(labelled)]
    return weights
