"""Compiling for TPUs that are not there: what is read, and what follows."""

import importlib.util
import json
import logging

import jax
import numpy as np
import pytest

from jaxnlt.bench.aot import command, hlo, programs, report, roofline
from jaxnlt.runtime.errors import UserError
from tests import runs

TEXT = """\
HloModule jit_step, is_scheduled=true

FileNames
1 "/home/me/jaxnlt/losses/mixmatch.py"
2 "/usr/lib/site-packages/optax/losses.py"

FileLocations
7 {file_name_id=1 function_name_id=1 line=92 column=8}
8 {file_name_id=2 function_name_id=1 line=5 column=8}

StackFrames
3 {file_location_id=7 parent_frame_id=1}
4 {file_location_id=8 parent_frame_id=4}
5 {file_location_id=8 parent_frame_id=1}

%async.1 (p.1: f32[8,3]) -> f32[64,3] {
  %p.1 = f32[8,3]{1,0:T(8,128)} parameter(0)
  ROOT %g.1 = f32[64,3]{1,0} all-gather(%p.1), channel_id=4, \
replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}
}

%async.2 (p.2: f32[8,3]) -> f32[64,3] {
  %p.2 = f32[8,3]{1,0:T(8,128)} parameter(0)
  ROOT %g.2 = f32[64,3]{1,0} all-gather(%p.2), channel_id=4, dimensions={0}
}

ENTRY %main (a: bf16[16,100], b: f32[8]) -> f32[8] {
  %a = bf16[16,100]{1,0:T(8,128)(2,1)} parameter(0)
  %b = f32[8]{0:T(128)S(1)} parameter(1)
  %r = (f32[8]{0:T(128)S(1)}, bf16[16,100]{1,0:T(8,128)(2,1)}) \
all-reduce(%b, %a), channel_id=1, replica_groups=[2,4]<=[8], to_apply=%add
  %s = (f32[8]{0}, f32[8]{0}, u32[]) collective-permute-start(%b), \
channel_id=2, source_target_pairs={{0,1},{1,0}}
  %d = f32[8]{0} collective-permute-done(%s)
  %t = f32[8]{0} all-to-all(%d), channel_id=3, replica_groups={{0,1},{2,3}}
  %one = f32[8]{0} all-reduce(%d), channel_id=5, replica_groups={{0},{1}}
  %v = f32[8]{0:T(128)} fusion(%a), metadata={op_name="jit(step)/gather" \
stack_frame_id=5}
  ROOT %f = f32[8]{0:T(128)} fusion(%a, %b), kind=kLoop, calls=%x, \
metadata={op_name="jit(step)/mul" stack_frame_id=4}, \
backend_config={"window_config":{"estimated_cycles":"1825"}}
}
"""
WORK = roofline.Work(
    chips=8,
    flops=2e12,
    nbytes=5e9,
    hbm_bytes=3e9,
    state_bytes=1e9,
    collectives=(
        hlo.Collective("all-reduce", 8e6, 8, "", ""),
        hlo.Collective("all-gather", 1e6, 8, "", ""),
    ),
    images=128,
    batch_sizes=(96, 32),
)


def test_collectives_are_counted_once_in_every_notation():
    found = hlo.Compiled(TEXT, 8).collectives()
    assert [(c.kind, c.nbytes, c.chips) for c in found] == [
        ("all-gather", 96, 4),
        ("all-reduce", 32 + 3200, 4),
        ("collective-permute", 32, 8),
        ("all-to-all", 32, 2),
    ]
    sent = [96 * 3, 3232 * 2 * 3 / 4, 32, 16]
    assert [c.sent for c in found] == sent
    assert roofline.sums([*found, found[0]])["all-gather"] == (2, 2 * 96 * 3)


