"""The gate table: one entry per gate with its matrix, its decomposition and its parameter-shift rule.

`register_gate` (see `qstore_core.circuit.circuit`) adds an entry.

Every gate decomposes into rotations `exp(-i angle/2 axis·σ)` of one qubit and CNOTs, up to a global phase, which only
`State` can see (`phase_of`). The Plan (see `qstore_core.circuit.lowering.plan`) is built from these two alone:
rotations cost arithmetic, CNOTs cost nothing.

Source:
    Nielsen & Chuang, Quantum Computation and Quantum Information, chapter 4; Barenco et al., arXiv:quant-ph/9503016.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...errors import SpecError, nearest
from ..checks import shown

__all__ = [
    "ALIASES",
    "GATES",
    "PAULIS",
    "SHIFT_RULES",
    "Axis",
    "AxisRotation",
    "Cnot",
    "Gate",
    "GateTable",
    "gate",
    "multiplied_out",
    "phase_of",
    "rotation_matrix",
]

Axis = tuple[float, float, float]
X: Axis = (1.0, 0.0, 0.0)
Y: Axis = (0.0, 1.0, 0.0)
Z: Axis = (0.0, 0.0, 1.0)
_H: Axis = (math.sqrt(0.5), 0.0, math.sqrt(0.5))
PI = math.pi

# (shift, coefficient): d⟨O⟩/da = Σ coefficient · ⟨O⟩(a + shift). Mitarai et al., arXiv:1803.00745; Anselmetti et al.,
# arXiv:2104.05695.
_R2 = math.sqrt(2.0)
SHIFT_RULES: dict[str, tuple[tuple[float, float], ...]] = {
    "two-term": ((math.pi / 2, 0.5), (-math.pi / 2, -0.5)),
    "four-term": (
        (math.pi / 2, (_R2 + 1) / (4 * _R2)),
        (-math.pi / 2, -(_R2 + 1) / (4 * _R2)),
        (3 * math.pi / 2, -(_R2 - 1) / (4 * _R2)),
        (-3 * math.pi / 2, (_R2 - 1) / (4 * _R2)),
    ),
}


@dataclass(frozen=True, slots=True)
class AxisRotation:
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
        shift: Rule of `SHIFT_RULES` for every parameter: "two-term" (frequency 1, as rotations have), "four-term"
            (frequencies 1/2 and 1, as controlled rotations have), or "" without parameters.
        help: One line.
        controls: How many qubits, the first ones, only control.
        symbol: What drawings show on the others; by default the name without its leading "c" of each control.
        values: For each of the first controls the value with which it controls, "1" or "0"; the others control with 1.
    """

    name: str
    n_qubits: int
    n_params: int
    matrix: Callable[..., np.ndarray]
    steps: tuple[AxisRotation | Cnot, ...]
    shift: str
    help: str
    controls: int = 0
    symbol: str = ""
    values: str = ""


_I2 = np.eye(2, dtype=complex)
PAULIS = {
    "x": np.array([[0, 1], [1, 0]], dtype=complex),
    "y": np.array([[0, -1j], [1j, 0]], dtype=complex),
    "z": np.array([[1, 0], [0, -1]], dtype=complex),
}
_HADAMARD = np.array([[1, 1], [1, -1]], dtype=complex) * math.sqrt(0.5)


def rotation_matrix(pauli: np.ndarray, angle: float) -> np.ndarray:
    """exp(-i angle/2 P) for P² = 1."""
    return math.cos(angle / 2) * np.eye(len(pauli)) - 1j * math.sin(angle / 2) * pauli


def _phase(angle: float) -> np.ndarray:
    return np.diag([1.0, cmath.exp(1j * angle)])


def _rot(phi: float, theta: float, omega: float) -> np.ndarray:
    return rotation_matrix(PAULIS["z"], omega) @ rotation_matrix(PAULIS["y"], theta) @ rotation_matrix(PAULIS["z"], phi)


