"""Angles of many rotations as arrays, their 2x2 matrices, and how gradients go back to weights and inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...circuit.angles.angle import Angle
from ...circuit.circuit import Circuit
from ...circuit.lowering.plan import Plan, Rotation
from .ops import Array, Ops, Scatter, frozen

__all__ = ["Factors", "FusedRotations", "Polynomials", "plus"]

_EYE = frozen(np.eye(2, dtype=complex))
_ONE = frozen(np.ones(1))


class Polynomials:
    """Angles as arrays: evaluates many `Angle`s at once. Variables are `[theta, inputs, 1]`, or `[theta, 1]`."""

    def __init__(self, angles: Sequence[Angle], plan: Plan | Circuit) -> None:
        """Tabulate the terms of all angles: `length` of them each, padded with coefficient 0."""
        used = sorted({slot for a in angles for slot in a.slots})
        self.count = len(angles)
        self.uses_inputs = any(kind == "x" for kind, _ in used)
        # Variables in use only, weights first, so that nothing is gathered twice.
        self.weights = np.array([j for kind, j in used if kind == "w"], dtype=np.int64)
        self.inputs = np.array([i for kind, i in used if kind == "x"], dtype=np.int64)
        place = {slot: k for k, slot in enumerate(used)}
        one = len(used)
        rows = [[(m, c) for m, c in a.terms if m] for a in angles]
        degree = max((len(m) for row in rows for m, _ in row), default=0)
        self.length = max((len(row) for row in rows), default=0)
        flat = [term for row in rows for term in row + [((), 0.0)] * (self.length - len(row))]
        self.needs_one = any(len(m) < degree for m, _ in flat)
        self.factors = [np.array([place[m[d]] if d < len(m) else one for m, _ in flat]) for d in range(degree)]
        self.scale = np.array([c for _, c in flat])
        self.offset = np.array([a.constant for a in angles])
        self.zeros = np.zeros((1, self.length))
        for value in (*self.factors, self.zeros, self.scale, self.offset, self.weights, self.inputs):
            frozen(value)
        # The usual case, one slot per angle: a gather, no product.
        self.plain = self.length == 1 and bool(np.all(self.scale == 1.0)) and not np.any(self.offset)
        # For gradients: where each factor's slope belongs; dropped where it is a slot of the other kind, or the 1.
        names = [*used, ("one", 0)]
        self.to_weights = [_scatter(f, names, "w", plan.n_weights) for f in self.factors]
        self.to_inputs = [_scatter(f, names, "x", plan.n_inputs) for f in self.factors]

    def variables(self, ops: Ops, theta: Array, x: Array) -> Array:
        """The variables in use, (V,) or (B, V)."""
        parts = []
        if not self.uses_inputs:
            if len(self.weights):
                parts.append(ops.take(theta, self.weights, -1))
            if self.needs_one:
                parts.append(ops.const(_ONE, theta))
        else:
            zero = ops.zero_column(x)
            if len(self.weights):
                parts.append(zero + ops.take(theta, self.weights, -1))
            parts.append(ops.take(x, self.inputs, -1))
            if self.needs_one:
                parts.append(zero + ops.const(_ONE, theta))
        return parts[0] if len(parts) == 1 else ops.concat(parts)

    def evaluate(self, ops: Ops, theta: Array, x: Array) -> Array:
        """The angles, (A,) or (B, A)."""
        if not self.factors:
            return ops.const(self.offset, theta)
        variables = self.variables(ops, theta, x)
        values = ops.take(variables, self.factors[0], -1)
        for factor in self.factors[1:]:
            values = values * ops.take(variables, factor, -1)
        if self.plain:
            return values
        values = values * ops.const(self.scale, theta)
        if self.length > 1:
            values = ops.sum(ops.reshape(values, (*self._lead, self.count, self.length)), -1)
        return values + ops.const(self.offset, theta)

    def slopes(self, ops: Ops, d_angles: Array, theta: Array) -> Array:
        """Gradients of the angles as gradients of the products of slots, one for every term."""
        if self.plain:
            return d_angles
        if self.length > 1:
            d_angles = ops.reshape(d_angles, (*self._lead, self.count, 1)) + ops.const(self.zeros, theta)
            d_angles = ops.reshape(d_angles, (*self._lead, self.count * self.length))
        return d_angles * ops.const(self.scale, theta)

    def pull(self, ops: Ops, theta: Array, x: Array, d_angles: Array) -> tuple[Array | None, Array | None]:
        """Gradients of the angles, (A,) or (B, A), as those of theta (W,) and x (B, I); None for what has no part."""
        d_theta = d_x = None
        if not self.factors:
            return d_theta, d_x
        d_values = self.slopes(ops, d_angles, theta)
        taken: list[Array] = []
        if len(self.factors) > 1:
            variables = self.variables(ops, theta, x)
            taken = [ops.take(variables, f, -1) for f in self.factors]
        for k in range(len(self.factors)):
            own = d_values
            for j, other in enumerate(taken):
                own = own if j == k else own * other
            if self.uses_inputs:
                d_x = plus(d_x, ops.scatter_last(own, self.to_inputs[k]))
                own = ops.sum(own, 0) if len(self.weights) else None
            if own is not None:
                d_theta = plus(d_theta, ops.scatter_last(own, self.to_weights[k]))
        return d_theta, d_x

    @property
    def _lead(self) -> tuple[int, ...]:
        return (-1,) if self.uses_inputs else ()


def plus(total: Array | None, term: Array | None) -> Array | None:
    """A sum whose terms may be missing."""
    return term if total is None else total if term is None else total + term


_PAULI_I = np.stack(
    [-1j * np.array(m, dtype=complex) for m in ([[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]])]
)


def _scatter(factor: np.ndarray, names: Sequence[tuple[str, int]], kind: str, width: int) -> Scatter:
    index = [names[k][1] if names[k][0] == kind else width for k in factor]
    return Scatter(np.array(index, dtype=np.int64), width)


class FusedRotations:
    """The 2x2 matrices of many fused rotations, (R, 2, 2) or (B, R, 2, 2)."""

    def __init__(self, rotations: Sequence[Rotation], plan: Plan) -> None:
        """Pad the factor lists to one length with rotations by zero."""
        self.count = len(rotations)
        self.length = max((len(r.factors) for r in rotations), default=0)
        padding = ((0.0, 0.0, 1.0), Angle())
        table = [[r.factors[k] if k < len(r.factors) else padding for r in rotations] for k in range(self.length)]
        self.polynomials = Polynomials([angle for row in table for _, angle in row], plan)
        self.generators = frozen(np.array([[np.tensordot(axis, _PAULI_I, 1) for axis, _ in row] for row in table]))

    def factors(self, ops: Ops, theta: Array, x: Array) -> Factors:
        """Matrices cos(a/2) - i sin(a/2) axis·σ, (…, K, R, 2, 2)."""
        half = self.polynomials.evaluate(ops, theta, x) * 0.5
        lead = (-1,) if self.polynomials.uses_inputs else ()
        half = ops.reshape(half, (*lead, self.length, self.count, 1, 1))
        cos, sin = (ops.complex(f(half), None) for f in (ops.cos, ops.sin))
        return Factors(cos, sin, cos * ops.const(_EYE, cos) + sin * ops.const(self.generators, cos))

    def slopes(self, ops: Ops, factors: Factors) -> Array:
        """Derivatives of the matrices by a/2."""
        cos, sin = factors.cos, factors.sin
        return cos * ops.const(self.generators, cos) - sin * ops.const(_EYE, cos)

    def product(self, ops: Ops, factors: Factors) -> Array:
        """The product of the factors, (…, R, 2, 2)."""
        out = factors.matrices[..., 0, :, :, :]
        for k in range(1, self.length):
            out = ops.matmul(factors.matrices[..., k, :, :, :], out)
        return out


@dataclass(frozen=True)
class Factors:
    """Matrices of the factors of fused rotations, and the cosines and sines in them."""

    cos: Array
    sin: Array
    matrices: Array
