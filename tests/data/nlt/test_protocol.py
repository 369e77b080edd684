"""The construction of the NLT sets, at full size over names alone."""

import logging

import numpy as np
import pytest

from jaxnlt.data.nlt import build, protocol
from jaxnlt.data.readers import nlt
from jaxnlt.data.records import WRONG
from jaxnlt.runtime.errors import UserError
from tests.data import fake_nlt

PUBLISHED = [
    *(("red", rate) for rate in (0.1, 0.2, 0.3)),
    *(("blue", rate) for rate in (0.1, 0.2, 0.3)),
    *(("purple", rate) for rate in (0.2, 0.4)),
]


@pytest.fixture(scope="module")
def raw():
    return fake_nlt.full_size()


@pytest.mark.parametrize("colour, rate", PUBLISHED)
def test_published_sets(raw, colour, rate):
    classes = build.construct(raw, fake_nlt.options(colour, rate, 5))
    given = fake_nlt.counts(classes)
    assert given.sum() == 31871 and given[0] == 1000 and given[-1] == 50
    rows = [row for members in classes for row in members]
    assert all(row.label == k for k, m in enumerate(classes) for row in m)
    assert len({row.path for row in rows}) == len(rows)
    realised = {
        source: np.mean([row.source == source for row in rows])
        for source in nlt.SOURCES
    }
    web, swap = {
        "red": (rate, 0),
        "blue": (0, rate),
        "purple": (rate / 2, rate / 2),
    }[colour]
    assert realised["web"] == pytest.approx(web, abs=0.006)
    assert realised["swap"] == pytest.approx(0.99 * swap, abs=0.006)
    wrong = np.mean([row.wrong for row in rows])
    assert wrong == pytest.approx(web + 0.99 * swap, abs=0.006)
    both = realised["web"] + realised["swap"]
    assert wrong == pytest.approx(both, abs=1e-9)
    # The file name says the class of an ImageNet image; the web's is unknown.
    for row in rows:
        if row.source == "web":
            assert row.true_label == WRONG and row.path[0] != "n"
        else:
            assert int(row.path[1:9]) == row.true_label
            assert row.wrong == (row.source == "swap")


def test_noise_is_cut_with_the_tail(raw):
    """The head keeps its noise exactly, the tail's varies with the seed."""
    wrong = []
    for seed in range(8):
        classes = build.construct(raw, fake_nlt.options("red", 0.2, seed))
        wrong.append(fake_nlt.counts(classes, lambda row: row.wrong))
    given, wrong = fake_nlt.counts(classes), np.array(wrong)
    assert (wrong[:, 0] == 200).all()
    scores = [
        fake_nlt.hypergeometric_scores(w, given, np.full(100, 200), 1000)
        for w in wrong
    ]
    assert np.mean(np.square(scores)) == pytest.approx(1, abs=0.15)
    assert abs(np.mean(scores)) < 0.15


def test_exchanged_images_return_home_by_chance(raw):
    classes = protocol.with_web(
        raw.images, raw.web, 1000, 0.0, np.random.default_rng(0)
    )
    classes = protocol.exchange(classes, 1000, 0.3, np.random.default_rng(1))
    assert (fake_nlt.counts(classes) == 1000).all()
    home = 300 - fake_nlt.counts(classes, lambda row: row.wrong)
    assert home.mean() == pytest.approx(3, abs=0.6)


def test_rate_zero_is_the_clean_tail(raw):
    classes = build.construct(raw, fake_nlt.options("purple", 0.0))
    assert fake_nlt.counts(classes).sum() == 31871
    assert not fake_nlt.counts(classes, lambda row: row.wrong).any()


def test_truncation_leaves_a_class_short(raw, caplog):
    """199 clean and 800 web images at rate 0.8, as the authors' code has."""
    raw = fake_nlt.full_size(classes=4, web=900)
    classes = build.construct(raw, fake_nlt.options("red", 0.8))
    assert fake_nlt.counts(classes).tolist() == [999, 367, 134, 49]
    assert "class class 3: has 49 images instead of 50" in caplog.text


def test_few_web_images_leave_a_class_short(caplog):
    raw = fake_nlt.full_size(classes=4)
    raw.web[1] = raw.web[1][:80]
    with caplog.at_level(logging.WARNING):
        classes = build.construct(raw, fake_nlt.options("red", 0.1))
    assert fake_nlt.counts(classes).tolist() == [1000, 348, 135, 50]
    assert "class class 1: has 348 images instead of 368" in caplog.text


def test_a_class_without_images_is_named():
    raw = fake_nlt.full_size(classes=4)
    raw.images[3] = raw.images[3][:900]
    with pytest.raises(UserError, match="class class 3: no image is left"):
        build.construct(raw, fake_nlt.options("blue", 0.1))


@pytest.mark.parametrize("imb, total", [(0.01, 12406), (0.02, 13996)])
def test_animal10(imb, total):
    raw = fake_nlt.full_size(classes=10, clean=5000)
    options = build.Options("animal10_nlt", "", 0.0, 5000, imb, 0)
    classes = build.construct(raw, options)
    assert sum(map(len, classes)) == total and len(classes[0]) == 5000
    raw.images[1].clear()
    with pytest.raises(UserError, match="class class 1: has 0 raw images"):
        build.construct(raw, options)


def test_food101_has_the_size_that_is_asked_for():
    raw = fake_nlt.full_size(classes=101, clean=1500)
    options = build.Options("food101_nlt", "", 0.0, 1500, 0.01, 0)
    assert sum(map(len, build.construct(raw, options))) == 32959
    with pytest.raises(UserError, match="class class 0: .* 1501 are needed"):
        build.construct(raw, options._replace(n_max=1501))


def test_empty_tail_is_refused():
    raw = fake_nlt.full_size(classes=4)
    with pytest.raises(UserError, match="--n_max: class class 3 would"):
        build.construct(raw, fake_nlt.options("blue", 0.1, n_max=10))


def test_table():
    raw = fake_nlt.full_size(classes=2, clean=20)
    rows = protocol.exchange(raw.images, 20, 0.5, np.random.default_rng(0))
    rows[1] = rows[1][:15] + raw.web[1][:5]
    wrong = [sum(row.wrong for row in members) for members in rows]
    lines = build.table(raw.class_names, rows, 0.25).split("\n")
    assert lines[0].split() == [
        "class",
        "given",
        "wrong",
        "web",
        "swap",
        "unknown",
        "name",
    ]
    assert lines[1].split() == f"0 20 {wrong[0]} 0 {wrong[0]} 0 class 0".split()
    assert lines[2].split()[:4] == ["1", "20", str(wrong[1]), "5"]
    total = sum(wrong)
    assert lines[3].split() == f"all 40 {total} 5 {total - 5} 0".split()
    assert lines[4] == f"realised noise: {total / 40:.4f} (expected 0.2500)"