def test_operations_are_named_with_padding_memory_and_line():
    first, *_ = hlo.Compiled(TEXT, 8).touched()
    assert (first.name, first.kind) == ("r", "all-reduce")
    found = {op.name: op for op in hlo.Compiled(TEXT, 8).touched()}
    assert set(found) == {"r", "s", "t", "one", "v", "f"}
    tiles, vector = 16 * 128 * 2, 128 * 4
    fusion = found["f"]
    assert found["v"].nbytes == 2 * vector  # of a only eight rows are read
    assert fusion.nbytes == tiles + 2 * vector
    assert fusion.hbm_bytes == tiles + vector  # b lies in another memory
    assert (fusion.cycles, fusion.source) == (1825, "jit(step)/mul")
    assert fusion.place == "losses/mixmatch.py:92"
    assert found["v"].place == "optax/losses.py:5"


def test_the_roofline_is_the_slowest_of_three():
    chip = roofline.Chip(1e14, 16e9, 1e12, 5e10, 2)
    times = roofline.times(WORK, chip)
    hops = 8**0.5
    network = (14e6 + 7e6) / 1e11 + 3 * hops * 1e-6
    np.testing.assert_allclose(times, (0.02, 0.003, 0.005, network))
    assert times.least == 0.02 and times.most == 0.02 + times.network
    slow = times._replace(arithmetic=0.004)
    assert (slow.least, slow.most) == (0.004, 0.005 + times.network)


def test_more_chips():
    same = roofline.on_chips(WORK, 64, "chip")
    assert (same.flops, same.nbytes, same.images) == (2e12, 5e9, 1024)
    assert [c.sent for c in same.collectives] == [16e6 * 63 / 64, 63e6]
    # 64 chips do not divide 96 rows and 32, but 32 do.
    less = roofline.on_chips(WORK, 64, "global")
    assert (less.chips, less.flops, less.images) == (32, 5e11, 128)
    assert (less.nbytes, less.hbm_bytes) == (1e9 + 4e9 / 4, 1e9 + 2e9 / 4)
    assert [c.nbytes for c in less.collectives] == [8e6, 0.25e6]


@pytest.mark.parametrize("topology", ["v5e", "v9:2x2", "v5e:2", "v4:axb"])
def test_unknown_topologies(topology):
    with pytest.raises(UserError, match="--topology: .*v5e:2x4"):
        roofline.chip_of(topology)


def test_without_the_compiler_there_is_one_line(monkeypatch, capsys):
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert command.main(["aot", "--config=erm:digits"]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1
    assert err.startswith("jaxnlt: error: libtpu: ")
    assert "jaxnlt[tpu]" in err


@pytest.mark.slow
def test_the_arguments_are_those_of_training(caplog):
    """Lowered for the CPU: every phase, no file read, no network run."""
    config = runs.tiny("h2e", "clothing1m")
    with caplog.at_level(logging.WARNING, logger="jaxnlt"):
        data = programs.dataset_of(config)
        found = list(programs.programs(config, data, jax.devices()[:1]))
    assert not caplog.records
    phases = ["base", "identify", "robust"]
    assert [p.what for p in found] == [*phases, "inference"]
    pixels = "x224x224x3xui8>"
    assert all(pixels in p.lowered.as_text() for p in found)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="needs libtpu: pip install 'jaxnlt[tpu]'",
)
def test_a_small_network_compiles(tmp_path, capsys):
    file = tmp_path / "aot.json"
    flags = ["--config.model.width=8", "--config.model.blocks=(1,)"]
    flags += ["--topology=v5e:2x4", "--operations=3", f"--json={file}"]
    assert command.main(["aot", "--config=erm:digits", *flags]) == 0
    out = capsys.readouterr().out
    result = json.loads(file.read_text())
    assert out == report.table(result) + "\n"
    train, inference = result["rows"]
    assert result["chips"] == 8 and result["dtype"] == "bfloat16"
    # Two BatchNorms, then each gradient; inference exchanges nothing.
    assert train["collectives"]["all-reduce"]["count"] >= 7
    assert not inference["collectives"]
    assert len(train["operations"]) == 3
    assert 0 < train["seconds_least"] <= train["seconds_most"]
    assert train["images"] == 32 and train["flops"] > 1e6
