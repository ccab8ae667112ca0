"""From a circuit with channels to steps on state vectors: matrices of one qubit, CNOTs, and random choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...circuit.circuit import Circuit
from ...circuit.gates.table import PAULIS, Axis, Cnot
from ...circuit.lowering.plan import steps_of
from ...circuit.noise.channels import Channel
from ..density.program import Single

__all__ = ["Choice", "Program", "Step", "half_turn_terms"]

_SAME = 1e-12  # how far K†K may be from a multiple of the identity, for probabilities that no state changes


@dataclass(frozen=True, eq=False)
class Choice:
    """A channel: one of its Kraus operators at random, by the state.

    Attributes:
        qubits: One or two.
        operators: (m, d, d).
        squares: K†K of each.
        probabilities: Of each where no state changes them, as for mixtures of Pauli words; else None.
        idle: Which operators are multiples of the identity.
        number: Among the channels of the circuit.
    """

    qubits: tuple[int, ...]
    operators: np.ndarray
    squares: np.ndarray
    probabilities: np.ndarray | None
    idle: np.ndarray
    number: int


Step = Single | Cnot | Choice


def half_turn_terms(axis: Axis) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A, B, C (2, 2) of exp(-i angle/2 axis·σ): A + cos(angle/2) B + sin(angle/2) C."""
    sigma = sum((part * PAULIS[letter] for part, letter in zip(axis, "xyz", strict=True)), np.zeros((2, 2)))
    return np.zeros((2, 2)), np.eye(2), -1j * sigma


class Program:
    """A circuit as steps; readout errors apart.

    Attributes:
        steps: First to last.
        singles: The `Single` steps among them.
        n_choices: How many channels there are.
        confusion: `(p_01, p_10)` of the qubits that are read with errors.
    """

    def __init__(self, circuit: Circuit) -> None:
        """Fuse rotations that follow each other on a qubit; never past a channel."""
        self.circuit, self.n_qubits = circuit, circuit.n_qubits
        self.steps: list[Step] = []
        self.singles: list[Single] = []
        self.n_choices = 0
        self.confusion: dict[int, np.ndarray] = {}
        last: list[Single | None] = [None] * circuit.n_qubits
        for op in circuit.operations:
            if op.channel is not None and op.channel.is_readout:
                (qubit,) = op.qubits
                self.confusion[qubit] = self.confusion.get(qubit, np.eye(2)) @ op.channel.confusion
            elif op.channel is not None:
                self._choose(op.channel, op.qubits)
                for qubit in op.qubits:
                    last[qubit] = None
            for step in steps_of(op) if op.channel is None else ():
                if isinstance(step, Cnot):
                    self.steps.append(step)
                    last[step.control] = last[step.target] = None
                    continue
                qubit, factor = step
                single = last[qubit]
                if single is None:
                    single = last[qubit] = Single(qubit, number=len(self.singles))
                    self.singles.append(single)
                    self.steps.append(single)
                single.factors.append(factor)

    def _choose(self, channel: Channel, qubits: Sequence[int]) -> None:
        operators = np.array(channel.operators)
        squares = np.einsum("kji,kjl->kil", operators.conj(), operators)
        weights = np.trace(squares, axis1=1, axis2=2).real / len(squares[0])
        same = np.abs(squares - weights[:, None, None] * np.eye(len(squares[0]))).max() < _SAME
        scale = np.trace(operators, axis1=1, axis2=2) / len(squares[0])
        idle = np.abs(operators - scale[:, None, None] * np.eye(len(squares[0]))).max(axis=(1, 2)) < _SAME
        probabilities = weights / weights.sum() if same else None
        self.steps.append(Choice(tuple(qubits), operators, squares, probabilities, idle, self.n_choices))
        self.n_choices += 1
