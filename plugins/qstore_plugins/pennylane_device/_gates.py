"""A circuit's gates as PennyLane operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import pennylane as qml

from qstore_core import Circuit
from qstore_core.circuit.angles.angle import Angle, as_angle
from qstore_core.circuit.circuit import Operation
from qstore_core.circuit.gates.table import GATES, Axis
from qstore_core.engines.arrays.angles import Polynomials

from .._lowering import steps_of

__all__ = ["OPERATIONS", "Gates"]


class _Inverse(qml.operation.Operation):
    """S† or T† as a gate of its own: PennyLane's is a phase shift, which a noise model may name."""

    num_wires = 1
    num_params = 0
    grad_method = None

    def __init__(self, base: type[Any], wires: Any) -> None:
        self._base = base
        super().__init__(wires=wires)
        self._name = f"Adjoint({base.__name__})"

    def decomposition(self) -> list[Any]:
        return [qml.adjoint(self._base(self.wires), lazy=False)]


OPERATIONS: dict[str, Callable[..., Any]] = {
    "id": qml.Identity, "x": qml.PauliX, "y": qml.PauliY, "z": qml.PauliZ, "h": qml.Hadamard, "s": qml.S,
    "sdg": lambda wires: qml.adjoint(qml.S(wires), lazy=False), "t": qml.T,
    "tdg": lambda wires: qml.adjoint(qml.T(wires), lazy=False), "sx": qml.SX, "rx": qml.RX, "ry": qml.RY, "rz": qml.RZ,
    "p": qml.PhaseShift, "cnot": qml.CNOT, "cy": qml.CY, "cz": qml.CZ, "ch": qml.CH, "swap": qml.SWAP,
    "iswap": qml.ISWAP, "cp": qml.ControlledPhaseShift, "crx": qml.CRX, "cry": qml.CRY, "crz": qml.CRZ,
    "rxx": qml.IsingXX, "ryy": qml.IsingYY, "rzz": qml.IsingZZ, "ccx": qml.Toffoli, "ccz": qml.CCZ, "cswap": qml.CSWAP,
}  # fmt: skip
# The same gates where a noise model may name them: not as other gates, and three angles in one.
_WHOLE: dict[str, Callable[..., Any]] = {
    **OPERATIONS, "sdg": partial(_Inverse, qml.S), "tdg": partial(_Inverse, qml.T), "rot": qml.Rot, "u3": qml.U3,
}  # fmt: skip
# Gates of three angles as rotations `(axis, number of the angle)`, first to last in time; one angle each, as the
# adjoint method needs it.
_THREE = {"rot": ((qml.RZ, 0), (qml.RY, 1), (qml.RZ, 2)), "u3": ((qml.RZ, 2), (qml.RY, 0), (qml.RZ, 1))}
_AXES = {(1.0, 0.0, 0.0): qml.RX, (0.0, 1.0, 0.0): qml.RY, (0.0, 0.0, 1.0): qml.RZ}


