"""Checkpoints: every bit comes back, damage is named, the best are kept."""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import optax
import pytest

from jaxnlt.runtime import checkpoint
from jaxnlt.runtime.checkpoint import Checkpoints
from jaxnlt.runtime.errors import UserError


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Laid out as the state of one network."""

    params: dict
    batch_stats: dict
    opt_state: tuple
    carry: dict


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Memory:
    """Laid out as the memory of selectors and method."""

    selector: dict
    history: np.ndarray


def state(seed: int, width: int = 4) -> State:
    rng = np.random.default_rng(seed)
    params = {
        "conv.1/a%2F": {"kernel": rng.normal(size=(3, 3, 2, width))},
        "conv.1": {"a%2F": rng.normal(size=2)},
        "scale": np.float32(rng.normal()),
        "minus_zero": np.full(3, -0.0, np.float32),
    }
    optimizer = optax.chain(
        optax.add_decayed_weights(1e-4), optax.sgd(0.1, momentum=0.9)
    )
    return State(
        params=params,
        batch_stats={"mean": rng.normal(size=width).astype(np.float32)},
        opt_state=jax.tree.map(np.asarray, optimizer.init(params)),
        carry={
            "queue": rng.normal(size=(5, 2)).astype(ml_dtypes.bfloat16),
            "fill": np.int32(3),
            "none": np.zeros((0, 2), np.float32),
        },
    )


def memory(size: int = 3) -> Memory:
    rng = np.random.default_rng(size)
    return Memory(
        selector={
            "semi": [{"losses": rng.normal(size=(size, 4))}, {"losses": ()}],
            "warm_up": [{}, {}],
        },
        history=np.arange(2 * size, dtype=np.int32).reshape(2, size),
    )


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert isinstance(x, np.ndarray)
        assert x.dtype == y.dtype and x.shape == y.shape
        assert x.tobytes() == y.tobytes()


def save(kept, epoch, accuracy=0.5, last=False, size=3):
    kept.save(
        epoch,
        [state(2 * epoch), state(2 * epoch + 1)],
        memory(size),
        {"epoch": epoch, "phase": "warm_up", "config": {"lr": 0.02}},
        accuracy=accuracy,
        last_of_phase=last,
    )


def opened(workdir):
    """Checkpoints of a folder, closed at the end of a ``with``."""
    return contextlib.closing(Checkpoints(workdir))


def run(workdir, epochs=3, size=3):
    with opened(workdir) as kept:
        for epoch in range(epochs):
            save(kept, epoch, size=size)


def test_roundtrip_keeps_every_bit_and_the_structure(tmp_path):
    tmp_path = tmp_path / "names a user #1 gives, 100%20"
    run(tmp_path)
    with opened(tmp_path) as kept:
        got = kept.restore([state(0), state(0)], memory(0))
    assert got.epoch == 2
    equal(got.states, [state(4), state(5)])
    equal(got.memory, memory())
    assert got.meta["config"] == {"lr": 0.02}


def test_nested_dicts_where_there_is_no_template(tmp_path):
    run(tmp_path, 1)
    got = checkpoint.load(tmp_path)
    equal(got.states[1]["params"], state(1).params)
    trace = got.states[1]["opt_state"]["1"]["0"]["trace"]
    equal(trace, state(1).opt_state[1][0].trace)
    equal(got.memory["selector"]["semi"]["0"], memory().selector["semi"][0])
    digest = checkpoint.weights_sha256(got.states)
    assert digest == checkpoint.weights_sha256([state(0), state(1)])


@pytest.mark.parametrize("empty", [{}, {"m": np.zeros((0, 3), np.int16)}])
def test_memory_without_elements(tmp_path, empty):
    with opened(tmp_path) as kept:
        kept.save(0, [state(0)], empty, {}, accuracy=None, last_of_phase=False)
    equal(checkpoint.load(tmp_path).memory, empty)


def test_no_checkpoint_restores_none(tmp_path):
    with opened(tmp_path) as kept:
        assert kept.restore([state(0)], memory()) is None


def test_arrays_may_change_while_a_save_is_on_its_way(tmp_path):
    big = {"big": np.zeros((500, 500))}
    with opened(tmp_path) as kept:
        kept.save(0, [state(0)], big, {}, accuracy=None, last_of_phase=False)
        big["big"][:] = 1
    assert not checkpoint.load(tmp_path).memory["big"].any()


def test_keeps_latest_two_best_and_last_of_phase_also_over_a_restart(tmp_path):
    accuracy = [0.1, 0.2, 0.9, 0.9, 0.3, 0.2, 0.4, 0.4]
    for part in (range(4), range(4, 8)):
        with opened(tmp_path) as kept:
            for epoch in part:
                save(kept, epoch, accuracy[epoch], last=epoch == 1)
    with opened(tmp_path) as kept:
        assert kept.epochs() == [1, 2, 6, 7]


def test_an_epoch_is_never_silently_not_saved(tmp_path):
    with opened(tmp_path) as kept:
        save(kept, 1)
        with pytest.raises(ValueError, match="epoch 0 is not after 1"):
            save(kept, 0)


def data_files(workdir: pathlib.Path, epoch: int, item: str):
    """The files with the arrays' bytes, or the JSON of ``meta``.

    A merge leaves copies, and which of them is read Orbax alone knows.
    """
    folder = workdir / "checkpoints" / str(epoch) / item
    if item == "meta":
        return [folder / "metadata"]
    return sorted(folder.rglob("d/*"))


def flip(path: pathlib.Path, at: int):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def truncate(path: pathlib.Path, _):
    os.truncate(path, path.stat().st_size // 2)


def remove(path: pathlib.Path, _):
    path.unlink()


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("item", ["net1", "memory", "meta"])
@pytest.mark.parametrize("damage", [flip, truncate, remove])
def test_damaged_newest_is_named_and_the_one_before_used(
    tmp_path, caplog, item, damage
):
    run(tmp_path, size=400)
    for file in data_files(tmp_path, 2, item):
        damage(file, file.stat().st_size // 3)
    caplog.clear()
    templates = [state(0), state(0)], memory()
    with opened(tmp_path) as kept:
        got = kept.restore(*templates)
        (named,) = [s for s in caplog.messages if "checkpoints/2" in s]
        assert "damaged" in named and "\n" not in named
        assert got.epoch == 1
        equal(got.states, [state(2), state(3)])
        assert kept.epochs() == [0, 1]
        save(kept, 2)
        assert kept.restore(*templates).epoch == 2


def test_every_single_bit_of_a_small_file_is_guarded(tmp_path):
    """A flipped bit is found, or changes nothing that is read."""
    run(tmp_path, 1)
    wholes = {f: f.read_bytes() for f in data_files(tmp_path, 0, "net0")}
    found = 0
    for part in range(12):
        for file, whole in wholes.items():
            flip(file, len(whole) * part // 12)
        try:
            equal(checkpoint.load(tmp_path, 0, [state(0)]).states, [state(0)])
        except UserError:
            found += 1
        for file, whole in wholes.items():
            file.write_bytes(whole)
    assert found >= 6


def test_meta_values_are_guarded(tmp_path):
    run(tmp_path, 1)
    (file,) = data_files(tmp_path, 0, "meta")
    file.write_text(file.read_text().replace("0.02", "0.03"))
    with pytest.raises(UserError, match="meta: its SHA-256"):
        checkpoint.load(tmp_path, 0)


@pytest.mark.parametrize("layout", [None, 1, checkpoint.LAYOUT + 1])
def test_another_layout_is_one_line(tmp_path, layout):
    run(tmp_path, 1)
    (file,) = data_files(tmp_path, 0, "meta")
    fields = json.loads(file.read_text())
    del fields["sha256_of_this"], fields["layout"]
    if layout:
        fields["layout"] = layout
    fields["sha256_of_this"] = checkpoint.json_sha256(fields)
    file.write_text(json.dumps(fields))
    for read in (Checkpoints, checkpoint.load):
        with pytest.raises(UserError, match=f"^{tmp_path}: .*version.*$"):
            read(tmp_path)


def test_all_damaged_is_one_line_and_removes_nothing(tmp_path):
    run(tmp_path, 2)
    for epoch in range(2):
        for file in data_files(tmp_path, epoch, "net0"):
            truncate(file, 0)
    with opened(tmp_path) as kept:
        with pytest.raises(UserError, match=r"checkpoints: .*0, 1"):
            kept.restore([state(0), state(0)], memory())
        assert kept.epochs() == [0, 1]


KILLED = """
import os, sys, threading, numpy as np
from jaxnlt.runtime.checkpoint import Checkpoints
kept = Checkpoints(sys.argv[1])
def save(epoch, size):
    tree = {"params": {"w": np.random.default_rng(epoch).normal(size=size)}}
    tree["batch_stats"] = {}
    kept.save(epoch, [tree], {}, {}, accuracy=0.5, last_of_phase=False)
