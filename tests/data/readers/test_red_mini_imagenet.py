import dataclasses
import pathlib
import shutil

import numpy as np
import pytest

from jaxnlt.data import registry
from jaxnlt.data.readers import red_mini_imagenet
from jaxnlt.data.records import WRONG, NoiseRequest, ReadRequest, verdicts
from jaxnlt.runtime.errors import UserError
from tests.data import fake_nlt, fake_web, fakes
from tests.data.readers.checks import append, check, refused

NAME = "red_mini_imagenet"
SPLITS = "mini-imagenet/split"


@pytest.mark.parametrize("layout", ["all_images", "release", "training"])
def test_clean_and_web_images(made, layout):
    source = fakes.read(NAME, made("red", layout=layout))
    check(source, [20, 4])
    assert source.class_names == fake_nlt.NAMES
    np.testing.assert_array_equal(source.train.labels, source.train.true_labels)
    paths = map(pathlib.Path, source.train.ids)
    for path, label in zip(paths, source.train.labels, strict=True):
        assert path.name.startswith(fake_nlt.SYNSETS[label])
    assert len(source.web) == 12 and (source.web.true_labels == WRONG).all()
    np.testing.assert_array_equal(np.bincount(source.web.labels), [3] * 4)
    for row in range(12):
        assert source.web.images.open(row).shape == (84, 84, 3)
        assert "/n0" not in str(source.web.ids[row])


def noisy(source, train, rate, seed=4):
    rng, request = np.random.RandomState(seed), ReadRequest(registry.get(NAME))
    noise = NoiseRequest(request, source, train, rate, rng)
    return red_mini_imagenet.add_web(noise)


def test_noise_adds_web_images(made):
    source = fakes.read(NAME, made("red"))
    kept = source.train.take(np.arange(3, 16))
    given = dict(zip(source.web.ids, source.web.labels, strict=True))
    for rate, wanted in ((0.0, 0), (0.2, 3), (0.4, 8)):
        train = noisy(source, kept, rate)
        assert len(train) == 13 + wanted
        assert train.ids[:13].tolist() == kept.ids.tolist()
        new = train.ids[13:]
        assert len(set(new)) == wanted and set(new) <= set(source.web.ids)
        assert [given[path] for path in new] == train.labels[13:].tolist()
        assert (train.true_labels[13:] == WRONG).all()
        assert train.images.paths.tolist() == train.ids.tolist()
        again = noisy(source, kept, rate)
        assert again.ids.tolist() == train.ids.tolist()
    assert noisy(source, kept, 0.4, 5).ids.tolist() != train.ids.tolist()
    with pytest.raises(UserError, match="^config.data.rate: .* 13 web images"):
        noisy(source, kept, 0.5)
    few = dataclasses.replace(source, web=source.web.take(np.arange(2)))
    assert len(noisy(few, kept, 0.1)) == 14


@pytest.mark.parametrize("layout", ["release", "training"])
def test_splits_of_the_release(made, layout):
    root = made("red", layout=layout)
    source = fakes.read(NAME, root, noise="split:red_noise_nl_0.4")
    assert source.web is None and len(source.train) == 18
    known, wrong = verdicts(source.train)
    assert known.all() and wrong.sum() == 6
    for row in range(18):
        assert source.train.images.open(row).shape == (84, 84, 3)
    web = ["/n0" not in path for path in source.train.ids]
    np.testing.assert_array_equal(wrong, web)
    blue = fakes.read(NAME, root, noise="split:blue_noise_nl_0.2").train
    wrong = np.flatnonzero(verdicts(blue)[1])
    pairs = [(blue.labels[i], blue.true_labels[i]) for i in wrong]
    assert pairs == [(1, 0), (0, 1)]


def test_missing_images(copy):
    root = copy("red")
    shutil.rmtree(root / "mini-imagenet" / "all_images")
    message = refused(NAME, root)
    assert "noisy_images/" in message and "red_noise_nl_0.8 lists" in message
    assert "mini-imagenet/all_images" in message


@pytest.mark.parametrize(
    "split, line, words",
    [
        ("red_noise_nl_0.8", "0abc.jpg 4", "label 4 has no line in"),
        ("blue_noise_nl_0.0", "n99999999.jpg 0", "class triceratops must have"),
        ("red_noise_nl_0.4", "n9999999900000001.jpg 0", "n9999999900000001.jp"),
    ],
)
def test_wrong_label(copy, split, line, words):
    root = copy("red")
    append(root / SPLITS / split, line)
    noise = f"split:{split}" if split == "red_noise_nl_0.4" else "red"
    message = refused(NAME, root, noise=noise)
    assert message.startswith(f"{root / SPLITS / split}: {words}")


def test_class_without_image(copy):
    root = copy("red")
    file = root / SPLITS / "red_noise_nl_0.4"
    lines = [x for x in file.read_text().splitlines() if x[-1] != "2"]
    fake_web.text(file, lines)
    message = refused(NAME, root, noise=f"split:{file.name}")
    assert message.startswith(f"{file}: class Gordon setter has no image")
    message = refused(NAME, root, noise="split:red_noise_nl_0.5")
    assert message.startswith(f"{root / SPLITS}/red_noise_nl_0.5: ")
