"""PennyLane operations as gates of the table, with a number for every angle.

What a gate is goes to one side (name, qubits), its numbers to the other, so that circuits of equal structure are one
compiled circuit. What has no rule here is decomposed by PennyLane.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pennylane as qml
from pennylane.ops.op_math import Controlled

from qstore_core.circuit.gates.families import MOST_QUBITS
from qstore_core.circuit.gates.synthesis import MOST_QUBITS as MOST_SYNTHESISED
from qstore_core.circuit.gates.synthesis import synthesise
from qstore_core.circuit.gates.table import GATES
from qstore_core.interchange.pennylane_reading import OURS

__all__ = ["NAMES", "Piece", "expanded", "is_known", "phase_of", "pieces", "start_state"]


class Piece(NamedTuple):
    """One gate: its name, the wires (labels), its numbers, and which parameter of the operation each number is.

    A number is a float, or an array (B,) where the operation is a batch; parameter -1 is a constant.
    """

    gate: str
    wires: tuple[Any, ...]
    numbers: tuple[Any, ...] = ()
    params: tuple[int, ...] = ()


# Operations whose parameters are those of a gate, in the same order.
_SAME = {**OURS, "Identity": "id", "CRot": "controlled_1_rot"}
# What stays one gate where more qubits control it.
_BASES = {
    "PauliX": "x", "PauliY": "y", "PauliZ": "z", "Hadamard": "h", "S": "s", "T": "t", "RX": "rx", "RY": "ry",
    "RZ": "rz", "PhaseShift": "p", "Rot": "rot", "SWAP": "swap", "IsingXX": "rxx", "IsingYY": "ryy", "IsingZZ": "rzz",
}  # fmt: skip
_CLASSES = {getattr(qml, name): gate for name, gate in _SAME.items() if name.isidentifier()}  # the usual case
_SILENT = {"Barrier", "WireCut", "Snapshot"}
NAMES = frozenset(_SAME) | {"PauliRot", "MultiRZ", "MultiControlledX", "GlobalPhase", "QubitUnitary", "U2", *_SILENT}
"""Names of operations that need no decomposition, for PennyLane's decomposition by graphs."""


def is_known(op: Any, *, differentiated: bool = False) -> bool:
    """Whether `pieces` takes an operation; of matrices with a gradient PennyLane knows the decomposition."""
    if op.__class__ in _CLASSES or op.name in _SAME or op.name in _SILENT:
        return True
    if op.name in ("GlobalPhase", "U2"):
        return True
    if op.name == "MultiRZ":
        return 0 < len(op.wires) <= MOST_QUBITS
    if op.name == "PauliRot":
        return len(_letters(op)) <= MOST_QUBITS
    if _is_matrix(op):
        return not (differentiated and any(map(qml.math.requires_grad, op.data)))
    return _controlled_name(op) is not None


def pieces(op: Any) -> Iterable[Piece]:
    """The gates of one operation that `is_known`, but for its `phase_of`."""
    name = _CLASSES.get(op.__class__) or _SAME.get(op.name)
    if name is not None:
        data = op.data
        return (Piece(name, op.wires.labels, data, _COUNT[: len(data)]),) if data else (Piece(name, op.wires.labels),)
    if op.name in _SILENT or op.name == "GlobalPhase":
        return ()
    wires = op.wires.labels
    if op.name == "U2":
        return (Piece("u3", wires, (math.pi / 2, *op.data), (-1, 0, 1)),)
    if op.name == "MultiRZ":
        return (Piece(f"pauli_rot_{'z' * len(wires)}", wires, op.data, (0,)),)
    if op.name == "PauliRot":
        letters = _letters(op)
        if not letters:
            return ()
        return (Piece(f"pauli_rot_{''.join(x for x, _ in letters)}", tuple(w for _, w in letters), op.data, (0,)),)
    if _is_matrix(op):
        return _unitary(_matrix(op), wires)
    controlled = _controlled_name(op)
    assert controlled is not None
    return (Piece(controlled, wires, op.data, _COUNT[: len(op.data)]),)


_COUNT = tuple(range(16))


def _letters(op: Any) -> list[tuple[str, Any]]:
    word = op.hyperparameters["pauli_word"]
    return [(x.lower(), wire) for x, wire in zip(word, op.wires.labels, strict=True) if x != "I"]


