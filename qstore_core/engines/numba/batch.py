"""How batches are run: chunks of samples on threads, with scratch that is used again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from ...circuit.lowering.plan import Plan
from ...errors import InputError, ShapeError
from ..memory import check_bytes
from .lowering.tables import Program
from .records import BACKWARD, FINISH, FORWARD, KEPT, READY
from .threads import run_all, thread_count

__all__ = ["Batch", "Layout", "VjpFn"]

KEEP_BYTES = 1 << 25
"""Final states are kept for the reverse sweep up to this size; above, the sweep computes them again."""
_PARALLEL_SECONDS = 2.5e-4  # waking a worker costs some 20 µs, so less work than this is not shared
_TASK_SECONDS = 6e-5
_SMALL_BYTES = 1 << 18  # of scratch and states that a batch keeps for itself
_RATE, _SINGLE_RATE = 2.5e10, 2.5e9  # multiply-adds per second and core; only the choice of threads depends on them

_Kept = tuple["np.ndarray | None", np.ndarray]
"""Scratch as a forward pass leaves it, or None where a reverse sweep prepares its own; final states of all chunks."""

VjpFn = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Layout:
    """A plan's tables for vectors of `lanes` samples, the kernel for them, and its scratch."""

    def __init__(self, plan: Plan, dtype: np.dtype, lanes: int, kernel: Callable[..., bool]) -> None:
        self.lanes, self.kernel = lanes, kernel
        self.program = program = Program(plan, lanes, dtype)
        self.tables = program.ints, program.floats
        self.work_size, self.state_size = program.work_size, program.state_size
        self.seconds = program.operations * (lanes / _RATE if lanes > 1 else 1 / _SINGLE_RATE)
        # One column of partial sums even where there is nothing to sum: an empty array has no address.
        self.n_partial = max(program.n_shared + plan.n_weights, 1)
        self.dtype = dtype
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
        finite = self.kernel(*self.tables, *begin, own_work, own_states, stride, todo, *arrays, first, last, chunks)
        if work is None:
            self.work.give(own_work)
        if states is None:
            self.states.give(own_states)
        return finite


