"""Whole-epoch checkpoints: written by Orbax, every array sealed by SHA-256.

One checkpoint holds the items ``net0``, ``net1`` ... (one network each, so that
one can be reused alone), ``memory`` (the arrays of the host's memory) and
``meta``, a JSON item with a SHA-256 for every array and one for itself.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from orbax.checkpoint.checkpoint_managers import preservation_policy

from jaxnlt.runtime.errors import UserError, logger

__all__ = [
    "Checkpoints",
    "DamagedError",
    "Restored",
    "load",
    "split_source",
    "weights_sha256",
]

Arrays = dict[str, np.ndarray]


class Restored(NamedTuple):
    """What one checkpoint held.

    Attributes:
      epoch: 0-based epoch after which it was written.
      states: one pytree of numpy arrays per network.
      memory: the host memory given to ``save``, structure and dtypes kept.
      meta: the JSON-able dict given to ``save``.
    """

    epoch: int
    states: list[Any]
    memory: dict[str, Any]
    meta: dict[str, Any]


class DamagedError(Exception):
    """A checkpoint that cannot be read, or not as it was written."""


@dataclasses.dataclass
class _Preserve(preservation_policy.PreservationPolicy):
    """Keeps the latest two, the best (the first of equals) and marked epochs.

    Orbax's own BestN reads a metrics file that no hash guards and that, when
    damaged, keeps the manager from opening at all; ``facts`` comes from our
    verified meta item instead.
    """

    facts: dict[int, dict[str, Any]]

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        steps = [info.step for info in checkpoints]
        known = {s: self.facts[s] for s in steps if s in self.facts}
        kept = set(steps[-2:])
        kept |= {s for s in known if known[s]["last_of_phase"]}
        evaluated = [s for s in known if known[s]["accuracy"] is not None]
        if evaluated:
            kept.add(max(evaluated, key=lambda s: known[s]["accuracy"]))
        return [step in kept for step in steps]


def _folder(workdir: str | pathlib.Path) -> pathlib.Path:
    # Orbax refuses relative paths.
    return pathlib.Path(workdir).absolute() / "checkpoints"


def _epochs(folder: pathlib.Path) -> list[int]:
    """Finished checkpoints, oldest first."""
    return sorted(ocp.utils.checkpoint_steps(folder)) if folder.is_dir() else []


def _read_facts(step: pathlib.Path) -> dict[str, Any]:
    """The verified JSON item of one checkpoint."""
    try:
        facts = json.loads((step / "meta" / "metadata").read_text("utf-8"))
        seal = facts.pop("sha256_of_this")
    except Exception as error:
        raise DamagedError(f"meta: {_one_line(error)}") from error
    if seal != json_sha256(facts):
        raise DamagedError("meta: its SHA-256 differs")
    return facts


def _probe(item: pathlib.Path) -> None:
    """Raises where a file of the item is missing, short or inconsistent.

    Orbax finds that too, but it reads many arrays at once and leaves the other
    reads to fail with tracebacks on stderr.
    """
    if (item / "manifest.ocdbt").exists():
        store = tensorstore.KvStore.open(
            {"driver": "ocdbt", "base": {"driver": "file", "path": f"{item}/"}}
        ).result()
        for key in store.list().result():
            store.read(key).result()


def _read_item(step: pathlib.Path, name: str, facts: dict[str, Any]) -> Arrays:
    """The verified arrays of one item, by path."""
    digests = facts["sha256"][name]
    empty = facts["empty"][name]
    arrays = {
        path: np.zeros(shape, dtype) for path, (dtype, shape) in empty.items()
    }
    stored = [path for path in digests if path not in empty]
    if stored:
        as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
        restore_args = nest({path: as_numpy for path in stored})
        try:
            _probe(step / name)
            with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
                tree = reader.restore(
                    step / name,
                    args=ocp.args.PyTreeRestore(restore_args=restore_args),
                )
            arrays |= unnest(tree)
        except Exception as error:
            raise DamagedError(f"{name}: {_one_line(error)}") from error
    for path, digest in digests.items():
        if path not in arrays or array_sha256(arrays[path]) != digest:
            raise DamagedError(f"{name}/{path}: its SHA-256 differs")
    return arrays


def _one_line(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 160 else text[:157] + "..."


def _read(
    folder: pathlib.Path, epoch: int
) -> tuple[list[Arrays], dict[str, Any], dict[str, Any]]:
    """The networks' arrays, the memory and the JSON facts of one epoch."""
    step = folder / str(epoch)
    facts = _read_facts(step)
    items = {name: _read_item(step, name, facts) for name in facts["sha256"]}
    memory = decode(facts["memory"], items.pop("memory"))
    return [items[f"net{k}"] for k in range(len(items))], memory, facts


