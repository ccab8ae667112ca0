"""The `density` engine: circuits with channels, exactly, up to 10 qubits, with adjoint gradients.

A batch is computed in chunks of samples. The reverse sweep needs the state before every step that has a gradient, since
a channel cannot be undone: these states are kept, or, where they would take more than `KEEP_BYTES`, the circuit is run
again from checkpoints, a part at a time.

`program` lowers a circuit, `matrices` makes its matrices for a batch, `kernels` (numba) or `arrays` (NumPy) apply them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from ...backends.contract import Capabilities, check_exact, check_options, hookimpl
from ...circuit.checks import check_arrays
from ...circuit.circuit import Circuit
from ...circuit.measurements.measurement import Measurement
from ...circuit.noise.model import NoiseModel, check_noise_model
from ...errors import CapabilityError, ShapeError
from ..memory import check_bytes
from ..numba.threads import check_threads, run_all, thread_count
from .amplitudes import components, components_vjp, ground_state
from .arrays import ArrayKernels
from .matrices import Matrices, product_of
from .program import Program, Single

__all__ = ["MOST_QUBITS", "DensityBackend", "DensityExecutable"]

MOST_QUBITS = 10
KEEP_BYTES = 1 << 25
"""Of states before steps with a gradient, for one chunk; and of a whole batch's between forward pass and sweep."""
_PARALLEL = 1 << 21  # numbers times steps below which a batch is not shared among threads

VjpFn = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class DensityBackend:
    """Density matrices of noisy circuits.

    Args:
        noise_model: Channels behind gates by their names, and readout errors: a `NoiseModel` or its `to_dict()`. Those
            in the circuit itself come as well.
        threads: Most threads that one call uses; None for the setting of the machine and of the frameworks in use.

    Example:
        >>> from qstore_core import Channel, Circuit, Expectation, NoiseModel, get_backend
        >>> model = NoiseModel().after("x", Channel.depolarizing(0.25))
        >>> c = Circuit(1)
        >>> c.x(0)
        >>> run = get_backend("density", noise_model=model).compile(c, Expectation("Z"), dtype="float64")
        >>> run.forward(np.zeros(0), np.zeros((1, 0)))
        array([[-0.75]])
    """

    name = "density"

    def __init__(self, noise_model: NoiseModel | Mapping[str, Any] | None = None, threads: int | None = None) -> None:
        check_threads(threads, backend=self.name)
        self.noise_model, self.threads = check_noise_model(noise_model, self.name), threads
        self.capabilities = Capabilities(
            vjp=True, embedded=True, channels=True, noisy=self.noise_model is not None, max_qubits=MOST_QUBITS
        )

    def explain(self, n_qubits: int) -> str:
        """How a circuit of this size is computed."""
        kernels = "compiled" if _has_numba() else 'in NumPy: pip install "qstore[fast]" for compiled kernels'
        return f"density matrix of 4**{n_qubits} numbers, {kernels}"

    def compile(
        self,
        circuit: Circuit,
        measurement: Measurement,
        *,
        dtype: str = "float32",
        shots: int | None = None,
    ) -> DensityExecutable:
        """Lower the circuit, with the noise behind its gates."""
        check_exact(shots, backend=self.name)
        if circuit.n_qubits > MOST_QUBITS:
            raise CapabilityError(
                f"backend 'density' takes at most {MOST_QUBITS} qubits, received {circuit.n_qubits}: a density matrix "
                "has 4**n numbers.",
                backend=self.name,
            )
        if self.noise_model is not None:
            circuit = self.noise_model.applied(circuit)
        return DensityExecutable(Program(circuit, measurement), dtype, self.threads)