def _controlled_name(op: Any) -> str | None:
    """The gate of an operation with controls; its wires are controls, then targets."""
    if len(op.wires) > MOST_QUBITS:
        return None
    if op.name == "MultiControlledX":
        return f"controlled_{_bits(op.hyperparameters['control_values'])}_x" if len(op.wires) > 1 else None
    if not isinstance(op, Controlled) or op.work_wires:
        return None
    base = _BASES.get(op.base.name)
    return None if base is None else f"controlled_{_bits(op.control_values)}_{base}"


def _bits(values: Iterable[Any]) -> str:
    return "".join("1" if value else "0" for value in values)


def _is_matrix(op: Any) -> bool:
    """Whether an operation is written as the rotations of its matrix: few qubits, and no other decomposition."""
    if len(op.wires) > MOST_SYNTHESISED or op.name in _SAME or _controlled_name(op) is not None:
        return False
    if op.name == "QubitUnitary":
        return not hasattr(op.data[0], "tocsr")
    return op.has_matrix and not op.has_decomposition


def _matrix(op: Any) -> np.ndarray:
    return np.asarray(qml.math.toarray(op.data[0] if op.name == "QubitUnitary" else op.matrix()), complex)


def _unitary(matrix: np.ndarray, wires: tuple[Any, ...]) -> list[Piece]:
    """A matrix, or one per sample, as rotations; their number and order depend on the number of qubits alone."""
    places = range(len(wires))
    if matrix.ndim == 2:
        return [
            Piece(name, tuple(wires[k] for k in at), angles, (-1,) * len(angles))
            for name, at, angles in synthesise(matrix, places)
        ]
    written = [synthesise(one, places) for one in matrix]
    made = []
    for same in zip(*written, strict=True):
        name, at, angles = same[0]
        columns = tuple(np.array([item[2][k] for item in same]) for k in range(len(angles)))
        made.append(Piece(name, tuple(wires[k] for k in at), columns, (-1,) * len(columns)))
    return made


def expanded(ops: Iterable[Any]) -> list[Any]:
    """Operations that are all known, by PennyLane's decompositions; for what turns the measured basis."""
    out: list[Any] = []
    for op in ops:
        out += [op] if is_known(op) else expanded(op.decomposition())
    return out


def start_state(op: Any, wires: Sequence[Any]) -> np.ndarray:
    """The state that an operation prepares, (2**n,) or (B, 2**n), for wires in this order."""
    state = np.asarray(qml.math.toarray(op.state_vector(wire_order=qml.wires.Wires(wires))))
    return state.reshape((*state.shape[: state.ndim - len(wires)], -1))


# -- phases -----------------------------------------------------------------------------------------------------------


def phase_of(op: Any) -> Any:
    """The angle by which an operation differs from the product of its gates: a number, or (B,)."""
    if op.name == "GlobalPhase":
        return -np.asarray(op.data[0], float)
    if op.name == "PauliRot":
        return 0.0 if _letters(op) else -np.asarray(op.data[0], float) / 2
    if op.__class__ in _CLASSES or not _is_matrix(op):
        return 0.0
    return _phase_of_matrix(_matrix(op), len(op.wires))


def _phase_of_matrix(matrix: np.ndarray, n: int) -> Any:
    if matrix.ndim == 3:
        return np.array([_phase_of_matrix(one, n) for one in matrix])
    product = np.eye(1 << n, dtype=complex)
    for name, at, angles in synthesise(matrix, range(n)):
        product = _applied(name, angles, at, product.reshape((2,) * n + (-1,))).reshape(1 << n, -1)
    return float(np.angle(np.vdot(product, matrix)))


def _applied(gate: str, angles: Sequence[Any], at: Sequence[int], tensor: np.ndarray) -> np.ndarray:
    """A gate on axes `at` of a tensor, whose other axes stay; angles are numbers."""
    k = len(at)
    matrix = np.asarray(GATES[gate].matrix(*map(float, angles)), complex).reshape((2,) * (2 * k))
    return np.moveaxis(np.tensordot(matrix, tensor, axes=(range(k, 2 * k), at)), range(k), at)
