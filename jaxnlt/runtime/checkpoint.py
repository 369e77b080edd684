"""Whole-epoch checkpoints: written by Orbax, every array sealed by SHA-256.

One checkpoint holds the items ``net0``, ``net1`` ... (one network each, so that
one can be reused alone), ``memory`` (the memory of the selectors and of the
method) and ``meta``, a JSON item with a SHA-256 for every array and one for
itself.  Arrays are stored by the path of their leaf, such as
``params/conv/kernel``, and put into the structure of a template when they are
read.
"""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from orbax.checkpoint.checkpoint_managers import preservation_policy

from jaxnlt.runtime import processes
from jaxnlt.runtime.errors import UserError, file_problem, logger
from jaxnlt.runtime.files import check_kind, read_text

__all__ = [
    "LAYOUT",
    "Checkpoints",
    "DamagedError",
    "Restored",
    "check_layout",
    "load",
    "metas",
    "split_source",
    "weights_sha256",
]

#: Number of the layout in which checkpoints and workdirs are written.
LAYOUT = 4

# What Orbax notes of a checkpoint: times and the kinds of its items.
_NOTES = "_CHECKPOINT_METADATA"

PyTree = Any
#: The leaves of a pytree by path.
Arrays = dict[str, np.ndarray]


class Restored(NamedTuple):
    """The content of one checkpoint, all leaves numpy.

    Attributes:
      epoch: 0-based epoch after which it was written.
      states: one pytree per network.
      memory: the memory given to ``save``.
      meta: the JSON-able dict given to ``save``.
    """

    epoch: int
    states: list[PyTree]
    memory: PyTree
    meta: dict[str, Any]


class DamagedError(Exception):
    """A checkpoint that cannot be read, or not as it was written."""


@dataclasses.dataclass(frozen=True)
class _Header:
    """The ``meta`` item of a checkpoint.

    Attributes:
      meta: the JSON-able dict given to ``save``.
      accuracy: the accuracy given to ``save``.
      last_of_phase: whether the checkpoint is never removed.
      sha256: item -> path -> SHA-256 of the array.
      empty: item -> path -> (dtype, shape) of arrays without elements, which
        Orbax refuses.
      layout: ``LAYOUT``.
    """

    meta: dict[str, Any]
    accuracy: float | None
    last_of_phase: bool
    sha256: dict[str, dict[str, str]]
    empty: dict[str, dict[str, tuple[str, list[int]]]]
    layout: int = LAYOUT

    def sealed(self) -> dict[str, Any]:
        """The JSON object to store, with its own SHA-256."""
        fields = dataclasses.asdict(self)
        return {**fields, "sha256_of_this": json_sha256(fields)}


class _Content(NamedTuple):
    """The verified arrays of one checkpoint, and its header."""

    nets: list[Arrays]
    memory: Arrays
    header: _Header


@dataclasses.dataclass
class _Preserve(preservation_policy.PreservationPolicy):
    """Keeps the latest two, the best (the first of equals) and marked epochs.

    Orbax's own BestN reads a metrics file that no hash guards and that, when
    damaged, keeps the manager from opening at all; the verified headers are
    read instead.
    """

    headers: dict[int, _Header]

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: Any
    ) -> list[bool]:
        steps = [info.step for info in checkpoints]
        known = {s: self.headers[s] for s in steps if s in self.headers}
        preserved = set(steps[-2:])
        preserved |= {s for s, header in known.items() if header.last_of_phase}
        accuracies = {
            s: header.accuracy
            for s, header in known.items()
            if header.accuracy is not None
        }
        if accuracies:
            preserved.add(max(accuracies, key=accuracies.__getitem__))
        return [step in preserved for step in steps]


def check_layout(meta: Mapping[str, Any], where: str | pathlib.Path) -> None:
    """Refuses what another version of jaxnlt has written.

    Args:
      meta: JSON object that holds the number of its layout under ``layout``.
      where: file or folder that the message names.

    Raises:
      UserError: the number is absent or not ``LAYOUT``.
    """
    layout = meta.get("layout", 1)
    if not isinstance(layout, int):
        raise UserError(f"{where}: layout must be a number, is {layout!r}")
    if layout != LAYOUT:
        version = "an older" if layout < LAYOUT else "a newer"
        raise UserError(
            f"{where}: was written by {version} version of jaxnlt; start anew "
            "in another --workdir"
        )


def split_source(text: str) -> tuple[str, int | None]:
    """Splits ``WORKDIR[@EPOCH]`` into the folder and the epoch or None."""
    folder, sign, epoch = text.rpartition("@")
    if sign and epoch.isdecimal():
        return folder, int(epoch)
    return text, None


