"""Small configurations for tests that train."""

import numpy as np

from configs import dasc, erm

CONFIGS = {"dasc": dasc, "erm": erm}


def tiny(method="dasc", arg="digits", **fields):
    """A config of a two-convolution net that runs every phase in seconds."""
    config = CONFIGS[method].get_config(arg)
    small = {
        "model.width": 4,
        "model.blocks": (1, 1),
        "batch_size": 16,
        "warmup_batch_size": 16,
        "max_steps": 3,
        "eval_batch_size": 128,
    }
    if method == "dasc":
        small |= {
            "epochs": 4,
            "dasc.contrast_start": 1,
            "dasc.warmup": 2,
            "dasc.projection_dim": 4,
            "dasc.memory_size": 24,
        }
    with config.unlocked():
        config.update_from_flattened_dict(small | fields)
    return config


def same_figures(a, b):
    """Whether two epochs' records agree in all but their times."""
    timing = {"seconds", "images_per_second"}
    return {k: v for k, v in a.items() if k not in timing} == {
        k: v for k, v in b.items() if k not in timing
    }


def write_npz(path, size=32, per_class=12, classes=3, channels=3, test=True):
    """Images that a net can tell apart by their brightness."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), per_class)
    shape = (len(labels), size, size, channels)
    images = rng.integers(0, 60, shape) + 60 * labels[:, None, None, None]
    arrays = {"train_images": images.astype(np.uint8), "train_labels": labels}
    if test:
        arrays |= {"test_images": arrays["train_images"], "test_labels": labels}
    np.savez(path, **arrays)
    return path
