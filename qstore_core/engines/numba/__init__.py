"""The `numba` engine: the fastest on a CPU. Compiled kernels, samples innermost, adjoint gradients.

Module by module: `schedule` orders a Plan's gates into layers of real turns and phases; `tables` writes them as
integers; `kernels` interprets these, compiled once per precision whatever the circuit; `threads` shares out the batch.
"""

from __future__ import annotations

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

__all__ = ["NumbaBackend", "NumbaExecutable"]

FORWARD, KEPT, BACKWARD, FINISH = 1, 2, 4, 8
KEEP_BYTES = 1 << 25
"""Final states are kept for the reverse sweep up to this size; above, the sweep computes them again."""
_PARALLEL_SECONDS = 2.5e-4  # waking a helper costs some 20 µs, so less work than this is not shared
_TASK_SECONDS = 6e-5
_RATE = 2.5e10  # multiply-adds per second and core; only the choice of threads depends on it

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
        return NumbaExecutable(lower(circuit, measurement), dtype, self._entry(dtype), self.threads)


class NumbaExecutable:
    """A compiled circuit; threads share it."""

    def __init__(self, plan: Plan, dtype: str, kernel: Callable[..., None], threads: int | None = None) -> None:
        """Write the tables."""
        from .simd import lane_count

        self.plan, self.dtype, self.threads = plan, np.dtype(dtype), threads
        self.lanes = lane_count(8 * self.dtype.itemsize)
        self.program = Program(plan, self.lanes, self.dtype)
        self._kernel = kernel
        self._keep_size = KEEP_BYTES // self.dtype.itemsize
        self._seconds = self.program.operations * self.lanes / _RATE
        self._none, self._none64 = np.empty(0, self.dtype), np.empty(0)
        self._work, self._states = _Buffers(self.dtype), _Buffers(self.dtype)
        # One column of partial sums even where there is nothing to sum: an empty array has no address.
        self._n_partial = max(self.program.n_shared + plan.n_weights, 1)

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
        size = -(-len(inputs) // self.lanes) * self.program.state_size
        states = self._states.take(size) if size <= self._keep_size else None
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
            sums = np.empty(-(-batch // self.lanes) * self._n_partial)
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
        chunks = -(-len(inputs) // self.lanes)
        seconds = chunks * self._seconds * (4 if todo & BACKWARD else 1)
        finish = FINISH if todo & BACKWARD else 0
        begin = (self.program.ints, self.program.floats, theta, inputs.reshape(-1), len(inputs), raw)
        threads = 1
        if chunks > 1 and seconds > _PARALLEL_SECONDS:
            threads = min(thread_count(self.threads), chunks)
        if threads == 1:
            self._chunks(begin, todo | finish, ends, states, chunks, 0, chunks)
            return
        parts = min(chunks, 4 * threads, max(threads, int(seconds / _TASK_SECONDS)))
        edges = [chunks * k // parts for k in range(parts + 1)]
        run_all([partial(self._chunks, begin, todo, ends, states, chunks, a, b) for a, b in pairwise(edges)], threads)
        if finish:
            self._chunks(begin, FINISH, ends, states, chunks, chunks, chunks)

    def _chunks(
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
        program = self.program
        work = self._work.take(program.work_size)
        if states is None:
            own = self._states.take(program.state_size)
            self._kernel(*begin, work, own, 0, todo, *ends, first, last, chunks)
            self._states.give(own)
        else:
            self._kernel(*begin, work, states, program.state_size, todo, *ends, first, last, chunks)
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
            self._executable._states.give(states)
        return result

    def __del__(self) -> None:
        if self._states is not None:
            self._executable._states.give(self._states)


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