def _newest_sound(folder: pathlib.Path):
    """The newest checkpoint that verifies, and the epochs passed over."""
    damaged: list[int] = []
    for epoch in reversed(_epochs(folder)):
        try:
            return epoch, _read(folder, epoch), damaged
        except DamagedError as error:
            logger.warning(
                "%s: damaged checkpoint (%s); the one before is used",
                folder / str(epoch),
                error,
            )
            damaged.append(epoch)
    if damaged:
        epochs = ", ".join(map(str, reversed(damaged)))
        raise UserError(
            f"{folder}: every checkpoint is damaged (epochs {epochs}); "
            "remove the folder to start anew"
        )
    return None


def _fit(nets: list[Arrays], abstract: Sequence[Any], where: str) -> list[Any]:
    """Puts arrays into the structure of the abstract states, by path."""
    if len(nets) < len(abstract):
        raise UserError(
            f"{where}: holds {len(nets)} network(s), {len(abstract)} needed"
        )
    states = []
    for k, tree in enumerate(abstract):
        pairs, treedef = jax.tree_util.tree_flatten_with_path(tree)
        leaves = []
        for keys, wanted in pairs:
            path = path_of(keys)
            shape = tuple(np.shape(wanted))
            array = nets[k].get(path)
            if array is None:
                raise UserError(
                    f"{where}: net{k}/{path}: absent there, "
                    f"shape {shape} needed"
                )
            if array.shape != shape:
                raise UserError(
                    f"{where}: net{k}/{path}: shape {array.shape} there, "
                    f"{shape} needed"
                )
            leaves.append(array)
        states.append(jax.tree_util.tree_unflatten(treedef, leaves))
    return states


def split_source(text: str) -> tuple[str, int | None]:
    """Splits ``WORKDIR[@EPOCH]`` into the folder and the epoch or None."""
    folder, sign, epoch = text.rpartition("@")
    if sign and epoch.isdecimal():
        return folder, int(epoch)
    return text, None


def load(
    workdir: str | pathlib.Path,
    epoch: int | None = None,
    abstract: Sequence[Any] | None = None,
) -> Restored:
    """Reads a checkpoint of any run; changes nothing there.

    Args:
      workdir: the run's folder.
      epoch: 0-based epoch; None takes the newest that verifies.
      abstract: one pytree per network (leaves with a shape), which may hold
        fewer networks or names than the checkpoint; None returns everything
        as nested dicts.

    Returns:
      The checkpoint, all leaves numpy.

    Raises:
      UserError: no checkpoint there, not this epoch, damaged, or an array that
        does not fit (the first such name, both shapes).
    """
    folder = _folder(workdir)
    epochs = _epochs(folder)
    if not epochs:
        raise UserError(f"{folder}: no checkpoint there")
    if epoch is None:
        epoch, (nets, memory, facts), _ = _newest_sound(folder)
    elif epoch not in epochs:
        raise UserError(
            f"{folder}: no checkpoint of epoch {epoch}, "
            f"there are {', '.join(map(str, epochs))}"
        )
    else:
        try:
            nets, memory, facts = _read(folder, epoch)
        except DamagedError as error:
            raise UserError(
                f"{folder / str(epoch)}: damaged checkpoint ({error})"
            ) from error
    if abstract is None:
        states: list[Any] = [nest(net) for net in nets]
    else:
        states = _fit(nets, abstract, str(folder / str(epoch)))
    return Restored(epoch, states, memory, facts["meta"])


