"""What circuits from and to every library have in common."""

from __future__ import annotations

import itertools
import math
from collections.abc import Container, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..circuit.angles.angle import Angle, as_angle
from ..circuit.circuit import Circuit
from ..circuit.gates.table import GATES, PAULIS, Cnot
from ..circuit.measurements.measurement import Expectation, Measurement, Observable, Probabilities
from ..errors import SpecError

__all__ = ["Imported", "as_observables", "diagonal", "matrix_observable", "on_qubits", "step_of", "within"]

_MOST_MEASURED = 12  # qubits of one probability vector that is written as observables
_ROUNDING = 1e-14  # of a coefficient, relative to the largest one


class Imported(NamedTuple):
    """A circuit from elsewhere, and what came with it.

    Attributes:
        circuit: With parameter slots.
        measurement: What is read; None where the source measures nothing.
        theta: float64 (W,); weights that came along, None where there were none.
        n_features: Features per sample where they are fewer than amplitudes, else None.
        shots: Samples that the source asks for.
    """

    circuit: Circuit
    measurement: Measurement | None
    theta: np.ndarray | None = None
    n_features: int | None = None
    shots: int | None = None


def step_of(at: str, how: str = "") -> str:
    """Where a step of an operation stands, for messages: of gates in many gates the outermost and the innermost."""
    first, *others = at.split(", step ")
    if len(others) > 3:
        first, others = f"{first}, step {others[0].removesuffix(', …')}, …", others[-1:]
    return ", step ".join([first, *others]) + f"{how}, step"


def within(op: Any, known: Container[str]) -> Iterator[tuple[str, tuple[int, ...], tuple[Angle, ...]]]:
    """An operation in gates that another library has: itself, or rotations and CNOTs, up to a global phase."""
    if op.channel is not None:
        raise SpecError(f"{op} is a channel, which gates cannot say. Noise belongs to the backend or device there.")
    if op.gate in known:
        yield op.gate, op.qubits, op.params
        return
    for step in GATES[op.gate].steps:
        if isinstance(step, Cnot):
            yield "cnot", (op.qubits[step.control], op.qubits[step.target]), ()
            continue
        angle = as_angle(step.constant)
        for coefficient, param in zip(step.coefficients, op.params, strict=False):
            angle = angle + coefficient * param
        x, y, z = step.axis
        here = (op.qubits[step.qubit],)
        axis = {(1.0, 0.0, 0.0): "rx", (0.0, 1.0, 0.0): "ry", (0.0, 0.0, 1.0): "rz"}.get(step.axis)
        if axis is not None:
            yield axis, here, (angle,)
            continue
        tilt, turn = as_angle(math.acos(max(-1.0, min(1.0, z)))), as_angle(math.atan2(y, x))
        yield from (("rz", here, (-turn,)), ("ry", here, (-tilt,)), ("rz", here, (angle,)))
        yield from (("ry", here, (tilt,)), ("rz", here, (turn,)))


# -- observables ------------------------------------------------------------------------------------------------------


def on_qubits(letters: dict[int, str], n_qubits: int) -> str:
    """Letters by qubit as a Pauli string."""
    return "".join(letters.get(q, "I") for q in range(n_qubits))


def diagonal(values: Any, qubits: Sequence[int], n_qubits: int) -> Observable:
    """The observable that is `values[k]` on basis state k of `qubits`, first most significant: a sum of Z strings.

    Example:
        >>> print(diagonal([1, 0], [1], 2))   # the projector onto |0⟩ of qubit 1
        0.5*II + 0.5*IZ
    """
    spectrum = np.array(values, np.float64).reshape((2,) * len(qubits))
    for axis in range(len(qubits)):  # fast Walsh–Hadamard transform
        zero, one = np.take(spectrum, 0, axis), np.take(spectrum, 1, axis)
        spectrum = np.stack([(zero + one) / 2, (zero - one) / 2], axis)
    largest = float(np.abs(spectrum).max())
    terms = [
        (on_qubits({q: "Z" for q, bit in zip(qubits, bits, strict=True) if bit}, n_qubits), float(spectrum[bits]))
        for bits in itertools.product((0, 1), repeat=len(qubits))
        if abs(spectrum[bits]) > _ROUNDING * largest
    ]
    return Observable(tuple(terms or [("I" * n_qubits, 0.0)]))


def matrix_observable(matrix: np.ndarray, qubits: Sequence[int], n_qubits: int) -> Observable:
    """A Hermitian matrix on `qubits`, first most significant, as a sum of Pauli strings."""
    if not np.allclose(matrix, matrix.conj().T, atol=1e-10):
        raise SpecError("its matrix is not Hermitian, and cannot be measured.")
    k, letters = len(qubits), {"I": np.eye(2), **{letter.upper(): pauli for letter, pauli in PAULIS.items()}}
    terms, largest = [], float(np.abs(matrix).max())
    for word in itertools.product("IXYZ", repeat=k):
        part = matrix.reshape((2,) * (2 * k))
        for left, letter in enumerate(word):  # trace of the product, qubit by qubit
            part = np.tensordot(part, letters[letter], axes=([0, k - left], [1, 0]))
        coefficient = float(np.real(part)) / (1 << k)
        if abs(coefficient) > _ROUNDING * largest:
            terms.append((on_qubits(dict(zip(qubits, word, strict=True)), n_qubits), coefficient))
    return Observable(tuple(terms or [("I" * n_qubits, 0.0)]))


def as_observables(measurement: Measurement, n_qubits: int) -> tuple[Observable, ...]:
    """One observable per output; probabilities are those of projectors onto basis states.

    Raises:
        SpecError: outputs are no expectation values, or projectors of too many qubits.
    """
    if isinstance(measurement, Expectation):
        return measurement.as_observables(n_qubits)
    if not isinstance(measurement, Probabilities):
        raise SpecError(f"{measurement} is no expectation of observables.")
    qubits = tuple(range(n_qubits)) if measurement.qubits is None else measurement.qubits
    if len(qubits) > _MOST_MEASURED:
        raise SpecError(
            f"probabilities of {len(qubits)} qubits as observables: at most {_MOST_MEASURED}. Measure them alone."
        )
    states, classes = 1 << len(qubits), measurement.n_outputs(n_qubits)
    return tuple(diagonal(np.arange(states) % classes == k, qubits, n_qubits) for k in range(classes))
