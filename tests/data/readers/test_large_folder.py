"""Folders whose images do not fit into memory are streamed."""

import numpy as np
import pytest
from PIL import Image

from jaxnlt import command_line
from jaxnlt.runtime.errors import UserError


def parse(root, *rest, arg="folder,smoke"):
    flags = [f"--config=erm:{arg}", f"--config.data.path={root}", *rest]
    return command_line.parse(["main", *flags])[0]


@pytest.mark.parametrize(
    "sizes, rest, benchmark",
    [
        ([(8, 8), (8, 8)], (), "folder"),
        ([(96, 64)] * 2, (), "folder"),
        ([(97, 64)] * 2, (), "images"),
        ([(8, 8), (9, 8)], (), "images"),
        ([(8, 8), (300, 8)], ("--config.data.image_size=16",), "folder"),
        ([], (), "folder"),  # which says what is missing
    ],
)
def test_the_folder_decides(tmp_path, caplog, sizes, rest, benchmark):
    caplog.set_level("INFO", "jaxnlt")
    for k, size in enumerate(sizes):
        (tmp_path / "train" / f"{k}").mkdir(parents=True)
        Image.fromarray(np.zeros(size[::-1], np.uint8)).save(
            tmp_path / "train" / f"{k}" / "a.png"
        )
    config = parse(tmp_path, "--config.batch_size=5", *rest)
    assert (config.benchmark, config.batch_size) == (benchmark, 5)
    assert config.max_steps == 2  # the key smoke is kept
    streamed = benchmark == "images"
    assert (config.data.transform == "images") == streamed
    assert [r.args[-1] for r in caplog.records] == ["images"] * streamed


def test_a_damaged_image_is_for_the_reader(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "a.png").write_bytes(b"none")
    assert parse(tmp_path).benchmark == "folder"
    with pytest.raises(UserError, match="no such folder"):
        parse(tmp_path / "away")
