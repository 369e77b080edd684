"""Several processes as one program: joining them, agreeing, adding up.

Every process runs the same host program with the same seeds on the devices of
all.  What only one may decide or write, process 0 does: the lead.  With one
process everything here is free.
"""

import logging
import os
import pickle
import socket
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np

from jaxnlt.runtime.errors import UserError, logger

T = TypeVar("T")

COORDINATOR = "JAXNLT_COORDINATOR"
NUM_PROCESSES = "JAXNLT_NUM_PROCESSES"
PROCESS_ID = "JAXNLT_PROCESS_ID"
#: 'auto' asks JAX, which knows SLURM, Open MPI, Kubernetes and TPU VMs.
DISTRIBUTED = "JAXNLT_DISTRIBUTED"
#: `extra` of log records that concern one process alone.
OWN = {"own": True}
# Seconds after which JAX takes a silent process for dead and ends the others.
HEARTBEAT = 20
# Seconds for all processes to arrive at the end of a run, where the lead may
# still write its report.
LAST_WAIT = 3600


def join(environ: Mapping[str, str] = os.environ) -> None:
    """Joins the other processes of the job, if the environment names any.

    Must run before anything asks JAX for devices.

    Args:
      environ: `JAXNLT_COORDINATOR` (host:port), `JAXNLT_NUM_PROCESSES` and
        `JAXNLT_PROCESS_ID`; or `JAXNLT_DISTRIBUTED=auto`.

    Raises:
      UserError: a part of it is missing or wrong, or the others do not come.
    """
    arguments = _arguments(environ)
    if arguments is None:
        return
    # JAX would catch SIGTERM itself and only take note of it.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            **arguments, heartbeat_timeout_seconds=HEARTBEAT
        )
    except Exception as error:
        text = " ".join(str(error).split())
        raise UserError(f"joining the other processes: {text}") from error
    if not is_lead():
        logger.addFilter(_only_own)


def _only_own(record: logging.LogRecord) -> bool:
    """Passes what concerns one process alone; the lead says the rest."""
    return any(hasattr(record, name) for name in OWN)


def _arguments(environ: Mapping[str, str]) -> dict[str, Any] | None:
    names = (COORDINATOR, NUM_PROCESSES, PROCESS_ID)
    given = {name: environ[name] for name in names if environ.get(name)}
    automatic = environ.get(DISTRIBUTED, "")
    if automatic not in ("", "auto"):
        raise UserError(f"{DISTRIBUTED}: must be 'auto', is {automatic!r}")
    if not given:
        return {} if automatic else None
    if automatic:
        raise UserError(f"{DISTRIBUTED}: has no place beside {COORDINATOR}")
    for name in names:
        if name not in given:
            raise UserError(f"{name}: is missing beside {', '.join(given)}")
    numbers = {}
    for name in names[1:]:
        if not given[name].isdecimal():
            raise UserError(f"{name}: must be a number, is {given[name]!r}")
        numbers[name] = int(given[name])
    if not numbers[PROCESS_ID] < numbers[NUM_PROCESSES]:
        raise UserError(
            f"{PROCESS_ID}: must be below {NUM_PROCESSES} "
            f"{numbers[NUM_PROCESSES]}, is {numbers[PROCESS_ID]}"
        )
    host, colon, port = given[COORDINATOR].rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise UserError(
            f"{COORDINATOR}: must be HOST:PORT, is {given[COORDINATOR]!r}"
        )
    return {
        "coordinator_address": given[COORDINATOR],
        "num_processes": numbers[NUM_PROCESSES],
        "process_id": numbers[PROCESS_ID],
        # All of the process's own devices, whatever else starts processes.
        "cluster_detection_method": "deactivate",
    }


def check() -> None:
    """Refuses a job whose processes have not been joined.

    Raises:
      UserError: JAX sees other processes' devices, as on a TPU pod, but no
        variable said so.
    """
    if alone() and jax.process_count() > 1:
        raise UserError(
            f"{DISTRIBUTED}: must be 'auto' where {jax.process_count()} hosts "
            "share their devices"
        )


def client() -> Any:
    """The coordination service of the job; None where it is one process."""
    # Orbax, too, takes it from there; JAX has no public name for it.
    from jax._src import distributed

    return distributed.global_state.client


def alone() -> bool:
    """Whether this process is the whole job."""
    return client() is None


def is_lead() -> bool:
    """Whether this process decides, writes and prints."""
    return alone() or jax.process_index() == 0


def decided(decide: Callable[[], T]) -> T:
    """What the lead computes or reads, on every process.

    Args:
      decide: called by the lead alone; its value must be one that can be
        pickled.

    Returns:
      The lead's value.
    """
    if alone():
        return decide()
    from jax.experimental import multihost_utils

    data = pickle.dumps(decide()) if is_lead() else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    padded = np.zeros(_padded(size), np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    sent = multihost_utils.broadcast_one_to_all(padded)
    return pickle.loads(np.asarray(sent)[:size].tobytes())


def everyone(value: T) -> list[T]:
    """What each process holds, on all of them.

    Args:
      value: anything that can be pickled.

    Returns:
      The values in the order of the processes.
    """
    if alone():
        return [value]
    from jax.experimental import multihost_utils

    data = pickle.dumps(value)
    sizes = multihost_utils.process_allgather(np.int32(len(data)))
    padded = np.zeros(_padded(int(sizes.max())), np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    found = np.asarray(multihost_utils.process_allgather(padded))
    return [
        pickle.loads(row[:size].tobytes())
        for row, size in zip(found, sizes, strict=True)
    ]


def _padded(size: int) -> int:
    """Few sizes of what is sent, for every one compiles a program."""
    return 1 << max(10, (size - 1).bit_length())


def whole(tree: Any) -> Any:
    """Device arrays, those divided over processes gathered on all of them.

    Args:
      tree: pytree of arrays.

    Returns:
      The same tree.
    """
    if alone():
        return tree
    from jax.experimental import multihost_utils

    def gathered(leaf):
        if isinstance(leaf, jax.Array) and not (
            leaf.is_fully_addressable or leaf.is_fully_replicated
        ):
            return multihost_utils.process_allgather(leaf, tiled=True)
        return leaf

    return jax.tree.map(gathered, tree)


def agree(problem: str) -> None:
    """Refuses on all processes what one of them has found wrong.

    Args:
      problem: what this process found; '' if nothing.

    Raises:
      UserError: the problem of the first process that has one.
    """
    problem = next(filter(None, everyone(problem)), "")
    if problem:
        raise UserError(problem)


def wait_for_all(name: str) -> None:
    """Waits until every process has come here.

    Args:
      name: of this point in the program, met once.
    """
    if not alone():
        client().wait_at_barrier(f"jaxnlt/{name}", LAST_WAIT * 1000)


def host_name() -> str:
    """Name of this machine and number of this process, for messages."""
    return f"process {jax.process_index()} on {socket.gethostname()}"