def _u3(theta: float, phi: float, lam: float) -> np.ndarray:
    c, s = math.cos(theta / 2), math.sin(theta / 2)
    return np.array([[c, -cmath.exp(1j * lam) * s], [cmath.exp(1j * phi) * s, cmath.exp(1j * (phi + lam)) * c]])


def _controlled(matrix: np.ndarray, controls: int = 1) -> np.ndarray:
    out = np.eye(len(matrix) << controls, dtype=complex)
    out[-len(matrix) :, -len(matrix) :] = matrix
    return out


_SWAP = np.eye(4, dtype=complex)[[0, 2, 1, 3]]


def _t(qubit: int, axis: Axis, *coefficients: float, constant: float = 0.0) -> AxisRotation:
    return AxisRotation(qubit, axis, coefficients, constant)


def _parity_phase(*terms: tuple[tuple[int, ...], float, float]) -> tuple[AxisRotation | Cnot, ...]:
    """exp(-i a/2 Z⊗Z…) for each (qubits, coefficient, constant): the parity is copied to the last qubit and back."""
    steps: list[AxisRotation | Cnot] = []
    for qubits, coefficient, constant in terms:
        cnots = [Cnot(q, qubits[-1]) for q in qubits[:-1]]
        rotation = AxisRotation(qubits[-1], Z, (coefficient,) if coefficient else (), constant)
        steps += [*cnots, rotation, *reversed(cnots)]
    return tuple(steps)


_CNOT01 = Cnot(0, 1)
_H0, _H1, _H2 = (AxisRotation(q, _H, (), PI) for q in range(3))
_CZ = _parity_phase(((0,), 0, PI / 2), ((1,), 0, PI / 2), ((0, 1), 0, -PI / 2))
# CCZ = exp(iπ |111⟩⟨111|), and |111⟩⟨111| = (1 - Z0)(1 - Z1)(1 - Z2)/8.
_CCZ = _parity_phase(
    *(((q,), 0, PI / 4) for q in range(3)),
    *((pair, 0, -PI / 4) for pair in ((0, 1), (0, 2), (1, 2))),
    ((0, 1, 2), 0, PI / 4),
)
_CCX = (_H2, *_CCZ, _H2)


def _conjugate(
    rotations: tuple[AxisRotation, ...], inner: tuple[AxisRotation | Cnot, ...]
) -> tuple[AxisRotation | Cnot, ...]:
    """`inner` between the inverse of `rotations` and `rotations`."""
    inverse = tuple(AxisRotation(t.qubit, t.axis, (), -t.constant) for t in reversed(rotations))
    return (*inverse, *inner, *rotations)


_RXX = (_CNOT01, _t(0, X, 1.0), _CNOT01)
_QUARTER_Z = (AxisRotation(0, Z, (), PI / 2), AxisRotation(1, Z, (), PI / 2))  # takes X to Y on both qubits

