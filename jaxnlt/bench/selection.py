"""What a selection of a million samples costs.

Run as ``python -m jaxnlt.bench.selection``.
"""

import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np

from jaxnlt import command_line, selection
from jaxnlt.auditing import statistics, verdict
from jaxnlt.bench import command
from jaxnlt.bench.command import Figures
from jaxnlt.data import decode, files
from jaxnlt.data.records import Dataset, Split
from jaxnlt.method import Memory
from jaxnlt.results import labels as labels_csv
from jaxnlt.runtime import console
from jaxnlt.runtime.errors import one_of
from jaxnlt.selection import registry as selectors
from jaxnlt.trainer import Trainer

# The budget, for a million samples or fewer; time grows with the samples.
MILLION = 1_000_000
SECONDS_A_NETWORK, SECONDS_LABELS = 60.0, 10.0
TIMES_THE_INPUTS, EXTRA_MIB = 4.0, 256.0

USAGE = f"""\
usage: python -m jaxnlt.bench.selection [--selector=dividemix]
           [--samples=1000000] [--classes=50] [--features=512] [--json=FILE]

Makes outputs of two networks for so many samples, selects from them as a run
does before an epoch, adds a vote to the sums of the audit as it does after it,
and writes labels.csv as it does at its end.  Prints the seconds of each part
and the memory that the process took beyond what it had with the outputs made,
beside the budget: up to a million samples {SECONDS_A_NETWORK:.0f} s for a \
network's selection and
{SECONDS_LABELS:.0f} s for labels.csv (more in proportion), \
{TIMES_THE_INPUTS:.0f} times the outputs' own
memory and {EXTRA_MIB:.0f} MiB.

  --selector   {", ".join(selectors.SELECTORS)} (DaSC's)
  --samples    how many are divided
  --classes    of a long tail, the largest ten times the smallest; 40 % of the
               labels are drawn anew
  --features   dimensions of the pooled features: 512 of ResNet-18, 1536 of
               Inception-ResNet-v2, 2048 of ResNet-50
  --json       file to which the figures are written
"""


def measure(
    name: str, samples: int, classes: int, features: int = 512
) -> Figures:
    """Times one epoch's selection of both networks, its vote, then labels.csv.

    Args:
      name: of selectors.SELECTORS, with the options that its method's config
        gives it on WebVision; the outputs are the heads that it reads.
      samples: N.
      classes: C.
      features: dimensions of the pooled features.

    Returns:
      ``seconds`` of ``make``, ``select``, ``vote`` and ``labels_csv``;
      ``networks``; of memory ``inputs_mib`` (outputs of all networks),
      ``beyond_mib`` (the peak less what the process had taken before it
      selected) and ``labels_csv_mib`` (how much of it came with the vote and
      labels.csv); ``budget`` and ``inside``, whether it was kept.

    Raises:
      UserError: an unknown selector, or a number out of range.
    """
    one_of("--selector", name, selectors.SELECTORS)
    command.check_least(
        {"samples": (samples, 1), "classes": (classes, 2)}
        | {"features": (features, 1)}
    )
    entry = selectors.SELECTORS[name]
    arg = ",".join(["webvision", *entry.keys])
    config = command_line.load_config(entry.config, arg)
    began = time.perf_counter()
    rng = np.random.default_rng(0)
    share = 0.1 ** (np.arange(classes) / (classes - 1))
    true = rng.choice(classes, samples, p=share / share.sum())
    redrawn = rng.random(samples) < 0.4
    labels = np.where(redrawn, rng.integers(0, classes, samples), true)
    dataset = _dataset(labels.astype(np.int32), classes)
    trainer = Trainer(config, dataset)
    method = trainer.method
    epoch = next(e for e in range(config.epochs) if method.phase(e).selector)
    phase = method.phase(epoch)
    assert phase.selector is not None
    depth = {
        "features": features,
        "projection": method.network_options.get("projection_dim", 0),
    }
    batch = config.eval_batch_size
    networks = [
        {
            head: _outputs(rng, true, labels, depth.get(head, classes), head)
            for head in phase.selector.outputs
        }
        for _ in range(method.num_nets)
    ]
    pooled = [
        [
            [
                {head: values[rows] for head, values in heads.items()}
                for rows in selection.blocks(samples, batch)
            ]
            for heads in networks
        ]
    ]
    votes = _outputs(rng, true, labels, classes, "logits")
    inputs = sum(a.nbytes for heads in networks for a in heads.values()) / 2**20
    seconds = {"make": time.perf_counter() - began}
    peaks = [command.peak_mib()]

    nets = range(method.num_nets)
    memory = Memory(
        selector={phase.name: [phase.selector.init_memory() for _ in nets]},
        method=(),
        audit={},
    )
    began = time.perf_counter()
    chosen, _ = trainer.select(epoch, phase, pooled, memory, nets)
    seconds["select"] = time.perf_counter() - began
    peaks.append(command.peak_mib())

    sums = statistics.empty(samples, classes)
    began = time.perf_counter()
    sums = statistics.added(sums, votes)
    seconds["vote"] = time.perf_counter() - began

    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        audit = verdict.of_training(
            labels, sums.mean_probs, None, held_out=False
        )
        table = labels_csv.columns(dataset.train, dataset.class_names, audit)
        labels_csv.write(pathlib.Path(folder) / "labels.csv", table)
    seconds["labels_csv"] = time.perf_counter() - began
    peaks.append(command.peak_mib())

    grown = max(1.0, samples / MILLION)
    budget = {
        "select": SECONDS_A_NETWORK * method.num_nets * grown,
        "labels_csv": SECONDS_LABELS * grown,
        "beyond_mib": TIMES_THE_INPUTS * inputs + EXTRA_MIB,
    }
    used = seconds | {"beyond_mib": peaks[2] - peaks[0]}
    return {
        "selector": name,
        "samples": samples,
        "classes": classes,
        "networks": method.num_nets,
        "heads": {head: a.shape[1] for head, a in networks[0].items()},
        "seconds": seconds,
        "inputs_mib": inputs,
        "beyond_mib": used["beyond_mib"],
        "labels_csv_mib": peaks[2] - peaks[1],
        "trusted": [len(s.labelled) for s in chosen.values()],
        "budget": budget,
        "inside": all(used[name] <= most for name, most in budget.items()),
    }


