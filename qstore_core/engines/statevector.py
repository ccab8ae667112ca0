"""The `statevector` engine: NumPy only, always there.

Forward as in `engines.arrays.program`, gradients as in `engines.arrays.adjoint`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backends.contract import Capabilities, check_exact, check_options, hookimpl
from ..circuit.circuit import Circuit
from ..circuit.lowering.plan import Plan, lower
from ..circuit.measurements.measurement import Measurement
from .arrays.adjoint import value_and_vjp
from .arrays.numpy_ops import NumpyOps
from .arrays.program import ArrayProgram
from .memory import check_memory

__all__ = ["StatevectorBackend", "StatevectorExecutable"]

Pullback = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


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
