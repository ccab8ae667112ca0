"""Backends that are right but for one thing, over the statevector engine; and one that samples properly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qstore_core import Capabilities, Circuit, Probabilities, get_backend


class Over:
    """A backend over statevector, each of whose functions may be changed.

    Args:
        name: Its name.
        circuit: Changes the circuit before it is compiled.
        outputs: Changes what forward returns.
        gradients: Changes what vjp returns.
        sample: `(exact outputs, measurement, shots, generator) → outputs`; declares shots.
        exact: Whether shots=None is declared.
    """

    def __init__(
        self,
        name: str,
        *,
        circuit: Callable = lambda c: c,
        outputs: Callable = lambda y: y,
        gradients: Callable = lambda d: d,
        sample: Callable | None = None,
        exact: bool = True,
        vjp: bool = True,
    ):
        self.name = name
        self.capabilities = Capabilities(exact=exact, shots=sample is not None, vjp=vjp)
        self.circuit, self.outputs, self.gradients, self.sample = circuit, outputs, gradients, sample

    def compile(self, circuit, measurement, *, dtype="float32", shots=None):
        inner_shots = None if self.sample else shots  # statevector refuses them
        inner = get_backend("statevector").compile(self.circuit(circuit), measurement, dtype=dtype, shots=inner_shots)
        return Executable(self, inner, measurement, shots)


class Executable:
    def __init__(self, owner, inner, measurement, shots):
        self.owner, self.inner, self.measurement, self.shots = owner, inner, measurement, shots

    def forward(self, theta, inputs, *, seed=None):
        outputs = self.owner.outputs(self.inner.forward(theta, inputs))
        if self.shots is None:
            return outputs
        return self.owner.sample(outputs, self.measurement, self.shots, np.random.default_rng(seed))

    def vjp(self, theta, inputs, cotangents):
        return self.owner.gradients(self.inner.vjp(theta, inputs, cotangents))


def binomial(outputs, measurement, shots, rng):
    """Proper sampling, one output at a time (their correlation is not tested)."""
    if isinstance(measurement, Probabilities):
        rows = np.clip(outputs, 0, None).astype(np.float64)
        return np.array([rng.multinomial(shots, row / row.sum()) / shots for row in rows])
    return 2 * rng.binomial(shots, np.clip((1 + outputs) / 2, 0, 1)) / shots - 1.0


def reversed_qubits(circuit: Circuit) -> Circuit:
    out = Circuit(circuit.n_qubits, amplitudes=circuit.n_amplitudes > 0)
    out.inputs(circuit.n_inputs)
    out.weights(circuit.n_weights)
    for op in circuit.operations:
        out.append(op.gate, [circuit.n_qubits - 1 - q for q in op.qubits], op.params)
    return out


def negative_angles(circuit: Circuit) -> Circuit:
    out = Circuit(circuit.n_qubits, amplitudes=circuit.n_amplitudes > 0)
    out.inputs(circuit.n_inputs)
    out.weights(circuit.n_weights)
    for op in circuit.operations:
        out.append(op.gate, op.qubits, [-1 * angle for angle in op.params])
    return out
