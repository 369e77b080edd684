import numpy as np

from jaxnlt.data.records import UNKNOWN, WRONG, verdicts
from tests.data import fake_web, fakes
from tests.data.readers.checks import check


def test_verified_labels(made):
    source = fakes.read("food101n", made("food"))
    check(source, [12, 6])
    assert source.class_names == fake_web.FOODS
    np.testing.assert_array_equal(source.train.labels, np.arange(12) // 4)
    expected = [[k, WRONG, UNKNOWN, UNKNOWN] for k in range(3)]
    np.testing.assert_array_equal(source.train.true_labels, np.ravel(expected))
    known, wrong = verdicts(source.train)
    np.testing.assert_array_equal(known, [1, 1, 0, 0] * 3)
    np.testing.assert_array_equal(wrong, [0, 1, 0, 0] * 3)
    assert source.test.ids[0] == "food-101/images/apple_pie/1000.jpg"
