"""Measurements that are functions of expectation values and probabilities: logarithms, variances, covariances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from ..errors import SpecError
from .checks import MAX_OPERATIONS, check_items, shown
from .measurement import MEASUREMENTS, BasisStates, Expectation, Measurement
from .observable import Observable, symmetrised

__all__ = ["Covariance", "LogProbabilities", "Variance"]


@dataclass(frozen=True)
class LogProbabilities(BasisStates):
    """Natural logarithms of `Probabilities`, with gradients that are finite everywhere.

    Below the resolution r (the dtype's epsilon; 1 / shots where probabilities are sampled) there is nothing but
    rounding or chance, and the logarithm goes on along its tangent: log r + (p - r) / r. So a probability of exactly 0
    gives log r - 1, and every slope is at most 1 / r. Arguments as those of `Probabilities`.

    Example:
        >>> import numpy as np
        >>> from qstore_core.engines.statevector import NumpyOps
        >>> LogProbabilities().postprocess(NumpyOps(), np.array([[1.0, 0.0]]), 2.0**-52).round(4)
        array([[  0.    , -37.0437]])
    """

    name: ClassVar[str] = "log_probabilities"

    def postprocess(self, ops: Any, values: Any, resolution: float) -> Any:
        """The logarithm, and its tangent below `resolution`."""
        above, below = ops.maximum(values, resolution), ops.minimum(values, resolution)
        return ops.log(above) + (below - resolution) / resolution

    def postprocess_vjp(self, values: np.ndarray, cotangents: np.ndarray, resolution: float) -> np.ndarray:
        """1 / p, at most 1 / resolution."""
        return cotangents / np.maximum(values, values.dtype.type(resolution))


@dataclass(frozen=True)
class Variance(Measurement):
    """Variances ⟨O²⟩ - ⟨O⟩² of observables, one output each.

    With shots both terms are estimates: on average the result is less by the variance of the estimated ⟨O⟩, and that of
    a sum of strings may be below 0.

    Attributes:
        observables: One or several.

    Example:
        RY(x) on |0⟩: the variance of Z is sin²x.

        >>> import numpy as np
        >>> from qstore_core import Circuit, Pauli, QuantumLayer
        >>> c = Circuit(1)
        >>> c.ry(c.inputs(1)[0], 0)
        >>> QuantumLayer(c, Variance(Pauli("Z")))(np.array([[0.5]])).round(4)
        array([[0.2298]])
    """

    observables: tuple[Observable, ...]
    name: ClassVar[str] = "variance"

    def __post_init__(self) -> None:
        """Normalise and check."""
        object.__setattr__(self, "observables", _observables(self.observables, "Variance"))

    def n_outputs(self, n_qubits: int) -> int:
        """Outputs per sample."""
        return len(self.observables)

    def primitive(self, n_qubits: int) -> Expectation:
        """⟨O²⟩ of all observables, then ⟨O⟩."""
        return Expectation(observables=(*(symmetrised(o, o) for o in self.observables), *self.observables))

    def postprocess(self, ops: Any, values: Any, resolution: float) -> Any:
        """⟨O²⟩ - ⟨O⟩²."""
        k = len(self.observables)
        return values[..., :k] - values[..., k:] * values[..., k:]

    def postprocess_vjp(self, values: np.ndarray, cotangents: np.ndarray, resolution: float) -> np.ndarray:
        """1 for ⟨O²⟩, -2⟨O⟩ for ⟨O⟩."""
        return np.concatenate([cotangents, -2 * values[..., len(self.observables) :] * cotangents], axis=-1)

    def entries(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {"observables": [_terms(o) for o in self.observables]}

    @classmethod
    def from_entries(cls, entries: Mapping[str, Any]) -> Self:
        """Inverse of `entries`."""
        return cls(tuple(Observable(o) for o in check_items(entries["observables"], "observables", MAX_OPERATIONS)))


@dataclass(frozen=True)
class Covariance(Measurement):
    """The covariance ⟨AB + BA⟩/2 - ⟨A⟩⟨B⟩ of two observables, one output; they need not commute.

    Attributes:
        a: One observable.
        b: The other.

    Example:
        In a Bell state ⟨ZZ⟩ is 1, and each ⟨Z⟩ is 0.

        >>> import numpy as np
        >>> from qstore_core import Circuit, Pauli, QuantumLayer
        >>> bell = Circuit(2)
        >>> bell.h(0); bell.cnot(0, 1)
        >>> QuantumLayer(bell, Covariance(Pauli("ZI"), Pauli("IZ")))(np.zeros((1, 0))).round(6)
        array([[1.]])
    """

    a: Observable
    b: Observable
    name: ClassVar[str] = "covariance"

    def __post_init__(self) -> None:
        """Check."""
        a, b = _observables((self.a, self.b), "Covariance")
        if a.n_qubits != b.n_qubits:
            raise SpecError(f"Covariance takes observables of one size, received {a.n_qubits} and {b.n_qubits} qubits.")

    def n_outputs(self, n_qubits: int) -> int:
        """One."""
        return 1

    def primitive(self, n_qubits: int) -> Expectation:
        """⟨AB + BA⟩/2, ⟨A⟩, ⟨B⟩."""
        return Expectation(observables=(symmetrised(self.a, self.b), self.a, self.b))

    def postprocess(self, ops: Any, values: Any, resolution: float) -> Any:
        """The first less the product of the others."""
        return values[..., :1] - values[..., 1:2] * values[..., 2:]

    def postprocess_vjp(self, values: np.ndarray, cotangents: np.ndarray, resolution: float) -> np.ndarray:
        """1, -⟨B⟩, -⟨A⟩."""
        c = cotangents
        return np.concatenate([c, -values[..., 2:] * c, -values[..., 1:2] * c], axis=-1)

    def entries(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {"a": _terms(self.a), "b": _terms(self.b)}

    @classmethod
    def from_entries(cls, entries: Mapping[str, Any]) -> Self:
        """Inverse of `entries`."""
        return cls(Observable(entries["a"]), Observable(entries["b"]))


MEASUREMENTS.add(LogProbabilities, Variance, Covariance)


def _terms(observable: Observable) -> list[list[Any]]:
    return [list(term) for term in observable.terms]


def _observables(given: Any, what: str) -> tuple[Observable, ...]:
    found = check_items((given,) if isinstance(given, Observable) else given, "observables", MAX_OPERATIONS)
    if not found or not all(isinstance(o, Observable) for o in found):
        raise SpecError(f"{what} takes Pauli(...) and sums of them, received {shown(given)}.")
    return found
