"""Circuits that no program can hold: a Plan's steps in passes over the state in memory.

A pass has a subspace V of the amplitude indices, and a program of it holds one coset `b ^ V` in registers, as programs
of small circuits hold a whole state: rotations whose v lies in V act inside each coset, diagonal terms anywhere. V
holds the lowest indices, so that every coset is made of whole lines of memory. b runs over sums of unit vectors outside
V: coset number c is the sum of those at which c has its bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from qstore_core.circuit.lowering.plan import Diagonal, Rotation

from .layout import Layout, Round, commute, in_lines, natural, rounds_of

__all__ = ["Pass", "in_one_pass", "passes_of", "steps_by_pass"]


@dataclass(frozen=True)
class Pass:
    """Rounds on each coset of a subspace.

    Attributes:
        space: Basis of the subspace.
        outside: Unit vectors whose sums number the cosets.
        rounds: What is computed, in order.
        load: The layout in which amplitudes are read; of the first pass from |0…0⟩ that in which they are made.
        store: The layout in which they are written.
    """

    space: tuple[int, ...]
    outside: tuple[int, ...]
    rounds: tuple[Round, ...]
    load: Layout
    store: Layout

    @property
    def end(self) -> Layout:
        """The layout after the last round."""
        return self.rounds[-1].layout if self.rounds else self.load

    def coset(self, mask: int) -> int:
        """The parity mask of a coset's number that reads `parity(b & mask)`."""
        return sum((mask & vector > 0) << bit for bit, vector in enumerate(self.outside))


def in_one_pass(
    steps: Sequence[Rotation | Diagonal], n_qubits: int, registers: int, lanes: int, from_zero: bool
) -> Pass:
    """All steps on the whole state."""
    space = tuple(1 << bit for bit in range(n_qubits))
    start = None if from_zero else natural(space, registers)
    rounds = tuple(rounds_of(steps, space, registers, start, lanes))
    # |0…0⟩ looks the same in every layout: no exchange before the first round.
    load = start or (rounds[0].layout if rounds else natural(space, registers))
    return Pass(space, (), rounds, load, rounds[-1].layout if rounds else load)


def passes_of(
    steps: Sequence[Rotation | Diagonal],
    n_qubits: int,
    held: int,
    low: int,
    registers: int,
    lanes: int,
    from_zero: bool,
) -> list[Pass]:
    """Steps in passes whose programs hold 2**held amplitudes, in lines of 2**low neighbours.

    There is one pass at least, and of each pass one round.
    """
    out: list[Pass] = []
    for space, chosen in steps_by_pass(steps, n_qubits, held, low):
        rounds = rounds_of(chosen, space, registers, None, lanes, low) or [Round(natural(space, registers))]
        load = rounds[0].layout
        if not (in_lines(load, low) or (from_zero and not out)):
            load = natural(space, registers)
            rounds = rounds_of(chosen, space, registers, load, lanes, low)
        end = rounds[-1].layout
        store = end if in_lines(end, low) else natural(space, registers)
        pivots = [vector.bit_length() - 1 for vector in space]
        outside = tuple(1 << bit for bit in range(n_qubits) if bit not in pivots)
        out.append(Pass(space, outside, tuple(rounds), load, store))
    return out


def steps_by_pass(
    steps: Sequence[Rotation | Diagonal], n_qubits: int, held: int, low: int
) -> list[tuple[tuple[int, ...], list[Rotation | Diagonal]]]:
    """Of each pass its subspace, as a basis that is fully reduced and sorted, and its steps in order.

    Of two orders in which passes may take steps the one of fewer passes is chosen: the plan's, and the lowest v first,
    by which later layers of the qubits of a pass come into it. Inside a pass the order is the plan's.
    """
    orders = [list(range(len(steps))), _lowest_first(steps)]
    passes = min((_greedy(steps, order, n_qubits, held, low) for order in orders), key=len)
    return [(space, [steps[k] for k in sorted(numbers)]) for space, numbers in passes]


def _lowest_first(steps: Sequence[Rotation | Diagonal]) -> list[int]:
    """An order of the same circuit: of the steps that may come next always that of the lowest v, diagonals first."""
    later: list[list[int]] = [[] for _ in steps]  # the steps that must not come before one
    waits = [0] * len(steps)
    for b, step in enumerate(steps):
        for a in range(b):
            if not commute(steps[a], step):
                later[a].append(b)
                waits[b] += 1

    def entry(k: int) -> tuple[int, int]:
        step = steps[k]
        return (step.v if isinstance(step, Rotation) else 0, k)

    ready = [entry(k) for k in range(len(steps)) if not waits[k]]
    heapify(ready)
    out = []
    while ready:
        _, k = heappop(ready)
        out.append(k)
        for b in later[k]:
            waits[b] -= 1
            if not waits[b]:
                heappush(ready, entry(b))
    return out


def _greedy(
    steps: Sequence[Rotation | Diagonal], order: Sequence[int], n_qubits: int, held: int, low: int
) -> list[tuple[tuple[int, ...], list[int]]]:
    """Every pass takes what fits, first to last of an order."""
    out: list[tuple[tuple[int, ...], list[int]]] = []
    left = list(order)
    while left or not out:
        basis = [1 << bit for bit in range(low)]
        chosen: list[int] = []
        skipped: list[int] = []
        for k in left:
            step = steps[k]
            rest = 0 if isinstance(step, Diagonal) else _reduced(step.v, basis)
            fits = not rest or len(basis) < held
            if fits and all(commute(step, steps[other]) for other in skipped):
                chosen.append(k)
                basis = _with(rest, basis)
            else:
                skipped.append(k)
        for bit in range(low, n_qubits):
            if len(basis) < held:
                basis = _with(_reduced(1 << bit, basis), basis)
        out.append((tuple(sorted(basis)), chosen))
        left = skipped
    return out


def _reduced(vector: int, basis: Sequence[int]) -> int:
    """`vector` without the highest bits of those of a reduced basis."""
    for row in basis:
        if vector >> (row.bit_length() - 1) & 1:
            vector ^= row
    return vector


def _with(vector: int, basis: list[int]) -> list[int]:
    """A reduced basis of one vector more; `vector` is reduced already, 0 adds nothing."""
    if not vector:
        return basis
    pivot = vector.bit_length() - 1
    return [*(row ^ vector if row >> pivot & 1 else row for row in basis), vector]
