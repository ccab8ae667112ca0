"""PennyLane tapes of a circuit, and their executables on any device.

A batch is one call of the device: one tape with broadcast angles where the device takes such, otherwise a tape per
sample that shares all gates which do not differ. Gradients are those of the device: back-propagation through a
simulator in array operations, or the adjoint method of a statevector simulator.

A device inside `qml.add_noise` (or another transform) gets circuits as they are written: its noise is put behind our
gates first, and what the device does not know is decomposed then. Changes of the measured basis have no noise.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pennylane as qml
from autograd import make_vjp
from pennylane.devices import ExecutionConfig
from pennylane.queuing import AnnotatedQueue
from pennylane.tape import QuantumScript
from scipy.sparse import csr_matrix, diags_array

from qstore_core import Circuit
from qstore_core.backends.contract import RunReport
from qstore_core.backends.forking import new_lock, off_forked_thread
from qstore_core.circuit.measurements.measurement import Measurement
from qstore_core.engines.readout import Readout

from ._gates import OPERATIONS, Gates

__all__ = ["Adjoint", "BackPropagation", "Device", "Exact", "Sampled", "queuing", "unwrapped"]


_gate = threading.Lock()  # closed while a fork waits its turn


@contextlib.contextmanager
def queuing() -> Iterator[None]:
    """Hold PennyLane's lock of what it records: operations that are made while another thread records land there."""
    lock = AnnotatedQueue._lock
    if not lock._is_owned():
        with _gate:
            pass
    with lock:
        yield


def _before_fork() -> None:
    _gate.acquire()
    AnnotatedQueue._lock.acquire()


def _after_fork() -> None:
    AnnotatedQueue._lock.release()
    _gate.release()


# A fork waits until no thread is in the middle of PennyLane: what that has locked and recorded is of no use to a child.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def _alone(method: Callable[..., Any]) -> Any:
    """A method of an executable, while no other thread makes operations, nor runs a local device."""

    @off_forked_thread
    @functools.wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self._device.alone():
            return method(self, *args, **kwargs)

    return run


class Device:
    """A PennyLane device that runs tapes. One call at a time: devices keep their state in themselves.

    Args:
        device: The device.
        gradient: How it differentiates: "backprop", "adjoint" or None.
        seeded: Makes it anew with a seed, where it takes one.
        remote: Running is I/O, which other devices do not wait for.
    """

    def __init__(
        self,
        device: Any,
        gradient: str | None = None,
        *,
        seeded: Callable[[int], Any] | None = None,
        remote: bool = False,
    ) -> None:
        self._device, self._seeded, self._remote = device, seeded, remote
        self._lock = new_lock(self, "_lock", threading.RLock)
        device, transforms = unwrapped(device)
        self._program, self.config = device.preprocess(
            ExecutionConfig(gradient_method=gradient, use_device_gradient=gradient is not None)
        )
        self._transforms = type(self._program)()
        for transform in transforms:
            self._transforms = transform(self._transforms)

    def alone(self) -> Any:
        """A lock for all that a call does; for a remote device none, since that would last."""
        return contextlib.nullcontext() if self._remote else queuing()

    @property
    def is_noisy(self) -> bool:
        """Whether there are transforms around it, as those that add noise."""
        return len(self._transforms) > 0

    def prepare(
        self, tapes: Sequence[QuantumScript], basis_changes: Sequence[int] | None = None
    ) -> tuple[Sequence[QuantumScript], Callable[[Any], Any]]:
        """Tapes as the device takes them, and the function from its results to theirs.

        Args:
            tapes: As they are written.
            basis_changes: How many operations at the end of each only change the measured basis, which
                is free of noise.
        """
        if not self.is_noisy:
            prepared, back = self._program(tapes)
            return prepared, back
        noisy: list[QuantumScript] = []
        backs: list[tuple[int, Callable[[Any], Any]]] = []
        for tape, count in zip(tapes, basis_changes or [0] * len(tapes), strict=True):
            split = len(tape.operations) - count
            bare = QuantumScript(tape.operations[:split], tape.measurements, shots=tape.shots)
            made, back = self._transforms([bare])
            after = tape.operations[split:]
            noisy += [QuantumScript([*one.operations, *after], one.measurements, shots=one.shots) for one in made]
            backs.append((len(made), back))
        prepared, back_all = self._program(noisy)

        def unprepare(results: Any) -> Any:
            results, out = list(back_all(results)), []
            for count, back in backs:
                out += back(tuple(results[:count]))
                del results[:count]
            return out

        return prepared, unprepare

    def takes(self, tape: QuantumScript) -> bool:
        """Whether the device runs a tape as it is, so that others with its gates need no preparation."""
        if self.is_noisy:  # noise may depend on angles
            return False
        prepared, back = self.prepare([tape])
        if len(prepared) != 1 or len(prepared[0].operations) != len(tape.operations):
            return False
        same = all(a is b for a, b in zip(prepared[0].operations, tape.operations, strict=True))
        mark = object()
        try:
            result = back((mark,))
        except Exception:  # noqa: BLE001 - it works on results, so they are not passed on as they are
            return False
        return same and prepared[0].measurements == tape.measurements and len(result) == 1 and result[0] is mark

    def run(
        self,
        tapes: list[QuantumScript],
        as_they_are: bool,
        seed: int | None = None,
        basis_changes: Sequence[int] | None = None,
    ) -> Any:
        """Results of all tapes, from one call of the device; `basis_changes` as in `prepare`."""
        with queuing():
            prepared, back = (tapes, None) if as_they_are else self.prepare(tapes, basis_changes)
        with self._lock if self._remote else queuing():
            device = self._device
            if seed is not None and self._seeded is not None:  # a device of this call's own
                device = self._seeded(seed)
            elif seed is not None:
                _reseed(device, seed)
            results = device.execute(prepared, self.config)
        return results if back is None else back(results)

    def vjp(self, tapes: list[QuantumScript], cotangents: list[Any]) -> Any:
        """The device's own vjp; the tapes are as it takes them."""
        with queuing():
            return self._device.compute_vjp(tapes, cotangents, self.config)