_TABLE = [
    Gate("id", 1, 0, lambda: _I2, (), "", "Identity."),
    Gate("x", 1, 0, lambda: PAULIS["x"], (AxisRotation(0, X, (), PI),), "", "Pauli X (NOT)."),
    Gate("y", 1, 0, lambda: PAULIS["y"], (AxisRotation(0, Y, (), PI),), "", "Pauli Y."),
    Gate("z", 1, 0, lambda: PAULIS["z"], (AxisRotation(0, Z, (), PI),), "", "Pauli Z."),
    Gate("h", 1, 0, lambda: _HADAMARD, (_H0,), "", "Hadamard."),
    Gate("s", 1, 0, lambda: _phase(PI / 2), (AxisRotation(0, Z, (), PI / 2),), "", "Phase of π/2."),
    Gate("sdg", 1, 0, lambda: _phase(-PI / 2), (AxisRotation(0, Z, (), -PI / 2),), "", "Inverse of S."),
    Gate("t", 1, 0, lambda: _phase(PI / 4), (AxisRotation(0, Z, (), PI / 4),), "", "Phase of π/4."),
    Gate("tdg", 1, 0, lambda: _phase(-PI / 4), (AxisRotation(0, Z, (), -PI / 4),), "", "Inverse of T."),
    Gate(
        "sx",
        1,
        0,
        lambda: cmath.exp(0.25j * PI) * rotation_matrix(PAULIS["x"], PI / 2),
        (AxisRotation(0, X, (), PI / 2),),
        "",
        "Square root of X.",
    ),
    Gate("rx", 1, 1, lambda a: rotation_matrix(PAULIS["x"], a), (_t(0, X, 1.0),), "two-term", "exp(-i angle X/2)."),
    Gate("ry", 1, 1, lambda a: rotation_matrix(PAULIS["y"], a), (_t(0, Y, 1.0),), "two-term", "exp(-i angle Y/2)."),
    Gate("rz", 1, 1, lambda a: rotation_matrix(PAULIS["z"], a), (_t(0, Z, 1.0),), "two-term", "exp(-i angle Z/2)."),
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
    Gate("cnot", 2, 0, lambda: _controlled(PAULIS["x"]), (_CNOT01,), "", "Controlled X.", controls=1, symbol="X"),
    Gate(
        "cy",
        2,
        0,
        lambda: _controlled(PAULIS["y"]),
        (AxisRotation(1, Z, (), -PI / 2), _CNOT01, AxisRotation(1, Z, (), PI / 2)),
        "",
        "Controlled Y.",
        controls=1,
    ),
    Gate("cz", 2, 0, lambda: _controlled(PAULIS["z"]), _CZ, "", "Controlled Z.", controls=1),
    Gate(
        "ch",
        2,
        0,
        lambda: _controlled(_HADAMARD),
        (AxisRotation(1, Y, (), -PI / 4), *_CZ, AxisRotation(1, Y, (), PI / 4)),
        "",
        "Controlled Hadamard.",
        controls=1,
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
        controls=1,
    ),
    Gate(
        "crx",
        2,
        1,
        lambda a: _controlled(rotation_matrix(PAULIS["x"], a)),
        (_H1, _t(1, Z, 0.5), _CNOT01, _t(1, Z, -0.5), _CNOT01, _H1),
        "four-term",
        "Controlled RX.",
        controls=1,
    ),
    Gate(
        "cry",
        2,
        1,
        lambda a: _controlled(rotation_matrix(PAULIS["y"], a)),
        (_t(1, Y, 0.5), _CNOT01, _t(1, Y, -0.5), _CNOT01),
        "four-term",
        "Controlled RY.",
        controls=1,
    ),
    Gate(
        "crz",
        2,
        1,
        lambda a: _controlled(rotation_matrix(PAULIS["z"], a)),
        (_t(1, Z, 0.5), _CNOT01, _t(1, Z, -0.5), _CNOT01),
        "four-term",
        "Controlled RZ.",
        controls=1,
    ),
    Gate(
        "rxx",
        2,
        1,
        lambda a: rotation_matrix(np.kron(PAULIS["x"], PAULIS["x"]), a),
        _RXX,
        "two-term",
        "exp(-i angle XX/2).",
    ),
    Gate(
        "ryy",
        2,
        1,
        lambda a: rotation_matrix(np.kron(PAULIS["y"], PAULIS["y"]), a),
        _conjugate(_QUARTER_Z, _RXX),
        "two-term",
        "exp(-i angle YY/2).",
    ),
    Gate(
        "rzz",
        2,
        1,
        lambda a: rotation_matrix(np.kron(PAULIS["z"], PAULIS["z"]), a),
        _parity_phase(((0, 1), 1.0, 0)),
        "two-term",
        "exp(-i angle ZZ/2).",
    ),
    Gate("ccx", 3, 0, lambda: _controlled(PAULIS["x"], 2), _CCX, "", "Toffoli.", controls=2, symbol="X"),
    Gate("ccz", 3, 0, lambda: _controlled(PAULIS["z"], 2), _CCZ, "", "Z controlled by two qubits.", controls=2),
    Gate(
        "cswap",
        3,
        0,
        lambda: _controlled(_SWAP),
        (Cnot(2, 1), *_CCX, Cnot(2, 1)),
        "",
        "Controlled exchange.",
        controls=1,
        symbol="swap",
    ),
]


