"""Lists of labels of another set, other classes or another order."""

import json

import numpy as np
import pytest

from jaxnlt.data import agreement, fingerprint, noise
from jaxnlt.data.readers import cifar_human
from jaxnlt.data.records import UNKNOWN, Dataset, Source, Split
from jaxnlt.runtime.errors import UserError
from tests.data import fakes


def shuffled(n, classes, seed=0):
    return np.random.default_rng(seed).integers(0, classes, n).astype(np.int32)


@pytest.mark.parametrize(
    "kind, rate, n, classes",
    [
        ("none", 0.0, 10, 2),
        ("sym", 0.9, 50, 10),
        ("sym", 0.9, 1000, 10),
        ("sym", 0.9, 20000, 10),
        ("sym", 0.9, 4000, 3),
        ("sym", 0.9, 120, 3),
        ("sym_excl", 0.8, 5000, 10),
        ("asym", 0.5, 5000, 10),
        ("asym", 0.5, 2000, 100),
        ("flip", 0.49, 5000, 10),
        ("flip", 0.49, 5000, 3),
        ("flip", 0.49, 60, 2),
        ("joint", 0.6, 5000, 10),
    ],
)
def test_heavy_noise_is_in_order(kind, rate, n, classes):
    for seed in range(5):
        true = shuffled(n, classes, seed)
        given = noise.draw(kind, true, classes, rate, seed)
        agreement.check_order("here", given, true, classes)


@pytest.mark.parametrize(
    "n, classes, wrong, legal",
    [
        # Agreement 1 - wrong, chance 1 / classes: z in standard deviations.
        (50_000, 10, 0.88, True),  # z = 15
        (50_000, 10, 0.90, False),  # sym_excl 0.9: chance itself
        (250_000, 2, 0.49, True),  # z = 10
        (50_000, 2, 0.50, False),
        (6_000, 2, 0.50, True),  # too few to tell
        (50_000, 2, 0.90, False),  # the other class's number
    ],
)
def test_noise_near_chance(n, classes, wrong, legal):
    true = shuffled(n, classes)
    rng = np.random.default_rng(1)
    other = (true + rng.integers(1, classes, n)) % classes
    given = np.where(rng.random(n) < wrong, other, true)
    if legal:
        agreement.check_order("here", given, true, classes)
        return
    share = f"{100 * (given == true).mean():.1f} % agree"
    words = f"order.* {share} .* by chance {100 / classes:.1f} % .* do so$"
    with pytest.raises(UserError, match=words):
        agreement.check_order("here", given, true, classes, " or do so")


