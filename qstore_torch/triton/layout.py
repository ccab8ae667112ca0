"""How amplitudes lie in registers: linear maps over GF(2), and the order of a Plan's steps in rounds.

A kernel holds 2**k amplitudes as 2**R registers in each of 2**(k-R) threads. Position `thread << R | register` holds
amplitude `M · position` for an invertible matrix M over GF(2). A round chooses M so that the pairs `(p, p ^ v)` of up
to R rotations are neighbouring registers, the |0⟩ member first: then a rotation is multiply-adds on registers, without
a sign or a lookup, and the change from one round's M to the next one's is one exchange between threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from qstore_core.circuit.lowering.plan import Diagonal, Rotation, parity

__all__ = ["Layout", "Round", "arrange", "commute", "coordinates", "independent", "natural", "rounds_of", "span_rank"]


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
    steps: Sequence[Rotation | Diagonal], space: Sequence[int], registers: int, start: Layout | None, lanes: int
) -> list[Round]:
    """Steps in rounds of at most `registers` rotations, first to last in time.

    Args:
        steps: Of a plan; the v of every rotation lies in `space`.
        space: Basis of the amplitude indices that a kernel holds.
        registers: R.
        start: The layout before; None where the state is |0…0⟩, which looks the same in every layout.
        lanes: See `arrange`.
    """
    blocks = list(_blocks(steps, registers))
    rounds: list[Round] = []
    layout = start
    for number, block in enumerate(blocks):
        if isinstance(block, Diagonal):
            layout = layout or natural(space, registers)
            rounds.append(Round(layout, terms=block.terms))
            continue
        unseen = []
        for vector in space:
            for rotation in block:
                if parity(vector & rotation.u):
                    vector ^= rotation.v
            unseen.append(vector)
        ahead = next((b for b in blocks[number + 1 :] if not isinstance(b, Diagonal)), ())
        seen = [rotation.u for rotation in ahead]
        layout = arrange([r.v for r in block], span_rank(unseen), registers, layout, lanes, seen)
        rounds.append(Round(layout, tuple(block)))
    return rounds


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
    ahead: Sequence[int] = (),
) -> Layout:
    """A layout with `directions` as first registers and `rest` as the others.

    An exchange reads from as many banks of memory at once as it can: banks are numbered by the lowest `lanes` bits of a
    thread in the old layout, and so are the threads that read at once in the new one. So the first threads of the new
    layout are vectors that differ in these bits of the old one, where possible vectors that the next round (`ahead`:
    its parity masks) can do the same with.
    """
    if old is None or lanes <= 0:
        return _divided(directions, list(rest), registers)
    known = [v for v in (*old.threads, *old.registers) if _within(v, rest)]
    vectors = span_rank([*known, *rest])
    kept = len(old.registers)
    places = coordinates(old.columns, vectors)
    banks = [place >> kept & (1 << lanes) - 1 for place in places]
    first: list[tuple[int, int, int]] = []  # (pivot, bank, vector)
    free: list[int] = []
    for vector, bank in zip(vectors, banks, strict=True):
        for pivot, row, of in first:
            if bank & pivot:
                bank, vector = bank ^ row, vector ^ of
        if bank:
            first.append((bank & -bank, bank, vector))
        else:
            free.append(vector)
    threads = [_unseen(vector, free, ahead) for _, _, vector in first]
    threads.sort(key=lambda v: any(parity(v & u) for u in ahead))
    return _divided(directions, threads + free, registers)


def _divided(directions: Sequence[int], rest: list[int], registers: int) -> Layout:
    """The last of `rest` fill up the registers."""
    split = len(rest) - (registers - len(directions))
    return Layout((*directions, *rest[split:]), tuple(rest[:split]))


def _within(vector: int, basis: Sequence[int]) -> bool:
    return len(span_rank([*basis, vector])) == len(basis)


def _unseen(vector: int, free: Sequence[int], masks: Sequence[int]) -> int:
    """`vector` plus some of `free`, such that as few of `masks` as possible see it."""
    rows: list[tuple[int, int, int]] = []
    for extra in free:
        seen = sum(parity(extra & u) << k for k, u in enumerate(masks))
        for pivot, row, of in rows:
            if seen & pivot:
                seen, extra = seen ^ row, extra ^ of
        if seen:
            rows.append((seen & -seen, seen, extra))
    seen = sum(parity(vector & u) << k for k, u in enumerate(masks))
    for pivot, row, of in rows:
        if seen & pivot:
            seen, vector = seen ^ row, vector ^ of
    return vector
