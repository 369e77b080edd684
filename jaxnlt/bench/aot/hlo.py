"""Reads the text of a compiled program: collectives and dearest operations."""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

#: Operations that move data between chips.
COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
# What moves nothing by itself, or ends what another operation has begun.
_FREE = frozenset(
    {
        "parameter",
        "constant",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "partition-id",
        "replica-id",
        "after-all",
    }
)

_SHAPE = re.compile(r"\b(pred|bf16|[a-z]+\d+\w*)\[([\d,]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.-]+)")
_LINE = re.compile(r"\s+(?:ROOT )?%(\S+) = (.*)")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_FRAME = re.compile(r"stack_frame_id=(\d+)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_CHANNEL = re.compile(r"channel_id=(\d+)")
_ENTRY = re.compile(r"(\d+) (?:\"(.*)\"|\{(.*)\})")
_GROUPS = re.compile(r"replica_groups=(\{\{[\d,]*\}|\[[\d,]*\]|mesh\[.*?\}|)")
# A fusion beside which a piece of an exchange runs takes the arrays of the
# exchange in and hands them on.
_BESIDE = "calls=%async_collective_fusion"
_HANDED_ON = re.compile(r"\{(\d+)\}: \((\d+), \{\}\)")
# Brings for the first step what every step brings for the next one.
_BEFORE = "cross_program_prefetch_index="
# Names as one array what lies side by side already.
_JOIN = 'custom_call_target="ConcatBitcast"'


class Shape(NamedTuple):
    """One array.

    Attributes:
      nbytes: of its values.
      padded: bytes that it takes in tiles of 8 x 128 values or the like.
      in_hbm: whether it lies in the chip's main memory.
    """

    nbytes: float
    padded: float
    in_hbm: bool


@dataclass(frozen=True)
class Operation:
    """One line of a program.

    Attributes:
      name: unique in the program.
      kind: the opcode.
      shapes: of its result, the parts of a tuple one by one.
      operands: names of what it reads.
      attributes: the rest of the line.
      outermost: whether it stands in the entry computation, and so is one that
        a chip starts.
    """

    name: str
    kind: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    attributes: str
    outermost: bool

    @property
    def moves(self) -> bool:
        """Whether it moves data, rather than names them or ends a move."""
        ends = self.kind.endswith(("-done", "-update"))
        ends = ends or self.name.startswith("async-collective-done")
        idle = ends or self.kind in _FREE
        return not (idle or _JOIN in self.attributes or self.before)

    @property
    def before(self) -> bool:
        """Whether it runs before the first step only."""
        return _BEFORE in self.attributes

    @property
    def handed_on(self) -> dict[int, int]:
        """Numbers of results, and of the operands that they are, untouched."""
        if _BESIDE not in self.attributes:
            return {}
        pairs = _HANDED_ON.findall(self.attributes)
        return {int(result): int(operand) for result, operand in pairs}

    @property
    def written(self) -> list[Shape]:
        """Shapes of its own results."""
        handed_on = self.handed_on
        return [s for i, s in enumerate(self.shapes) if i not in handed_on]

    def attribute(self, pattern: re.Pattern[str]) -> str:
        """The first group of a pattern in the attributes, '' without."""
        found = pattern.search(self.attributes)
        return found[1] if found else ""


class Collective(NamedTuple):
    """One exchange between chips.

    Attributes:
      kind: of COLLECTIVES.
      nbytes: what every chip puts in.
      chips: how many exchange with one another.
      source: the JAX operation that it was made of; '' where nothing says.
      place: its file and line, as ``losses/mixmatch.py:228``.
    """

    kind: str
    nbytes: float
    chips: int
    source: str
    place: str

    @property
    def sent(self) -> float:
        r"""Bytes that every chip sends around a ring of n chips.

        With b bytes put in: :math:`2b(n-1)/n` of an all-reduce, :math:`b(n-1)`
        of an all-gather, :math:`b(n-1)/n` of a reduce-scatter or an all-to-all,
        b of a collective-permute.
        """
        n = self.chips
        factor = {
            "all-reduce": 2 * (n - 1) / n,
            "all-gather": n - 1.0,
            "reduce-scatter": (n - 1) / n,
            "all-to-all": (n - 1) / n,
            "collective-permute": 1.0,
        }
        return self.nbytes * factor[self.kind]


class Touched(NamedTuple):
    """What one operation of the entry computation reads and writes.

    Attributes:
      name: of the operation.
      kind: its opcode.
      nbytes: of operands and results, in tiles.  A gather reads no more than it
        writes; else an operand counts in full where a part of it is read.
      hbm_bytes: the part in the chip's main memory.
      cycles: of the chip's clock, by the compiler's estimate; 0 where it has
        none.
      source: see ``Collective``, as ``place``.
      place: of the operation.
    """

    name: str
    kind: str
    nbytes: float
    hbm_bytes: float
    cycles: int
    source: str
    place: str


class Compiled:
    """A compiled program.

    Args:
      text: as ``jax.stages.Compiled.as_text`` gives it.
      chips: that run it together.
    """

    def __init__(self, text: str, chips: int):
        self._chips = chips
        self._operations = {op.name: op for op in _operations(text)}
        self._files = _table(text, "FileNames")
        self._lines = _table(text, "FileLocations")
        self._frames = _table(text, "StackFrames")

    def collectives(self) -> list[Collective]:
        """Every exchange, once; within a loop it counts once as well."""
        found, channels = [], set()
        for op in self._operations.values():
            kind = op.kind.removesuffix("-start")
            if kind not in COLLECTIVES:
                continue
            # The compiler cuts an exchange into pieces that run beside other
            # operations; they share a channel, and each names all its bytes.
            channel = op.attribute(_CHANNEL) or op.name
            if channel in channels:
                continue
            channels.add(channel)
            chips = _group_size(op.attribute(_GROUPS)) or self._chips
            put_in = sum(shape.nbytes for shape in self._read(op))
            if chips > 1:
                found.append(
                    Collective(
                        kind,
                        put_in,
                        chips,
                        op.attribute(_OP_NAME),
                        self._place(op),
                    )
                )
        return found

    def touched(self) -> list[Touched]:
        """What the operations read and write, the dearest first."""
        found = []
        for op in self._operations.values():
            if not op.outermost or not op.moves:
                continue
            read = self._read(op)
            if op.attribute(_OP_NAME).endswith("gather"):
                most = _padded(op.shapes)
                read = [s._replace(padded=min(s.padded, most)) for s in read]
            shapes = [*read, *op.written]
            if op.kind.endswith("-start"):
                shapes = _moved(op)
            found.append(
                Touched(
                    op.name,
                    op.kind,
                    _padded(shapes),
                    _padded([s for s in shapes if s.in_hbm]),
                    int(op.attribute(_CYCLES) or 0),
                    op.attribute(_OP_NAME),
                    self._place(op),
                )
            )
        return sorted(found, key=lambda each: -each.nbytes)

    def counted_again(self) -> float:
        """Bytes that ``cost_analysis`` counts where a move starts and ends.

        Of a copy that runs beside other operations it counts reading and
        writing twice, of a slice writing.  A copy before the first step should
        not count at all.
        """
        again = {"copy-start": 1.0, "slice-start": 0.5}
        return sum(
            (again[op.kind] + op.before) * _padded(_moved(op))
            for op in self._operations.values()
            if op.outermost and op.kind in again
        )

    def _place(self, op: Operation) -> str:
        """File and line of the innermost call in jaxnlt, else of any."""
        number, places = op.attribute(_FRAME), []
        while frame := self._frames.get(number):
            line = self._lines.get(_field(frame, "file_location_id"), "")
            file = self._files.get(_field(line, "file_name_id"), "")
            short = re.split(r".*/(?:jaxnlt|site-packages)/", file)[-1]
            places.append(f"{short}:{_field(line, 'line')}")
            if "/jaxnlt/" in file:
                return places[-1]
            # The text counts parents from 1, and 1 stands for none.
            number = str(int(_field(frame, "parent_frame_id") or 1) - 1)
        return places[0] if places else ""

    def _read(self, op: Operation) -> list[Shape]:
        """Shapes of an operation's operands, less those that it hands on."""
        handed_on = op.handed_on.values()
        names = (n for i, n in enumerate(op.operands) if i not in handed_on)
        known = (self._operations.get(name) for name in names)
        return [shape for other in known if other for shape in other.shapes]


def _padded(shapes: Iterable[Shape]) -> float:
    """Bytes of several arrays, in tiles."""
    return sum(shape.padded for shape in shapes)


def _moved(start: Operation) -> list[Shape]:
    """Source and target of a move that an operation starts."""
    # Its result names both; the smaller one moves.
    pair = start.shapes[:2]
    least = min(pair, key=lambda shape: shape.padded)
    return [least._replace(in_hbm=shape.in_hbm) for shape in pair]


def _operations(text: str) -> Iterator[Operation]:
    """Every operation of every computation."""
    outermost = False
    for line in text.splitlines():
        if line[:1] in ("%", "E"):
            outermost = line.startswith("ENTRY")
        found = _LINE.match(line)
        if not found:
            continue
        name, rest = found.groups()
        end = _closing(rest) if rest.startswith("(") else rest.index(" ")
        result, call = rest[:end], rest[end:].lstrip()
        start = call.index("(")
        end = start + _closing(call[start:])
        yield Operation(
            name,
            call[:start],
            tuple(map(_shape, _SHAPE.finditer(result))),
            tuple(_NAME.findall(call[start:end])),
            call[end:],
            outermost,
        )


def _table(text: str, title: str) -> dict[str, str]:
    """The numbered lines below a title, where the program has them."""
    _, _, rest = text.partition(f"\n{title}\n")
    found = {}
    for line in rest.splitlines():
        entry = _ENTRY.match(line)
        if not entry:
            break
        found[entry[1]] = entry[2] or entry[3]
    return found


def _field(entry: str, name: str) -> str:
    found = re.search(rf"\b{name}=(\d+)", entry)
    return found[1] if found else ""


def _closing(text: str) -> int:
    """The position behind the bracket that closes the first character."""
    depth = 0
    for i, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if not depth:
            return i + 1
    return len(text)


def _shape(found: re.Match[str]) -> Shape:
    dtype, numbers, layout = found[1], found[2], found[3] or ""
    bits = re.search(r"\d+", dtype)
    each = int(bits[0]) / 8 if bits else 1.0  # pred is a byte
    dims = _integers(numbers)
    order, _, tiles = layout.strip("{}").partition(":")
    # From the slowest to the fastest, as a tile names them.
    padded = [dims[i] for i in reversed(_integers(order))] or dims
    tile = _integers(tiles[2 : tiles.find(")")] if tiles[:2] == "T(" else "")
    for i, side in enumerate(reversed(tile), start=1):
        if i <= len(padded):
            padded[-i] = -(-padded[-i] // side) * side
    return Shape(
        math.prod(dims) * each,
        math.prod(padded) * each,
        "S(" not in tiles,  # S(n) names another memory than the main one
    )


def _integers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def _group_size(groups: str) -> int:
    """Chips of one group in any of the notations; 0 where all are in one."""
    if groups.startswith("{{"):  # {{0,1},{2,3}}
        return groups.count(",") + 1
    if groups.startswith("["):  # [groups,size]<=[devices]
        return int(groups.strip("[]").split(",")[1])
    if groups.startswith("mesh"):  # mesh['a'=2,'b'=4] {'a'}
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", groups))
        axes = re.findall(r"'(\w+)'", groups.partition("]")[2])
        return math.prod(int(sizes[axis]) for axis in axes)
    return 0
