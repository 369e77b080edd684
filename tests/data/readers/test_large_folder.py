"""The folder decides how its images are held and which network they get."""

import numpy as np
import pytest
from PIL import Image

from jaxnlt import command_line, train
from jaxnlt.config import base, settle
from jaxnlt.data import choice, load
from jaxnlt.data.readers import folder
from jaxnlt.runtime.errors import UserError


def picture(path, size, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros(size[::-1], np.uint8)).save(path, **more)


def parse(root, *rest, arg="folder,smoke"):
    flags = [f"--config=erm:{arg}", f"--config.data.path={root}", *rest]
    return command_line.parse(["main", *flags])[0]


SMALL = ("preact_resnet18", "crop_flip", "autoaugment")
LARGE = ("resnet18", "flip", "flip_autoaugment")
MEMORY, WHOLE, CUT = ("folder", ""), ("images", "images_small"), ("images",) * 2


@pytest.mark.parametrize(
    "sizes, changes, held, side, network",
    [
        ([(8, 8), (8, 8)], {}, MEMORY, 0, SMALL),
        ([(96, 64)] * 2, {}, MEMORY, 0, ("resnet18", *SMALL[1:])),
        ([(97, 64)] * 2, {}, WHOLE, 64, SMALL),
        ([(8, 8), (9, 8)], {}, WHOLE, 32, SMALL),
        ([(48, 90), (50, 48), (60, 20)], {}, WHOLE, 48, SMALL),
        ([(100, 90), (120, 150)], {}, CUT, 96, LARGE),
        ([(300, 200), (640, 480)], {}, CUT, 224, LARGE),
        ([(8, 8), (300, 8)], {"data.image_size": 16}, MEMORY, 16, SMALL),
        ([(8, 8), (30, 8)], {"data.transform": "animal10n"}, ("images", "anim"
         "al10n"), 0, ("preact_resnet18", *LARGE[1:])),
        # What the user sets stays, be it the default of another size.
        ([(300, 300)] * 2, {"model.name": "preact_resnet18", "batch_size": 5,
         "augment.weak": "crop_flip"}, CUT, 224, ("preact_resnet18",
         "crop_flip", "flip_autoaugment")),
    ],
)  # fmt: skip
def test_the_folder_decides(
    tmp_path, caplog, sizes, changes, held, side, network
):
    caplog.set_level("INFO", "jaxnlt")
    for k, size in enumerate(sizes):
        picture(tmp_path / "train" / f"{k}" / "a.png", size)
    flags = [f"--config.{name}={value}" for name, value in changes.items()]
    config = parse(tmp_path, *flags)
    (note,) = caplog.messages
    assert f"(benchmark {held[0]}); network {network[0]}" in note
    assert (config.benchmark, config.data.transform) == held
    augment = config.augment
    assert (config.model.name, augment.weak, augment.strong) == network
    assert config.data.image_size == side and config.max_steps == 2
    assert config.batch_size == changes.get("batch_size", 32)
    assert config.warmup_batch_size == config.batch_size
    assert config.model.width == (0 if "model.name" in changes else 16)
    base.check(config)
    load.check(config)
    # From Python it is the same, and what is settled stays.
    own = command_line.load_config("erm", "folder,smoke")
    own.data.path = str(tmp_path)
    own.update_from_flattened_dict(changes)
    assert base.short_hash(settle.settled(own)) == base.short_hash(config)
    assert own.benchmark == "folder" and settle.settled(config) is config
    assert train.default_workdir(config).startswith(f"runs/erm-{held[0]}-")


def test_sizes_are_those_that_are_shown(tmp_path, monkeypatch):
    """EXIF turns one; there are too many for memory, or weights to start."""
    exif = Image.Exif()
    exif[274] = 6
    picture(tmp_path / "a" / "a.jpg", (8, 4))
    picture(tmp_path / "b" / "a.jpg", (4, 8), exif=exif)
    assert parse(tmp_path).benchmark == "folder"
    started = parse(tmp_path, "--config.model.pretrained=resnet18.pth").model
    assert (started.name, started.width, started.blocks) == ("resnet18", 0, ())
    monkeypatch.setattr(choice, "MOST_BYTES", 2 * 8 * 4 * 3 - 1)
    assert parse(tmp_path).benchmark == "images"


def test_a_damaged_image_is_for_the_reader(tmp_path):
    for name in "ab":
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "a.png").write_bytes(b"none")
    assert parse(tmp_path).benchmark == "folder"
    for place in (tmp_path / "away", tmp_path / "train" / "a"):
        with pytest.raises(UserError, match="no such folder|no class folder"):
            parse(place)


def test_the_listing_that_decides_is_the_one_that_is_read(tmp_path, caplog):
    """Class folders may lie in the folder itself; nothing is said twice."""
    for name in ("-two", "drei (3)", "it's", "\u4e94"):
        picture(tmp_path / name / "sub" / "=a b.PNG", (4, 4))
        (tmp_path / name / "Thumbs.db").touch()
    picture(tmp_path / ".hidden" / "a.png", (9, 9))
    (tmp_path / "notes.txt").touch()
    config = parse(tmp_path)
    assert not caplog.records
    source = load.registry.get("folder").read(load.read_request(config))
    assert [r.args[1] for r in caplog.records] == [1]
    assert source.class_names == ("-two", "drei (3)", "it's", "\u4e94")
    listed = folder.list_files(load.read_request(config))
    assert [str(tmp_path / name) for name in source.train.ids] == [
        str(path) for path in listed
    ]
