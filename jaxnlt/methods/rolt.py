"""RoLT: robust long-tailed learning by nearest centroids and soft labels.

Wei, Shi, Tu, Li, "Robust Long-Tailed Learning Under Label Noise", arXiv
2108.11569; Frontiers of Computer Science 2025.

One network.  At the start of every epoch class centroids of the centred, unit
features tell clean samples from others, by a mixture within every class; later
epochs train the others on several guesses at their label.  RoLT+, which
selects alike, is rolt_plus.py.  Classifier re-training and tau-normalisation of
a finished run: configs/erm.py with `init_from`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt import losses, selection
from jaxnlt import method as base
from jaxnlt.methods import erm
from jaxnlt.runtime.errors import UserError, logger, one_of

# The paper counts epochs from 1.
FIRST_EPOCH = 1
# Scores of a class without samples: farther than unit rows can be.
FARTHEST = -4.0

CHOICES = {
    "loss": ("ce", "ldam"),
    "ensembling": ("standard", "compounding"),
    "clean_on": ("eval", "augmented"),
    "vote_by": ("logits", "ncm"),
}


class Nearest(NamedTuple):
    """Nearest-centroid scores, refined once by their own division.

    Attributes:
      first: [N, C] scores with centroids of all samples of a class.
      mask: bool[N] samples that the mixtures on `first` keep.
      refined: [N, C] scores with centroids of the kept ones.
      centre: [D] mean feature.
      centroids: [C, D] the refined ones.
    """

    first: np.ndarray
    mask: np.ndarray
    refined: np.ndarray
    centre: np.ndarray
    centroids: np.ndarray


def nearest(features, labels, num_classes: int) -> Nearest:
    """Scores of every class, before and after one refinement.

    Args:
      features: [N, D].
      labels: [N] given labels.
      num_classes: C.

    Returns:
      Nearest.

    Source: papers/dividemix_rolt.md 4.2, steps 2 and 3.
    """
    centre = features.mean(0, dtype=np.float64)
    rows = selection.centred_unit(features, centre)
    everyone = np.ones(len(labels), bool)
    means, counts = selection.class_means(rows, labels, num_classes, everyone)
    absent = counts == 0
    for c in np.flatnonzero(absent):
        logger.warning("RoLT: class %d has no sample; it is left out", c)
    first = scores(rows, means, absent)
    mask = own_class_probability(first, labels, num_classes) > 0.5
    kept = np.bincount(labels[mask], minlength=num_classes)
    for c in np.flatnonzero((kept == 0) & ~absent):
        logger.warning(
            "RoLT: no sample of class %d is kept; all make its centroid", c
        )
        mask |= labels == c
    means, _ = selection.class_means(rows, labels, num_classes, mask)
    return Nearest(first, mask, scores(rows, means, absent), centre, means)


def scores(rows, means, absent):
    """Nearest-centroid scores [N, C]; nobody is near an absent class."""
    found = selection.nearest_scores(rows, means)
    found[:, absent] = FARTHEST
    return found


def own_class_probability(ncm, labels, num_classes: int) -> np.ndarray:
    """Posterior of the nearer half, of a mixture within every given class.

    Args:
      ncm: [N, C] nearest-centroid scores.
      labels: [N] given labels.
      num_classes: C.

    Returns:
      float64[N]; ones in a class of one sample or of equal ones, with a
      warning.

    Source: papers/dividemix_rolt.md 4.2, step 3.
    """
    for c in np.flatnonzero(np.bincount(labels) == 1):
        logger.warning(
            "RoLT: class %d has a single sample; it counts as clean", c
        )
    distances, equal = selection.class_distances(ncm, labels, num_classes)
    for c in np.flatnonzero(equal):
        logger.warning(
            "RoLT: all samples of class %d are equally far from its centroid; "
            "they count as clean",
            c,
        )
    return selection.per_class_gmm(distances, labels, num_classes)


def ensemble(past, now, epoch: int, decay: float, compounding: bool):
    r"""Running mean of scores, and the mean corrected for its zero start.

    :math:`E \leftarrow a E + (1-a) Z,\ \hat E = E / (1 - a^t)`.

    Args:
      past: [N, C] running mean, or None at the first selection.
      now: [N, C] scores of this epoch.
      epoch: t, counted from 1.
      decay: a.
      compounding: whether the first mean is the scores themselves and every
        later one starts from the corrected mean, as released.

    Returns:
      What to keep and the corrected mean, [N, C] each.

    Source: papers/dividemix_rolt.md 4.2, step 4.
    """
    if past is None:
        running = now if compounding else (1 - decay) * now
    else:
        running = decay * past + (1 - decay) * now
    corrected = running / (1 - decay**epoch)
    return (corrected if compounding else running), corrected


class Cleaning(base.Selector):
    """Tells clean samples from others and guesses the labels of the others.

    Args:
      options: of config.rolt.
    """

    outputs = ("features", "logits")

    def init_memory(self):
        empty = np.zeros((0, 0))
        return {
            **{"erm": empty, "ncm": empty, "centroids": empty},
            **{"centre": np.zeros(0), "frozen": np.zeros(0, np.int64)},
            # How many selections the running means hold.
            "times": np.zeros((), np.int64),
        }

    def select(self, outputs, k, data, memory, epoch, rng):
        options, labels = self.options, data.labels
        logits = np.asarray(outputs[k]["logits"], np.float64)
        features = outputs[k]["features"]
        if options.loss == "ldam":  # the head's weights are unit vectors
            logits = logits / np.maximum(selection.lengths(features), 1e-12)
        found = nearest(features, labels, data.num_classes)
        clean = own_class_probability(found.refined, labels, data.num_classes)
        trusted = clean > 0.5
        times = int(memory["times"]) + 1
        kept, guess = {"times": np.asarray(times)}, {}
        for name, now in (("erm", logits), ("ncm", found.refined)):
            kept[name], corrected = ensemble(
                memory[name] if times > 1 else None,
                now,
                self.moment(times, epoch),
                options.ensemble_decay,
                options.ensembling == "compounding",
            )
            guess[name] = corrected.argmax(1)
        current = np.where(trusted, labels, guess["erm"])
        frozen = memory["frozen"]
        deferred = options.drw and epoch >= options.drw_start
        if deferred and not len(frozen):
            frozen = current.astype(np.int64)
        chosen = self.soft_labels(
            *(labels, trusted, guess, frozen, epoch), data.num_classes
        )
        counts = data.counts
        if deferred:
            counts = np.bincount(frozen, minlength=data.num_classes)
        elif options.loss == "ldam" and epoch >= options.soft_start:
            counts = np.bincount(current, minlength=data.num_classes)
        weights = np.ones(data.num_classes)
        if deferred:
            weights = losses.effective_weights(counts, options.drw_beta)
        memory = {
            **kept,
            **{"centroids": found.centroids, "centre": found.centre},
            "frozen": frozen,
        }
        return base.Selection(
            labelled=np.flatnonzero(trusted),
            unlabelled=np.flatnonzero(~trusted),
            weights=np.ones(len(labels)),
            counts=counts,
            clean_probability=clean,
            shared={"class_weights": weights, "shares": chosen[0]},
            per_sample=chosen[1],
        ), memory

    def moment(self, times, epoch):
        """t of the correction: the release takes the epoch's number."""
        if self.options.ensembling == "compounding":
            return epoch + FIRST_EPOCH
        return times

    def soft_labels(self, labels, trusted, guess, frozen, epoch, num_classes):
        """Shares of the guesses, and the guesses of every sample.

        Returns:
          float64[3 + C] shares of the first, the second, the given label and
          every class; and `first` and `second` int[N] labels, `soft` bool[N]
          samples whose last shares go to the classes, not to the given label.

        Source: papers/dividemix_rolt.md 4.2, step 6.
        """
        options = self.options
        given = np.asarray(labels, np.int32)
        each = np.full(num_classes, 1 / num_classes)
        if options.drw and epoch >= options.drw_start:
            shares = np.array([0.5, 0, 0, *(0.5 * each)])
            first, second, soft = frozen, given, ~trusted
        elif epoch >= options.soft_start:
            shares = np.array([0.4, 0.2, 0.2, *(0.2 * each)])
            first, second = (
                np.where(trusted, given, guess[name]) for name in ("erm", "ncm")
            )
            soft = ~trusted
        else:
            shares = np.array([0, 0, 1, *(0 * each)])
            first, second, soft = given, given, np.zeros_like(trusted)
        return shares, {
            "first": first.astype(np.int32),
            "second": second.astype(np.int32),
            "soft": soft,
        }


