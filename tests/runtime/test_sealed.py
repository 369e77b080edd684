import ml_dtypes
import numpy as np
import pytest

from jaxnlt.runtime import checkpoint


def state(seed: int):
    rng = np.random.default_rng(seed)
    return {
        "params": {"a": rng.normal(size=(2, 3)), "b": {"c": np.ones(4)}},
        "batch_stats": {"mean": rng.normal(size=4).astype(np.float32)},
        "opt_state": {"momentum": np.zeros(3)},
        "carry": {},
    }


def test_weights_sha256_depends_on_weights_only():
    digest = checkpoint.weights_sha256([state(0), state(1)])
    other = [state(0), state(1)]
    other[0]["opt_state"] = other[0]["carry"] = {}
    other[1]["params"] = dict(reversed(other[1]["params"].items()))
    assert checkpoint.weights_sha256(other) == digest
    assert checkpoint.weights_sha256([state(1), state(0)]) != digest
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
    assert checkpoint.array_sha256(array.reshape(3, 2)) != digest
    assert checkpoint.array_sha256(array.view(np.int32)) != digest
    half = array.astype(ml_dtypes.bfloat16)
    assert checkpoint.array_sha256(half) != checkpoint.array_sha256(
        half.view(np.float16)
    )


def test_names_with_separators_do_not_collide():
    tree = {"a": {"b": np.zeros(1)}, "a.b": np.ones(1), "a/b": np.ones(2)}
    flat = checkpoint.flatten(tree)
    assert sorted(flat) == ["a%2Eb", "a%2Fb", "a/b"]
    assert checkpoint.unnest(checkpoint.nest(flat)) == flat


def test_skeleton_keeps_kinds():
    tree = {"a": [1, (None, "x")], "b": np.float64(0.5), "c": {}}
    arrays = {}
    skeleton = checkpoint.encode(tree, arrays)
    assert list(arrays) == ["b"]
    back = checkpoint.decode(skeleton, arrays)
    assert back["a"] == [1, (None, "x")] and back["c"] == {}
    assert back["b"].dtype == np.float64 and back["b"] == 0.5
    with pytest.raises(TypeError, match="memory a: keys must be strings"):
        checkpoint.encode({"a": {1: 2}}, {})
