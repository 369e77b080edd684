"""After which epochs the vote on the training set counts."""

from types import SimpleNamespace

import pytest

from jaxnlt.results import observing


def counted(epochs, known, selector, evaluated=True):
    phase = SimpleNamespace(selector=selector, evaluated=evaluated)
    method = SimpleNamespace(phases=lambda: [phase])
    trainer = SimpleNamespace(
        config=SimpleNamespace(epochs=epochs), method=method
    )
    return [
        epoch
        for epoch in range(epochs)
        if observing.counted(trainer, epoch, phase, known(epoch))
    ]


READING = SimpleNamespace(outputs=("logits",))
SILENT = SimpleNamespace(outputs=())


@pytest.mark.parametrize(
    "selector, known, expected",
    [
        (READING, lambda epoch: (), [3, 4, 5]),
        (READING, lambda epoch: ["train"] * (epoch > 1), [2, 3, 4, 5]),
        (None, lambda epoch: (), [0, 1, 2, 3, 4, 5]),
        (SILENT, lambda epoch: (), [0, 1, 2, 3, 4, 5]),
    ],
)
def test_the_second_half_and_whatever_is_free(selector, known, expected):
    assert counted(6, known, selector) == expected


def test_networks_that_are_not_evaluated_do_not_vote_but_at_the_end():
    assert counted(4, lambda epoch: (), None, evaluated=False) == [3]
