"""Interprets a Plan in any array namespace: the quantum part of the NumPy, PyTorch and TensorFlow engines.

The state is an array (batch, 2**n). Rotations of a layer are grouped: the Kronecker product of up to four qubits'
matrices is one small matrix product. A change of frame is one gather. All entanglers after the last rotation are
folded into the measurement. A framework supplies `Ops`, a dozen array functions; nothing here knows which one it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from ...circuit.checks import check_arrays
from ...circuit.lowering.plan import Diagonal, Plan, Rotation
from .angles import Polynomials, plus
from .measuring import Measuring
from .ops import Array, Ops, Signs, change_of_frame, check_slots, frozen
from .rotations import Factors, FusedRotations

__all__ = [
    "ArrayProgram",
    "DiagonalLayer",
    "Group",
    "KronLayer",
    "Stack",
    "group_sizes",
    "kronecker_index",
]


_EYE_ROW = frozen(np.eye(2, dtype=complex)[None])
_ONE_ROW = frozen(np.ones((1, 1)))
_PERIOD = 4 * math.pi  # of exp(-i angle/2)


@dataclass(frozen=True)
class Stack:
    """Kronecker products of groups of one size.

    Products are outer products of flat matrices, sorted once at the end: frameworks broadcast few axes at a time.

    Attributes:
        per_sample: Arrays have a leading batch axis.
        singles: Double precision. Matrices of the first, second, … qubit of all groups, each (…, G, 4).
        partial: Outer products of the first, the first two, … of them, (…, G, 4**k).
        whole: Kronecker products, (…, G, 2**size, 2**size), in the precision of the state; None where only `columns`,
            their first ones, (…, G, 2**size), are needed.
    """

    per_sample: bool
    singles: list[Array]
    partial: list[Array]
    whole: Array | None
    columns: Array

    def matrix(self, number: int) -> Array:
        """The matrix of one group."""
        assert self.whole is not None
        return self.whole[..., number, :, :]

    def column(self, number: int) -> Array:
        """The first column of one."""
        return self.columns[..., number, :] if self.whole is None else self.whole[..., number, :, 0]


Stacks = dict[tuple[bool, int], Stack]  # by (per sample, group size)


@dataclass(frozen=True)
class Group:
    """Neighbouring qubits whose matrices are multiplied out: `rows` are rotation numbers, -1 for identity."""

    first: int
    size: int
    rows: tuple[int, ...]
    per_sample: bool
    key: tuple[bool, int]  # which stack of Kronecker products, and
    number: int  # which of it


@dataclass(frozen=True)
class KronLayer:
    """A gather (None where the frame stays), then matrices on groups of qubits."""

    gather: np.ndarray | None
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class DiagonalLayer:
    """Phases exp(-i/2 angles @ signs)."""

    parts: tuple[tuple[Signs, Polynomials], ...]  # -1/2 of the signs; of the shared and of the per-sample terms

    @property
    def per_sample(self) -> bool:
        """True where the phases differ from sample to sample."""
        return any(angles.uses_inputs for _, angles in self.parts)


@lru_cache(maxsize=8)
def kronecker_index(size: int) -> np.ndarray:
    """Where each entry of a Kronecker product of `size` 2x2 matrices stands in the outer product of flat matrices."""
    edge = np.arange(1 << size)
    row, column = edge[:, None], edge[None, :]
    index = np.zeros((1 << size, 1 << size), dtype=np.int64)
    for k in range(size - 1, -1, -1):  # the first matrix is the most significant
        index = 4 * index + 2 * (row >> k & 1) + (column >> k & 1)
    return frozen(index.ravel())


@lru_cache(maxsize=8)
def _first_column(size: int) -> np.ndarray:
    """The places of its first column there."""
    return frozen(kronecker_index(size)[:: 1 << size].copy())


def group_sizes(n_qubits: int) -> list[int]:
    """Sizes of the groups: one up to five qubits, else as even as possible and at most four."""
    if n_qubits <= 5:
        return [n_qubits]
    count = -(-n_qubits // 4)
    return [n_qubits // count + (k < n_qubits % count) for k in range(count)]


@dataclass
class _Building:
    frame: int = 0
    rows: dict[int, int] = field(default_factory=dict)
    gather: np.ndarray | None = None


class ArrayProgram:
    """A Plan laid out for array engines. Immutable after construction; shared by threads."""

    def __init__(self, plan: Plan) -> None:
        """Lay the steps out as layers."""
        check_slots(plan)
        self.plan = plan
        n = plan.n_qubits
        self.sizes = group_sizes(n)
        self.firsts = [sum(self.sizes[:k]) for k in range(len(self.sizes))]
        self.rotations = [s for s in plan.steps if isinstance(s, Rotation)]
        shared = [r for r in self.rotations if not r.uses_inputs]
        sampled = [r for r in self.rotations if r.uses_inputs]
        self.shared_rotations, self.sampled_rotations = FusedRotations(shared, plan), FusedRotations(sampled, plan)
        self._row = {id(r): k for k, r in enumerate(shared)} | {id(r): len(shared) + k for k, r in enumerate(sampled)}
        self.n_shared = len(shared)
        self.stacks: dict[tuple[bool, int], list[tuple[int, ...]]] = {}
        self.layers: list[KronLayer | DiagonalLayer] = []
        self._frame = 0
        self._tables: dict[tuple[int, ...], Signs] = {}
        self._lay_out()
        self.stack_order = {key: self._order(key) for key in self.stacks}
        self.stack_order_is_plain = all(order is None for key, order in self.stack_order.items() if not key[0])
        self.shared_places, self.sampled_places = self._places(False), self._places(True)
        self.from_zero = not plan.n_amplitudes
        later = {group.key for layer in self.layers[self.is_product(0) :] for group in getattr(layer, "groups", ())}
        self._columns_only = self.stacks.keys() - later
        self.measuring = Measuring(plan, plan.frames[self._frame])
        angles = [a for s in plan.steps for _, a in (s.factors if isinstance(s, Rotation) else s.terms)]
        kinds = {kind for angle in angles for kind, _ in angle.slots}
        strings = plan.measurement.strings
        measures_state = not strings or any(x or z for x, z, _ in strings)
        self._reads_theta = "w" in kinds or not plan.n_weights
        self._reads_inputs = "x" in kinds or (measures_state if plan.n_amplitudes else not plan.n_inputs)

    def _order(self, key: tuple[bool, int]) -> np.ndarray | None:
        """Which rows of `matrix_rows` a stack multiplies out, group by group; None for all in order."""
        rows = np.array(self.stacks[key]).ravel()
        identity = len(self.rotations) if key[0] else self.n_shared
        order = np.where(rows < 0, identity, rows)
        return None if np.array_equal(order, np.arange(identity)) and not key[0] else frozen(order)

    def _places(self, sampled: bool) -> np.ndarray:
        """Where each rotation's matrix stands in the stacks laid out one after the other, four numbers each."""
        pool = [rows for key, stack in self.stacks.items() if key[0] or not sampled for rows in np.array(stack).ravel()]
        place = {row: k for k, row in enumerate(pool) if row >= 0}
        numbers = range(self.n_shared, len(self.rotations)) if sampled else range(self.n_shared)
        index = [4 * place[row] + part for row in numbers for part in range(4)]
        return frozen(np.array(index, dtype=np.int64))

    # -- layout -------------------------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        plan, open_ = self.plan, None
        for step in plan.steps:
            if isinstance(step, Diagonal):
                self._close(open_)
                open_ = None
                self.layers.append(self._diagonal(step))
                continue
            frame = plan.frames[self._frame]
            same = [q for q in range(plan.n_qubits) if frame.v[q] == step.v and frame.u[q] == step.u]
            if not same:
                self._close(open_)
                index = change_of_frame(frame, plan.frames[step.frame], plan.n_qubits)
                self._frame = step.frame
                open_, same = _Building(gather=index), [step.qubit]
            elif open_ is None or same[0] in open_.rows:
                self._close(open_)
                open_ = _Building()
            open_.rows[same[0]] = self._row[id(step)]
        self._close(open_)

    def _close(self, building: _Building | None) -> None:
        if building is None:
            return
        groups = []
        for first, size in zip(self.firsts, self.sizes, strict=True):
            rows = tuple(building.rows.get(q, -1) for q in range(first, first + size))
            if all(r < 0 for r in rows):
                continue
            per_sample = any(r >= self.n_shared for r in rows)
            stack = self.stacks.setdefault((per_sample, size), [])
            stack.append(rows)
            groups.append(Group(first, size, rows, per_sample, (per_sample, size), len(stack) - 1))
        self.layers.append(KronLayer(building.gather, tuple(groups)))

    def _diagonal(self, step: Diagonal) -> DiagonalLayer:
        # Masks are on the physical index; the array is in the current frame: parity(p & m) with p = A l.
        frame = self.plan.frames[self._frame]
        masks = [frame.logical_mask(mask) for mask, _ in step.terms]
        pairs = list(zip(masks, (angle for _, angle in step.terms), strict=True))
        chosen = ([(m, a) for m, a in pairs if a.uses_inputs == wanted] for wanted in (False, True))
        parts = ((tuple(m for m, _ in part), [a for _, a in part]) for part in chosen if part)
        return DiagonalLayer(tuple((self._signs(masks), Polynomials(angles, self.plan)) for masks, angles in parts))

    def _signs(self, masks: tuple[int, ...]) -> Signs:
        """The same tables for all layers with these masks."""
        if masks not in self._tables:
            self._tables[masks] = Signs(masks, self.plan.n_qubits, -0.5)
        return self._tables[masks]

    # -- run ----------------------------------------------------------------------------------------------------

    def factors(self, ops: Ops, theta: Array, x: Array) -> tuple[Factors | None, Factors | None]:
        """Factors of the shared and of the per-sample rotations, in double precision.

        What the determinant of a rounded matrix lacks to 1 shows in every output, once per rotation and always to one
        side. So matrices are rounded once, as Kronecker products, whose many entries make up for each other.
        """
        theta = ops.wide(theta)
        shared = self.shared_rotations.factors(ops, theta, x) if self.shared_rotations.count else None
        sampled = self.sampled_rotations.factors(ops, theta, ops.wide(x)) if self.sampled_rotations.count else None
        return shared, sampled

    def kronecker(self, ops: Ops, factors: tuple[Factors | None, Factors | None], like: Array) -> Stacks:
        """Kronecker products of all groups, by stack, in the precision of `like`, a state."""
        sets = zip((self.shared_rotations, self.sampled_rotations), factors, strict=True)
        shared, sampled = (None if own is None else rotations.product(ops, own) for rotations, own in sets)
        out = {}
        for (per_sample, size), order in self.stack_order.items():
            lead, count = (-1,) if per_sample else (), len(self.stacks[per_sample, size])
            rows = self.matrix_rows(ops, shared, sampled, per_sample)
            if per_sample:
                rows = ops.narrow(rows, like)
            if order is not None:
                rows = ops.take(rows, order, -3)
            rows = ops.reshape(rows, (*lead, count, size, 4))
            singles = [rows[..., k, :] for k in range(size)]
            partial = [singles[0]]
            for k in range(1, size):
                product = ops.reshape(partial[-1], (*lead, count, 1 << 2 * k, 1)) * ops.reshape(
                    singles[k], (*lead, count, 1, 4)
                )
                partial.append(ops.reshape(product, (*lead, count, 4 << 2 * k)))
            whole = columns = None
            if (per_sample, size) in self._columns_only:
                columns = ops.narrow(ops.take(partial[-1], _first_column(size), -1), like)
            else:
                whole = partial[-1] if size == 1 else ops.permute(partial[-1], kronecker_index(size))
                whole = ops.reshape(ops.narrow(whole, like), (*lead, count, 1 << size, 1 << size))
            out[per_sample, size] = Stack(per_sample, singles, partial, whole, columns)
        return out

    def matrix_rows(self, ops: Ops, shared: Array | None, sampled: Array | None, per_sample: bool) -> Array:
        """All matrices in the order that groups number them, the identity last."""
        if not per_sample:
            whole = self.stack_order_is_plain
            return shared if whole else _concat_rows(ops, shared, ops.const(_EYE_ROW, shared))
        assert sampled is not None
        nothing = 0 * sampled[:, :1]
        parts = [sampled, ops.const(_EYE_ROW, sampled) + nothing]
        if shared is not None:
            parts.insert(0, nothing + ops.reshape(shared, (1, self.n_shared, 2, 2)))
        return _concat_rows(ops, *parts)

    def apply_group(self, ops: Ops, state: Array, group: Group, matrix: Array) -> Array:
        """`matrix` (g, g) or (B, g, g) on the group's qubits."""
        n = self.plan.n_qubits
        g, right = 1 << group.size, 1 << (n - group.first - group.size)
        if not group.per_sample:
            if right == 1:
                out = ops.matmul(ops.reshape(state, (-1, g)), ops.swap_last(matrix))
            else:
                out = ops.matmul(matrix, ops.reshape(state, (-1, g, right)))
        else:
            matrix = ops.reshape(matrix, (-1, 1, g, g))
            out = ops.matmul(matrix, ops.reshape(state, (-1, 1 << group.first, g, right)))
        return ops.reshape(out, (-1, 1 << n))

    def phases(self, ops: Ops, layer: DiagonalLayer, theta: Array, x: Array) -> Array:
        """The phases of a diagonal layer as unit complex numbers, (1, N) or (B, N).

        Angles of many turns are brought to less than one in double precision: their sums are rounded.
        """
        total, wide_theta, wide_x = None, ops.wide(theta), ops.wide(x)
        for signs, angles in layer.parts:
            values = angles.evaluate(ops, wide_theta, wide_x)
            values = ops.narrow(values - _PERIOD * ops.round(values * (1 / _PERIOD)), theta)
            term = signs.spread(ops, ops.reshape(values, (-1, signs.count)))
            total = term if total is None else total + term
        return ops.complex(ops.cos(total), ops.sin(total))

    def corrected(self, values: Array, drift: Array | None) -> Array:
        """Outputs, or their cotangents, where the state's squared norm exceeds 1 by `drift`."""
        if drift is None:
            return values
        return values * (1.0 - (0.5 if self.plan.measurement.amplitudes else 1.0) * drift)

    def phase_drift(self, ops: Ops, phases: Array) -> Array | None:
        """`drift` of a diagonal layer, (1, 1) or (B, 1)."""
        if ops.excess is None:
            return None
        size = 1 << self.plan.n_qubits
        return ops.reshape(ops.excess(phases, size), (-1, 1)) * (1.0 / size)

    def start(self, ops: Ops, theta: Array, inputs: Array) -> tuple[Array, Array]:
        """The start state and the angle inputs. From |0…0⟩ the state has one row until samples differ."""
        width = self.plan.n_amplitudes
        check_arrays(theta, inputs, self.plan.n_weights, width + self.plan.n_inputs)
        if not width:
            first = ops.const(_ONE_ROW, theta)
            if not self.is_product(0):  # which takes nothing from it but its precision
                first = ops.pad_last(first, 1 << self.plan.n_qubits)
            return ops.complex(first, None), inputs
        if not self.plan.n_inputs:
            return ops.complex(inputs, None), inputs
        return ops.complex(inputs[:, :width], None), inputs[:, width:]

    def forward(self, ops: Ops, theta: Array, inputs: Array) -> Array:
        """`theta` (W,), `inputs` (B, I) → outputs (B, O)."""
        state, x = self.start(ops, theta, inputs)
        stacks = self.kronecker(ops, self.factors(ops, theta, x), state)
        drift = self.drift(ops, stacks)
        state, drift = self.run(ops, state, stacks, theta, x, drift)
        out = self.corrected(self.measuring.outputs(ops, state), drift)
        # A circuit without per-sample parts has one row of results for any batch.
        out = out + ops.zero_column(inputs) if self.from_zero else out
        # Outputs that depend on nothing have derivatives all the same, of any order: zeros. Frameworks have none for
        # what no operation read.
        if not self._reads_theta:
            out = out + ops.sum(ops.sin(0.0 * theta), -1)
        if not self._reads_inputs:
            out = out + ops.sum(ops.sin(0.0 * inputs), -1, keepdims=True)
        return out

    def is_product(self, number: int) -> bool:
        """True for a first layer that rotates every group of |0…0⟩: its columns multiply out to the state."""
        if number or not self.from_zero or not self.layers:
            return False
        layer = self.layers[0]
        return isinstance(layer, KronLayer) and len(layer.groups) == len(self.sizes)

    def drift(self, ops: Ops, stacks: Stacks) -> Array | None:
        """What rounded matrices add to the squared norm of a state, () or (B, 1); None where that is nothing.

        Without double precision their columns are too long or too short by 1e-7, and always to one side where a gate
        comes again and again.
        """
        total, excess = None, ops.excess
        if excess is None:
            return None
        for (per_sample, size), stack in stacks.items():
            side = 1 << size
            if stack.whole is None:
                parts = [(stack.columns, 1)]
            elif per_sample:
                parts = [(single, 2) for single in stack.singles]
            else:
                parts = [(ops.reshape(stack.whole, (-1, side * side)), side)]
            for matrices, count in parts:
                part = ops.sum(excess(matrices, count), -1, per_sample) * (1.0 / count)
                total = part if total is None else total + part
        return total

    def run(
        self, ops: Ops, state: Array, stacks: Stacks, theta: Array, x: Array, drift: Array | None
    ) -> tuple[Array, Array | None]:
        """Apply all layers. Returns the state, and what its squared norm exceeds 1 by."""
        for number, layer in enumerate(self.layers):
            if isinstance(layer, DiagonalLayer):
                phases = self.phases(ops, layer, theta, x)
                state, drift = state * phases, plus(drift, self.phase_drift(ops, phases))
                continue
            if self.is_product(number):  # |0…0⟩ is its own image under a change of frame
                state = self.product_state(ops, layer, stacks)
                continue
            if layer.gather is not None:
                state = ops.permute(state, layer.gather)
            for group in layer.groups:
                state = self.apply_group(ops, state, group, stacks[group.key].matrix(group.number))
        return state, drift

    def product_state(self, ops: Ops, layer: KronLayer, stacks: Stacks) -> Array:
        """The state after a first layer that rotates every qubit of |0…0⟩."""
        state = None
        for group in layer.groups:
            column = ops.reshape(stacks[group.key].column(group.number), (-1, 1, 1 << group.size))
            width = 1 << group.first
            state = column if state is None else ops.reshape(state, (-1, width, 1)) * column
            state = ops.reshape(state, (-1, width << group.size))
        return state


def _concat_rows(ops: Ops, *matrices: Array) -> Array:
    """Concatenate (…, R, 2, 2) along R."""
    lead = (-1,) if len(matrices[0].shape) == 4 else ()
    flat = [ops.reshape(m, (*lead, 4 * int(m.shape[-3]))) for m in matrices]
    total = sum(int(m.shape[-3]) for m in matrices)
    return ops.reshape(ops.concat(flat), (*lead, total, 2, 2))
