"""Ansätze: the trainable part of a layer's circuit, level by level."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import SpecError, nearest
from .angle import Angle
from .circuit import Circuit

__all__ = [
    "Ansatz",
    "HardwareEfficient",
    "RealAmplitudes",
    "StronglyEntangling",
    "as_ansatz",
    "as_entanglement",
    "entangling_pairs",
]

Entanglement = str | tuple[tuple[int, int], ...]
_PATTERNS = ("linear", "circular", "full", "none")


def entangling_pairs(entanglement: Entanglement, n_qubits: int) -> tuple[tuple[int, int], ...]:
    """(control, target) pairs of an entanglement pattern.

    Args:
        entanglement: "linear" (i, i+1), "circular" (the same and (n-1, 0) when n > 2), "full" (all i < j,
            lexicographic), "none", or the pairs themselves.
        n_qubits: Number of qubits.

    Example:
        >>> entangling_pairs("circular", 3)
        ((0, 1), (1, 2), (2, 0))
    """
    if not isinstance(entanglement, str):
        for control, target in entanglement:
            if not (0 <= control < n_qubits and 0 <= target < n_qubits) or control == target:
                raise SpecError(
                    f"entanglement pair {(control, target)} does not fit {n_qubits} qubits: two different qubits from "
                    f"0 to {n_qubits - 1} are expected.",
                    argument="entanglement",
                )
        return tuple(entanglement)
    if entanglement == "full":
        return tuple((i, j) for i in range(n_qubits) for j in range(i + 1, n_qubits))
    if entanglement == "none":
        return ()
    chain = tuple((i, i + 1) for i in range(n_qubits - 1))
    return (*chain, (n_qubits - 1, 0)) if entanglement == "circular" and n_qubits > 2 else chain


def as_entanglement(value: Any) -> Entanglement:
    """A pattern name, or pairs as a tuple of tuples."""
    if isinstance(value, str):
        if value in _PATTERNS:
            return value
        raise SpecError(
            f"no entanglement {value!r}. Known: {', '.join(_PATTERNS)}, or a list of (control, target) pairs."
            f"{nearest(value, _PATTERNS)}",
            argument="entanglement",
        )
    try:
        return tuple((operator.index(c), operator.index(t)) for c, t in value)
    except (TypeError, ValueError) as error:
        raise SpecError(
            f"entanglement is one of {', '.join(_PATTERNS)}, or a list of (control, target) pairs; received {value!r}.",
            argument="entanglement",
        ) from error


@dataclass(frozen=True)
class Ansatz:
    """Base of the ansätze: `depth` levels, each with its own weights, and perhaps a final one."""

    name: ClassVar[str] = ""

    def weights_per_level(self, n_qubits: int) -> int:
        """Weights of one level."""
        raise NotImplementedError

    def final_weights(self, n_qubits: int) -> int:
        """Weights of what comes after the last level."""
        return 0

    def append_level(self, circuit: Circuit, w: Sequence[Angle], level: int) -> None:
        """Append level number `level`."""
        raise NotImplementedError

    def append_final(self, circuit: Circuit, w: Sequence[Angle]) -> None:
        """Append what comes after the last level."""

    def n_weights(self, n_qubits: int, depth: int) -> int:
        """Length of theta."""
        return depth * self.weights_per_level(n_qubits) + self.final_weights(n_qubits)


@dataclass(frozen=True)
class HardwareEfficient(Ansatz):
    """Per level RY, then RZ on each qubit, then CNOTs. theta is (depth, n_qubits, 2) flattened, last axis RY, RZ.

    Source:
        Kandala et al., arXiv:1704.05018.
    """

    entanglement: Entanglement = "full"
    name: ClassVar[str] = "hardware_efficient"

    def __post_init__(self) -> None:
        """Make pairs hashable."""
        object.__setattr__(self, "entanglement", as_entanglement(self.entanglement))

    def weights_per_level(self, n_qubits: int) -> int:
        """RY and RZ on each qubit."""
        return 2 * n_qubits

    def append_level(self, circuit: Circuit, w: Sequence[Angle], level: int) -> None:
        """RY, RZ, CNOTs."""
        for qubit in range(circuit.n_qubits):
            circuit.append("ry", (qubit,), (w[2 * qubit],))
        for qubit in range(circuit.n_qubits):
            circuit.append("rz", (qubit,), (w[2 * qubit + 1],))
        _entangle(circuit, entangling_pairs(self.entanglement, circuit.n_qubits))


@dataclass(frozen=True)
class StronglyEntangling(Ansatz):
    """Per level Rot on each qubit, then a ring of CNOTs with growing range. theta is (depth, n_qubits, 3) flattened.

    Source:
        Schuld et al., arXiv:1804.00633; the same circuit as PennyLane's `StronglyEntanglingLayers`.
    """

    name: ClassVar[str] = "strongly_entangling"

    def weights_per_level(self, n_qubits: int) -> int:
        """Rot has three angles."""
        return 3 * n_qubits

    def append_level(self, circuit: Circuit, w: Sequence[Angle], level: int) -> None:
        """Rot, then CNOT(i, i + range)."""
        n = circuit.n_qubits
        for qubit in range(n):
            circuit.append("rot", (qubit,), w[3 * qubit : 3 * qubit + 3])
        if n > 1:
            reach = level % (n - 1) + 1
            _entangle(circuit, [(i, (i + reach) % n) for i in range(n)])


@dataclass(frozen=True)
class RealAmplitudes(Ansatz):
    """Per level RY on each qubit, then CNOTs; a final RY on each. theta is (depth + 1, n_qubits) flattened.

    Source:
        Qiskit's `RealAmplitudes`.
    """

    entanglement: Entanglement = "full"
    name: ClassVar[str] = "real_amplitudes"

    def __post_init__(self) -> None:
        """Make pairs hashable."""
        object.__setattr__(self, "entanglement", as_entanglement(self.entanglement))

    def weights_per_level(self, n_qubits: int) -> int:
        """One RY on each qubit."""
        return n_qubits

    def final_weights(self, n_qubits: int) -> int:
        """One RY on each qubit."""
        return n_qubits

    def append_level(self, circuit: Circuit, w: Sequence[Angle], level: int) -> None:
        """RY, CNOTs."""
        self.append_final(circuit, w)
        _entangle(circuit, entangling_pairs(self.entanglement, circuit.n_qubits))

    def append_final(self, circuit: Circuit, w: Sequence[Angle]) -> None:
        """RY on each qubit."""
        for qubit in range(circuit.n_qubits):
            circuit.append("ry", (qubit,), (w[qubit],))


def _entangle(circuit: Circuit, pairs: Iterable[tuple[int, int]]) -> None:
    for control, target in pairs:
        circuit.append("cnot", (control, target))


_BY_NAME: dict[str, type[Ansatz]] = {c.name: c for c in (HardwareEfficient, StronglyEntangling, RealAmplitudes)}


def as_ansatz(value: Any, entanglement: Any = None) -> Ansatz:
    """An ansatz by name (with the entanglement it is to have) or as an object.

    Example:
        >>> as_ansatz("hardware_efficient", "linear")
        HardwareEfficient(entanglement='linear')
    """
    if isinstance(value, Ansatz):
        return value
    if isinstance(value, str) and value in _BY_NAME:
        kind = _BY_NAME[value]
        if entanglement is None or kind is StronglyEntangling:
            return kind()
        return kind(entanglement)  # type: ignore[call-arg]
    if isinstance(value, Mapping) and value.get("name") in _BY_NAME:  # the form in a saved configuration
        return _BY_NAME[value["name"]](**{k: v for k, v in value.items() if k != "name"})
    raise SpecError(
        f"no ansatz {value!r}. Known: {', '.join(_BY_NAME)}.{nearest(str(value), _BY_NAME)}",
        argument="ansatz",
    )