@pytest.mark.parametrize("n, classes", [(5000, 10), (5000, 3), (400, 100)])
def test_a_shuffled_list_and_other_codes_are_refused(n, classes):
    for seed in range(5):
        true = shuffled(n, classes, seed)
        given = noise.draw("sym", true, classes, 0.4, seed)
        wrong = [np.random.default_rng(seed).permutation(given)]
        wrong += [given[::-1], (given + 1) % classes]
        for labels in wrong:
            with pytest.raises(UserError, match="^here: labels in the wrong"):
                agreement.check_order("here", labels, true, classes)
        true[n // 20 :] = UNKNOWN  # too few are known to tell
        agreement.check_order("here", wrong[0], true, classes)


@pytest.mark.parametrize("true", [[UNKNOWN] * 400, [1] * 400, [0]])
def test_nothing_to_compare(true):
    given = np.ones(len(true), np.int32)
    agreement.check_order("here", given, np.array(true), 2)
    agreement.check_order("here", given, None, 2)


def test_a_list_class_by_class_is_known_from_few():
    true = shuffled(120, 3)
    given = noise.draw("sym", true, 3, 0.3, 0)
    given = given[np.argsort(true, kind="stable")]
    with pytest.raises(UserError, match="agree class by class"):
        agreement.check_order("here", given, true, 3)


def test_the_deviation_is_that_of_shuffles():
    given, true = shuffled(300, 4), np.minimum(shuffled(300, 4, 1), 2)
    rng = np.random.default_rng(0)
    found = [(rng.permutation(given) == true).sum() for _ in range(4000)]
    counts = [np.bincount(labels, minlength=4) for labels in (given, true)]
    assert agreement._deviation(*counts) == pytest.approx(
        np.std(found), rel=0.05
    )


# Our own lists ---------------------------------------------------------------

TRUE = shuffled(2000, 10)
NAMES = tuple("abcdefghij")


def source(ids=None, names=NAMES):
    ids = np.arange(2000) if ids is None else ids
    return Source(Split(None, TRUE, TRUE, ids), None, names, "the set")


def own(**changes):
    """The list that a run on half of the set writes, with fields replaced."""
    rows = np.arange(0, 2000, 2)
    labels = TRUE[rows]
    train = Split(None, labels, labels, rows)
    sha256 = fingerprint.of_source(source())
    data = Dataset(train, train, NAMES, (), (), "test", source_sha256=sha256)
    return train, noise.as_json(data) | changes


@pytest.mark.parametrize(
    "changes, words",
    [
        ({}, ""),
        ({"class_names": [*"bacdefghij"]}, "label 0 is 'b' there and 'a'"),
        ({"class_names": [*"abc"]}, "class_names: holds 3 names"),
        ({"class_names": 7}, "class_names: holds no list of names"),
        ({"source_sha256": "0"}, "made for another set .*the set"),
        ({"ids": [0] * 1000}, "ids must differ"),
        ({"labels": [11] * 1000}, "labels must be in"),
        (
            {"labels": TRUE[1::2].tolist(), "source_sha256": None},
            "labels in the wrong order",
        ),
    ],
)
def test_own_lists(tmp_path, changes, words):
    train, content = own(**changes)
    file = tmp_path / "n.json"
    file.write_text(json.dumps(content))
    if not words:
        found = noise.read_noise(file, train, source())
        np.testing.assert_array_equal(found, train.labels)
        return
    with pytest.raises(UserError, match=f"^{file}: .*{words}") as error:
        noise.read_noise(file, train, source())
    assert "\n" not in str(error.value)


def test_flat_list_in_another_order(tmp_path):
    file = tmp_path / "n.json"
    file.write_text(json.dumps(np.sort(TRUE).tolist()))
    with pytest.raises(UserError, match="agree class by class"):
        noise.read_noise(file, source().train, source())


@pytest.mark.parametrize("text", ["[" * 100_000, "[1e999]", '{"ids": 1}'])
def test_strange_json_is_one_line(tmp_path, text):
    file = tmp_path / "n.json"
    file.write_text(text)
    for path in (file, tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(UserError) as error:
            noise.read_noise(path, source().train, source())
        assert "\n" not in str(error.value)


# Labels of readers -----------------------------------------------------------


@pytest.mark.parametrize("write", ["pt", "npz"])
def test_human_labels_in_another_order(tmp_path, write):
    arrays = {"clean_label": TRUE, "worse_label": np.roll(TRUE, 1)}
    if write == "pt":
        file = fakes.torch_zip(tmp_path / "a.pt", arrays)
    else:
        file = tmp_path / "a.npz"
        np.savez(file, **arrays)
    with pytest.raises(UserError, match=f"^{file}: human:worse: labels in the"):
        cifar_human.read(file, "human:worse", TRUE, 10)


def test_npz_labels_in_another_order(tmp_path):
    file = tmp_path / "a.npz"
    np.savez(
        file,
        train_images=np.zeros((2000, 1, 1, 1), np.uint8),
        train_labels=np.roll(TRUE, 1),
        train_true_labels=TRUE,
    )
    with pytest.raises(
        UserError, match=f"^{file}: train_labels: labels in the"
    ):
        fakes.read("npz", file)
