"""What the bits of a run depend on besides its config and its data."""

import dataclasses
import os

import jax
import pytest

from jaxnlt.runtime import machine

HERE = machine.Machine("CPU x86_64", cores=2, jax="0.10.2")
FIELDS = dataclasses.asdict(HERE)


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(
        os, "sched_getaffinity", lambda process: {1, 4, 6}, raising=False
    )
    assert machine.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert machine.cores() == 5


def test_the_machine_of_this_process():
    one, two = machine.here(1), machine.here(2)
    assert two.device == f"2 x {one.device}"
    assert one.jax == jax.__version__


@pytest.mark.parametrize(
    ("earlier", "words"),
    [
        ({}, ""),
        (FIELDS, ""),
        (FIELDS | {"cores": 1}, "cores: 1 before, 2 now"),
        ({"jax": "0.11.0"}, "jax: 0.11.0 before, 0.10.2 now"),
        (
            FIELDS | {"device": "4 x NVIDIA H200", "cores": 16},
            "device: 4 x NVIDIA H200 before, CPU x86_64 now, "
            "cores: 16 before, 2 now",
        ),
    ],
)
def test_what_differs_is_named(earlier, words):
    assert HERE.changes(earlier) == words


def test_cores_move_no_figure_of_a_gpu(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not HERE.changes(FIELDS | {"cores": 1})
