"""Dense reference for the conformance checks: gate-table matrices on state vectors, nothing of any engine.

Circuits with channels are density matrices here, with Kraus operators on both sides.

Values are float64, and gradients are differences of them: both share only the gate table and the circuit with what
they judge, not the Plan, and no rule of differentiation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..circuit.circuit import Circuit, Operation
from ..circuit.gates.table import GATES
from ..circuit.measurements.measurement import Amplitudes, Expectation, Measurement, Pauli, Probabilities

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
    if circuit.noisy:
        return _measure_mixed(circuit, measurement, _mixed(circuit, theta, inputs))
    return _measure(circuit.n_qubits, measurement, _states(circuit, theta, inputs))


def deviations(circuit: Circuit, measurement: Measurement, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Standard deviation (B, O) of one shot of every output: each Pauli string is measured on its own.

    Strings that are measured together may be correlated: that changes an output's deviation by what the sum of its
    terms' covariances says, which is included as the bound Σ|c|σ where an observable has several terms.
    """
    if isinstance(measurement, Probabilities):
        p = outputs(circuit, measurement, theta, inputs)
        return np.sqrt(np.clip(p * (1 - p), 0.0, None))
    columns, every = [], [o.terms for o in measurement.as_observables(circuit.n_qubits)]
    strings = sorted({string for terms in every for string, _ in terms})
    singly = Expectation(observables=tuple(map(Pauli, strings)))
    by_string = dict(zip(strings, outputs(circuit, singly, theta, inputs).T, strict=True))
    for terms in every:
        values = [(c, by_string[string]) for string, c in terms]
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
    state = _start(circuit, inputs)
    for op in circuit.operations:
        state = _apply(state, _gate(op, circuit, theta, inputs), op.qubits)
    return state


def _start(circuit: Circuit, inputs: np.ndarray) -> np.ndarray:
    n, width, batch = circuit.n_qubits, circuit.n_amplitudes, len(inputs)
    state = np.zeros((batch, 1 << n), complex)
    if width:
        state[:] = inputs[:, :width]
    else:
        state[:, 0] = 1.0
    return state.reshape((batch, *(2,) * n))


def _gate(op: Operation, circuit: Circuit, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    weights, angles, batch = np.asarray(theta).T, inputs[:, circuit.n_amplitudes :].T, len(inputs)
    values = np.array([np.broadcast_to(angle.value(weights, angles), batch) for angle in op.params])
    return _matrices(op.gate, values.reshape(len(op.params), batch))


def _mixed(circuit: Circuit, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Final density matrices (B, 2, …, 2): row qubits, then column qubits."""
    n, start = circuit.n_qubits, _start(circuit, inputs).reshape(len(inputs), -1)
    rho = (start[:, :, None] * start[:, None, :].conj()).reshape(len(inputs), *(2,) * (2 * n))
    for op in circuit.operations:
        if op.channel is None:
            kraus: Sequence[np.ndarray] = [_gate(op, circuit, theta, inputs)]
        elif op.channel.is_readout:
            continue
        else:
            kraus = [one[None] for one in op.channel.operators]
        columns = tuple(n + q for q in op.qubits)
        rho = sum((_apply(_apply(rho, k, op.qubits), k.conj(), columns) for k in kraus), np.zeros_like(rho))
    return rho


def _measure_mixed(circuit: Circuit, measurement: Measurement, rho: np.ndarray) -> np.ndarray:
    n, batch = circuit.n_qubits, len(rho)
    confusion = [np.eye(2) for _ in range(n)]
    for op in circuit.operations:
        if op.channel is not None and op.channel.is_readout:
            confusion[op.qubits[0]] = confusion[op.qubits[0]] @ op.channel.confusion
    if isinstance(measurement, Probabilities):
        p = rho.reshape(batch, 1 << n, 1 << n).diagonal(axis1=1, axis2=2).real.reshape(batch, *(2,) * n) + 0j
        for q in range(n):
            p = _apply(p, confusion[q].T[None], (q,))
        return _born(n, measurement, p.real)
    columns = []
    for observable in measurement.as_observables(n):
        total = np.zeros(batch)
        for string, coefficient in observable.terms:
            read = rho
            for q, letter in enumerate(string):
                if letter != "I":
                    zero, one = confusion[q] @ [1.0, -1.0]  # the sign that is read, by what the qubit is
                    pauli = np.asarray(GATES[letter.lower()].matrix(), complex)
                    read = _apply(read, ((zero + one) / 2 * np.eye(2) + (zero - one) / 2 * pauli)[None], (q,))
            total += coefficient * np.trace(read.reshape(batch, 1 << n, 1 << n), axis1=1, axis2=2).real
        columns.append(total)
    return np.stack(columns, axis=1)


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
    if isinstance(measurement, Amplitudes):
        return np.concatenate([state.real.reshape(batch, -1), state.imag.reshape(batch, -1)], axis=1)
    if isinstance(measurement, Probabilities):
        return _born(n, measurement, np.abs(state) ** 2)
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


def _born(n: int, measurement: Probabilities, p: np.ndarray) -> np.ndarray:
    """Probabilities (B, 2, …, 2) of all basis states → outputs."""
    kept = tuple(range(n)) if measurement.qubits is None else measurement.qubits
    traced = tuple(1 + q for q in range(n) if q not in kept)
    left = [q for q in range(n) if q in kept]
    p = p.sum(axis=traced).transpose([0, *(1 + left.index(q) for q in kept)]).reshape(len(p), -1)
    if measurement.n_classes is None:
        return p
    classes = np.arange(p.shape[1]) % measurement.n_classes
    return np.stack([p[:, classes == k].sum(axis=1) for k in range(measurement.n_classes)], axis=1)
