"""The log of what selections read."""

import jax.numpy as jnp
import numpy as np
import pytest

from configs import sfa, unicon
from jaxnlt import method as base
from jaxnlt.results import outputs as outputs_log
from jaxnlt.runtime.errors import UserError

LABELS = np.repeat(np.arange(10), 3)
# Two batches of two rows, the last of them padding that came along.
POOLED = [
    [
        [{"logits": np.full((2, 3), 10.0 * k + b, np.float32)} for b in (0, 1)]
        for k in (0, 1)
    ]
]


def make(configs=sfa, log=True):
    config = configs.get_config("digits")
    with config.unlocked():
        config.log_outputs = log
    return base.create(config, base.DataInfo(LABELS, 10))


def write(workdir, pooled=POOLED, epoch=20, method=None):
    method = method or make()
    outputs_log.write(workdir, method, epoch, pooled)


def test_outputs_come_back_by_pool_network_and_head(tmp_path):
    pooled = [*POOLED, [[{"logits": np.ones((1, 3)), "a": np.zeros(1)}]]]
    write(tmp_path, pooled)
    first, second = outputs_log.read(tmp_path, 20)
    assert [len(networks) for networks in (first, second)] == [2, 1]
    for k, (batch,) in enumerate(first):
        rows = np.repeat([10.0 * k, 10.0 * k + 1], 2)
        np.testing.assert_array_equal(batch["logits"][:, 0], rows)
        assert batch["logits"].dtype == np.float32
    assert set(second[0][0]) == {"logits", "a"}


def test_bfloat16_becomes_float32_and_float64_stays(tmp_path):
    half = np.asarray(jnp.asarray([[1.5, 0.1]], jnp.bfloat16))
    write(tmp_path, [[[{"a": half, "b": np.array([0.1])}]]])
    out = outputs_log.read(tmp_path, 20)[0][0][0]
    assert out["a"].dtype == np.float32
    np.testing.assert_array_equal(out["a"], half.astype(np.float32))
    assert out["b"].dtype == np.float64 and out["b"] == 0.1


def test_nothing_is_written_unasked_or_in_warm_up(tmp_path):
    write(tmp_path, method=make(log=False))
    write(tmp_path, [], epoch=0)
    assert not list(tmp_path.iterdir())


def test_an_epoch_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    write(tmp_path, [[[{"a": np.array([1.0])}]]])
    write(tmp_path, [[[{"a": np.array([2.0])}]]])
    assert outputs_log.read(tmp_path, 20)[0][0][0]["a"] == 2
    folder = tmp_path / "outputs"
    assert [path.name for path in folder.iterdir()] == ["epoch_020.npz"]

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(UserError, match="020.npz: "):
        write(tmp_path, [[[{"a": np.array([3.0])}]]])
    assert outputs_log.read(tmp_path, 20)[0][0][0]["a"] == 2


def test_networks_that_select_by_turns_are_refused_at_once(tmp_path):
    method = make(unicon)
    assert method.phase(0).selector is None
    with pytest.raises(UserError, match="^config.log_outputs: "):
        write(tmp_path, [], 0, method)
    write(tmp_path, [], 0, make(unicon, log=False))


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(UserError, match="epoch_007.npz: "):
        outputs_log.read(tmp_path, 7)
    path = outputs_log.file_of(tmp_path, 7)
    path.parent.mkdir()
    np.savez(path, **{"0/0": np.zeros(1)})
    foreign = path.read_bytes()
    for content in (b"", b"nonsense", b"PK\x03\x04broken", foreign):
        path.write_bytes(content)
        with pytest.raises(UserError, match="epoch_007.npz: "):
            outputs_log.read(tmp_path, 7)
