"""An encoding from outside: two features per qubit, the second as a multiple of the first."""

from dataclasses import dataclass

from qstore_core import Encoding, InputError, register_encoding


@register_encoding
@dataclass(frozen=True)
class Mixed(Encoding):
    name = "mixed"
    factors: tuple[float, ...] = (1.0,)

    def n_features(self, n_qubits):
        return 2 * n_qubits

    def append(self, circuit, x):
        for qubit in range(circuit.n_qubits):
            for factor in self.factors:
                circuit.rx(factor * x[2 * qubit] * x[2 * qubit + 1], qubit)
                circuit.ry(factor * x[2 * qubit], qubit)

    def validate(self, rows, name):
        super().validate(rows, name)
        if (rows > 100).any():
            raise InputError(f"{name}: mixed encoding takes features up to 100.")

    def nan_where_invalid(self, ops, x):
        fits = 1.0 - ops.is_below(-x, -100.0)
        return x * (fits / fits)
