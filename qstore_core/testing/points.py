"""Circuits, measurements and arguments that the checks share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import permutations

import numpy as np

from ..circuit.angles.angle import Angle
from ..circuit.circuit import Circuit
from ..circuit.gates.table import GATES
from ..circuit.measurements.measurement import Expectation, Measurement, Observable, Pauli, Probabilities
from .reference import unit
from .subject import SEED

__all__ = [
    "BASES",
    "CLASSES",
    "OBSERVABLES",
    "PROBABILITIES",
    "cotangents",
    "generic",
    "placements",
    "random_circuit",
    "random_point",
    "ring",
    "scramble",
    "with_gate",
]

# Measurements of three qubits, by name.
BASES: dict[str, Measurement] = {
    "basis Z": Expectation(("Z",)),
    "basis X": Expectation(("X",)),
    "basis Y": Expectation(("Y",)),
    "bases Z, X, Y": Expectation(("Z", "X", "Y")),
    "bases Y, Z": Expectation(("Y", "Z")),
    "basis X on qubits 2, 0": Expectation(("X",), qubits=(2, 0)),
    "bases Y, Z on qubits 1, 0": Expectation(("Y", "Z"), qubits=(1, 0)),
    "basis Z on qubit 1": Expectation(("Z",), qubits=(1,)),
}


def _observables(*observables: Observable) -> Measurement:
    return Expectation(observables=observables)


OBSERVABLES: dict[str, Measurement] = {
    "ZZI": _observables(Pauli("ZZI")),
    "XIY": _observables(Pauli("XIY")),
    "YYX, IYZ": _observables(Pauli("YYX"), Pauli("IYZ")),
    "YYY": _observables(Pauli("YYY")),
    "-1.5·ZIX": _observables(-1.5 * Pauli("ZIX")),
    "0.5·XYZ - 2·IZI": _observables(0.5 * Pauli("XYZ") - 2.0 * Pauli("IZI")),
    "YIX + III": _observables(Pauli("YIX") + Pauli("III")),
    "III, 0.25·III": _observables(Pauli("III"), 0.25 * Pauli("III")),
    "ZIZ, IXI, ZIZ": _observables(Pauli("ZIZ"), Pauli("IXI"), Pauli("ZIZ")),
    "ZII + ZIZ - IIZ + 3·XXI": _observables(Pauli("ZII") + Pauli("ZIZ") - Pauli("IIZ") + 3.0 * Pauli("XXI")),
    "12 observables": _observables(
        *(Pauli(a + b + c) for a, b, c in zip("ZXYIZXYZXYIX", "IZXYYXZIIZXY", "XYZZIIXXZYYI", strict=True))
    ),
}

PROBABILITIES: dict[str, Measurement] = {
    "of all bitstrings": Probabilities(),
    "of qubits 2, 0": Probabilities(qubits=(2, 0)),
    "of qubit 1": Probabilities(qubits=(1,)),
    "of qubits 1, 2, 0": Probabilities(qubits=(1, 2, 0)),
}

CLASSES: dict[str, Measurement] = {
    "of 2 classes": Probabilities(n_classes=2),
    "of 3 classes": Probabilities(n_classes=3),
    "of 5 classes": Probabilities(n_classes=5),
    "of 8 classes": Probabilities(n_classes=8),
    "of 3 classes of qubits 2, 0": Probabilities(qubits=(2, 0), n_classes=3),
    "of 2 classes of qubits 2, 1": Probabilities(qubits=(2, 1), n_classes=2),
    "of 1 class": Probabilities(n_classes=1),
}


def ring(c: Circuit) -> None:
    """CNOTs from each qubit to the next."""
    for qubit in range(c.n_qubits - 1):
        c.append("cnot", (qubit, qubit + 1))


def scramble(c: Circuit, begin: float) -> None:
    """Constant rotations and CNOTs after which no amplitude is 0 and no two qubits are alike."""
    for qubit in range(c.n_qubits):
        c.append("ry", (qubit,), (begin + 0.53 * qubit,))
        c.append("rz", (qubit,), (1.9 * begin - 0.37 * qubit,))
    ring(c)


def generic(n_qubits: int, *, amplitudes: bool = False) -> Circuit:
    """Rotations by inputs first and last, by weights between, and CNOTs: 2 weights and 2 inputs per qubit."""
    c = Circuit(n_qubits, amplitudes=amplitudes)
    x, w = c.inputs(2 * n_qubits), c.weights(2 * n_qubits)
    for qubit in range(n_qubits):
        c.append("ry", (qubit,), (x[qubit],))
        c.append("rz", (qubit,), (w[qubit],))
    ring(c)
    for qubit in range(n_qubits):
        c.append("rx", (qubit,), (w[n_qubits + qubit],))
        c.append("ry", (qubit,), (x[n_qubits + qubit],))
    return c


def placements(name: str, n_qubits: int = 3) -> Iterator[tuple[int, ...]]:
    """All ordered choices of qubits for a gate."""
    return permutations(range(n_qubits), GATES[name].n_qubits)


def with_gate(name: str, qubits: tuple[int, ...], slots: str, n_qubits: int = 3) -> Circuit:
    """One gate between scrambled states; its angles are weights ("w"), inputs ("x"), or both by turns ("wx")."""
    c = Circuit(n_qubits)
    scramble(c, 0.6)
    params: list[Angle] = []
    for k in range(GATES[name].n_params):
        kind = slots[k % len(slots)]
        params += c.weights(1) if kind == "w" else c.inputs(1)
    c.append(name, qubits, params)
    scramble(c, -1.1)
    return c


def random_circuit(
    n_qubits: int,
    gates: int,
    rng: np.random.Generator,
    *,
    names: tuple[str, ...] = ("ry", "rz", "rx", "cnot", "cz", "crx", "rzz", "h", "p"),
    slots: int = 3,
    amplitudes: bool = False,
) -> Circuit:
    """Gates at random places, angles from a few slots or constants; every qubit is touched."""
    c = Circuit(n_qubits, amplitudes=amplitudes)
    scramble(c, 0.8)
    angles: list[Angle | float] = [*c.inputs(slots), *c.weights(slots), 0.7]
    usable = [name for name in names if GATES[name].n_qubits <= n_qubits]
    for number in range(gates):
        entry = GATES[usable[number % len(usable)] if number < len(usable) else str(rng.choice(usable))]
        where = [int(q) for q in rng.permutation(n_qubits)[: entry.n_qubits]]
        c.append(entry.name, where, [angles[k] for k in rng.integers(0, len(angles), entry.n_params)])
    return c


def random_point(circuit: Circuit, batch: int, seed: int = SEED) -> tuple[np.ndarray, np.ndarray]:
    """Random theta (W,) and inputs (batch, I), float64."""
    rng = np.random.default_rng(seed)
    theta = rng.uniform(-math.pi, math.pi, circuit.n_weights)
    angles = rng.uniform(-math.pi, math.pi, (batch, circuit.n_inputs))
    if not circuit.n_amplitudes:
        return theta, angles
    return theta, np.concatenate([unit(rng.normal(size=(batch, circuit.n_amplitudes))), angles], axis=1)


def cotangents(rows: int, outputs: int, seed: int = SEED) -> np.ndarray:
    """Random cotangents (B, O), float64."""
    return np.random.default_rng(seed + 1).normal(size=(rows, outputs))
