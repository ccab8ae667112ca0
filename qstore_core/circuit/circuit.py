"""Circuits with parameter slots: what evolves the state, as a value.

Example:
    One qubit, RY(x) then RY(w):

    >>> c = Circuit(1)
    >>> x, w = c.inputs(1), c.weights(1)
    >>> c.ry(x[0], 0)
    >>> c.ry(w[0], 0)
    >>> print(c)
    Circuit on 1 qubit, 1 input, 1 weight
      ry(x0) 0
      ry(w0) 0
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import SpecError, nearest
from .angle import Angle, AngleLike, as_angle, input_, weight
from .gates import GATES, gate

__all__ = ["Circuit", "Operation", "check_n_qubits", "whole_number"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One gate on some qubits, with one `Angle` per parameter."""

    gate: str
    qubits: tuple[int, ...]
    params: tuple[Angle, ...] = ()

    def __str__(self) -> str:
        arguments = f"({', '.join(map(str, self.params))})" if self.params else ""
        return f"{self.gate}{arguments} {' '.join(map(str, self.qubits))}"


class Circuit:
    """A circuit, built gate by gate; frozen from the first time that it is hashed or compiled.

    Every gate of the gate table is a method: angles first, then qubits, controls before targets
    (`c.ry(angle, q)`, `c.cnot(control, target)`, `c.rot(phi, theta, omega, q)`). Angles are numbers in radians or
    expressions of slots.

    Args:
        n_qubits: Number of qubits, at least 1. All start in |0⟩.
        amplitudes: The start state is an input instead: 2**n real amplitudes per sample.
    """

    def __init__(self, n_qubits: int, *, amplitudes: bool = False) -> None:
        """Start without gates."""
        self._n_qubits = check_n_qubits(n_qubits)
        self._amplitudes = bool(amplitudes)
        self._n_inputs = 0
        self._n_weights = 0
        self._operations: list[Operation] = []
        self._key: tuple[Any, ...] | None = None
        self._hash = 0

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def n_qubits(self) -> int:
        """Number of qubits."""
        return self._n_qubits

    @property
    def n_inputs(self) -> int:
        """Number of angle inputs per sample."""
        return self._n_inputs

    @property
    def n_weights(self) -> int:
        """Length of `theta`."""
        return self._n_weights

    @property
    def n_amplitudes(self) -> int:
        """Number of amplitude inputs per sample: 0, or 2**n_qubits."""
        return 1 << self._n_qubits if self._amplitudes else 0

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The gates, first to last in time."""
        return tuple(self._operations)

    # -- building -----------------------------------------------------------------------------------------------

    def inputs(self, count: int) -> tuple[Angle, ...]:
        """`count` new input slots."""
        self._check_open()
        start = self._n_inputs
        self._n_inputs += _check_count(count)
        return tuple(input_(i) for i in range(start, self._n_inputs))

    def weights(self, count: int) -> tuple[Angle, ...]:
        """`count` new weight slots."""
        self._check_open()
        start = self._n_weights
        self._n_weights += _check_count(count)
        return tuple(weight(j) for j in range(start, self._n_weights))

    def append(self, name: str, qubits: Iterable[int], params: Iterable[AngleLike] = ()) -> None:
        """Append one gate.

        Raises:
            SpecError: unknown gate, wrong number of qubits or angles, a qubit or slot that does not exist, or a
                circuit that is frozen. The circuit is unchanged then.
        """
        self._check_open()
        entry = gate(name)
        where, angles = tuple(qubits), tuple(as_angle(p) for p in params)
        if len(where) != entry.n_qubits or len(angles) != entry.n_params:
            raise SpecError(
                f"{entry.name} takes {entry.n_params} angle(s), then {entry.n_qubits} qubit(s); "
                f"received {len(angles)} angle(s) and {len(where)} qubit(s)."
            )
        for qubit in where:
            if whole_number(qubit) is None or not 0 <= qubit < self._n_qubits:
                raise SpecError(f"{entry.name}: qubit {qubit!r} does not exist; qubits are 0 to {self._n_qubits - 1}.")
        if len(set(where)) != len(where):
            raise SpecError(f"{entry.name}: qubits must differ, received {where}.")
        for kind, index in {slot for angle in angles for slot in angle.slots}:
            have = self._n_inputs if kind == "x" else self._n_weights
            if index >= have:
                what = "inputs" if kind == "x" else "weights"
                raise SpecError(f"{entry.name}: slot {kind}{index} does not exist; reserve it with circuit.{what}(k).")
        self._operations.append(Operation(entry.name, tuple(int(q) for q in where), angles))

    def extend(self, operations: Iterable[Operation]) -> None:
        """Append several operations."""
        for op in operations:
            self.append(op.gate, op.qubits, op.params)

    def copy(self) -> Circuit:
        """A copy that can be built further."""
        other = Circuit(self._n_qubits, amplitudes=self._amplitudes)
        other._n_inputs, other._n_weights = self._n_inputs, self._n_weights
        other._operations = list(self._operations)
        return other

    def _check_open(self) -> None:
        if self._key is not None:
            raise SpecError("this circuit has been compiled or hashed and is frozen. Build on circuit.copy().")

    # -- as a value ---------------------------------------------------------------------------------------------

    def _frozen_key(self) -> tuple[Any, ...]:
        if self._key is None:
            key = (self._n_qubits, self._amplitudes, self._n_inputs, self._n_weights, tuple(self._operations))
            self._hash = hash(key)
            self._key = key
        return self._key

    def __hash__(self) -> int:
        self._frozen_key()
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Circuit) and self.to_tuple() == other.to_tuple()

    def to_tuple(self) -> tuple[Any, ...]:
        """Everything that makes two circuits equal; does not freeze."""
        return (self._n_qubits, self._amplitudes, self._n_inputs, self._n_weights, tuple(self._operations))

    def to_dict(self) -> dict[str, Any]:
        """JSON form; `from_dict` is its inverse."""
        return {
            "n_qubits": self._n_qubits,
            "amplitudes": self._amplitudes,
            "n_inputs": self._n_inputs,
            "n_weights": self._n_weights,
            "operations": [[op.gate, list(op.qubits), [a.to_list() for a in op.params]] for op in self._operations],
        }

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Circuit:
        """Inverse of `to_dict`."""
        circuit = Circuit(data["n_qubits"], amplitudes=data["amplitudes"])
        circuit.inputs(data["n_inputs"])
        circuit.weights(data["n_weights"])
        for name, qubits, params in data["operations"]:
            circuit.append(name, qubits, [Angle.from_list(p) for p in params])
        return circuit

    def __str__(self) -> str:
        counts = [(self._n_inputs, "input"), (self._n_weights, "weight")]
        text = ", ".join(f"{k} {word}{'s' * (k != 1)}" for k, word in counts)
        start = ", amplitudes as inputs" if self._amplitudes else ""
        head = f"Circuit on {self._n_qubits} qubit{'s' * (self._n_qubits != 1)}, {text}{start}"
        return "\n".join([head, *(f"  {op}" for op in self._operations)])

    def __repr__(self) -> str:
        return (
            f"Circuit(n_qubits={self._n_qubits}, n_inputs={self._n_inputs}, n_weights={self._n_weights}, "
            f"operations={len(self._operations)})"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Without the hash, which differs from process to process, and with a list of gates of its own."""
        return self.__dict__ | {"_operations": list(self._operations), "_key": None, "_frozen": self._key is not None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        frozen = state.pop("_frozen")
        self.__dict__.update(state)
        if frozen:
            self._frozen_key()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(f"Circuit has no gate or attribute {name!r}.{nearest(name, GATES)}")


def _gate_method(name: str) -> Callable[..., None]:
    entry = GATES[name]

    def method(self: Circuit, *arguments: Any) -> None:
        self.append(name, arguments[entry.n_params :], arguments[: entry.n_params])

    method.__name__ = name
    method.__doc__ = f"{entry.help} Takes {entry.n_params} angle(s), then {entry.n_qubits} qubit(s)."
    return method


for _name in GATES:
    setattr(Circuit, _name, _gate_method(_name))
Circuit.cx = Circuit.cnot  # type: ignore[attr-defined]


def whole_number(value: Any) -> int | None:
    """A Python or NumPy integer as an int; None for anything else, bools and floats among them."""
    return int(value) if isinstance(value, int | np.integer) and not isinstance(value, bool) else None


def check_n_qubits(n_qubits: Any) -> int:
    """`n_qubits` as an int of at least 1."""
    n = whole_number(n_qubits)
    if n is None:
        raise SpecError(f"n_qubits is a whole number, received {type(n_qubits).__name__}: {n_qubits!r}.")
    if n < 1:
        raise SpecError(f"n_qubits must be at least 1, received {n}.")
    return n


def _check_count(count: Any) -> int:
    number = whole_number(count)
    if number is None or number < 0:
        raise SpecError(f"a number of slots is a whole number of at least 0, received {count!r}.")
    return number
