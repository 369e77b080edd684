"""What a chip moves, and what the compiler only counts."""

import pytest

from jaxnlt.bench.aot import hlo

# 8 rows of 128 float32 values are one tile.
TEXT = """\
HloModule jit_step, is_scheduled=true

%async_collective_fusion.1 (p.1: f32[8,128], p.2: f32[64,128], \
p.3: f32[128]) -> (f32[128], f32[8,128], f32[64,128], f32[64,128]) {
  %p.1 = f32[8,128]{1,0:T(8,128)} parameter(0)
  %p.2 = f32[64,128]{1,0:T(8,128)} parameter(1)
  %p.3 = f32[128]{0:T(128)} parameter(2)
  %n = f32[128]{0:T(128)} negate(%p.3)
  %g = f32[64,128]{1,0:T(8,128)} all-gather(%p.1), channel_id=4
  ROOT %t = (f32[128]{0:T(128)}, f32[8,128]{1,0:T(8,128)}, \
f32[64,128]{1,0:T(8,128)}, f32[64,128]{1,0:T(8,128)}) \
tuple(%n, %p.1, %p.2, %g)
}

ENTRY %main (a: f32[8,128], w: f32[128], b: f32[64,128]) -> f32[128] {
  %a = f32[8,128]{1,0:T(8,128)S(1)} parameter(0)
  %w = f32[128]{0:T(128)} parameter(1)
  %b = f32[64,128]{1,0:T(8,128)} parameter(2)
  %async-collective-start = (f32[8,128]{1,0:T(8,128)}, \
f32[64,128]{1,0:T(8,128)}) fusion(%a), kind=kCustom, calls=%start
  %u = f32[8,128]{1,0:T(8,128)} get-tuple-element(%async-collective-start), \
index=0
  %v = f32[64,128]{1,0:T(8,128)} get-tuple-element(%async-collective-start), \
index=1
  %f = (f32[128]{0:T(128)}, f32[8,128]{1,0:T(8,128)}, \
f32[64,128]{1,0:T(8,128)}, f32[64,128]{1,0:T(8,128)}) fusion(%u, %v, %w), \
kind=kOutput, output_to_operand_aliasing={{1}: (0, {}), {2}: (1, {}), \
{3}: (1, {})}, calls=%async_collective_fusion.1
  %x = f32[64,128]{1,0:T(8,128)} get-tuple-element(%f), index=3
  %async-collective-done = f32[64,128]{1,0:T(8,128)} fusion(%x), \
kind=kCustom, output_to_operand_aliasing={{}: (0, {})}, calls=%done
  %s = ((f32[64,128]{1,0:T(8,128)}), f32[32,128]{1,0:T(8,128)S(1)}, s32[]) \
slice-start(%b), slice={[0:32], [0:128]}
  %d = f32[32,128]{1,0:T(8,128)S(1)} slice-done(%s)
  %j = f32[64,128]{1,0:T(8,128)S(1)} custom-call(%d, %d), \
custom_call_target="ConcatBitcast"
  ROOT %r = f32[128]{0:T(128)} fusion(%j, %w), kind=kLoop, calls=%sum
}
"""
ROW = 128 * 4


@pytest.fixture(scope="module")
def program():
    return hlo.Compiled(TEXT, 8)


def test_what_is_handed_on_or_renamed_is_not_touched(program):
    found = {op.name: (op.nbytes, op.hbm_bytes) for op in program.touched()}
    assert found == {
        "async-collective-start": ((8 + 8 + 64) * ROW, (8 + 64) * ROW),
        "f": (2 * ROW, 2 * ROW),
        "s": (2 * 32 * ROW, 32 * ROW),  # read here, written there
        "r": ((64 + 2) * ROW, 2 * ROW),
    }


def test_moves_of_which_the_compiler_counts_both_ends(program):
    # Of the slice it counts one reading and two writings.
    assert program.counted_again() == 32 * ROW
    copy = TEXT.replace("slice-", "copy-").replace(
        "((f32[64,128]{1,0:T(8,128)}), f32[32,128]{1,0:T(8,128)S(1)}, s32[])",
        "(f32[64,128]{1,0:T(8,128)}, f32[64,128]{1,0:T(8,128)S(1)}, u32[])",
    )
    assert hlo.Compiled(copy, 8).counted_again() == 2 * 64 * ROW
    # What runs before the first step only is counted, and no step does it.
    end = "copy-start(%b)"
    before = copy.replace(end, f"{end}, cross_program_prefetch_index=0")
    assert hlo.Compiled(before, 8).counted_again() == 4 * 64 * ROW
    found = hlo.Compiled(before, 8).touched()
    assert "s" not in {op.name for op in found}
