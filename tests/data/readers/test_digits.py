import numpy as np
from sklearn.datasets import load_digits

from tests.data import fakes


def test_split_is_fixed_balanced_and_disjoint():
    a, b = fakes.read("digits"), fakes.read("digits")
    assert np.bincount(a.test.labels).tolist() == [40] * 10
    assert np.bincount(a.train.labels).min() == 134
    assert (a.test.ids == b.test.ids).all()
    assert not set(a.test.ids) & set(a.train.ids)
    assert len(a.train) + len(a.test) == 1797


def test_images_are_those_of_scikit_learn():
    raw, train = load_digits(), fakes.read("digits").train
    assert train.images.dtype == np.uint8
    assert train.images.shape[1:] == (8, 8, 1)
    assert train.images.min() == 0 and train.images.max() == 255
    assert (raw.target[train.ids] == train.labels).all()
    grey = np.rint(raw.images[train.ids] * 255 / 16)
    assert (train.images[..., 0] == grey).all()
