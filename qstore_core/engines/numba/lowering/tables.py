"""Tables for the compiled kernels: a scheduled plan as one integer array and one float array.

The kernels in `kernels` interpret these tables; the fields of a record are read there in the order in which they
are written here. Row numbers are multiplied by the number of lanes of a vector, so that they index elements.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....circuit.angles.angle import Angle
from ....circuit.angles.table import AngleTable
from ....circuit.lowering.plan import Plan
from ....errors import CapabilityError
from ...arrays.ops import check_slots
from ..records import (
    GRADIENT_ONLY,
    HEADER,
    LOW_ROWS,
    MOST_ELEMENTS,
    MOST_MASKS,
    MOST_PAIRED,
    MOST_QUBITS,
    PAIR_SIZE,
    PHASE,
    ROTATE,
    SAMPLED_BITS,
    SCRATCH,
)
from .schedule import PhaseLayer, RotationLayer, YRotation, blocks_of, duals, independent_groups, schedule

__all__ = ["KEPT_PHASES", "Program"]

KEPT_PHASES = 1 << 17
"""Elements up to which phase tables are built once a call; further ones are built where they are applied."""


class Program:
    """A plan as tables for vectors of `lanes` samples.

    Attributes:
        ints: int32; starts with the fields named in `HEADER`.
        floats: Coefficients, float64: angles are summed up in it.
        operations: Multiply-adds of one sample's forward pass, about; for choosing threads.
        work_size: Scratch elements that one thread needs.
        state_size: Elements of one chunk's state.
    """

    def __init__(self, plan: Plan, lanes: int, dtype: np.dtype) -> None:
        """Lay out the tables."""
        if plan.n_qubits > 62 or lanes << plan.n_qubits > MOST_ELEMENTS:
            raise CapabilityError(
                f"backend 'numba' computes at most {MOST_ELEMENTS.bit_length() - 1} qubits, received {plan.n_qubits}. "
                'Use backend="statevector".',
                backend="numba",
            )
        check_slots(plan)
        self.plan, self.lanes, self._block = plan, lanes, _block_size(lanes * dtype.itemsize)
        self._ints: list[np.ndarray] = [np.zeros(len(HEADER), dtype=np.int32)]
        self._n_ints = len(HEADER)
        self._floats: list[float] = []
        self._orders: dict[tuple[int, ...], tuple[int, int]] = {}
        self._p = np.arange(1 << plan.n_qubits, dtype=np.uint32)
        self._angles: list[Angle] = []
        self._head = dict.fromkeys(HEADER, 0)
        layers = schedule(plan)
        self._collect_angles(layers)
        head = self._head
        head["rows"], head["amplitudes"], head["inputs"] = len(self._p), plan.n_amplitudes, plan.n_inputs
        head["weights"], head["outputs"], head["plane"] = plan.n_weights, plan.n_outputs, len(self._p) * lanes
        self._write_angles()
        self._write_steps(layers)
        self._write_measurement()
        self.work_size = self._plan_work()
        self.operations = self._count_operations(layers)
        self.state_size = 2 * len(self._p) * lanes
        self._ints[0][:] = [head[name] for name in HEADER]
        self.ints = np.concatenate(self._ints)
        del self._ints, self._orders, self._number
        self.floats = np.array([*self._floats, 0.0])
        self.n_shared = head["shared"]

    # -- writing ------------------------------------------------------------------------------------------------

    def _put(self, values: Sequence[int] | np.ndarray) -> int:
        """Append integers; returns where they start."""
        array = np.asarray(values, dtype=np.int32).reshape(-1)
        start = self._n_ints
        self._ints.append(array)
        self._n_ints += len(array)
        return start

    def _put_floats(self, values: Sequence[float] | np.ndarray) -> int:
        start = len(self._floats)
        self._floats.extend(float(v) for v in values)
        return start

    # -- angles -------------------------------------------------------------------------------------------------

    def _collect_angles(self, layers: Sequence[RotationLayer | PhaseLayer]) -> None:
        """Number the angles: shared ones first, then those that differ from sample to sample."""
        refs: list[tuple[int, object, Angle]] = []
        for number, layer in enumerate(layers):
            if isinstance(layer, RotationLayer):
                refs += [(number, k, t.angle) for k, t in enumerate(layer.rotations)]
            else:
                refs += [(number, mask, angle) for mask, angle in layer.terms.items()]
        refs.sort(key=lambda ref: ref[2].uses_inputs)
        self._number = {(number, key): i for i, (number, key, _) in enumerate(refs)}
        self._angles = [angle for _, _, angle in refs]
        self._head["angles"] = len(refs)
        self._head["shared"] = sum(not angle.uses_inputs for angle in self._angles)

    def _write_angles(self) -> None:
        """The `AngleTable`, by addresses: angle → monomials → slots."""
        table = AngleTable(self._angles)
        monomials_at = self._put(table.bounds + self._put(table.numbered(self.plan.n_weights)))
        self._head["monomials"] = self._put(table.spans + monomials_at)
        # A monomial's coefficient stands at the same distance as its factor span.
        self._head["coefficients"] = self._put_floats(table.coefficients) - monomials_at

    # -- steps --------------------------------------------------------------------------------------------------

    def _write_steps(self, layers: Sequence[RotationLayer | PhaseLayer]) -> None:
        records: list[list[int]] = []
        real, n_tables = True, 0
        kept_tables = self._head["kept_tables"] = max(1, KEPT_PHASES // (2 * len(self._p)))
        for number, layer in enumerate(layers):
            if isinstance(layer, RotationLayer):
                numbered = [(t, self._number[number, k]) for k, t in enumerate(layer.rotations)]
                if number == 0 and not self.plan.n_amplitudes:
                    product, numbered = _split_product(numbered)
                    self._write_product(product)
                    records += self._rotation_records(product, GRADIENT_ONLY, real)
                records += self._rotation_records(numbered, ROTATE, real)
                continue
            terms = {mask: self._number[number, mask] for mask in layer.terms}
            shared = any(i < self._head["shared"] for i in terms.values())
            records.append(self._phase_record(terms, real, min(n_tables, kept_tables) if shared else -1))
            n_tables += shared
            real = False
        if not self.plan.n_amplitudes and not self._head["n_product"]:
            self._write_product([])
        self._head["steps"], self._head["n_steps"] = self._put([f for r in records for f in r]), len(records)
        self._head["real_end"], self._n_tables = int(real), min(n_tables, kept_tables + 1)

    def _write_product(self, product: Sequence[tuple[YRotation, int]]) -> None:
        """RotationLayer of |0…0⟩ on different qubits make a product state: rows in the order in which they fill."""
        rows = [0]
        for rotation, _ in product:
            rows += [row ^ rotation.v for row in rows]
        self._head["n_product"] = len(product)
        self._head["product_rows"] = self._put([row * self.lanes for row in rows])
        self._head["product_angles"] = self._put([i for _, i in product])

    def _rotation_records(self, numbered: Sequence[tuple[YRotation, int]], kind: int, real: bool) -> list[list[int]]:
        index = {id(rotation): i for rotation, i in numbered}
        records = []
        for block in blocks_of([rotation for rotation, _ in numbered], self._block):
            angles = [index[id(rotation)] for rotation in block]
            wanted = any(not self._angles[i].is_constant for i in angles)
            if kind == GRADIENT_ONLY and not wanted:
                continue
            angles += [0] * (MOST_QUBITS - len(angles))
            records.append([kind, int(real), int(wanted), *self._put_block(block), *angles])
        return records

    def _put_block(self, block: Sequence[YRotation]) -> tuple[int, int, int, int]:
        """A block's record: its rows are those that are |0⟩ to every rotation, in two short lists."""
        zero_members = np.ones(len(self._p), dtype=bool)
        for rotation in block:
            zero_members &= (np.bitwise_count(self._p & rotation.u) & 1) == 0
        rows = self._p[zero_members].astype(np.int64) * self.lanes
        listed = self._put(np.concatenate([rows[:LOW_ROWS], rows[::LOW_ROWS]]))
        moves = self._put([_combine(block, j) * self.lanes for j in range(1 << len(block))])
        return len(block), listed, len(self._p) >> len(block), moves

    def _phase_record(self, terms: dict[int, int], real: bool, table: int) -> list[int]:
        transforms = self._put_transforms(list(terms), len(self._p).bit_length() - 1, terms)
        sampled = [mask for mask, i in terms.items() if i >= self._head["shared"]]
        applied = self._put_transforms(sampled, SAMPLED_BITS, terms)
        wanted = any(not self._angles[i].is_constant for i in terms.values())
        return [PHASE, int(real), int(wanted), table, transforms[0], transforms[1], applied[0], applied[1], 0, 0, 0]

    def _put_transforms(self, masks: Sequence[int], size: int, numbers: dict[int, int]) -> tuple[int, int]:
        """Records `bits, order, number of each mask` (`TRANSFORM_SIZE` numbers); returns (start, count)."""
        records = []
        for group in independent_groups(masks, size):
            numbered = [numbers[mask] for mask in group]
            records.append([len(group), self._order(tuple(group)), *numbered, *([0] * (MOST_MASKS - len(group)))])
        return self._put([f for r in records for f in r]), len(records)

    def _order(self, masks: tuple[int, ...]) -> int:
        """Rows sorted by the parities of `masks`, first mask most significant."""
        if masks not in self._orders:
            bucket = np.zeros(len(self._p), dtype=np.int64)
            for mask in masks:
                bucket = bucket << 1 | (np.bitwise_count(self._p & mask) & 1)
            self._orders[masks] = self._put(np.argsort(bucket, kind="stable") * self.lanes), len(masks)
        return self._orders[masks][0]

    # -- measurement --------------------------------------------------------------------------------------------

    def _write_measurement(self) -> None:
        m, head = self.plan.measurement, self._head
        head["total"] = -1
        if not m.strings:
            self._write_classes()
            return
        value_of: dict[int, int] = {}
        masks = {z: number for number, (x, z, _) in enumerate(m.strings) if not x and z}
        for number, mask in enumerate(masks):
            value_of[masks[mask]] = number
        n_values = len(masks)
        identity = [number for number, (x, z, _) in enumerate(m.strings) if not x and not z]
        if identity:
            value_of[identity[0]] = head["total"] = n_values
            n_values += 1
        numbers = {mask: value_of[string] for mask, string in masks.items()}
        bits = len(self._p).bit_length() - 1
        head["transforms"], head["n_transforms"] = self._put_transforms(list(masks), bits, numbers)
        if identity and not masks:
            head["transforms"], head["n_transforms"] = self._put([0, self._order(()), *([0] * MOST_MASKS)]), 1
        by_shift: dict[int, list[int]] = {}
        for number, (x, _, _) in enumerate(m.strings):
            if x:
                by_shift.setdefault(x, []).append(number)
        for number in (k for numbers_of_x in by_shift.values() for k in numbers_of_x):
            value_of[number] = n_values
            n_values += 1
        self._write_strings({x: [(m.strings[k], value_of[k]) for k in ks] for x, ks in by_shift.items()})
        self._write_outputs([[(value_of[k], c) for k, c in output] for output in m.outputs], n_values)

    def _write_strings(self, by_shift: dict[int, list[tuple[tuple[int, int, int], int]]]) -> None:
        """X and Y of single qubits in groups of two or three, other strings by their X part."""
        head = self._head
        pairs = []
        for block in blocks_of(_directions(by_shift), MOST_PAIRED):
            if len(block) == 1:
                continue
            record = list(self._put_block(block))
            for rotation in block:
                strings = {n_y & 1: (n_y, value) for (_, _, n_y), value in by_shift.pop(rotation.v)}
                n_y, y_value = strings.get(1, (1, -1))
                # 2 i^n_y c with c = conj(ψ_q) ψ_p, as in _shift_record: odd n_y reads Im c.
                record += [strings.get(0, (0, -1))[1], y_value, self._put_floats([-1.0 if n_y == 1 else 1.0])]
            pairs.append(record + [0] * (PAIR_SIZE - len(record)))
        head["pairs"], head["n_pairs"] = self._put([f for r in pairs for f in r]), len(pairs)
        records = [self._shift_record(x, strings) for x, strings in by_shift.items()]
        head["shifts"], head["n_shifts"] = self._put([f for r in records for f in r]), len(records)

    def _shift_record(self, x: int, strings: Sequence[tuple[tuple[int, int, int], int]]) -> list[int]:
        """Pairs (p, p ^ x) in runs of equal signs, so that a string costs work per run, not per pair."""
        odd = next((z for (_, z, n_y), _ in strings if n_y & 1), 1 << (x.bit_length() - 1))
        reps = self._p[(np.bitwise_count(self._p & odd) & 1) == 0]
        pattern = np.stack([np.bitwise_count(reps & z) & 1 for (_, z, _), _ in strings], axis=1)
        patterns, inverse = np.unique(pattern, axis=0, return_inverse=True)
        order = np.argsort(inverse.reshape(-1), kind="stable")
        ends = np.cumsum(np.bincount(inverse.reshape(-1), minlength=len(patterns)))
        # 2 i^n_y (-1)^parity c with c = conj(ψ_p') ψ_p: even n_y reads Re c, odd n_y reads Im c.
        factors = [(2.0, -2.0, -2.0, 2.0)[n_y] for (_, _, n_y), _ in strings]
        signs = self._put_floats([f * (1 - 2 * int(b)) for row in patterns for f, b in zip(factors, row, strict=True)])
        rows = self._put(reps[order].astype(np.int64) * self.lanes)
        which = self._put([entry for (_, _, n_y), value in strings for entry in (n_y & 1, value)])
        return [x * self.lanes, rows, self._put([0, *ends]), len(patterns), len(strings), which, signs]

    def _write_classes(self) -> None:
        """Probabilities: rows sorted by class."""
        m, head = self.plan.measurement, self._head
        label = np.zeros(len(self._p), dtype=np.int64)
        for mask in m.masks:
            label = label << 1 | (np.bitwise_count(self._p & mask) & 1)
        label %= m.n_outputs
        rows = self._put(np.argsort(label, kind="stable") * self.lanes)
        starts = np.concatenate([[0], np.cumsum(np.bincount(label, minlength=m.n_outputs))])
        head["classes"], head["n_classes"] = self._put(starts + rows), m.n_outputs
        self._write_outputs([[(k, 1.0)] for k in range(m.n_outputs)], m.n_outputs)

    def _write_outputs(self, outputs: Sequence[Sequence[tuple[int, float]]], n_values: int) -> None:
        ends = np.cumsum([0, *(len(output) for output in outputs)])
        self._head["out_values"] = values = self._put([v for output in outputs for v, _ in output])
        self._head["out_ptr"] = self._put(ends + values)
        self._head["out_coefficients"] = self._put_floats([c for output in outputs for _, c in output]) - values
        self._head["values"] = n_values

    # -- scratch ------------------------------------------------------------------------------------------------

    def _count_operations(self, layers: Sequence[RotationLayer | PhaseLayer]) -> int:
        per_row = 6 + 5 * len({x for x, _, _ in self.plan.measurement.strings if x})
        for layer in layers:
            per_row += 4 * len(layer.rotations) if isinstance(layer, RotationLayer) else 4
        return per_row * len(self._p)

    def _plan_work(self) -> int:
        """Offsets in the scratch array; each is a multiple of a cache line."""
        head, rows, lanes = self._head, len(self._p), self.lanes
        sizes = {
            "cos_sin": 2 * head["angles"] * lanes,
            "excess": head["angles"] * lanes,
            "drift": 2 * lanes,  # of shared angles, and of all
            "d_angle": head["angles"] * lanes,
            "slots": self.plan.n_inputs * lanes,
            "d_slots": self.plan.n_inputs * lanes,
            "values": head["values"] * lanes,
            "outputs": self.plan.n_outputs * lanes,
            "buffer": rows * lanes,
            "norm": 2 * lanes,
            "table": max(4 * rows, 2 * lanes << SAMPLED_BITS),
            "phases": 2 * rows * self._n_tables,
            "lambda": 2 * rows * lanes,
        }
        total, offsets = 0, []
        for name in SCRATCH:
            offsets.append(total)
            total += -(-sizes[name] // 16) * 16
        head["offsets"] = self._put(offsets)
        return total


def _block_size(width: int) -> int:
    """Rotations applied in one pass over memory: their 2**k rows stay in registers.

    Args:
        width: Bytes of a vector. Machines with vectors of 64 have 32 registers of them, others 16.
    """
    return MOST_QUBITS if width == 64 else 3


def _combine(block: Sequence[YRotation], member: int) -> int:
    row = 0
    for k, rotation in enumerate(block):
        if member >> k & 1:
            row ^= rotation.v
    return row


def _directions(by_shift: dict[int, list[tuple[tuple[int, int, int], int]]]) -> list[YRotation]:
    """X parts whose strings are X and Y of one qubit of some relabelling, as (angleless) rotations of that qubit."""
    plain: dict[int, int] = {}
    for x, strings in by_shift.items():
        odd = {z for (_, z, n_y), _ in strings if n_y & 1}
        if len(odd) <= 1 and not any(z for (_, z, n_y), _ in strings if not n_y & 1):
            plain[x] = odd.pop() if odd else 0
    free = duals(list(plain))
    return [YRotation(x, z or u, Angle()) for (x, z), u in zip(plain.items(), free, strict=True) if z or u]


def _split_product(
    numbered: Sequence[tuple[YRotation, int]],
) -> tuple[list[tuple[YRotation, int]], list[tuple[YRotation, int]]]:
    """First rotations of |0…0⟩ that act on different qubits, and the rest."""
    product: list[tuple[YRotation, int]] = []
    rest: list[tuple[YRotation, int]] = []
    for rotation, i in numbered:
        first = all(rotation.commutes(t) for t, _ in rest) and rotation.independent([t for t, _ in product])
        (product if first else rest).append((rotation, i))
    return product, rest
