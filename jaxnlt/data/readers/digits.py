"""The embedded benchmark: scikit-learn's 1,797 handwritten digits.

There is no file to read: scikit-learn ships the images.
"""

import numpy as np

from jaxnlt.data.records import ReadRequest, Source, Split, labels_array

TEST_PER_CLASS = 40
# The test part is the same for all seeds of a run.
_TEST_SEED = 0
_LEVELS = 16


def read(request: ReadRequest) -> Source:
    """Reads the digits, 8x8 grey levels as uint8.

    Test: the first 40 images of each class in one fixed permutation; the
    others are for training.  Ids are scikit-learn's row numbers.

    Args:
      request: none of its fields is used.

    Returns:
      The source with ``images`` uint8 [N, 8, 8, 1].
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