def metas(workdir: str | pathlib.Path) -> dict[pathlib.Path, dict[str, Any]]:
    """What ``save`` was told of the checkpoints of a run; arrays are not read.

    Args:
      workdir: the run's folder, which may be absent.

    Returns:
      ``meta`` by the folder of the checkpoint, oldest first; damaged ones are
      left out.

    Raises:
      UserError: a checkpoint is of another layout or under another's name.
    """
    found = {}
    for epoch in _epochs(_folder(workdir)):
        step = _folder(workdir) / str(epoch)
        with contextlib.suppress(DamagedError):
            found[step] = _read_header(step).meta
    return found


def load(
    workdir: str | pathlib.Path,
    epoch: int | None = None,
    states: Sequence[PyTree] | None = None,
    memory: PyTree | None = None,
) -> Restored:
    """Reads a checkpoint of any run and changes nothing there.

    Args:
      workdir: the run's folder.
      epoch: 0-based epoch; None takes the newest that verifies.
      states: template of every network (leaves with a shape), which may hold
        fewer networks or leaves than the checkpoint; None returns nested
        dicts.
      memory: template of the memory (leaves of any shape); None returns
        nested dicts.

    Returns:
      The checkpoint.

    Raises:
      UserError: there is no checkpoint or not of this epoch, it is damaged or
        of another layout, or it does not fit a template (the first such path,
        both shapes).
    """
    folder = _folder(workdir)
    epochs = _epochs(folder)
    if not epochs:
        raise UserError(f"{folder}: no checkpoint there")
    if epoch is None:
        epoch, content, _ = _newest_sound(folder)
    elif epoch not in epochs:
        raise UserError(
            f"{folder}: no checkpoint {epoch}, there are "
            f"{', '.join(map(str, epochs))} (counted from 0)"
        )
    else:
        try:
            content = _read(folder / str(epoch))
        except DamagedError as error:
            raise UserError(
                f"{folder / str(epoch)}: damaged checkpoint ({error})"
            ) from error
    return _restored(folder, epoch, content, states, memory)


class Checkpoints:
    """The checkpoints of one run, in ``workdir/checkpoints``.

    Opening removes what an interrupted save left behind.

    Args:
      workdir: the run's folder.

    Raises:
      UserError: another version of jaxnlt has written the checkpoints, one of
        them was renamed or copied, or the disk refuses them.
    """

    def __init__(self, workdir: str | pathlib.Path) -> None:
        self._directory = _folder(workdir)
        check_kind(self._directory, folder=True)
        self._headers: dict[int, _Header] = {}
        for epoch in _epochs(self._directory):
            try:
                header = _read_header(self._directory / str(epoch))
            except DamagedError:
                continue  # restore() reports it if it would have been used
            self._headers[epoch] = header
        processes.led(self._drop_wrong_notes)
        with self._writing():
            self._manager = ocp.CheckpointManager(
                self._directory,
                options=ocp.CheckpointManagerOptions(
                    cleanup_tmp_directories=True,
                    prevent_write_metrics=True,
                    preservation_policy=_Preserve(self._headers),
                ),
            )

    def _drop_wrong_notes(self) -> None:
        """Removes damaged notes of Orbax, which it can do without."""
        for epoch in _epochs(self._directory):
            path = self._directory / str(epoch) / _NOTES
            try:
                sound = isinstance(json.loads(read_text(path) or "{}"), dict)
            except (UserError, ValueError, RecursionError):
                sound = False
            if not sound:
                check_kind(path)
                path.unlink()
                logger.warning("%s: is damaged and not needed; removed", path)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Says in one line what the disk refuses; Orbax quotes it at length."""
        try:
            yield
        except Exception as error:
            problem = file_problem(error, self._directory)
            if not self._directory.is_dir():
                problem = f"{self._directory}: was deleted during a save"
            if not problem:
                raise
            raise UserError(problem) from error

    def save(
        self,
        epoch: int,
        states: Sequence[PyTree],
        memory: PyTree,
        meta: dict[str, Any],
        *,
        accuracy: float | None,
        last_of_phase: bool,
    ) -> None:
        """Starts writing one checkpoint; the arrays may change afterwards.

        Keeps the latest two, the best by accuracy and the last of every phase.

        Args:
          epoch: 0-based, greater than every epoch saved before.
          states: one pytree of host arrays per network.
          memory: pytree of host arrays.
          meta: JSON-able dict (phase, config ...); ``epoch`` is added.
          accuracy: of the set that chooses the best, a fraction in [0, 1]; None
            if there is none.
          last_of_phase: whether to keep this epoch for good.

        Raises:
          UserError: the disk refuses it, or the one before.
        """
        items = {f"net{k}": flatten(state) for k, state in enumerate(states)}
        items["memory"] = flatten(memory)
        header = _Header(
            # The seal must hold for what JSON gives back (tuples become lists).
            meta=json.loads(json.dumps({**meta, "epoch": epoch})),
            accuracy=None if accuracy is None else float(accuracy),
            last_of_phase=bool(last_of_phase),
            sha256={
                name: {path: array_sha256(a) for path, a in arrays.items()}
                for name, arrays in items.items()
            },
            empty={
                name: {
                    path: (a.dtype.name, list(a.shape))
                    for path, a in arrays.items()
                    if a.size == 0
                }
                for name, arrays in items.items()
            },
        )
        args: dict[str, Any] = {
            name: ocp.args.PyTreeSave(_nest(stored))
            for name, arrays in items.items()
            # Orbax refuses arrays without elements and items without arrays.
            if (stored := {p: a for p, a in arrays.items() if a.size})
        }
        args["meta"] = ocp.args.JsonSave(header.sealed())
        self._headers[epoch] = header
        with self._writing():
            saved = self._manager.save(epoch, args=ocp.args.Composite(**args))
        if not saved:
            raise ValueError(
                f"epoch {epoch} is not after {self._manager.latest_step()}"
            )

    def restore(
        self, states: Sequence[PyTree], memory: PyTree
    ) -> Restored | None:
        """The newest checkpoint in which every hash verifies, or None.

        A damaged newer one is reported in one warning and removed, so that
        training can save that epoch again.

        Args:
          states: template of every network; leaves need a shape only.
          memory: template of the memory; leaves may have other shapes.

        Returns:
          The checkpoint in the structure of the templates; None where there is
          none.

        Raises:
          UserError: every checkpoint is damaged, or one does not fit the
            templates; nothing is removed then.
        """
        self.wait()
        if not _epochs(self._directory):
            return None
        epoch, content, damaged = _newest_sound(self._directory)
        restored = _restored(self._directory, epoch, content, states, memory)
        for broken in damaged:
            self._manager.delete(broken)
            self._headers.pop(broken, None)
        return restored

    def epochs(self) -> list[int]:
        """The epochs on disk, oldest first."""
        self.wait()
        return _epochs(self._directory)

    def wait(self) -> None:
        """Blocks until everything saved is on disk.

        Raises:
          UserError: the disk refuses it.
        """
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and ends the threads of Orbax."""
        self.wait()
        self._manager.close()


