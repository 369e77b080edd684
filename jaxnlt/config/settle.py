"""Settles what a config leaves to the user's images.

``folder`` leaves network, batches, augmentations and the way in which images
are held to what is found in the folder.  The command line and ``train.run``
settle a config before it is used, so that its hash, config.json, a resumed run
and a prediction know one and the same.
"""

from typing import Any

import ml_collections

from jaxnlt.config import base, fields
from jaxnlt.data import load, registry
from jaxnlt.data.records import Choice
from jaxnlt.runtime.errors import UserError, logger

#: The one network that torchvision's weights fit and that is small.
_PRETRAINED = "resnet18"


def settled(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Fills the fields that wait for the user's images; keeps all others.

    Args:
      config: of any method and benchmark; not changed.

    Returns:
      The same config where nothing waits, else a copy, locked.  What is
      settled stays as it is when it is settled again.

    Raises:
      UserError: the images cannot be listed, or a field that decides is of
        another type.
    """
    if not isinstance(config.benchmark, str):
        raise UserError(
            f"config.benchmark: expects str, is {config.benchmark!r}"
        )
    entry = registry.get(config.benchmark)
    if entry.choose is None:
        return config
    fields.read(base.DataOptions, config.data, "config.data")
    return filled(config, entry.choose(load.read_request(config)))


def filled(
    config: ml_collections.ConfigDict, choice: Choice
) -> ml_collections.ConfigDict:
    """Fills the fields that nobody has set, which are empty.

    Args:
      config: not changed.
      choice: what suits the images.

    Returns:
      The same config where nothing was empty, else a copy, locked; a note says
      what was chosen.
    """
    given = base.flatten(config.to_dict())
    values = {
        field: value
        for field, value in _fields(choice, given).items()
        if value != given.get(field)
        and (field == "benchmark" or not given.get(field))
    }
    if not values:
        return config
    found = config.copy_and_resolve_references()
    with found.unlocked():
        found.update_from_flattened_dict(values)
    model = found.model
    logger.info(
        "config.data.path: %s: %s (benchmark %s); network %s%s, batches of %d",
        config.data.path,
        choice.images,
        choice.benchmark,
        model.name,
        f" of width {model.width}" if model.width else "",
        found.batch_size,
    )
    return found.lock()


def _fields(choice: Choice, given: dict[str, Any]) -> dict[str, Any]:
    """Dotted names of fields, and what was chosen for them."""
    found: dict[str, Any] = {
        "benchmark": choice.benchmark,
        "batch_size": choice.batch_size,
        "warmup_batch_size": given.get("batch_size") or choice.batch_size,
        "augment.weak": choice.weak,
        "augment.strong": choice.strong,
    }
    if not given.get("data.transform"):
        found |= {
            "data.transform": choice.transform,
            "data.image_size": choice.image_size,
        }
    # A network that was named, or whose weights are read, has the published
    # size unless it was given another.
    if given.get("model.pretrained"):
        found["model.name"] = _PRETRAINED
    elif not given.get("model.name"):
        found |= {
            "model.name": choice.model,
            "model.width": choice.width,
            "model.blocks": choice.blocks,
        }
    return found
