"""The verdict on every given label, from mean probabilities and margins.

Pure functions of NumPy arrays; N samples, C classes.  How the parts were
chosen, and what else was tried: ``docs/audit.md``.
"""

import dataclasses

import numpy as np

from jaxnlt.auditing import flags, joint
from jaxnlt.auditing.probabilities import Probabilities
from jaxnlt.runtime.errors import logger

#: A flagged label whose image is surely of another class.
MISLABELLED = "mislabelled"
#: A flagged label whose image is surely of no class.
AMBIGUOUS = "ambiguous"
#: An image that cannot be read.
UNREADABLE = "unreadable"

# Share of the rank in label_quality: no two labels tie.
_RANK_SHARE = 1e-3
# Mean largest probability of networks that have not learnt, and of those that
# have; and how many of the labels that the former flag are right.
_UNSURE, _RIGHT_OF_UNSURE = (0.35, 0.55), 0.6


@dataclasses.dataclass(frozen=True)
class Audit:
    """The verdict on N given labels.

    Attributes:
      is_label_issue: bool [N], flagged as wrong.
      label_quality: float64 [N] in [0, 1], no two equal; the smallest is the
        most likely wrong.  All floats are NaN for an image that cannot be
        read.
      clean_probability: float64 [N] in [0, 1], calibrated probability that the
        given label is right.
      predicted: int [N], the most probable class.
      predicted_probability: float64 [N], its probability.
      alternative: int [N], the most probable class but the given one.
      suggested: int [N], the given label unless it is flagged.
      margin: float64 [N], of the given label.
      issue_kind: str [N], '' or one of ``MISLABELLED``, ``AMBIGUOUS``,
        ``UNREADABLE``.
    """

    is_label_issue: np.ndarray
    label_quality: np.ndarray
    clean_probability: np.ndarray
    predicted: np.ndarray
    predicted_probability: np.ndarray
    alternative: np.ndarray
    suggested: np.ndarray
    margin: np.ndarray
    issue_kind: np.ndarray

    def __len__(self) -> int:
        return len(self.is_label_issue)

    @property
    def readable(self) -> np.ndarray:
        """Bool [N], of which images something is known."""
        return self.issue_kind != UNREADABLE

    def joined(self, other: "Audit") -> "Audit":
        """This audit and that of further labels."""
        return Audit(
            **{
                name: np.append(values, getattr(other, name))
                for name, values in vars(self).items()
            }
        )

    def take(self, rows: np.ndarray) -> "Audit":
        """The verdict on the labels of the given rows, in their order."""
        return Audit(**{name: v[rows] for name, v in vars(self).items()})


def of_training(
    labels: np.ndarray,
    probs: np.ndarray | Probabilities,
    suggestions: np.ndarray | None,
    held_out: bool,
) -> Audit:
    """The verdict of a run on given labels.

    Args:
      labels: int [N] given labels.
      probs: float [N, C] mean probabilities of the vote over training, NaN for
        images that cannot be read.
      suggestions: float [N, C] scores behind suggested labels; None takes the
        probabilities.
      held_out: whether the networks were not trained on these labels.

    Returns:
      The verdict.
    """
    probs = Probabilities.of(probs)
    scores = probs if suggestions is None else Probabilities.of(suggestions)
    lost = np.isnan(probs[:, 0])
    if lost.any():
        rows, others = np.flatnonzero(~lost), np.flatnonzero(lost)
        found = _judged(
            labels[rows], probs.take(rows), scores.take(rows), held_out
        )
        order = np.argsort(np.append(rows, others))
        return found.joined(unreadable(labels[others])).take(order)
    return _judged(labels, probs, scores, held_out)


def _judged(
    labels: np.ndarray,
    probs: Probabilities,
    suggestions: Probabilities,
    held_out: bool,
) -> Audit:
    """See ``of_training``; all images can be read."""
    if held_out:
        return unseen(labels, probs, suggestions)
    _warn_unsure(probs)
    flagged, own = flags.learnt(probs, labels), probs.own(labels)
    return judge(labels, probs, flagged, own, suggestions)


def unseen(
    labels: np.ndarray, probs: Probabilities, suggestions: Probabilities
) -> Audit:
    """The verdict by a model that has not been trained on the labels.

    Args:
      labels: int [N] given labels.
      probs: its probabilities.
      suggestions: scores behind suggested labels.

    Returns:
      The verdict, ranked by the margin: the given label's probability alone
      would rank rare classes first.
    """
    margin = probs.own(labels) - probs.best_other(labels)[0]
    flagged = flags.held_out(probs, labels)
    return judge(labels, probs, flagged, (1 + margin) / 2, suggestions)


