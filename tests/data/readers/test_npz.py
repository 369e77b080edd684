import logging

import numpy as np
import pytest

from jaxnlt.runtime.errors import UserError
from tests.data import fakes

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def write(folder, **changes):
    content = {"train_images": IMAGES, "train_labels": LABELS} | changes
    path = folder / "a.npz"
    np.savez(path, **{k: v for k, v in content.items() if v is not None})
    return path


def test_without_test_set(tmp_path):
    source = fakes.read("npz", write(tmp_path))
    assert source.test is None and source.train.true_labels is None
    assert source.train.labels.tolist() == LABELS.tolist()
    assert source.train.ids.tolist() == list(range(6))
    assert source.class_names == ("0", "1", "2")


def test_with_everything(tmp_path, caplog):
    true = np.roll(LABELS, 1)
    changes = {"train_true_labels": true, "train_true_label": true}
    changes |= {"test_images": IMAGES[:3], "test_labels": LABELS[:3]}
    path = write(tmp_path, **changes, class_names=np.array(["a", "b", "c"]))
    with caplog.at_level(logging.WARNING, "jaxnlt"):
        source = fakes.read("npz", path)
    assert "not used: train_true_label" in caplog.text
    assert source.train.true_labels.tolist() == true.tolist()
    assert source.test.labels.tolist() == [0, 1, 2]
    assert source.class_names == ("a", "b", "c")


@pytest.mark.parametrize(
    "changes, word",
    [
        ({"train_images": None}, "holds no train_images"),
        ({"train_labels": None}, "holds no train_labels"),
        ({"test_images": IMAGES}, "holds no test_labels"),
        ({"train_labels": LABELS[:5]}, "train_labels must have shape"),
        ({"train_labels": LABELS * 1.0}, "train_labels must be integers"),
        ({"train_labels": LABELS - 1}, "train_labels must be class numbers"),
        ({"train_labels": LABELS * 2}, "train_labels: class 1 "),
        ({"train_labels": LABELS * 0}, "train_labels: holds one class"),
        ({"train_labels": np.array([None] * 6)}, "truncated, damaged"),
        ({"train_true_labels": LABELS[:5]}, "train_true_labels must have"),
        ({"train_images": IMAGES / 255}, "train_images must be uint8"),
        ({"train_images": IMAGES[..., 0]}, "train_images must be uint8"),
        ({"train_images": IMAGES[..., :2]}, "train_images must hold"),
        ({"train_images": IMAGES[:0], "train_labels": LABELS[:0]}, "train_im"),
        ({"test_images": IMAGES[:, 1:], "test_labels": LABELS}, "test_images"),
        ({"class_names": np.array(["a", "b"])}, "train_labels: must be in"),
        ({"class_names": np.array(list("abcd"))}, "train_labels: class d "),
    ],
)
def test_refused(tmp_path, changes, word):
    path = write(tmp_path, **changes)
    with pytest.raises(UserError, match=f"^{path}: {word}"):
        fakes.read("npz", path)


def test_missing_or_damaged(tmp_path):
    with pytest.raises(UserError, match="^config.data.path: "):
        fakes.read("npz")
    with pytest.raises(UserError, match=f"^{tmp_path}/x.npz: no such file"):
        fakes.read("npz", tmp_path / "x.npz")
    path = write(tmp_path)
    data = path.read_bytes()
    for size in (0, 10, 200, len(data) - 30):
        path.write_bytes(data[:size])
        with pytest.raises(UserError, match=rf"^{path}: truncated, dam.*\Z"):
            fakes.read("npz", path)
    np.save(tmp_path / "a.npy", LABELS)
    with pytest.raises(UserError, match=f"^{tmp_path}/a.npy: "):
        fakes.read("npz", tmp_path / "a.npy")
