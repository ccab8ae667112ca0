"""The gate table: one entry per gate with its matrix, its decomposition and its parameter-shift rule.

Every gate decomposes into rotations `exp(-i angle/2 axis·σ)` of one qubit and CNOTs, up to a global phase, which no
measurement can see. The Plan (see `qstore_core.circuit.plan`) is built from these two alone: rotations cost
arithmetic, CNOTs cost nothing.

Source:
    Nielsen & Chuang, Quantum Computation and Quantum Information, chapter 4; Barenco et al., arXiv:quant-ph/9503016.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import SpecError, nearest

__all__ = ["GATES", "Axis", "Cnot", "Gate", "Turn", "gate"]

Axis = tuple[float, float, float]
X: Axis = (1.0, 0.0, 0.0)
Y: Axis = (0.0, 1.0, 0.0)
Z: Axis = (0.0, 0.0, 1.0)
_H: Axis = (math.sqrt(0.5), 0.0, math.sqrt(0.5))
PI = math.pi


@dataclass(frozen=True, slots=True)
class Turn:
    """`exp(-i angle/2 axis·σ)` on one qubit; angle = constant + coefficients · gate parameters."""

    qubit: int
    axis: Axis
    coefficients: tuple[float, ...] = ()
    constant: float = 0.0


@dataclass(frozen=True, slots=True)
class Cnot:
    """CNOT inside a decomposition; positions among the gate's qubits."""

    control: int
    target: int


@dataclass(frozen=True, slots=True)
class Gate:
    """One entry of the table.

    Attributes:
        name: Lower-case name; also the name of the `Circuit` method.
        n_qubits: Number of qubits; controls come first.
        n_params: Number of angles.
        matrix: `(params) → complex128 (2**n_qubits, 2**n_qubits)`; first qubit most significant.
        steps: Decomposition, first to last in time, equal to `matrix` up to a global phase.
        shift: Per parameter, "two-term", "four-term" or "" (see `differentiate`).
        help: One line.
    """

    name: str
    n_qubits: int
    n_params: int
    matrix: Callable[..., np.ndarray]
    steps: tuple[Turn | Cnot, ...]
    shift: str
    help: str


_I2 = np.eye(2, dtype=complex)
_PAULI = {
    "x": np.array([[0, 1], [1, 0]], dtype=complex),
    "y": np.array([[0, -1j], [1j, 0]], dtype=complex),
    "z": np.array([[1, 0], [0, -1]], dtype=complex),
}
_HADAMARD = np.array([[1, 1], [1, -1]], dtype=complex) * math.sqrt(0.5)


def _rotation(pauli: np.ndarray, angle: float) -> np.ndarray:
    """exp(-i angle/2 P) for P² = 1."""
    return math.cos(angle / 2) * np.eye(len(pauli)) - 1j * math.sin(angle / 2) * pauli


def _phase(angle: float) -> np.ndarray:
    return np.diag([1.0, cmath.exp(1j * angle)])


def _rot(phi: float, theta: float, omega: float) -> np.ndarray:
    return _rotation(_PAULI["z"], omega) @ _rotation(_PAULI["y"], theta) @ _rotation(_PAULI["z"], phi)


def _u3(theta: float, phi: float, lam: float) -> np.ndarray:
    c, s = math.cos(theta / 2), math.sin(theta / 2)
    return np.array([[c, -cmath.exp(1j * lam) * s], [cmath.exp(1j * phi) * s, cmath.exp(1j * (phi + lam)) * c]])


def _controlled(matrix: np.ndarray, controls: int = 1) -> np.ndarray:
    out = np.eye(len(matrix) << controls, dtype=complex)
    out[-len(matrix) :, -len(matrix) :] = matrix
    return out


_SWAP = np.eye(4, dtype=complex)[[0, 2, 1, 3]]


def _t(qubit: int, axis: Axis, *coefficients: float, constant: float = 0.0) -> Turn:
    return Turn(qubit, axis, coefficients, constant)


def _parity_phase(*terms: tuple[tuple[int, ...], float, float]) -> tuple[Turn | Cnot, ...]:
    """exp(-i a/2 Z⊗Z…) for each (qubits, coefficient, constant): the parity is copied to the last qubit and back."""
    steps: list[Turn | Cnot] = []
    for qubits, coefficient, constant in terms:
        ladder = [Cnot(q, qubits[-1]) for q in qubits[:-1]]
        turn = Turn(qubits[-1], Z, (coefficient,) if coefficient else (), constant)
        steps += [*ladder, turn, *reversed(ladder)]
    return tuple(steps)


