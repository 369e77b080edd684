import numpy as np

from jaxnlt.data.readers import digits as digits_reader


def test_split_is_fixed_balanced_and_disjoint():
    a, b = digits_reader.read(), digits_reader.read()
    assert a.test is not None and b.test is not None
    assert np.bincount(a.test.labels).tolist() == [40] * 10
    assert np.bincount(a.train.labels).min() == 134
    assert (a.test.ids == b.test.ids).all()
    assert not set(a.test.ids) & set(a.train.ids)
    assert len(a.train) + len(a.test) == 1797


def test_images_are_uint8_of_native_size():
    train = digits_reader.read().train
    assert train.images.dtype == np.uint8
    assert train.images.shape[1:] == (8, 8, 1)
    assert train.images.min() == 0 and train.images.max() == 255


def test_ids_are_rows_of_scikit_learn():
    from sklearn.datasets import load_digits

    raw, train = load_digits(), digits_reader.read().train
    assert (raw.target[train.ids] == train.labels).all()
    grey = np.rint(raw.images[train.ids] * 255 / 16)
    assert (train.images[..., 0] == grey).all()