def unwrapped(device: Any) -> tuple[Any, list[Callable[[Any], Any]]]:
    """A device without the transforms around it, and these, innermost first."""
    transforms: list[Callable[[Any], Any]] = []
    while hasattr(device, "original_device") and hasattr(device, "transform"):
        transforms.insert(0, partial(_transformed, device.transform, device.targs, device.tkwargs))
        device = device.original_device
    return device, transforms


def _transformed(transform: Any, args: Sequence[Any], options: dict[str, Any], program: Any) -> Any:
    return transform(program, *args, **options)


def _reseed(device: Any, seed: int) -> None:
    """Begin the random numbers of a device that was given anew, wherever it keeps them; hardware has none."""
    while device is not None:
        if isinstance(getattr(device, "_rng", None), np.random.Generator):
            device._rng = np.random.default_rng(seed)
        device = getattr(device, "_original_device", None) or getattr(device, "target_device", None)


class _Base:
    """What the executables here share."""

    def __init__(self, circuit: Circuit, measurement: Measurement, device: Device, dtype: str) -> None:
        self._gates = Gates(circuit, "whole" if device.is_noisy else "named")
        self._readout = Readout(measurement, circuit.n_qubits)
        self._device, self._dtype = device, dtype
        self._varies = circuit.n_amplitudes > 0 or bool(self._gates.differs.any())
        self._broadcasts = self._as_they_are = False

    def _probe(self, readings: Sequence[tuple[list[Any], list[Any]]], shots: int | None = None) -> None:
        """Learn whether the device broadcasts, and whether it takes our tapes as they are."""
        values = np.full((2, len(self._gates.table)), 0.1)
        starts = np.eye(2, self._gates.width) if self._gates.width else None

        def takes_all() -> bool:
            return all(map(self._device.takes, self._tapes(values, starts, readings, shots)))

        self._broadcasts = self._varies
        self._as_they_are = takes_all()
        if self._broadcasts and not self._as_they_are:
            self._broadcasts = False
            self._as_they_are = takes_all()

    def _tapes(
        self, values: np.ndarray, starts: np.ndarray | None, readings: Sequence[tuple[list[Any], list[Any]]],
        shots: int | None = None,
    ) -> list[QuantumScript]:  # fmt: skip
        """Tapes of a batch: for each `(rotations, measurements)` a broadcast one, or one per sample."""
        with queuing():
            rows = self._started(self._rows(values), starts)
            return [QuantumScript([*row, *after], read, shots=shots) for after, read in readings for row in rows]

    def _rows(self, values: np.ndarray) -> list[list[Any]]:
        if not self._broadcasts or len(values) == 1:  # PennyLane fails on a batch of one from 12 qubits on
            return self._gates.rows(values)
        differs = enumerate(self._gates.differs)
        return [self._gates.operations([values[:, column] if d else values[0, column] for column, d in differs])]

    def _started(self, rows: list[list[Any]], starts: np.ndarray | None) -> list[list[Any]]:
        if starts is None:
            return rows
        loads = [self._gates.load(start) for start in ([starts] if self._broadcasts and len(starts) > 1 else starts)]
        return [[load, *row] for load, row in zip(loads, rows, strict=True)]


