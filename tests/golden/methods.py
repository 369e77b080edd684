"""Methods as a run makes them."""

import importlib

import numpy as np

from jaxnlt import method as base


def labels_of(counts):
    """Labels of which each class has so many."""
    return np.repeat(np.arange(len(counts)), counts)


def method(text, labels, fields=(), num_classes=None, ids=None, **options):
    """The method of a config ``NAME:ARGUMENT``.

    ``fields`` change its config, ``options`` what is the method's own there.
    Where labels do not matter, ``range(C)`` gives one sample a class.
    """
    name, _, arg = text.partition(":")
    config = importlib.import_module(f"configs.{name}").get_config(arg)
    with config.unlocked():
        config.update_from_flattened_dict(dict(fields))
        config[config.method].update(options)
    labels = np.asarray(labels)
    num_classes = num_classes or int(labels.max()) + 1
    return base.create(config, base.DataInfo(labels, num_classes, ids))
