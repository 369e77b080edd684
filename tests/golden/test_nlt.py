"""Counts and noise of the NLT sets beside what the authors' cells make."""

import numpy as np
import pytest

from jaxnlt.data import imbalance
from jaxnlt.data.nlt import build, protocol
from tests.data import fake_nlt
from tests.golden.cases import golden


def prefixes(case):
    return sorted({key.split("__")[0] for key in case.keys() if "__" in key})


@golden("h2e_classcounts")
def test_class_counts(case):
    found = [name for name in prefixes(case) if name.startswith("case")]
    assert len(found) == case["num_cases"]
    for name in found:
        fields = case.group(f"{name}__")
        kind = str(fields["imb_type"])
        counts = imbalance.class_counts(
            int(fields["raw_len"]),
            int(fields["num_classes"]),
            float(fields["imb_factor"]) if kind != "none" else None,
            kind if kind != "none" else "exp",
        )
        if kind == "step":
            # The authors lose the last class where their number is odd.
            counts = counts[: len(counts) // 2 * 2]
        np.testing.assert_array_equal(counts, fields["counts"], str(name))
        assert counts.sum() == fields["total"]


@golden("h2e_classcounts")
def test_shares(case):
    red = case.group("red__")
    found = np.array(
        [protocol.shares(1000, float(r)) for r in red["noise_rate"]]
    )
    np.testing.assert_array_equal(found[:, 0], red["clean_per_class_of_1000"])
    np.testing.assert_array_equal(found[:, 1], red["web_per_class_of_1000"])


@golden("h2e_benchmark_stats")
def test_construction(case):
    for name in prefixes(case):
        same_statistics(name, case.group(f"{name}__"))


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
            np.testing.assert_array_equal(
                given, reference[f"{stage}__class_counts"][seed]
            )
            wrong = fake_nlt.counts(rows, lambda row: row.wrong)
            for noise in (
                wrong.sum() / given.sum(),
                reference[f"{stage}__total_noise_rate"][seed],
            ):
                assert noise == pytest.approx(meant, abs=0.006)
        web = fake_nlt.counts(full, lambda row: row.source == "web")
        np.testing.assert_array_equal(
            web, reference["balanced__web_noise_per_class"][seed]
        )
        for found in (
            fake_nlt.counts(cut, lambda row: row.source == "web"),
            reference["longtail__web_noise_per_class"][seed],
        ):
            if rates[0]:
                scores += [*hypergeometric(found, given, web)]
        swapped.append(
            fake_nlt.counts(cut, lambda row: row.source == "swap", "true_label")
        )
        ours = fake_nlt.counts(full, lambda row: row.source == "swap")
        theirs = reference["balanced__swap_noise_per_class"][seed]
        for found in (ours, theirs):
            assert found.mean() == pytest.approx(
                (1 - 1 / classes) * int(1000 * rates[1]), rel=0.005
            )
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


def hypergeometric(found, drawn, marked):
    return fake_nlt.hypergeometric_scores(found, drawn, marked, 1000)


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
    for key, ours in (
        ("true_noise_count_per_class", wrong),
        (
            "images_per_true_class",
            [fake_nlt.counts(rows, by="true_label") for rows in drawn],
        ),
    ):
        mean, spread = np.mean(ours, 0), np.std(ours, 0, ddof=1).mean()
        scores = (blue[key] - mean) / spread
        assert abs(scores.mean()) < 0.5, key
        assert np.square(scores).mean() == pytest.approx(1.2, abs=0.5), key
