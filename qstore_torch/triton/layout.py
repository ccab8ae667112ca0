"""How amplitudes lie in registers: linear maps over GF(2), and the order of a Plan's steps in rounds.

A kernel holds 2**k amplitudes as 2**R registers in each of 2**(k-R) threads. Position `thread << R | register` holds
amplitude `M · position` for an invertible matrix M over GF(2). A round chooses M so that the pairs `(p, p ^ v)` of up
to R rotations are neighbouring registers, the |0⟩ member first: then a rotation is multiply-adds on registers, without
a sign or a lookup, and the change from one round's M to the next one's is one exchange between threads.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from qstore_core.circuit.lowering.plan import Diagonal, Rotation, parity

__all__ = [
    "Layout",
    "Round",
    "arrange",
    "commute",
    "coordinates",
    "in_lines",
    "independent",
    "natural",
    "rounds_of",
    "span_rank",
]

_TRIES = 64


@dataclass(frozen=True)
class Layout:
    """Columns of M: the amplitude index that each bit of a register's number, then of a thread's, stands for."""

    registers: tuple[int, ...]
    threads: tuple[int, ...]

    @property
    def columns(self) -> tuple[int, ...]:
        """Registers, then threads."""
        return (*self.registers, *self.threads)

    def local(self, mask: int) -> int:
        """The parity mask of positions that reads `parity(amplitude index & mask)`; register bits are the lowest."""
        return sum(parity(column & mask) << bit for bit, column in enumerate(self.columns))

    def exchange(self, old: Layout) -> list[int]:
        """For each bit of a position here, the position there: `position there = XOR of the words of set bits`."""
        return coordinates(old.columns, self.columns)


@dataclass(frozen=True)
class Round:
    """Rotations of different qubits of one relabelling, or diagonal terms, in a layout."""

    layout: Layout
    rotations: tuple[Rotation, ...] = ()
    terms: tuple[tuple[int, object], ...] = ()


def coordinates(basis: Sequence[int], vectors: Sequence[int]) -> list[int]:
    """Each vector as a sum of `basis` vectors: bit i of the result is set where vector i takes part."""
    rows: list[tuple[int, int, int]] = []  # (pivot bit, reduced vector, which basis vectors)
    for i, vector in enumerate(basis):
        combination = 1 << i
        for pivot, row, of in rows:
            if vector & pivot:
                vector, combination = vector ^ row, combination ^ of
        rows.append((vector & -vector, vector, combination))
    out = []
    for vector in vectors:
        combination = 0
        for pivot, row, of in rows:
            if vector & pivot:
                vector, combination = vector ^ row, combination ^ of
        out.append(combination)
    return out


def span_rank(vectors: Iterable[int]) -> list[int]:
    """A basis of what `vectors` span, made of some of them."""
    reduced: list[int] = []
    kept = []
    for vector in vectors:
        rest = vector
        for row in reduced:
            rest = min(rest, rest ^ row)
        if rest:
            reduced.append(rest)
            kept.append(vector)
    return kept


def independent(rotation: Rotation, others: Iterable[Rotation]) -> bool:
    """True where it and `others`, which are so among themselves, act on different qubits of some relabelling."""
    return not any(parity(rotation.v & other.u) or parity(rotation.u & other.v) for other in others)


def commute(a: Rotation | Diagonal, b: Rotation | Diagonal) -> bool:
    """True where two steps may change places, whatever their angles."""
    if isinstance(a, Diagonal):
        a, b = b, a
    if isinstance(a, Diagonal):
        return True
    if isinstance(b, Diagonal):
        return not any(parity(mask & a.v) for mask, _ in b.terms)
    return independent(a, (b,))


def natural(space: Sequence[int], registers: int) -> Layout:
    """Memory order: threads take the lowest vectors, so that neighbouring threads hold neighbouring amplitudes."""
    ordered = sorted(space)
    split = len(ordered) - registers
    return Layout(tuple(ordered[split:]), tuple(ordered[:split]))


def rounds_of(
    steps: Sequence[Rotation | Diagonal],
    space: Sequence[int],
    registers: int,
    start: Layout | None,
    lanes: int,
    low: int = 0,
) -> list[Round]:
    """Steps in rounds of at most `registers` rotations, first to last in time.

    Args:
        steps: Of a plan; the v of every rotation lies in `space`.
        space: Basis of the amplitude indices that a kernel holds.
        registers: R.
        start: The layout before; None where the state is |0…0⟩, which looks the same in every layout, or where it is
            read in the layout of the first round.
        lanes: See `arrange`.
        low: Where the state is written to memory after the last round: its lines hold 2**low amplitudes.
    """
    blocks = list(_blocks(steps, registers))
    left = deque((_directions(b), _unseen(space, b)) for b in blocks if not isinstance(b, Diagonal))
    rounds: list[Round] = []
    layout = start
    for block in blocks:
        if isinstance(block, Diagonal):
            layout = layout or natural(space, registers)
            rounds.append(Round(layout, terms=block.terms))
            continue
        directions, rest = left.popleft()
        end = natural(space, registers) if low and not left else None
        layout = arrange(directions, rest, registers, layout, lanes, left[0] if left else None, end, low)
        rounds.append(Round(layout, tuple(block)))
    return rounds


def _directions(block: list[Rotation]) -> list[int]:
    return [rotation.v for rotation in block]


def _unseen(space: Sequence[int], block: Sequence[Rotation]) -> list[int]:
    """A basis of the vectors that no rotation's parity sees: what threads may stand for."""
    unseen = []
    for vector in space:
        for rotation in block:
            if parity(vector & rotation.u):
                vector ^= rotation.v
        unseen.append(vector)
    return span_rank(unseen)


