import json
import logging

import numpy as np
import pytest

from jaxnlt.data import imbalance, load, noise
from jaxnlt.runtime.errors import UserError
from tests.data import fakes

FOLDER = "cifar-10-batches-py"


def npz(path, labels, **more):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (len(labels), 4, 4, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(len(labels)) % 256
    np.savez(path, train_images=images, train_labels=labels, **more)
    return path


@pytest.fixture(scope="module")
def digits():
    return load.dataset(fakes.config("digits"))


def test_digits_are_long_tailed_noisy_and_reproducible(digits):
    a, b = digits, load.dataset(fakes.config("digits"))
    assert a.true_counts.tolist() == [134, 103, 80, 62, 48, 37, 28, 22, 17, 13]
    assert a.description.counts_given == tuple(a.given_counts)
    assert a.description.counts_true == tuple(a.true_counts)
    realised = float((a.train.labels != a.train.true_labels).mean())
    assert a.description.noise_rate_realised == realised
    assert 0.3 < realised < 0.42
    assert (a.train.labels == b.train.labels).all()
    assert (a.train.ids == b.train.ids).all()
    assert (a.train.ids[1:] > a.train.ids[:-1]).all()
    assert a.train.labels.dtype == np.int32
    assert a.test_kind == "test" and len(a.test) == 400
    stored = a.description.as_json()
    assert json.loads(json.dumps(stored)) == stored
    assert "n_more_tests" not in stored
    scaled = a.train.images / 255
    np.testing.assert_allclose(a.mean, scaled.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(a.std, scaled.std((0, 1, 2)), rtol=1e-12)
    clean = load.dataset(fakes.config("digits", noise="none")).train
    assert not np.shares_memory(clean.labels, clean.true_labels)


def test_seeds():
    base = load.dataset(fakes.config("digits", seed=5))
    same = load.dataset(fakes.config("digits", seed=6, data_seed=5))
    other = load.dataset(fakes.config("digits", seed=6))
    assert (base.train.ids == same.train.ids).all()
    assert (base.train.labels == same.train.labels).all()
    assert not np.array_equal(base.train.ids, other.train.ids)
    assert same.description.data_seed == 5 and other.description.data_seed == 6
    assert (base.test.ids == other.test.ids).all()


def test_dev_split_is_clean_balanced_and_apart(digits):
    dev = load.dataset(fakes.config("digits", split="dev"))
    assert dev.test_kind == "dev"
    assert np.bincount(dev.test.labels).tolist() == [30] * 10
    assert (dev.test.labels == dev.test.true_labels).all()
    parts = [set(s.ids) for s in (dev.train, dev.test, digits.test)]
    assert len(set.union(*parts)) == sum(map(len, parts))
    assert dev.true_counts[0] == 104
    # The same whatever the long tail.
    flat = load.dataset(fakes.config("digits", split="dev", imb=1.0))
    assert (flat.test.ids == dev.test.ids).all()
    with pytest.raises(UserError, match="^class 0: split=dev"):
        load.dataset(fakes.config("digits", split="dev", n_max=134))


@pytest.mark.parametrize("kind", ["sym", "sym_excl", "joint", "flip"])
def test_noise_follows_its_images(kind):
    """Labels belong to their images in whatever order they are drawn."""
    config = fakes.config("digits", noise=kind, rate=0.3)
    noisy = load.dataset(config).train
    clean = load.dataset(fakes.config("digits", noise="none")).train
    assert (noisy.ids == clean.ids).all()
    assert (noisy.true_labels == clean.labels).all()
    assert 0.2 < (noisy.labels != clean.labels).mean() < 0.4


def test_class_by_class_kinds_are_drawn_in_that_order():
    d = load.dataset(fakes.config("digits", noise="sym_excl", imb=1.0))
    rng = np.random.RandomState(3)
    pool = fakes.read("digits").train
    kept, _ = imbalance.draw_subset(pool.labels, np.full(10, 134), rng)
    rows = np.concatenate(kept)
    drawn = noise.draw("sym_excl", pool.labels[rows], 10, 0.4, 3)
    given = dict(zip(d.train.ids, d.train.labels, strict=True))
    assert [given[i] for i in pool.ids[rows]] == drawn.tolist()


def test_noise_is_read_back(digits, tmp_path):
    content = json.dumps(noise.as_json(digits))
    (tmp_path / "noise.json").write_text(content)
    config = fakes.config("digits", noise_file=tmp_path / "noise.json")
    config.data.noise = "none"
    again = load.dataset(config)
    assert (again.train.labels == digits.train.labels).all()
    assert (again.train.true_labels == digits.train.true_labels).all()
    assert again.description.noise.startswith("file:")
    config.data_seed = 99
    with pytest.raises(UserError, match="no label for"):
        load.dataset(config)


def test_cifar_keeps_official_ids(tmp_path):
    images, labels = fakes.cifar10(tmp_path / FOLDER)
    noisy = (labels[:100] + np.arange(100) % 2) % 10
    (tmp_path / "n.json").write_text(json.dumps(noisy.tolist()))
    fields = {"path": tmp_path, "noise_file": tmp_path / "n.json"}
    d = load.dataset(fakes.config("cifar10", n_max=8, **fields))
    assert (d.train.labels == noisy[d.train.ids]).all()
    assert (d.train.true_labels == labels[d.train.ids]).all()
    assert (d.train.images == images[d.train.ids]).all()
    assert d.mean == (0.4914, 0.4822, 0.4465)
    assert d.true_counts[0] == 8 and d.true_counts[9] == 0


def test_human_noise_rides_along(tmp_path):
    _, labels = fakes.cifar10(tmp_path / FOLDER)
    worse = (labels[:100] + np.arange(100) % 3) % 10
    content = {"clean_label": labels[:100], "worse_label": worse}
    fakes.torch_zip(tmp_path / "CIFAR-10_human.pt", content)
    for path in (tmp_path, tmp_path / FOLDER):
        d = load.dataset(fakes.config("cifar10n", path=path, n_max=8))
        assert (d.train.labels == worse[d.train.ids]).all()
        assert (d.train.true_labels == labels[d.train.ids]).all()
    dev = {"split": "dev", "n_max": 8}
    with pytest.raises(UserError, match="^class kind0: split=dev"):
        load.dataset(fakes.config("cifar10n", path=tmp_path, **dev))


def test_user_data_are_kept_whole(tmp_path):
    test = {"test_images": np.zeros((4, 4, 4, 3), np.uint8)}
    test["test_labels"] = np.array([0, 1, 0, 1])
    path = npz(tmp_path / "a.npz", np.repeat([0, 1], [40, 7]), **test)
    d = load.dataset(fakes.config("npz", path=path))
    assert d.train.ids.tolist() == list(range(47))
    assert d.train.true_labels is None and d.true_counts is None
    assert d.description.noise_rate_realised is None
    assert d.description.counts_true is None
    assert d.given_counts.tolist() == [40, 7]
    assert d.test_kind == "test"


def test_without_a_test_set_a_balanced_part_is_held_out(tmp_path, caplog):
    labels = np.repeat([0, 1, 2], [60, 30, 7])
    true = (labels + (np.arange(97) % 4 == 0)) % 3
    path = npz(tmp_path / "a.npz", labels, train_true_labels=true)
    with caplog.at_level(logging.INFO, "jaxnlt"):
        d = load.dataset(fakes.config("npz", path=path))
    assert d.test_kind == "held_out"
    assert np.bincount(d.test.labels).tolist() == [10, 10]
    assert d.given_counts.tolist() == [50, 20, 7]
    assert not set(d.test.ids) & set(d.train.ids)
    assert len(d.train) + len(d.test) == 97
    assert (d.test.true_labels == true[d.test.ids]).all()
    assert (d.test.true_labels != d.test.labels).any()
    said = [r for r in caplog.records if "are held out" in r.message]
    assert len(said) == 1 and "given labels" in said[0].message


def test_a_single_image_stays_in_training(tmp_path, caplog):
    path = npz(tmp_path / "a.npz", np.repeat([0, 1, 2], [60, 30, 1]))
    d = load.dataset(fakes.config("npz", path=path))
    assert np.bincount(d.test.labels, minlength=3)[2] == 0
    assert d.given_counts[2] == 1
    assert "whole in training: 2 (1)" in caplog.text
    path = npz(tmp_path / "b.npz", np.arange(4))
    with pytest.raises(UserError, match="leaves none to hold out"):
        load.dataset(fakes.config("npz", path=path))


def test_noise_on_user_data_takes_the_files_labels_as_true(tmp_path):
    labels = np.repeat([0, 1, 2], 40)
    path = npz(tmp_path / "a.npz", labels)
    config = fakes.config("npz", path=path, noise="sym", rate=0.5, imb=0.5)
    d = load.dataset(config)
    assert (d.train.true_labels == labels[d.train.ids]).all()
    assert 0.1 < d.description.noise_rate_realised < 0.6
    assert d.true_counts[2] == d.true_counts[0] // 2


def test_emptied_classes_are_one_warning(caplog):
    load.dataset(fakes.config("digits", n_max=20, imb=0.01, noise="none"))
    warned = [r.message for r in caplog.records if "long tail" in r.message]
    assert len(warned) == 1
    assert warned[0].endswith("labelled 6, 7, 8, 9")


def test_class_emptied_by_noise_is_one_warning(digits, caplog, tmp_path):
    labels = np.where(digits.train.labels > 7, 0, digits.train.labels)
    content = {"ids": digits.train.ids.tolist(), "labels": labels.tolist()}
    (tmp_path / "n.json").write_text(json.dumps(content))
    d = load.dataset(fakes.config("digits", noise_file=tmp_path / "n.json"))
    assert d.given_counts[8] == 0
    warned = [r.message for r in caplog.records]
    assert warned == ["the noise left no training image labelled 8, 9"]


def test_constant_channel_keeps_a_finite_scale(tmp_path):
    content = {"train_images": np.full((8, 4, 4, 3), 51, np.uint8)}
    path = tmp_path / "a.npz"
    np.savez(path, train_labels=np.arange(8) % 2, **content)
    d = load.dataset(fakes.config("npz", path=path))
    np.testing.assert_allclose(d.mean, [0.2] * 3)
    assert d.std == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    "benchmark, changes, field",
    [
        ("digits", {"imb": 0.0}, "data.imb"),
        ("digits", {"imb_type": "linear"}, "data.imb_type"),
        ("digits", {"noise": "foo"}, "data.noise"),
        ("digits", {"noise": "human:worse"}, "data.noise"),
        ("cifar100", {"noise": "human:worse"}, "data.noise"),
        ("cifar10", {"noise": "human:noisy"}, "data.noise"),
        ("cifar10", {"noise": "human:"}, "data.noise"),
        ("digits", {"noise": "red"}, "data.noise"),
        ("red_mini_imagenet", {"noise": "split"}, "data.noise"),
        ("digits", {"noise": "asym"}, "data.noise"),
        ("digits", {"path": "x"}, "data.path"),
        ("digits", {"labels_file": "x"}, "data.labels_file"),
        ("cifar10", {"labels_file": "x"}, "data.labels_file"),
        ("digits", {"image_size": 8}, "data.image_size"),
        ("digits", {"name": "mnist"}, "data.name"),
        ("digits", {"transform": "images"}, "data.transform"),
        ("npz", {"on_bad_image": "skip"}, "data.on_bad_image"),
        ("digits", {"on_bad_image": "skip"}, "data.on_bad_image"),
        ("digits", {"workers": 3}, "data.workers"),
        ("images", {"transform": "paper"}, "data.transform"),
        ("images", {"transform": ""}, "data.transform"),
        ("red_mini_imagenet", {"noise_file": "x"}, "data.noise_file"),
        ("npz", {"split": "dev"}, "split"),
    ],
)
def test_refused_before_reading(benchmark, changes, field):
    with pytest.raises(UserError, match=rf"^config.{field}: .*\Z"):
        load.check(fakes.config(benchmark, **changes))
