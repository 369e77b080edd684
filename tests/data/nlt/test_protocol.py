"""The construction of the NLT sets, at full size over names alone."""

import numpy as np
import pytest

from jaxnlt.data.nlt import build, protocol
from jaxnlt.data.records import WRONG
from jaxnlt.runtime.errors import UserError
from tests.data import fake_nlt


@pytest.fixture(scope="module")
def raw():
    return fake_nlt.full_size()


# Shares of the noise over all colours and seeds: tests/golden/test_nlt.py.
@pytest.mark.parametrize(
    "colour, rate, head",
    [("red", 0.3, 300), ("blue", 0.3, 297), ("purple", 0.4, 398)],
)
def test_published_sets(raw, colour, rate, head):
    classes = build.construct(raw, fake_nlt.options(colour, rate, 5))
    given = fake_nlt.counts(classes)
    assert given.sum() == 31871 and given[0] == 1000 and given[-1] == 50
    # The tail is cut after the noise: the head keeps all of its own.
    wrong = fake_nlt.counts(classes, lambda row: row.wrong)
    assert wrong[0] == pytest.approx(head, abs=5 * (colour != "red"))
    rows = [row for members in classes for row in members]
    assert all(row.label == k for k, m in enumerate(classes) for row in m)
    assert len({row.path for row in rows}) == len(rows)
    # The file name says the class of an ImageNet image; the web's is unknown.
    for row in rows:
        if row.source == "web":
            assert row.true_label == WRONG and row.path[0] != "n"
        else:
            assert int(row.path[1:9]) == row.true_label
            assert row.wrong == (row.source == "swap")


def test_rate_zero_is_the_clean_tail(raw):
    classes = build.construct(raw, fake_nlt.options("purple", 0.0))
    assert fake_nlt.counts(classes).sum() == 31871
    assert not fake_nlt.counts(classes, lambda row: row.wrong).any()


# Of rate 0.8 199 clean and 800 web images, as the authors' code has.
@pytest.mark.parametrize(
    "web, rate, expected, words",
    [
        (900, 0.8, [999, 367, 134, 49], "class 3: has 49 images"),
        (
            80,
            0.1,
            [1000, 348, 135, 50],
            "class 1: has 348 images",
        ),
    ],
)
def test_a_class_that_is_left_short(web, rate, expected, words, caplog):
    raw = fake_nlt.full_size(classes=4, web=900)
    raw.web[1] = raw.web[1][:web]
    classes = build.construct(raw, fake_nlt.options("red", rate))
    assert fake_nlt.counts(classes).tolist() == expected
    assert words in caplog.text


def test_a_class_without_images_is_named():
    raw = fake_nlt.full_size(classes=4)
    raw.images[3] = raw.images[3][:900]
    with pytest.raises(UserError, match="class class 3: no image is left"):
        build.construct(raw, fake_nlt.options("blue", 0.1))


@pytest.mark.parametrize(
    "benchmark, classes, n_max, imb, total",
    [
        ("animal10_nlt", 10, 5000, 0.01, 12406),
        ("animal10_nlt", 10, 5000, 0.02, 13996),
        ("food101_nlt", 101, 1500, 0.01, 32959),
    ],
)
def test_sizes_that_are_asked_for(benchmark, classes, n_max, imb, total):
    raw = fake_nlt.full_size(classes, clean=n_max)
    options = build.Options(benchmark, "", 0.0, n_max, imb, 0)
    built = build.construct(raw, options)
    assert sum(map(len, built)) == total and len(built[0]) == n_max
    raw.images[1].clear()
    with pytest.raises(UserError, match="class class 1: has 0 raw images"):
        build.construct(raw, options)


def test_empty_tail_is_refused():
    raw = fake_nlt.full_size(classes=4)
    with pytest.raises(UserError, match="--n_max: class class 3 would"):
        build.construct(raw, fake_nlt.options("blue", 0.1, n_max=10))


def test_table():
    raw = fake_nlt.full_size(classes=2, clean=20)
    rows = protocol.exchange(raw.images, 20, 0.5, np.random.default_rng(0))
    rows[1] = rows[1][:15] + raw.web[1][:5]
    a, b = (sum(row.wrong for row in members) for members in rows)
    lines = build.table(raw.class_names, rows, 0.25).split("\n")
    assert " ".join(lines[0].split()) == (
        "class given wrong web swap unknown name"
    )
    assert lines[1].split() == f"0 20 {a} 0 {a} 0 class 0".split()
    assert lines[2].split()[:4] == f"1 20 {b} 5".split()
    assert lines[3].split() == f"all 40 {a + b} 5 {a + b - 5} 0".split()
    assert lines[4] == f"realised noise: {(a + b) / 40:.4f} (expected 0.2500)"
