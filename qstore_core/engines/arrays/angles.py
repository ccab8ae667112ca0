"""The values of many angles in any array namespace, and how gradients go back to weights and inputs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...circuit.angles.angle import Angle
from ...circuit.angles.table import AngleTable
from ...circuit.circuit import Circuit
from ...circuit.lowering.plan import Plan
from .numpy_ops import NumpyOps
from .ops import Array, Ops, Scatter, frozen

__all__ = ["Polynomials", "gate_angles", "plus"]

_ONE = frozen(np.ones(1))
_NUMPY = NumpyOps()


class Polynomials:
    """An `AngleTable` for array engines: the angles of a batch, one per column.

    Args:
        angles: One per column.
        circuit: Whose weights and inputs they are made of; None for as many as they use.
        factor: Every angle is multiplied by it.

    Example:
        >>> from qstore_core.circuit.angles.angle import input_, weight
        >>> angles = Polynomials([2 * input_(0) + weight(0), weight(0)])
        >>> angles.values(np.array([0.5]), np.array([[1.0], [3.0]]))
        array([[2.5, 0.5],
               [6.5, 0.5]])
        >>> angles.vjp(np.array([0.5]), np.array([[1.0], [3.0]]), np.ones((2, 2)))
        (array([4.]), array([[2.],
               [2.]]))
    """

    def __init__(self, angles: Iterable[Angle], circuit: Plan | Circuit | None = None, factor: float = 1.0) -> None:
        """Lay the monomials out: `length` of them for each angle, padded with coefficient 0."""
        table = self.table = AngleTable(angles)
        self.angles, self.count = table.angles, len(table.angles)
        degrees, owner = np.diff(table.bounds), np.repeat(np.arange(self.count), np.diff(table.spans))
        live = np.flatnonzero(degrees)  # the others are constants, one per angle at most
        counts = np.bincount(owner[live], minlength=self.count)
        self.length, degree = int(counts.max(initial=0)), int(degrees.max(initial=0))
        ends = np.cumsum(counts)
        place = owner[live] * self.length + np.arange(len(live)) - np.repeat(ends - counts, counts)
        size = self.count * self.length
        self.scale, self.offset = np.zeros(size), np.zeros(self.count)
        self.scale[place] = factor * table.coefficients[live]
        constant = degrees == 0
        self.offset[owner[constant]] = factor * table.coefficients[constant]
        # Variables are those in use, so that nothing is gathered twice: weights, then inputs, then the number 1.
        self.weights, self.inputs = (np.unique(table.slots[table.of_inputs == kind]) for kind in (False, True))
        self.uses_inputs = len(self.inputs) > 0
        n_weights = len(self.weights)
        variable = np.where(
            table.of_inputs,
            n_weights + np.searchsorted(self.inputs, table.slots),
            np.searchsorted(self.weights, table.slots),
        )
        one = n_weights + len(self.inputs)
        self.needs_one = degree > 1 and bool(len(live) < size or degrees[live].min(initial=degree) < degree)
        width = (
            (_least(table, False), _least(table, True)) if circuit is None else (circuit.n_weights, circuit.n_inputs)
        )
        self.factors: list[np.ndarray] = []
        self._scatters: list[
            tuple[Scatter, Scatter]
        ] = []  # where each factor's slope belongs, among weights and inputs
        for d in range(degree):
            has = degrees[live] > d
            at, where = table.bounds[live[has]] + d, place[has]
            factor_of = np.full(size, one if self.needs_one else 0)
            factor_of[where] = variable[at]
            self.factors.append(frozen(factor_of))
            targets = []
            for kind in (False, True):
                target = np.full(size, width[kind])
                mine = table.of_inputs[at] == kind
                target[where[mine]] = table.slots[at[mine]]
                targets.append(Scatter(target, width[kind]))
            self._scatters.append((targets[0], targets[1]))
        self.zeros = np.zeros((1, self.length))
        for value in (self.zeros, self.scale, self.offset, self.weights, self.inputs):
            frozen(value)
        self._has_offset = bool(self.offset.any())
        # The usual case, one slot per angle: a gather, no product.
        self._plain = self.length == 1 and bool(np.all(self.scale == 1.0))

    def __len__(self) -> int:
        return self.count

    def _variables(self, ops: Ops, theta: Array, x: Array) -> Array:
        """The variables in use, (V,) or (B, V)."""
        parts = []
        own = len(theta.shape) == 2
        if not self.uses_inputs:
            if len(self.weights):
                parts.append(ops.take(theta, self.weights, -1))
            if self.needs_one:
                one = ops.const(_ONE, theta)
                parts.append(ops.zero_column(theta) + one if own else one)
        else:
            zero = ops.zero_column(x)
            if len(self.weights):
                weights = ops.take(theta, self.weights, -1)
                parts.append(weights if own else zero + weights)
            parts.append(ops.take(x, self.inputs, -1))
            if self.needs_one:
                parts.append(zero + ops.const(_ONE, theta))
        return parts[0] if len(parts) == 1 else ops.concat(parts)

    def evaluate(self, ops: Ops, theta: Array, x: Array) -> Array:
        """The angles, (A,), or (B, A) where inputs are in them; of theta (B, W) too, which differs from row to row."""
        if not self.factors:
            return ops.const(self.offset, theta)
        variables = self._variables(ops, theta, x)
        values = ops.take(variables, self.factors[0], -1)
        for factor in self.factors[1:]:
            values = values * ops.take(variables, factor, -1)
        if not self._plain:
            values = values * ops.const(self.scale, theta)
        if self.length > 1:
            values = ops.sum(ops.reshape(values, (*self._lead(theta), self.count, self.length)), -1)
        return values + ops.const(self.offset, theta) if self._has_offset else values

    def pull(self, ops: Ops, theta: Array, x: Array, d_angles: Array) -> tuple[Array | None, Array | None]:
        """Gradients of the angles, (A,) or (B, A), as those of theta (W,) and x (B, I); None for what has no part."""
        d_theta = d_x = None
        if not self.factors:
            return d_theta, d_x
        d_values = self._slopes(ops, d_angles, theta)
        taken: list[Array] = []
        if len(self.factors) > 1:
            variables = self._variables(ops, theta, x)
            taken = [ops.take(variables, f, -1) for f in self.factors]
        for k, (to_weights, to_inputs) in enumerate(self._scatters):
            own = d_values
            for j, other in enumerate(taken):
                own = own if j == k else own * other
            if self.uses_inputs:
                d_x = plus(d_x, ops.scatter_last(own, to_inputs))
                if not len(self.weights):
                    continue
                own = own if len(theta.shape) == 2 else ops.sum(own, 0)
            d_theta = plus(d_theta, ops.scatter_last(own, to_weights))
        return d_theta, d_x

    def _slopes(self, ops: Ops, d_angles: Array, theta: Array) -> Array:
        """Gradients of the angles as gradients of the products of slots, one for every monomial."""
        if self._plain:
            return d_angles
        if self.length > 1:
            lead = self._lead(theta)
            d_angles = ops.reshape(d_angles, (*lead, self.count, 1)) + ops.const(self.zeros, theta)
            d_angles = ops.reshape(d_angles, (*lead, self.count * self.length))
        return d_angles * ops.const(self.scale, theta)

    def _lead(self, theta: Array) -> tuple[int, ...]:
        return (-1,) if self.uses_inputs or len(theta.shape) == 2 else ()

    # -- on the host, in float64 ----------------------------------------------------------------------------------

    def values(self, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
        """`theta` (W,), or (B, W) where it differs from row to row, and angle inputs `x` (B, F) → (B, columns)."""
        theta, x = np.asarray(theta, np.float64), np.asarray(x, np.float64)
        return np.array(np.broadcast_to(self.evaluate(_NUMPY, theta, x), (len(x), self.count)))

    def vjp(self, theta: np.ndarray, x: np.ndarray, d_values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slopes by the columns (B, columns) → by `theta`, of its shape, and by `x` (B, F)."""
        theta, x, slopes = (np.asarray(array, np.float64) for array in (theta, x, d_values))
        if not self._lead(theta):
            slopes = slopes.sum(axis=0)
        out = np.zeros(theta.shape), np.zeros(x.shape)
        for whole, part in zip(out, self.pull(_NUMPY, theta, x, slopes), strict=True):
            if part is not None:
                whole[..., : part.shape[-1]] = part
        return out


def gate_angles(circuit: Circuit) -> Polynomials:
    """The gate angles of a circuit that are not constant, in order."""
    return Polynomials([angle for op in circuit.operations for angle in op.params if not angle.is_constant])


def plus(total: Array | None, term: Array | None) -> Array | None:
    """A sum whose terms may be missing."""
    return term if total is None else total if term is None else total + term


def _least(table: AngleTable, of_inputs: bool) -> int:
    return int(table.slots[table.of_inputs == of_inputs].max(initial=-1)) + 1
