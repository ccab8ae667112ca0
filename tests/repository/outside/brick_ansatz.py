"""An ansatz from outside: RX and CRZ in a brick pattern, and a last rotation."""

from dataclasses import dataclass

from qstore_core import Ansatz, register_ansatz


@register_ansatz
@dataclass(frozen=True)
class Bricks(Ansatz):
    name = "bricks"
    shift: int = 0

    def weights_per_level(self, n_qubits):
        return 2 * n_qubits

    def final_weights(self, n_qubits):
        return n_qubits

    def append_level(self, circuit, w, level):
        n = circuit.n_qubits
        for qubit in range(n):
            circuit.rx(w[qubit], qubit)
        for qubit in range((level + self.shift) % 2, n - 1, 2):
            circuit.crz(w[n + qubit], qubit, qubit + 1)

    def append_final(self, circuit, w):
        for qubit in range(circuit.n_qubits):
            circuit.ry(w[qubit], qubit)
