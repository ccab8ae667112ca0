"""qulacs as a backend, written from docs/plugins.md alone: exact values, adjoint gradients, samples.

Every step is a method of its own, so that a fault (see `tests.kit_faults`) is one method replaced.
"""

from __future__ import annotations

import math

import numpy as np
from qulacs import PauliOperator, QuantumState
from qulacs.gate import DenseMatrix, Pauli
from qulacs.state import inner_product

from qstore_core import Capabilities, CapabilityError, Probabilities, RunReport, hookimpl
from qstore_core.backends.contract import check_options
from qstore_core.circuit.gates.table import GATES

QSTORE_CONTRACT = 2
MAX_QUBITS = 16
IDS = {"I": 0, "X": 1, "Y": 2, "Z": 3}
TO_Z = {  # what takes a basis to Z
    "X": GATES["h"].matrix(),
    "Y": GATES["h"].matrix() @ GATES["sdg"].matrix(),
}
# Entries of these gates have e^(i·angle), all others e^(±i·angle/2): the derivative is an exact difference.
WHOLE = {("p", 0), ("cp", 0), ("u3", 1), ("u3", 2)}


@hookimpl
def qstore_backend(options):
    """`get_backend("qulacs")`."""
    check_options(options, (), backend="qulacs")
    return QulacsBackend()


class QulacsBackend:
    """Compiles circuits for qulacs's state vectors."""

    name = "qulacs"
    capabilities = Capabilities(exact=True, shots=True, vjp=True, max_qubits=MAX_QUBITS)

    def compile(self, circuit, measurement, *, dtype="float32", shots=None):
        self.check(circuit)
        return QulacsExecutable(circuit, measurement, dtype, shots)

    def check(self, circuit):
        if circuit.n_qubits > MAX_QUBITS:
            raise CapabilityError(f"backend 'qulacs' takes at most {MAX_QUBITS} qubits, received {circuit.n_qubits}.")