_CNOT01 = Cnot(0, 1)
_H0, _H1, _H2 = (Turn(q, _H, (), PI) for q in range(3))
_CZ = _parity_phase(((0,), 0, PI / 2), ((1,), 0, PI / 2), ((0, 1), 0, -PI / 2))
# CCZ = exp(iπ |111⟩⟨111|), and |111⟩⟨111| = (1 - Z0)(1 - Z1)(1 - Z2)/8.
_CCZ = _parity_phase(
    *(((q,), 0, PI / 4) for q in range(3)),
    *((pair, 0, -PI / 4) for pair in ((0, 1), (0, 2), (1, 2))),
    ((0, 1, 2), 0, PI / 4),
)
_CCX = (_H2, *_CCZ, _H2)


def _conjugate(axis_turns: tuple[Turn, ...], inner: tuple[Turn | Cnot, ...]) -> tuple[Turn | Cnot, ...]:
    """`inner` between the inverse of `axis_turns` and `axis_turns`."""
    inverse = tuple(Turn(t.qubit, t.axis, (), -t.constant) for t in reversed(axis_turns))
    return (*inverse, *inner, *axis_turns)


_RXX = (_CNOT01, _t(0, X, 1.0), _CNOT01)
_QUARTER_Z = (Turn(0, Z, (), PI / 2), Turn(1, Z, (), PI / 2))  # takes X to Y on both qubits

