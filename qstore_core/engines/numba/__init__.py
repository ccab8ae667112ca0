"""The `numba` engine: the fastest on a CPU. Compiled kernels, samples innermost, adjoint gradients.

A batch that does not fill a vector of samples is computed one sample at a time where the state is large (`SINGLE`).

Module by module: `schedule` orders a Plan's gates into layers of real turns and phases; `tables` writes them as
integers; `kernels` interprets these, compiled once per precision whatever the circuit; `threads` shares out the batch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from ...backend import Capabilities, check_options, hookimpl
from ...circuit import Circuit
from ...errors import CapabilityError, OptionError
from ...measurement import Measurement
from ...plan import Plan, lower
from ..memory import check_memory
from .tables import Program
from .threads import run_all, thread_count

__all__ = ["Layout", "NumbaBackend", "NumbaExecutable"]

FORWARD, KEPT, BACKWARD, FINISH = 1, 2, 4, 8
KEEP_BYTES = 1 << 25
"""Final states are kept for the reverse sweep up to this size; above, the sweep computes them again."""
_PARALLEL_SECONDS = 2.5e-4  # waking a helper costs some 20 µs, so less work than this is not shared
_TASK_SECONDS = 6e-5
_RATE, _SINGLE_RATE = 2.5e10, 2.5e9  # multiply-adds per second and core; only the choice of threads depends on them
SINGLE = ((18, 7), (16, 4), (14, 2), (10, 1))
"""(n, b): from n qubits on, up to b samples are faster one at a time than as a vector that they do not fill.

