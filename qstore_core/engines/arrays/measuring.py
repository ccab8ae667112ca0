"""The measurement in any array namespace: outputs from a final state, and the pull-back to it."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...circuit.lowering.frame import Frame, parity
from ...circuit.lowering.plan import Plan
from ...circuit.spec.encoding import long_sum
from ..memory import check_bytes, check_table
from .ops import Array, Ops, Signs, change_of_frame, frozen, linear_index

__all__ = ["Measuring"]

_WIDEST = 4  # qubits of a group: strings on more are read by themselves
_MANY_STRINGS = 128  # so many of one more qubit than that are a density matrix: read together
_TOGETHER = 1 << 13  # amplitudes in the copies of a state that are read at once
_SLICE = 1 << 6  # terms of a Gram matrix summed in the precision of the state
_MANY = 4  # so many times more strings than outputs are read from one column of weights per output


@dataclass(frozen=True)
class _Gram:
    """Groups of qubits that are read together.

    `index` sorts copies of (Re ψ, Im ψ), slice by slice, a group's qubits first. `table` takes all entries of all Gram
    matrices to outputs.
    """

    count: int
    width: int
    slices: int
    index: np.ndarray
    table: np.ndarray


@dataclass(frozen=True)
class _Crossing:
    """Strings that share their X part: `Σ_p sign(p) conj(ψ_p) ψ_(p ^ x)`, real and imaginary parts apart."""

    shifted: np.ndarray
    parts: tuple[tuple[Signs, np.ndarray] | None, tuple[Signs, np.ndarray] | None]  # signs, and their outputs


class Measuring:
    """The measurement laid out for array engines.

    Diagonal operators need the probabilities only, on the index as it stands. Others are read from the reduced
    density matrices of groups of qubits, all bases at once, or, where a string spans more qubits than a group has, from
    one product of the state with its own permutation. A reduced density matrix is computed as the Gram matrix of real
    and imaginary parts: one real matrix product for many groups.
    """

    def __init__(self, plan: Plan, frame: Frame) -> None:
        """Choose per string how it is read, from a state in `frame`."""
        m, n = plan.measurement, plan.n_qubits
        self.n_qubits = n
        self.kind = "probabilities" if not m.strings else "diagonal" if m.is_diagonal else "general"
        self.gather: np.ndarray | None = None
        if m.amplitudes:
            self.kind = "amplitudes"
            if plan.frames[m.frame] != frame:
                self.gather = change_of_frame(frame, plan.frames[m.frame], n)
            return
        if self.kind == "probabilities":
            # `physical[l]` is the physical index of position l of the array as it stands after the last layer.
            self._lay_out_probabilities(plan, linear_index(frame.v, n).astype(np.uint64))
            return
        check_table(len(m.strings), len(m.outputs))
        combine = np.zeros((len(m.strings), len(m.outputs)))
        for k, terms in enumerate(m.outputs):
            for string, coefficient in terms:
                combine[string, k] += coefficient
        if self.kind == "diagonal":
            masks = [frame.logical_mask(z) for _, z, _ in m.strings]
            self.signs = Signs(masks, n)
            self.combine = None if _is_identity(combine) else frozen(combine)
            self.columns: np.ndarray | None = None  # per output one weight for every basis state
            if len(masks) > _MANY * len(m.outputs):
                check_bytes(8 * len(m.outputs) << n, f"a table of {len(m.outputs)} outputs of {n} qubits does not fit")
                self.columns = frozen(np.stack([self.signs.column(c) for c in combine.T]))
            return
        self.grams: list[_Gram] = []
        self.crossing: list[_Crossing] = []
        final = plan.frames[m.frame]
        if final != frame:
            self.gather = change_of_frame(frame, final, n)
        place = np.arange(1 << n) if self.gather is None else self.gather
        self._lay_out_strings(m.strings, combine, final, place)

    def _lay_out_probabilities(self, plan: Plan, physical: np.ndarray) -> None:
        m = plan.measurement
        index = np.zeros(len(physical), dtype=np.int64)
        for mask in m.masks:
            index = index * 2 + (np.bitwise_count(physical & np.uint64(mask)) & 1)
        self.n_outputs, self.n_outcomes = m.n_outputs, 1 << len(m.masks)
        self.classes = frozen(index if m.n_classes is None else index % m.n_classes)
        order = np.argsort(index, kind="stable")
        self.order = None if np.array_equal(order, np.arange(len(order))) else frozen(order)

    def _lay_out_strings(
        self, strings: Sequence[tuple[int, int, int]], combine: np.ndarray, final: Frame, place: np.ndarray
    ) -> None:
        """Strings on few qubits are read from Gram matrices, the others from crossing products."""
        n = self.n_qubits
        logical = []
        for x, z, _ in strings:
            lx = sum(((x & u).bit_count() & 1) << (n - 1 - q) for q, u in enumerate(final.u))
            lz = final.logical_mask(z)
            logical.append((lx, lz))
        supports = [lx | lz for lx, lz in logical]
        groups = _groups(supports, n)
        width = len(groups[0]) if groups else 0
        tables = np.zeros((len(groups), 4 << 2 * width, combine.shape[1]))
        crossing: dict[int, list[int]] = {}
        masks = [sum(1 << (n - 1 - q) for q in group) for group in groups]
        for k, ((lx, lz), (_, _, n_y)) in enumerate(zip(logical, strings, strict=True)):
            g = next((g for g, mask in enumerate(masks) if not supports[k] & ~mask), None)
            if g is None:
                crossing.setdefault(lx, []).append(k)
                continue
            x, z = (
                sum((bits >> (n - 1 - q) & 1) << (width - 1 - i) for i, q in enumerate(groups[g])) for bits in (lx, lz)
            )
            matrix = _string_matrix(x, z, n_y, 1 << width)
            # conj(ψ)·P ψ on real and imaginary parts stacked, (Re ψ, Im ψ): a real symmetric matrix.
            real = np.block([[matrix.real, -matrix.imag], [matrix.imag, matrix.real]])
            read = np.flatnonzero(combine[k])
            tables[g][:, read] += real.reshape(-1, 1) * combine[k, read]
        size = 1 << n
        orders = []
        for group in groups:
            rest = [q for q in range(n) if q not in group]
            index = place[linear_index([1 << (n - 1 - q) for q in [*group, *rest]], n)]
            orders.append(np.concatenate([index, index + size]))
        together = max(1, _TOGETHER // size)
        side, slices = 2 << width, max(1, (size >> width) // _SLICE)
        for first in range(0, len(groups), together):
            part = orders[first : first + together]
            index = np.concatenate([order + 2 * size * i for i, order in enumerate(part)])
            index = index.reshape(len(part), side, slices, -1).swapaxes(1, 2).reshape(-1)
            table = np.concatenate(tables[first : first + together])
            self.grams.append(_Gram(len(part), width, slices, frozen(index), frozen(table)))
        self._lay_out_crossing(crossing, strings, logical, combine)

    def _lay_out_crossing(
        self,
        crossing: dict[int, list[int]],
        strings: Sequence[tuple[int, int, int]],
        logical: Sequence[tuple[int, int]],
        combine: np.ndarray,
    ) -> None:
        n = self.n_qubits
        check_bytes(
            8 * len(crossing) << n, f"tables of {len(crossing)} kinds of Pauli strings of {n} qubits do not fit"
        )
        p = np.arange(1 << n, dtype=np.int64)
        for lx, members in crossing.items():
            # ⟨P⟩ = i^n_y Σ_p conj(ψ_p) (-1)^parity((p ^ x) & z) ψ_(p ^ x): ± the real or the imaginary part of the sum
            parts = []
            for odd in (0, 1):
                chosen = [k for k in members if strings[k][2] & 1 == odd]
                factors = [(1, -1, -1, 1)[strings[k][2]] * (1.0 - 2.0 * parity(lx & logical[k][1])) for k in chosen]
                signs = Signs([logical[k][1] for k in chosen], self.n_qubits)
                parts.append((signs, frozen(np.array(factors)[:, None] * combine[chosen])) if chosen else None)
            self.crossing.append(_Crossing(frozen(p ^ lx), (parts[0], parts[1])))

    def _blocks(self, ops: Ops, flat: Array, gram: _Gram) -> Array:
        """Real and imaginary parts (B, 2N) as (B, G·S, 2·2**w, …): per group and slice the group's qubits first."""
        copies = flat if gram.count == 1 else ops.concat([flat] * gram.count)
        side, parts = 2 << gram.width, gram.count * gram.slices
        length = (2 << self.n_qubits) // (side * gram.slices)
        return ops.reshape(ops.permute(copies, gram.index), (-1, parts, side, length))

    def outputs(self, ops: Ops, state: Array) -> Array:
        """Outputs (B, O) of a state (B, N)."""
        if self.kind == "amplitudes":
            state = state if self.gather is None else ops.permute(state, self.gather)
            return ops.concat([ops.real(state), ops.imag(state)])
        if self.kind != "general":
            real, imag = ops.real(state), ops.imag(state)
            probabilities = real * real + imag * imag
            return (self._classes if self.kind == "probabilities" else self._diagonal)(ops, probabilities)
        outputs = None
        if self.grams:
            flat = ops.concat([ops.real(state), ops.imag(state)])
        for gram in self.grams:
            blocks = self._blocks(ops, flat, gram)
            products = ops.matmul(blocks, ops.swap_last(blocks))
            if gram.slices > 1:
                products = ops.wide(ops.reshape(products, (-1, gram.count, gram.slices, 4 << 2 * gram.width)))
                products = ops.sum(products, 2)
            products = ops.reshape(products, (-1, len(gram.table)))
            term = ops.narrow(ops.matmul(products, ops.const(gram.table, products)), flat)
            outputs = term if outputs is None else outputs + term
        if self.crossing and self.gather is not None:
            state = ops.permute(state, self.gather)
        for crossing in self.crossing:
            product = ops.conj(state) * ops.permute(state, crossing.shifted)
            for part, read in zip(crossing.parts, (ops.real, ops.imag), strict=True):
                if part is not None:
                    sums = part[0].sums(ops, read(product))
                    term = ops.matmul(sums, ops.const(part[1], sums))
                    outputs = term if outputs is None else outputs + term
        return outputs

    def _diagonal(self, ops: Ops, probabilities: Array) -> Array:
        if self.columns is not None:
            rows = ops.reshape(probabilities, (-1, 1, 1 << self.n_qubits))
            return long_sum(ops, rows * ops.const(self.columns, rows))
        sums = self.signs.sums(ops, probabilities)
        return sums if self.combine is None else ops.matmul(sums, ops.const(self.combine, sums))

    def _classes(self, ops: Ops, probabilities: Array) -> Array:
        sorted_ = probabilities if self.order is None else ops.permute(probabilities, self.order)
        size, outcomes = 1 << self.n_qubits, self.n_outcomes
        if outcomes < size:
            sorted_ = long_sum(ops, ops.reshape(sorted_, (-1, outcomes, size // outcomes)))
        if self.n_outputs == outcomes:
            return sorted_
        # Outcome k belongs to class k modulo their number: a sum over rows of one outcome of each class.
        rows = -(-outcomes // self.n_outputs)
        count = 1 << max(0, (rows - 1).bit_length() - _SLICE.bit_length() + 1)
        rows = -(-rows // count)
        padded = ops.pad_last(sorted_, count * rows * self.n_outputs)
        sums = ops.sum(ops.reshape(padded, (-1, count, rows, self.n_outputs)), 2)
        return ops.narrow(ops.sum(ops.wide(sums), 1), sums) if count > 1 else ops.sum(sums, 1)

    def pull(self, ops: Ops, psi: Array, cotangents: Array) -> Array:
        """dL/dψ = 2 H ψ with H = Σ_k cotangent_k · observable_k; of amplitudes, their own."""
        if self.kind == "amplitudes":
            size = 1 << self.n_qubits
            own = ops.complex(cotangents[:, :size], cotangents[:, size:])
            return own if self.gather is None else ops.permute_back(own, self.gather)
        cotangents = 2.0 * cotangents
        if self.kind == "probabilities":
            return ops.scale(psi, ops.take(cotangents, self.classes, -1))
        if self.kind == "diagonal":
            if self.columns is not None:
                return ops.scale(psi, ops.matmul(cotangents, ops.const(self.columns, cotangents)))
            if self.combine is not None:
                cotangents = ops.matmul(cotangents, ops.swap_last(ops.const(self.combine, cotangents)))
            return ops.scale(psi, self.signs.spread(ops, cotangents))
        result = self._pull_grams(ops, psi, cotangents) if self.grams else None
        if not self.crossing:
            return result
        if self.gather is not None:
            psi = ops.permute(psi, self.gather)
        crossed = None
        for crossing in self.crossing:
            real, imag = (self._slopes(ops, part, 0.5 * cotangents) for part in crossing.parts)
            # d Re(e* product): e = real + i imag
            e = ops.complex(0.0 * imag if real is None else real, imag)
            term = (ops.conj(e) + ops.permute(e, crossing.shifted)) * ops.permute(psi, crossing.shifted)
            crossed = term if crossed is None else crossed + term
        if self.gather is not None:
            crossed = ops.permute_back(crossed, self.gather)
        return crossed if result is None else result + crossed

    def _slopes(self, ops: Ops, part: tuple[Signs, np.ndarray] | None, cotangents: Array) -> Array:
        if part is None:
            return None
        signs, combine = part
        return signs.spread(ops, ops.matmul(cotangents, ops.swap_last(ops.const(combine, cotangents))))

    def _pull_grams(self, ops: Ops, psi: Array, cotangents: Array) -> Array:
        flat, size = ops.concat([ops.real(psi), ops.imag(psi)]), 1 << self.n_qubits
        result: Array = None
        for gram in self.grams:
            side = 2 << gram.width
            table = ops.matmul(cotangents, ops.swap_last(ops.const(gram.table, cotangents)))
            operators, blocks = ops.reshape(table, (-1, gram.count, side, side)), self._blocks(ops, flat, gram)
            if gram.slices > 1:
                length = size * 2 // (side * gram.slices)
                operators = ops.reshape(operators, (-1, gram.count, 1, side, side))
                blocks = ops.reshape(blocks, (-1, gram.count, gram.slices, side, length))
            term = ops.reshape(ops.matmul(operators, blocks), (-1, gram.count * 2 * size))
            term = ops.permute_back(term, gram.index)
            if gram.count > 1:
                term = ops.sum(ops.reshape(term, (-1, gram.count, 2 * size)), 1)
            result = term if result is None else result + term
        return ops.complex(result[:, :size], result[:, size:])


def _is_identity(matrix: np.ndarray) -> bool:
    return matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(len(matrix)))


def _string_matrix(x: int, z: int, n_y: int, size: int) -> np.ndarray:
    """Matrix of i**n_y X^x Z^z."""
    p = np.arange(size)
    out = np.zeros((size, size), dtype=complex)
    out[p ^ x, p] = (1j**n_y) * (1.0 - 2.0 * (np.bitwise_count(p & z) & 1))
    return out


def _groups(supports: Sequence[int], n_qubits: int) -> list[list[int]]:
    """Sets of qubits of one size that hold every support of at most `_WIDEST` qubits."""
    union = functools.reduce(operator.or_, supports, 0)
    if union.bit_count() == _WIDEST + 1 and len(supports) >= _MANY_STRINGS:
        return [[q for q in range(n_qubits) if union >> (n_qubits - 1 - q) & 1]]
    small = sorted({s for s in supports if s.bit_count() <= _WIDEST}, reverse=True)
    if not small:
        return []
    # Measured with one-qubit strings: wider groups are fewer copies of a state, but more products.
    usual = 3 if n_qubits <= 10 else _WIDEST
    width = min(n_qubits, max(usual, *(s.bit_count() for s in small)))
    masks: list[int] = []
    for support in small:
        for g, mask in enumerate(masks):
            if (mask | support).bit_count() <= width:
                masks[g] |= support
                break
        else:
            masks.append(support)
    groups = []
    for mask in masks:
        inside = [q for q in range(n_qubits) if mask >> (n_qubits - 1 - q) & 1]
        outside = [q for q in range(n_qubits) if q not in inside]
        groups.append(sorted(inside + outside[: width - len(inside)]))
    return groups
