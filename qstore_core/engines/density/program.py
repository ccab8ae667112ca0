"""From a circuit with channels to a few steps on Pauli components.

A state of n qubits is held as the 4**n real numbers tr(P ρ), for P the words of I, X, Y, Z; the first qubit is the most
significant digit. There a gate is a rotation, a channel a real matrix that keeps the trace, and what is measured are
single components or sums of them:

- `Single`: a real 4 x 4 matrix on one qubit: all rotations and channels that follow each other on it, as one product.
- `Pair`: a constant on two qubits: a CNOT, which permutes components and changes signs, with the factors of the Pauli
  channels behind it; or such factors alone; or the 16 x 16 matrix of any other channel.

Gates come apart into rotations and CNOTs by the gate table, never past a channel: what stands in the circuit is what
runs.

Source:
    Greenbaum, arXiv:1509.02921 (Pauli transfer matrices).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce

import numpy as np

from ...circuit.angles.angle import Angle
from ...circuit.circuit import Circuit
from ...circuit.gates.table import GATES, Axis, Cnot
from ...circuit.lowering.plan import steps_of
from ...circuit.measurements.measurement import Expectation, Measurement, Probabilities
from ...circuit.noise.channels import transfer_matrix
from ..memory import check_bytes, check_table

__all__ = ["Pair", "Program", "Single", "Step", "readout", "rotation_terms"]


@dataclass
class Single:
    """A product of 4 x 4 matrices on one qubit, first to last in time.

    Attributes:
        qubit: Where.
        factors: `(axis, angle)` of rotations, and constant matrices.
        uses_inputs: Whether it differs from sample to sample.
        number: Among those that do, or among those that do not.
        gradient: Its number among the steps that have a gradient; -1 where all of it is constant.
    """

    qubit: int
    factors: list[tuple[Axis, Angle] | np.ndarray] = field(default_factory=list)
    uses_inputs: bool = False
    number: int = 0
    gradient: int = -1

    def add(self, factor: tuple[Axis, Angle] | np.ndarray) -> None:
        """One more factor, last in time; constants next to each other are one."""
        if not isinstance(factor, np.ndarray) and factor[1].is_constant:
            still, turning, across = rotation_terms(factor[0])
            angle = factor[1].constant
            factor = still + np.cos(angle) * turning + np.sin(angle) * across
        if isinstance(factor, np.ndarray) and self.factors and isinstance(self.factors[-1], np.ndarray):
            factor = factor @ self.factors.pop()
        self.factors.append(factor)

    @property
    def angles(self) -> list[Angle]:
        """Of the rotations that are not constant."""
        return [factor[1] for factor in self.factors if not isinstance(factor, np.ndarray)]


@dataclass
class Pair:
    """A constant on two qubits.

    Attributes:
        qubits: First and second: of a CNOT control and target.
        factors: (16,), by which components are multiplied at the end; index 4 a + b.
        cnot: Whether a CNOT comes first.
        matrix: (16, 16) in place of both.
    """

    qubits: tuple[int, int]
    factors: np.ndarray
    cnot: bool = False
    matrix: np.ndarray | None = None


Step = Single | Pair


def rotation_terms(axis: Axis) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A, B, C (4, 4) of exp(-i angle/2 axis·σ): its matrix on components is A + cos(angle) B + sin(angle) C."""
    x, y, z = axis
    still, turning, across = np.zeros((3, 4, 4))
    still[0, 0] = 1.0
    still[1:, 1:] = np.outer(axis, axis)
    turning[1:, 1:] = np.eye(3) - still[1:, 1:]
    across[1:, 1:] = [[0, -z, y], [z, 0, -x], [-y, x, 0]]
    return still, turning, across


def _cnot_signs() -> np.ndarray:
    """Signs (16,) of components behind a CNOT."""
    out = transfer_matrix([GATES["cnot"].matrix()]).sum(axis=1)
    return np.round(out)


CNOT_SIGNS = _cnot_signs()
CNOT_SOURCES = np.argmax(np.abs(transfer_matrix([GATES["cnot"].matrix()])), axis=1)
"""Component k behind a CNOT is component CNOT_SOURCES[k] before it, times CNOT_SIGNS[k]."""


