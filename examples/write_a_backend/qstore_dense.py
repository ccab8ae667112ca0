"""A backend of one's own: a density-matrix simulator with depolarising noise after every gate.

It is small and slow on purpose; what it computes is right. Install it with `pip install .`, then

    QuantumReadout(4, n_classes=2, encoding="angle", backend="dense")
    QuantumReadout(4, n_classes=2, encoding="angle", backend=get_backend("dense", noise=0.01))

It declares no vjp: qstore gets exact gradients from it by the parameter-shift rule.
"""

import numpy as np

from qstore_core import Capabilities, CapabilityError, OptionError, Probabilities, hookimpl
from qstore_core.backends.contract import check_options
from qstore_core.circuit.gates.table import GATES

QSTORE_CONTRACT = 2
PAULIS = {letter: GATES[letter.lower()].matrix() for letter in "XYZ"}


@hookimpl
def qstore_backend(options):
    """Called by `get_backend("dense", **options)`."""
    check_options(options, ("noise",), backend="dense")
    return DenseBackend(**options)


class DenseBackend:
    """Exact values of noisy circuits; `noise` is the depolarising probability of each qubit that a gate touches."""

    name = "dense"

    def __init__(self, noise=0.0):
        if not 0.0 <= noise <= 1.0:
            raise OptionError(f"noise is a probability, received {noise!r}.", argument="noise", backend=self.name)
        self.noise = noise
        self.capabilities = Capabilities(exact=True, shots=False, vjp=False, noisy=noise > 0, max_qubits=8)

    def compile(self, circuit, measurement, *, dtype="float32", shots=None):
        if shots is not None:
            raise CapabilityError(f"backend 'dense' computes exact values; shots={shots} was asked for.")
        if circuit.n_qubits > self.capabilities.max_qubits:
            raise CapabilityError(f"backend 'dense' takes at most 8 qubits, received {circuit.n_qubits}.")
        return DenseExecutable(circuit, measurement, self.noise, dtype)


class DenseExecutable:
    """One circuit. It keeps no state between calls, so threads may share it."""

    def __init__(self, circuit, measurement, noise, dtype):
        self.circuit, self.measurement, self.noise, self.dtype = circuit, measurement, noise, dtype
        self.n, self.width = circuit.n_qubits, measurement.n_outputs(circuit.n_qubits)

    def forward(self, theta, inputs):
        """`theta` (W,), `inputs` (B, I): amplitudes, then angles → outputs (B, O)."""
        rows = [self.measure(self.evolve(theta, row)) for row in inputs]
        return np.array(rows, self.dtype).reshape(len(inputs), self.width)

    def evolve(self, theta, row):
        """The density matrix after all gates."""
        start = self.circuit.n_amplitudes
        psi = row[:start].astype(complex) if start else np.eye(1, 1 << self.n, dtype=complex)[0]
        rho = np.outer(psi, psi.conj())
        for op in self.circuit.operations:
            angles = (angle.value(theta, row[start:]) for angle in op.params)
            gate = self.embed(GATES[op.gate].matrix(*angles), op.qubits)
            rho = gate @ rho @ gate.conj().T
            for qubit in op.qubits if self.noise else ():
                flips = [self.embed(pauli, (qubit,)) for pauli in PAULIS.values()]
                rho = (1 - 0.75 * self.noise) * rho + 0.25 * self.noise * sum(p @ rho @ p for p in flips)
        return rho

    def embed(self, matrix, qubits):
        """A gate's matrix on all qubits; qubit 0 is the most significant bit."""
        k, n = len(qubits), self.n
        full = np.tensordot(
            matrix.reshape((2,) * 2 * k), np.eye(1 << n).reshape((2,) * 2 * n), (range(k, 2 * k), qubits)
        )
        return np.moveaxis(full, range(k), qubits).reshape(1 << n, 1 << n)

    def measure(self, rho):
        """One sample's outputs."""
        if isinstance(self.measurement, Probabilities):
            qubits = range(self.n) if self.measurement.qubits is None else self.measurement.qubits
            bits = np.arange(1 << self.n)
            index = sum((bits >> self.n - 1 - q & 1) << len(qubits) - 1 - k for k, q in enumerate(qubits))
            return np.bincount(index % self.width, rho.diagonal().real, self.width)
        return [
            sum(c * self.pauli(rho, string) for string, c in o.terms) for o in self.measurement.as_observables(self.n)
        ]

    def pauli(self, rho, string):
        """tr(ρP) of one Pauli string."""
        for qubit, letter in enumerate(string):
            if letter != "I":
                rho = self.embed(PAULIS[letter], (qubit,)) @ rho
        return np.trace(rho).real
