"""The measurement in any array namespace: outputs from a final state, and the pull-back to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..circuit.plan import Frame, Plan
from .ops import Array, Ops, change_of_frame, frozen, linear_index

__all__ = ["Measuring"]

_WIDEST = 4  # qubits of a group: strings on more are read by themselves
_TOGETHER = 1 << 13  # amplitudes in the copies of a state that are read at once


@dataclass(frozen=True)
class _Gram:
    """Groups of qubits that are read together: `index` sorts copies of (Re ψ, Im ψ), a group's qubits first.

    `table` takes all entries of all Gram matrices to outputs.
    """

    count: int
    width: int
    index: np.ndarray
    table: np.ndarray


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
        self.weights: np.ndarray | None = None  # probabilities (N) → outputs, where that is all it takes
        self.order = np.zeros(0, np.int64)  # else sorts the basis states by output
        # `physical[l]` is the physical index of position l of the array as it stands after the last layer.
        physical = linear_index(frame.v, n).astype(np.uint64)
        if self.kind == "probabilities":
            self._lay_out_probabilities(plan, physical)
            return
        combine = np.zeros((len(m.strings), len(m.outputs)))
        for k, terms in enumerate(m.outputs):
            for string, coefficient in terms:
                combine[string, k] += coefficient
        if self.kind == "diagonal":
            rows = [1 - 2 * (np.bitwise_count(physical & np.uint64(z)) & 1).astype(np.int8) for _, z, _ in m.strings]
            table = np.array(rows, dtype=np.int8)
            self.weights = frozen(table.T.copy() if _is_identity(combine) else table.T @ combine)
            return
        self.grams: list[_Gram] = []
        self.crossing: list[tuple[np.ndarray, np.ndarray]] = []
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
        self.n_outputs = m.n_outputs
        self.classes = frozen(index if m.n_classes is None else index % m.n_classes)
        if m.n_classes is None:
            self.order = frozen(np.argsort(self.classes, kind="stable"))
        else:
            self.weights = frozen((self.classes[:, None] == np.arange(m.n_classes)).astype(np.int8))

    def _lay_out_strings(
        self, strings: Sequence[tuple[int, int, int]], combine: np.ndarray, final: Frame, place: np.ndarray
    ) -> None:
        """Strings on few qubits are read from Gram matrices, the others from crossing products."""
        n = self.n_qubits
        logical = []
        for x, z, _ in strings:
            lx = sum(((x & u).bit_count() & 1) << (n - 1 - q) for q, u in enumerate(final.u))
            lz = sum(((z & v).bit_count() & 1) << (n - 1 - q) for q, v in enumerate(final.v))
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
            tables[g] += real.reshape(-1, 1) * combine[k]
        size = 1 << n
        orders = []
        for group in groups:
            rest = [q for q in range(n) if q not in group]
            index = place[linear_index([1 << (n - 1 - q) for q in [*group, *rest]], n)]
            orders.append(np.concatenate([index, index + size]))
        together = max(1, _TOGETHER // size)
        for first in range(0, len(groups), together):
            part = orders[first : first + together]
            index = np.concatenate([order + 2 * size * i for i, order in enumerate(part)])
            table = np.concatenate(tables[first : first + together])
            self.grams.append(_Gram(len(part), width, frozen(index), frozen(table)))
        self._lay_out_crossing(crossing, strings, logical, combine)

    def _lay_out_crossing(
        self,
        crossing: dict[int, list[int]],
        strings: Sequence[tuple[int, int, int]],
        logical: Sequence[tuple[int, int]],
        combine: np.ndarray,
    ) -> None:
        size = 1 << self.n_qubits
        p = np.arange(size, dtype=np.uint64)
        for lx, members in crossing.items():
            # ⟨P⟩ = i^n_y Σ_p conj(ψ_p) (-1)^parity((p ^ x) & z) ψ_(p ^ x)
            shifted = (p ^ np.uint64(lx)).astype(np.int64)
            table = np.zeros((2 * size, combine.shape[1]))
            for k in members:
                sign = 1 - 2.0 * (np.bitwise_count((p ^ np.uint64(lx)) & np.uint64(logical[k][1])) & 1)
                phase = 1j ** strings[k][2]
                flat = np.concatenate([sign * phase.real, sign * -phase.imag])
                table += flat[:, None] * combine[k]
            self.crossing.append((frozen(shifted), frozen(table)))

    def _blocks(self, ops: Ops, flat: Array, gram: _Gram) -> Array:
        """Real and imaginary parts (B, 2N) as (B, G, 2·2**w, N/2**w): per group its qubits first."""
        copies = flat if gram.count == 1 else ops.concat([flat] * gram.count)
        side = 2 << gram.width
        return ops.reshape(ops.permute(copies, gram.index), (-1, gram.count, side, (2 << self.n_qubits) // side))

    def outputs(self, ops: Ops, state: Array) -> Array:
        """Outputs (B, O) of a state (B, N)."""
        if self.kind != "general":
            real, imag = ops.real(state), ops.imag(state)
            probabilities = real * real + imag * imag
            if self.weights is not None:
                return ops.matmul(probabilities, ops.const(self.weights, real))
            sorted_ = ops.permute(probabilities, self.order)
            return ops.sum(ops.reshape(sorted_, (-1, self.n_outputs, (1 << self.n_qubits) // self.n_outputs)), -1)
        total = None
        if self.grams:
            flat = ops.concat([ops.real(state), ops.imag(state)])
        for gram in self.grams:
            blocks = self._blocks(ops, flat, gram)
            products = ops.reshape(ops.matmul(blocks, ops.swap_last(blocks)), (-1, len(gram.table)))
            term = ops.matmul(products, ops.const(gram.table, flat))
            total = term if total is None else total + term
        if self.crossing and self.gather is not None:
            state = ops.permute(state, self.gather)
        for shifted, table in self.crossing:
            product = ops.conj(state) * ops.permute(state, shifted)
            flat = ops.concat([ops.real(product), ops.imag(product)])
            term = ops.matmul(flat, ops.const(table, flat))
            total = term if total is None else total + term
        return total

    def pull(self, ops: Ops, psi: Array, cotangents: Array) -> Array:
        """dL/dψ = 2 H ψ with H = Σ_k cotangent_k · observable_k."""
        cotangents = 2.0 * cotangents
        if self.kind != "general":
            if self.weights is None:
                slopes = ops.take(cotangents, self.classes, -1)
            else:
                slopes = ops.matmul(cotangents, ops.swap_last(ops.const(self.weights, cotangents)))
            return ops.scale(psi, slopes)
        n = self.n_qubits
        total = self._pull_grams(ops, psi, cotangents) if self.grams else None
        if not self.crossing:
            return total
        if self.gather is not None:
            psi = ops.permute(psi, self.gather)
        crossed = None
        for shifted, weights in self.crossing:
            table = ops.matmul(cotangents * 0.5, ops.swap_last(ops.const(weights, cotangents)))
            e = ops.complex(table[:, : 1 << n], table[:, 1 << n :])
            term = (ops.conj(e) + ops.permute(e, shifted)) * ops.permute(psi, shifted)
            crossed = term if crossed is None else crossed + term
        if self.gather is not None:
            crossed = ops.permute_back(crossed, self.gather)
        return crossed if total is None else total + crossed

    def _pull_grams(self, ops: Ops, psi: Array, cotangents: Array) -> Array:
        flat, size = ops.concat([ops.real(psi), ops.imag(psi)]), 1 << self.n_qubits
        total: Array = None
        for gram in self.grams:
            side = 2 << gram.width
            table = ops.matmul(cotangents, ops.swap_last(ops.const(gram.table, cotangents)))
            operators = ops.reshape(table, (-1, gram.count, side, side))
            term = ops.reshape(ops.matmul(operators, self._blocks(ops, flat, gram)), (-1, gram.count * 2 * size))
            term = ops.permute_back(term, gram.index)
            if gram.count > 1:
                term = ops.sum(ops.reshape(term, (-1, gram.count, 2 * size)), 1)
            total = term if total is None else total + term
        return ops.complex(total[:, :size], total[:, size:])


def _is_identity(matrix: np.ndarray) -> bool:
    return matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(len(matrix)))


def _string_matrix(x: int, z: int, n_y: int, size: int) -> np.ndarray:
    """Matrix of i**n_y X^x Z^z."""
    p = np.arange(size)
    out = np.zeros((size, size), dtype=complex)
    out[p ^ x, p] = (1j**n_y) * (1.0 - 2.0 * (np.bitwise_count(p & z) & 1))
    return out


def _bits_at(qubits: Sequence[int], mask: int, n_qubits: int) -> int:
    """The bits of `mask` at some qubits, the first most significant."""
    value = 0
    for q in qubits:
        value = value << 1 | (mask >> (n_qubits - 1 - q) & 1)
    return value


def _groups(supports: Sequence[int], n_qubits: int) -> list[list[int]]:
    """Sets of qubits of one size that hold every support of at most `_WIDEST` qubits."""
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
