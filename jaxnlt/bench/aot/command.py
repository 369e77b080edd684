"""The command ``python -m jaxnlt.bench.aot``."""

import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Sequence
from typing import Any, get_args

import jax
import ml_collections
from jax.experimental import topologies

from jaxnlt.bench import command
from jaxnlt.bench.aot import hlo, programs, report, roofline
from jaxnlt.bench.command import Figures
from jaxnlt.config import base as config_lib
from jaxnlt.runtime import console
from jaxnlt.runtime.errors import UserError, logger

USAGE = """\
usage: python -m jaxnlt.bench.aot --config=METHOD[:BENCHMARK[,KEY=VALUE,...]]
           [--topology=v5e:2x4] [--operations=N] [--json=FILE]
           [--config.FIELD=VALUE ...]

Compiles every phase of the method, and inference, for TPUs that are not there,
and prints what a chip would do in a step: arithmetic, bytes, memory, exchanges
with other chips, and how long it takes at best, on these and on more chips.
The benchmark's files need not be there.  pip install 'jaxnlt[tpu]' first.

  --topology       a chip and the sides of its torus: v5e:2x4, v4:2x2x2 ...
  --operations     also the N operations of each phase that touch most bytes
  --json           file to which the figures are written
  --config.model.dtype
                   bfloat16 unless given

  python -m jaxnlt.bench.aot --topology=v5e:2x4 --config=dasc:cifar10
"""
#: Of libtpu: nobody looks for a TPU's host, which takes minutes and prints
#: warnings, and several processes may compile at once.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
#: Chips of the estimates.
SCALES = (8, 64, 256)


def devices_of(topology: str) -> Sequence[jax.Device]:
    """The chips of a topology, for which programs can be compiled.

    Args:
      topology: such as ``v5e:2x4``.

    Returns:
      One device for each chip.

    Raises:
      UserError: libtpu is not installed, or it does not know the topology.
    """
    chip = roofline.chip_of(topology)
    known = os.environ.get("TPU_LIBRARY_PATH")
    if known is None and importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "libtpu: is not installed; pip install 'jaxnlt[tpu]' brings the "
            "compiler for TPUs along, no TPU is needed"
        )
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        found = topologies.get_topology_desc(
            topology, "tpu", **dict(chip.options)
        )
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--topology: {topology}: {reason}") from error
    return found.devices


def measure(
    config: ml_collections.ConfigDict, topology: str, operations: int = 0
) -> Figures:
    """Compiles every program of a run and reads what the compiler says.

    Args:
      config: as ``get_config`` of a file in configs/ returns it.
      topology: see ``devices_of``.
      operations: how many of a program's operations are named.

    Returns:
      ``rows``, one for each program, and a description of the chips and the
      configuration.

    Raises:
      UserError: bad fields, an unknown topology, no libtpu, or a program that
        does not fit into the memory of a chip.
    """
    command.check_least({"operations": (operations, 0)})
    config_lib.check(config)
    devices = devices_of(topology)
    dataset = programs.dataset_of(config)
    chip = roofline.chip_of(topology)
    logger.info(
        "%d x %s; compiling takes minutes",
        len(devices),
        devices[0].device_kind,
        extra={"started": True},
    )
    rows = []
    for program in programs.programs(config, dataset, devices):
        logger.info("compiling %s", program.what)
        rows.append(_row(program, chip, operations))
    return {
        "method": config.method,
        "benchmark": config.benchmark,
        "topology": topology,
        "chips": len(devices),
        "chip": devices[0].device_kind,
        "peak_flops": chip.flops,
        "hbm_bytes": chip.hbm,
        "hbm_bytes_per_second": chip.hbm_rate,
        "link_bytes_per_second": chip.link_rate,
        "dtype": config.model.dtype,
        "model": config.model.name,
        "image_shape": list(dataset.train.images.shape[1:]),
        "jax": jax.__version__,
        "libtpu": _version(),
        "assumptions": roofline.ASSUMPTIONS,
        "rows": rows,
    }


def _version() -> str:
    try:
        return importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError:
        return "of TPU_LIBRARY_PATH"


def _row(
    program: programs.Program, chip: roofline.Chip, operations: int
) -> Figures:
    """The figures of one program."""
    try:
        compiled = program.lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--topology: {program.what} does not fit into the memory of a "
            f"chip ({reason}); take more chips or a smaller batch"
        ) from error
    cost: dict[str, float] = compiled.cost_analysis() or {}
    memory: Any = compiled.memory_analysis()
    text = hlo.Compiled(compiled.as_text() or "", program.chips)
    touched = text.touched()
    exchanges = text.collectives()
    counted = cost.get("bytes accessed", 0.0)
    work = roofline.Work(
        chips=program.chips,
        flops=cost.get("flops", 0.0),
        nbytes=counted - text.counted_again(),
        hbm_bytes=sum(each.hbm_bytes for each in touched),
        state_bytes=program.state_bytes,
        collectives=tuple(exchanges),
        images=program.images,
        batch_sizes=tuple(program.batch_sizes),
    )
    return {
        "what": program.what,
        "chips": program.chips,
        "images": program.images,
        "flops": work.flops,
        "bytes": work.nbytes,
        "bytes_counted": counted,
        "hbm_bytes": work.hbm_bytes,
        "memory": {
            "arguments": memory.argument_size_in_bytes,
            "outputs": memory.output_size_in_bytes,
            "in_place": memory.alias_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "program": memory.generated_code_size_in_bytes,
        },
        "collectives": {
            kind: {"count": count, "bytes_sent": sent}
            for kind, (count, sent) in roofline.sums(exchanges).items()
        },
        **_estimate(work, chip),
        "scaling": {
            batch: {
                str(n): _estimate(roofline.on_chips(work, n, batch), chip)
                for n in SCALES
            }
            for batch in get_args(roofline.Batch)
        },
        "operations": [each._asdict() for each in touched[:operations]],
    }


def _estimate(work: roofline.Work, chip: roofline.Chip) -> Figures:
    """Seconds of a step, and images/s of all chips."""
    found = roofline.times(work, chip)
    return {
        "seconds_arithmetic": found.arithmetic,
        "seconds_memory": found.memory,
        "seconds_touched": found.touched,
        "seconds_network": found.network,
        "seconds_least": found.least,
        "seconds_most": found.most,
        "images_per_second_most": work.images / found.least,
        "images_per_second_least": work.images / found.most,
    }


def _command(argv: list[str]) -> None:
    config, values = command.read_config(
        argv, {"topology": "v5e:2x4", "operations": 0}
    )
    if not any(re.match(r"--?config\.model\.dtype(=|$)", a) for a in argv):
        config.model.dtype = "bfloat16"
    # The arrays of this process lie here, and a TPU at hand is not started.
    jax.config.update("jax_platforms", "cpu")
    figures = measure(config, values.topology, values.operations)
    command.show(report.table(figures), figures, values.json)


def main(argv: Sequence[str]) -> int:
    """Runs the command line.

    Args:
      argv: program name and arguments.

    Returns:
      The exit status, see ``console.guarded``.
    """
    return console.guarded(_command, argv, "interrupted", USAGE)