class Gates:
    """A circuit as PennyLane operations, whose angles are columns of a table.

    Args:
        circuit: What to translate; wire q is qubit q.
        form: "named": PennyLane's own gates, one angle each. "whole": one operation per gate, whatever its angles.
            "basic": rotations, CNOTs and constant unitaries alone, by the gate table.
    """

    def __init__(self, circuit: Circuit, form: str = "named") -> None:
        self.n_qubits, self.width = circuit.n_qubits, circuit.n_amplitudes
        self._gates: list[Any] = []  # operations, and (class, parameters, wires) where an angle is not constant
        angles: list[Angle] = []
        for cls, params, wires in {"named": _named, "whole": _whole, "basic": _basic}[form](circuit.operations):
            if all(angle.is_constant for angle in params):
                self._gates.append(cls(*(angle.constant for angle in params), wires=wires))
                continue
            entries: list[_Column | float] = []
            for angle in params:
                entries.append(angle.constant if angle.is_constant else _Column(len(angles)))
                angles += [] if angle.is_constant else [angle]
            self._gates.append((cls, entries, wires))
        self.table = Polynomials(angles)
        self.differs = np.array([angle.uses_inputs for angle in angles], bool)  # from sample to sample

    def operations(self, angles: Sequence[Any]) -> list[Any]:
        """Operations for one value per column, each a number or an array of a batch."""
        return [_made(gate, angles) if isinstance(gate, tuple) else gate for gate in self._gates]

    def rows(self, values: np.ndarray) -> list[list[Any]]:
        """Operations of every sample; those that do not differ are the same objects."""
        first = self.operations(values[0])
        places = [
            k
            for k, gate in enumerate(self._gates)
            if isinstance(gate, tuple) and any(isinstance(p, _Column) and self.differs[p] for p in gate[1])
        ]
        made = [first]
        for row in values[1:]:
            operations = list(first)
            for k in places:
                operations[k] = _made(self._gates[k], row)
            made.append(operations)
        return made

    def load(self, state: Any) -> Any:
        """The operation that starts from a state, or from one per sample."""
        return qml.StatePrep(state, wires=range(self.n_qubits), validate_norm=False)

    def variable(self, start: int) -> list[int]:
        """Positions of the columns among all parameters of a tape, of which `start` come before."""
        places, position = [], start
        for gate in self._gates:
            if isinstance(gate, tuple):
                places += [position + k for k, p in enumerate(gate[1]) if isinstance(p, _Column)]
                position += len(gate[1])
            else:
                position += len(gate.data)
        return places

    def values(self, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """Angles (B, columns) of a batch."""
        return self.table.values(theta, inputs[:, self.width :])

    def starts(self, inputs: np.ndarray) -> np.ndarray | None:
        """Start states (B, 2**n); None where all are |0…0⟩."""
        return inputs[:, : self.width].astype(np.float64) if self.width else None

    def gradient(
        self, d_values: np.ndarray, d_start: np.ndarray, theta: np.ndarray, inputs: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives by the columns (B, columns) and the start (B, width) → by theta and inputs."""
        d_theta, d_x = self.table.vjp(theta, inputs[:, self.width :], d_values)
        return d_theta.astype(theta.dtype), np.concatenate([d_start, d_x], axis=1).astype(inputs.dtype)


class _Column(int):
    """Number of a column, in the place of an angle."""


def _made(gate: tuple[Any, Sequence[_Column | float], Sequence[int]], angles: Sequence[Any]) -> Any:
    cls, params, wires = gate
    return cls(*(angles[p] if isinstance(p, _Column) else p for p in params), wires=wires)


_Gates: TypeAlias = Iterator[tuple[Any, Sequence[Angle], Sequence[int]]]


def _whole(operations: Iterable[Operation]) -> _Gates:
    """`(class, angles, wires)` of each operation, by PennyLane's own gates; one of a user is a unitary."""
    for op in operations:
        yield _WHOLE.get(op.gate) or partial(_of_user, op.gate), op.params, op.qubits


def _of_user(name: str, *angles: float, wires: Sequence[int]) -> Any:
    return qml.QubitUnitary(GATES[name].matrix(*angles), wires=wires)


def _named(operations: Iterable[Operation]) -> _Gates:
    for op in operations:
        if op.gate in _THREE:
            for cls, number in _THREE[op.gate]:
                yield cls, (op.params[number],), op.qubits
        elif op.gate in OPERATIONS:
            yield OPERATIONS[op.gate], op.params, op.qubits
        else:  # a gate of a user
            yield from _basic([op])


def _basic(operations: Iterable[Operation]) -> _Gates:
    for step in steps_of(operations):
        if step.axis is None:
            yield qml.CNOT, (), step.qubits
        elif step.axis in _AXES:
            yield _AXES[step.axis], (step.angle,), step.qubits
        elif step.angle.is_constant:
            yield partial(_unitary, step.axis), (step.angle,), step.qubits
        else:  # which must broadcast and have a derivative: the axis is rotated to Z and back
            x, y, z = step.axis
            tilt, turn = as_angle(math.acos(z)), as_angle(math.atan2(y, x))
            for cls, angle in ((qml.RZ, -turn), (qml.RY, -tilt), (qml.RZ, step.angle), (qml.RY, tilt), (qml.RZ, turn)):
                yield cls, (angle,), step.qubits


def _unitary(axis: Axis, angle: float, wires: Sequence[int]) -> Any:
    x, y, z = axis
    sigma = np.array([[z, x - 1j * y], [x + 1j * y, -z]])
    return qml.QubitUnitary(np.cos(angle / 2) * np.eye(2) - 1j * np.sin(angle / 2) * sigma, wires=wires)