class QulacsExecutable:
    """One circuit. It keeps no state between calls, so threads may share it."""

    def __init__(self, circuit, measurement, dtype, shots):
        self.circuit, self.measurement, self.dtype, self.shots = circuit, measurement, np.dtype(dtype), shots
        self.n, self.width = circuit.n_qubits, measurement.n_outputs(circuit.n_qubits)
        self.operations, self.start_width = circuit.operations, circuit.n_amplitudes
        self.is_born = isinstance(measurement, Probabilities)
        self.observables = () if self.is_born else self.strings()

    # -- what is computed -----------------------------------------------------------------------------------------

    def strings(self):
        """One tuple of (Pauli string, coefficient) per output."""
        return tuple(observable.terms for observable in self.measurement.as_observables(self.n))

    def targets(self, qubits):
        """qulacs counts from the least significant bit, and its matrices have the first target there."""
        return [self.n - 1 - q for q in reversed(qubits)]

    def angles(self, op, theta, x):
        return [angle.value(theta, x) for angle in op.params]

    def matrix(self, op, angles):
        return GATES[op.gate].matrix(*angles)

    def start(self, row):
        state = QuantumState(self.n)
        if self.start_width:
            state.load(row[: self.start_width].astype(complex))
        return state

    def gates(self, theta, row):
        """`(operation, angles, matrix)` of one sample, first to last."""
        x = row[self.start_width :]
        for op in self.operations:
            angles = self.angles(op, theta, x)
            yield op, angles, self.matrix(op, angles)

    def evolve(self, theta, row):
        state = self.start(row)
        for op, _, matrix in self.gates(theta, row):
            DenseMatrix(self.targets(op.qubits), matrix).update_quantum_state(state)
        return state

    # -- exact outputs --------------------------------------------------------------------------------------------

    def classes(self):
        """Which output every basis state counts for."""
        kept = range(self.n) if self.measurement.qubits is None else self.measurement.qubits
        states = np.arange(1 << self.n)
        index = sum((states >> self.n - 1 - q & 1) << len(kept) - 1 - k for k, q in enumerate(kept))
        return index if self.measurement.n_classes is None else index % self.measurement.n_classes

    def probabilities(self, state):
        return np.bincount(self.classes(), np.abs(state.get_vector()) ** 2, self.width)

    def pauli(self, string, state):
        """⟨P⟩ of one Pauli string."""
        text = " ".join(f"{letter} {self.n - 1 - q}" for q, letter in enumerate(string) if letter != "I")
        return PauliOperator(text, 1.0).get_expectation_value(state).real if text else 1.0

    def measure(self, state):
        """One sample's outputs."""
        if self.is_born:
            return self.probabilities(state)
        return [sum(c * self.pauli(string, state) for string, c in terms) for terms in self.observables]

    def exact(self, theta, inputs):
        return [self.measure(self.evolve(theta, row)) for row in inputs]

    # -- samples --------------------------------------------------------------------------------------------------

    def generators(self, seed, rows):
        """Random numbers of one call, row after row from one stream."""
        return [np.random.default_rng(seed)] * rows

    def counts(self, state, string, rng):
        """How often each basis state was seen, measured in the bases of a Pauli string."""
        turned = state.copy()
        for q, letter in enumerate(string):
            if letter in TO_Z:
                DenseMatrix([self.n - 1 - q], TO_Z[letter]).update_quantum_state(turned)
        p = np.abs(turned.get_vector()) ** 2
        return rng.multinomial(self.shots, p / p.sum())

    def sample_term(self, string, state, rng):
        """Mean and variance of the mean of one Pauli string."""
        if set(string) == {"I"}:
            return 1.0, 0.0
        mask = sum(1 << self.n - 1 - q for q, letter in enumerate(string) if letter != "I")
        odd = np.bitwise_count(np.arange(1 << self.n) & mask) % 2
        mean = self.counts(state, string, rng) @ np.where(odd, -1.0, 1.0) / self.shots
        return mean, (1 - mean**2) / (self.shots - 1) if self.shots > 1 else math.nan

    def draw(self, state, rng):
        """One row's sampled outputs, and their variances."""
        if self.is_born:
            p = np.bincount(self.classes(), self.counts(state, "Z" * self.n, rng), self.width) / self.shots
            return p, p * (1 - p) / (self.shots - 1) if self.shots > 1 else np.full(self.width, math.nan)
        means, variances = [], []
        for terms in self.observables:
            drawn = [(c, *self.sample_term(string, state, rng)) for string, c in terms]
            means.append(sum(c * mean for c, mean, _ in drawn))
            variances.append(sum(c**2 * variance for c, _, variance in drawn))
        return means, variances

    def sampled(self, theta, inputs, seed):
        rngs = self.generators(seed, len(inputs))
        drawn = [self.draw(self.evolve(theta, row), rng) for row, rng in zip(inputs, rngs, strict=True)]
        return [means for means, _ in drawn], np.sqrt([variances for _, variances in drawn])

    # -- the contract ---------------------------------------------------------------------------------------------

    def array(self, rows):
        return np.array(rows, self.dtype).reshape(len(rows), self.width)

    def forward(self, theta, inputs, *, seed=None):
        return self.value_and_report(theta, inputs, seed=seed)[0]

    def value_and_report(self, theta, inputs, *, seed=None):
        if self.shots is None:
            return self.array(self.exact(theta, inputs)), RunReport()
        means, errors = self.sampled(theta, inputs, seed)
        return self.array(means), RunReport(std_error=self.array(errors))

    def vjp(self, theta, inputs, cotangents):
        return self.value_and_vjp(theta, inputs)[1](cotangents)

    def value_and_vjp(self, theta, inputs):
        theta, inputs = theta.copy(), inputs.copy()  # the caller may change them before it comes back
        finals = [self.evolve(theta, row) for row in inputs]

        def vjp(cotangents):
            pairs = [
                self.sweep(theta, row, final, cotangent)
                for row, final, cotangent in zip(inputs, finals, cotangents, strict=True)
            ]
            d_theta = self.over_rows([d for d, _ in pairs]).astype(self.dtype)
            return d_theta, np.array([d for _, d in pairs], self.dtype)

        return self.array([self.measure(final) for final in finals]), vjp

    # -- gradients ------------------------------------------------------------------------------------------------

    def over_rows(self, rows):
        return np.sum(rows, axis=0)

    def pulled(self, state, cotangent):
        """(Σ cotangent · observable) |state⟩."""
        if self.is_born:
            out = QuantumState(self.n)
            out.load(state.get_vector() * cotangent[self.classes()])
            return out
        total = QuantumState(self.n)
        total.load(np.zeros(1 << self.n, complex))
        for weight, terms in zip(cotangent, self.observables, strict=True):
            for string, c in self.gradient_terms(terms):
                turned = state.copy()
                Pauli(list(range(self.n)), [IDS[letter] for letter in reversed(string)]).update_quantum_state(turned)
                turned.multiply_coef(complex(c * weight))
                total.add_state(turned)
        return total

    def gradient_terms(self, terms):
        return terms

    def derivative(self, op, angles, k):
        """dU/d(angle k), by the difference that is exact for its frequencies."""
        shift = math.pi / 2 if (op.gate, k) in WHOLE else math.pi
        up, down = (self.matrix(op, [a + s * shift * (j == k) for j, a in enumerate(angles)]) for s in (1, -1))
        return (up - down) * (math.pi / 4 / shift)

    def slope(self, op, angles, k, bra, before):
        """d(outputs · cotangents)/d(angle k)."""
        moved = before.copy()
        DenseMatrix(self.targets(op.qubits), self.derivative(op, angles, k)).update_quantum_state(moved)
        return 2 * inner_product(bra, moved).real

    def chain(self, angle, slope, theta, x, d_theta, d_x):
        """Add an angle's slope to those of its slots."""
        values, slopes = {"w": theta, "x": x}, {"w": d_theta, "x": d_x}
        for monomial, coefficient in angle.terms:
            for place, (kind, index) in enumerate(monomial):
                rest = math.prod(values[k][i] for j, (k, i) in enumerate(monomial) if j != place)
                slopes[kind][index] += coefficient * slope * rest

    def sweep(self, theta, row, final, cotangent):
        """Gradients of one sample: gates are undone last to first, on the state and on what was pulled back."""
        x = row[self.start_width :]
        ket, bra = final.copy(), self.pulled(final, np.asarray(cotangent, float))
        d_theta, d_row = np.zeros(len(theta)), np.zeros(len(row))
        for op, angles, matrix in reversed(list(self.gates(theta, row))):
            undo = DenseMatrix(self.targets(op.qubits), matrix.conj().T)
            undo.update_quantum_state(ket)
            for k, angle in enumerate(op.params):
                if angle.slots:
                    slope = self.slope(op, angles, k, bra, ket)
                    self.chain(angle, slope, theta, x, d_theta, d_row[self.start_width :])
            undo.update_quantum_state(bra)
        if self.start_width:
            d_row[: self.start_width] = self.amplitude_slopes(bra)
        return d_theta, d_row

    def amplitude_slopes(self, bra):
        return 2 * bra.get_vector().real
