"""Gates without end: `controlled_<values>_<gate>` and `pauli_rot_<letters>`, entries of the table when asked for.

`controlled_10_ry` is RY on the last qubit where the first is |1⟩ and the second |0⟩; `pauli_rot_zxy` is
exp(-i angle ZXY/2). They decompose like every gate into rotations and CNOTs, so every engine and backend has them.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from functools import lru_cache, partial, reduce

import numpy as np

from .table import GATES, PAULIS, AxisRotation, Cnot, Gate, gate, phase_of, rotation_matrix

__all__ = ["MOST_QUBITS", "family_gate"]

MOST_QUBITS = 10  # a controlled gate on n qubits is a product of up to 2**n phases


@lru_cache(maxsize=1024)
def family_gate(name: str) -> Gate | None:
    """The entry of a name in one of the families; None for any other name."""
    if found := re.fullmatch(rf"pauli_rot_([xyz]{{1,{MOST_QUBITS}}})", name):
        return _pauli_rotation(name, found[1])
    if found := re.fullmatch(r"controlled_([01]+)_(\w+)", name):
        base = gate(found[2])
        if len(found[1]) + base.n_qubits <= MOST_QUBITS:
            return _controlled(name, found[1], base)
    return None


def _pauli_rotation(name: str, letters: str) -> Gate:
    n = len(letters)
    # Rotations that take X or Y to Z; Z stays.
    bases = {"x": ((0.0, 1.0, 0.0), -math.pi / 2), "y": ((1.0, 0.0, 0.0), math.pi / 2)}
    before = [AxisRotation(q, bases[x][0], (), bases[x][1]) for q, x in enumerate(letters) if x != "z"]
    after = [AxisRotation(r.qubit, r.axis, (), -r.constant) for r in before]
    steps: tuple[AxisRotation | Cnot, ...] = (
        *before, *_parity(range(n), (1.0,), 0.0), *after
    )  # fmt: skip
    return Gate(name, n, 1, partial(_pauli_matrix, letters), steps, "two-term", f"exp(-i angle {letters.upper()}/2).",
                symbol=f"rot_{letters}")  # fmt: skip


def _pauli_matrix(letters: str, angle: float) -> np.ndarray:
    """Made when it is asked for: there are 3**10 gates of 10 qubits, and a matrix of each takes 16 MB."""
    return rotation_matrix(reduce(np.kron, (PAULIS[letter] for letter in letters)), angle)


def _controlled(name: str, values: str, base: Gate) -> Gate:
    k, n = len(values), len(values) + base.n_qubits
    controls = tuple(range(k))
    flips = [AxisRotation(q, (1.0, 0.0, 0.0), (), math.pi) for q in controls if values[q] == "0"]
    steps: list[AxisRotation | Cnot] = list(flips)
    for step in base.steps:
        if isinstance(step, Cnot):
            control, target = k + step.control, k + step.target
            hadamard = AxisRotation(target, (math.sqrt(0.5), 0.0, math.sqrt(0.5)), (), math.pi)
            steps += [hadamard, *_all_ones((*controls, control, target), (), math.pi), hadamard]
        else:
            steps += _controlled_rotation(controls, k + step.qubit, step)
    steps += _all_ones(controls, *phase_of(base))
    steps += [AxisRotation(r.qubit, r.axis, (), -r.constant) for r in flips]
    one_frequency = base.name == "p" or (base.shift == "two-term" and base.name in ("cp",))
    shift = "" if not base.n_params else "two-term" if one_frequency else "four-term"
    return Gate(
        name, n, base.n_params, partial(_controlled_matrix, values, base), tuple(steps), shift,
        f"{base.help.rstrip('.')}, where {k} qubit(s) are {values}.",
        controls=k + base.controls, symbol=base.symbol or base.name.removeprefix("c" * base.controls), values=values,
    )  # fmt: skip


def _controlled_matrix(values: str, base: Gate, *angles: float) -> np.ndarray:
    block = np.asarray(base.matrix(*angles), complex)
    out = np.eye(len(block) << len(values), dtype=complex)
    start = int(values, 2) * len(block)
    out[start : start + len(block), start : start + len(block)] = block
    return out


def _controlled_rotation(controls: Sequence[int], qubit: int, step: AxisRotation) -> list[AxisRotation | Cnot]:
    """A rotation where all controls are 1: about Z by phases of parities, about others between two rotations."""
    x, y, z = step.axis
    tilt = math.acos(max(-1.0, min(1.0, z)))
    length = math.hypot(x, y)
    aside = (-y / length, x / length, 0.0) if length > 1e-12 else (1.0, 0.0, 0.0)  # Z turns to the axis about this
    around = [AxisRotation(qubit, aside, (), sign * tilt) for sign in (-1, 1)] if tilt else []
    middle: list[AxisRotation | Cnot] = []
    for some in _subsets(controls):
        factor = (-1) ** len(some) / (1 << len(controls))
        middle += _parity((*some, qubit), tuple(factor * c for c in step.coefficients), factor * step.constant)
    return [*around[:1], *middle, *around[1:]]


def _all_ones(qubits: Sequence[int], coefficients: Sequence[float], constant: float) -> list[AxisRotation | Cnot]:
    """The phase exp(i angle) where all qubits are 1; angle = constant + coefficients · gate parameters."""
    steps: list[AxisRotation | Cnot] = []
    if not any((constant, *coefficients)):
        return steps
    for some in _subsets(qubits):
        if some:
            factor = -2 * (-1) ** len(some) / (1 << len(qubits))
            steps += _parity(some, tuple(factor * c for c in coefficients), factor * constant)
    return steps


def _parity(qubits: Sequence[int], coefficients: tuple[float, ...], constant: float) -> list[AxisRotation | Cnot]:
    """exp(-i angle/2 Z…Z): the parity is copied to the last qubit and back."""
    cnots = [Cnot(q, qubits[-1]) for q in qubits[:-1]]
    return [*cnots, AxisRotation(qubits[-1], (0.0, 0.0, 1.0), coefficients, constant), *reversed(cnots)]


def _subsets(qubits: Sequence[int]) -> list[tuple[int, ...]]:
    return [some for size in range(len(qubits) + 1) for some in itertools.combinations(qubits, size)]


GATES.families.append(family_gate)
