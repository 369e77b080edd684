"""Audits for tests of what is written of them."""

import numpy as np

from jaxnlt.auditing import flags, verdict


def audit(labels, classes, seed=0):
    """The verdict on labels by random probabilities."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(classes, 0.1), len(labels))
    flagged = flags.margins(probs, labels) < -0.1
    own = probs[np.arange(len(labels)), labels]
    return verdict.judge(labels, probs, flagged, own, probs)
