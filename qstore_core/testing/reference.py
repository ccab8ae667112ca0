"""Dense reference for the conformance checks: gate-table matrices on state vectors, nothing of any engine.

Values are float64, and gradients are differences of them: both share only the gate table and the circuit with what
they judge, not the Plan, and no rule of differentiation.
"""

from __future__ import annotations

import numpy as np

from ..circuit.circuit import Circuit
from ..circuit.gates import GATES
from ..circuit.measurement import Expectation, Measurement, Pauli, Probabilities

__all__ = ["deviations", "outputs", "slopes", "unit"]

_STEP = 1e-3  # five-point differences: truncation and rounding are both below 1e-11 for slots that appear a few times


def outputs(circuit: Circuit, measurement: Measurement, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Exact outputs (B, O), float64.

    Args:
        circuit: The circuit.
        measurement: What is read from its final state.
        theta: (W,), or one row of weights per sample (B, W); radians.
        inputs: (B, I): amplitudes (unit rows), then angles in radians.

    Example:
        >>> from qstore_core import Circuit, Expectation
        >>> c = Circuit(1)
        >>> c.ry(c.inputs(1)[0], 0)
        >>> outputs(c, Expectation(), np.zeros(0), np.array([[0.3]])).round(4)
        array([[0.9553]])
    """
    return _measure(circuit.n_qubits, measurement, _states(circuit, theta, inputs))


def deviations(circuit: Circuit, measurement: Measurement, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Standard deviation (B, O) of one shot of every output: each Pauli string is measured on its own.

    Strings that are measured together may be correlated: that changes an output's deviation by what the sum of its
    terms' covariances says, which is included as the bound Σ|c|σ where an observable has several terms.
    """
    states, n = _states(circuit, theta, inputs), circuit.n_qubits
    if isinstance(measurement, Probabilities):
        p = _measure(n, measurement, states)
        return np.sqrt(np.clip(p * (1 - p), 0.0, None))
    columns = []
    for observable in measurement.as_observables(n):
        values = [(c, _measure(n, Expectation(observables=(Pauli(s),)), states)[:, 0]) for s, c in observable.terms]
        columns.append(sum(abs(c) * np.sqrt(np.clip(1 - v**2, 0.0, None)) for c, v in values))
    return np.stack(columns, axis=1)


def slopes(
    circuit: Circuit, measurement: Measurement, theta: np.ndarray, inputs: np.ndarray, cotangents: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`(d_theta (W,), d_inputs (B, I))` of `(cotangents · outputs).sum()`; amplitudes move along the sphere."""
    batch, weights, columns = len(inputs), len(theta), inputs.shape[1]
    count, width = weights + columns, circuit.n_amplitudes
    if not count:
        return np.zeros(0), np.zeros((batch, 0))
    point = np.concatenate([np.broadcast_to(theta, (batch, weights)), inputs], axis=1)
    moves = np.eye(count)[None] * (_STEP * np.array([1.0, -1.0, 2.0, -2.0]))[:, None, None]
    points = (point + moves[:, :, None, :]).reshape(-1, count)
    if width:
        points[:, weights : weights + width] = unit(points[:, weights : weights + width])
    values = outputs(circuit, measurement, points[:, :weights], points[:, weights:]).reshape(4, count, batch, -1)
    near, far = values[0] - values[1], values[2] - values[3]
    d = (((8 * near - far) / (12 * _STEP)) * cotangents).sum(axis=2)
    return d[:weights].sum(axis=1), d[weights:].T


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _states(circuit: Circuit, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Final states (B, 2, …, 2)."""
    n, width, batch = circuit.n_qubits, circuit.n_amplitudes, len(inputs)
    state = np.zeros((batch, 1 << n), complex)
    if width:
        state[:] = inputs[:, :width]
    else:
        state[:, 0] = 1.0
    state = state.reshape((batch, *(2,) * n))
    weights, angles = np.asarray(theta).T, inputs[:, width:].T
    for op in circuit.operations:
        values = np.array([np.broadcast_to(angle.value(weights, angles), batch) for angle in op.params])
        state = _apply(state, _matrices(op.gate, values.reshape(len(op.params), batch)), op.qubits)
    return state


def _matrices(name: str, values: np.ndarray) -> np.ndarray:
    """The gate's matrix for every sample (B, k, k), or one for all of them (1, k, k)."""
    if not len(values) or (values == values[:, :1]).all():
        return np.asarray(GATES[name].matrix(*values[:, 0]), complex)[None]
    different, which = np.unique(values, axis=1, return_inverse=True)
    return np.array([GATES[name].matrix(*row) for row in different.T], complex)[which.reshape(-1)]


def _apply(state: np.ndarray, matrices: np.ndarray, qubits: tuple[int, ...]) -> np.ndarray:
    k, axes = len(qubits), [1 + q for q in qubits]
    moved = np.moveaxis(state, axes, range(1, k + 1))
    return np.moveaxis((matrices @ moved.reshape(len(state), 1 << k, -1)).reshape(moved.shape), range(1, k + 1), axes)


def _measure(n: int, measurement: Measurement, state: np.ndarray) -> np.ndarray:
    batch = len(state)
    if isinstance(measurement, Probabilities):
        kept = tuple(range(n)) if measurement.qubits is None else measurement.qubits
        traced = tuple(1 + q for q in range(n) if q not in kept)
        left = [q for q in range(n) if q in kept]
        p = (np.abs(state) ** 2).sum(axis=traced).transpose([0, *(1 + left.index(q) for q in kept)]).reshape(batch, -1)
        if measurement.n_classes is None:
            return p
        classes = np.arange(p.shape[1]) % measurement.n_classes
        return np.stack([p[:, classes == k].sum(axis=1) for k in range(measurement.n_classes)], axis=1)
    paulis = {letter.upper(): np.asarray(GATES[letter].matrix(), complex)[None] for letter in "xyz"}
    flat, columns = state.reshape(batch, -1).conj(), []
    for observable in measurement.as_observables(n):
        total = np.zeros(batch)
        for string, coefficient in observable.terms:
            flipped = state
            for qubit, letter in enumerate(string):
                if letter != "I":
                    flipped = _apply(flipped, paulis[letter], (qubit,))
            total += coefficient * (flat * flipped.reshape(batch, -1)).sum(axis=1).real
        columns.append(total)
    return np.stack(columns, axis=1)