class Batch:
    """What computes a batch of one shape.

    Attributes:
        chunks: Vectors of samples.
        seconds: How long a forward pass takes on one core, about.
        is_long: True where threads share its reverse sweep.
        is_small: True where one thread computes it, which keeps its scratch from the forward pass to the reverse sweep.
    """

    __slots__ = (
        "_free", "_keeps", "_n_weights", "_none", "_raw", "_states", "_sums", "_threads", "chunks", "dtype", "is_long",
        "is_small", "layout", "outputs", "seconds", "size",
    )  # fmt: skip

    def __init__(self, plan: Plan, layout: Layout, threads: int | None, size: int, width: int) -> None:
        self.layout, self.size, self.dtype, self._threads = layout, size, layout.dtype, threads
        self.chunks = -(-size // layout.lanes)
        self.seconds = self.chunks * layout.seconds
        self.outputs, self._n_weights = (size, plan.n_outputs), plan.n_weights
        self._raw = width - plan.n_inputs if plan.n_amplitudes else 0  # features of a row that are to be normalised
        self._sums = self.chunks * layout.n_partial  # what chunks leave of gradients
        self._states = self.chunks * layout.state_size
        itemsize = self.dtype.itemsize
        self._keeps = self._states * itemsize <= KEEP_BYTES
        self.is_long = self.chunks > 1 and 4 * self.seconds > _PARALLEL_SECONDS
        small = self._keeps and (self._states + layout.work_size) * itemsize <= _SMALL_BYTES
        self.is_small = small and self.chunks > 0 and not self.is_long
        self._free: list[_Kept] = []
        self._none = np.empty(0, self.dtype), np.empty(0)
        used = min(thread_count(threads), max(self.chunks, 1)) if self.is_long else 1
        check_bytes(
            used * (layout.work_size + layout.state_size) * itemsize,
            f"{size} states of {plan.n_qubits} qubits cannot be simulated here by backend 'numba'",
        )

    def forward(self, theta: np.ndarray, inputs: np.ndarray, kept: _Kept | None = None) -> np.ndarray:
        """`theta` (W,), features `inputs` (B, F) → outputs (B, O)."""
        outputs, (none, none64) = np.empty(self.outputs, self.dtype), self._none
        if not self._run(FORWARD, theta, inputs, kept, (outputs.ravel(), none, none64, none, none)):
            raise InputError("theta or features are not finite.")
        return outputs

    def value_and_vjp(self, theta: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, VjpFn]:
        """The same, and the function that pulls cotangents back."""
        kept = self._take()
        return self.forward(theta, inputs, kept), _Vjp(self, theta, inputs, kept)

    def vjp(
        self, theta: np.ndarray, inputs: np.ndarray, kept: _Kept | None, cotangents: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pull `cotangents` (B, O) back, from what `value_and_vjp` has kept."""
        if cotangents.__class__ is not np.ndarray or cotangents.dtype is not self.dtype or not cotangents.flags.carray:
            cotangents = np.ascontiguousarray(cotangents, self.dtype)
        if cotangents.shape != self.outputs:
            raise ShapeError(
                f"cotangents of this call have shape {self.outputs}, received {cotangents.shape}.",
                expected=self.outputs,
                received=cotangents.shape,
            )
        if not self.chunks:
            return np.zeros(self._n_weights, self.dtype), np.zeros(inputs.shape, self.dtype)
        d_theta, d_inputs = np.empty(self._n_weights, self.dtype), np.empty(inputs.shape, self.dtype)
        arrays = self._none[0], cotangents.ravel(), np.empty(self._sums), d_inputs.ravel(), d_theta
        self._run(BACKWARD, theta, inputs, kept, arrays)
        return d_theta, d_inputs

    def _run(
        self, todo: int, theta: np.ndarray, inputs: np.ndarray, kept: _Kept | None, arrays: tuple[np.ndarray, ...]
    ) -> bool:
        """All chunks, on as many threads as pay. Returns what the kernel does."""
        chunks, layout, back = self.chunks, self.layout, todo & BACKWARD
        begin = theta, inputs.ravel(), self.size, self._raw
        if self.is_small:
            if back:
                todo |= FINISH if kept is None else FINISH | KEPT | READY
            mine: Any = self._take() if kept is None else kept
            stride = 0 if kept is None else layout.state_size
            finite = layout.kernel(*layout.tables, *begin, *mine, stride, todo, *arrays, 0, chunks, chunks)
            if kept is None:
                self._give(mine)
            return finite
        if not chunks:
            return True
        if back and kept is not None:
            todo |= KEPT
        seconds = 4 * self.seconds if back else self.seconds
        threads = 1
        if chunks > 1 and seconds > _PARALLEL_SECONDS:  # see `is_long`
            threads = min(thread_count(self._threads), chunks)
        if threads == 1:
            return layout.run(begin, todo | FINISH if back else todo, arrays, kept, chunks, 0, chunks)
        parts = min(chunks, 4 * threads, max(threads, int(seconds / _TASK_SECONDS)))
        edges = [chunks * k // parts for k in range(parts + 1)]
        tasks = [partial(layout.run, begin, todo, arrays, kept, chunks, a, b) for a, b in pairwise(edges)]
        finite = all(run_all(tasks, threads))
        if back:
            layout.run(begin, FINISH, arrays, kept, chunks, chunks, chunks)
        return finite

    def _take(self) -> _Kept | None:
        """What a forward pass leaves for its reverse sweep; None where that computes the states again."""
        if not self.is_small:
            return (None, self.layout.states.take(self._states)) if self._keeps else None
        try:
            return self._free.pop()  # atomic: no lock
        except IndexError:
            return self.layout.work.take(self.layout.work_size), self.layout.states.take(self._states)

    def _give(self, kept: _Kept) -> None:
        """Return it."""
        if not self.is_small:
            self.layout.states.give(kept[1])
        elif len(self._free) < self.layout.work.KEEP:  # no global name: also while Python exits
            self._free.append(kept)


class _Vjp:
    """Pulls cotangents back, from the forward pass's final states where these were kept."""

    __slots__ = ("_batch", "_inputs", "_kept", "_theta")

    def __init__(self, batch: Batch, theta: np.ndarray, inputs: np.ndarray, kept: _Kept | None) -> None:
        self._batch, self._theta, self._inputs, self._kept = batch, theta, inputs, kept

    def __call__(self, cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        kept, self._kept = self._kept, None  # the sweep un-applies the gates: a second call starts anew
        result = self._batch.vjp(self._theta, self._inputs, kept, cotangents)
        if kept is not None:
            self._batch._give(kept)
        return result

    def __del__(self) -> None:
        if self._kept is not None:
            self._batch._give(self._kept)


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
