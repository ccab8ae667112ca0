"""Tables for the kernels: a Plan in rounds, as one integer array and one float array.

The kernels in `device` read a record's fields in the order in which they are written here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qstore_core.circuit.angles.angle import Angle
from qstore_core.circuit.angles.table import AngleTable
from qstore_core.circuit.lowering.plan import Diagonal, Plan, Rotation

from .layout import Layout, arrange, span_rank
from .passes import Pass, in_one_pass, passes_of

__all__ = ["CHUNK", "HEADER", "MOST_FACTORS", "TERM_FIELDS", "Program"]

HEADER = (
    "angles", "rotations", "polynomials", "factors", "rounds", "n_rounds", "diagonal", "n_diagonal", "shifts",
    "n_shifts", "back", "classes", "label", "n_strings", "outputs", "strings", "inputs", "weights", "coefficients",
    "constants", "scratch", "unused", "n_unused",
)  # fmt: skip
_BANK_BITS = 4  # memory reads 16 numbers of 8 bytes at once
CHUNK = 8
"""Sums over amplitudes are taken this many at a time."""
MOST_FACTORS = 3
"""Angles of one rotation; longer products are split."""
TERM_FIELDS = 5
"""Mask of threads, mask of registers, number of the angle or string, and what the real and the imaginary part of an
amplitude's product with its neighbour are multiplied by."""


@dataclass
class _Entries:
    """What a slot's gradient is the sum of: angle, coefficient and the other slots of each monomial it is in."""

    angles: list[int] = field(default_factory=list)
    coefficients: list[float] = field(default_factory=list)
    others: list[list[int]] = field(default_factory=list)


