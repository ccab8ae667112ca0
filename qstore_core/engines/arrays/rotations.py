"""The 2x2 matrices of many fused rotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...circuit.angles.angle import Angle
from ...circuit.lowering.plan import Plan, Rotation
from .angles import Polynomials
from .ops import Array, Ops, frozen

__all__ = ["Factors", "FusedRotations"]

_EYE = frozen(np.eye(2, dtype=complex))


_PAULI_I = np.stack(
    [-1j * np.array(m, dtype=complex) for m in ([[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]])]
)


class FusedRotations:
    """The 2x2 matrices of many fused rotations, (R, 2, 2) or (B, R, 2, 2)."""

    def __init__(self, rotations: Sequence[Rotation], plan: Plan) -> None:
        """Pad the factor lists to one length with rotations by zero."""
        self.count = len(rotations)
        self.length = max((len(r.factors) for r in rotations), default=0)
        padding = ((0.0, 0.0, 1.0), Angle())
        table = [[r.factors[k] if k < len(r.factors) else padding for r in rotations] for k in range(self.length)]
        self.halves = Polynomials([angle for row in table for _, angle in row], plan, 0.5)
        self.generators = frozen(np.array([[np.tensordot(axis, _PAULI_I, 1) for axis, _ in row] for row in table]))

    def factors(self, ops: Ops, theta: Array, x: Array) -> Factors:
        """Matrices cos(a/2) - i sin(a/2) axis·σ, (…, K, R, 2, 2)."""
        half = self.halves.evaluate(ops, theta, x)
        lead = (-1,) if self.halves.uses_inputs else ()
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
