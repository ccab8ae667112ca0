"""Measurements of states: density matrices of some qubits, their purity and entropy, fidelities, the state itself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np

from ...errors import SpecError
from ..checks import check_finite_number, check_items, check_pair, check_whole, shown
from ..circuit import Circuit
from ..gates.synthesis import prepare
from .measurement import (
    MEASUREMENTS,
    Amplitudes,
    Expectation,
    Measurement,
    Pauli,
    Probabilities,
    as_qubits,
    check_qubits,
)

__all__ = ["DensityMatrix", "Entropy", "Fidelity", "Purity", "State"]

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


@dataclass(frozen=True)
class State(Measurement):
    """The final state: complex amplitudes (2**n,) per sample, with the phase that the gates' matrices give it.

    For simulators that hold the state: ours except `numba` and `triton`, which "auto" leaves out. What
    `Circuit.unitary`, `diagonal` and `inverse` make, and words of I alone, is equal up to a phase; all else is exact.

    Example:
        >>> import numpy as np
        >>> from qstore_core import Circuit, QuantumLayer
        >>> c = Circuit(1)
        >>> c.ry(c.inputs(1)[0], 0); c.s(0)
        >>> QuantumLayer(c, State())(np.array([[np.pi / 2]])).round(4)
        array([[0.7071+0.j    , 0.    +0.7071j]])
    """

    name: ClassVar[str] = "state"

    def n_outputs(self, n_qubits: int) -> int:
        """Amplitudes."""
        return 1 << n_qubits

    def output_dtype(self, dtype: str) -> str:
        """The complex one."""
        return _complex(dtype)

    def primitive(self, n_qubits: int) -> Amplitudes:
        """The same as real numbers."""
        return Amplitudes()

    def postprocess(self, ops: Any, values: Any, resolution: float) -> Any:
        """Real and imaginary parts together."""
        size = int(values.shape[-1]) // 2
        return ops.complex(values[..., :size], values[..., size:])

    def postprocess_vjp(self, values: np.ndarray, cotangents: np.ndarray, resolution: float) -> np.ndarray:
        """Real and imaginary parts apart."""
        return np.concatenate([cotangents.real, cotangents.imag], axis=-1)


@dataclass(frozen=True)
class Fidelity(Measurement):
    """The fidelity |⟨φ|ψ⟩|² of the layer's state ψ with a state φ, one output.

    The inverse of a circuit that makes φ is run after the layer's; the fidelity is the probability of |0…0⟩, on
    hardware as well. Noise of the backend acts on both.

    Attributes:
        state: 2**n amplitudes, real or complex, of norm 1, for at most 12 qubits; or a circuit without amplitudes as
            inputs. Its slots, where it has some, are the layer's: its weight 0 is weight 0 of the layer.

    Example:
        How near RY(x)|0⟩ is to (|0⟩ + |1⟩)/√2:

        >>> import numpy as np
        >>> from qstore_core import Circuit, QuantumLayer
        >>> c = Circuit(1)
        >>> c.ry(c.inputs(1)[0], 0)
        >>> QuantumLayer(c, Fidelity([np.sqrt(0.5), np.sqrt(0.5)]))(np.array([[0.0], [np.pi / 2]])).round(6)
        array([[0.5],
               [1. ]])
    """

    state: Circuit | tuple[complex, ...]
    name: ClassVar[str] = "fidelity"

    def __post_init__(self) -> None:
        """Normalise and check."""
        if isinstance(self.state, Circuit):
            if self.state.n_amplitudes:
                raise SpecError("Fidelity takes a circuit that starts from |0…0⟩; this one has amplitudes as inputs.")
            hash(self.state)  # freezes it
            return
        try:
            vector = np.array(self.state, np.complex128)
        except (TypeError, ValueError, OverflowError) as error:
            raise SpecError(f"Fidelity takes a circuit or amplitudes, received {shown(self.state)}.") from error
        n, norm = vector.size.bit_length() - 1, float(np.linalg.norm(vector))
        if vector.ndim != 1 or vector.size != 1 << n or not 1 <= n <= _MOST_PREPARED:
            raise SpecError(
                f"Fidelity takes 2**n amplitudes of 1 to {_MOST_PREPARED} qubits, received shape {vector.shape}. Give "
                "a circuit that makes the state, or measure State()."
            )
        if not abs(norm - 1) <= _NORM:
            raise SpecError(f"a state has norm 1, received one of norm {norm:.6g}. Divide it by that.")
        object.__setattr__(self, "state", tuple(complex(a) for a in vector / norm))

    def n_outputs(self, n_qubits: int) -> int:
        """One."""
        return 1

    def check(self, n_qubits: int) -> None:
        """Raise where it does not fit `n_qubits`."""
        have = self.state.n_qubits if isinstance(self.state, Circuit) else len(self.state).bit_length() - 1
        if have != n_qubits:
            raise SpecError(f"Fidelity is with a state of {have} qubit(s), the circuit has {n_qubits}.")

    def primitive(self, n_qubits: int) -> Probabilities:
        """Probabilities after the inverse of what makes the state."""
        return Probabilities()

    def extend(self, circuit: Circuit) -> Circuit:
        """`circuit`, then the inverse of what makes the state."""
        other = self.state if isinstance(self.state, Circuit) else _prepared(self.state)
        if other.n_inputs > circuit.n_inputs or other.n_weights > circuit.n_weights:
            raise SpecError(
                f"the circuit of Fidelity uses {other.n_inputs} inputs and {other.n_weights} weights of the layer's, "
                f"which has {circuit.n_inputs} and {circuit.n_weights}.",
                argument="measurement",
            )
        last = [op for op in circuit.operations if op.gate == "readout_error"]
        out = circuit._like()
        out.extend(op for op in circuit.operations if op.gate != "readout_error")
        out.extend([*other.inverse().operations, *last])
        hash(out)
        return out

    def postprocess(self, ops: Any, values: Any, resolution: float) -> Any:
        """The probability of |0…0⟩."""
        return values[..., :1]

    def postprocess_vjp(self, values: np.ndarray, cotangents: np.ndarray, resolution: float) -> np.ndarray:
        """1 for |0…0⟩, 0 for the others."""
        out = np.zeros_like(values)
        out[..., :1] = cotangents
        return out

    def entries(self) -> dict[str, Any]:
        """The fields as JSON values."""
        if isinstance(self.state, Circuit):
            return {"state": self.state.to_dict()}
        return {"state": [[a.real, a.imag] for a in self.state]}

    @classmethod
    def from_entries(cls, entries: Mapping[str, Any]) -> Self:
        """Inverse of `entries`."""
        state = entries["state"]
        if isinstance(state, Mapping):
            return cls(Circuit.from_dict(state))
        pairs = [
            check_pair(a, "an amplitude", "[re, im]") for a in check_items(state, "amplitudes", 1 << _MOST_PREPARED)
        ]
        return cls(tuple(complex(*(check_finite_number(part, "an amplitude") for part in pair)) for pair in pairs))


MEASUREMENTS.add(DensityMatrix, Purity, Entropy, State, Fidelity)

_MOST_PREPARED = 12  # 2**n rotations twice
_NORM = 1e-5  # how far from 1 the norm of a state may be: what single precision leaves


@lru_cache(maxsize=64)
def _prepared(amplitudes: tuple[complex, ...]) -> Circuit:
    """A circuit that makes a state from |0…0⟩."""
    circuit = Circuit(len(amplitudes).bit_length() - 1)
    for name, qubits, angles in prepare(np.array(amplitudes), range(circuit.n_qubits)):
        if angles != (0.0,):
            circuit.append(name, qubits, angles)
    return circuit


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
    """Expectation values (B, 4**k) of all Pauli strings → density matrices (B, 2**k, 2**k), qubit by qubit.

    In real numbers up to the end: not every format that graphs leave in has complex ones.
    """
    count, side = int(values.shape[-1]), 1
    parts = [values, 0.0 * values]  # real, imaginary
    while count > 1:
        re, im = ([0.5 * ops.reshape(part, (-1, 4, side, side))[:, k] for k in range(4)] for part in parts)
        side, count = 2 * side, count // 4
        parts = [
            ops.reshape(ops.stack([ops.concat(rows[:2]), ops.concat(rows[2:])], -3), (-1, side, side))
            for rows in (
                (re[0] + re[3], re[1] + im[2], re[1] - im[2], re[0] - re[3]),
                (im[0] + im[3], im[1] - re[2], im[1] + re[2], im[0] - im[3]),
            )
        ]
    return ops.complex(*parts)


def _on_strings(cotangents: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Cotangents (B, 2**k, 2**k) of density matrices → of their Pauli strings, like `values`."""
    m, side = cotangents.conj()[:, None], cotangents.shape[-1]
    while side > 1:
        side //= 2
        a, b, c, d = m[..., :side, :side], m[..., :side, side:], m[..., side:, :side], m[..., side:, side:]
        m = np.stack([a + d, b + c, 1j * (c - b), a - d], axis=2).reshape(len(m), 4 * m.shape[1], side, side)
    return np.ascontiguousarray(m[:, :, 0, 0].real / cotangents.shape[-1], dtype=values.dtype)


class _Arrays:
    """The functions that `_matrices` needs, on NumPy arrays."""

    reshape: Any = staticmethod(np.reshape)
    stack: Any = staticmethod(np.stack)

    def complex(self, real: np.ndarray, imag: np.ndarray) -> np.ndarray:
        return real + 1j * imag

    def concat(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(arrays, axis=-1)
