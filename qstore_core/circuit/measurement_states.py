"""Measurements of states: density matrices of some qubits, their purity and entropy, fidelities, the state itself."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from ..errors import SpecError
from .checks import check_whole, shown
from .measurement import MEASUREMENTS, Expectation, Measurement, Pauli, as_qubits, check_qubits

__all__ = ["DensityMatrix", "Entropy", "Purity"]

MOST_QUBITS = 5  # 4**n Pauli strings
_HIGHEST_ORDER = 16


@dataclass(frozen=True)
class _Reduced(Measurement):
    """What is computed from the density matrix of some qubits, by the expectation values of its 4**k Pauli strings."""

    qubits: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Normalise."""
        object.__setattr__(self, "qubits", as_qubits(self.qubits))

    def _measured(self, n_qubits: int) -> tuple[int, ...]:
        return tuple(range(n_qubits)) if self.qubits is None else self.qubits

    def n_outputs(self, n_qubits: int) -> int:
        """Outputs per sample."""
        return 1

    def check(self, n_qubits: int) -> None:
        """Raise where it does not fit `n_qubits`."""
        check_qubits(self.qubits, n_qubits)
        if (count := len(self._measured(n_qubits))) > MOST_QUBITS:
            raise SpecError(
                f"{type(self).__name__} reads 4**k Pauli strings of k qubits, at most {MOST_QUBITS}; received {count}. "
                "Name fewer qubits (in a pure state the rest has the same purity and entropy), or measure State().",
                argument="qubits",
            )

    def primitive(self, n_qubits: int) -> Expectation:
        """All Pauli strings of the qubits, I before X, Y, Z, the last qubit's letter fastest."""
        self.check(n_qubits)
        qubits, strings = self._measured(n_qubits), []
        for letters in itertools.product("IXYZ", repeat=len(qubits)):
            string = ["I"] * n_qubits
            for qubit, letter in zip(qubits, letters, strict=True):
                string[qubit] = letter
            strings.append(Pauli("".join(string)))
        return Expectation(observables=tuple(strings))


@dataclass(frozen=True)
class DensityMatrix(_Reduced):
    """The density matrix of some qubits, the others traced out: complex (2**k, 2**k) per sample.

    Attributes:
        qubits: At most 5, the first most significant; None for all.

    Example:
        Half of a Bell state is maximally mixed:

        >>> import numpy as np
        >>> from qstore_core import Circuit, QuantumLayer
        >>> bell = Circuit(2)
        >>> bell.h(0); bell.cnot(0, 1)
        >>> QuantumLayer(bell, DensityMatrix([1]))(np.zeros((1, 0))).real.round(6)
        array([[[0.5, 0. ],
                [0. , 0.5]]])
    """

    name: ClassVar[str] = "density_matrix"

    def n_outputs(self, n_qubits: int) -> int:
        """Entries of the matrix."""
        return 4 ** len(self._measured(n_qubits))

    def output_shape(self, n_qubits: int) -> tuple[int, ...]:
        """(2**k, 2**k)."""
        return (1 << len(self._measured(n_qubits)),) * 2

    def output_dtype(self, dtype: str) -> str:
        """The complex one."""
        return _complex(dtype)

    def postprocess(self, ops: Any, values: Any, resolution: float) -> Any:
        """Σ ⟨P⟩ P / 2**k."""
        return _matrices(ops, values)

    def postprocess_vjp(self, values: np.ndarray, cotangents: np.ndarray, resolution: float) -> np.ndarray:
        """Re tr(c† P) / 2**k."""
        return _on_strings(cotangents, values)


@dataclass(frozen=True)
class Purity(_Reduced):
    """The purity tr ρ² of some qubits, the others traced out: 1 where they are in a pure state, at least 2**-k.

    With shots, every squared estimate adds its variance: the result is too large by up to 2**k / shots.

    Attributes:
        qubits: At most 5; None for all.
    """

    name: ClassVar[str] = "purity"

    def postprocess(self, ops: Any, values: Any, resolution: float) -> Any:
        """Σ ⟨P⟩² / 2**k."""
        return _purity(ops, values)

    def postprocess_vjp(self, values: np.ndarray, cotangents: np.ndarray, resolution: float) -> np.ndarray:
        """2 ⟨P⟩ / 2**k."""
        return 2.0 / math.sqrt(values.shape[-1]) * values * cotangents