class Checkpoints:
    """The checkpoints of one run, in ``workdir/checkpoints``.

    Opening removes what an interrupted save left behind.
    """

    def __init__(self, workdir: str | pathlib.Path):
        self._directory = _folder(workdir)
        self._facts: dict[int, dict[str, Any]] = {}
        for epoch in _epochs(self._directory):
            try:
                self._facts[epoch] = _read_facts(self._directory / str(epoch))
            except DamagedError:
                continue  # restore() names it if it would have been used
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                cleanup_tmp_directories=True,
                prevent_write_metrics=True,
                preservation_policy=_Preserve(self._facts),
            ),
        )

    def save(
        self,
        epoch: int,
        states: Sequence[Any],
        memory: dict[str, Any],
        meta: dict[str, Any],
        *,
        accuracy: float | None,
        last_of_phase: bool,
    ) -> None:
        """Starts writing one checkpoint; the arrays may change afterwards.

        Keeps the latest two, the best by accuracy and the last of every phase.

        Args:
          epoch: 0-based, greater than every epoch saved before.
          states: one pytree of host numpy arrays per network.
          memory: dicts, lists and tuples of numpy arrays (empty ones too) and
            of plain str, int, float, bool, None.
          meta: JSON-able facts (epoch, phase, config ...).
          accuracy: of the set that chooses the best, a fraction in [0, 1]; None
            if there is none.
          last_of_phase: whether to keep this epoch for good.
        """
        kept: Arrays = {}
        skeleton = encode(memory, kept)
        items = {f"net{k}": flatten(s) for k, s in enumerate(states)}
        items["memory"] = kept
        facts = {
            "meta": meta,
            "accuracy": None if accuracy is None else float(accuracy),
            "last_of_phase": bool(last_of_phase),
            "memory": skeleton,
            "sha256": {
                name: {path: array_sha256(a) for path, a in arrays.items()}
                for name, arrays in items.items()
            },
            # Orbax refuses arrays without elements and items without arrays.
            "empty": {
                name: {
                    path: [a.dtype.name, list(a.shape)]
                    for path, a in arrays.items()
                    if a.size == 0
                }
                for name, arrays in items.items()
            },
        }
        # The seal must hold for what JSON gives back (tuples become lists).
        facts = json.loads(json.dumps(facts))
        args: dict[str, Any] = {
            name: ocp.args.PyTreeSave(nest(full))
            for name, arrays in items.items()
            if (full := {p: a for p, a in arrays.items() if a.size})
        }
        args["meta"] = ocp.args.JsonSave(
            {**facts, "sha256_of_this": json_sha256(facts)}
        )
        self._facts[epoch] = facts
        if not self._manager.save(epoch, args=ocp.args.Composite(**args)):
            raise ValueError(
                f"epoch {epoch} is not after {self._manager.latest_step()}"
            )

    def restore(self, abstract: Sequence[Any]) -> Restored | None:
        """The newest checkpoint in which every hash verifies, or None.

        A damaged newer one is named in one warning and removed, so that
        training can save that epoch again.

        Args:
          abstract: one pytree per network; leaves need a shape only.

        Returns:
          The checkpoint in the structure of ``abstract``, all leaves numpy;
          None where there is none.

        Raises:
          UserError: every checkpoint is damaged, or an array does not fit;
            nothing is removed then.
        """
        self.wait()
        found = _newest_sound(self._directory)
        if found is None:
            return None
        epoch, (nets, memory, facts), damaged = found
        states = _fit(nets, abstract, str(self._directory / str(epoch)))
        for broken in damaged:
            self._manager.delete(broken)
            self._facts.pop(broken, None)
        return Restored(epoch, states, memory, facts["meta"])

    def epochs(self) -> list[int]:
        """The epochs on disk, oldest first."""
        self.wait()
        return _epochs(self._directory)

    def wait(self) -> None:
        """Blocks until everything saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and gives back the threads."""
        self.wait()
        self._manager.close()