_TABLE = [
    Gate("id", 1, 0, lambda: _I2, (), "", "Identity."),
    Gate("x", 1, 0, lambda: _PAULI["x"], (Turn(0, X, (), PI),), "", "Pauli X (NOT)."),
    Gate("y", 1, 0, lambda: _PAULI["y"], (Turn(0, Y, (), PI),), "", "Pauli Y."),
    Gate("z", 1, 0, lambda: _PAULI["z"], (Turn(0, Z, (), PI),), "", "Pauli Z."),
    Gate("h", 1, 0, lambda: _HADAMARD, (_H0,), "", "Hadamard."),
    Gate("s", 1, 0, lambda: _phase(PI / 2), (Turn(0, Z, (), PI / 2),), "", "Phase of π/2."),
    Gate("sdg", 1, 0, lambda: _phase(-PI / 2), (Turn(0, Z, (), -PI / 2),), "", "Inverse of S."),
    Gate("t", 1, 0, lambda: _phase(PI / 4), (Turn(0, Z, (), PI / 4),), "", "Phase of π/4."),
    Gate("tdg", 1, 0, lambda: _phase(-PI / 4), (Turn(0, Z, (), -PI / 4),), "", "Inverse of T."),
    Gate(
        "sx",
        1,
        0,
        lambda: cmath.exp(0.25j * PI) * _rotation(_PAULI["x"], PI / 2),
        (Turn(0, X, (), PI / 2),),
        "",
        "Square root of X.",
    ),
    Gate("rx", 1, 1, lambda a: _rotation(_PAULI["x"], a), (_t(0, X, 1.0),), "two-term", "exp(-i angle X/2)."),
    Gate("ry", 1, 1, lambda a: _rotation(_PAULI["y"], a), (_t(0, Y, 1.0),), "two-term", "exp(-i angle Y/2)."),
    Gate("rz", 1, 1, lambda a: _rotation(_PAULI["z"], a), (_t(0, Z, 1.0),), "two-term", "exp(-i angle Z/2)."),
    Gate("p", 1, 1, _phase, (_t(0, Z, 1.0),), "two-term", "diag(1, exp(i angle))."),
    Gate(
        "rot",
        1,
        3,
        _rot,
        (_t(0, Z, 1.0, 0.0, 0.0), _t(0, Y, 0.0, 1.0, 0.0), _t(0, Z, 0.0, 0.0, 1.0)),
        "two-term",
        "RZ(omega) RY(theta) RZ(phi); parameters phi, theta, omega.",
    ),
    Gate(
        "u3",
        1,
        3,
        _u3,
        (_t(0, Z, 0.0, 0.0, 1.0), _t(0, Y, 1.0, 0.0, 0.0), _t(0, Z, 0.0, 1.0, 0.0)),
        "two-term",
        "Parameters theta, phi, lambda.",
    ),
    Gate("cnot", 2, 0, lambda: _controlled(_PAULI["x"]), (_CNOT01,), "", "Controlled X."),
    Gate(
        "cy",
        2,
        0,
        lambda: _controlled(_PAULI["y"]),
        (Turn(1, Z, (), -PI / 2), _CNOT01, Turn(1, Z, (), PI / 2)),
        "",
        "Controlled Y.",
    ),
    Gate("cz", 2, 0, lambda: _controlled(_PAULI["z"]), _CZ, "", "Controlled Z."),
    Gate(
        "ch",
        2,
        0,
        lambda: _controlled(_HADAMARD),
        (Turn(1, Y, (), -PI / 4), *_CZ, Turn(1, Y, (), PI / 4)),
        "",
        "Controlled Hadamard.",
    ),
    Gate("swap", 2, 0, lambda: _SWAP, (Cnot(0, 1), Cnot(1, 0), Cnot(0, 1)), "", "Exchange of two qubits."),
    Gate(
        "iswap",
        2,
        0,
        lambda: _SWAP @ np.diag([1, 1j, 1j, 1]),
        (*_parity_phase(((0, 1), 0, PI / 2)), Cnot(0, 1), Cnot(1, 0), Cnot(0, 1)),
        "",
        "Exchange with phase i.",
    ),
    Gate(
        "cp",
        2,
        1,
        lambda a: _controlled(_phase(a)),
        _parity_phase(((0,), 0.5, 0), ((1,), 0.5, 0), ((0, 1), -0.5, 0)),
        "two-term",
        "Controlled phase.",
    ),
    Gate(
        "crx",
        2,
        1,
        lambda a: _controlled(_rotation(_PAULI["x"], a)),
        (_H1, _t(1, Z, 0.5), _CNOT01, _t(1, Z, -0.5), _CNOT01, _H1),
        "four-term",
        "Controlled RX.",
    ),
    Gate(
        "cry",
        2,
        1,
        lambda a: _controlled(_rotation(_PAULI["y"], a)),
        (_t(1, Y, 0.5), _CNOT01, _t(1, Y, -0.5), _CNOT01),
        "four-term",
        "Controlled RY.",
    ),
    Gate(
        "crz",
        2,
        1,
        lambda a: _controlled(_rotation(_PAULI["z"], a)),
        (_t(1, Z, 0.5), _CNOT01, _t(1, Z, -0.5), _CNOT01),
        "four-term",
        "Controlled RZ.",
    ),
    Gate(
        "rxx",
        2,
        1,
        lambda a: _rotation(np.kron(_PAULI["x"], _PAULI["x"]), a),
        _RXX,
        "two-term",
        "exp(-i angle XX/2).",
    ),
    Gate(
        "ryy",
        2,
        1,
        lambda a: _rotation(np.kron(_PAULI["y"], _PAULI["y"]), a),
        _conjugate(_QUARTER_Z, _RXX),
        "two-term",
        "exp(-i angle YY/2).",
    ),
    Gate(
        "rzz",
        2,
        1,
        lambda a: _rotation(np.kron(_PAULI["z"], _PAULI["z"]), a),
        _parity_phase(((0, 1), 1.0, 0)),
        "two-term",
        "exp(-i angle ZZ/2).",
    ),
    Gate("ccx", 3, 0, lambda: _controlled(_PAULI["x"], 2), _CCX, "", "Toffoli."),
    Gate("ccz", 3, 0, lambda: _controlled(_PAULI["z"], 2), _CCZ, "", "Z controlled by two qubits."),
    Gate("cswap", 3, 0, lambda: _controlled(_SWAP), (Cnot(2, 1), *_CCX, Cnot(2, 1)), "", "Controlled exchange."),
]

GATES: dict[str, Gate] = {entry.name: entry for entry in _TABLE}
_ALIASES = {"cx": "cnot", "toffoli": "ccx", "phase": "p", "i": "id", "hadamard": "h"}


def gate(name: str) -> Gate:
    """Look a gate up by name or usual alias.

    Raises:
        SpecError: no such gate; names the nearest one.

    Example:
        >>> gate("cx").name
        'cnot'
    """
    key = _ALIASES.get(name.lower(), name.lower()) if isinstance(name, str) else name
    if key not in GATES:
        raise SpecError(f"no gate named {name!r}. Known: {', '.join(sorted(GATES))}.{nearest(str(name), GATES)}")
    return GATES[key]
