"""The independent reference: plain gate-by-gate simulation, one sample and one gate at a time, complex128.

Nothing here knows the Plan. It needs the gate table's matrices, which `core/test_gates.py` and
`test_reference_libraries.py` check by themselves.
"""

from __future__ import annotations

import functools

import numpy as np

from qstore_core import Probabilities
from qstore_core.circuit.gates.table import GATES

PAULI = {
    "I": np.eye(2),
    "X": np.array([[0, 1], [1, 0]]),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1, -1]),
}


def apply(matrix, state, qubits):
    """`matrix` on `qubits` of a state vector; qubit 0 is the most significant bit."""
    k, n = len(qubits), len(state).bit_length() - 1
    tensor = state.reshape((2,) * n)
    tensor = np.tensordot(np.reshape(matrix, (2,) * (2 * k)), tensor, (range(k, 2 * k), qubits))
    return np.moveaxis(tensor, range(k), qubits).reshape(-1)


def embed(matrix, qubits, n_qubits):
    """`matrix` on `qubits` as a (2**n, 2**n) matrix."""
    return np.stack([apply(matrix, column, qubits) for column in np.eye(1 << n_qubits, dtype=complex)], axis=1)


def state(circuit, theta, row):
    """The final state of one sample; `row` is amplitudes, then angles."""
    psi = np.zeros(1 << circuit.n_qubits, complex)
    psi[0] = 1.0
    if circuit.n_amplitudes:
        psi = np.array(row[: circuit.n_amplitudes], complex)
    x = row[circuit.n_amplitudes :]
    for op in circuit.operations:
        psi = apply(GATES[op.gate].matrix(*[angle.value(theta, x) for angle in op.params]), psi, op.qubits)
    return psi


def observable_matrix(observable):
    """A weighted sum of Pauli strings as a matrix."""
    return sum(
        coefficient * functools.reduce(np.kron, [PAULI[letter] for letter in string])
        for string, coefficient in observable.terms
    )


def read(measurement, psi):
    """Outputs (O,) of a state."""
    n = len(psi).bit_length() - 1
    if not isinstance(measurement, Probabilities):
        observables = measurement.as_observables(n)
        return np.array([np.vdot(psi, observable_matrix(o) @ psi).real for o in observables])
    qubits = range(n) if measurement.qubits is None else measurement.qubits
    rest = [q for q in range(n) if q not in qubits]
    table = (np.abs(psi) ** 2).reshape((2,) * n).transpose(*qubits, *rest)
    table = table.reshape(1 << len(qubits), -1).sum(axis=1)
    k = measurement.n_classes
    return table if k is None else np.array([table[start::k].sum() for start in range(k)])


def simulate(circuit, measurement, theta, inputs):
    """Outputs (B, O) for `theta` (W,) and `inputs` (B, I)."""
    rows = [read(measurement, state(circuit, theta, row)) for row in np.asarray(inputs)]
    return np.array(rows).reshape(len(rows), measurement.n_outputs(circuit.n_qubits))


def unit_rows(x, width):
    """Amplitude encoding, row by row; a zero row is |0…0⟩."""
    out = np.zeros((len(x), width))
    for row, features in zip(out, np.asarray(x, np.longdouble), strict=True):
        norm = np.sqrt((features * features).sum())
        if norm:
            row[: len(features)] = features / norm
        else:
            row[0] = 1.0
    return out


def layer_outputs(spec, theta, x):
    """Outputs (…, O) of a layer for features (…, F)."""
    x = np.asarray(x, np.float64)
    rows = x.reshape(int(np.prod(x.shape[:-1])), x.shape[-1])
    if spec.encoding.is_amplitude:
        width = 1 << spec.n_qubits
        rows = np.concatenate([unit_rows(rows[:, :width], width), rows[:, width:]], axis=1)
    if spec.measurement is None:
        return rows.reshape(*x.shape[:-1], -1)
    return simulate(spec.circuit, spec.measurement, theta, rows).reshape(*x.shape[:-1], spec.output_dim)


def difference_vjp(function, cotangents, *arguments, step=1e-6):
    """Central differences of `(cotangents · function(*arguments))` by every entry of every argument."""
    gradients = []
    for k, argument in enumerate(arguments):
        gradient = np.zeros(np.shape(argument))
        for index in np.ndindex(gradient.shape):
            values = []
            for sign in (1, -1):
                bumped = np.array(argument, np.float64)
                bumped[index] += sign * step
                values.append((function(*arguments[:k], bumped, *arguments[k + 1 :]) * cotangents).sum())
            gradient[index] = (values[0] - values[1]) / (2 * step)
        gradients.append(gradient)
    return gradients
