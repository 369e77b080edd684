import json
import random

import numpy as np
import pytest

from jaxnlt.data import noise
from jaxnlt.runtime.errors import UserError
from tests.data import fakes

LABELS = np.random.RandomState(5).randint(0, 10, 4000)


@pytest.mark.parametrize(
    "kind, low, high",
    [
        ("sym", 0.33, 0.39),  # r (1 - 1/C) = 0.36
        ("sym_count", 0.33, 0.39),
        ("joint_any", 0.37, 0.43),
        ("flip", 0.37, 0.43),
        ("asym", 0.17, 0.23),  # half of the classes have a target
        ("asym_block", 0.37, 0.43),
    ],
)
def test_realised_rate(kind, low, high):
    noisy = noise.draw(kind, LABELS, 10, 0.4, seed=1)
    assert noisy.dtype == np.int32
    assert low <= (noisy != LABELS).mean() <= high
    assert noisy.min() >= 0 and noisy.max() < 10


@pytest.mark.parametrize("kind", noise.SYNTHETIC)
def test_seed_decides_and_global_state_is_untouched(kind):
    numpy = np.random.mtrand._rand
    before = random.getstate(), str(numpy.get_state())
    a = noise.draw(kind, LABELS, 10, 0.4, seed=1)
    b = noise.draw(kind, LABELS, 10, 0.4, seed=1)
    c = noise.draw(kind, LABELS, 10, 0.4, seed=2)
    assert (a == b).all()
    # flip's pairing and draws are fixed, as released.
    assert (a == c).all() == (kind in ("none", "flip"))
    assert (random.getstate(), str(numpy.get_state())) == before
    unchanged = a if kind == "none" else noise.draw(kind, LABELS, 10, 0.0, 1)
    assert (unchanged == LABELS).all()


def test_counted_kinds_touch_the_first_of_pythons_shuffle():
    order = list(range(len(LABELS)))
    random.Random(7).shuffle(order)
    chosen = set(order[:1600])
    changed = {
        kind: set(
            np.flatnonzero(noise.draw(kind, LABELS, 10, 0.4, seed=7) != LABELS)
        )
        for kind in ("sym_count", "sym_excl", "joint", "joint_any", "asym")
    }
    assert changed["sym_count"] <= chosen and changed["asym"] <= chosen
    assert changed["sym_excl"] == changed["joint"] == chosen
    # It redraws more, of which some stay.
    share = noise.redrawn_share(0.4, np.bincount(LABELS))
    assert 0.44 < share < 0.45
    assert changed["joint_any"] <= set(order[: int(share * len(LABELS))])
    assert not changed["joint_any"] <= chosen


def test_asym_maps():
    noisy = noise.draw("asym", LABELS, 10, 0.4, seed=1)
    pairs = {(a, b) for a, b in np.stack([LABELS, noisy], 1).tolist() if a != b}
    assert pairs == {(9, 1), (2, 0), (3, 5), (5, 3), (4, 7)}
    hundred = noise.asym_map(100)
    groups = noise.CIFAR100_SUPERCLASS
    assert (groups[hundred] == groups).all()
    assert sorted(hundred) == list(range(100))
    assert (hundred != np.arange(100)).all()
    # beaver > dolphin > otter > seal > whale > beaver
    assert hundred[[4, 30, 55, 72, 95]].tolist() == [30, 55, 72, 95, 4]


def test_asym_block_stays_in_blocks_of_five():
    noisy = noise.draw("asym_block", LABELS, 10, 0.4, seed=1)
    changed = noisy != LABELS
    expected = LABELS // 5 * 5 + (LABELS + 1) % 5
    assert (noisy[changed] == expected[changed]).all()
    with pytest.raises(UserError, match="multiple of 5"):
        noise.draw("asym_block", LABELS % 7, 7, 0.4, seed=1)


