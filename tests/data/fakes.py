"""Tiny stand-ins for the files that users have on disk."""

import pathlib
import pickle
import zipfile

import ml_collections
import numpy as np

from jaxnlt.config import fields
from jaxnlt.config.base import AuditOptions, DataOptions
from jaxnlt.data import noise, registry
from jaxnlt.data.records import ReadRequest, Source, Split

PER_BATCH, N_TEST = 20, 10


def config(benchmark: str, **changes) -> ml_collections.ConfigDict:
    """A config as the command line resolves it; changes go to their place."""
    bench = registry.get(benchmark)
    top = {"benchmark": benchmark, "seed": 3, "data_seed": -1, "split": ""}
    top |= {key: changes.pop(key) for key in top if key in changes}
    data = {k: getattr(bench, k) for k in ("imb", "noise", "rate", "transform")}
    data |= {key: _plain(value) for key, value in changes.items()}
    options = fields.as_dict(DataOptions(**data))
    audit = fields.as_dict(AuditOptions())
    return ml_collections.ConfigDict(top | {"data": options, "audit": audit})


def _plain(value):
    return str(value) if isinstance(value, pathlib.Path) else value


def read(benchmark: str, path="", **fields) -> Source:
    """What a benchmark's reader gives."""
    bench = registry.get(benchmark)
    fields = {key: _plain(value) for key, value in fields.items()}
    return bench.read(ReadRequest(bench, str(path), **fields))


def cifar10(folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Writes cifar-10-batches-py; gives images [N,32,32,3] and labels."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    count = 5 * PER_BATCH + N_TEST
    planes = rng.integers(0, 256, (count, 3, 32, 32), np.uint8)
    labels = np.tile(np.arange(10), count // 10)
    for k in range(6):
        rows = slice(k * PER_BATCH, (k + 1) * PER_BATCH)
        name = f"data_batch_{k + 1}" if k < 5 else "test_batch"
        batch = {
            b"data": planes[rows].reshape(-1, 3072),
            b"labels": labels[rows].tolist(),
        }
        dump(folder / name, batch)
    names = {b"label_names": [b"kind%d" % k for k in range(10)]}
    dump(folder / "batches.meta", names)
    return planes.transpose(0, 2, 3, 1), labels


def cifar100(folder: pathlib.Path) -> np.ndarray:
    """Writes cifar-100-python with two images a class; gives the labels."""
    folder.mkdir(parents=True)
    labels = np.tile(np.arange(100), 2)
    for name in ("train", "test"):
        batch = {b"fine_labels": labels.tolist(), b"coarse_labels": [0] * 200}
        dump(folder / name, batch | {b"data": np.zeros((200, 3072), np.uint8)})
    names = {b"fine_label_names": [b"kind%d" % k for k in range(100)]}
    dump(folder / "meta", names)
    return labels


def dump(path: pathlib.Path, content) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def torch_zip(path: pathlib.Path, content) -> pathlib.Path:
    """Writes what torch.save writes for a dictionary of numpy arrays."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, protocol=2))
        archive.writestr("archive/version", "3\n")
    return path


def torch_legacy(path: pathlib.Path, content) -> pathlib.Path:
    """The same in the layout before PyTorch 1.6."""
    parts = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, content, [])
    path.write_bytes(b"".join(pickle.dumps(p, protocol=2) for p in parts))
    return path


def read_noise(file, ids, classes, all_ids):
    """Labels of the images ``ids`` in a set of ``all_ids``."""
    whole = Split(None, np.zeros(len(all_ids), np.int32), None, all_ids)
    names = tuple(map(str, range(classes)))
    kept = Split(None, np.zeros(len(ids), np.int32), None, ids)
    return noise.read_noise(file, kept, Source(whole, None, names, "there"))
