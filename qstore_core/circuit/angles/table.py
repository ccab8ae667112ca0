"""`AngleTable`: many angles as one table of monomials, which every engine reads."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...errors import SpecError
from .angle import Angle

__all__ = ["AngleTable"]


class AngleTable:
    """Polynomial angles as arrays of integers and numbers: angle → monomials → slots.

    Attributes:
        angles: As given.
        spans: (A + 1,). Angle a is the sum of the monomials `spans[a]` to `spans[a + 1]`.
        bounds: (M + 1,). Monomial m is its coefficient times the slots `bounds[m]` to `bounds[m + 1]`.
        coefficients: (M,).
        slots: (K,), numbers of weights and of inputs.
        of_inputs: (K,), which of these are inputs.

    Example:
        >>> from qstore_core.circuit.angles.angle import input_, weight
        >>> table = AngleTable([2 * input_(0) * weight(1) + 3, weight(0)])
        >>> table.spans, table.bounds, table.coefficients
        (array([0, 2, 3]), array([0, 0, 2, 3]), array([3., 2., 1.]))
        >>> table.slots, table.of_inputs
        (array([1, 0, 0]), array([False,  True, False]))
    """

    def __init__(self, angles: Iterable[Angle]) -> None:
        """Write the terms of all angles one after the other."""
        self.angles = tuple(angles)
        if not all(angle.is_polynomial for angle in self.angles):
            raise SpecError("a table has polynomial angles; see qstore_core.circuit.angles.functions.flattened.")
        terms = [term for angle in self.angles for term in angle.terms]
        slots = [slot for monomial, _ in terms for slot in monomial]
        self.spans = _sums([len(angle.terms) for angle in self.angles])
        self.bounds = _sums([len(monomial) for monomial, _ in terms])
        self.coefficients = np.array([coefficient for _, coefficient in terms], np.float64)
        self.slots = np.array([index for _, index in slots], np.int64)
        self.of_inputs = np.array([kind == "x" for kind, _ in slots], bool)

    def numbered(self, n_weights: int) -> np.ndarray:
        """(K,): slots in one list, in which input i follows as number `n_weights + i`."""
        return self.slots + n_weights * self.of_inputs


def _sums(lengths: list[int]) -> np.ndarray:
    return np.cumsum([0, *lengths])
