"""`AngleTable`: many angles of a batch at once as arrays, and the vjp of that.

For whatever computes gate angles on the host: shifted circuits, and backends whose parameters are gate angles.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...errors import SpecError
from ..circuit import Circuit
from .angle import Angle

__all__ = ["AngleTable", "gate_angles"]


class AngleTable:
    """Angles of a batch, one per column, in float64.

    Args:
        angles: One per column.

    Example:
        >>> from qstore_core.circuit.angles.angle import input_, weight
        >>> table = AngleTable([2 * input_(0) + weight(0), weight(0)])
        >>> table.values(np.array([0.5]), np.array([[1.0], [3.0]]))
        array([[2.5, 0.5],
               [6.5, 0.5]])
        >>> table.vjp(np.array([0.5]), np.array([[1.0], [3.0]]), np.ones((2, 2)))
        (array([4.]), array([[2.],
               [2.]]))
    """

    def __init__(self, angles: Iterable[Angle]) -> None:
        """Lay terms out by the number of their slots, so that each number is one array operation."""
        self.angles = tuple(angles)
        if not all(angle.is_polynomial for angle in self.angles):
            raise SpecError("a table has polynomial angles; see qstore_core.circuit.angles.functions.flattened.")
        terms: dict[int, list[tuple[int, float, list[tuple[bool, int]]]]] = {}
        for column, angle in enumerate(self.angles):
            for monomial, coefficient in angle.terms:
                slots = [(kind == "w", index) for kind, index in monomial]
                terms.setdefault(len(monomial), []).append((column, coefficient, slots))
        self._terms = [
            (
                np.array([column for column, _, _ in of_degree], np.int64),
                np.array([coefficient for _, coefficient, _ in of_degree]),
                np.array([slots for _, _, slots in of_degree], np.int64).reshape(len(of_degree), degree, 2),
            )
            for degree, of_degree in terms.items()
        ]

    def __len__(self) -> int:
        return len(self.angles)

    def values(self, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
        """`theta` (W,), or (B, W) where it differs from row to row, and angle inputs `x` (B, F) → (B, columns)."""
        out = np.zeros((len(self), len(x)))
        slots, n_weights = _slots(theta, x)
        for columns, coefficients, factors in self._terms:
            values = slots[_places(factors, n_weights)].prod(axis=1)
            np.add.at(out, columns, coefficients[:, None] * values)
        return out.T.copy()

    def vjp(self, theta: np.ndarray, x: np.ndarray, d_values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slopes by the columns (B, columns) → by `theta`, of its shape, and by `x` (B, F)."""
        slots, n_weights = _slots(theta, x)
        out = np.zeros_like(slots)
        for columns, coefficients, factors in self._terms:
            places = _places(factors, n_weights)
            slopes = coefficients[:, None] * np.asarray(d_values, np.float64).T[columns]
            values = slots[places]
            for k in range(places.shape[1]):
                others = np.delete(values, k, axis=1).prod(axis=1)
                np.add.at(out, places[:, k], slopes * others)
        d_theta = out[:n_weights]
        return d_theta.T.copy() if np.ndim(theta) == 2 else d_theta.sum(axis=1), out[n_weights:].T.copy()


def gate_angles(circuit: Circuit) -> AngleTable:
    """The gate angles of a circuit that are not constant, in order."""
    return AngleTable([angle for op in circuit.operations for angle in op.params if not angle.is_constant])


def _slots(theta: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, int]:
    """Weights, then inputs, as rows (W + F, B); and W."""
    theta, x = np.asarray(theta, np.float64), np.asarray(x, np.float64)
    weights = theta.T if theta.ndim == 2 else np.broadcast_to(theta[:, None], (len(theta), len(x)))
    return np.concatenate([weights, x.T]), len(weights)


def _places(factors: np.ndarray, n_weights: int) -> np.ndarray:
    """Rows of `_slots` that `(is weight, index)` stand for."""
    return np.where(factors[..., 0] == 1, 0, n_weights) + factors[..., 1]
