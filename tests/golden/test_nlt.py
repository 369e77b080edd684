"""Counts and noise of the NLT sets beside what the authors' cells make."""

import numpy as np
import pytest

from jaxnlt.data import imbalance
from jaxnlt.data.nlt import build, protocol
from tests.data import fake_nlt
from tests.golden.cases import golden


@golden("h2e_classcounts")
def test_class_counts(case):
    found = case.prefixes("__raw_len")
    assert len(found) == case["num_cases"]
    for name in found:
        fields = case.group(f"{name}__")
        sizes = int(fields["raw_len"]), int(fields["num_classes"])
        kind, factor = str(fields["imb_type"]), float(fields["imb_factor"])
        shape = (None, "exp") if kind == "none" else (factor, kind)
        counts = imbalance.class_counts(*sizes, *shape)
        if kind == "step":
            # The authors lose the last class where their number is odd.
            counts = counts[: len(counts) // 2 * 2]
        np.testing.assert_array_equal(counts, fields["counts"], str(name))
        assert counts.sum() == fields["total"]


@golden("h2e_classcounts")
def test_shares(case):
    red = case.group("red__")
    found = [protocol.shares(1000, float(r)) for r in red["noise_rate"]]
    expected = red["clean_per_class_of_1000"], red["web_per_class_of_1000"]
    np.testing.assert_array_equal(found, np.transpose(expected))


@golden("h2e_benchmark_stats")
def test_construction(case):
    for name in case.prefixes("__web_rate"):
        same_statistics(name, case.group(f"{name}__"))


def of_web(row):
    return row.source == "web"


def of_swap(row):
    return row.source == "swap"


def same_statistics(name, reference):
    """A set of ours per seed of the authors', before and after the cut."""
    colour, rate = name.split("_")
    rates = protocol.noise_rates(colour, float(rate))
    assert rates == (reference["web_rate"], reference["swap_rate"])
    seeds, classes = reference["longtail__class_counts"].shape
    raw = fake_nlt.full_size(classes, web=1000)
    meant = protocol.expected_noise(*rates, classes)
    swapped, scores = [], []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        full = protocol.with_web(raw.images, raw.web, 1000, rates[0], rng)
        full = protocol.exchange(full, 1000, rates[1], rng)
        options = fake_nlt.options(colour, float(rate), seed)
        cut = build.construct(raw, options)
        for stage, rows in (("balanced", full), ("longtail", cut)):
            given = fake_nlt.counts(rows)
            expected = reference[f"{stage}__class_counts"][seed]
            np.testing.assert_array_equal(given, expected)
            wrong = fake_nlt.counts(rows, lambda row: row.wrong)
            theirs = reference[f"{stage}__total_noise_rate"][seed]
            for noise in (wrong.sum() / given.sum(), theirs):
                assert noise == pytest.approx(meant, abs=0.006)
        web = fake_nlt.counts(full, of_web)
        expected = reference["balanced__web_noise_per_class"][seed]
        np.testing.assert_array_equal(web, expected)
        ours = fake_nlt.counts(cut, of_web)
        theirs = reference["longtail__web_noise_per_class"][seed]
        for found in (ours, theirs) if rates[0] else ():
            drawn = fake_nlt.hypergeometric_scores(found, given, web, 1000)
            scores.extend(drawn)
        swapped.append(fake_nlt.counts(cut, of_swap, "true_label"))
        ours = fake_nlt.counts(full, of_swap)
        theirs = reference["balanced__swap_noise_per_class"][seed]
        expected = (1 - 1 / classes) * int(1000 * rates[1])
        for found in (ours, theirs):
            assert found.mean() == pytest.approx(expected, rel=0.005)
    if scores:
        error = 5 * np.sqrt(2 / len(scores))
        assert np.mean(np.square(scores)) == pytest.approx(1, abs=error)
    theirs = reference["longtail__swap_noise_per_source_class"]
    if rates[1]:
        lost = 1 - given.sum() / (1000 * classes)
        flat(np.array(swapped), lost)
        flat(theirs, lost)
        error = 5 * np.sqrt(2 * lost / theirs.sum())
        assert np.mean(swapped) == pytest.approx(theirs.mean(), rel=error)


def flat(by_source, lost):
    """Noise comes from all true classes alike, the rare ones too.

    Each exchanged image survives the cut with the same probability, which
    makes a binomial of variance over mean ``lost``.
    """
    third = by_source.shape[1] // 3
    head, tail = by_source[:, :third].mean(), by_source[:, -third:].mean()
    error = 5 * np.sqrt(2 * lost / by_source[:, :third].sum())
    assert head == pytest.approx(tail, rel=error)
    spread = by_source.var(1).mean() / by_source.mean()
    error = 5 * np.sqrt(2 / by_source.size)
    assert spread == pytest.approx(lost, rel=error)


@golden("h2e_artifacts")
def test_released_sets(case):
    """The authors' own files hold what this construction makes."""
    blue = case.group("blue0.1__")
    counts = imbalance.class_counts(1000, 100, 0.05)
    np.testing.assert_array_equal(counts, blue["class_counts"])
    for ratio, key in ((0.01, "100__"), (0.02, "50__score_file_")):
        np.testing.assert_array_equal(
            imbalance.class_counts(5000, 10, ratio),
            case[f"animal_ratio{key}class_counts"],
        )
    raw = fake_nlt.full_size()
    drawn = [
        build.construct(raw, fake_nlt.options("blue", 0.1, seed))
        for seed in range(8)
    ]
    wrong = [fake_nlt.counts(rows, lambda row: row.wrong) for rows in drawn]
    true = [fake_nlt.counts(rows, by="true_label") for rows in drawn]
    for key, ours in (
        ("true_noise_count_per_class", wrong),
        ("images_per_true_class", true),
    ):
        mean, spread = np.mean(ours, 0), np.std(ours, 0, ddof=1).mean()
        scores = (blue[key] - mean) / spread
        assert abs(scores.mean()) < 0.5, key
        assert np.square(scores).mean() == pytest.approx(1.2, abs=0.5), key
