"""A circuit in a window of few qubits at a time: in which order its gates are taken, and what each of them does.

A qubit enters when its first gate comes and leaves after its last one. What is kept of those that are there is ⟨P⟩ of
every Pauli string P on them: CNOTs permute these numbers, rotations mix those of one qubit, a qubit in |0⟩ multiplies
them by (1, 0, 0, 1), and one that leaves keeps the letter that is measured on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..gates.table import Cnot
from .plan import Factor

__all__ = ["STEP_WORK", "Enter", "Gather", "Item", "PauliString", "Rotate", "Window", "frozen", "window"]

STEP_WORK = 500
"""Multiply-adds per sample that an array operation costs by being one."""
_MOST_QUBITS = 10  # 4**10 numbers per sample

Item = tuple[int, tuple[Factor, ...]] | Cnot
"""Fused rotations of a qubit, or a CNOT."""


@dataclass(frozen=True)
class PauliString:
    """sign · X^x Z^z with Y where both: bit q of the masks is qubit q."""

    x: int
    z: int
    sign: int = 1

    @property
    def support(self) -> int:
        """The qubits that have a letter."""
        return self.x | self.z

    def letter(self, qubit: int) -> int:
        """0, 1, 2, 3 for I, X, Y, Z."""
        return (0, 1, 3, 2)[(self.x >> qubit & 1) + 2 * (self.z >> qubit & 1)]

    def after_cnot(self, control: int, target: int) -> PauliString:
        """CNOT · string · CNOT."""
        xc, zt = self.x >> control & 1, self.z >> target & 1
        flips = xc & zt & (1 ^ (self.x >> target & 1) ^ (self.z >> control & 1))
        return PauliString(self.x ^ xc << target, self.z ^ zt << control, -self.sign if flips else self.sign)


@dataclass(frozen=True)
class Enter:
    """A qubit in |0⟩ enters, behind those that are there, after rotation number `rotation` (None for none)."""

    rotation: int | None


@dataclass(frozen=True)
class Rotate:
    """Rotation number `rotation` on the last qubit of the window."""

    rotation: int


@dataclass(frozen=True, eq=False)
class Gather:
    """New entries from old ones: the first `reads` of them are values of strings, the rest are the window.

    Attributes:
        index: Which old entry.
        sign: Its sign; None where all are +1.
        reads: How many are values.
        size: Number of old entries.
    """

    index: np.ndarray
    sign: np.ndarray | None
    reads: int
    size: int


@dataclass(frozen=True, eq=False)
class Window:
    """Steps on ⟨P⟩ of all Pauli strings P of the qubits that are there, from the empty window: one entry, 1.

    Attributes:
        steps: First to last.
        rotations: The factors of every rotation.
        strings: Numbers of the strings in the order in which they are read.
        width: Most qubits at once.
        entries: Numbers per sample that a reverse sweep needs.
        work: Multiply-adds per sample.
    """

    steps: tuple[Enter | Rotate | Gather, ...]
    rotations: tuple[tuple[Factor, ...], ...]
    strings: tuple[int, ...]
    width: int
    entries: int
    work: int


# CNOT P CNOT on (control, target) letters, by 4 * control + target: which pair, and its sign.
_X, _Z = (0, 1, 1, 0), (0, 0, 1, 1)  # of I, X, Y, Z
_PAIRS = [PauliString(_X[c] | _X[t] << 1, _Z[c] | _Z[t] << 1) for c in range(4) for t in range(4)]
_IMAGES = [pair.after_cnot(0, 1) for pair in _PAIRS]
_CNOT_INDEX = np.array([4 * image.letter(0) + image.letter(1) for image in _IMAGES])
_CNOT_SIGN = np.array([image.sign for image in _IMAGES])


def frozen(values: np.ndarray) -> np.ndarray:
    """Read-only, and C-contiguous."""
    values = np.ascontiguousarray(values)
    values.setflags(write=False)
    return values


class _TooWideError(Exception):
    pass


def window(items: Sequence[Item], strings: Sequence[PauliString], most_work: int) -> Window | None:
    """The window's steps; None where it would be too wide, or take more multiply-adds."""
    try:
        return _Schedule(items, strings, most_work).run()
    except _TooWideError:
        return None


