"""What holds for every reader of image files."""

import numpy as np
import pytest

from jaxnlt.data import registry
from jaxnlt.data.files import ImageFiles
from jaxnlt.runtime.errors import UserError
from tests.data import fakes


def check(source, sizes):
    """Sizes are those of train, test and the additional test sets."""
    splits = [source.train, source.test, *source.more_tests.values()]
    assert [len(split) for split in splits] == sizes
    for split in splits:
        assert isinstance(split.images, ImageFiles)
        assert split.labels.dtype == np.int32
        paths = split.images.paths.tolist()
        assert paths == split.ids.tolist() == list(dict.fromkeys(paths))
        assert all((split.images.root / path).is_file() for path in paths)
        counts = np.bincount(split.labels, minlength=len(source.class_names))
        assert (counts > 0).all() and len(counts) == len(source.class_names)
        assert split.images.open(len(split) - 1).dtype == np.uint8
    for split in splits[1:]:
        np.testing.assert_array_equal(split.labels, split.true_labels)


def refused(name, root, **fields) -> str:
    """The one line with which a reader refuses its files."""
    with pytest.raises(UserError) as error:
        fakes.read(name, root, **fields)
    message, home = str(error.value), registry.get(name).homepage
    assert "\n" not in message
    if home:
        assert message.endswith(f" at {home}")
    return message


def append(file, line) -> int:
    """Adds a line to a list; gives its number."""
    with open(file, "a") as stream:
        stream.write(f"{line}\n")
    return len(file.read_text().splitlines())
