"""Ansätze: the trainable part of a layer's circuit, level by level. `register_ansatz` adds one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ...errors import SpecError
from ..angles.angle import Angle
from ..checks import MAX_OPERATIONS, check_choice, check_items, check_operations, shown, whole_number
from ..circuit import Circuit
from ..component import Component, Registry

__all__ = [
    "ANSATZE",
    "Ansatz",
    "HardwareEfficient",
    "IdentityBlocks",
    "RealAmplitudes",
    "StronglyEntangling",
    "as_ansatz",
    "as_entanglement",
    "entangling_pairs",
    "register_ansatz",
    "unregister_ansatz",
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
                    f"entanglement pair {shown((control, target))} does not fit {n_qubits} qubits: two different "
                    f"qubits from 0 to {n_qubits - 1} are expected.",
                    argument="entanglement",
                )
        return tuple(entanglement)
    if entanglement == "full":
        check_operations(n_qubits * (n_qubits - 1) // 2, f"full entanglement of {n_qubits} qubits")
        return tuple((i, j) for i in range(n_qubits) for j in range(i + 1, n_qubits))
    if entanglement == "none":
        return ()
    chain = tuple((i, i + 1) for i in range(n_qubits - 1))
    return (*chain, (n_qubits - 1, 0)) if entanglement == "circular" and n_qubits > 2 else chain


def as_entanglement(value: Any) -> Entanglement:
    """A pattern name, or pairs as a tuple of tuples."""
    if isinstance(value, str):
        return check_choice(value, "entanglement", [*_PATTERNS, "a list of (control, target) pairs"], "entanglement")
    pairs = []
    try:
        for pair in check_items(value, "entanglement", MAX_OPERATIONS):
            control, target = (whole_number(q) for q in check_items(pair, "a pair", 2))
            if control is None or target is None:
                raise ValueError
            pairs.append((control, target))
    except ValueError as error:
        raise SpecError(
            f"entanglement is one of {', '.join(_PATTERNS)}, or a list of (control, target) pairs; "
            f"received {shown(value)}.",
            argument="entanglement",
        ) from error
    return tuple(pairs)


@dataclass(frozen=True)
class Ansatz(Component):
    """Base of the ansätze: `depth` levels, each with its own weights, and perhaps a final one.

    One of a user derives from it and has `weights_per_level` and `append_level`.

    Example:
        >>> import qstore_core
        >>> @qstore_core.register_ansatz
        ... @dataclass(frozen=True)
        ... class Brickwork(Ansatz):
        ...     name = "example_brickwork"
        ...     def weights_per_level(self, n_qubits):
        ...         return n_qubits
        ...     def append_level(self, circuit, w, level):
        ...         for qubit in range(circuit.n_qubits):
        ...             circuit.ry(w[qubit], qubit)
        ...         for qubit in range(level % 2, circuit.n_qubits - 1, 2):
        ...             circuit.cz(qubit, qubit + 1)
        >>> qstore_core.QuantumFeatureExtractor(3, 2, ansatz="example_brickwork").spec.n_weights
        6
        >>> qstore_core.unregister_ansatz("example_brickwork")
    """

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

    def operations_per_level(self, n_qubits: int) -> int:
        """How many gates a level has, or a number below: sizes are looked at before anything is built."""
        return 1

    def n_weights(self, n_qubits: int, depth: int) -> int:
        """Length of theta."""
        return depth * self.weights_per_level(n_qubits) + self.final_weights(n_qubits)

    def to_dict(self) -> dict[str, Any]:
        """JSON form; `as_ansatz` takes it back."""
        return ANSATZE.to_dict(self)


ANSATZE: Registry[Ansatz] = Registry("ansatz", Ansatz, ("weights_per_level", "append_level"))


def register_ansatz(cls: type[Ansatz]) -> type[Ansatz]:
    """Decorator: an ansatz of yours, by its name from now on, also in saved layers. See `Ansatz`."""
    return ANSATZE.register(cls)


def unregister_ansatz(name: str) -> None:
    """Remove what `register_ansatz` added."""
    ANSATZE.unregister(name)


@dataclass(frozen=True)
class HardwareEfficient(Ansatz):
    """Per level RY, then RZ on each qubit, then CNOTs. theta is (depth, n_qubits, 2) flattened, last axis RY, RZ.

    Source:
        Kandala et al., arXiv:1704.05018, with CNOTs; the same as Qiskit's `n_local(n, ["ry", "rz"], "cx", pairs, depth,
        skip_final_rotation_layer=True)`, whose theta is (depth, 2, n_qubits).
    """

    entanglement: Entanglement = "full"
    name: ClassVar[str] = "hardware_efficient"

    def __post_init__(self) -> None:
        object.__setattr__(self, "entanglement", as_entanglement(self.entanglement))

    def weights_per_level(self, n_qubits: int) -> int:
        """RY and RZ on each qubit."""
        return 2 * n_qubits

    def operations_per_level(self, n_qubits: int) -> int:
        """RY, RZ, CNOTs."""
        return 2 * n_qubits + _n_pairs(self.entanglement, n_qubits)

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

    def operations_per_level(self, n_qubits: int) -> int:
        """Rot and CNOTs."""
        return 2 * n_qubits

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

    "circular" begins with the CNOT that closes the ring, (n-1, 0).

    Source:
        Qiskit's `RealAmplitudes`, to which it is equal for every entanglement.
    """

    entanglement: Entanglement = "full"
    name: ClassVar[str] = "real_amplitudes"

    def __post_init__(self) -> None:
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
        pairs = entangling_pairs(self.entanglement, circuit.n_qubits)
        closes = self.entanglement == "circular" and circuit.n_qubits > 2
        _entangle(circuit, (pairs[-1], *pairs[:-1]) if closes else pairs)

    def operations_per_level(self, n_qubits: int) -> int:
        """RY, CNOTs."""
        return n_qubits + _n_pairs(self.entanglement, n_qubits)

    def append_final(self, circuit: Circuit, w: Sequence[Angle]) -> None:
        """RY on each qubit."""
        for qubit in range(circuit.n_qubits):
            circuit.append("ry", (qubit,), (w[qubit],))


@dataclass(frozen=True)
class IdentityBlocks(Ansatz):
    """Per level a level of `HardwareEfficient`, then the inverse of one, with weights of its own.

    Where both halves have equal weights, as after `init="identity_blocks"`, every level is the identity, so that a deep
    circuit begins as a shallow one, with gradients that do not vanish. theta is (depth, 2 · n_qubits, 2) flattened: RY
    and RZ of each qubit, then which half.

    Source:
        Grant et al., arXiv:1903.05076.
    """

    entanglement: Entanglement = "full"
    name: ClassVar[str] = "identity_blocks"

    def __post_init__(self) -> None:
        object.__setattr__(self, "entanglement", as_entanglement(self.entanglement))

    def weights_per_level(self, n_qubits: int) -> int:
        """RY and RZ on each qubit, twice."""
        return 4 * n_qubits

    def operations_per_level(self, n_qubits: int) -> int:
        """RY, RZ, CNOTs, twice."""
        return 4 * n_qubits + 2 * _n_pairs(self.entanglement, n_qubits)

    def append_level(self, circuit: Circuit, w: Sequence[Angle], level: int) -> None:
        """RY, RZ, CNOTs; CNOTs, RZ, RY backwards."""
        qubits = range(circuit.n_qubits)
        HardwareEfficient(self.entanglement).append_level(circuit, w[::2], level)
        _entangle(circuit, reversed(entangling_pairs(self.entanglement, circuit.n_qubits)))
        for qubit in qubits:
            circuit.append("rz", (qubit,), (-1 * w[4 * qubit + 3],))
        for qubit in qubits:
            circuit.append("ry", (qubit,), (-1 * w[4 * qubit + 1],))


def _entangle(circuit: Circuit, pairs: Iterable[tuple[int, int]]) -> None:
    for control, target in pairs:
        circuit.append("cnot", (control, target))


def _n_pairs(entanglement: Entanglement, n_qubits: int) -> int:
    if not isinstance(entanglement, str):
        return len(entanglement)
    return {"full": n_qubits * (n_qubits - 1) // 2, "none": 0}.get(entanglement, n_qubits - 1)


ANSATZE.add(HardwareEfficient, StronglyEntangling, RealAmplitudes, IdentityBlocks)


def as_ansatz(value: Any, entanglement: Any = None) -> Ansatz:
    """An ansatz by name (with the entanglement it is to have), as an object or in its saved form.

    Raises:
        SpecError: no such ansatz, or an entanglement for one that has none, or has it already.

    Example:
        >>> as_ansatz("hardware_efficient", "linear")
        HardwareEfficient(entanglement='linear')
    """
    if isinstance(value, Ansatz | Mapping):
        found = value if isinstance(value, Ansatz) else ANSATZE.from_dict(value)
        if entanglement is None or getattr(found, "entanglement", None) == as_entanglement(entanglement):
            return found
        raise SpecError(
            f"entanglement={shown(entanglement)} means nothing beside an ansatz that is given as an object, "
            f"{shown(found)}. Give it to the object, or the ansatz by name.",
            argument="entanglement",
        )
    cls = ANSATZE.named(value)
    if entanglement is None:
        return ANSATZE.from_dict({"name": cls.name})
    if "entanglement" not in {f.name for f in dataclasses.fields(cls)}:
        raise SpecError(
            f"ansatz {cls.name!r} has an entanglement of its own: entanglement={shown(entanglement)} would mean "
            "nothing. Leave it out.",
            argument="entanglement",
        )
    return ANSATZE.from_dict({"name": cls.name, "entanglement": as_entanglement(entanglement)})
