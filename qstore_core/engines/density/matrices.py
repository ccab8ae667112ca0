"""The matrices of `Single` steps for a batch, and what their gradients are for weights and inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...backends.forking import is_forked
from ...circuit.gates.table import Axis
from ..arrays.angles import Polynomials
from .program import Single, rotation_terms

__all__ = ["Matrices", "product_of"]


class Matrices:
    """Products of rotations and constants, many at once.

    Every factor is A + cos(angle) B + sin(angle) C; a constant has B = C = 0, and stands where a product is short too.

    Args:
        singles: The steps, all of which differ from sample to sample, or none.
        terms: `axis → A, B, C`: by default of rotations of Pauli components.
        scale: What stands before the angle in cos and sin.

    Example:
        RY(w) takes Z to cos(w) Z and X to X + …:

        >>> from qstore_core.circuit.angles.angle import weight
        >>> single = Single(0)
        >>> single.add(((0.0, 1.0, 0.0), weight(0)))
        >>> products, _ = Matrices([single]).values(np.array([0.5]), np.zeros((1, 0)))
        >>> products[0, 0, 3].round(4)    # 0·1, -sin(0.5) X, 0·Y, cos(0.5) Z
        array([ 0.    , -0.4794,  0.    ,  0.8776])
    """

    def __init__(
        self,
        singles: Sequence[Single],
        terms: Callable[[Axis], tuple[np.ndarray, ...]] = rotation_terms,
        scale: float = 1.0,
    ) -> None:
        """Tabulate the factors."""
        self._scale, size = scale, len(terms((0.0, 0.0, 1.0))[0])
        self.count = len(singles)
        length = max((len(single.factors) for single in singles), default=0)
        self._terms = np.zeros((3, length, self.count, size, size), terms((0.0, 0.0, 1.0))[2].dtype)
        self._terms[0] = np.eye(size)
        places, angles = [], []
        for number, single in enumerate(singles):
            for position, factor in enumerate(single.factors):
                if isinstance(factor, np.ndarray):
                    self._terms[0, position, number] = factor
                else:
                    self._terms[:, position, number] = terms(factor[0])
                    places.append(position * self.count + number)
                    angles.append(factor[1])
        self._places, self._table = np.array(places, np.int64), Polynomials(angles)

    def nbytes(self, rows: int) -> int:
        """Of factors, products and their gradients for a batch, about."""
        _, length, count, size, _ = self._terms.shape
        return 4 * rows * length * count * size * size * self._terms.itemsize

    def values(self, theta: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Products (B, count, 4, 4), and their factors (length, B, count, 4, 4) for `vjp`, in float64."""
        still, turning, across = self._terms
        angles = self._angles(theta, x)[..., None, None]
        factors = still[:, None] + np.cos(angles) * turning[:, None] + np.sin(angles) * across[:, None]
        size = still.shape[-1]
        product = np.broadcast_to(np.eye(size), (len(x), self.count, size, size))
        for k, factor in enumerate(factors):
            product = factor if k == 0 else product_of(factor, product)
        return product, factors

    def _angles(self, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
        """(length, B, count)."""
        length = self._terms.shape[1]
        out = np.zeros((length * self.count, len(x)))
        if len(self._places):
            out[self._places] = self._scale * self._table.values(theta, x).T
        return out.reshape(length, self.count, len(x)).swapaxes(1, 2)

    def vjp(
        self, theta: np.ndarray, x: np.ndarray, factors: np.ndarray, gradient: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gradients (B, count, 4, 4) by the products → by theta (W,) and angle inputs (B, F).

        Args:
            theta: (W,).
            x: Angle inputs (B, F).
            factors: Of `values`.
            gradient: By the products.
        """
        if not len(self._places):
            return np.zeros(len(theta)), np.zeros(x.shape)
        _, turning, across = self._terms
        angles = self._angles(theta, x)[..., None, None]
        slopes = np.cos(angles) * across[:, None] - np.sin(angles) * turning[:, None]
        before = [np.empty(0)]  # what was applied before each factor
        for factor in factors[:-1]:
            before.append(factor if len(before) == 1 else product_of(factor, before[-1]))
        d_angles = np.empty(slopes.shape[:3])
        for k in range(len(factors) - 1, -1, -1):
            own = gradient if k == 0 else product_of(gradient, before[k].swapaxes(-1, -2))
            d_angles[k] = (own * slopes[k]).sum(axis=(-1, -2))
            gradient = product_of(factors[k].swapaxes(-1, -2), gradient)
        columns = d_angles.swapaxes(1, 2).reshape(-1, len(x))[self._places].T
        return self._table.vjp(theta, x, columns)


def product_of(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`a @ b`; in a forked child without BLAS, whose lock stays locked there where a thread of the parent held it."""
    out: np.ndarray = np.einsum("...ij,...jk->...ik", a, b) if is_forked() else a @ b
    return out
