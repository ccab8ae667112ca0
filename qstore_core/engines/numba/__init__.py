"""The `numba` engine: the fastest on a CPU. Compiled kernels, samples innermost, adjoint gradients.

A batch that does not fill a vector of samples is computed one sample at a time where the state is large (`SINGLE`).

See the README beside this file: from a Plan to tables (`lowering`), from tables to numbers (`kernels`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from ...backends.contract import Capabilities, check_exact, check_options, hookimpl
from ...backends.forking import new_lock
from ...circuit.circuit import Circuit
from ...circuit.lowering.plan import Plan, lower
from ...circuit.measurements.measurement import Amplitudes, Measurement
from ...errors import CapabilityError, InputError, ShapeError
from ..memory import check_bytes, check_memory
from .lowering.tables import Program
from .records import BACKWARD, FINISH, FORWARD, KEPT, MOST_ELEMENTS, READY
from .threads import check_threads, run_all, thread_count

__all__ = ["Layout", "NumbaBackend", "NumbaExecutable"]

KEEP_BYTES = 1 << 25
"""Final states are kept for the reverse sweep up to this size; above, the sweep computes them again."""
_PARALLEL_SECONDS = 2.5e-4  # waking a worker costs some 20 µs, so less work than this is not shared
_TASK_SECONDS = 6e-5
_SMALL_BYTES = 1 << 18  # of scratch and states that a batch keeps for itself
_PLAIN = 0x101  # flags of an array: C-contiguous and aligned
_MOST_BATCHES = 64  # sizes of batches that an executable remembers
_RATE, _SINGLE_RATE = 2.5e10, 2.5e9  # multiply-adds per second and core; only the choice of threads depends on them
SINGLE = ((18, 7), (16, 4), (14, 2), (10, 1))
"""(n, b): from n qubits on, up to b samples are faster one at a time than as a vector that they do not fill.