def _dataset(labels: np.ndarray, classes: int) -> Dataset:
    """Files that are not there, with the paths that labels.csv will hold."""
    paths = np.array([f"c{c:03}/{i:08}.jpg" for i, c in enumerate(labels)])
    images = files.CutImages(
        files.ImageFiles(pathlib.Path("absent"), paths),
        decode.TRANSFORMS["webvision"],
    )
    split = Split(images, labels, None, paths)
    return Dataset(
        train=split,
        test=split.take(np.arange(1)),
        class_names=tuple(f"class {c}" for c in range(classes)),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        test_kind="test",
    )


def _outputs(
    rng: np.random.Generator,
    true: np.ndarray,
    labels: np.ndarray,
    size: int,
    head: str,
) -> np.ndarray:
    """One head's outputs, float32 [N, size].

    Noise plus, for logits, up to 8 for the true class (for the given one where
    it is memorised), and for other heads a direction of the true class.
    """
    values = np.empty((len(true), size), np.float32)
    directions = rng.standard_normal((true.max() + 1, size), dtype=np.float32)
    for part in selection.blocks(len(true), 1 << 12):
        some, n = values[part], len(values[part])
        rng.standard_normal(out=some, dtype=np.float32)
        if head in ("logits", "balanced"):
            believed = np.where(rng.random(n) < 0.2, labels[part], true[part])
            some[np.arange(n), believed] += 8 * rng.random(n, dtype=np.float32)
        else:
            some += directions[true[part]] / 4
    return values


def table(result: Figures) -> str:
    """The measurements as text.

    Args:
      result: what ``measure`` returned.

    Returns:
      Lines without a newline at the end.
    """
    seconds, budget = result["seconds"], result["budget"]
    heads = ", ".join(f"{h} {d}" for h, d in result["heads"].items())
    return "\n".join(
        [
            f"{result['selector']}: {result['samples']} samples, "
            f"{result['classes']} classes; {result['networks']} networks "
            f"({heads}): {result['inputs_mib']:.0f} MiB of outputs, made in "
            f"{seconds['make']:.1f} s",
            f"selection of {result['networks']} networks: "
            f"{seconds['select']:.1f} s (budget {budget['select']:.0f} s); "
            f"trusted: {', '.join(map(str, result['trusted']))}",
            f"vote added to the sums: {seconds['vote']:.1f} s",
            f"labels.csv: {seconds['labels_csv']:.1f} s (budget "
            f"{budget['labels_csv']:.0f} s)",
            f"memory beyond the outputs: {result['beyond_mib']:.0f} MiB at "
            f"most (budget {budget['beyond_mib']:.0f} MiB), "
            f"{result['labels_csv_mib']:.0f} of them for vote and labels.csv",
            f"{'inside' if result['inside'] else 'OUTSIDE'} the budget",
        ]
    )


def _command(argv: list[str]) -> None:
    values = console.read_flags(
        argv,
        {
            "selector": "dividemix",
            "samples": MILLION,
            "classes": 50,
            "features": 512,
            "json": str,
        },
    )
    result = measure(
        values.selector, values.samples, values.classes, values.features
    )
    command.show(table(result), result, values.json)


def main(argv: Sequence[str]) -> int:
    """Runs the command line.

    Args:
      argv: program name and arguments.

    Returns:
      The exit status, see ``console.guarded``.
    """
    return console.guarded(_command, argv, "interrupted", USAGE)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