def _blocks(steps: Sequence[Rotation | Diagonal], most: int) -> Iterator[list[Rotation] | Diagonal]:
    """Diagonals, and up to `most` rotations that act on different qubits of one relabelling."""
    left = list(steps)
    while left:
        first = left[0]
        if isinstance(first, Diagonal):
            yield first
            left = left[1:]
            continue
        block, skipped = [first], []  # type: tuple[list[Rotation], list[Rotation | Diagonal]]
        for step in left[1:]:
            fits = isinstance(step, Rotation) and len(block) < most and independent(step, block)
            if fits and all(commute(step, other) for other in skipped):
                block.append(step)  # type: ignore[arg-type]
            else:
                skipped.append(step)
        yield block
        left = skipped


def arrange(
    directions: Sequence[int],
    rest: Sequence[int],
    registers: int,
    old: Layout | None,
    lanes: int,
    ahead: tuple[Sequence[int], Sequence[int]] | None = None,
    end: Layout | None = None,
    low: int = 0,
) -> Layout:
    """A layout with `directions` as first registers; `rest`, or another basis of what it spans, are the others.

    Which basis decides how an exchange reads: memory has banks, numbered by the lowest `lanes` bits of a thread in the
    layout that wrote, and threads that differ in these bits only in the layout that reads do so at once, one after the
    other where their banks are the same. Bases are drawn, always the same ones, and the one with the fewest of such
    conflicts is taken: from `old` to here and back, and to what the next round can make of it.

    Args:
        directions: Of rotations.
        rest: Vectors that together with `directions` are a basis.
        registers: R.
        old: The layout before; where there is none, the first threads stay those of `rest`.
        lanes: Bits of a bank's number; 0 where it does not matter.
        ahead: `directions` and `rest` of the next round.
        end: The layout to which an exchange follows, unless neighbouring threads hold lines of memory already.
        low: Amplitudes of a line, as a power of two.
    """
    plain = _divided(directions, list(rest), registers)
    if lanes <= 0 or len(plain.threads) < lanes:
        return plain
    rng = random.Random(len(rest))
    lines = [1 << bit for bit in range(low)] if end is not None else []
    heads = [lines] if lines and all(_within(v, rest) for v in lines) else []
    heads.append(list(rest[:lanes]) if old is None else [])

    def conflicts(layout: Layout) -> int:
        count = 0 if old is None else _conflicts(layout, old, lanes) + _conflicts(old, layout, lanes)
        if ahead is not None:
            directions, rest = ahead
            first = layout.threads[:lanes]
            common = len(first) + len(directions) - len(span_rank([*directions, *first]))
            count += _conflicts_of(rest, layout, lanes) + (1 << common)  # there, and back
        if end is not None and not in_lines(layout, low):
            count += 2 + _conflicts(layout, end, lanes) + _conflicts(end, layout, lanes)
        return count

    least = (2 if old is not None else 0) + (2 if ahead is not None else 0)
    best, fewest = plain, conflicts(plain)
    for number in range(_TRIES):
        if fewest <= least:
            break
        head = heads[number % len(heads)]
        layout = _divided(directions, [*head, *_drawn(rng, head, rest)], registers)
        found = conflicts(layout)
        if found < fewest:
            best, fewest = layout, found
    return best


def in_lines(layout: Layout, low: int) -> bool:
    """True where neighbouring threads hold the amplitudes of whole lines."""
    return all(vector < 1 << low for vector in layout.threads[:low])


def _drawn(rng: random.Random, head: Sequence[int], rest: Sequence[int]) -> list[int]:
    """Vectors that together with `head` span what `rest` does."""
    vectors = span_rank([*head, *rest])
    tail = vectors[len(head) :]
    rng.shuffle(tail)
    for k in range(len(tail)):
        for other in (*head, *tail[k + 1 :]):
            if rng.random() < 0.5:
                tail[k] ^= other
    rng.shuffle(tail)
    return tail


def _conflicts(reads: Layout, wrote: Layout, lanes: int) -> int:
    """How many threads want one bank at once, where `reads` is filled from what `wrote` has written."""
    return _conflicts_of(reads.threads[:lanes], wrote, lanes)


def _conflicts_of(vectors: Sequence[int], wrote: Layout, lanes: int) -> int:
    """The same for threads that stand for any of `vectors`, which may be more."""
    first = len(wrote.registers)
    banks = [place >> first & (1 << lanes) - 1 for place in coordinates(wrote.columns, vectors)]
    return 1 << (lanes - len(span_rank(banks)))


def _divided(directions: Sequence[int], rest: list[int], registers: int) -> Layout:
    """The last of `rest` fill up the registers."""
    split = len(rest) - (registers - len(directions))
    return Layout((*directions, *rest[split:]), tuple(rest[:split]))


def _within(vector: int, basis: Sequence[int]) -> bool:
    return len(span_rank([*basis, vector])) == len(basis)
