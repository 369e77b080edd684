"""The share of time in which a device waits, from a trace."""

import gzip
import json

import pytest

from jaxnlt.bench import gaps
from jaxnlt.runtime.errors import UserError


def named(kind, pid, name, tid=None):
    event = {"ph": "M", "name": f"{kind}_name", "pid": pid}
    return event | {"tid": tid, "args": {"name": name}}


def work(pid, tid, begin, length):
    return {"ph": "X", "pid": pid, "tid": tid, "ts": begin, "dur": length}


GPU = [
    named("process", 1, "/device:GPU:0 (NVIDIA)"),
    named("thread", 1, "Stream #13(Compute,MemcpyD2D)", 5),
    named("thread", 1, "Stream #14(MemcpyH2D)", 6),
    named("thread", 1, "XLA Modules", 7),
    named("process", 701, "/host:CPU"),
    named("thread", 701, "tf_XLAEigen/12", 5),
    # Two streams that overlap, then a gap of 30 and one of 10.
    work(1, 5, 100, 20),
    work(1, 6, 110, 20),
    work(1, 5, 160, 30),
    work(1, 5, 165, 5),
    work(1, 5, 200, 0),
    # A module spans its gaps; the host works all the time.
    work(1, 7, 100, 100),
    {"ph": "B", "pid": 1, "tid": 5, "ts": 0},
]


def test_gaps_are_what_no_stream_fills():
    found = gaps.gaps(GPU)
    assert found["wall_ms"] == pytest.approx(0.1)
    assert found["gap_share"] == pytest.approx(0.4)
    assert found["busy_share"] == pytest.approx(0.6)
    assert found["longest_gap_ms"] == pytest.approx(0.03)
    assert found["threads"] == [
        "Stream #13(Compute,MemcpyD2D)",
        "Stream #14(MemcpyH2D)",
    ]
    # A second GPU that works for half of the time.
    second = [event | {"pid": 2} for event in GPU[:3]]
    second[0]["args"] = {"name": "/device:GPU:1 (NVIDIA)"}
    found = gaps.gaps([*GPU, *second, work(2, 5, 150, 50)])
    assert found["gap_share"] == pytest.approx(0.45)
    assert found["longest_gap_ms"] == pytest.approx(0.05)
    host = [event for event in GPU if event["pid"] == 701]
    assert gaps.gaps(host) is None
    assert gaps.gaps([*host, work(701, 5, 0, 9)])["gap_share"] == 0


def test_one_trace_is_read(tmp_path):
    with pytest.raises(UserError, match="holds 0 traces"):
        gaps.read(tmp_path)
    (tmp_path / "plugins").mkdir()
    with gzip.open(tmp_path / "plugins/host.trace.json.gz", "wt") as file:
        json.dump({"traceEvents": GPU}, file)
    assert gaps.read(tmp_path) == GPU


def test_mistakes_take_one_line(capsys):
    assert gaps.main(["gaps", "--config=erm", "--steps=0"]) == 2
    assert capsys.readouterr().err.startswith("jaxnlt: error: --steps: ")


@pytest.mark.slow
def test_training_is_profiled():
    config = gaps.command.read_config(
        ["gaps", "--config=erm:digits,smoke", "--config.model.width=4"]
        + ["--config.model.blocks=(1,)"],
        {},
    )[0]
    found = gaps.measure(config, 3)
    (phase,) = found["phases"].values()
    assert phase["steps"] == 3 and 0 <= phase["gap_share"] < 1
    assert "3 steps" in gaps.table(found)
