"""Measurements that are functions of expectation values and probabilities: logarithms, variances; counts, samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from ...errors import BackendError, SpecError
from ..checks import MAX_OPERATIONS, check_items, check_whole, shown
from .measurement import MEASUREMENTS, BasisStates, Expectation, Measurement, Probabilities, as_qubits, check_qubits
from .observable import Observable, symmetrised

__all__ = ["Counts", "Covariance", "LogProbabilities", "Samples", "Variance"]


@dataclass(frozen=True)
class LogProbabilities(BasisStates):
    """Natural logarithms of `Probabilities`, with gradients that are finite everywhere.

    Below the resolution r (the dtype's epsilon; 1 / shots where probabilities are sampled) there is nothing but
    rounding or chance, and the logarithm goes on along its tangent: log r + (p - r) / r. So a probability of exactly 0
    gives log r - 1, and every slope is at most 1 / r. Arguments as those of `Probabilities`.

    Example:
        >>> import numpy as np
        >>> from qstore_core.engines.arrays.numpy_ops import NumpyOps
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


@dataclass(frozen=True)
class _Drawn(Measurement):
    """What `Counts` and `Samples` have in common."""

    shots: int
    qubits: tuple[int, ...] | None = None
    drawn: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Normalise and check."""
        object.__setattr__(self, "shots", check_whole(self.shots, "shots", 1, _MOST_SHOTS, "shots"))
        object.__setattr__(self, "qubits", as_qubits(self.qubits))

    def check(self, n_qubits: int) -> None:
        """Raise where it does not fit `n_qubits`."""
        check_qubits(self.qubits, n_qubits)

    def output_dtype(self, dtype: str) -> str:
        """Whole numbers stay what they are in half precision."""
        return "float64" if dtype == "float64" else "float32"

    def primitive(self, n_qubits: int) -> Probabilities:
        """What samples are drawn from."""
        return Probabilities(self.qubits)

    def _measured(self, n_qubits: int) -> int:
        return n_qubits if self.qubits is None else len(self.qubits)

    def _counts(self, values: np.ndarray, shots: int | None, rng: np.random.Generator) -> np.ndarray:
        """Whole numbers (B, 2**k) that add up to `self.shots`."""
        if shots is None:
            p = _without_rounding(np.maximum(values, 0.0))
            return rng.multinomial(self.shots, p / p.sum(axis=1, keepdims=True))
        exact = values.astype(np.float64) * shots
        counts = np.rint(exact).astype(np.int64)
        rounding = 0.01 + 2 * shots * float(np.finfo(values.dtype).eps)
        whole = np.abs(exact - counts).max(initial=0.0) <= rounding and (counts >= 0).all()
        if not whole or shots != self.shots or (counts.sum(1) != shots).any():
            raise BackendError(
                f"the backend's probabilities are no frequencies of {self.shots} samples. Where it corrects errors, "
                "switch that off, or measure Probabilities."
            )
        return counts

    def postprocess_vjp(self, values: np.ndarray, cotangents: np.ndarray, resolution: float) -> np.ndarray:
        """None: the gradient is refused where it is pulled back."""
        return cotangents.reshape(values.shape)


def _without_rounding(values: np.ndarray) -> np.ndarray:
    """Float64 values without their last digits, in which engines differ: a seed gives the same samples on all."""
    digits = -np.log2(np.finfo(values.dtype).eps) - 8
    mantissa, exponent = np.frexp(values.astype(np.float64))
    return np.ldexp(np.rint(np.ldexp(mantissa, int(digits))), exponent - int(digits))


@dataclass(frozen=True)
class Counts(_Drawn):
    """How often each bitstring is found in `shots` samples: whole numbers, (2**k,) per sample.

    Backends that sample do so; from exact ones samples are drawn by their probabilities, with the layer's seed. There
    are no gradients.

    Attributes:
        shots: How many samples.
        qubits: Qubits measured, most significant first; None for all.

    Example:
        >>> import numpy as np
        >>> from qstore_core import Circuit, QuantumLayer
        >>> bell = Circuit(2)
        >>> bell.h(0); bell.cnot(0, 1)
        >>> QuantumLayer(bell, Counts(1000), seed=1)(np.zeros((1, 0)))
        array([[516.,   0.,   0., 484.]])
    """

    name: ClassVar[str] = "counts"

    def n_outputs(self, n_qubits: int) -> int:
        """Bitstrings."""
        return 1 << self._measured(n_qubits)

    def draw(self, values: np.ndarray, shots: int | None, rng: np.random.Generator) -> np.ndarray:
        """Counts (B, 2**k)."""
        return self._counts(values, shots, rng).astype(values.dtype)


@dataclass(frozen=True)
class Samples(_Drawn):
    """`shots` samples of bits, 0 or 1, in the order in which they were drawn: (shots, k) per sample.

    Backends that sample do so, and say how often they found each bitstring: their order is drawn. From exact ones
    samples are drawn by their probabilities, with the layer's seed. There are no gradients.

    Attributes:
        shots: How many samples.
        qubits: Qubits measured, in this order; None for all.
    """

    name: ClassVar[str] = "samples"

    def n_outputs(self, n_qubits: int) -> int:
        """Bits."""
        return self.shots * self._measured(n_qubits)

    def output_shape(self, n_qubits: int) -> tuple[int, ...]:
        """(shots, k)."""
        return self.shots, self._measured(n_qubits)

    def draw(self, values: np.ndarray, shots: int | None, rng: np.random.Generator) -> np.ndarray:
        """Bits (B, shots · k)."""
        rows, outcomes = values.shape
        found = np.tile(np.arange(outcomes), rows).repeat(self._counts(values, shots, rng).ravel())
        found = rng.permuted(found.reshape(rows, self.shots), axis=1)
        bits = found[:, :, None] >> np.arange(outcomes.bit_length() - 2, -1, -1) & 1
        return bits.reshape(rows, -1).astype(values.dtype)

    def postprocess(self, ops: Any, values: Any, resolution: float) -> Any:
        """The same as (B, shots, k)."""
        return ops.reshape(values, (-1, self.shots, int(values.shape[-1]) // self.shots))


MEASUREMENTS.add(LogProbabilities, Variance, Covariance, Counts, Samples)

_MOST_SHOTS = 1 << 24  # float32 counts so far


def _terms(observable: Observable) -> list[list[Any]]:
    return [list(term) for term in observable.terms]


def _observables(given: Any, what: str) -> tuple[Observable, ...]:
    found = check_items((given,) if isinstance(given, Observable) else given, "observables", MAX_OPERATIONS)
    if not found or not all(isinstance(o, Observable) for o in found):
        raise SpecError(f"{what} takes Pauli(...) and sums of them, received {shown(given)}.")
    return found
