"""The embedded benchmark: scikit-learn's 1,797 handwritten digits."""

import numpy as np

from jaxnlt.data.records import ReadRequest, Source, Split, labels_array
from jaxnlt.runtime.errors import UserError

TEST_PER_CLASS = 40
# The test part never changes, whatever the seeds of a run.
_TEST_SEED = 0
_LEVELS = 16


def source(request: ReadRequest) -> Source:
    """What ``read`` returns, for an entry of the registry."""
    if request.path:
        raise UserError("config.data.path: digits are built in")
    return read()


def read() -> Source:
    """Reads the digits, 8x8 grey levels as uint8.

    Test: the first 40 images a class of one fixed permutation, the rest is
    for training.  Ids are scikit-learn's row numbers.

    Returns:
      The source with ``images [N, 8, 8, 1]``.

    Source:.
    """
    from sklearn.datasets import load_digits

    raw = load_digits()
    levels = np.rint(raw.images * (255 / _LEVELS)).astype(np.uint8)
    images, labels = levels[..., None], labels_array(raw.target)
    order = np.random.RandomState(_TEST_SEED).permutation(len(labels))
    is_test = np.zeros(len(labels), bool)
    for k in range(10):
        is_test[order[labels[order] == k][:TEST_PER_CLASS]] = True
    ids = np.arange(len(labels))
    everything = Split(images, labels, labels, ids)
    return Source(
        train=everything.take(ids[~is_test]),
        test=everything.take(ids[is_test]),
        class_names=tuple(str(k) for k in range(10)),
        path="scikit-learn load_digits",
    )