class DensityExecutable:
    """A compiled circuit; stateless after construction, so threads share it."""

    def __init__(self, program: Program, dtype: str, threads: int | None = None) -> None:
        """Lay the program out."""
        self.program, self.dtype, self.threads = program, np.dtype(dtype), threads
        self._kernels = _kernels(program, self.dtype)
        self._shared, self._sampled = Matrices(program.shared), Matrices(program.sampled)
        self._start = ground_state(program.n_qubits).astype(self.dtype)[:, None]
        self._size, self._width = 4**program.n_qubits, program.circuit.n_amplitudes
        gradients = [k for k, step in enumerate(program.steps) if isinstance(step, Single) and step.gradient >= 0]
        # Parts of the circuit whose states the sweep holds at once, [first, last) with the first gradient's number.
        self._parts_for = partial(_parts, gradients, len(program.steps))
        self._first = 0 if self._width or not gradients else gradients[0]
        circuit = program.circuit
        self._shapes = circuit.n_weights, circuit.n_amplitudes + circuit.n_inputs

    @property
    def nbytes(self) -> int:
        """For the bound of the circuit cache."""
        return 512 * len(self.program.steps) + 8 * self.program.weights.size

    def forward(self, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """`theta` (W,), `inputs` (B, I) → outputs (B, O)."""
        return _Pass(self, theta, inputs, keeps=False).outputs

    def vjp(self, theta: np.ndarray, inputs: np.ndarray, cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pull `cotangents` (B, O) back to `(d_theta (W,), d_inputs (B, I))`."""
        return self.value_and_vjp(theta, inputs)[1](cotangents)

    def value_and_vjp(self, theta: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, VjpFn]:
        """Outputs, and the function that pulls cotangents back.

        `theta` and `inputs` must not change before that function has been called.
        """
        done = _Pass(self, theta, inputs, keeps=True)
        return done.outputs, done.pull


class _Pass:
    """One batch, forward and back."""

    def __init__(self, run: DensityExecutable, theta: np.ndarray, inputs: np.ndarray, keeps: bool) -> None:
        theta, inputs = np.asarray(theta), np.asarray(inputs)
        check_arrays(theta, inputs, *run._shapes)
        self.run, self.program, self.kernels = run, run.program, run._kernels
        self.theta, self.inputs, self.x = theta, inputs, inputs[:, run._width :]
        rows, size, itemsize = len(inputs), run._size, run.dtype.itemsize
        self.lanes = lanes = self.kernels.lanes(rows)
        self.chunks = -(-rows // lanes)
        state = size * lanes * itemsize
        self.parts = run._parts_for(max(1, KEEP_BYTES // state))
        held = max((part[3] for part in self.parts), default=0)
        threads = self._threads()
        check_bytes(
            threads * state * (3 + held + len(self.parts)) + run._sampled.nbytes(rows),
            f"{rows} density matrices of {self.program.n_qubits} qubits cannot be simulated here",
        )
        shared, self.shared_factors = run._shared.values(theta, self.x[:1] if rows else np.zeros((1, self.x.shape[1])))
        sampled, self.sampled_factors = run._sampled.values(theta, self.x)
        self.shared = np.array(shared[0], run.dtype)
        self.sampled = self.kernels.pack(sampled, lanes)
        # States of the whole batch are kept where they are few; else the sweep runs the circuit again.
        self.keeps = keeps and len(self.parts) == 1 and held * state * self.chunks <= KEEP_BYTES
        self.kept: list[np.ndarray | None] = [None] * self.chunks
        self.outputs = np.empty((rows, self.program.weights.shape[1]), run.dtype)
        self._each(self._forward)

    def _threads(self) -> int:
        work = self.chunks * self.run._size * self.lanes * len(self.program.steps)
        if work < _PARALLEL or not self.kernels.threaded:
            return 1
        return min(thread_count(self.run.threads), self.chunks)

    def _each(self, work: Callable[[int], Any]) -> list[Any]:
        """`work` for every chunk."""
        threads = self._threads()
        if threads == 1:
            return [work(chunk) for chunk in range(self.chunks)]
        return run_all([partial(work, chunk) for chunk in range(self.chunks)], threads)

    def _begin(self, chunk: int) -> np.ndarray:
        """The start state (4**n, lanes) of a chunk."""
        run, first = self.run, chunk * self.lanes
        state = np.empty((run._size, self.lanes), run.dtype)
        if not run._width:
            state[:] = run._start
            return state
        rows = self.inputs[first : first + self.lanes, : run._width]
        state[:, : len(rows)] = components(rows)
        state[:, len(rows) :] = run._start
        return state

    def _forward(self, chunk: int) -> None:
        state, first = self._begin(chunk), chunk * self.lanes
        kept = self._buffer(self.parts[0][3]) if self.keeps else None
        self.kernels.evolve(state, self.shared, self.sampled[chunk], 0, len(self.program.steps), kept)
        self.kept[chunk] = kept
        count = min(self.lanes, len(self.inputs) - first)
        measured = state[self.program.index, :count].astype(np.float64)
        self.outputs[first : first + count] = product_of(measured.T, self.program.weights)

    def _buffer(self, count: int) -> np.ndarray:
        return np.empty((count, self.run._size, self.lanes), self.run.dtype)

    def pull(self, cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cotangents (B, O) → `(d_theta (W,), d_inputs (B, I))`."""
        run, rows, width = self.run, len(self.inputs), self.run._width
        cotangents = np.asarray(cotangents, np.float64)
        if cotangents.shape != self.outputs.shape:
            raise ShapeError(
                f"cotangents of this call have shape {self.outputs.shape}, received {cotangents.shape}.",
                expected=self.outputs.shape,
                received=cotangents.shape,
            )
        d_inputs = np.zeros(self.inputs.shape, run.dtype)
        if not rows:
            return np.zeros(len(self.theta), run.dtype), d_inputs
        swept = self._each(lambda chunk: self._sweep(chunk, cotangents))
        d_shared = np.sum([d for d, _, _ in swept], axis=0)[None]
        d_sampled = np.concatenate([np.moveaxis(d, 3, 0) for _, d, _ in swept])[:rows]
        d_theta, _ = run._shared.vjp(self.theta, np.zeros((1, self.x.shape[1])), self.shared_factors, d_shared)
        more, d_x = run._sampled.vjp(self.theta, self.x, self.sampled_factors, d_sampled)
        d_inputs[:, width:] = d_x
        if width:
            d_inputs[:, :width] = np.concatenate([d for _, _, d in swept])
        return (d_theta + more).astype(run.dtype), d_inputs

    def _sweep(self, chunk: int, cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Gradients of one chunk: of shared matrices, sampled ones, and amplitudes."""
        run, program, kernels, first = self.run, self.program, self.kernels, chunk * self.lanes
        mine = cotangents[first : first + self.lanes]
        matrices = self.shared, self.sampled[chunk]
        d_shared = np.zeros((len(program.shared), 4, 4))
        d_sampled = np.zeros((len(program.sampled), 4, 4, self.lanes))
        lam = np.zeros((run._size, self.lanes), run.dtype)
        lam[program.index, : len(mine)] = product_of(program.weights, mine.T)
        kept, starts = self.kept[chunk], []
        if kept is None:
            state = self._begin(chunk)
            for begin, end, _, _ in self.parts[:-1]:
                starts.append(state.copy())
                kernels.evolve(state, *matrices, begin, end)
            starts.append(state)
        for number in range(len(self.parts) - 1, -1, -1):
            begin, end, base, count = self.parts[number]
            held = kept
            if held is None:
                held = self._buffer(count)
                kernels.evolve(starts[number], *matrices, begin, end, held, base)
            kernels.pull(lam, *matrices, max(begin, run._first), end, held, base, d_shared, d_sampled)
        d_amplitudes = None
        if run._width:
            rows = self.inputs[first : first + self.lanes, : run._width]
            d_amplitudes = components_vjp(rows, lam[:, : len(rows)].astype(np.float64))
        return d_shared, d_sampled, d_amplitudes


def _parts(gradients: list[int], n_steps: int, most: int) -> list[tuple[int, int, int, int]]:
    """Steps [first, last), the number of the first gradient in them and how many there are: at most √K or `most`."""
    count = len(gradients)
    each = count if count <= most else max(most, math.isqrt(count - 1) + 1)
    out, begin = [], 0
    for base in range(0, count, max(each, 1)):
        end = gradients[base + each] if base + each < count else n_steps
        out.append((begin, end, base, min(each, count - base)))
        begin = end
    return out or [(0, n_steps, 0, 0)]


def _has_numba() -> bool:
    return find_spec("numba") is not None


def _kernels(program: Program, dtype: np.dtype) -> ArrayKernels:
    if not _has_numba():
        return ArrayKernels(program, dtype)
    from .kernels import NumbaKernels

    return NumbaKernels(program, dtype)


@hookimpl
def qstore_backend(options: dict[str, Any]) -> DensityBackend:
    """The `density` backend; see `DensityBackend`."""
    check_options(options, ("noise_model", "threads"), backend="density")
    return DensityBackend(**options)
