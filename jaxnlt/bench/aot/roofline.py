"""How long a step takes at best, on one number of chips and on others."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from jaxnlt.bench.aot.hlo import Collective
from jaxnlt.runtime import sharding
from jaxnlt.runtime.errors import UserError

#: Seconds that a message takes to the next chip; Austin et al., "How to scale
#: your model", 2025, part 3.
HOP = 1e-6

#: What stays when the number of chips changes: the rows of one chip, or those
#: of all.
Batch = Literal["chip", "global"]

ASSUMPTIONS = """\
All figures are a compiler's, nothing was measured; copies that run beside other
operations, of which it counts both ends, count once. At best a step takes as
long as the slowest of three: arithmetic at the peak, what is read and written
in the main memory (HBM) at its rate, and exchanges around one ring of all chips
in both directions, plus 1 us for every hop across a torus of equal sides, there
and back for an all-reduce. At worst all bytes touched come from HBM, also those
that the compiler keeps on the chip, and exchanges wait for the rest. The host
is never waited for. On other numbers of chips an all-reduce carries as much as
here, all else as many rows as a chip has; of the bytes only those of the
networks' states do not shrink with the rows of a chip."""


@dataclass(frozen=True)
class Chip:
    """One kind of TPU.

    Attributes:
      flops: bfloat16 operations a second.
      hbm: bytes of main memory.
      hbm_rate: bytes a second.
      link_rate: bytes a second of one link in one direction.
      dims: axes of the torus.
      options: of ``get_topology_desc``, so that a chip is one device.
    """

    flops: float
    hbm: float
    hbm_rate: float
    link_rate: float
    dims: int
    options: tuple[tuple[str, str], ...] = ()


#: By the first part of a topology's name.  Source: cloud.google.com/tpu/docs/
#: v4, v5e, v5p and v6e (ICI of a chip over its links and directions); the links
#: of v4: Jouppi et al., ISCA 2023, table 4.
CHIPS = {
    "v4": Chip(
        275e12,
        32 * 2**30,
        1200e9,
        50e9,
        3,
        (("chip_config_name", "megacore"),),
    ),
    "v5e": Chip(197e12, 16e9, 819e9, 50e9, 2),
    "v5p": Chip(459e12, 95e9, 2765e9, 100e9, 3),
    "v6e": Chip(918e12, 32e9, 1638e9, 100e9, 2),
}
_EXAMPLES = "v5e:2x4, v4:2x2x2, v5p:2x2x2, v6e:8x8"


def chip_of(topology: str) -> Chip:
    """The kind of chip that a topology is made of.

    Args:
      topology: such as ``v5e:2x4``.

    Raises:
      UserError: another form, or an unknown chip.
    """
    found = re.fullmatch(r"(\w+):\d+(x\d+){1,2}", topology)
    if not found or found[1] not in CHIPS:
        raise UserError(
            f"--topology: {topology!r} is unknown; write a chip and the sides "
            f"of its torus, such as {_EXAMPLES}"
        )
    return CHIPS[found[1]]


@dataclass(frozen=True)
class Work:
    """What every chip does in one step.

    Attributes:
      chips: how many there are.
      flops: operations.
      nbytes: touched, by the compiler's count, see
        ``hlo.Compiled.counted_again``.
      hbm_bytes: the part in the main memory.
      state_bytes: of both, see ``programs.Program``.
      collectives: exchanges.
      images: rows of all chips together.
      batch_sizes: rows of every stream, which the number of chips divides.
    """

    chips: int
    flops: float
    nbytes: float
    hbm_bytes: float
    state_bytes: float
    collectives: tuple[Collective, ...]
    images: int
    batch_sizes: tuple[int, ...]


class Times(NamedTuple):
    """Seconds of one step.

    Attributes:
      arithmetic: at the chip's peak.
      memory: of what lies in the main memory, at its rate.
      touched: of all bytes, at the same rate.
      network: exchanges one after the other.
    """

    arithmetic: float
    memory: float
    touched: float
    network: float

    @property
    def least(self) -> float:
        """Everything overlaps, and what can stays on the chip."""
        return max(self.arithmetic, self.memory, self.network)

    @property
    def most(self) -> float:
        """Exchanges wait, and everything comes from the main memory."""
        return max(self.arithmetic, self.touched) + self.network


def times(work: Work, chip: Chip) -> Times:
    r"""The roofline of one step.

    .. math:: F / F_{peak},\quad B / B_{HBM},\quad
       \sum_c \Big(\frac{s_c}{2 w} + h_c t_{hop}\Big)

    with :math:`s_c` the bytes that a chip sends (see ``Collective.sent``), w
    the rate of a link, and :math:`h = \frac d2 n^{1/d}` hops across a torus of
    d axes, twice as many of an all-reduce.

    Args:
      work: of every chip.
      chip: its rates.
    """
    network = 0.0
    for each in work.collectives:
        hops = chip.dims / 2 * each.chips ** (1 / chip.dims)
        ways = 2 if each.kind == "all-reduce" else 1
        network += each.sent / (2 * chip.link_rate) + ways * hops * HOP
    return Times(
        work.flops / chip.flops,
        work.hbm_bytes / chip.hbm_rate,
        work.nbytes / chip.hbm_rate,
        network,
    )


def on_chips(work: Work, chips: int, batch: Batch) -> Work:
    """The same step on another number of chips.

    Args:
      work: as it was compiled.
      chips: how many there are now; groups of exchanging chips grow alike.
      batch: what stays, the rows of a chip or those of all.  Where the chips do
        not divide the latter, as many work as do.
    """
    if batch == "global":
        chips = sharding.usable(chips, work.batch_sizes)
    factor = chips / work.chips
    share = 1.0 if batch == "chip" else 1 / factor
    state = work.state_bytes

    def rest(size: float) -> float:
        return min(state, size) + max(size - state, 0) * share

    collectives = (
        each._replace(
            chips=max(round(each.chips * factor), 1),
            nbytes=each.nbytes * (1 if each.kind == "all-reduce" else share),
        )
        for each in work.collectives
    )
    return replace(
        work,
        chips=chips,
        flops=work.flops * share,
        nbytes=rest(work.nbytes),
        hbm_bytes=rest(work.hbm_bytes),
        collectives=tuple(each for each in collectives if each.chips > 1),
        images=round(work.images * share * factor),
    )


def sums(collectives: Sequence[Collective]) -> dict[str, tuple[int, float]]:
    """Of every kind of exchange how many there are, and bytes a chip sends."""
    found: dict[str, tuple[int, float]] = {}
    for each in collectives:
        count, sent = found.get(each.kind, (0, 0.0))
        found[each.kind] = count + 1, sent + each.sent
    return found
