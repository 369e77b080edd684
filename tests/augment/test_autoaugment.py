"""The AutoAugment policy: the published table, its draws, Pillow's pixels."""

import jax
import numpy as np
import pytest

from jaxnlt.augment import autoaugment, pillow
from tests.augment.pictures import random_images, with_pillow

sample_policy = jax.jit(autoaugment.sample_policy, static_argnums=1)

# ``papers/dasc.md`` section 2: value without sign, translations as a share
# of the size
TABLE = """
invert - 0.1 contrast 0.6 0.2
rotate 6.667 0.7 translateX 0.4532 0.3
sharpness 0.1 0.8 sharpness 0.3 0.9
shearY 0.2667 0.5 translateY 0.4532 0.7
autocontrast - 0.5 equalize - 0.9
shearY 0.2333 0.2 posterize 5 0.3
color 0.3 0.4 brightness 0.7 0.6
sharpness 0.9 0.3 brightness 0.9 0.7
equalize - 0.6 equalize - 0.5
contrast 0.7 0.6 sharpness 0.5 0.6
color 0.7 0.7 translateX 0.4028 0.5
equalize - 0.3 autocontrast - 0.4
translateY 0.1511 0.4 sharpness 0.6 0.2
brightness 0.6 0.9 color 0.8 0.2
solarize 199.11 0.5 invert - 0.0
equalize - 0.2 autocontrast - 0.6
equalize - 0.2 equalize - 0.8
color 0.9 0.9 equalize - 0.6
autocontrast - 0.8 solarize 28.44 0.2
brightness 0.3 0.1 color 0 0.7
solarize 113.78 0.4 autocontrast - 0.9
translateY 0.4532 0.9 translateY 0.4532 0.7
autocontrast - 0.9 solarize 170.67 0.8
equalize - 0.8 invert - 0.1
translateY 0.4532 0.7 autocontrast - 0.9
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()]


@pytest.mark.parametrize("slot", [0, 1])
def test_the_policy_is_the_published_table(slot):
    choices, index = autoaugment.slot_choices(slot, 40, 20)
    assert len(ROWS) == len(autoaugment.SUB_POLICIES) == len(index) == 25
    assert choices[0] == pillow.IDENTITY
    for number, row in enumerate(ROWS):
        op, magnitude, probability = row[3 * slot : 3 * slot + 3]
        assert autoaugment.probabilities()[number, slot] == pytest.approx(
            float(probability)
        )
        for sign, k in zip((-1, 1), index[number], strict=True):
            assert choices[k][0] == op
            if magnitude == "-":
                continue
            expected = float(magnitude)
            if op in pillow.BLEND_OPS:
                expected = 1 + sign * expected
            elif op.startswith("translate"):
                expected *= sign * {"X": 20, "Y": 40}[op[-1]]
            elif op == "shearY":
                expected *= sign
            assert choices[k][1] == pytest.approx(expected, abs=6e-3)


def test_autoaugment_equals_pillow_with_the_same_draws():
    batch = 256
    images = random_images(batch, 32, 32, 3)
    key = jax.random.key(3)
    out = np.asarray(jax.jit(autoaugment.policy)(key, images))
    draws = jax.device_get(sample_policy(key, batch))
    touched = set()
    for i in range(batch):
        expected, sheared = images[i], False
        for slot in (0, 1):
            number = int(draws.policy[i])
            op, level, _ = autoaugment.SUB_POLICIES[number][slot]
            if draws.applied[slot, i]:
                magnitude = float(autoaugment.MAGNITUDES[op][level])
                sign = 1 if draws.positive[slot, i] else -1
                expected = with_pillow(
                    expected, *autoaugment.resolve(op, magnitude, sign, 32, 32)
                )
                sheared |= op == "shearY"
                touched.add((number, slot))
        difference = np.abs(out[i].astype(int) - expected)
        assert difference.mean() <= (0.05 if sheared else 0.0), number
    assert len(touched) >= 40  # of 49 that have a chance


def test_policy_draws_follow_the_table():
    batch = 50_000
    draws = jax.device_get(sample_policy(jax.random.key(0), batch))
    counts = np.bincount(draws.policy, minlength=25)
    assert len(counts) == 25
    np.testing.assert_allclose(counts / batch, 1 / 25, atol=0.004)
    np.testing.assert_allclose(draws.positive.mean(1), 0.5, atol=0.01)
    for slot in (0, 1):
        rate = np.bincount(draws.policy, draws.applied[slot]) / counts
        expected = autoaugment.probabilities()[:, slot]
        np.testing.assert_allclose(rate, expected, atol=0.05)
        assert (rate[expected == 0] == 0).all()
    # the two operations of a pair do not share sign or coin
    assert abs(np.mean(draws.positive[0] == draws.positive[1]) - 0.5) < 0.01
