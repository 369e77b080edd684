"""The log of what every selection of a run reads, to be selected from again.

With ``--config.log_outputs`` each selecting epoch writes
WORKDIR/outputs/epoch_NNN.npz: the networks' eval-mode outputs on the pools,
arrays named POOL/NETWORK/HEAD.  An epoch takes

    4 bytes x pools x networks x rows x (C a logit head + D of the features)

uncompressed, rows rounded up to batches of ``eval_batch_size``: 0.9 MB for SFA
on ``digits``, 87 MB on CIFAR-10 with imb 0.1 (two networks, 20480 rows, 2 x 10
logits, 512 features), so 15 GB for its 170 selecting epochs.
launch/study_selector.py reads them.
"""

import pathlib
import re
from typing import Any

import numpy as np

from jaxnlt.data import untrusted
from jaxnlt.infer import collect
from jaxnlt.method import Method
from jaxnlt.runtime.errors import UserError
from jaxnlt.runtime.files import atomic
from jaxnlt.trainer import FetchedPools

FOLDER = "outputs"


def file_of(directory: str | pathlib.Path, epoch: int) -> pathlib.Path:
    """The file of an epoch, counted from 0."""
    return pathlib.Path(directory) / FOLDER / f"epoch_{epoch:03d}.npz"


def write(
    directory: str | pathlib.Path,
    method: Method,
    epoch: int,
    pooled: FetchedPools,
) -> None:
    """Writes what the selection of an epoch reads, if the config asks for it.

    Args:
      directory: the workdir.
      method: its config decides whether outputs are logged.
      epoch: about to be trained, counted from 0; its file is replaced.
      pooled: outputs [pool][network], empty where none are read; batches of
        dicts of [batch, ...] arrays with padding; written as float32 (float64
        where the run computes in it).

    Raises:
      UserError: the method's networks do not all select before they train, or
        the file cannot be written.
    """
    if not method.config.log_outputs:
        return
    for phase in method.phases():
        if phase.selector and phase.order != "in_turn":
            raise UserError(
                f"config.log_outputs: {method.config.method} trains one "
                "network before the other selects, so an epoch has no single "
                "state to log"
            )
    if not pooled:
        return
    arrays: dict[str, Any] = {}
    for p, networks in enumerate(pooled):
        for k, batches in enumerate(networks):
            size = sum(len(next(iter(batch.values()))) for batch in batches)
            for head, values in collect(batches, size).items():
                dtype = np.promote_types(values.dtype, np.float32)
                arrays[f"{p}/{k}/{head}"] = values.astype(dtype)
    path = file_of(directory, epoch)
    try:
        path.parent.mkdir(exist_ok=True)
        with atomic(path, binary=True) as file:
            np.savez(file, **arrays)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror})"
        ) from None


def read(directory: str | pathlib.Path, epoch: int) -> FetchedPools:
    """The outputs that ``write`` wrote, as ``Trainer.select`` takes them.

    Args:
      directory: the workdir.
      epoch: counted from 0.

    Returns:
      [pool][network], each a single batch: [{head: [rows, ...]}].

    Raises:
      UserError: no such file, or it is damaged.
    """
    path = file_of(directory, epoch)
    if not path.exists():
        raise UserError(f"{path}: is missing")
    arrays, _ = untrusted.read_npz(path)
    pooled: list[list[list[dict[str, np.ndarray]]]] = []
    for name, values in arrays.items():
        match = re.fullmatch(r"(\d)/(\d)/(\w+)", name)
        if match is None:
            raise UserError(f"{path}: holds {name!r}, not POOL/NETWORK/HEAD")
        p, k = int(match[1]), int(match[2])
        pooled += [[] for _ in range(p + 1 - len(pooled))]
        networks = pooled[p]
        networks += [[{}] for _ in range(k + 1 - len(networks))]
        networks[k][0][match[3]] = values
    return pooled
