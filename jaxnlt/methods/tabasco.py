"""TABASCO: two-stage bi-dimensional sample selection under DivideMix.

Lu, Zhang, Han, Cheung, Wang, "Label-Noise Learning with Intrinsically
Long-Tailed Data", ICCV 2023, arXiv 2208.09833.

Every given class is divided either by a weighted divergence of prediction and
label or by the similarity to a centroid of its confident samples, whichever
tells its samples apart.
"""

import numpy as np

from jaxnlt import divergences, selection
from jaxnlt.errors import logger, one_of
from jaxnlt.methods import base, dividemix

CHOICES = {
    "confusable_cluster": ("code", "paper_eq10"),
    "centre": ("training_set", "separate_draw"),
}


class TwoScores(base.Selector):
    """Weighted divergence or centroid similarity, chosen class by class.

    Args:
      options: `confusable_cluster`, `centre`, `mean_batch`, `spread_ratio`,
        `gmm_max_iter`, `gmm_tol`, `gmm_reg_covar`, `p_threshold` of
        config.tabasco.

    Raises:
      UserError: an unknown choice.
    """

    outputs = ("features", "logits")

    def __init__(self, options, heads=()):
        super().__init__(options, heads)
        for name, known in CHOICES.items():
            one_of(f"config.tabasco.{name}", options[name], known)

    def select(self, outputs, k, data, memory, epoch, rng):
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
            division = self.divide_class(scores, members, c, random)
            clean[members] = division.clean
            if division.guarded:
                logger.warning("TABASCO: class %d " + division.guarded, c)
        return dividemix.divide(clean, self.options.p_threshold, data), memory

    def scores(self, outputs, labels, rng):
        """Both scores of every sample."""
        features, centre = outputs["features"], None
        if self.options.centre == "separate_draw":
            # The release averages over another draw of a long-tailed set;
            # resampling the training set comes as near as its images allow.
            rows = rng.integers(len(features), size=len(features))
            centre = np.asarray(features, np.float64)[rows].mean(0)
        probs = selection.softmax(outputs["logits"])
        return divergences.tabasco_scores(
            features, probs, labels, self.options.mean_batch, centre
        )

    def divide_class(self, scores, members, label, random):
        """Division of the members of one class."""
        options = self.options
        return divergences.divide_class(
            scores.wjsd[members],
            scores.acd[members],
            divergences.confusable(scores.similarity, scores.confident, label),
            random,
            ratio=options.spread_ratio,
            confusable_near=options.confusable_cluster == "paper_eq10",
            max_iter=options.gmm_max_iter,
            tol=options.gmm_tol,
            reg_covar=options.gmm_reg_covar,
        )


class Method(dividemix.Method):
    """DivideMix with TABASCO's selector."""

    own_selector = "tabasco"