class _Schedule:
    """Takes items in an order in which few qubits are there at once, and writes the window's steps."""

    def __init__(self, items: Sequence[Item], strings: Sequence[PauliString], most_work: int) -> None:
        self.items, self.strings, self.most_work = items, strings, most_work
        self.qubits_of = [(i.control, i.target) if isinstance(i, Cnot) else (i[0],) for i in items]
        self.waiting: dict[int, list[int]] = {}  # of each qubit, last to first
        for number in range(len(items) - 1, -1, -1):
            for q in self.qubits_of[number]:
                self.waiting.setdefault(q, []).append(number)
        self.before, self.when = self._before()
        self.done = [False] * len(items)
        support = 0
        for string in strings:
            support |= string.support
        self.left = {q for q in range(support.bit_length()) if support >> q & 1} | set(self.waiting)
        # Qubits in the order of their axes, strings of each branch, entries as they come from the last step.
        self.order: list[int] = []
        self.branches: list[list[int]] = [list(range(len(strings)))]
        self.rest = [string.support for string in strings]  # letters that have not been met
        self.index, self.sign = np.zeros((1,), np.int64), np.ones((1,), np.int8)
        self.size, self.steps, self.rotations = 1, [], []  # type: ignore[var-annotated]
        self.reads: list[int] = []
        self.width = self.entries = self.work = 0

    def _before(self) -> tuple[list[list[int]], list[float]]:
        """Per item the items right before it on its qubits, and when it is taken: rotations just before they count."""
        last: dict[int, int] = {}
        before, when = [], [float(number) for number in range(len(self.items))]
        for number, qubits in enumerate(self.qubits_of):
            before.append([last[q] for q in qubits if q in last])
            for q in qubits:
                if q in last and len(self.qubits_of[last[q]]) == 1:
                    when[last[q]] = number - 0.5
                last[q] = number
        return before, when

    def run(self) -> Window:
        self._read([k for k, rest in enumerate(self.rest) if not rest], 0)
        while self.left and self.branches:
            best: tuple[int, int, list[int]] | None = None
            for q in self.order or sorted(self.left):
                found = self._needed(q, _MOST_QUBITS + 1 if best is None else best[0])
                if found is not None and (best is None or found[0] < best[0]):
                    best = (found[0], q, found[1])
                    if found[0] <= (0 if self.order else 1):
                        break
            if best is None:
                raise _TooWideError
            for number in sorted(best[2], key=self.when.__getitem__):
                self._take(number)
            if not self.waiting.get(best[1]) and best[1] in self.left:
                if best[1] not in self.order:  # a letter on a qubit without gates
                    self._enter(best[1], None)
                self._leave(best[1])
        return Window(tuple(self.steps), tuple(self.rotations), tuple(self.reads), self.width, self.entries, self.work)

    def _needed(self, qubit: int, limit: int) -> tuple[int, list[int]] | None:
        """New qubits and items that must come before a qubit can leave; None for more than `limit` new ones."""
        new, found = {qubit} - set(self.order), set()
        stack = self.waiting.get(qubit, [])[:1]
        while stack:
            number = stack.pop()
            if number in found or self.done[number]:
                continue
            found.add(number)
            new.update(q for q in self.qubits_of[number] if q not in self.order)
            if len(new) > limit:
                return None
            stack += self.before[number]
        return len(new), list(found)

    def _take(self, number: int) -> None:
        item, qubits = self.items[number], self.qubits_of[number]
        self.done[number] = True
        for q in qubits:
            self.waiting[q].pop()
        if isinstance(item, Cnot):
            for q in qubits:
                if q not in self.order:
                    self._enter(q, None)
            self._cnot(*qubits)
        elif item[0] not in self.order:
            self._enter(item[0], item[1])
        else:
            self._to_last(item[0])
            self._flush()
            self._add(Rotate(self._number(item[1])), 4 * self.size)
        for q in qubits:
            if not self.waiting[q]:
                self._leave(q)

    def _number(self, factors: tuple[Factor, ...]) -> int:
        self.rotations.append(factors)
        return len(self.rotations) - 1

    def _enter(self, qubit: int, factors: tuple[Factor, ...] | None) -> None:
        if len(self.order) >= _MOST_QUBITS or 16 * self.size > self.most_work:
            raise _TooWideError
        self._flush()
        self._add(Enter(None if factors is None else self._number(factors)), 4 * self.size)
        self.order.append(qubit)
        self.width = max(self.width, len(self.order))
        self.size *= 4
        self._start()

    def _add(self, step: Any, work: int) -> None:
        self.steps.append(step)
        self.entries += self.size
        self.work += work + STEP_WORK
        if self.work > self.most_work:
            raise _TooWideError

    def _start(self) -> None:
        shape = (len(self.branches), *(4,) * len(self.order))
        self.index, self.sign = np.arange(self.size).reshape(shape), np.ones(shape, np.int8)

    def _cnot(self, control: int, target: int) -> None:
        c, t = self.order.index(control) + 1, self.order.index(target) + 1

        def moved(values: np.ndarray) -> np.ndarray:
            pairs = np.moveaxis(values, (c, t), (-2, -1))
            flat = pairs.reshape(*pairs.shape[:-2], 16)[..., _CNOT_INDEX]
            return np.moveaxis(flat.reshape(pairs.shape), (-2, -1), (c, t))

        signs = np.moveaxis((moved(self.sign)), (c, t), (-2, -1)) * _CNOT_SIGN.reshape(4, 4).astype(np.int8)
        self.index, self.sign = moved(self.index), np.moveaxis(signs, (-2, -1), (c, t))

    def _to_last(self, qubit: int) -> None:
        k = self.order.index(qubit)
        self.index, self.sign = np.moveaxis(self.index, k + 1, -1), np.moveaxis(self.sign, k + 1, -1)
        self.order.append(self.order.pop(k))

    def _flush(self, reads: Sequence[tuple[int, int]] = ()) -> None:
        """Write the entries as they stand, after `reads`: (entry, sign) of values."""
        index, sign = self.index.ravel(), self.sign.ravel()
        if not reads and len(index) == self.size and bool(np.all(index == np.arange(self.size))) and np.all(sign == 1):
            return
        index = np.concatenate([np.array([i for i, _ in reads], np.int64), index])
        sign = np.concatenate([np.array([s for _, s in reads], np.int8), sign])
        signs = None if np.all(sign == 1) else frozen(sign.astype(np.float64))
        self._add(Gather(frozen(index), signs, len(reads), self.size), len(index))
        self.size = len(index) - len(reads)
        self._start()

    def _leave(self, qubit: int) -> None:
        """A qubit leaves: each branch goes on with the letter of its strings there."""
        axis = self.order.index(qubit)
        self.left.discard(qubit)
        index, sign = np.moveaxis(self.index, axis + 1, 1), np.moveaxis(self.sign, axis + 1, 1)
        self.order.pop(axis)
        branches, parts, signs, reads = [], [], [], []
        for number, strings in enumerate(self.branches):
            by_letter: dict[int, list[int]] = {}
            for k in strings:
                by_letter.setdefault(self.strings[k].letter(qubit), []).append(k)
                self.rest[k] &= ~(1 << qubit)
            for letter, those in by_letter.items():
                entry = index[number, letter].ravel()[0], sign[number, letter].ravel()[0]
                ended = [k for k in those if not self.rest[k]]
                reads += [entry] * len(ended)
                self.reads += ended
                if going := [k for k in those if self.rest[k]]:
                    branches.append(going)
                    parts.append(index[number, letter])
                    signs.append(sign[number, letter])
        self.branches = branches
        shape = (len(branches), *(4,) * len(self.order))
        self.index = np.stack(parts) if parts else np.zeros((0, *shape[1:]), np.int64)
        self.sign = np.stack(signs) if signs else np.ones((0, *shape[1:]), np.int8)
        if reads or len(branches) > 1 or not branches:
            self._flush(reads)

    def _read(self, numbers: list[int], entry: int) -> None:
        """Strings without a letter: the empty window's one entry."""
        if not numbers:
            return
        self.branches = [[k for k in self.branches[0] if k not in numbers]]
        self.branches = [b for b in self.branches if b]
        self.reads += numbers
        if not self.branches:
            self.index, self.sign = np.zeros((0,), np.int64), np.ones((0,), np.int8)
        self._flush([(entry, 1)] * len(numbers))