Measured on two cores with AVX-512. An empty lane costs as much memory as a full one.
"""

_Kept = tuple["np.ndarray | None", np.ndarray]
"""Scratch as a forward pass leaves it, or None where a reverse sweep prepares its own; final states of all chunks."""

VjpFn = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class NumbaBackend:
    """Compiled exact simulator.

    Args:
        threads: Most threads that one call uses; None for the setting of the machine and of the frameworks in use.
    """

    name = "numba"
    capabilities = Capabilities(vjp=True, features=True, embedded=True)

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
        self._batches: dict[int, _Batch] = {}
        self._theta_shape, self._n_outputs = (plan.n_weights,), plan.n_outputs
        # Features of a row: amplitudes, of which there may be fewer than basis states, then angles.
        self._most = plan.n_amplitudes + plan.n_inputs
        self._least = plan.n_inputs + 1 if plan.n_amplitudes else plan.n_inputs
        self._none, self._none64 = np.empty(0, self.dtype), np.empty(0)

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
        self._check(theta, inputs)
        return self._forward(self._batch(inputs), theta, inputs, None)

    def vjp(self, theta: np.ndarray, inputs: np.ndarray, cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pull `cotangents` (B, O) back to `(d_theta (W,), d_inputs (B, F))`."""
        self._check(theta, inputs)
        return self._pull_back(self._batch(inputs), theta, inputs, None, cotangents)

    def value_and_vjp(self, theta: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, VjpFn]:
        """Outputs, and the function that pulls cotangents back.

        `theta` and `inputs` must not change before that function has been called.
        """
        self._check(theta, inputs)
        batch = self._batch(inputs)
        kept = batch.take()
        outputs = self._forward(batch, theta, inputs, kept)
        return outputs, _Vjp(self, batch, theta, inputs, kept)

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

    def _batch(self, inputs: np.ndarray) -> _Batch:
        """What is known about batches as large as this one."""
        size = len(inputs)
        batch = self._batches.get(size)
        if batch is None:
            if len(self._batches) >= _MOST_BATCHES:
                self._batches = {}
            layout = self.layout(size)
            batch = _Batch(layout, size)
            threads = min(thread_count(self.threads), max(batch.chunks, 1)) if batch.is_long else 1
            check_bytes(
                threads * (layout.work_size + layout.state_size) * self.dtype.itemsize,
                f"{size} states of {self.plan.n_qubits} qubits cannot be simulated here by backend 'numba'",
            )
            self._batches[size] = batch
        return batch

    def _forward(self, batch: _Batch, theta: np.ndarray, inputs: np.ndarray, kept: _Kept | None) -> np.ndarray:
        outputs, none, none64 = np.empty((batch.size, self._n_outputs), self.dtype), self._none, self._none64
        arrays = outputs.reshape(-1), none, none64, none, none
        if not self._run(batch, FORWARD, theta, inputs, kept, arrays):
            raise InputError("theta or features are not finite.")
        return outputs

    def _pull_back(
        self,
        batch: _Batch,
        theta: np.ndarray,
        inputs: np.ndarray,
        kept: _Kept | None,
        cotangents: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        cotangents, d_inputs = np.ascontiguousarray(cotangents, self.dtype), np.empty(inputs.shape, self.dtype)
        if cotangents.shape != (batch.size, self._n_outputs):
            expected = (batch.size, self._n_outputs)
            raise ShapeError(
                f"cotangents of this call have shape {expected}, received {cotangents.shape}.",
                expected=expected,
                received=cotangents.shape,
            )
        if not batch.chunks:
            return np.zeros(self.plan.n_weights, self.dtype), d_inputs
        d_theta = np.empty(self.plan.n_weights, self.dtype)
        arrays = self._none, cotangents.reshape(-1), np.empty(batch.sums), d_inputs.reshape(-1), d_theta
        self._run(batch, BACKWARD, theta, inputs, kept, arrays)
        return d_theta, d_inputs

    def _run(
        self,
        batch: _Batch,
        todo: int,
        theta: np.ndarray,
        inputs: np.ndarray,
        kept: _Kept | None,
        arrays: tuple[np.ndarray, ...],
    ) -> bool:
        """All chunks, on as many threads as pay. Returns what the kernel does."""
        chunks, layout, back = batch.chunks, batch.layout, todo & BACKWARD
        if not chunks:
            return True
        raw = inputs.shape[1] - self.plan.n_inputs if self.plan.n_amplitudes else 0
        begin = theta, inputs.reshape(-1), batch.size, raw
        if batch.is_small:
            if back:
                todo |= FINISH if kept is None else FINISH | KEPT | READY
            return layout.run(begin, todo, arrays, kept, chunks, 0, chunks)
        if back and kept is not None:
            todo |= KEPT
        seconds = 4 * batch.seconds if back else batch.seconds
        threads = 1
        if chunks > 1 and seconds > _PARALLEL_SECONDS:  # see `_Batch.is_long`
            threads = min(thread_count(self.threads), chunks)
        if threads == 1:
            return layout.run(begin, todo | FINISH if back else todo, arrays, kept, chunks, 0, chunks)
        parts = min(chunks, 4 * threads, max(threads, int(seconds / _TASK_SECONDS)))
        edges = [chunks * k // parts for k in range(parts + 1)]
        tasks = [partial(layout.run, begin, todo, arrays, kept, chunks, a, b) for a, b in pairwise(edges)]
        finite = all(run_all(tasks, threads))
        if back:
            layout.run(begin, FINISH, arrays, kept, chunks, chunks, chunks)
        return finite


class Layout:
    """A plan's tables for vectors of `lanes` samples, the kernel for them, and its scratch."""

    def __init__(self, plan: Plan, dtype: np.dtype, lanes: int, kernel: Callable[..., bool]) -> None:
        self.lanes, self._kernel = lanes, kernel
        self.program = program = Program(plan, lanes, dtype)
        self._tables = program.ints, program.floats
        self.work_size, self.state_size = program.work_size, program.state_size
        self.seconds = program.operations * (lanes / _RATE if lanes > 1 else 1 / _SINGLE_RATE)
        # One column of partial sums even where there is nothing to sum: an empty array has no address.
        self.n_partial = max(program.n_shared + plan.n_weights, 1)
        self.itemsize = dtype.itemsize
        self.work, self.states = _Buffers(dtype, lanes), _Buffers(dtype, lanes)

    def run(
        self,
        begin: tuple[Any, ...],
        todo: int,
        arrays: tuple[np.ndarray, ...],
        kept: _Kept | None,
        chunks: int,
        first: int,
        last: int,
    ) -> bool:
        """Chunks [first, last) of all on this thread. Returns what the kernel does."""
        work, states, stride = (None, None, 0) if kept is None else (*kept, self.state_size)
        own_work = self.work.take(self.work_size) if work is None else work
        own_states = self.states.take(self.state_size) if states is None else states
        finite = self._kernel(*self._tables, *begin, own_work, own_states, stride, todo, *arrays, first, last, chunks)
        if work is None:
            self.work.give(own_work)
        if states is None:
            self.states.give(own_states)
        return finite


class _Batch:
    """What every call with a batch of this size asks for.

    Attributes:
        chunks: Vectors of samples.
        seconds: How long a forward pass takes on one core, about.
        sums: Elements of the sums of gradients that chunks leave.
        is_long: True where threads share its reverse sweep.
        is_small: True where one thread computes it, which keeps its scratch from the forward pass to the reverse sweep.
    """

    __slots__ = ("_free", "_keeps", "_states", "chunks", "is_long", "is_small", "layout", "seconds", "size", "sums")

    def __init__(self, layout: Layout, size: int) -> None:
        self.layout, self.size = layout, size
        self.chunks = -(-size // layout.lanes)
        self.seconds = self.chunks * layout.seconds
        self.sums = self.chunks * layout.n_partial
        self._states = self.chunks * layout.state_size
        itemsize = layout.itemsize
        self._keeps = self._states * itemsize <= KEEP_BYTES
        self.is_long = self.chunks > 1 and 4 * self.seconds > _PARALLEL_SECONDS
        alone = not self.is_long
        self.is_small = alone and self._keeps and (self._states + layout.work_size) * itemsize <= _SMALL_BYTES
        self._free: list[_Kept] = []

    def take(self) -> _Kept | None:
        """What a forward pass leaves for its reverse sweep; None where that computes the states again."""
        if not self.is_small:
            return (None, self.layout.states.take(self._states)) if self._keeps else None
        try:
            return self._free.pop()  # atomic: no lock
        except IndexError:
            return self.layout.work.take(self.layout.work_size), self.layout.states.take(self._states)

    def give(self, kept: _Kept) -> None:
        """Return it."""
        if not self.is_small:
            self.layout.states.give(kept[1])
        elif len(self._free) < self.layout.work.KEEP:  # no global name: also while Python exits
            self._free.append(kept)


class _Vjp:
    """Pulls cotangents back, from the forward pass's final states where these were kept."""

    __slots__ = ("_batch", "_executable", "_inputs", "_kept", "_theta")

    def __init__(
        self,
        executable: NumbaExecutable,
        batch: _Batch,
        theta: np.ndarray,
        inputs: np.ndarray,
        kept: _Kept | None,
    ) -> None:
        self._executable, self._batch, self._theta, self._inputs = executable, batch, theta, inputs
        self._kept = kept

    def __call__(self, cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        kept, self._kept = self._kept, None  # the sweep un-applies the gates: a second call starts anew
        run = self._executable._pull_back
        result = run(self._batch, self._theta, self._inputs, kept, cotangents)
        if kept is not None:
            self._batch.give(kept)
        return result

    def __del__(self) -> None:
        if self._kept is not None:
            self._batch.give(self._kept)


def _most_single(n_qubits: int) -> int:
    return next((batch for least, batch in SINGLE if n_qubits >= least), 0)


class _Buffers:
    """Arrays to use again, aligned to cache lines; fresh memory would cost more than a small circuit."""

    KEEP = 4

    def __init__(self, dtype: np.dtype, lanes: int) -> None:
        self._dtype, self._free = dtype, []  # type: ignore[var-annotated]
        # The form by which kernels know vectors of one lane (`simd`).
        self._shape = (-1,) if lanes > 1 else (1, -1)

    def take(self, size: int) -> np.ndarray:
        """At least `size` elements, of any content."""
        try:
            array = self._free.pop()  # atomic: no lock
        except IndexError:
            array = None
        if array is not None and size <= array.size <= max(4 * size, 1 << 16):
            return array
        raw = np.zeros(size + 64 // self._dtype.itemsize, self._dtype)
        start = (-raw.ctypes.data % 64) // self._dtype.itemsize
        return raw[start : start + size].reshape(self._shape)

    def give(self, array: np.ndarray) -> None:
        """Return an array that nobody uses any more."""
        if len(self._free) < self.KEEP and array.nbytes <= KEEP_BYTES:
            self._free.append(array)


@hookimpl
def qstore_backend(options: dict[str, Any]) -> NumbaBackend:
    """The `numba` backend; its option is `threads`."""
    check_options(options, ("threads",), backend="numba")
    return NumbaBackend(**options)
