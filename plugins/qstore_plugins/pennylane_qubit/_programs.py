"""Tapes as compiled circuits: structure on one side, numbers on the other.

A `Program` is what tapes of equal structure have in common: gates with slots for numbers, and what is read. A number
is a weight where the whole batch shares it and an input where it does not, so that equal structures are one entry of
qstore's circuit cache, and a broadcast tape, or many tapes of one structure, are one call of the engine.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pennylane as qml

from qstore_core import Circuit, Expectation, InputError, Pauli, Probabilities, get_backend
from qstore_core.circuit.measurements.measurement import Amplitudes, Measurement
from qstore_core.runtime.cache import Recipe, compiled

from ._operations import Piece

__all__ = ["Batch", "Gates", "Numbers", "Reading", "run"]

VjpFn = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Gates:
    """Gates on qubits by number; each angle has a slot of its own. `starts`: the start state is an input."""

    n_qubits: int
    starts: bool
    gates: tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Reading:
    """What a run is read for: Pauli strings, probabilities of some qubits, or states where there is neither."""

    strings: tuple[str, ...] = ()
    qubits: tuple[int, ...] = ()

    @property
    def is_state(self) -> bool:
        """Whether the state is read."""
        return not (self.strings or self.qubits)

    def measurement(self) -> Measurement:
        """As qstore says it."""
        if self.is_state:
            return Amplitudes()
        if self.strings:
            return Expectation(observables=tuple(Pauli(string) for string in self.strings))
        return Probabilities(self.qubits)


class Numbers:
    """The numbers of one tape, in the order of the slots, and its start state.

    Attributes:
        values: One per slot: a float, or (B,).
        params: For each slot the parameter of the tape that it is; -1 for constants.
        start: None, (2**n,) or (B, 2**n).
        start_param: The parameter that the start state is made of; -1 where there is none.
        batch: Size of the batch; None for a tape that is none.
    """

    __slots__ = ("batch", "params", "start", "start_param", "values")

    def __init__(self, pieces: Sequence[Piece], params: tuple[int, ...], batch: int | None) -> None:
        self.values = [_number(number) for piece in pieces for number in piece.numbers]
        self.params, self.batch = params, batch
        self.start: np.ndarray | None = None
        self.start_param = -1

    @property
    def rows(self) -> int:
        """Rows of a batch that these are."""
        return 1 if self.batch is None else self.batch


class Batch:
    """Numbers of tapes of one structure, one below the other.

    Args:
        tapes: Their numbers.
        separate: True where each row's gradient is wanted, so that no parameter is shared by rows.
    """

    def __init__(self, tapes: Sequence[Numbers], *, separate: bool = False) -> None:
        self.tapes = tapes
        self.n_rows = sum(tape.rows for tape in tapes)
        self.edges = np.cumsum([0, *(tape.rows for tape in tapes)])
        first = tapes[0]
        if len(tapes) == 1 and first.batch is None:
            self.varies = (separate,) * len(first.values)
        elif len(tapes) == 1:
            self.varies = tuple(separate or getattr(v, "ndim", 0) > 0 for v in first.values)
        else:
            self.varies = tuple(
                (separate and param >= 0) or not _is_same(column)
                for param, *column in zip(first.params, *(tape.values for tape in tapes), strict=True)
            )
        inputs, weights = [], []
        for k, varies in enumerate(self.varies):
            if not varies:
                weights.append(first.values[k])
            elif len(tapes) == 1:
                inputs.append(np.broadcast_to(first.values[k], (self.n_rows,)))
            else:
                inputs.append(np.concatenate([np.broadcast_to(tape.values[k], (tape.rows,)) for tape in tapes]))
        self.theta = np.array(weights, float).reshape(len(weights))
        columns = np.array(inputs, float).reshape(len(inputs), self.n_rows).T
        if first.start is not None:
            starts = [np.broadcast_to(_start(tape), (tape.rows, _start(tape).shape[-1])) for tape in tapes]
            columns = np.concatenate([*_stacked(starts), columns], axis=1)
        self.inputs = np.ascontiguousarray(columns)
        self.width = 0 if first.start is None else first.start.shape[-1]
        if not (np.isfinite(self.theta).all() and np.isfinite(self.inputs).all()):
            raise InputError(
                "a parameter of the circuit is NaN or infinite; gates take finite angles. Where training diverged, "
                "lower the step size."
            )

    def same_as(self, other: Batch) -> bool:
        """Whether all numbers are equal, and their places."""
        return (
            self.varies == other.varies
            and np.array_equal(self.theta, other.theta)
            and np.array_equal(self.inputs, other.inputs)
            and np.array_equal(self.edges, other.edges)
        )

    def by_slot(self, d_theta: np.ndarray, d_inputs: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Gradients as the engine gives them → per slot, a number where it is shared or (rows,); and of the start."""
        shared, own = iter(d_theta), iter(d_inputs[:, self.width :].T)
        return [next(own) if varies else np.asarray(next(shared)) for varies in self.varies], d_inputs[:, : self.width]


