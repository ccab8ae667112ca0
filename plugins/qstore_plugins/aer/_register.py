"""Exact values and adjoint gradients from Aer's statevector method: one circuit for the whole batch.

log2(B) further qubits count the samples: the state `Σ_b |b⟩|ψ_b⟩ / √B` is set once, gates with shared angles act on
all samples at once, and an angle that differs from sample to sample is a diagonal gate on the counter and its qubit.
A batch of 32 on 8 qubits is one 13-qubit circuit instead of 32 circuits.

The gradient is the adjoint method in two such circuits. The first saves the state after every rotation with a variable
angle; the second starts from `O|ψ⟩`, undoes the circuit and saves before every undoing; each derivative is
`Im⟨λ|σ|ψ⟩`. What is left at its end is the gradient of the start state.

Source:
    Jones & Gacon, arXiv:2009.02823.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.circuit.library import DiagonalGate
from qiskit.quantum_info import Statevector
from qiskit_aer.library import SetStatevector

from qstore_core import Circuit
from qstore_core.circuit.gates.table import Axis
from qstore_core.circuit.measurements.measurement import Measurement
from qstore_core.engines.arrays.angles import Polynomials
from qstore_core.engines.readout import Readout

from .._lowering import Turned, as_rotations

Template: TypeAlias = tuple[QuantumCircuit, list[tuple[int, int]], list[tuple[Parameter, int]]]

__all__ = ["RegisterExecutable", "add_turn"]

_STATE = 1 << 20  # amplitudes of one circuit, where the batch can be divided
_NAMES: dict[Axis, str] = {(1.0, 0.0, 0.0): "rx", (0.0, 1.0, 0.0): "ry", (0.0, 0.0, 1.0): "rz"}
_SAVED = 1 << 24  # amplitudes saved by one circuit, likewise


class RegisterExecutable:
    """A circuit on the exact statevector simulator.

    Args:
        circuit: What is run.
        measurement: What is read.
        run: `(circuits, parameter_binds) → one dict of saved data per circuit`; one submission.
        dtype: Of the outputs.
    """

    def __init__(self, circuit: Circuit, measurement: Measurement, run: Callable[..., Any], dtype: str) -> None:
        self._n, self._width = circuit.n_qubits, circuit.n_amplitudes
        self._run, self._dtype = run, dtype
        self._steps = as_rotations(circuit)
        self._varying = [k for k, step in enumerate(self._steps) if step.axis and not step.angle.is_constant]
        self._table = Polynomials([self._steps[k].angle for k in self._varying])
        self._readout = Readout(measurement, circuit.n_qubits)
        self._template = lru_cache(64)(self._build)

    # -- the contract -----------------------------------------------------------------------------------------------

    def forward(self, theta: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """Outputs (B, O)."""
        if not len(inputs):
            return np.zeros((0, self._readout.n_outputs), self._dtype)
        data = self._sweep(theta, inputs, self._starts(inputs), "forward", _STATE)
        return self._readout.from_states(self._gather(data, "end")).astype(self._dtype)

    def vjp(self, theta: np.ndarray, inputs: np.ndarray, cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`(d_theta (W,), d_inputs (B, I))`."""
        return self.value_and_vjp(theta, inputs)[1](cotangents)

    def value_and_vjp(self, theta: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, Callable[..., Any]]:
        """Outputs, and the function that pulls cotangents back."""
        if not len(inputs):
            nothing = np.zeros_like(theta), np.zeros_like(inputs)
            return self.forward(theta, inputs), lambda _: nothing
        size = min(_STATE, _SAVED // (len(self._varying) + 1))
        ahead = self._sweep(theta, inputs, self._starts(inputs), "save", size)
        states = self._gather(ahead, "end")

        def pullback(cotangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            adjoint = self._readout.pull_states(states, np.asarray(cotangents, np.float64))
            if not adjoint.any():
                return np.zeros_like(theta), np.zeros_like(inputs)
            back = self._sweep(theta, inputs, adjoint, "undo", size)
            d_angles = np.zeros((len(inputs), len(self._varying)))
            for column, k in enumerate(self._varying):
                step = self._steps[k]
                assert step.axis is not None
                psi, lam = self._gather(ahead, f"s{column}"), self._gather(back, f"s{column}")
                d_angles[:, column] = _overlap(lam, step.axis, step.qubits[0], psi).imag
            d_theta, d_x = self._table.vjp(theta, inputs[:, self._width :], d_angles)
            d_start = 2 * self._gather(back, "end").real[:, : self._width]
            return d_theta.astype(theta.dtype), np.concatenate([d_start, d_x], axis=1).astype(inputs.dtype)

        return self._readout.from_states(states).astype(self._dtype), pullback

    # -- circuits ---------------------------------------------------------------------------------------------------

    def _starts(self, inputs: np.ndarray) -> np.ndarray:
        """Start states (B, 2**n), without the copy where all are |0…0⟩."""
        if self._width:
            return inputs[:, : self._width]
        return np.broadcast_to(np.eye(1, 1 << self._n), (len(inputs), 1 << self._n))

    def _sweep(
        self, theta: np.ndarray, inputs: np.ndarray, starts: np.ndarray, kind: str, size: int
    ) -> list[tuple[int, float, dict[str, Any]]]:
        """Run all samples in one submission: `(rows, scale, saved states)` per circuit."""
        angles = self._table.values(theta, inputs[:, self._width :])
        most = max(1, size >> self._n)
        circuits, binds, shape = [], [], []
        for first in range(0, len(inputs), most):
            rows = slice(first, min(first + most, len(inputs)))
            circuit, bind, scale = self._fill(kind, angles[rows], starts[rows])
            circuits.append(circuit)
            binds.append(bind)
            shape.append((rows.stop - first, scale))
        saved = self._run(circuits, binds)
        return [(rows, scale, data) for (rows, scale), data in zip(shape, saved, strict=True)]

    def _gather(self, data: list[tuple[int, float, dict[str, Any]]], label: str) -> np.ndarray:
        """One saved state (B, 2**n), at its true scale."""
        parts = [np.asarray(saved[label]).reshape(-1, 1 << self._n)[:rows] * scale for rows, scale, saved in data]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _fill(
        self, kind: str, angles: np.ndarray, starts: np.ndarray
    ) -> tuple[QuantumCircuit, dict[Parameter, list[float]], float]:
        """The circuit of some samples."""
        count = (len(angles) - 1).bit_length()
        template, diagonals, parameters = self._template(kind, count)
        state = np.zeros((1 << count, 1 << self._n), np.complex128)
        state[: len(starts)] = starts
        scale = float(np.linalg.norm(state))
        state /= scale or 1.0
        if not scale:  # a gradient of zero: any state will do, its scale is zero
            state[0, 0] = 1.0
        circuit = template.copy()
        circuit.data[0] = circuit.data[0].replace(operation=SetStatevector(Statevector(state.reshape(-1))))
        sign = -1.0 if kind == "undo" else 1.0
        for position, column in diagonals:
            phases = np.ones((1 << count, 2), np.complex128)
            phase = np.exp(-0.5j * sign * angles[:, column])
            phases[: len(angles), 0], phases[: len(angles), 1] = phase, phase.conj()
            gate = DiagonalGate(phases.reshape(-1).tolist())
            circuit.data[position] = circuit.data[position].replace(operation=gate)
        return circuit, {p: [sign * angles[0, column]] for p, column in parameters}, scale

    def _build(self, kind: str, count: int) -> Template:
        """The circuit with gaps: positions of diagonals and parameters, each with the column of its angle."""
        n = self._n
        circuit = QuantumCircuit(n + count)
        circuit.append(SetStatevector(Statevector(np.eye(1, 1 << (n + count))[0])), range(n + count))
        diagonals: list[tuple[int, int]] = []
        parameters: list[tuple[Parameter, int]] = []
        for step, column in self._in_order(kind):
            where = [n - 1 - q for q in step.qubits]  # Qiskit's qubit 0 is the least significant
            if step.axis is None:
                circuit.cx(*where)
                continue
            if kind == "undo" and column is not None:
                circuit.save_statevector(f"s{column}")
            if column is None:
                add_turn(circuit, step.axis, where[0], -step.angle.constant if kind == "undo" else step.angle.constant)
            elif not step.angle.uses_inputs:
                parameters.append((Parameter(f"a{column}"), column))
                add_turn(circuit, step.axis, where[0], parameters[-1][0])
            else:
                frame = turn_to_z(step.axis)
                for name, angle in frame:
                    getattr(circuit, name)(angle, *where)
                diagonals.append((len(circuit.data), column))
                circuit.append(DiagonalGate([1.0] * (2 << count)), [*where, *range(n, n + count)])
                for name, angle in reversed(frame):
                    getattr(circuit, name)(-angle, *where)
            if kind == "save" and column is not None:
                circuit.save_statevector(f"s{column}")
        circuit.save_statevector("end")
        return circuit, diagonals, parameters

    def _in_order(self, kind: str) -> Iterator[tuple[Turned, int | None]]:
        """Steps in time order, backwards to undo them, with the column of a variable angle."""
        columns = {k: column for column, k in enumerate(self._varying)}
        numbers = range(len(self._steps))
        for k in reversed(numbers) if kind == "undo" else numbers:
            yield self._steps[k], columns.get(k)


def add_turn(circuit: QuantumCircuit, axis: Axis, qubit: int, angle: Any) -> None:
    """Append `exp(-i angle/2 axis·σ)`; the angle is a number or an expression of parameters."""
    name = _NAMES.get(axis)
    if name is not None:
        getattr(circuit, name)(angle, qubit)
        return
    frame = turn_to_z(axis)
    for gate, constant in frame:
        getattr(circuit, gate)(constant, qubit)
    circuit.rz(angle, qubit)
    for gate, constant in reversed(frame):
        getattr(circuit, gate)(-constant, qubit)


def turn_to_z(axis: Axis) -> list[tuple[str, float]]:
    """Rotations `(gate, angle)`, first to last in time, that take `axis` to Z.

    Example:
        >>> turn_to_z((0.0, 0.0, 1.0)), turn_to_z((0.0, 1.0, 0.0))
        ([], [('rx', 1.5707963267948966)])
    """
    if axis == (0.0, 0.0, 1.0):
        return []
    if axis == (0.0, 1.0, 0.0):
        return [("rx", math.pi / 2)]
    x, y, z = axis
    azimuth = math.atan2(y, x)
    polar = ("ry", -math.acos(z))
    return [("rz", -azimuth), polar] if azimuth else [polar]


def _overlap(lam: np.ndarray, axis: Axis, qubit: int, psi: np.ndarray) -> np.ndarray:
    """`⟨λ|axis·σ|ψ⟩` per row, σ on one qubit."""
    shape = (len(psi), 1 << qubit, 2, -1)
    a, b = lam.reshape(shape).conj(), psi.reshape(shape)
    x, y, z = axis
    total = np.zeros(len(psi), np.complex128)
    for bra, ket, element in ((0, 0, z), (0, 1, x - 1j * y), (1, 0, x + 1j * y), (1, 1, -z)):
        if element:
            total += element * np.einsum("bij,bij->b", a[:, :, bra], b[:, :, ket])
    return total