def _escape(part: str) -> str:
    # Orbax joins names with "." and we join them with "/"; a name that holds
    # one of them would collide with another path.
    return part.replace("%", "%25").replace("/", "%2F").replace(".", "%2E")


def path_of(keys: Iterable[Any]) -> str:
    """The name of a leaf, such as ``params/conv/kernel``."""
    keystr = jax.tree_util.keystr
    return "/".join(_escape(keystr((key,), simple=True)) for key in keys)


def flatten(tree: Any) -> Arrays:
    """The leaves of a pytree as numpy arrays, by name."""
    pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {path_of(keys): np.asarray(leaf) for keys, leaf in pairs}


def nest(flat: dict[str, Any]) -> dict[str, Any]:
    """Nested dicts from ``a/b/c`` names, which stay escaped."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def unnest(tree: dict[str, Any]) -> Arrays:
    """The inverse of ``nest``."""
    pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(k.key for k in keys): leaf for keys, leaf in pairs}


def encode(
    tree: Any, arrays: Arrays, path: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A JSON-able skeleton of a tree; its arrays are put into ``arrays``.

    Args:
      tree: dicts with string keys, lists, tuples; leaves are arrays or plain
        str, int, float, bool, None.
      arrays: receives every array under its name.
      path: names of the parents.

    Returns:
      One-entry dicts that name the kind of each node.

    Raises:
      TypeError: a dict key is not a string.
    """
    if isinstance(tree, dict):
        if not all(isinstance(key, str) for key in tree):
            raise TypeError(f"memory {'/'.join(path)}: keys must be strings")
        return {
            "dict": {
                key: encode(value, arrays, (*path, _escape(key)))
                for key, value in tree.items()
            }
        }
    if isinstance(tree, list | tuple):
        kind = "list" if isinstance(tree, list) else "tuple"
        return {
            kind: [
                encode(value, arrays, (*path, str(i)))
                for i, value in enumerate(tree)
            ]
        }
    # np.float64 is a float, but its dtype must come back.
    plain = isinstance(tree, str | int | float | bool | None)
    if plain and not isinstance(tree, np.generic):
        return {"value": tree}
    arrays["/".join(path)] = np.asarray(tree)
    return {"array": "/".join(path)}


def decode(skeleton: dict[str, Any], arrays: Arrays) -> Any:
    """The inverse of ``encode``."""
    ((kind, value),) = skeleton.items()
    if kind == "dict":
        return {key: decode(child, arrays) for key, child in value.items()}
    if kind == "array":
        return arrays[value]
    if kind == "value":
        return value
    children = [decode(child, arrays) for child in value]
    return children if kind == "list" else tuple(children)


def array_sha256(array: np.ndarray) -> str:
    """SHA-256 (hex) of an array's dtype, shape and bytes in C order."""
    digest = hashlib.sha256(f"{array.dtype.name}{array.shape}".encode())
    # tobytes serves dtypes without a buffer, such as bfloat16.
    digest.update(array.tobytes())
    return digest.hexdigest()


def json_sha256(obj: Any) -> str:
    """SHA-256 (hex) of a JSON-able object, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(obj, sort_keys=True).encode()).hexdigest()


def weights_sha256(states: Sequence[Any]) -> str:
    """One SHA-256 over all parameters and batch statistics of all networks.

    Args:
      states: one pytree per network with ``params`` and ``batch_stats``.

    Returns:
      The hex digest; names in sorted order, so dict order does not matter.
    """
    digest = hashlib.sha256()
    for k, state in enumerate(states):
        weights = {name: state[name] for name in ("params", "batch_stats")}
        for path, array in sorted(flatten(weights).items()):
            digest.update(f"net{k}/{path} {array_sha256(array)}\n".encode())
    return digest.hexdigest()