@dataclass(frozen=True)
class Entropy(_Reduced):
    """The entropy of some qubits, the others traced out: of von Neumann (order 1), or of Rényi.

    Order 1 is -tr ρ log ρ, order n is log(tr ρⁿ) / (1 - n). Gradients are finite everywhere: below the resolution r
    (the dtype's epsilon; 1 / shots where values are sampled) the logarithm of an eigenvalue goes on along its tangent,
    as in `LogProbabilities`; eigenvalues that sampling makes negative count as 0. Second derivatives of order 1 need
    eigenvalues that differ; those of the other orders do not.

    Attributes:
        qubits: At most 5; None for all.
        order: A whole number from 1 to 16.
        base: Of the logarithm; None for e.

    Example:
        >>> import numpy as np
        >>> from qstore_core import Circuit, QuantumLayer
        >>> bell = Circuit(2)
        >>> bell.h(0); bell.cnot(0, 1)
        >>> QuantumLayer(bell, Entropy([0], base=2))(np.zeros((1, 0))).round(6)
        array([[1.]])
    """

    order: int = 1
    base: float | None = None
    name: ClassVar[str] = "entropy"

    def __post_init__(self) -> None:
        """Normalise and check."""
        super().__post_init__()
        object.__setattr__(self, "order", check_whole(self.order, "order of an entropy", 1, _HIGHEST_ORDER, "order"))
        if self.base is not None:
            good = isinstance(self.base, Real) and not isinstance(self.base, bool)
            if not (good and 0 < self.base < math.inf and self.base != 1):
                raise SpecError(
                    f"the base of a logarithm is a positive number other than 1, or None for e; received "
                    f"{shown(self.base)}.",
                    argument="base",
                )
            object.__setattr__(self, "base", float(self.base))

    @property
    def _factor(self) -> float:
        """What multiplies tr ρ log ρ, or log tr ρⁿ, in natural logarithms."""
        return (-1.0 if self.order == 1 else 1 / (1 - self.order)) / (1.0 if self.base is None else math.log(self.base))

    def postprocess(self, ops: Any, values: Any, resolution: float) -> Any:
        """The entropy from the eigenvalues, or from the trace of a power."""
        if self.order == 1:
            p = ops.maximum(ops.eigvalsh(_matrices(ops, values)), 0.0)
            log = ops.log(ops.maximum(p, resolution)) + (ops.minimum(p, resolution) - resolution) / resolution
            return self._factor * ops.sum(p * log, -1, True)
        if self.order == 2:
            trace = _purity(ops, values)
        else:
            rho = _matrices(ops, values)
            some, more = _power(ops, rho, self.order // 2), _power(ops, rho, self.order - self.order // 2)
            trace = ops.reshape(ops.sum(ops.real(some * ops.conj(more)), (-2, -1)), (-1, 1))
        return self._factor * ops.log(ops.maximum(trace, resolution))

    def postprocess_vjp(self, values: np.ndarray, cotangents: np.ndarray, resolution: float) -> np.ndarray:
        """f'(ρ), on the Pauli strings."""
        eigenvalues, vectors = np.linalg.eigh(_matrices(_Arrays(), values))
        r = values.dtype.type(resolution)
        if self.order == 1:
            p = np.maximum(eigenvalues, 0)
            slopes = np.log(np.maximum(p, r)) + (np.minimum(p, r) - r) / r + p / np.maximum(p, r)
            slopes = np.where(eigenvalues > 0, slopes, 0)
        else:
            trace = (eigenvalues**self.order).sum(axis=-1, keepdims=True)
            slopes = np.where(trace > r, self.order * eigenvalues ** (self.order - 1) / np.maximum(trace, r), 0)
        slopes = self._factor * slopes * cotangents
        return _on_strings((vectors * slopes[:, None, :]) @ vectors.conj().swapaxes(-1, -2), values)


MEASUREMENTS.add(DensityMatrix, Purity, Entropy)


def _complex(dtype: str) -> str:
    """The complex dtype for a real one."""
    return "complex128" if dtype == "float64" else "complex64"


def _purity(ops: Any, values: Any) -> Any:
    return ops.sum(values * values, -1, True) / math.sqrt(int(values.shape[-1]))


def _power(ops: Any, matrix: Any, k: int) -> Any:
    out = matrix
    for _ in range(k - 1):
        out = ops.matmul(out, matrix)
    return out


def _matrices(ops: Any, values: Any) -> Any:
    """Expectation values (B, 4**k) of all Pauli strings → density matrices (B, 2**k, 2**k), qubit by qubit."""
    count, side = int(values.shape[-1]), 1
    t = ops.reshape(ops.complex(values, None), (-1, 4, 1, 1))
    while True:
        i, x, y, z = (0.5 * t[:, k] for k in range(4))
        rows = [ops.concat([i + z, x - 1j * y]), ops.concat([x + 1j * y, i - z])]
        side, count = 2 * side, count // 4
        t = ops.reshape(ops.stack(rows, -3), (-1, side, side))
        if count == 1:
            return t
        t = ops.reshape(t, (-1, 4, side, side))


def _on_strings(cotangents: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Cotangents (B, 2**k, 2**k) of density matrices → of their Pauli strings, like `values`."""
    m, side = cotangents.conj()[:, None], cotangents.shape[-1]
    while side > 1:
        side //= 2
        a, b, c, d = m[..., :side, :side], m[..., :side, side:], m[..., side:, :side], m[..., side:, side:]
        m = np.stack([a + d, b + c, 1j * (c - b), a - d], axis=2).reshape(len(m), -1, side, side)
    return np.ascontiguousarray(m[:, :, 0, 0].real / cotangents.shape[-1], dtype=values.dtype)


class _Arrays:
    """The functions that `_matrices` needs, on NumPy arrays."""

    reshape: Any = staticmethod(np.reshape)
    stack: Any = staticmethod(np.stack)

    def complex(self, real: np.ndarray, imag: None) -> np.ndarray:
        return real.astype(np.result_type(real, np.complex64))

    def concat(self, arrays: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(arrays, axis=-1)
