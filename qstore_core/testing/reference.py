"""Dense reference for the conformance checks: gate-table matrices, one sample at a time, nothing of any engine.

Slow on purpose: it shares only the gate table and the circuit with what it judges, not the Plan.
"""

from __future__ import annotations

import numpy as np

from ..circuit.circuit import Circuit
from ..circuit.gates import GATES
from ..circuit.measurement import Measurement, Probabilities

__all__ = ["outputs", "scales"]


def outputs(circuit: Circuit, measurement: Measurement, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Exact outputs (B, O), float64.

    Args:
        circuit: The circuit.
        measurement: What is read from its final state.
        theta: (W,), radians.
        inputs: (B, I): amplitudes (unit rows), then angles in radians.

    Example:
        >>> from qstore_core import Circuit, Expectation
        >>> c = Circuit(1)
        >>> c.ry(c.inputs(1)[0], 0)
        >>> outputs(c, Expectation(), np.zeros(0), np.array([[0.3]])).round(4)
        array([[0.9553]])
    """
    rows = [_measure(circuit, measurement, _final_state(circuit, theta, row)) for row in inputs]
    return np.array(rows, np.float64).reshape(len(inputs), measurement.n_outputs(circuit.n_qubits))


def scales(circuit: Circuit, measurement: Measurement) -> np.ndarray:
    """Bound of one shot's standard deviation for every output, (O,)."""
    if isinstance(measurement, Probabilities):
        return np.full(measurement.n_outputs(circuit.n_qubits), 0.5)
    terms = [observable.terms for observable in measurement.as_observables(circuit.n_qubits)]
    return np.array([sum(abs(coefficient) for _, coefficient in term) for term in terms])


def _final_state(circuit: Circuit, theta: np.ndarray, row: np.ndarray) -> np.ndarray:
    n, width = circuit.n_qubits, circuit.n_amplitudes
    state = np.zeros(1 << n, complex)
    if width:
        state[:] = row[:width]
    else:
        state[0] = 1.0
    state = state.reshape((2,) * n)
    for op in circuit.operations:
        matrix = GATES[op.gate].matrix(*(angle.value(theta, row[width:]) for angle in op.params))
        state = _apply(state, np.asarray(matrix, complex), op.qubits)
    return state


def _apply(state: np.ndarray, matrix: np.ndarray, qubits: tuple[int, ...]) -> np.ndarray:
    k = len(qubits)
    state = np.tensordot(matrix.reshape((2,) * (2 * k)), state, (range(k, 2 * k), qubits))
    return np.moveaxis(state, range(k), qubits)


def _measure(circuit: Circuit, measurement: Measurement, state: np.ndarray) -> np.ndarray:
    n = circuit.n_qubits
    if isinstance(measurement, Probabilities):
        kept = tuple(range(n)) if measurement.qubits is None else measurement.qubits
        probabilities = np.abs(state) ** 2
        traced = tuple(q for q in range(n) if q not in kept)
        left = [q for q in range(n) if q in kept]
        probabilities = probabilities.sum(axis=traced).transpose([left.index(q) for q in kept]).reshape(-1)
        if measurement.n_classes is None:
            return probabilities
        return np.bincount(np.arange(len(probabilities)) % measurement.n_classes, probabilities)
    paulis = {letter.upper(): np.asarray(GATES[letter].matrix()) for letter in "xyz"}
    values = []
    for observable in measurement.as_observables(n):
        total = 0.0
        for string, coefficient in observable.terms:
            turned = state
            for qubit, letter in enumerate(string):
                if letter != "I":
                    turned = _apply(turned, paulis[letter], (qubit,))
            total += coefficient * float(np.vdot(state, turned).real)
        values.append(total)
    return np.array(values)