save(0, 10)
kept.wait()
save(1, 3_000_000)
os.kill(os.getpid(), 9)
"""


def test_kill_during_a_save_leaves_the_one_before(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)])
    assert done.returncode == -signal.SIGKILL
    folder = tmp_path / "checkpoints"
    assert any("tmp" in p.name for p in folder.iterdir())
    with opened(tmp_path) as kept:
        assert kept.restore([{"params": {"w": np.zeros(10)}}], {}).epoch == 0
        save(kept, 1)
    assert sorted(p.name for p in folder.iterdir()) == ["0", "1"]


def test_load_takes_a_part_of_one_network(tmp_path):
    run(tmp_path)
    wanted = {"params": state(0).params}
    got = checkpoint.load(tmp_path, 1, [wanted])
    equal(got.states, [{"params": state(2).params}])
    assert got.epoch == 1


def test_load_leaves_the_other_run_alone(tmp_path):
    run(tmp_path)
    debris = tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp"
    debris.mkdir()
    for file in data_files(tmp_path, 2, "net0"):
        truncate(file, 0)
    before = sorted(tmp_path.rglob("*"))
    assert checkpoint.load(tmp_path).epoch == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "states, line",
    [
        (
            [state(0), state(0, width=5)],
            r"net1/params/conv.*kernel: .*2, 4\).*2, 5\)",
        ),
        (
            [{"params": {"extra": np.zeros((2, 3))}}],
            r"net0/params/extra: .*\(2, 3\)",
        ),
        ([state(0)] * 3, r"holds 2 .* 3 needed"),
    ],
)
def test_misfit_is_one_line_and_no_damage(tmp_path, states, line):
    run(tmp_path, 2)
    with opened(tmp_path) as kept:
        for read in (
            lambda: checkpoint.load(tmp_path, 1, states),
            lambda: kept.restore(states, memory()),
        ):
            with pytest.raises(UserError, match=f"checkpoints/1: {line}"):
                read()
        assert kept.epochs() == [0, 1]


@pytest.mark.parametrize(
    "more, path",
    [({}, "selector/semi/0/losses"), ({"method": np.zeros(1)}, "method")],
)
def test_memory_of_another_structure_is_one_line(tmp_path, more, path):
    run(tmp_path, 1)
    template = {"history": np.zeros(0)} | more
    with pytest.raises(UserError, match=f"checkpoints/0: memory/{path}: "):
        checkpoint.load(tmp_path, memory=template)


def test_missing_folder_or_epoch_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"checkpoints: no checkpoint there$"):
        checkpoint.load(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    run(tmp_path)
    with pytest.raises(UserError, match=r"no checkpoint 7, .* 1, 2 "):
        checkpoint.load(tmp_path, 7)


def test_source_names():
    assert checkpoint.split_source("runs/a@12") == ("runs/a", 12)
    assert checkpoint.split_source("runs/a@b") == ("runs/a@b", None)
    assert checkpoint.split_source("runs/a") == ("runs/a", None)


def test_weights_sha256_depends_on_weights_only():
    digest = checkpoint.weights_sha256([state(0), state(1)])
    assert checkpoint.weights_sha256([state(1), state(0)]) != digest
    other = [state(0), state(1)]
    other[0] = dataclasses.replace(other[0], opt_state=(), carry={})
    other[1] = vars(other[1])
    other[1]["params"] = dict(reversed(other[1]["params"].items()))
    assert checkpoint.weights_sha256(other) == digest
    other[1]["batch_stats"]["mean"][0] += 1e-6
    assert checkpoint.weights_sha256(other) != digest


def test_hashes_are_stable():
    """Files written today must verify tomorrow."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    digest = checkpoint.array_sha256(array)
    assert digest == (
        "b438c5d786e1b613aa64ec714cb7157d230f98c8d68854da82b4f471d73c9acf"
    )
    assert checkpoint.array_sha256(np.asfortranarray(array)) == digest
    half = array.astype(ml_dtypes.bfloat16)
    others = array, array.reshape(3, 2), array.view(np.int32), half
    others = [*others, half.view(np.float16)]
    assert len(set(map(checkpoint.array_sha256, others))) == 5
