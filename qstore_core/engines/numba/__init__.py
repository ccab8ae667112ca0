"""The `numba` engine: the fastest on a CPU. Compiled kernels, samples innermost, adjoint gradients.

A batch that does not fill a vector of samples is computed one sample at a time where the state is large (`SINGLE`).

See the README beside this file: from a Plan to tables (`lowering`), from tables to numbers (`kernels`), and how a batch
is run on threads and memory (`batch`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...backends.contract import Capabilities, check_exact, check_options, hookimpl
from ...backends.forking import new_lock
from ...circuit.circuit import Circuit
from ...circuit.lowering.plan import Plan, lower
from ...circuit.measurements.measurement import Amplitudes, Measurement
from ...errors import CapabilityError, ShapeError
from ..memory import check_memory
from .batch import Batch, Layout, VjpFn
from .records import MOST_ELEMENTS
from .threads import check_threads

__all__ = ["NumbaBackend", "NumbaExecutable"]

_PLAIN = 0x101  # flags of an array: C-contiguous and aligned
_MOST_BATCHES = 64  # shapes of batches that an executable remembers
SINGLE = ((18, 7), (16, 4), (14, 2), (10, 1))
"""(n, b): from n qubits on, up to b samples are faster one at a time than as a vector that they do not fill.

Measured on two cores with AVX-512. An empty lane costs as much memory as a full one.
"""


class NumbaBackend:
    """Compiled exact simulator.

    Args:
        threads: Most threads that one call uses; None for the setting of the machine and of the frameworks in use.
    """

    name = "numba"
    capabilities = Capabilities(vjp=True, features=True, embedded=True, rows_at_once=64)

    def __init__(self, threads: int | None = None) -> None:
        """Check the option, and that numba can be imported."""
        check_threads(threads, backend=self.name)
        from .kernels.entry import (
            entry,
        )  # imports numba: an ImportError here is reported with the command that mends it

        self._entry, self.threads = entry, threads

    def explain(self, n_qubits: int) -> str:
        """How a circuit of this size is laid out."""
        most = _most_single(n_qubits)
        return f"in vectors of samples{f', up to batch {most} one sample at a time' if most else ''}"

    def compile(
        self,
        circuit: Circuit,
        measurement: Measurement,
        *,
        dtype: str = "float32",
        shots: int | None = None,
    ) -> NumbaExecutable:
        """Lower the circuit to tables. The kernels are compiled once per precision, at the first call ever."""
        check_exact(shots, backend=self.name)
        if isinstance(measurement, Amplitudes):
            raise CapabilityError(
                "backend 'numba' computes expectation values and probabilities, no states. Use 'statevector'.",
                backend=self.name,
            )
        check_memory(circuit.n_qubits, dtype=dtype, backend=self.name)
        return NumbaExecutable(lower(circuit, measurement), dtype, self._entry, self.threads)


class NumbaExecutable:
    """A compiled circuit; threads share it."""

    def __init__(
        self, plan: Plan, dtype: str, kernels: Callable[..., Callable[..., bool]], threads: int | None = None
    ) -> None:
        from .simd import lane_count

        self.plan, self.dtype, self.threads = plan, np.dtype(dtype), threads
        self._kernels, self._lock = kernels, new_lock(self, "_lock")
        lanes = lane_count(8 * self.dtype.itemsize)
        # Tables hold 32-bit numbers of elements. Where vectors of samples would need more, samples go one at a time.
        fits = MOST_ELEMENTS >> plan.n_qubits >= lanes
        self._wide = Layout(plan, self.dtype, lanes, kernels(dtype)) if fits else None
        self._single: Layout | None = None
        self._most_single = _most_single(plan.n_qubits)
        self._batches: dict[tuple[int, ...], Batch] = {}
        self._theta_shape = (plan.n_weights,)
        # Features of a row: amplitudes, of which there may be fewer than basis states, then angles.
        self._most = plan.n_amplitudes + plan.n_inputs
        self._least = plan.n_inputs + 1 if plan.n_amplitudes else plan.n_inputs

    def layout(self, batch: int) -> Layout:
        """What is faster for this batch: vectors of samples, or one sample at a time."""
        if batch > self._most_single and self._wide is not None:
            return self._wide
        with self._lock:
            if self._single is None:
                self._single = Layout(self.plan, self.dtype, 1, self._kernels(self.dtype.name, single=True))
            return self._single

    def forward(self, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """`theta` (W,), features `inputs` (B, F) → outputs (B, O)."""
        return self._batch(theta, inputs).forward(theta, inputs)

    def vjp(self, theta: np.ndarray, inputs: np.ndarray, cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pull `cotangents` (B, O) back to `(d_theta (W,), d_inputs (B, F))`."""
        return self._batch(theta, inputs).vjp(theta, inputs, None, cotangents)

    def value_and_vjp(self, theta: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, VjpFn]:
        """Outputs, and the function that pulls cotangents back.

        `theta` and `inputs` must not change before that function has been called.
        """
        return self._batch(theta, inputs).value_and_vjp(theta, inputs)

    def _batch(self, theta: np.ndarray, inputs: np.ndarray) -> Batch:
        """What computes arrays of these shapes, all else about which is what the kernel reads: it knows addresses."""
        if type(theta) is type(inputs) is np.ndarray:
            batch = self._batches.get(inputs.shape)
            if (
                batch is not None
                and theta.shape == self._theta_shape
                and theta.dtype is inputs.dtype is self.dtype
                and theta.flags.num & inputs.flags.num & _PLAIN == _PLAIN
            ):
                return batch
        self._check(theta, inputs)
        size, width = inputs.shape
        batch = Batch(self.plan, self.layout(size), self.threads, size, width)
        self._batches = {**(self._batches if len(self._batches) < _MOST_BATCHES else {}), inputs.shape: batch}
        return batch

    def _check(self, theta: np.ndarray, inputs: np.ndarray) -> None:
        """Refuse what the kernel would read past: it knows addresses only."""
        if (
            type(theta) is type(inputs) is np.ndarray
            and theta.shape == self._theta_shape
            and inputs.ndim == 2
            and self._least <= inputs.shape[1] <= self._most
            and theta.dtype == inputs.dtype == self.dtype
            and theta.flags.num & inputs.flags.num & _PLAIN == _PLAIN
        ):
            return
        for name, array in (("theta", theta), ("inputs", inputs)):
            if type(array) is not np.ndarray or array.dtype != self.dtype or array.flags.num & _PLAIN != _PLAIN:
                received = f"{array.dtype} " if isinstance(array, np.ndarray) else ""
                raise ShapeError(
                    f"the numba engine takes {name} as a C-contiguous, aligned array of {self.dtype}, received "
                    f"{received}{type(array).__name__}. Use np.ascontiguousarray({name}, np.{self.dtype}).",
                    expected=str(self.dtype),
                    received=type(array).__name__,
                )
        if theta.shape != self._theta_shape:
            raise ShapeError(
                f"this circuit takes theta of shape {self._theta_shape}, received {theta.shape}.",
                expected=self._theta_shape,
                received=theta.shape,
            )
        width = f"{self._least} to {self._most}" if self._least < self._most else f"{self._most}"
        raise ShapeError(
            f"this circuit takes inputs of shape (batch, {width}), received {inputs.shape}.", received=inputs.shape
        )


def _most_single(n_qubits: int) -> int:
    return next((batch for least, batch in SINGLE if n_qubits >= least), 0)


@hookimpl
def qstore_backend(options: dict[str, Any]) -> NumbaBackend:
    """The `numba` backend; its option is `threads`."""
    check_options(options, ("threads",), backend="numba")
    return NumbaBackend(**options)
