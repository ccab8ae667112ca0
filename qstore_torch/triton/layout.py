"""How amplitudes lie in registers: linear maps over GF(2), and the order of a Plan's steps in rounds.

A kernel holds 2**k amplitudes as 2**R registers in each of 2**(k-R) threads. Position `thread << R | register` holds
amplitude `M · position` for an invertible matrix M over GF(2). A round chooses M so that the pairs `(p, p ^ v)` of up
to R rotations are neighbouring registers, the |0⟩ member first: then a rotation is multiply-adds on registers, without
a sign or a lookup, and the change from one round's M to the next one's is one exchange between threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qstore_core.circuit.plan import Diagonal, Rotation, parity

__all__ = ["Layout", "Round", "arrange", "commute", "coordinates", "independent", "natural", "rounds_of", "span_rank"]


@dataclass(frozen=True)
class Layout:
    """Columns of M: the amplitude index that each bit of a position stands for, registers first."""

    columns: tuple[int, ...]

    def local(self, mask: int) -> int:
        """The parity mask of positions that reads `parity(amplitude index & mask)`."""
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
    """Threads take the lowest vectors, so that neighbouring threads hold neighbouring amplitudes."""
    ordered = sorted(space)
    split = len(ordered) - registers
    return Layout((*ordered[split:], *ordered[:split]))


def rounds_of(
    steps: Sequence[Rotation | Diagonal], space: Sequence[int], registers: int, start: Layout | None, banks: int
) -> list[Round]:
    """Steps in rounds of at most `registers` rotations, first to last in time.

    Args:
        steps: Of a plan; the v of every rotation lies in `space`.
        space: Basis of the amplitude indices that a kernel holds.
        registers: R.
        start: The layout before; None where the state is |0…0⟩, which looks the same in every layout.
        banks: Threads whose reads reach memory at once are numbered by this many bits.
    """
    left, rounds, layout = list(steps), [], start
    while left:
        first = left[0]
        skipped: list[Rotation | Diagonal] = []
        if isinstance(first, Diagonal):
            layout = layout or natural(space, registers)
            rounds.append(Round(layout, terms=first.terms))
            left = left[1:]
            continue
        block = [first]
        for step in left[1:]:
            fits = isinstance(step, Rotation) and len(block) < registers and independent(step, block)
            if fits and all(commute(step, other) for other in skipped):
                block.append(step)  # type: ignore[arg-type]
            else:
                skipped.append(step)
        layout = _layout(block, space, registers, layout, banks)
        rounds.append(Round(layout, tuple(block)))
        left = skipped
    return rounds


def _layout(block: Sequence[Rotation], space: Sequence[int], registers: int, old: Layout | None, banks: int) -> Layout:
    """Registers along the block's pairs; threads along what all its parity masks do not see."""
    unseen = []
    for vector in space:
        for rotation in block:
            if parity(vector & rotation.u):
                vector ^= rotation.v
        unseen.append(vector)
    return arrange([r.v for r in block], span_rank(unseen), registers, old, banks)


def arrange(directions: Sequence[int], rest: Sequence[int], registers: int, old: Layout | None, banks: int) -> Layout:
    """A layout with `directions` as first registers and `rest` as the others.

    The first threads' bits are chosen so that threads that read at once read from different banks: the low bits of the
    positions where the amplitudes lay before must differ.
    """
    rest = list(rest)
    if old is not None:
        low = (1 << banks) - 1
        places = coordinates(old.columns, rest)
        first: list[int] = []
        pivots: list[tuple[int, int, int]] = []
        other: list[int] = []
        for vector, place in zip(rest, places, strict=True):
            for pivot, row, vector_of in pivots:
                if place & pivot:
                    place, vector = place ^ row, vector ^ vector_of
            if place & low:
                pivots.append((place & low & -(place & low), place, vector))
                first.append(vector)
            else:
                other.append(vector)
        rest = first + other
    spare = registers - len(directions)
    split = len(rest) - spare
    return Layout((*directions, *rest[split:], *rest[:split]))