def _number(value: Any) -> Any:
    """A float, or an array (B,)."""
    if isinstance(value, float):
        return value
    return float(value) if np.ndim(value) == 0 else np.asarray(qml.math.toarray(value), float)


def _start(tape: Numbers) -> np.ndarray:
    assert tape.start is not None
    return tape.start


def _stacked(parts: list[np.ndarray]) -> list[np.ndarray]:
    return [np.concatenate(parts, axis=0)]


def _is_same(column: Sequence[Any]) -> bool:
    first = column[0]
    return all(getattr(v, "ndim", 0) == 0 for v in column) and all(v == first for v in column)


@functools.lru_cache(maxsize=512)
def _recipe(gates: Gates, reading: Reading, varies: tuple[bool, ...], backend: Any) -> Recipe:
    """What is compiled, with a weight or an input for each slot."""
    circuit = Circuit(gates.n_qubits, amplitudes=gates.starts)
    inputs, weights = iter(circuit.inputs(sum(varies))), iter(circuit.weights(len(varies) - sum(varies)))
    slots = iter([next(inputs) if one else next(weights) for one in varies])
    for name, qubits in gates.gates:
        circuit.append(name, qubits, [next(slots) for _ in range(_n_params(name))])
    return Recipe(circuit, reading.measurement(), backend, "float64")


@functools.lru_cache(maxsize=1024)
def _n_params(name: str) -> int:
    from qstore_core.circuit.gates.table import gate

    return gate(name).n_params


def run(gates: Gates, reading: Reading, batch: Batch, backend: Any, *, vjp: bool = False) -> tuple[np.ndarray, Any]:
    """Outputs (rows, O) of one call of the engine, and the function that pulls cotangents back where asked for.

    The gradient of a start state is that of a state of any norm: ⟨ψ|O|ψ⟩ grows with the square of its length, so
    twice the value goes along the state, which engines that normalise leave out. States come from an engine that
    holds them.
    """
    if reading.is_state and not backend.capabilities.amplitudes:
        backend = get_backend("statevector")
    executable = compiled(_recipe(gates, reading, batch.varies, backend))
    if not vjp:
        return executable.forward(batch.theta, batch.inputs), None
    outputs, engine_vjp = executable.value_and_vjp(batch.theta, batch.inputs)  # type: ignore[attr-defined]
    if not (batch.width and backend.capabilities.features):
        return outputs, engine_vjp

    def vjp_fn(cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        d_theta, d_inputs = engine_vjp(cotangents)
        start, d_start = batch.inputs[:, : batch.width], d_inputs[:, : batch.width].copy()
        d_start -= (d_start * start).sum(axis=1, keepdims=True) * start
        d_start += 2 * (cotangents * outputs).sum(axis=1, keepdims=True) * start
        return d_theta, np.concatenate([d_start, d_inputs[:, batch.width :]], axis=1)

    return outputs, vjp_fn