class GateTable(dict[str, Gate]):
    """Gates by name.

    Attributes:
        families: Functions `name → entry or None`, for gates that are made when they are asked for.
    """

    def __init__(self, entries: Iterable[Gate]) -> None:
        """Take the entries that have a fixed name."""
        super().__init__((entry.name, entry) for entry in entries)
        self.families: list[Callable[[str], Gate | None]] = []

    def __missing__(self, name: str) -> Gate:
        for family in self.families:
            if isinstance(name, str) and (entry := family(name)) is not None:
                return entry
        raise KeyError(name)


GATES = GateTable(_TABLE)
ALIASES = {"cx": "cnot", "toffoli": "ccx", "phase": "p", "i": "id", "hadamard": "h"}


def gate(name: str) -> Gate:
    """Look a gate up by name or usual alias.

    Raises:
        SpecError: no such gate; names the nearest one.

    Example:
        >>> gate("cx").name
        'cnot'
    """
    try:
        return GATES[ALIASES.get(name.lower(), name.lower())]
    except (KeyError, AttributeError):
        pass
    near = nearest(name, GATES) if isinstance(name, str) and len(name) <= 80 else ""
    raise SpecError(f"no gate named {shown(name)}. Known: {', '.join(sorted(GATES))}.{near}")


def multiplied_out(entry: Gate, angles: np.ndarray, columns: int | None = None) -> np.ndarray:
    """The steps of a gate multiplied out: its matrix up to a global phase, or the first columns of it."""
    n = entry.n_qubits
    out = np.eye(1 << n, columns, dtype=complex)
    for step in entry.steps:
        if isinstance(step, Cnot):
            p = np.arange(1 << n)
            out = out[p ^ ((p >> (n - 1 - step.control) & 1) << (n - 1 - step.target))]
        else:
            angle = step.constant + sum(c * a for c, a in zip(step.coefficients, angles, strict=False))
            pauli = sum(part * PAULIS[letter] for part, letter in zip(step.axis, "xyz", strict=True))
            block = rotation_matrix(np.asarray(pauli), angle)
            pairs = out.reshape(1 << step.qubit, 2, -1)
            out = (block @ pairs).reshape(out.shape)
    return out


@lru_cache(maxsize=1024)
def phase_of(entry: Gate) -> tuple[tuple[float, ...], float]:
    """The phase of a gate's matrix beside its steps, `(coefficients, constant)`: it is linear in the angles.

    Raises:
        SpecError: it is not, as only a gate of a user can be.
    """

    def phase(angles: np.ndarray) -> float:
        column = multiplied_out(entry, angles, 1)[:, 0]
        return float(np.angle(np.vdot(column, np.asarray(entry.matrix(*angles), complex)[:, 0])))

    at_zero, units, step = phase(np.zeros(entry.n_params)), np.eye(entry.n_params), 0.5
    slopes = [math.remainder(phase(step * unit) - at_zero, 2 * PI) / step for unit in units]
    slopes = [0.0 if abs(slope) < _ROUNDING else slope for slope in slopes]
    far = np.linspace(1.0, 2.0, entry.n_params)
    if abs(math.remainder(phase(far) - at_zero - sum(slopes * far), 2 * PI)) > 1e-9:
        raise SpecError(f"the phase of gate {entry.name!r} is not linear in its angles, so that states have none.")
    return tuple(slopes), 0.0 if abs(at_zero) < _ROUNDING else at_zero


_ROUNDING = 1e-12
