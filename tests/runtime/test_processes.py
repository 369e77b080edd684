"""Joining by environment variables; a job of one process."""

import logging

import jax
import numpy as np
import pytest

from jaxnlt.runtime import processes, sharding
from jaxnlt.runtime.errors import UserError

THREE = {
    "JAXNLT_COORDINATOR": "10.0.0.1:1234",
    "JAXNLT_NUM_PROCESSES": "4",
    "JAXNLT_PROCESS_ID": "3",
}


@pytest.fixture
def joined(monkeypatch):
    """Arguments of ``jax.distributed.initialize``, which joins nothing."""
    calls = []
    monkeypatch.setattr(
        jax.distributed, "initialize", lambda **given: calls.append(given)
    )
    before = jax.config.values["jax_enable_preemption_service"]
    yield calls
    jax.config.update("jax_enable_preemption_service", before)


def test_without_variables_there_is_one_process(joined):
    processes.join({})
    assert joined == []


def test_three_variables_join(joined):
    processes.join(THREE)
    (given,) = joined
    assert given["coordinator_address"] == "10.0.0.1:1234"
    assert (given["num_processes"], given["process_id"]) == (4, 3)
    assert given["heartbeat_timeout_seconds"] <= 30
    assert not jax.config.values["jax_enable_preemption_service"]


def test_auto_leaves_it_to_jax(joined):
    processes.join({"JAXNLT_DISTRIBUTED": "auto"})
    assert joined == [{"heartbeat_timeout_seconds": processes.HEARTBEAT}]


@pytest.mark.parametrize(
    "field, values",
    [
        ("JAXNLT_PROCESS_ID", ("", "4", "-1")),
        ("JAXNLT_NUM_PROCESSES", ("two",)),
        ("JAXNLT_COORDINATOR", ("host", ":12", "h:x")),
        ("JAXNLT_DISTRIBUTED", ("yes", "auto")),
    ],
)
def test_incomplete_variables_are_refused(field, values, joined):
    for value in values:
        with pytest.raises(UserError, match=f"^{field}: "):
            processes.join(THREE | {field: value})
    assert joined == []


def test_others_that_do_not_come_are_one_line(monkeypatch, joined):
    def late(**given):
        raise RuntimeError("DEADLINE_EXCEEDED:\n late")

    monkeypatch.setattr(jax.distributed, "initialize", late)
    with pytest.raises(UserError, match="^joining the other.*EXCEEDED: late"):
        processes.join(THREE)


def test_a_pod_that_was_not_joined_is_refused(monkeypatch):
    processes.check()
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(UserError, match="^JAXNLT_DISTRIBUTED: "):
        processes.check()


def test_one_process_decides_for_itself():
    value = {"rows": np.arange(3)}
    assert processes.decided(lambda: value) is value
    assert processes.gathered(value) == [value]
    assert processes.whole(value) is value
    processes.agree("")
    with pytest.raises(UserError, match="^out: of order$"):
        processes.agree("out: of order")
    processes.wait_for_all("end")
    assert processes.is_lead()


def test_devices_of_several_processes_must_divide_the_batch(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [object()] * 8)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes, "alone", lambda: False)
    with pytest.raises(UserError, match="^config.batch_size: "):
        sharding.make_mesh([32, 20])


def test_only_what_is_a_process_s_own_passes_elsewhere():
    def record(**extra):
        made = logging.makeLogRecord({"msg": "text"})
        made.__dict__.update(extra)
        return processes._only_own(made)

    assert not record() and record(**processes.OWN)


def test_rows_of_one_process_are_all():
    mesh = sharding.make_mesh([6])
    assert sharding.own_rows(mesh, 6).tolist() == list(range(6))
