"""ImageNet's AutoAugment policy: the published table and Pillow's pixels."""

import jax
import numpy as np
import pytest

from jaxnlt.augment import autoaugment, pillow
from tests.augment.pictures import random_images, with_pillow

# ``papers/unicon.md`` section 9, which is torchvision's table too: probability,
# operation and value without sign, twice.
TABLE = """
0.4 posterize 4 0.6 rotate 30
0.6 solarize 113.78 0.6 autocontrast -
0.8 equalize - 0.6 equalize -
0.6 posterize 5 0.6 posterize 5
0.4 equalize - 0.2 solarize 142.22
0.4 equalize - 0.8 rotate 26.67
0.6 solarize 170.67 0.6 equalize -
0.8 posterize 6 1.0 equalize -
0.2 rotate 10 0.6 solarize 28.44
0.6 equalize - 0.4 posterize 5
0.8 rotate 26.67 0.4 color 0
0.4 rotate 30 0.6 equalize -
0.0 equalize - 0.8 equalize -
0.6 invert - 1.0 equalize -
0.6 color 0.4 1.0 contrast 0.8
0.8 rotate 26.67 1.0 color 0.2
0.8 color 0.8 0.8 solarize 56.89
0.4 sharpness 0.7 0.6 invert -
0.6 shearX 0.1667 1.0 equalize -
0.4 color 0 0.6 equalize -
0.4 equalize - 0.2 solarize 142.22
0.6 solarize 113.78 0.6 autocontrast -
0.6 invert - 1.0 equalize -
0.6 color 0.4 1.0 contrast 0.8
0.8 equalize - 0.6 equalize -
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()]
IMAGENET = autoaugment.IMAGENET


@pytest.mark.parametrize("slot", [0, 1])
def test_the_policy_is_the_published_table(slot):
    choices, index = autoaugment.slot_choices(slot, 40, 20, IMAGENET)
    chances = autoaugment.probabilities(IMAGENET)[:, slot]
    assert len(ROWS) == len(IMAGENET) == len(index) == 25
    for number, row in enumerate(ROWS):
        chance, op, value = row[3 * slot : 3 * slot + 3]
        assert chances[number] == pytest.approx(float(chance))
        for sign, k in zip((-1, 1), index[number], strict=True):
            assert choices[k][0] == op
            if value != "-":
                blended = 1 + sign * float(value)
                signed = sign * float(value) if op == "shearX" else float(value)
                wanted = blended if op in pillow.BLEND_OPS else signed
                assert choices[k][1] == pytest.approx(wanted, abs=6e-3)


@pytest.mark.parametrize("size", [32, 56])
def test_pixels_are_pillows(size):
    batch, key = 160, jax.random.key(3)
    images = random_images(batch, size, size, 3)
    out = np.asarray(jax.jit(autoaugment.imagenet_policy)(key, images))
    draws = jax.device_get(autoaugment.sample_policy(key, batch, IMAGENET))
    touched = set()
    for i in range(batch):
        expected, sheared, number = images[i], False, int(draws.policy[i])
        for slot in (0, 1):
            op, level, _ = IMAGENET[number][slot]
            if draws.applied[slot, i]:
                value = autoaugment.resolve(
                    op,
                    float(autoaugment.MAGNITUDES[op][level]),
                    1 if draws.positive[slot, i] else -1,
                    size,
                    size,
                )
                expected = with_pillow(expected, *value)
                sheared |= op == "shearX"
                touched.add((number, slot))
        difference = np.abs(out[i].astype(int) - expected)
        # A shear may be off by one, which its equalize spreads.
        assert difference.mean() <= (0.2 if sheared else 0.0), number
    assert len(touched) >= 40  # of 49 that have a chance