class Program:
    """A circuit and its measurement on Pauli components.

    Attributes:
        steps: First to last.
        shared: The `Single` steps that are the same for all samples.
        sampled: Those that are not.
        n_gradients: How many steps have a gradient.
        index: (S,), the components that are measured.
        weights: (S, O) float64: outputs are `components @ weights`.
    """

    def __init__(self, circuit: Circuit, measurement: Measurement) -> None:
        """Fuse what can be."""
        self.circuit, self.n_qubits = circuit, circuit.n_qubits
        self.steps: list[Step] = []
        self._last: list[Step | None] = [None] * circuit.n_qubits
        for op in circuit.operations:
            if op.channel is None:
                for step in steps_of(op):
                    if isinstance(step, Cnot):
                        self._pair(Pair((step.control, step.target), CNOT_SIGNS.copy(), True))
                    else:
                        self._single(step[0]).add(step[1])
            elif not op.channel.is_readout:
                self._channel(transfer_matrix(op.channel.operators), op.qubits)
        singles = [step for step in self.steps if isinstance(step, Single)]
        self.shared: list[Single] = []
        self.sampled: list[Single] = []
        self.n_gradients = 0
        for single in singles:
            single.uses_inputs = any(angle.uses_inputs for angle in single.angles)
            some = self.sampled if single.uses_inputs else self.shared
            single.number = len(some)
            some.append(single)
            if single.angles:
                single.gradient, self.n_gradients = self.n_gradients, self.n_gradients + 1
        self.index, self.weights = readout(measurement, circuit)

    def _single(self, qubit: int) -> Single:
        """The last step on a qubit where it is on that qubit alone, else a new one."""
        last = self._last[qubit]
        if not isinstance(last, Single):
            last = self._last[qubit] = Single(qubit)
            self.steps.append(last)
        return last

    def _pair(self, pair: Pair) -> None:
        self.steps.append(pair)
        for qubit in pair.qubits:
            self._last[qubit] = pair

    def _channel(self, matrix: np.ndarray, qubits: Sequence[int]) -> None:
        diagonal = matrix.diagonal()
        only_factors = not (matrix - np.diag(diagonal)).any()
        if len(qubits) == 1:
            (qubit,) = qubits
            last = self._last[qubit]
            if only_factors and isinstance(last, Pair) and last.matrix is None:
                first = last.qubits[0] == qubit
                last.factors *= np.repeat(diagonal, 4) if first else np.tile(diagonal, 4)
            else:
                self._single(qubit).add(matrix)
            return
        a, b = qubits
        last = self._last[a]
        if not only_factors:
            self._pair(Pair((a, b), np.ones(16), matrix=matrix))
        elif isinstance(last, Pair) and last is self._last[b] and last.matrix is None:
            square = diagonal.reshape(4, 4)
            last.factors *= (square if last.qubits == (a, b) else square.T).reshape(-1)
        else:
            self._pair(Pair((a, b), diagonal.copy()))


# -- what is measured -------------------------------------------------------------------------------------------------


def _read(circuit: Circuit) -> dict[int, tuple[float, float]]:
    """`(a, b)` of the qubits that are read with errors: a measured Pauli is a + b times it."""
    confusion: dict[int, np.ndarray] = {}
    for op in circuit.operations:
        if op.channel is not None and op.channel.is_readout:
            (qubit,) = op.qubits
            confusion[qubit] = confusion.get(qubit, np.eye(2)) @ op.channel.confusion
    out = {}
    for qubit, matrix in confusion.items():
        zero, one = matrix @ [1.0, -1.0]
        out[qubit] = (zero + one) / 2, (zero - one) / 2
    return out


def readout(measurement: Measurement, circuit: Circuit) -> tuple[np.ndarray, np.ndarray]:
    """`(index (S,), weights (S, O))`: the components that are measured, and what outputs are made of."""
    n, errors = circuit.n_qubits, _read(circuit)
    measurement.check(n)
    if isinstance(measurement, Probabilities):
        return _probabilities(measurement, n, errors)
    if not isinstance(measurement, Expectation):
        measurement.lower(n, None, 0)  # type: ignore[arg-type] # says what backends compute
    columns: list[dict[int, float]] = []
    observables = measurement.as_observables(n)
    mixed = {qubit for qubit, (a, _) in errors.items() if a}  # on these a letter is read as a letter and as none
    count = sum(1 << sum(s[q] != "I" for q in mixed) for o in observables for s, _ in o.terms)
    check_bytes(128 * count, f"{count} components of Pauli strings that are read with errors do not fit")
    for observable in observables:
        column: dict[int, float] = {}
        for letters, coefficient in observable.terms:
            for index, weight in _components(letters, errors):
                column[index] = column.get(index, 0.0) + coefficient * weight
        columns.append(column)
    components = sorted({key for column in columns for key in column})
    place = {key: k for k, key in enumerate(components)}
    check_table(len(components), len(columns))
    weights = np.zeros((len(components), len(columns)))
    for output, column in enumerate(columns):
        for key, weight in column.items():
            weights[place[key], output] = weight
    return np.array(components, np.int64), weights


def _components(letters: str, errors: dict[int, tuple[float, float]]) -> Iterable[tuple[int, float]]:
    """Components, with weights, of one Pauli string as it is read."""
    found = [(0, 1.0)]
    for qubit, letter in enumerate(letters):
        digit = "IXYZ".index(letter)
        a, b = errors.get(qubit, (0.0, 1.0)) if digit else (0.0, 1.0)
        found = [
            (4 * index + kept, weight * part) for index, weight in found for kept, part in ((0, a), (digit, b)) if part
        ]
    return found


def _probabilities(
    measurement: Probabilities, n: int, errors: dict[int, tuple[float, float]]
) -> tuple[np.ndarray, np.ndarray]:
    qubits = range(n) if measurement.qubits is None else measurement.qubits
    signs = []
    for qubit in qubits:
        a, b = errors.get(qubit, (0.0, 1.0))  # P(0) = (1 + a + b z) / 2, P(1) = (1 - a - b z) / 2
        signs.append(np.array([[(1 + a) / 2, (1 - a) / 2], [b / 2, -b / 2]]))
    weights = reduce(np.kron, signs)
    places = [np.array([0, 3 << 2 * (n - 1 - qubit)]) for qubit in qubits]
    index = reduce(lambda left, right: (left[:, None] + right).reshape(-1), places)
    if measurement.n_classes is not None:
        classes = np.eye(measurement.n_classes)[np.arange(weights.shape[1]) % measurement.n_classes]
        weights = weights @ classes
    return index, weights
