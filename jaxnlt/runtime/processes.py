"""Several processes as one program: joining them, agreeing, gathering.

Every process runs the same host program with the same seeds on the devices of
all.  Process 0, the lead, does what only one may decide or write.  With one
process everything here costs nothing.
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
#: 'auto' lets JAX find the processes: SLURM, Open MPI, Kubernetes, TPU VMs.
DISTRIBUTED = "JAXNLT_DISTRIBUTED"
#: ``extra`` of log records that concern one process alone.
OWN = {"own": True}
# Seconds without a sign of life after which JAX ends the other processes.
HEARTBEAT = 20
# Seconds for all processes to reach the end of a run, where the lead may still
# write its report.
LAST_WAIT = 3600


def join(environ: Mapping[str, str] = os.environ) -> None:
    """Joins the other processes of the job, if the environment names any.

    Must run before anything asks JAX for devices.

    Args:
      environ: ``JAXNLT_COORDINATOR`` (host:port), ``JAXNLT_NUM_PROCESSES`` and
        ``JAXNLT_PROCESS_ID``; or ``JAXNLT_DISTRIBUTED=auto``.

    Raises:
      UserError: a variable is missing or wrong, or the other processes do not
        join in time.
    """
    arguments = _arguments(environ)
    if arguments is None:
        return
    # With it, JAX would catch SIGTERM itself and go on.
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
    """Passes what concerns one process alone; the lead reports the rest."""
    return any(hasattr(record, name) for name in OWN)


def _arguments(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """Arguments of ``jax.distributed.initialize``; None for one process."""
    names = (COORDINATOR, NUM_PROCESSES, PROCESS_ID)
    given = {name: environ[name] for name in names if environ.get(name)}
    automatic = environ.get(DISTRIBUTED, "")
    if automatic not in ("", "auto"):
        raise UserError(f"{DISTRIBUTED}: must be 'auto', is {automatic!r}")
    if not given:
        return {} if automatic else None
    if automatic:
        raise UserError(f"{DISTRIBUTED}: cannot be combined with {COORDINATOR}")
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
      UserError: JAX sees the devices of other processes, as on a TPU pod, but
        no variable names them.
    """
    if alone() and jax.process_count() > 1:
        raise UserError(
            f"{DISTRIBUTED}: must be 'auto' where {jax.process_count()} hosts "
            "share their devices"
        )


def client() -> Any:
    """The coordination service of the job; None where it is one process."""
    # Orbax takes it from there too; JAX has no public name for it.
    from jax._src import distributed

    return distributed.global_state.client


def alone() -> bool:
    """Whether this process is the whole job."""
    return client() is None


def is_lead() -> bool:
    """Whether this process decides, writes and prints."""
    return alone() or jax.process_index() == 0


def decided(decide: Callable[[], T]) -> T:
    """The value that the lead computes or reads, on every process.

    Args:
      decide: called by the lead alone; its value can be pickled.

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


def gathered(value: T) -> list[T]:
    """The values of all processes, on every process.

    Args:
      value: that of this process; it can be pickled.

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
    """The size of a message: a power of two, as each compiles a program."""
    return 1 << max(10, (size - 1).bit_length())


def whole(tree: Any) -> Any:
    """Gathers the arrays that are divided over processes.

    Args:
      tree: pytree of arrays.

    Returns:
      The same tree, every array complete on every process.
    """
    if alone():
        return tree
    from jax.experimental import multihost_utils

    def complete(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and not (
            leaf.is_fully_addressable or leaf.is_fully_replicated
        ):
            return multihost_utils.process_allgather(leaf, tiled=True)
        return leaf

    return jax.tree.map(complete, tree)


def agree(problem: str) -> None:
    """Raises the error of one process on all of them.

    Args:
      problem: the problem of this process; '' for none.

    Raises:
      UserError: the problem of the first process that has one.
    """
    problem = next(filter(None, gathered(problem)), "")
    if problem:
        raise UserError(problem)


def led(action: Callable[[], None]) -> None:
    """Lets the lead alone do something; what it cannot do, nobody can.

    Args:
      action: called by the lead.

    Raises:
      UserError: of the action, on every process.
    """
    problem = ""
    if is_lead():
        try:
            action()
        except UserError as error:
            problem = str(error)
    agree(problem)


def wait_for_all(name: str) -> None:
    """Waits until every process has reached this point.

    Args:
      name: of the point, which a process reaches once.
    """
    if not alone():
        client().wait_at_barrier(f"jaxnlt/{name}", LAST_WAIT * 1000)


def host_name() -> str:
    """Name of this machine and number of this process, for messages."""
    return f"process {jax.process_index()} on {socket.gethostname()}"