def _folder(workdir: str | pathlib.Path) -> pathlib.Path:
    # Orbax refuses relative paths.
    return pathlib.Path(workdir).absolute() / "checkpoints"


def _epochs(folder: pathlib.Path) -> list[int]:
    """Finished checkpoints, oldest first."""
    return sorted(ocp.utils.checkpoint_steps(folder)) if folder.is_dir() else []


def _newest_sound(folder: pathlib.Path) -> tuple[int, _Content, list[int]]:
    """The newest checkpoint that verifies, and the damaged epochs after it."""
    damaged: list[int] = []
    for epoch in reversed(_epochs(folder)):
        try:
            return epoch, _read(folder / str(epoch)), damaged
        except DamagedError as error:
            logger.warning(
                "%s: damaged checkpoint (%s); the one before is used",
                folder / str(epoch),
                error,
            )
            damaged.append(epoch)
    epochs = ", ".join(map(str, reversed(damaged)))
    raise UserError(
        f"{folder}: every checkpoint is damaged ({epochs}); "
        "remove the folder to start anew"
    )


def _read(step: pathlib.Path) -> _Content:
    """The verified content of one checkpoint."""
    header = _read_header(step)
    for path in step.rglob("*"):
        # A pipe would be waited for.
        if not (path.is_file() or path.is_dir()):
            raise DamagedError(f"{path.relative_to(step)}: is not a file")
    items = {
        name: _read_item(step / name, digests, header.empty[name])
        for name, digests in header.sha256.items()
    }
    memory = items.pop("memory")
    return _Content(
        [items[f"net{k}"] for k in range(len(items))], memory, header
    )


def _read_header(step: pathlib.Path) -> _Header:
    """The verified JSON item of one checkpoint."""
    try:
        fields = json.loads(read_text(step / "meta" / "metadata") or "")
        seal = fields.pop("sha256_of_this")
    except Exception as error:
        raise DamagedError(f"meta: {_one_line(error)}") from error
    if seal != json_sha256(fields):
        raise DamagedError("meta: its SHA-256 differs")
    check_layout(fields, step.parent.parent)
    epoch = fields["meta"].get("epoch")
    if str(epoch) != step.name:
        raise UserError(
            f"{step}: is a copy of epoch {epoch}, or that epoch renamed; "
            "give it its name back or remove it"
        )
    return _Header(**fields)


