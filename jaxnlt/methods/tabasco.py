"""TABASCO: two-stage bi-dimensional sample selection under DivideMix.

Lu, Zhang, Han, Cheung, Wang, "Label-Noise Learning with Intrinsically
Long-Tailed Data", ICCV 2023, arXiv 2208.09833.

Every given class is divided by one of two scores: a weighted divergence of
prediction and label, or the similarity to a centroid of its confident samples.
Rules choose the score that separates the samples of the class.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
from sklearn.mixture import GaussianMixture

from jaxnlt import selection
from jaxnlt.config.family import (
    MixtureOptions,
    PenaltyOptions,
    ThresholdOptions,
)
from jaxnlt.config.fields import Natural, NotNegative, Range
from jaxnlt.method import DataInfo, Outputs, PyTree, Selection, Selector
from jaxnlt.methods import dividemix
from jaxnlt.runtime.errors import logger

# Two scores of every sample --------------------------------------------------


def batched_mean(rows: np.ndarray, batch: int) -> np.ndarray:
    """Mean of the means of batches of rows; the plain mean where batch is 0.

    The two differ where the last batch is short: its rows then weigh more.

    Args:
      rows: [n, C], n > 0.
      batch: rows of a batch.

    Returns:
      float64 [C].

    Source: ``papers/dasc.md`` section 8, step 1.
    """
    starts = range(0, len(rows), batch or len(rows))
    return np.mean(
        [rows[i : i + (batch or len(rows))].mean(0) for i in starts], axis=0
    )


class Confident(NamedTuple):
    """Mean predictions for one given class, and its confident members.

    Attributes:
      average: [C] mean prediction.
      weighted: [C] mean prediction, the dominant class of each sample that
        exceeds its mean weighted up.
      mask: bool [n] members that are surest of the dominant class.
    """

    average: np.ndarray
    weighted: np.ndarray
    mask: np.ndarray


def confident_members(probs: np.ndarray, batch: int = 0) -> Confident:
    r"""Members whose prediction of the class's dominant class is high.

    With :math:`\bar p` the mean and j its largest entry, :math:`p_{ij}` is
    multiplied by :math:`\max(p_{ij}/\bar p_j, 1)` before a second mean decides
    on the dominant class and the least probability.

    Args:
      probs: [n, C] predictions of the members of one given class.
      batch: see ``batched_mean``.

    Returns:
      Confident; where no member is sure, the mask holds all.

    Source: TABASCO section 3.3; ``papers/dasc.md`` section 8, steps 1-3.
    """
    average = batched_mean(probs, batch)
    top = average.argmax()
    raised = probs.copy()
    raised[:, top] *= np.maximum(probs[:, top] / average[top], 1)
    weighted = batched_mean(raised, batch)
    top = weighted.argmax()
    mask = (probs.argmax(-1) == top) & (probs[:, top] > weighted[top])
    return Confident(average, weighted, mask if mask.any() else ~mask)


def weighted_jsd(
    probs: np.ndarray, label: int, average: np.ndarray
) -> np.ndarray:
    r"""Divergence from the given label, weighted by the doubt about it.

    .. math:: \mathrm{clip}\Big(\frac{\max_k p_{ik}}{p_{ic}}, 1,
       \frac{\max \bar p}{\bar p_c}\Big)\, \mathrm{JSD}(p_i, e_c)

    Args:
      probs: [n, C] predictions of the members of class c.
      label: c.
      average: [C] mean prediction of the class.

    Returns:
      float64 [n].

    Source: TABASCO section 3.2; ``papers/dasc.md`` section 8, step 5.
    """
    least = np.finfo(np.float64).tiny  # a probability may underflow
    bound = average.max() / max(average[label], least)
    doubt = probs.max(-1) / np.maximum(probs[:, label], least)
    one_hot = np.eye(probs.shape[-1])[label]
    return np.clip(doubt, 1, bound) * selection.jsd(probs, one_hot)


class Scores(NamedTuple):
    """TABASCO's two scores of every sample, and the arrays of its rules.

    Attributes:
      average: [C, C] mean prediction of each given class, row by row.
      weighted: [C, C] mean weighted prediction.
      confident: int64 [C] how many members make each centroid.
      centroids: [C, D].
      similarity: [C, C] softmax of the products of centroids, 0 for a class
        without members.
      wjsd: [N] weighted divergence from the given label.
      acd: [N] similarity to the centroid of the given label.
    """

    average: np.ndarray
    weighted: np.ndarray
    confident: np.ndarray
    centroids: np.ndarray
    similarity: np.ndarray
    wjsd: np.ndarray
    acd: np.ndarray


def tabasco_scores(
    features: np.ndarray,
    probs: np.ndarray,
    labels: np.ndarray,
    batch: int = 0,
    centre: np.ndarray | None = None,
) -> Scores:
    r"""Weighted divergence and adaptive centroid similarity of all samples.

    The centroid of a class is the mean of its confident members' centred unit
    features, :math:`\mathrm{acd}_i = \hat f_i \cdot v_{y_i}`.

    Args:
      features: [N, D].
      probs: [N, C] predictions.
      labels: [N] given labels.
      batch: see ``batched_mean``.
      centre: [D] subtracted from the features; None takes their mean.

    Returns:
      Scores; a class without members has zeros.

    Source: TABASCO section 3; ``papers/dasc.md`` section 8, steps 1-6.
    """
    rows = selection.centred_unit(features, centre)
    classes = probs.shape[1]
    average, weighted = np.zeros((2, classes, classes))
    mask, wjsd = np.zeros(len(rows), bool), np.zeros(len(rows))
    present, of_class = np.unique(labels), selection.class_rows(labels, classes)
    for c in present:
        members = of_class[c]
        sure = confident_members(probs[members], batch)
        average[c], weighted[c] = sure.average, sure.weighted
        mask[members] = sure.mask
        wjsd[members] = weighted_jsd(probs[members], c, sure.average)
    means, counts = selection.class_means(rows, labels, classes, mask)
    similarity = np.zeros((classes, classes))
    among = np.ix_(present, present)
    similarity[among] = selection.softmax(means[present] @ means[present].T)
    acd = np.empty(len(rows))
    for part in selection.row_blocks(rows.shape):
        acd[part] = (rows[part] * means[labels[part]]).sum(-1)
    return Scores(average, weighted, counts, means, similarity, wjsd, acd)


# Rules that divide a class ---------------------------------------------------


@dataclass(frozen=True)
class BiDimensionalOptions(ThresholdOptions, MixtureOptions):
    """Fields of ``BiDimensional``.

    Attributes:
      confusable_cluster: where the centroid of a class may be another's: code
        takes the far cluster as clean, paper_eq10 the near one, as the
        repository's issue 3 reads the paper.
      centre: training_set is its mean feature; separate_draw that of another
        draw of a long-tailed set, as in the release's other script.
      mean_batch: samples of a batch, whose means are averaged, as the release
        averages predictions in batches of 64; 0 averages samples.
      spread_ratio: spread of the divergence on its large side over that on its
        small side, below which it decides.
    """

    confusable_cluster: Literal["code", "paper_eq10"] = "code"
    centre: Literal["training_set", "separate_draw"] = "training_set"
    mean_batch: Natural = 0
    spread_ratio: NotNegative = 0.65
    gmm_max_iter: Annotated[int, Range(1, 10_000)] = 30


class ClassDivision(NamedTuple):
    """How one class was divided.

    Attributes:
      clean: [n] clean probability.
      used_wjsd: whether by the divergence; else by the centroid.
      cluster: 1 where the cluster of the smaller mean is clean, 2 the other.
      posterior: [n] posterior of the smaller-mean cluster.
      guarded: why no rule could be applied; empty where one was.
    """

    clean: np.ndarray
    used_wjsd: bool
    cluster: int
    posterior: np.ndarray
    guarded: str = ""


ONE_SAMPLE = "has a single sample; it counts as clean"
EQUAL = "has equal scores for all its samples; they count as clean"
EMPTY = "does not fall in two by its centroid; the divergence divides it"


def confusable(
    similarity: np.ndarray, confident: np.ndarray, label: int
) -> bool:
    """Whether a class's centroid could be another, surer class's.

    Args:
      similarity: [C, C] of Scores.
      confident: [C] of Scores.
      label: the class.

    Returns:
      Whether the most similar other class is within a tenth of the class's
      similarity to itself and has more confident members.

    Source: ``papers/dasc.md`` section 8, step 9.
    """
    row = similarity[label]
    others = np.where(np.arange(len(row)) == label, -np.inf, row)
    nearest = others.argmax()
    near = abs(row[label] - row[nearest]) < 0.1 * row[label]
    return bool(near and confident[label] < confident[nearest])


class _Halves(NamedTuple):
    """A mixture of two, its component of smaller mean and the posterior [n]."""

    mixture: GaussianMixture
    small: int
    posterior: np.ndarray


def _halve(
    values: np.ndarray, random: np.random.RandomState, options: MixtureOptions
) -> _Halves:
    column = values[:, None]
    mixture = GaussianMixture(
        2,
        random_state=random,
        max_iter=options.gmm_max_iter,
        tol=options.gmm_tol,
        reg_covar=options.gmm_reg_covar,
    )
    with selection.one_thread():
        mixture.fit(column)
        small = int(mixture.means_.argmin())
        posterior = mixture.predict_proba(column)[:, small]
    return _Halves(mixture, small, posterior)


def divide_class(
    wjsd: np.ndarray,
    acd: np.ndarray,
    is_confusable: bool,
    random: np.random.RandomState,
    options: BiDimensionalOptions,
) -> ClassDivision:
    """Divides one class by the score that separates its samples.

    Each score is cut in two by a mixture.  The divergence decides if both
    clusters of the centroid score lie on its large side, or if it spreads
    clearly less within the cluster on its large side than within the other;
    then its smaller half is clean.  Else the half near the centroid is, or the
    far one where the centroid may be another class's.

    Args:
      wjsd: [n] weighted divergences of the members.
      acd: [n] centroid similarities.
      is_confusable: see ``confusable``.
      random: starts both mixtures, one after the other.
      options: ratio of spreads, confusable clusters and mixtures.

    Returns:
      The division.  One sample, or equal divergences, are clean; where the
      centroid score leaves a cluster empty the divergence decides.

    Source: TABASCO section 3.4; ``papers/dasc.md`` section 8, steps 7-9.
    """
    ones = np.ones(len(wjsd))
    if len(wjsd) < 2:
        return ClassDivision(ones, True, 1, ones, ONE_SAMPLE)
    if selection.alike(wjsd):
        return ClassDivision(ones, True, 1, ones, EQUAL)
    wjsd, acd = (
        np.zeros(len(values))
        if selection.alike(values)
        else selection.min_max(values)
        for values in (wjsd, acd)
    )
    mixture, small, by_wjsd = _halve(wjsd, random, options)
    clusters = [wjsd, wjsd[:0]]
    if acd.any():
        by_acd = _halve(acd, random, options).posterior
        clusters = [wjsd[by_acd > 0.5], wjsd[~(by_acd > 0.5)]]
    if not (len(clusters[0]) and len(clusters[1])):
        return ClassDivision(by_wjsd, True, 1, by_wjsd, EMPTY)

    sides = [
        int(mixture.predict([[cluster.mean()]])[0]) for cluster in clusters
    ]
    spread = [1.0, 1.0]
    for side, cluster in zip(sides, clusters, strict=True):
        spread[side] = float(cluster.std()) or 0.1
    both_large = sides[0] == sides[1] != small
    if both_large or spread[1 - small] / spread[small] < options.spread_ratio:
        return ClassDivision(by_wjsd, True, 1, by_wjsd)
    if is_confusable and options.confusable_cluster == "code":
        return ClassDivision(by_acd, False, 1, by_acd)
    return ClassDivision(1 - by_acd, False, 2, by_acd)


# The selector and the method -------------------------------------------------


class BiDimensional(Selector):
    """Weighted divergence or centroid similarity, chosen class by class."""

    options_type = BiDimensionalOptions
    options: BiDimensionalOptions
    outputs = ("features", "logits")

    def select(
        self,
        outputs: Sequence[Outputs],
        k: int,
        data: DataInfo,
        memory: PyTree,
        epoch: int,
        rng: np.random.Generator,
    ) -> tuple[Selection, PyTree]:
        scores = self.scores(outputs[k], data.labels, rng)
        # One generator for all mixtures, as the release's global one.
        random = np.random.RandomState(int(rng.integers(2**31)))
        clean = np.ones(len(data.labels))
        for c in range(data.num_classes):
            members = np.flatnonzero(data.labels == c)
            if not len(members):
                logger.warning(
                    "TABASCO: class %d has no sample; it is left out", c
                )
                continue
            divided = divide_class(
                scores.wjsd[members],
                scores.acd[members],
                confusable(scores.similarity, scores.confident, c),
                random,
                self.options,
            )
            clean[members] = divided.clean
            if divided.guarded:
                logger.warning("TABASCO: class %d " + divided.guarded, c)
        return dividemix.divide(clean, self.options.p_threshold, data), memory

    def scores(
        self, outputs: Outputs, labels: np.ndarray, rng: np.random.Generator
    ) -> Scores:
        """Both scores of every sample."""
        features, centre = outputs["features"], None
        if self.options.centre == "separate_draw":
            # Resampling the training set comes as near to another draw as its
            # images allow.
            rows = rng.integers(len(features), size=len(features))
            centre = np.asarray(features, np.float64)[rows].mean(0)
        probs = selection.softmax(outputs["logits"])
        return tabasco_scores(
            features, probs, labels, self.options.mean_batch, centre
        )


@dataclass(frozen=True)
class Options(PenaltyOptions, BiDimensionalOptions):
    """Fields of ``config.tabasco``."""


class Method(dividemix.Method):
    """DivideMix with TABASCO's selector."""

    options_type = Options
    options: Options
    own_selector = "tabasco"