def soft_label_loss(values, x, shares, class_weights):
    r""":math:`\sum_k s_k \sum_i w_{t_{ik}} v_{i t_{ik}} / \sum_i w_{t_{ik}}`.

    Args:
      values: [B, C] loss of every row with every class as its label.
      x: `first`, `second`, `labels`, `soft` of the batch.
      shares: [3 + C] of the guesses, as `Cleaning.soft_labels` orders them.
      class_weights: [C].

    Returns:
      Scalar.

    Source: papers/dividemix_rolt.md 4.2, step 6.
    """
    given = x["labels"][:, None]
    classes = jnp.arange(values.shape[1])
    targets = jnp.concatenate(
        [
            *(x["first"][:, None], x["second"][:, None], given),
            jnp.where(x["soft"][:, None], classes, given),
        ],
        axis=1,
    )
    values = jnp.take_along_axis(values, targets, axis=1)
    weights = class_weights.astype(values.dtype)[targets]
    means = (weights * values).sum(0) / weights.sum(0)
    return jnp.sum(shares.astype(values.dtype) * means)


class Method(base.Method):
    """RoLT with the switches of config.rolt."""

    def __init__(self, config, data):
        super().__init__(config, data)
        self.options = options = config.rolt
        for name, known in CHOICES.items():
            one_of(f"config.rolt.{name}", options[name], known)
        if not 0 <= options.ensemble_decay < 1:
            raise UserError(
                "config.rolt.ensemble_decay: must lie in [0, 1), is "
                f"{options.ensemble_decay}"
            )
        cosine = options.loss == "ldam"
        everyone = base.trust_all(data)
        one_pass = base.single_stream(config.warmup_batch_size)
        self.train = base.Phase(
            name="train",
            loss=self.loss,
            # Also those that are not clean are trained on, with soft labels.
            streams=lambda selection, rng: one_pass(everyone, rng),
            views={"x": ("weak",)},
            selector=Cleaning(options),
            pool_view="weak" if options.clean_on == "augmented" else "none",
            # A cosine classifier has no bias.
            trainable=lambda path: not cosine or path != ("logits", "bias"),
        )

    def phases(self):
        return (self.train,)

    def phase(self, epoch):
        return self.train

    def learning_rate(self, epoch):
        """Rises over the first epochs, then falls by the drops.

        Source: papers/dividemix_rolt.md section 4.
        """
        rise = (epoch + FIRST_EPOCH + 1) / self.options.lr_rise
        return super().learning_rate(epoch) * min(1.0, rise)

    def enter(self, epoch, states, memory, fresh):
        """LDAM's classifier starts with unit weights and no bias."""
        return self.end_epoch(self.train, states), memory

    def end_epoch(self, phase, states):
        if self.options.loss != "ldam":
            return states
        return [erm.as_cosine(state) for state in states]

    def values(self, net, params, images, counts):
        """Loss [B, C] of every row with every class as its label."""
        if self.options.loss == "ce":
            logits = net(params, images, ("logits",))["logits"]
            return -jax.nn.log_softmax(logits)
        features = net(params, images, ("features",))["features"]
        cosines = losses.cosines(features, params["logits"]["kernel"])
        margins = losses.ldam_margins(counts, self.options.ldam_margin)
        rows, classes = cosines.shape

        def with_label(label):
            labels = jnp.full(rows, label)
            return losses.ldam(
                cosines, labels, margins, self.options.ldam_scale
            )

        return jax.vmap(with_label, out_axes=1)(jnp.arange(classes))

    def loss(self, net, params, batch, draws, selection, carry):
        """Loss on soft labels, its classes weighed from DRW on."""
        x = batch["x"]
        values = self.values(net, params, x["views"][0], selection["counts"])
        total = soft_label_loss(
            values, x, selection["shares"], selection["class_weights"]
        )
        return total, carry, {f"loss_{self.options.loss}": total}

    def predict(self, outputs, memory):
        """The classifier's logits, or the nearest of the epoch's centroids."""
        if self.options.vote_by == "logits":
            return super().predict(outputs, memory)
        (kept,), (out,) = memory["selector"][self.train.name], outputs
        rows = selection.centred_unit(out["features"], kept["centre"])
        absent = self.data.counts == 0
        return scores(rows, kept["centroids"], absent)
