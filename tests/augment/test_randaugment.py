"""RandAugment, the package's and the standard one, against Pillow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt.augment import autoaugment, pillow, randaugment
from tests.augment.pictures import compare, random_images, with_pillow

SIZE = 24
# Compiled once each: operation by operation is slower than compiling.
apply_pypi = jax.jit(randaugment.apply_pypi)
apply_standard = jax.jit(randaugment.apply_standard, static_argnums=2)
sample_pypi = jax.jit(randaugment.sample_pypi, static_argnums=(1, 2, 3))
sample_standard = jax.jit(randaugment.sample_standard, static_argnums=(1, 2))


def at(image, name, share, positive, rotate_both_ways):
    """One operation by Pillow; the grids of ``papers/h2e.md`` section 9."""
    signed = share if positive else -share
    value = {
        "identity": 0.0,
        "shearX": 0.3 * signed,
        "shearY": 0.3 * signed,
        "translateX": 150 / 331 * signed * SIZE,
        "translateY": 150 / 331 * signed * SIZE,
        "rotate": 30 * (signed if rotate_both_ways else share),
        "posterize": np.round(8 - 4 * share),
        "solarize": 256 - 256 * share,
    }.get(name, 1 + 0.9 * signed)
    return with_pillow(image, name, value)


def with_package(image, name, level, positive, y, x):
    if name != "cutout":
        return at(image, name, level / 9, positive, False)
    half = int(np.round(20 * level / 9)) // 2
    image = image.copy()
    rows = slice(max(0, y - half), y + half)
    image[rows, max(0, x - half) : x + half] = (125, 122, 113)
    return image


def test_every_pair_equals_the_package():
    """All 135 operations with both signs, first and second of a pair."""
    columns = np.argwhere(np.ones((15, 9, 2))) + [0, 1, 0]  # levels from 1
    batch = len(columns)
    rng = np.random.default_rng(0)
    op, level, positive = np.stack([columns, rng.permutation(columns)], 1).T
    middle = rng.integers(0, SIZE, (2, 2, batch))
    images = random_images(batch, SIZE, SIZE, 3)

    def apply(applied):
        applied = np.broadcast_to(applied, (2, batch))
        draws = randaugment.PypiDraws(op, level, positive, applied, *middle)
        return np.asarray(apply_pypi(images, draws))

    neither = np.array([[False], [False]])
    np.testing.assert_array_equal(apply(neither), images)
    first = apply(np.array([[True], [False]]))
    both = apply(np.array([[True], [True]]))
    assert both.dtype == np.uint8
    for slot, before, after in ((0, images, first), (1, first, both)):
        for i in range(batch):
            name, *draw = (c[slot, i] for c in (op, level, positive, *middle))
            name = randaugment.PYPI_OPS[name]
            expected = with_package(before[i], name, *draw)
            compare(after[i], expected, name in pillow.SHEAR_OPS)


def test_the_package_has_135_operations():
    choices, index = randaugment.pypi_choices(SIZE, SIZE)
    assert len(randaugment.PYPI_OPS) == 15 and randaugment.LEVELS == 9
    assert choices[0] == pillow.IDENTITY
    assert len(set(choices)) == len(choices)
    for i, op in enumerate(randaugment.PYPI_OPS):
        for k in index[i, 1:].reshape(-1):
            assert choices[k][0] == ("identity" if op == "cutout" else op)
    # Level 0 of a grid, which changes nothing, is not drawn.
    assert autoaugment.MAGNITUDES["rotate"][1] > 0


def test_package_draws_are_even():
    batch = 40_000
    draws = jax.device_get(sample_pypi(jax.random.key(0), batch, 8, 12))
    pairs = draws.op * 9 + draws.level - 1
    for slot in (0, 1):
        counts = np.bincount(pairs[slot], minlength=135)
        assert len(counts) == 135
        np.testing.assert_allclose(counts / batch, 1 / 135, atol=0.002)
        for coin in (draws.positive, draws.applied):
            np.testing.assert_allclose(coin[slot].mean(), 0.5, atol=0.01)
        assert np.unique(draws.cut_y[slot]).tolist() == list(range(8))
        assert np.unique(draws.cut_x[slot]).tolist() == list(range(12))
    columns = np.concatenate(draws)
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlation).max() < 0.03


def test_cutout_at_the_border_and_on_grey_images():
    images = np.zeros((3, 6, 8, 1), np.uint8)
    draws = map(jnp.asarray, ([4, 7, 0], [0, 5, 3], [7, 0, 3]))
    out = randaugment.cutout(jnp.asarray(images), *draws)
    expected = images.copy()
    expected[0, :2, 5:] = 122
    expected[1, 2:, :3] = 122
    np.testing.assert_array_equal(out, expected)


def test_every_standard_operation_equals_pillow():
    magnitude = 3.5  # 6.6 bits: rounded, not cut
    op = np.repeat(np.arange(14), 4)
    order = np.random.default_rng(1).permutation(len(op))
    op, positive = (
        np.stack([c, c[order]]) for c in (op, np.arange(len(op)) % 2 == 0)
    )
    images = random_images(len(order), SIZE, SIZE, 3)
    one, two = (
        np.asarray(
            apply_standard(
                images,
                randaugment.StandardDraws(op[:n], positive[:n]),
                magnitude,
            )
        )
        for n in (1, 2)
    )
    for slot, before, after in ((0, images, one), (1, one, two)):
        for i in range(len(order)):
            name = randaugment.STANDARD_OPS[op[slot, i]]
            share, sign = magnitude / 10, positive[slot, i]
            expected = at(before[i], name, share, sign, True)
            compare(after[i], expected, name in pillow.SHEAR_OPS)


def test_standard_draws_are_even():
    batch = 20_000
    draws = jax.device_get(sample_standard(jax.random.key(0), batch, 3))
    assert draws.op.shape == draws.positive.shape == (3, batch)
    for op, positive in zip(*draws, strict=True):
        counts = np.bincount(op, minlength=14)
        assert len(counts) == 14
        np.testing.assert_allclose(counts / batch, 1 / 14, atol=0.008)
        np.testing.assert_allclose(positive.mean(), 0.5, atol=0.02)
    correlation = np.corrcoef(np.concatenate(draws)) - np.eye(6)
    assert np.abs(correlation).max() < 0.03


def test_magnitudes_are_refused_beyond_the_scale():
    for magnitude in (-1.0, 10.5):
        with pytest.raises(ValueError, match="magnitude"):
            randaugment.standard_choices(magnitude, 8, 8)
    # The weakest changes nothing, the strongest is AutoAugment's.
    weak, index = randaugment.standard_choices(0.0, SIZE, SIZE)
    assert weak[index[randaugment.STANDARD_OPS.index("color"), 1]][1] == 1
    assert randaugment.MAGNITUDE == 9.0 and randaugment.NUM_OPS == 2
    strong, index = randaugment.standard_choices(10.0, SIZE, SIZE)
    posterize = index[randaugment.STANDARD_OPS.index("posterize"), 1]
    assert strong[posterize] == ("posterize", 4.0)
