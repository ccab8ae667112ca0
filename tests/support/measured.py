"""One circuit, and every measurement that is a function of its state, with what it is by plain linear algebra."""

from __future__ import annotations

import numpy as np

from qstore_core import Circuit, Covariance, DensityMatrix, Entropy, Fidelity, Pauli, Purity, State, Variance
from tests.support import reference

A = Pauli("ZZI") + 0.5 * Pauli("XIX") - 0.3 * Pauli("IYZ")
B = Pauli("XII") - 0.7 * Pauli("IZZ") + 0.2

VECTOR = np.array([1, 2j, 0, -0.5, 1 + 1j, 0.3, -2, 0.1j])
VECTOR = VECTOR / np.linalg.norm(VECTOR)


def other_circuit():
    """On the slots of `circuit_and_point`."""
    c = Circuit(3)
    x, w = c.inputs(2), c.weights(3)
    c.ry(x[1], 0), c.rz(w[2], 0), c.cnot(0, 2), c.u3(w[0], 0.3, x[0], 1), c.iswap(1, 2)
    return c


CASES = {
    "variance": Variance(A),
    "variances": Variance((B, A)),
    "covariance": Covariance(A, B),
    "density matrix": DensityMatrix((2, 0)),
    "purity": Purity((1,)),
    "entropy": Entropy((0, 2)),
    "entropy of order 2": Entropy((1,), order=2, base=2),
    "entropy of order 5": Entropy((2, 1), order=5),
    "state": State(),
    "fidelity with a vector": Fidelity(VECTOR),
    "fidelity with a circuit": Fidelity(other_circuit()),
}


def circuit_and_point(batch=3):
    """A circuit of three qubits with generic angles: `(circuit, theta, x)`."""
    c = Circuit(3)
    x, w = c.inputs(3), c.weights(5)
    for q in range(3):
        c.ry(x[q], q), c.rz(w[q], q)
    c.cnot(0, 1), c.cp(w[3], 2, 0), c.h(1), c.cnot(1, 2), c.rx(w[4] - x[0], 0), c.t(2)
    rng = np.random.default_rng(5)
    return c, rng.uniform(-2, 2, 5), rng.uniform(-2, 2, (batch, 3))


def reduced(psi, qubits):
    """The density matrix of `qubits` in the order given."""
    n = len(psi).bit_length() - 1
    rest = [q for q in range(n) if q not in qubits]
    table = psi.reshape((2,) * n).transpose(*qubits, *rest).reshape(1 << len(qubits), -1)
    return table @ table.conj().T


def of_state(measurement, psi, other):
    """What is measured of a pure state; `other` is that of `other_circuit`."""

    def mean(matrix):
        return np.vdot(psi, matrix @ psi).real

    if isinstance(measurement, State):
        return psi
    if isinstance(measurement, Fidelity):
        phi = other if isinstance(measurement.state, Circuit) else VECTOR
        return np.array([abs(np.vdot(phi, psi)) ** 2])
    matrix = reference.observable_matrix
    if isinstance(measurement, Variance):
        matrices = [matrix(o) for o in measurement.observables]
        return np.array([mean(m @ m) - mean(m) ** 2 for m in matrices])
    if isinstance(measurement, Covariance):
        a, b = matrix(measurement.a), matrix(measurement.b)
        return np.array([mean(a @ b + b @ a) / 2 - mean(a) * mean(b)])
    rho = reduced(psi, measurement.qubits)
    if isinstance(measurement, DensityMatrix):
        return rho
    p = np.linalg.eigvalsh(rho)
    p = p[p > 1e-15]
    if isinstance(measurement, Purity):
        return np.array([(p**2).sum()])
    order = measurement.order
    value = -(p * np.log(p)).sum() if order == 1 else np.log((p**order).sum()) / (1 - order)
    return np.array([value / (1.0 if measurement.base is None else np.log(measurement.base))])


def expected(name, circuit, theta, x):
    """Outputs (B, …) of a case."""
    states = [[reference.state(c, theta, row) for c in (circuit, other_circuit())] for row in x]
    return np.array([of_state(CASES[name], *pair) for pair in states])