class Exact(_Base):
    """Exact values."""

    def __init__(self, circuit: Circuit, measurement: Measurement, device: Device, dtype: str) -> None:
        super().__init__(circuit, measurement, device, dtype)
        if self._readout.is_probabilities:
            self._measurements = [qml.probs(wires=range(circuit.n_qubits))]
        else:
            self._measurements = [_expectation(string) for string in self._readout.strings]
        if self._measurements:
            self._probe([([], self._measurements)])

    @_alone
    def forward(self, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """Outputs (B, O)."""
        gates, shape = self._gates, (len(inputs), self._readout.n_outputs)
        if not (len(inputs) and self._measurements):
            return np.broadcast_to(self._readout.constant, shape).astype(self._dtype)
        some = inputs if self._varies else inputs[:1]
        tapes = self._tapes(gates.values(theta, some), gates.starts(some), [([], self._measurements)])
        results = self._device.run(tapes, self._as_they_are)
        read = self._read(results[0]) if self._broadcasts else np.array([self._read(result) for result in results])
        return np.broadcast_to(self._outputs(read.reshape(len(some), -1)), shape).astype(self._dtype)

    def _read(self, result: Any) -> np.ndarray:
        """One tape's results, strings or basis states last."""
        return np.asarray(result) if len(self._measurements) == 1 else np.stack(result, axis=-1)

    def _by_starts(self, values: np.ndarray, starts: np.ndarray, cotangents: np.ndarray) -> np.ndarray:
        """The gradient (B, 2**n) by amplitudes, `2 Re U† O U ψ`: two more runs, to the end states and back."""
        rows = self._rows(values)
        pulled = self._readout.pull_states(self._states(self._started(rows, starts), len(starts)), cotangents)
        norms = np.linalg.norm(pulled, axis=1, keepdims=True)
        pulled[norms[:, 0] == 0] = np.eye(1, pulled.shape[1])  # any state: it counts with its norm
        undo = [[qml.adjoint(op, lazy=False) for op in reversed(row)] for row in rows]
        units = pulled / np.where(norms == 0, 1.0, norms)
        return 2 * norms * self._states(self._started(undo, units), len(starts)).real

    def _states(self, rows: list[list[Any]], batch: int) -> np.ndarray:
        tapes = [QuantumScript(row, [qml.state()]) for row in rows]
        return np.array(self._device.run(tapes, self._device.takes(tapes[0]))).reshape(batch, -1)

    def _outputs(self, read: np.ndarray) -> np.ndarray:
        if self._readout.is_probabilities:
            return self._readout.fold(read)
        return read @ self._readout.weights + self._readout.constant


class BackPropagation(Exact):
    """Exact values of a simulator in array operations, differentiated by autograd."""

    def vjp(self, theta: np.ndarray, inputs: np.ndarray, cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`(d_theta (W,), d_inputs (B, I))`."""
        return self.value_and_vjp(theta, inputs)[1](cotangents)

    @_alone
    def value_and_vjp(self, theta: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, Callable[..., Any]]:
        """Outputs, and the function that pulls cotangents back."""
        if not (len(inputs) and self._measurements):
            return self.forward(theta, inputs), lambda _: (np.zeros_like(theta), np.zeros_like(inputs))
        gates, shape = self._gates, (len(inputs), self._readout.n_outputs)
        values, starts = gates.values(theta, inputs), gates.starts(inputs)
        rows, one = len(inputs) if self._varies else 1, len(inputs) == 1
        load = [] if starts is None else [gates.load(starts[0] if one else starts)]
        varying, shared = np.flatnonzero(gates.differs), np.flatnonzero(~gates.differs)

        def run(x: Any, weights: Any) -> Any:
            angles: list[Any] = [None] * len(gates.differs)
            for place, column in enumerate(varying):
                angles[column] = x[0, place] if one else x[:, place]
            for place, column in enumerate(shared):
                angles[column] = weights[place]
            (result,) = self._device.run([QuantumScript([*load, *gates.operations(angles)], self._measurements)],
                                         self._as_they_are)  # fmt: skip
            return result if len(self._measurements) == 1 else qml.math.stack(result, axis=-1)

        if not len(gates.table):  # autograd would warn that nothing depends on nothing

            def pull_starts(cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
                c = np.asarray(cotangents, np.float64)
                d_start = np.zeros((len(inputs), 0)) if starts is None else self._by_starts(values, starts, c)
                return gates.gradient(np.zeros_like(values), d_start, theta, inputs)

            return self.forward(theta, inputs), partial(_alone(BackPropagation._call), self, pull_starts)
        # Complex angles: PennyLane casts real ones, and autograd warns when it casts their slopes back.
        vjp_fn, read = make_vjp(run, (0, 1))(values[:, varying] + 0j, values[0, shared] + 0j)
        read = np.asarray(read).real

        def pullback(cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            c = np.asarray(cotangents, np.float64)
            c = c if self._varies else c.sum(axis=0, keepdims=True)
            d_read = self._readout.spread(c) if self._readout.is_probabilities else c @ self._readout.weights.T
            d_x, d_weights = vjp_fn(d_read.reshape(read.shape))
            d_values = np.zeros_like(values)
            d_values[:, varying] = d_x.real
            d_values[0, shared] = d_weights.real  # summed over the batch
            d_start = np.zeros((len(inputs), 0)) if starts is None else self._by_starts(values, starts, c)
            return gates.gradient(d_values, d_start, theta, inputs)

        return np.broadcast_to(self._outputs(read.reshape(rows, -1)), shape).astype(self._dtype), partial(
            _alone(BackPropagation._call), self, pullback
        )

    def _call(self, function: Callable[[np.ndarray], Any], cotangents: np.ndarray) -> Any:
        return function(cotangents)


class Adjoint(Exact):
    """Exact values and the adjoint method of a statevector simulator.

    Args:
        circuit: What is run.
        measurement: What is read.
        device: For values.
        adjoint: The same device, for gradients.
        dtype: Of the outputs.
    """

    def __init__(self, circuit: Circuit, measurement: Measurement, device: Device, adjoint: Device, dtype: str) -> None:
        super().__init__(circuit, measurement, device, dtype)
        self._adjoint, self._pulled = adjoint, Gates(circuit)
        if not self._takes_gradients():  # rewritten tapes would have other parameters than ours
            self._pulled = Gates(circuit, "basic")

    @_alone
    def vjp(self, theta: np.ndarray, inputs: np.ndarray, cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`(d_theta (W,), d_inputs (B, I))`."""
        gates, cotangents = self._pulled, np.asarray(cotangents, np.float64)
        values, starts = gates.values(theta, inputs), gates.starts(inputs)
        d_values, d_start = np.zeros_like(values), np.zeros((len(inputs), gates.width))
        if len(inputs) and self._measurements:
            rows = gates.rows(values)
            if starts is not None:
                d_start = self._by_starts(self._gates.values(theta, inputs), starts, cotangents)
            if len(gates.table):
                tapes = self._gradient_tapes(rows, starts, cotangents)
                seeds: list[Any] = [1.0] * len(tapes)
                if not self._readout.is_probabilities:
                    strings = cotangents @ self._readout.weights.T
                    seeds = [row[0] if len(row) == 1 else tuple(row) for row in strings]
                d_values = np.array([np.reshape(d, -1) for d in self._adjoint.vjp(tapes, seeds)])
        return gates.gradient(d_values, d_start, theta, inputs)

    def _gradient_tapes(
        self, rows: list[list[Any]], starts: np.ndarray | None, cotangents: np.ndarray
    ) -> list[QuantumScript]:
        """A tape per sample: the strings, or for probabilities the one observable that the cotangents make."""
        gates, loads = self._pulled, [] if starts is None else [[self._pulled.load(start)] for start in starts]
        variable = gates.variable(1 if loads else 0)
        tapes = []
        for number, row in enumerate(rows):
            read = self._measurements
            if self._readout.is_probabilities:
                diagonal = csr_matrix(diags_array(self._readout.spread(cotangents[number : number + 1])[0]))
                read = [qml.expval(qml.SparseHamiltonian(diagonal, wires=range(gates.n_qubits)))]
            tape = QuantumScript([*(loads[number] if loads else []), *row], read)
            tape.trainable_params = variable
            tapes.append(tape)
        return tapes

    def _takes_gradients(self) -> bool:
        gates = self._pulled
        rows, starts = gates.rows(np.full((1, len(gates.table)), 0.1)), np.eye(1, 1 << gates.n_qubits)
        tapes = self._gradient_tapes(rows, starts if gates.width else None, np.ones((1, self._readout.n_outputs)))
        return all(map(self._adjoint.takes, tapes))


class Sampled(_Base):
    """Sample means and their standard errors; every group of strings that fit together is measured once per sample.

    Args:
        circuit: What is run.
        measurement: What is read.
        device: Where.
        dtype: Of the outputs.
        shots: Per sample and group.
    """

    def __init__(self, circuit: Circuit, measurement: Measurement, device: Device, dtype: str, shots: int) -> None:
        super().__init__(circuit, measurement, device, dtype)
        self._shots = shots
        self._readings = []
        for group in self._readout.groups:
            basis_changes = []
            for qubit, letter in zip(group.qubits, group.letters, strict=True):
                basis_changes += [OPERATIONS["sdg"]([qubit])] if letter == "Y" else []
                basis_changes += [qml.Hadamard(qubit)] if letter in "XY" else []
            self._readings.append((basis_changes, [qml.sample(wires=group.qubits)]))
        if self._readings:
            self._probe(self._readings, shots)

    def forward(self, theta: np.ndarray, inputs: np.ndarray, *, seed: int | None = None) -> np.ndarray:
        """Outputs (B, O)."""
        return self.value_and_report(theta, inputs, seed=seed)[0]

    @_alone
    def value_and_report(
        self, theta: np.ndarray, inputs: np.ndarray, *, seed: int | None = None
    ) -> tuple[np.ndarray, RunReport]:
        """The same, with standard errors."""
        batch = len(inputs)
        if not batch:
            nothing = np.zeros((0, self._readout.n_outputs), self._dtype)
            return nothing, RunReport(std_error=nothing)
        gates, samples = self._gates, []
        tapes = self._tapes(gates.values(theta, inputs), gates.starts(inputs), self._readings, self._shots)
        size = 1 if self._broadcasts else batch
        basis_changes = [len(after) for after, _ in self._readings for _ in range(size)]
        results = self._device.run(tapes, self._as_they_are, seed, basis_changes) if tapes else []
        for number, group in enumerate(self._readout.groups):
            bits = np.concatenate(
                [np.reshape(one, (-1, len(group.qubits))) for one in results[number * size : (number + 1) * size]]
            ).astype(np.uint8)
            rows = np.repeat(np.arange(batch), len(bits) // batch)
            samples.append((bits, rows, np.ones(len(bits))))
        outputs, error = self._readout.from_samples(samples, batch)
        return outputs.astype(self._dtype), RunReport(std_error=error)


def _expectation(string: str) -> Any:
    return qml.expval(qml.pauli.string_to_pauli_word(string))