def _read_item(
    item: pathlib.Path,
    digests: Mapping[str, str],
    empty: Mapping[str, tuple[str, list[int]]],
) -> Arrays:
    """The verified arrays of one item."""
    arrays = {
        path: np.zeros(shape, dtype) for path, (dtype, shape) in empty.items()
    }
    stored = [path for path in digests if path not in empty]
    if stored:
        as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
        restore_args = _nest(dict.fromkeys(stored, as_numpy))
        try:
            _probe(item)
            with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
                tree = reader.restore(
                    item, args=ocp.args.PyTreeRestore(restore_args=restore_args)
                )
            arrays |= _unnest(tree)
        except Exception as error:
            raise DamagedError(f"{item.name}: {_one_line(error)}") from error
    for path, digest in digests.items():
        if path not in arrays or array_sha256(arrays[path]) != digest:
            raise DamagedError(f"{item.name}/{path}: its SHA-256 differs")
    return arrays


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


def _one_line(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 160 else text[:157] + "..."


def _restored(
    folder: pathlib.Path,
    epoch: int,
    content: _Content,
    states: Sequence[PyTree] | None,
    memory: PyTree | None,
) -> Restored:
    """Puts the arrays of a checkpoint into the structure of the templates."""
    where = folder / str(epoch)
    nets, meta = content.nets, content.header.meta
    if states is None:
        restored_states = [_as_dicts(net) for net in nets]
    elif len(nets) < len(states):
        raise UserError(
            f"{where}: holds {len(nets)} network(s), {len(states)} needed"
        )
    else:
        restored_states = [
            _fill(f"{where}: net{k}/", nets[k], state)
            for k, state in enumerate(states)
        ]
    if memory is None:
        restored_memory = _as_dicts(content.memory)
    else:
        restored_memory = _fill(
            f"{where}: memory/", content.memory, memory, same_shapes=False
        )
        for path in content.memory.keys() - flatten(memory).keys():
            raise UserError(f"{where}: memory/{path}: there, but not needed")
    return Restored(epoch, restored_states, restored_memory, meta)


def _fill(
    where: str, arrays: Arrays, template: PyTree, same_shapes: bool = True
) -> PyTree:
    """Replaces the leaves of a template by the arrays of the same path."""

    def take(keys: tuple[Any, ...], leaf: Any) -> np.ndarray:
        path, shape = path_of(keys), tuple(np.shape(leaf))
        array = arrays.get(path)
        if array is None:
            raise UserError(
                f"{where}{path}: absent there, shape {shape} needed"
            )
        if same_shapes and array.shape != shape:
            raise UserError(
                f"{where}{path}: shape {array.shape} there, {shape} needed"
            )
        return array

    return jax.tree_util.tree_map_with_path(take, template)


def path_of(keys: Iterable[Any]) -> str:
    """The path of a leaf, such as ``params/conv/kernel``."""
    keystr = jax.tree_util.keystr
    return "/".join(_escape(keystr((key,), simple=True)) for key in keys)


def flatten(tree: PyTree) -> Arrays:
    """The leaves of a pytree as numpy arrays, by path."""
    pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {path_of(keys): np.asarray(leaf) for keys, leaf in pairs}


def _escape(part: str) -> str:
    # Orbax joins names with "." and paths are joined with "/"; a name that
    # holds one of them would collide with another path.
    return part.replace("%", "%25").replace("/", "%2F").replace(".", "%2E")


def _unescape(part: str) -> str:
    return part.replace("%2E", ".").replace("%2F", "/").replace("%25", "%")


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts from ``a/b/c`` paths; names stay escaped."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def _unnest(tree: Mapping[str, Any]) -> Arrays:
    """The inverse of ``_nest``."""
    pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(k.key for k in keys): leaf for keys, leaf in pairs}


def _as_dicts(arrays: Arrays) -> dict[str, Any]:
    """Nested dicts from arrays by path, with the names as they were."""

    def named(node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        return {_unescape(name): named(child) for name, child in node.items()}

    return named(_nest(arrays))


def array_sha256(array: np.ndarray) -> str:
    """SHA-256 (hex) of an array's dtype, shape and bytes in C order."""
    digest = hashlib.sha256(f"{array.dtype.name}{array.shape}".encode())
    # As bytes, since a dtype such as bfloat16 has no buffer; not copied.
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def json_sha256(obj: Any) -> str:
    """SHA-256 (hex) of a JSON-able object, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(obj, sort_keys=True).encode()).hexdigest()


def weights_sha256(states: Sequence[PyTree]) -> str:
    """One SHA-256 over all parameters and batch statistics of all networks.

    Args:
      states: one pytree per network with ``params`` and ``batch_stats``.

    Returns:
      The hex digest; paths in sorted order, so dict order does not matter.
    """
    digest = hashlib.sha256()
    for k, state in enumerate(states):
        for path, array in sorted(flatten(state).items()):
            if path.startswith(("params/", "batch_stats/")):
                digest.update(f"net{k}/{path} {array_sha256(array)}\n".encode())
    return digest.hexdigest()
