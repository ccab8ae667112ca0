"""What a plugin needs before its own library comes in.

Gates as single-qubit rotations, and the preparation of real amplitudes by rotations and CNOTs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from qstore_core import Circuit
from qstore_core.circuit.angles.angle import Angle, as_angle
from qstore_core.circuit.circuit import Operation
from qstore_core.circuit.gates.table import GATES, Axis, Cnot

__all__ = ["Turned", "amplitude_angles", "amplitude_gates", "as_rotations", "steps_of"]


@dataclass(frozen=True)
class Turned:
    """One step of a circuit: `exp(-i angle/2 axis·σ)` on `qubits[0]`, or a CNOT where axis is None."""

    qubits: tuple[int, ...]
    axis: Axis | None = None
    angle: Angle = as_angle(0.0)  # noqa: RUF009 - frozen


def as_rotations(circuit: Circuit) -> tuple[Turned, ...]:
    """A circuit as rotations and CNOTs, by the gate table; equal up to a global phase.

    Example:
        >>> c = Circuit(2)
        >>> c.crz(c.weights(1)[0], 0, 1)
        >>> [(str(step.angle), step.qubits) for step in as_rotations(c)]
        [('0.5*w0', (1,)), ('0', (0, 1)), ('-0.5*w0', (1,)), ('0', (0, 1))]
    """
    return steps_of(circuit.operations)


def steps_of(operations: Iterable[Operation]) -> tuple[Turned, ...]:
    """The same for some operations."""
    steps = []
    for op in operations:
        for step in GATES[op.gate].steps:
            if isinstance(step, Cnot):
                steps.append(Turned((op.qubits[step.control], op.qubits[step.target])))
            else:
                angle = as_angle(step.constant)
                for coefficient, parameter in zip(step.coefficients, op.params, strict=False):
                    angle = angle + coefficient * parameter
                steps.append(Turned((op.qubits[step.qubit],), step.axis, angle))
    return tuple(steps)


def amplitude_gates(n_qubits: int) -> list[tuple[str, tuple[int, ...]]]:
    """Gates that prepare any real state from |0…0⟩.

    A tree of multiplexed RY, each level in Gray-code order: 2**n - 1 rotations, 2**n - 2 CNOTs, the same for every
    sample, so that a batch of states is a batch of parameter values.

    Returns:
        `("ry", (qubit,))`, whose angles are the columns of `amplitude_angles` in order, and
        `("cnot", (control, target))`.

    Source:
        Möttönen, Vartiainen, Bergholm, Salomaa, arXiv:quant-ph/0407010.
    """
    gates: list[tuple[str, tuple[int, ...]]] = [("ry", (0,))]
    for target in range(1, n_qubits):
        size = 1 << target
        for i in range(size):
            bit = min((~i & (i + 1)).bit_length() - 1, target - 1)  # that changes between Gray codes i and i + 1
            gates += [("ry", (target,)), ("cnot", (target - 1 - bit, target))]
    return gates


def amplitude_angles(amplitudes: np.ndarray) -> np.ndarray:
    """Angles of the RY of `amplitude_gates` for a batch of real unit rows.

    Args:
        amplitudes: (B, 2**n).

    Returns:
        float64 (B, 2**n - 1), radians.

    Example:
        >>> amplitude_angles(np.array([[0.0, 1.0], [0.6, -0.8]])).round(4)
        array([[ 3.1416],
               [-1.8546]])
    """
    rows = np.asarray(amplitudes, np.float64)
    levels, norms = [], rows
    while norms.shape[1] > 1:
        pairs = norms.reshape(len(rows), -1, 2)
        levels.append(2 * np.arctan2(pairs[:, :, 1], pairs[:, :, 0]))
        norms = np.hypot(pairs[:, :, 0], pairs[:, :, 1])
    columns = []
    for angles in reversed(levels):
        size = angles.shape[1]
        index = np.arange(size)
        columns.append(_walsh_hadamard(angles)[:, index ^ (index >> 1)] / size)
    return np.concatenate(columns, axis=1)


def _walsh_hadamard(rows: np.ndarray) -> np.ndarray:
    """Σ_j (-1)^popcount(i & j) rows[:, j], in n log n steps."""
    size, width = rows.shape[1], 1
    while width < size:
        blocks = rows.reshape(len(rows), -1, 2, width)
        rows = np.stack([blocks[:, :, 0] + blocks[:, :, 1], blocks[:, :, 0] - blocks[:, :, 1]], axis=2)
        rows = rows.reshape(len(rows), size)
        width *= 2
    return rows
