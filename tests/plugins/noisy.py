"""Noisy circuits and what they give: PennyLane's `default.mixed`, with Kraus operators put behind gates by hand."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from qstore_core import Circuit, Expectation, Pauli, Probabilities
from qstore_core.circuit.gates.table import GATES

PAULI = {
    "I": np.eye(2),
    "X": np.array([[0, 1], [1, 0]]),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1.0, -1.0]),
}


def channel(rng, n_qubits, strength=0.15):
    """Kraus operators of a random channel near the identity, different on each qubit; first qubit most significant."""
    size = 1 << n_qubits
    rest = rng.normal(size=(3, size, size)) + 1j * rng.normal(size=(3, size, size))
    stack = np.concatenate([np.eye(size)[None], strength * rest / np.sqrt(size)]).reshape(-1, size)
    isometry, _ = np.linalg.qr(stack)
    return list(isometry.reshape(-1, size, size))


@dataclass
class Noisy:
    """A circuit, a channel per gate name, P(read n | is m) per qubit, and a point."""

    circuit: Circuit
    channels: dict[str, list[np.ndarray]]
    confusion: dict[int, np.ndarray]
    theta: np.ndarray
    inputs: np.ndarray
    measurements: list = field(default_factory=list)


def noisy_circuit(seed, *, gates=tuple(GATES), readout=True, amplitudes=None):
    """A random one of up to three qubits; about half of its gates are noisy."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 4))
    circuit = Circuit(n, amplitudes=bool(rng.random() < 0.3) if amplitudes is None else amplitudes)
    w, x = circuit.weights(3), circuit.inputs(2)
    angles = [w[0], w[1], 2 * w[2], x[0], x[1] + w[0], x[0] * x[1]]
    for name in rng.choice(gates, size=10):
        gate = GATES[name]
        if gate.n_qubits > n:
            continue
        qubits = rng.permutation(n)[: gate.n_qubits].tolist()
        drawn = rng.random(gate.n_params) < 0.3
        params = [0.7 if constant else angles[rng.integers(len(angles))] for constant in drawn]
        circuit.append(str(name), qubits, params)
    used = sorted({op.gate for op in circuit.operations})
    named = {name for name in used if rng.random() < 0.6}
    channels = {name: channel(rng, GATES[name].n_qubits) for name in sorted(named)}
    confusion = {}
    for q in range(n) if readout else ():
        a, b = rng.uniform(0, 0.2, 2)
        confusion[q] = np.array([[1 - a, a], [b, 1 - b]])
    inputs = rng.normal(size=(3, circuit.n_amplitudes + 2))
    width = circuit.n_amplitudes
    if width:
        inputs[:, :width] /= np.linalg.norm(inputs[:, :width], axis=1, keepdims=True)
    strings = ["".join(rng.choice(list("IXYZ"), n)) for _ in range(4)]
    measurements = [
        Expectation(("Z", "X", "Y")),
        Expectation(observables=(Pauli(strings[0]) + 0.5 * Pauli(strings[1]), Pauli(strings[2]) + Pauli(strings[3]))),
        Probabilities(),
        Probabilities((n - 1, 0)),
    ]  # fmt: skip
    return Noisy(circuit, channels, confusion, rng.normal(size=3), inputs, measurements)


def density_matrices(problem):
    """(B, 2**n, 2**n), from `default.mixed`."""
    import pennylane as qml

    circuit, n = problem.circuit, problem.circuit.n_qubits
    width = circuit.n_amplitudes
    out = []
    for row in problem.inputs:
        ops = [qml.StatePrep(row[:width], wires=range(n), validate_norm=False)] if width else []
        for op in circuit.operations:
            values = [angle.value(problem.theta, row[width:]) for angle in op.params]
            ops.append(qml.QubitUnitary(GATES[op.gate].matrix(*values), wires=op.qubits))
            if op.gate in problem.channels:
                ops.append(qml.QubitChannel(problem.channels[op.gate], wires=op.qubits))
        tape = qml.tape.QuantumScript(ops, [qml.density_matrix(wires=range(n))])
        out.append(qml.execute([tape], qml.device("default.mixed", wires=n))[0])
    return np.array(out)


def expected(problem, measurement):
    """Outputs (B, O), readout errors included."""
    rhos, n = density_matrices(problem), problem.circuit.n_qubits
    if isinstance(measurement, Probabilities):
        qubits = range(n) if measurement.qubits is None else measurement.qubits
        columns = []
        for index in range(measurement.n_outputs(n)):
            bits = {q: index >> (len(qubits) - 1 - k) & 1 for k, q in enumerate(qubits)}
            factors = [np.diag(_confusion(problem, q)[:, bits[q]]) if q in bits else np.eye(2) for q in range(n)]
            columns.append(_traces(rhos, factors))
        return np.array(columns).T
    columns = []
    for observable in measurement.as_observables(n):
        total = np.zeros(len(rhos))
        for string, coefficient in observable.terms:
            total += coefficient * _traces(rhos, [_read(problem, q, letter) for q, letter in enumerate(string)])
        columns.append(total)
    return np.array(columns).T


def _confusion(problem, qubit):
    return problem.confusion.get(qubit, np.eye(2))


def _read(problem, qubit, letter):
    """The operator whose expectation value the misread signs of one qubit have."""
    if letter == "I":
        return np.eye(2)
    signs = _confusion(problem, qubit) @ [1.0, -1.0]  # by what the qubit is
    return (signs[0] + signs[1]) / 2 * np.eye(2) + (signs[0] - signs[1]) / 2 * PAULI[letter]


def _traces(rhos, factors):
    operator = np.eye(1)
    for factor in factors:
        operator = np.kron(operator, factor)
    return np.einsum("bij,ji->b", rhos, operator).real