def test_joint_noise_flows_to_the_head():
    tail = np.repeat([0, 1, 2], [900, 90, 10])
    matrix = noise.transition("joint", 0.5, 3, counts=np.bincount(tail))
    np.testing.assert_allclose(matrix[2], [900 / 990, 90 / 990, 0])
    np.testing.assert_allclose(matrix.sum(1), 1)
    noisy = noise.draw("joint", tail, 3, 0.5, seed=0)
    away = noisy[(tail == 1) & (noisy != 1)]
    assert (away == 0).mean() > 0.9


def test_joint_any_redraws_from_the_class_sizes():
    tail = np.repeat([0, 1, 2], [9000, 900, 100])
    counts = np.bincount(tail)
    matrix = noise.transition("joint_any", 0.1, 3, counts=counts)
    np.testing.assert_allclose(matrix, [[0.9, 0.09, 0.01]] * 3)
    share = noise.redrawn_share(0.1, counts)
    np.testing.assert_allclose(share, 0.1 / (1 - 0.81 - 0.0081 - 0.0001))
    noisy = noise.draw("joint_any", tail, 3, 0.1, seed=0)
    assert 0.09 < (noisy != tail).mean() < 0.11
    # The classes keep their sizes, up to chance.
    np.testing.assert_allclose(np.bincount(noisy), counts, atol=100)
    few = np.repeat([0, 1], [90, 10])
    assert noise.redrawn_share(0.18, np.bincount(few)) == pytest.approx(1)
    assert noise.redrawn_share(0.0, np.array([5, 0])) == 0
    with pytest.raises(UserError, match="^config.data.rate: "):
        noise.draw("joint_any", few, 2, 0.2, seed=0)


@pytest.mark.parametrize("ids", [[3, 8, 11], ["a/1.png", "b/2.png", "b/3"]])
def test_saved_noise_is_read_back_by_id(tmp_path, ids):
    file, ids = tmp_path / "n.json", np.array(ids)
    content = {"ids": ids.tolist(), "labels": [2, 0, 1]}
    file.write_text(json.dumps(content))
    assert fakes.read_noise(file, ids[::-1], 3, ids).tolist() == [1, 0, 2]
    with pytest.raises(UserError, match=f"^{file}: no label for 1 of the 2"):
        fakes.read_noise(file, np.array([ids[0], ids[0] + ids[0]]), 3, ids)


@pytest.mark.parametrize("content, labels", [("5678", [6, 8]), ("56", [5, 6])])
def test_dividemix_list_for_all_or_for_those_kept(tmp_path, content, labels):
    file = tmp_path / "0.4_sym.json"
    file.write_text(json.dumps([int(digit) for digit in content]))
    ids, all_ids = np.array([11, 13]), np.array([10, 11, 12, 13])
    assert fakes.read_noise(file, ids, 10, all_ids).tolist() == labels


@pytest.mark.parametrize(
    "content, word",
    [
        ("[1, 2, 3]", "holds 3 labels; needed are 4 .* or 2"),
        ("[1, 2.0]", "number 1 is 2.0"),
        ("[1, true]", "number 1 is True"),
        ('[1, "2"]', "number 1 is '2'"),
        ("[1, 10]", "number 1 is 10"),
        ("[1, -1]", "number 1 is -1"),
        ('{"labels": [1]}', "neither a list"),
        ('{"ids": [1], "labels": [1, 2]}', "1 ids but 2 labels"),
        ('{"ids": [[1]], "labels": [1]}', "ids must be"),
        ("[1, 2", "not JSON"),
    ],
)
def test_bad_noise_files(tmp_path, content, word):
    file = tmp_path / "n.json"
    with pytest.raises(UserError, match="^config.data.noise_file: "):
        fakes.read_noise(file, np.array([0, 2]), 10, np.arange(4))
    file.write_text(content)
    with pytest.raises(UserError, match=f"^{file}: .*{word}"):
        fakes.read_noise(file, np.array([0, 2]), 10, np.arange(4))