Measured on two cores with AVX-512. An empty lane costs as much memory as a full one.
"""

Pullback = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class NumbaBackend:
    """Compiled exact simulator.

    Args:
        threads: Most threads that one call uses; None for the setting of the machine and of the frameworks in use.
    """

    name = "numba"
    capabilities = Capabilities(exact=True, shots=False, vjp=True)

    def __init__(self, threads: int | None = None) -> None:
        """Check the option, and that numba can be imported."""
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise OptionError(
                f"threads is a whole number of at least 1 or None, received {threads!r}.",
                argument="threads",
                backend=self.name,
            )
        from . import kernels  # imports numba: an ImportError here is reported with the command that mends it

        self._entry, self.threads = kernels.entry, threads

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
        seed: int | None = None,
    ) -> NumbaExecutable:
        """Lower the circuit to tables. The kernels are compiled once per precision, at the first call ever."""
        if shots is not None:
            raise CapabilityError(
                f"backend 'numba' computes exact expectation values, but shots={shots} was asked for. "
                "Use shots=None, or a backend that samples.",
                backend=self.name,
            )
        check_memory(circuit.n_qubits, dtype=dtype, backend=self.name)
        return NumbaExecutable(lower(circuit, measurement), dtype, self._entry, self.threads)


class NumbaExecutable:
    """A compiled circuit; threads share it."""

    def __init__(
        self, plan: Plan, dtype: str, kernels: Callable[..., Callable[..., None]], threads: int | None = None
    ) -> None:
        """Write the tables."""
        from .simd import lane_count

        self.plan, self.dtype, self.threads = plan, np.dtype(dtype), threads
        self._kernels, self._lock = kernels, threading.Lock()
        self._wide = Layout(plan, self.dtype, lane_count(8 * self.dtype.itemsize), kernels(dtype))
        self._single: Layout | None = None
        self._most_single = _most_single(plan.n_qubits)
        self._keep_size = KEEP_BYTES // self.dtype.itemsize
        self._none, self._none64 = np.empty(0, self.dtype), np.empty(0)

    def layout(self, batch: int) -> Layout:
        """What is faster for this batch: vectors of samples, or one sample at a time."""
        if batch > self._most_single:
            return self._wide
        with self._lock:
            if self._single is None:
                self._single = Layout(self.plan, self.dtype, 1, self._kernels(self.dtype.name, single=True))
            return self._single

    def forward(self, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """`theta` (W,), `inputs` (B, I) → outputs (B, O)."""
        return self._forward(theta, inputs, None)

    def vjp(self, theta: np.ndarray, inputs: np.ndarray, cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pull `cotangents` (B, O) back to `(d_theta (W,), d_inputs (B, I))`."""
        return self._pull_back(theta, inputs, cotangents, None)

    def value_and_vjp(self, theta: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, Pullback]:
        """Outputs, and the function that pulls cotangents back.

        `inputs` must not change before that function has been called.
        """
        return self._value_and_vjp(theta, inputs, 0)

    def forward_features(self, theta: np.ndarray, features: np.ndarray) -> np.ndarray:
        """`forward` of rows that still have to be normalised: (B, F) with F - I_angles amplitude features first.

        Rows with NaN or infinity have NaN outputs.
        """
        return self._forward(theta, features, None, features.shape[1] - self.plan.n_inputs)

    def value_and_vjp_features(self, theta: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, Pullback]:
        """`value_and_vjp` of such rows; gradients are those of the features."""
        return self._value_and_vjp(theta, features, features.shape[1] - self.plan.n_inputs)

    def _value_and_vjp(self, theta: np.ndarray, inputs: np.ndarray, raw: int) -> tuple[np.ndarray, Pullback]:
        layout = self.layout(len(inputs))
        size = layout.chunks(len(inputs)) * layout.program.state_size
        states = layout.states.take(size) if size <= self._keep_size else None
        outputs = self._forward(theta, inputs, states, raw)
        return outputs, _Pullback(self, theta.copy(), inputs, states, raw)

    def _forward(self, theta: np.ndarray, inputs: np.ndarray, states: np.ndarray | None, raw: int = 0) -> np.ndarray:
        batch, none, none64 = len(inputs), self._none, self._none64
        outputs = np.empty((batch, self.plan.n_outputs), self.dtype)
        if batch:
            ends = (outputs.reshape(-1), none, none64, none, none64)
            self._run(FORWARD, theta, inputs, raw, ends, states)
        return outputs

    def _pull_back(
        self,
        theta: np.ndarray,
        inputs: np.ndarray,
        cotangents: np.ndarray,
        states: np.ndarray | None,
        raw: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        batch = len(inputs)
        d_theta, d_inputs = np.zeros(self.plan.n_weights), np.empty(inputs.shape, self.dtype)
        if batch:
            cotangents = np.ascontiguousarray(cotangents, self.dtype)
            layout = self.layout(batch)
            sums = np.empty(layout.chunks(batch) * layout.n_partial)
            ends = (self._none, cotangents.reshape(-1), sums, d_inputs.reshape(-1), d_theta)
            todo = BACKWARD if states is None else BACKWARD | KEPT
            self._run(todo, theta, inputs, raw, ends, states)
        return d_theta.astype(self.dtype), d_inputs

    def _run(
        self,
        todo: int,
        theta: np.ndarray,
        inputs: np.ndarray,
        raw: int,
        ends: tuple[np.ndarray, ...],
        states: np.ndarray | None,
    ) -> None:
        """All chunks, on as many threads as pay."""
        layout = self.layout(len(inputs))
        chunks = layout.chunks(len(inputs))
        seconds = chunks * layout.seconds * (4 if todo & BACKWARD else 1)
        finish = FINISH if todo & BACKWARD else 0
        begin = (layout.program.ints, layout.program.floats, theta, inputs.reshape(-1), len(inputs), raw)
        threads = 1
        if chunks > 1 and seconds > _PARALLEL_SECONDS:
            threads = min(thread_count(self.threads), chunks)
        if threads == 1:
            layout.run(begin, todo | finish, ends, states, chunks, 0, chunks)
            return
        parts = min(chunks, 4 * threads, max(threads, int(seconds / _TASK_SECONDS)))
        edges = [chunks * k // parts for k in range(parts + 1)]
        run_all([partial(layout.run, begin, todo, ends, states, chunks, a, b) for a, b in pairwise(edges)], threads)
        if finish:
            layout.run(begin, FINISH, ends, states, chunks, chunks, chunks)


class Layout:
    """A plan's tables for vectors of `lanes` samples, the kernel for them, and its scratch."""

    def __init__(self, plan: Plan, dtype: np.dtype, lanes: int, kernel: Callable[..., None]) -> None:
        """Write the tables."""
        self.lanes, self._kernel = lanes, kernel
        self.program = Program(plan, lanes, dtype)
        self.seconds = self.program.operations * (lanes / _RATE if lanes > 1 else 1 / _SINGLE_RATE)
        # One column of partial sums even where there is nothing to sum: an empty array has no address.
        self.n_partial = max(self.program.n_shared + plan.n_weights, 1)
        self._work, self.states = _Buffers(dtype), _Buffers(dtype)

    def chunks(self, batch: int) -> int:
        """Vectors of samples in a batch."""
        return -(-batch // self.lanes)

    def run(
        self,
        begin: tuple[Any, ...],
        todo: int,
        ends: tuple[np.ndarray, ...],
        states: np.ndarray | None,
        chunks: int,
        first: int,
        last: int,
    ) -> None:
        """Chunks [first, last) of all on this thread."""
        program, shaped = self.program, _plain if self.lanes > 1 else _single
        work = self._work.take(program.work_size)
        if states is None:
            own = self.states.take(program.state_size)
            self._kernel(*begin, shaped(work), shaped(own), 0, todo, *ends, first, last, chunks)
            self.states.give(own)
        else:
            self._kernel(*begin, shaped(work), shaped(states), program.state_size, todo, *ends, first, last, chunks)
        self._work.give(work)


class _Pullback:
    """Pulls cotangents back, from the forward pass's final states where these were kept."""

    def __init__(
        self,
        executable: NumbaExecutable,
        theta: np.ndarray,
        inputs: np.ndarray,
        states: np.ndarray | None,
        raw: int,
    ) -> None:
        self._executable, self._theta, self._inputs, self._states = executable, theta, inputs, states
        self._raw = raw

    def __call__(self, cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        states, self._states = self._states, None  # the sweep un-applies the gates: a second call starts anew
        result = self._executable._pull_back(self._theta, self._inputs, cotangents, states, self._raw)
        if states is not None:
            self._executable.layout(len(self._inputs)).states.give(states)
        return result

    def __del__(self) -> None:
        if self._states is not None:
            self._executable.layout(len(self._inputs)).states.give(self._states)


def _most_single(n_qubits: int) -> int:
    return next((batch for least, batch in SINGLE if n_qubits >= least), 0)


def _plain(array: np.ndarray) -> np.ndarray:
    return array


def _single(array: np.ndarray) -> np.ndarray:
    """The form by which kernels know vectors of one lane (`simd`)."""
    return array.reshape(1, -1)


class _Buffers:
    """Arrays to use again, aligned to cache lines; fresh memory would cost more than a small circuit."""

    _KEEP = 4

    def __init__(self, dtype: np.dtype) -> None:
        self._dtype, self._free = dtype, []  # type: ignore[var-annotated]

    def take(self, size: int) -> np.ndarray:
        """At least `size` elements, of any content."""
        try:
            array = self._free.pop()  # atomic: no lock
        except IndexError:
            array = None
        if array is not None and size <= len(array) <= max(4 * size, 1 << 16):
            return array
        raw = np.zeros(size + 64 // self._dtype.itemsize, self._dtype)
        start = (-raw.ctypes.data % 64) // self._dtype.itemsize
        return raw[start : start + size]

    def give(self, array: np.ndarray) -> None:
        """Return an array that nobody uses any more."""
        if len(self._free) < self._KEEP and array.nbytes <= KEEP_BYTES:
            self._free.append(array)


@hookimpl
def qstore_backend(options: dict[str, Any]) -> NumbaBackend:
    """The `numba` backend; its option is `threads`."""
    check_options(options, ("threads",), backend="numba")
    return NumbaBackend(**options)
