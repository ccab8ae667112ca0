"""The `statevector` engine: NumPy only, always there.

Forward as in `engines.arrays.program`, gradients as in `engines.arrays.adjoint`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backends.contract import Capabilities, check_exact, check_options, hookimpl
from ..circuit.circuit import Circuit
from ..circuit.lowering.plan import Plan, lower
from ..circuit.measurements.measurement import Measurement
from .arrays.adjoint import value_and_vjp
from .arrays.ops import Scatter, inverse_index
from .arrays.program import ArrayProgram
from .memory import check_memory

__all__ = ["NumpyOps", "StatevectorBackend", "StatevectorExecutable"]

Pullback = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class NumpyOps:
    """`Ops` for NumPy."""

    def __init__(self) -> None:
        """Start without kept constants."""
        self._kept: dict[tuple[int, str], tuple[np.ndarray, np.ndarray]] = {}

    def here(self) -> NumpyOps:
        """Itself."""
        return self

    def holds(self, x: np.ndarray) -> tuple[bool, bool]:
        """In the host's memory; nothing is recorded."""
        return True, False

    def const(self, value: np.ndarray, like: np.ndarray) -> np.ndarray:
        """`value` in the precision of `like`; read-only values are converted once."""
        double = like.dtype in (np.float64, np.complex128)
        kind = ("D" if double else "F") if value.dtype.kind == "c" else ("d" if double else "f")
        if value.flags.writeable:
            return value.astype(kind, copy=False)
        key = (id(value), kind)
        if key not in self._kept:
            self._kept[key] = (
                value,
                value.astype(kind, copy=False),
            )  # `value` too, so that its id stays its own
        return self._kept[key][1]

    take: Any = staticmethod(np.take)
    reshape: Any = staticmethod(np.reshape)
    matmul: Any = staticmethod(np.matmul)
    cos: Any = staticmethod(np.cos)
    sin: Any = staticmethod(np.sin)
    conj: Any = staticmethod(np.conj)
    log: Any = staticmethod(np.log)
    maximum: Any = staticmethod(np.maximum)
    minimum: Any = staticmethod(np.minimum)
    eigvalsh: Any = staticmethod(np.linalg.eigvalsh)

    def sum(self, x: np.ndarray, axis: int | tuple[int, ...], keepdims: bool = False) -> np.ndarray:
        """Sum along one axis."""
        return np.sum(x, axis=axis, keepdims=keepdims)

    def permute(self, x: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Take along the last axis."""
        return np.take(x, index, -1)

    def permute_back(self, x: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Take by the inverse permutation."""
        key = (id(index), "inverse")
        if key not in self._kept:
            self._kept[key] = (index, inverse_index(index))
        return np.take(x, self._kept[key][1], -1)

    def scatter_last(self, x: np.ndarray, scatter: Scatter) -> np.ndarray:
        """Add columns of x up where `scatter` says."""
        if x.ndim == 1:
            return np.bincount(scatter.index, x, scatter.width + 1)[:-1].astype(x.dtype, copy=False)
        out = np.zeros((*x.shape[:-1], scatter.width + 1), x.dtype)
        np.add.at(out.T, scatter.index, x.T)
        return out[..., :-1]

    stack: Any = staticmethod(np.stack)

    def scale(self, state: np.ndarray, factor: np.ndarray) -> np.ndarray:
        """Complex times real."""
        return state * factor

    def concat(self, arrays: Sequence[np.ndarray], axis: int = -1) -> np.ndarray:
        """Along an axis."""
        return np.concatenate(arrays, axis=axis)

    def swap_last(self, x: np.ndarray) -> np.ndarray:
        """Exchange the last two axes."""
        return np.swapaxes(x, -1, -2)

    def complex(self, real: np.ndarray, imag: np.ndarray | None) -> np.ndarray:
        """A complex array."""
        out = np.empty(real.shape, dtype=np.result_type(real, np.complex64))
        out.real = real
        out.imag = 0.0 if imag is None else imag
        return out

    def real(self, x: np.ndarray) -> np.ndarray:
        """Real part."""
        return x.real

    def imag(self, x: np.ndarray) -> np.ndarray:
        """Imaginary part."""
        return x.imag

    def zero_column(self, x: np.ndarray) -> np.ndarray:
        """(rows of x, 1) of zeros."""
        return np.zeros((x.shape[0], 1), dtype=x.dtype)

    sqrt: Any = staticmethod(np.sqrt)
    round: Any = staticmethod(np.rint)

    def function(self, name: str, x: np.ndarray) -> np.ndarray:
        """One of `FUNCTIONS`."""
        out: np.ndarray = getattr(np, name)(x)
        return out

    def max_abs(self, x: np.ndarray) -> np.ndarray:
        """Largest magnitude of each row, (rows, 1)."""
        return np.abs(x).max(axis=-1, keepdims=True)

    def is_below(self, x: np.ndarray, limit: float) -> np.ndarray:
        """1.0 where x is below."""
        return (x < limit).astype(x.dtype)

    def without_subnormals(self, x: np.ndarray) -> np.ndarray:
        """x, and zero where its magnitude is below the smallest normal number; the derivative is that of x."""
        return np.where(np.abs(x) < np.finfo(x.dtype).smallest_normal, x.dtype.type(0), x)

    def smallest_normal(self, x: np.ndarray) -> float:
        """Of the precision of x."""
        return float(np.finfo(x.dtype).smallest_normal)

    def wide(self, x: np.ndarray) -> np.ndarray:
        """In double precision."""
        return x.astype(np.float64, copy=False)

    def narrow(self, x: np.ndarray, like: np.ndarray) -> np.ndarray:
        """In the precision of `like`."""
        return x.astype(like.dtype, copy=False)

    def pad_last(self, x: np.ndarray, width: int) -> np.ndarray:
        """Zeros up to `width` columns."""
        return np.pad(x, ((0, 0), (0, width - x.shape[-1])))


class StatevectorBackend:
    """The embedded exact simulator."""

    name = "statevector"
    capabilities = Capabilities(vjp=True, embedded=True, amplitudes=True)

    def compile(
        self,
        circuit: Circuit,
        measurement: Measurement,
        *,
        dtype: str = "float32",
        shots: int | None = None,
    ) -> StatevectorExecutable:
        """Lower the circuit and lay it out for NumPy."""
        check_exact(shots, backend=self.name)
        check_memory(circuit.n_qubits, dtype=dtype, backend=self.name)
        return StatevectorExecutable(lower(circuit, measurement), dtype)


class StatevectorExecutable:
    """A compiled circuit; stateless after construction, so threads share it."""

    def __init__(self, plan: Plan, dtype: str) -> None:
        """Lay the plan out."""
        self.plan, self.dtype = plan, np.dtype(dtype)
        self.program = ArrayProgram(plan)
        self._ops = NumpyOps()

    def forward(self, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """`theta` (W,), `inputs` (B, I) → outputs (B, O)."""
        check_memory(self.plan.n_qubits, len(inputs), self.dtype.name, backend="statevector")
        return self.program.forward(self._ops, theta, inputs)

    def vjp(self, theta: np.ndarray, inputs: np.ndarray, cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pull `cotangents` (B, O) back to `(d_theta (W,), d_inputs (B, I))`."""
        return self.value_and_vjp(theta, inputs)[1](cotangents)

    def value_and_vjp(self, theta: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, Pullback]:
        """Outputs, and the function that pulls cotangents back."""
        check_memory(self.plan.n_qubits, 2 * len(inputs), self.dtype.name, backend="statevector")
        return value_and_vjp(self.program, self._ops, theta, inputs)


@hookimpl
def qstore_backend(options: dict[str, Any]) -> StatevectorBackend:
    """The `statevector` backend; it has no options."""
    check_options(options, backend="statevector")
    return StatevectorBackend()