class Program:
    """A plan as tables for kernels.

    Attributes:
        ints: int32; starts with the fields named in `HEADER`.
        floats: float64 coefficients.
        registers: Bits of a register's number.
        factors: Most angles of one rotation.
        sampled: True where angles differ from sample to sample.
        degree: Most slots in a monomial.
        monomials: Most monomials in an angle.
        passes: Of each of many: where its record begins, and whether amplitudes are exchanged between threads before
            the first round and after the last one.
    """

    def __init__(self, plan: Plan, registers: int, samples: int, held: int | None = None, low: int = 0) -> None:
        """Lay out the tables for `samples` samples a program, whose threads take turns.

        Or, where a program holds 2**held amplitudes and no whole state, for passes (see `passes_of`) over memory.
        """
        self.plan, self.registers, self.samples = plan, registers, samples
        self._ints: list[int] = [0] * len(HEADER)
        self._floats: list[float] = []
        self._head = dict.fromkeys(HEADER, 0)
        self._angles: list[Angle] = []
        self._rotations: list[tuple[np.ndarray, list[tuple[np.ndarray, int]]]] = []
        self.passes: list[tuple[int, bool, bool]] = []
        steps = [part for step in plan.steps for part in _split(step)]
        lanes, from_zero = max(_BANK_BITS - (samples.bit_length() - 1), 0), not plan.n_amplitudes
        self._held = held or plan.n_qubits
        if held is None:
            passes = [in_one_pass(steps, plan.n_qubits, registers, lanes, from_zero)]
        else:
            passes = passes_of(steps, plan.n_qubits, held, low, registers, lanes, from_zero)
        self.factors = max([1, *(_n_variable(s) for s in steps if isinstance(s, Rotation))])
        self.has_terms = any(r.terms for p in passes for r in p.rounds)
        for pass_ in passes:
            self._write_pass(pass_, of_many=held is not None)
        self._write_measurement(passes[-1], lanes, of_many=held is not None)
        self._write_angles()
        self._write_gradients()
        self._head["n_strings"] = len(plan.measurement.strings)
        self._ints[: len(HEADER)] = [self._head[name] for name in HEADER]
        self.ints = np.array(self._ints, np.int32)
        self.floats = np.array([*self._floats, 0.0])
        self.n_angles, self.scratch = len(self._angles), self._head["scratch"]
        self.sampled = any(angle.uses_inputs for angle in self._angles)

    # -- writing ------------------------------------------------------------------------------------------------

    def _put(self, values: Sequence[int] | np.ndarray) -> int:
        start = len(self._ints)
        self._ints.extend(int(v) for v in np.asarray(values, np.int64).reshape(-1))
        return start

    def _put_floats(self, values: Any) -> int:
        start = len(self._floats)
        self._floats.extend(float(v) for v in np.asarray(values, float).reshape(-1))
        return start

    # -- rounds -------------------------------------------------------------------------------------------------

    def _write_pass(self, pass_: Pass, of_many: bool) -> None:
        """Records of its rounds, and where it is one of many that of where its amplitudes are in memory."""
        records: list[list[int]] = []
        slots = self.registers * self.factors
        slots += -slots % CHUNK
        first, layout = len(self._rotations) // self.registers, pass_.load
        for number, round_ in enumerate(pass_.rounds):
            new = round_.layout
            # Back before this round, or in one of many passes back from what follows.
            after = pass_.rounds[number + 1].layout if number + 1 < len(pass_.rounds) else pass_.store
            back = self._words(new, after) if of_many else self._words(layout, new)
            words = [*self._words(new, layout), *back]
            columns: list[int] = []
            for rotation in round_.rotations:
                self._add_rotation(rotation)
                angles = [number for _, number in self._rotations[-1][1]]
                columns += [-1 if self._angles[a].is_constant else a for a in angles]
                columns += [-1] * (self.factors - len(angles))
            missing = self.registers - len(round_.rotations)
            self._rotations += [(np.array([1.0, 0.0, 0.0, 0.0]), [])] * missing
            columns += [-1] * (slots - len(columns))
            numbers = [(mask, self._number(angle)) for mask, angle in round_.terms]  # type: ignore[arg-type]
            terms = [(m, a, int(not self._angles[a].is_constant), 0) for m, a in numbers]
            cosets = [pass_.coset(rotation.u) for rotation in round_.rotations] + [0] * missing
            where = self._put_terms(pass_, new, terms)
            records.append([where, len(numbers), *words, *columns, *cosets])
            layout = new
        self.round_size = 2 + 2 * self._held + slots + self.registers
        assert all(len(record) == self.round_size for record in records)
        records.append([0] * self.round_size)  # read one round ahead
        self._head["rounds"], self._head["n_rounds"] = self._put([f for r in records for f in r]), len(records) - 1
        if of_many:
            end, store = layout, pass_.store
            record = [self._head["rounds"], len(records) - 1, first, *self._words(store, end)]
            begin = pass_.rounds[0].layout
            record += [*self._words(pass_.load, begin), *pass_.load.columns, *store.columns, *pass_.outside]
            self.passes.append((self._put(record), begin != pass_.load, store != end))

    def _words(self, new: Layout, old: Layout) -> list[int]:
        """`Layout.exchange` in places of the memory for it: samples, then threads, then registers."""
        bits = [self.samples << len(old.threads) + j for j in range(self.registers)]
        bits += [self.samples << b for b in range(len(old.threads))]
        return [sum(bits[k] for k in range(len(bits)) if word >> k & 1) for word in new.exchange(old)]

    def _number(self, angle: Angle) -> int:
        self._angles.append(angle)
        return len(self._angles) - 1

    def _add_rotation(self, rotation: Rotation) -> int:
        """Its factors as rotations by variable angles after one constant rotation."""
        constant, variable = np.array([1.0, 0.0, 0.0, 0.0]), []
        for axis, angle in rotation.factors:
            if not angle.is_constant:
                variable.append((np.array(axis, float), self._number(angle)))
                continue
            half = angle.constant / 2
            turn = np.array([np.cos(half), *(np.sin(half) * np.array(axis))])
            constant = _times(turn, constant)
            variable = [(_turned(turn, n), number) for n, number in variable]
        self._rotations.append((constant, variable))
        return len(self._rotations) - 1

    def _put_terms(self, pass_: Pass, layout: Layout, terms: Sequence[tuple[int, int, int, int]]) -> int:
        """Records of `(mask, number, factors)`, filled up to whole chunks by records without factors.

        The number of a coset is read as higher bits of a thread's.
        """
        records, low = [], (1 << self.registers) - 1
        for mask, number, real, imaginary in terms:
            local = layout.local(mask) | pass_.coset(mask) << self._held
            records.append([local >> self.registers, local & low, number, real, imaginary])
        records += [[0] * TERM_FIELDS] * (-len(records) % CHUNK)
        return self._put([f for r in records for f in r])

    # -- measurement --------------------------------------------------------------------------------------------

    def _write_measurement(self, pass_: Pass, lanes: int, of_many: bool) -> None:
        """Where there are many passes, programs read diagonal strings alone."""
        m, head, end, space = self.plan.measurement, self._head, pass_.end, pass_.space
        self.identity_outputs = bool(m.strings) and m.outputs == tuple(((k, 1.0),) for k in range(len(m.strings)))
        self.has_shifts = not m.is_diagonal
        self.out_entries = self.string_entries = 1
        if of_many and not (m.strings and m.is_diagonal):
            return
        if not m.strings:
            words = []
            for column in end.columns:
                label = 0
                for mask in m.masks:
                    label = label << 1 | ((column & mask).bit_count() & 1)
                words.append(label)
            head["label"], head["classes"] = self._put(words), m.n_outputs
            return
        diagonal = [(z, k, 1, 0) for k, (x, z, _) in enumerate(m.strings) if not x]
        head["diagonal"], head["n_diagonal"] = self._put_terms(pass_, end, diagonal), len(diagonal)
        by_shift: dict[int, list[int]] = {}
        for k, (x, _, _) in enumerate(m.strings):
            if x:
                by_shift.setdefault(x, []).append(k)
        records, layout = [], end
        for x, numbers in by_shift.items():
            new = arrange([x], span_rank([x, *space])[1:], self.registers, layout, lanes)
            terms = []
            for k in numbers:
                sign = 1 - (m.strings[k][2] & 2)
                terms.append((m.strings[k][1], k, *((0, sign) if m.strings[k][2] & 1 else (sign, 0))))
            records.append([self._put_terms(pass_, new, terms), len(terms), *self._words(new, layout)])
            layout = new
        head["shifts"], head["n_shifts"] = self._put([f for r in records for f in r]), len(records)
        head["back"] = self._put(self._words(end, layout))
        pairs = [(o, s, c) for o, output in enumerate(m.outputs) for s, c in output]
        self.out_entries = self._put_sparse(
            "outputs", [[(s, c) for p, s, c in pairs if p == o] for o in range(len(m.outputs))]
        )
        self.string_entries = self._put_sparse(
            "strings", [[(o, c) for o, p, c in pairs if p == s] for s in range(len(m.strings))]
        )

    def _put_sparse(self, name: str, rows: Sequence[Sequence[tuple[int, float]]]) -> int:
        """Rows of as many `(column, coefficient)` as the longest has: columns, and where coefficients begin."""
        longest = max([1, *(len(row) for row in rows)])
        filled = [[*row, *([(0, 0.0)] * (longest - len(row)))] for row in rows]
        floats = self._put_floats([c for row in filled for _, c in row])
        self._head[name] = self._put([floats, *(k for row in filled for k, _ in row)])
        return longest

    # -- angles -------------------------------------------------------------------------------------------------

    def _write_angles(self) -> None:
        """Polynomials in slots (weight j, then input i; -1 is the number 1), and what each rotation is made of."""
        head, table = self._head, AngleTable(self._angles)
        numbers, counts, degrees = table.numbered(self.plan.n_weights), np.diff(table.spans), np.diff(table.bounds)
        self.monomials, self.degree = int(counts.max(initial=1)), int(degrees.max(initial=1))
        slots = np.full((len(counts), self.monomials, self.degree), -1)
        coefficients = np.zeros((len(counts), self.monomials))
        self._monomials: list[tuple[int, float, list[int]]] = []  # angle, coefficient, slots
        for m, a in enumerate(np.repeat(np.arange(len(counts)), counts).tolist()):
            own, k = numbers[table.bounds[m] : table.bounds[m + 1]], m - table.spans[a]
            slots[a, k, : len(own)], coefficients[a, k] = own, table.coefficients[m]
            self._monomials.append((a, table.coefficients[m], own.tolist()))
        head["angles"], head["polynomials"] = len(counts), self._put(slots)
        head["coefficients"] = self._put_floats(coefficients)
        head["rotations"] = len(self._rotations)
        ids, constants = [], []
        for constant, variable in self._rotations:
            missing = self.factors - len(variable)
            ids += [*(number for _, number in variable), *([-1] * missing)]
            constants += [*constant, *(c for axis, _ in variable for c in axis), *([0.0] * (3 * missing))]
        head["factors"], head["constants"] = self._put(ids), self._put_floats(constants)
        # One row of scratch: cos and sin of half of every angle, then each rotation's matrix and axes.
        head["scratch"] = 2 * len(counts) + len(self._rotations) * (4 + 3 * self.factors)

    def _write_gradients(self) -> None:
        """The product rule, slot by slot, so that every sum has one place and one order."""
        plan = self.plan
        entries = [_Entries() for _ in range(plan.n_weights + plan.n_inputs)]
        for a, coefficient, slots in self._monomials:
            for k, slot in enumerate(slots):
                entries[slot].angles.append(a)
                entries[slot].coefficients.append(coefficient)
                entries[slot].others.append([*slots[:k], *slots[k + 1 :]])
        unused = [slot for slot, e in enumerate(entries) if not e.angles]
        self._head["unused"], self._head["n_unused"] = self._put(unused), len(unused)
        self.weight_entries = self._put_entries("weights", entries[: plan.n_weights])
        self.input_entries = self._put_entries("inputs", entries[plan.n_weights :])
        mixed = [slot for e in entries[: plan.n_weights] for others in e.others for slot in others]
        self.mixed = any(slot >= plan.n_weights for slot in mixed)

    def _put_entries(self, name: str, entries: Sequence[_Entries]) -> int:
        """Per slot and entry: angle, then degree - 1 other slots; coefficients begin where the first integer says."""
        longest = max([1, *(len(e.angles) for e in entries)])
        width = self.degree
        table = np.full((len(entries), longest, width), -1)
        table[:, :, 0] = 0
        coefficients = np.zeros((len(entries), longest))
        for i, e in enumerate(entries):
            for k, (angle, others) in enumerate(zip(e.angles, e.others, strict=True)):
                table[i, k, 0] = angle
                table[i, k, 1 : 1 + len(others)] = others
            coefficients[i, : len(e.angles)] = e.coefficients
        self._head[name] = self._put([self._put_floats(coefficients), *table.reshape(-1)])
        return longest


def _n_variable(rotation: Rotation) -> int:
    return sum(not angle.is_constant for _, angle in rotation.factors)


def _split(step: Rotation | Diagonal) -> list[Rotation | Diagonal]:
    """Rotations of more angles than a kernel takes, one after the other."""
    if isinstance(step, Diagonal) or _n_variable(step) <= MOST_FACTORS:
        return [step]
    parts: list[list[Any]] = [[]]
    count = 0
    for factor in step.factors:
        count += not factor[1].is_constant
        if count > MOST_FACTORS:
            parts.append([])
            count = 1
        parts[-1].append(factor)
    return [Rotation(step.v, step.u, tuple(part), step.qubit, step.frame) for part in parts]


def _times(q: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Product of quaternions: the rotation p, then q."""
    w, x = q[0], q[1:]
    return np.array([w * p[0] - x @ p[1:], *(w * p[1:] + p[0] * x + np.cross(x, p[1:]))])


def _turned(q: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """An axis after the rotation q."""
    inverse = q * np.array([1.0, -1.0, -1.0, -1.0])
    return _times(_times(q, np.array([0.0, *axis])), inverse)[1:]
