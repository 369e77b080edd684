"""Whatever is missing or damaged names itself and where it is described."""

import shutil

import numpy as np
import pytest

from jaxnlt.data import files, registry
from jaxnlt.data.readers import webvision
from jaxnlt.runtime.errors import Once, UserError, logger
from tests.data import fake_web

MADE = {
    "webvision": fake_web.webvision,
    "animal10n": fake_web.animal_raw,
    "food101n": fake_web.food,
    "clothing1m": fake_web.clothing,
    "red_mini_imagenet": fake_web.red,
    "images": fake_web.images,
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    return {name: make(folder / name) for name, make in MADE.items()}


@pytest.fixture
def copy(kept, tmp_path):
    """A miniature that a test may damage."""
    return lambda name: shutil.copytree(kept[name], tmp_path / "copy")


def refused(name, root, **options) -> str:
    with pytest.raises(UserError) as error:
        if {"imagenet", "num_classes"} & set(options):
            webvision.read(str(root), **options)
        else:
            fake_web.read(name, str(root), **options)
    message = str(error.value)
    assert "\n" not in message
    if name != "images":
        assert message.endswith(f" at {registry.get(name).homepage}")
    return message


META = "Food-101N_release/meta"


@pytest.mark.parametrize(
    "name, gone",
    [
        ("webvision", "info/synsets.txt"),
        ("webvision", "info/train_filelist_google.txt"),
        ("webvision", "info/val_filelist.txt"),
        ("webvision", "val_images_256"),
        ("webvision", "google/q0031"),
        ("food101n", f"{META}/classes.txt"),
        ("food101n", f"{META}/imagelist.tsv"),
        ("food101n", f"{META}/verified_train.tsv"),
        ("food101n", f"{META}/verified_val.tsv"),
        ("food101n", "Food-101N_release/images/baklava"),
        ("food101n", "food-101/meta/test.txt"),
        ("food101n", "food-101/images/apple_pie"),
        ("clothing1m", "noisy_train_key_list.txt"),
        ("clothing1m", "clean_val_key_list.txt"),
        ("clothing1m", "clean_test_key_list.txt"),
        ("clothing1m", "noisy_label_kv.txt"),
        ("clothing1m", "clean_label_kv.txt"),
        ("clothing1m", "images/1/05"),
        ("animal10n", "testing"),
        ("red_mini_imagenet", "mini-imagenet/class_name.txt"),
        ("red_mini_imagenet", "mini-imagenet/split/blue_noise_nl_0.0"),
        ("red_mini_imagenet", "mini-imagenet/split/red_noise_nl_0.8"),
        ("red_mini_imagenet", "mini-imagenet/split/clean_validation"),
        ("red_mini_imagenet", "mini-imagenet/validation"),
        ("images", "train"),
    ],
)
def test_missing(copy, name, gone):
    root = copy(name)
    if (root / gone).is_dir():
        shutil.rmtree(root / gone)
    else:
        (root / gone).unlink()
    message = refused(name, root)
    place = {
        # Named by the first image that was looked for.
        "mini-imagenet/validation": "validation",
        "mini-imagenet/class_name.txt": "class_name.txt",
    }.get(gone, gone)
    assert place in message and "no such" in message.lower(), message


def test_missing_images_of_red(copy):
    root = copy("red_mini_imagenet")
    shutil.rmtree(root / "mini-imagenet" / "all_images")
    message = refused("red_mini_imagenet", root)
    assert "noisy_images/" in message and "red_noise_nl_0.8 lists" in message
    assert "mini-imagenet/all_images" in message


@pytest.mark.parametrize("name", MADE)
def test_no_folder(name, tmp_path):
    assert refused(name, "").startswith("config.data.path: is missing")
    message = refused(name, tmp_path / "gone")
    assert message.startswith(f"config.data.path: {tmp_path / 'gone'}: no such")
    message = refused(name, tmp_path)
    assert message.startswith(str(tmp_path))


def test_animal10n_of_neither_form(copy):
    root = copy("animal10n")
    shutil.rmtree(root / "training")
    message = refused("animal10n", root)
    assert "neither holds the folders training" in message
    assert "data_batch_1.bin" in message


def test_animal10n_file_without_label(copy):
    root = copy("animal10n")
    fake_web.jpeg(root / "training" / "cat.jpg", 0)
    assert "training/cat.jpg: its name" in refused("animal10n", root)


def test_animal10n_damaged_binary(kept, tmp_path):
    root = fake_web.animal_binary(tmp_path / "b", kept["animal10n"])
    first, second = (root / f"data_batch_{k}.bin" for k in (1, 2))
    content = first.read_bytes()
    first.write_bytes(content[:-1])
    message = refused("animal10n", root)
    assert f"{first}: has {20 * 12296 - 1} bytes, not a multiple" in message
    first.write_bytes(b"")
    assert f"{first}: has 0 bytes" in refused("animal10n", root)
    first.write_bytes(content[: 12296 + 7] + b"\x0a" + content[12296 + 8 :])
    assert f"{first}: record 1 has label 10, not one of 0..9" in refused(
        "animal10n", root
    )
    first.rename(root / "data_batch_3.bin")
    assert f"{first}: no such file" in refused("animal10n", root)
    (root / "data_batch_3.bin").unlink()
    second.rename(first)
    message = refused("animal10n", root)
    assert "data_batch_*.bin: class cat has no image" in message


@pytest.mark.parametrize(
    "name, file, line, expected",
    [
        ("webvision", "info/train_filelist_google.txt", "a.jpg 53", "0..52"),
        ("webvision", "info/val_filelist.txt", "a.jpg", "0..52"),
        ("webvision", "info/val_filelist.txt", "a.jpg -1", "0..52"),
        ("clothing1m", "noisy_label_kv.txt", "images/a.jpg 14", "0..13"),
        ("clothing1m", "clean_label_kv.txt", "images/a.jpg x", "0..13"),
        ("food101n", f"{META}/imagelist.tsv", "soup/a.jpg", "soup"),
        ("food101n", f"{META}/verified_val.tsv", "baklava/a.jpg\t2", "a.jpg"),
        (
            "red_mini_imagenet",
            "mini-imagenet/split/red_noise_nl_0.8",
            "0abc.jpg 4",
            "label 4 has no line in",
        ),
        (
            "red_mini_imagenet",
            "mini-imagenet/split/blue_noise_nl_0.0",
            "n99999999.jpg 0",
            "must have clean images of one synset",
        ),
    ],
)
def test_unknown_label_in_a_list(copy, name, file, line, expected):
    root = copy(name)
    with open(root / file, "a") as stream:
        stream.write(f"{line}\n")
    message = refused(name, root)
    assert str(root / file) in message and expected in message, message
    if "lists" in expected or "label" in expected or "synset" in expected:
        return
    number = len((root / file).read_text().splitlines())
    assert f": line {number}: " in message


def test_red_image_of_another_synset(copy):
    root = copy("red_mini_imagenet")
    file = root / "mini-imagenet" / "split" / "red_noise_nl_0.4"
    with open(file, "a") as stream:
        stream.write("n9999999900000001.jpg 0\n")
    message = refused("red_mini_imagenet", root, split=file.name)
    assert f"{file}: n9999999900000001.jpg is of none" in message
    message = refused("red_mini_imagenet", root, split="red_noise_nl_0.5")
    assert "split/red_noise_nl_0.5" in message


def test_clothing1m_key_without_label(copy):
    root = copy("clothing1m")
    with open(root / "clean_val_key_list.txt", "a") as stream:
        stream.write("images/0/00/7.jpg\n")
    assert "images/0/00/7.jpg has no label in clean_label_kv.txt" in refused(
        "clothing1m", root
    )


@pytest.mark.parametrize(
    "name, file, expected",
    [
        ("webvision", "info/train_filelist_google.txt", "lists nothing"),
        ("clothing1m", "clean_test_key_list.txt", "lists nothing"),
    ],
)
def test_empty_list(copy, name, file, expected):
    root = copy(name)
    (root / file).write_text("\n")
    assert f"{root / file}: {expected}" in refused(name, root)


def test_class_without_image(copy):
    root = copy("webvision")
    file = root / "info" / "train_filelist_google.txt"
    lines = [x for x in file.read_text().splitlines() if x[-3:] != " 17"]
    fake_web.text(file, lines)
    message = refused("webvision", root)
    assert f"{file}: class thing 8 (n01440119) has no image" in message


def test_animal10n_class_without_image(copy):
    root = copy("animal10n")
    for file in (root / "training").glob("4_*"):
        file.unlink()
    assert "class cheetah has no image" in refused("animal10n", root)


def test_red_class_without_image(copy):
    root = copy("red_mini_imagenet")
    file = root / "mini-imagenet" / "split" / "red_noise_nl_0.4"
    lines = [x for x in file.read_text().splitlines() if x[-1] != "2"]
    fake_web.text(file, lines)
    message = refused("red_mini_imagenet", root, split=file.name)
    assert f"{file}: class Gordon setter has no image" in message


def test_listed_twice(copy, caplog):
    root = copy("webvision")
    file = root / "info" / "train_filelist_google.txt"
    with open(file, "a") as stream:
        stream.write("google/q0000/img 0_0.jpg 49\n")
    source = fake_web.read("webvision", str(root))
    assert len(source.train) == 100 and source.train.labels[0] == 0
    assert f"{file}: lists 1 images more than once" in caplog.text


def test_webvision_options(copy):
    root = copy("webvision")
    for classes in (1, 54):
        message = refused("webvision", root, num_classes=classes)
        assert message.startswith("num_classes: must lie in 2..53, is")
    gone = root / "gone"
    message = refused("webvision", root, imagenet=str(gone))
    assert f"{gone}: no such folder" in message
    (gone / "0").mkdir(parents=True)
    message = refused("webvision", root, imagenet=str(gone))
    assert f"{gone / '0'}: holds no image" in message
    fake_web.jpeg(gone / "0" / "a.JPEG", 0)
    message = refused("webvision", root, imagenet=str(gone))
    assert f"{gone / '1'}: no such folder" in message


def test_nlt(tmp_path):
    with pytest.raises(UserError, match="labels_file: is missing, it names"):
        fake_web.read("imagenet_nlt", str(tmp_path), labels_file="")
    manifest = tmp_path / "manifest.csv"
    with pytest.raises(UserError, match="classes.txt: No such.*H2E-Framework"):
        fake_web.read("imagenet_nlt", str(tmp_path), labels_file=str(manifest))
    fake_web.text(tmp_path / "classes.txt", ["a", "b"])
    rows = ["path,label,true_label,source", "x/1.jpg,0,0,imagenet"]
    fake_web.text(manifest, [*rows, "x/2.jpg,1,-1,web"])
    with pytest.raises(UserError, match="/x: no such folder, .*manifest.csv"):
        fake_web.read("imagenet_nlt", str(tmp_path), labels_file=str(tmp_path))
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match="test.csv: No such file"):
        fake_web.read("imagenet_nlt", str(tmp_path), labels_file=str(manifest))
    fake_web.text(manifest, [*rows, "x/2.jpg,2,-1,web"])
    with pytest.raises(UserError, match="manifest.csv: line 3 is not"):
        fake_web.read("imagenet_nlt", str(tmp_path), labels_file=str(manifest))
    fake_web.text(manifest, rows)
    with pytest.raises(UserError, match="manifest.csv: class b has no image"):
        fake_web.read("imagenet_nlt", str(tmp_path), labels_file=str(manifest))


def test_images_class_of_the_test_set(copy):
    root = copy("images")
    fake_web.jpeg(root / "test" / "bird" / "0.jpg", 0)
    message = refused("images", root)
    assert message.startswith(f"{root / 'test' / 'bird'}: no training image")


def test_a_missing_image_is_named_when_it_is_opened(copy):
    root = copy("clothing1m")
    images = fake_web.read("clothing1m", str(root)).train.images
    path = root / images.paths[5]
    path.unlink()
    again = fake_web.read("clothing1m", str(root)).train.images
    np.testing.assert_array_equal(again.paths, images.paths)
    with pytest.raises(files.BadImage) as error:
        again.open(5)
    assert str(error.value) == f"{path}: no such file"


def test_warnings_name_the_list_first(copy, caplog):
    """So that two lists give two warnings in a run."""
    root = copy("clothing1m")
    logger.addFilter(once := Once())
    try:
        for kind in ("noisy", "clean"):
            file = root / f"{kind}_label_kv.txt"
            file.write_text(file.read_text() * 2)
        fake_web.read("clothing1m", str(root))
    finally:
        logger.removeFilter(once)
    assert caplog.text.count("more than once") == 2