def _warn_unsure(probs: Probabilities) -> None:
    """Says where the networks have not learnt enough to judge."""
    sure = sureness(probs)
    if sure < 0.5:
        logger.warning(
            "the networks are unsure of most images (the largest probability "
            "is %.2f on average): what labels.csv says is weak evidence; train "
            "longer, or a network that learns more",
            probs.largest.mean(),
        )


def judge(
    labels: np.ndarray,
    probs: np.ndarray | Probabilities,
    flagged: np.ndarray,
    scores: np.ndarray,
    suggestions: np.ndarray | Probabilities,
) -> Audit:
    """Judges given labels.

    Args:
      labels: int [N] given labels.
      probs: float [N, C] probabilities.
      flagged: bool [N]; none where the given label is the most probable one.
      scores: float [N] in [0, 1] that rank, the smallest first.
      suggestions: float [N, C] scores behind suggested labels.

    Returns:
      The verdict.
    """
    probs = Probabilities.of(probs)
    thresholds = joint.class_thresholds(probs, labels)
    sure = joint.confident_classes(probs, thresholds)
    elsewhere = (sure >= 0) & (sure != labels)
    kinds = np.where(elsewhere, MISLABELLED, AMBIGUOUS)
    suggested = Probabilities.of(suggestions).predicted
    # Heads may differ: what is flagged gets another label.
    suggested = np.where(suggested == labels, probs.predicted, suggested)
    best_other, alternative = probs.best_other(labels)
    margin = probs.own(labels) - best_other
    return Audit(
        is_label_issue=flagged,
        label_quality=quality(scores),
        clean_probability=clean_probability(margin, flagged, sureness(probs)),
        predicted=probs.predicted,
        predicted_probability=probs.largest,
        alternative=alternative,
        suggested=np.where(flagged, suggested, labels),
        margin=margin,
        issue_kind=np.where(flagged, kinds, "").astype(object),
    )


def quality(scores: np.ndarray) -> np.ndarray:
    r"""Label quality: scores, of which equal ones are told apart by row.

    .. math:: q_i = (1 - r) s_i + r\, \frac{\mathrm{rank}_i + 1/2}{N},
       \quad r = 0.001

    Args:
      scores: float [N] in [0, 1].

    Returns:
      float64 [N], increasing in the score, no two equal.
    """
    size = len(scores)
    rank = np.empty(size)
    rank[np.argsort(scores, kind="stable")] = (np.arange(size) + 0.5) / size
    return (1 - _RANK_SHARE) * scores + _RANK_SHARE * rank


def sureness(probs: np.ndarray | Probabilities) -> float:
    """How far the networks have learnt to tell images apart.

    Args:
      probs: float [N, C] mean probabilities.

    Returns:
      0 where the largest probability is .35 on average or less, 1 from .55 on;
      1 of no samples.
    """
    if not len(probs):
        return 1.0
    low, high = _UNSURE
    mean = float(Probabilities.of(probs).largest.mean())
    return min(max((mean - low) / (high - low), 0.0), 1.0)


def clean_probability(
    margin: np.ndarray, flagged: np.ndarray, sure: float = 1.0
) -> np.ndarray:
    r"""Calibrated probability that a given label is right.

    .. math:: c_i = w\, (0.02 + 0.08\, e^{m_i / 0.25}) + (1 - w)\, 0.6
       \text{ if flagged, else }
       1 - 0.3 \rho\, e^{-\max(m_i, 0) / 0.4}

    where :math:`\rho` is the share of flagged labels: where few are wrong, few
    have been missed.  Most labels that unsure networks flag are right.  The
    numbers are rounded from a fit to the development runs of ``docs/audit.md``.

    Args:
      margin: float [N] in [-1, 1].
      flagged: bool [N].
      sure: w, see ``sureness``.

    Returns:
      float64 [N] in [0, 1].
    """
    share = flagged.mean() if len(flagged) else 0.0
    doubted = 0.02 + 0.08 * np.exp(np.minimum(margin, 0) / 0.25)
    return np.where(
        flagged,
        sure * doubted + (1 - sure) * _RIGHT_OF_UNSURE,
        1 - 0.3 * share * np.exp(-np.maximum(margin, 0) / 0.4),
    )


def unreadable(labels: np.ndarray) -> Audit:
    """The verdict on n labels whose images cannot be read.

    Args:
      labels: int [n].
    """
    size = len(labels)
    nothing = np.full(size, np.nan)
    return Audit(
        is_label_issue=np.zeros(size, bool),
        label_quality=nothing,
        clean_probability=nothing,
        predicted=labels,
        predicted_probability=nothing,
        alternative=labels,
        suggested=labels,
        margin=nothing,
        issue_kind=np.full(size, UNREADABLE, object),
    )
