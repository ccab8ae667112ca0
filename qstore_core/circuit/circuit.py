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

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import SpecError, nearest
from ..notebook import drawing
from .angles.angle import Angle, AngleLike, as_angle, input_, weight
from .checks import (
    MAX_OPERATIONS,
    MAX_SLOTS,
    MAX_STEPS,
    check_flag,
    check_items,
    check_n_qubits,
    check_whole,
    read_fields,
    shown,
    whole_number,
)
from .composing import Composing
from .drawing import WIDTH, draw
from .gates.table import GATES, Gate, gate
from .gates.user import add_gate, module_of, remove_gate
from .noise.channels import CHANNELS, Channel

__all__ = ["Circuit", "Operation", "check_n_qubits", "register_gate", "unregister_gate", "whole_number"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One gate on some qubits, with one `Angle` per parameter; or a channel, by its name and as a value."""

    gate: str
    qubits: tuple[int, ...]
    params: tuple[Angle, ...] = ()
    channel: Channel | None = None

    def __str__(self) -> str:
        if self.channel is not None:
            return f"{self.channel} {' '.join(map(str, self.qubits))}"
        arguments = f"({', '.join(map(str, self.params))})" if self.params else ""
        return f"{self.gate}{arguments} {' '.join(map(str, self.qubits))}"


class Circuit(Composing):
    """A circuit, built gate by gate; frozen from the first time that it is hashed or compiled.

    Every gate of the gate table is a method: angles first, then qubits, controls before targets
    (`c.ry(angle, q)`, `c.cnot(control, target)`, `c.rot(phi, theta, omega, q)`). Angles are numbers in radians or
    expressions of slots. So is every channel (`c.depolarizing(p, q)`), whose numbers are constants.

    Args:
        n_qubits: Number of qubits, at least 1. All start in |0⟩.
        amplitudes: The start state is an input instead: 2**n real amplitudes per sample.
    """

    def __init__(self, n_qubits: int, *, amplitudes: bool = False) -> None:
        """Start without gates."""
        self._n_qubits = check_n_qubits(n_qubits)
        self._amplitudes = check_flag(amplitudes, "amplitudes")
        self._n_inputs = 0
        self._n_weights = 0
        self._operations: list[Operation] = []
        self._steps = 0  # rotations and CNOTs of all gates
        self._read: frozenset[int] = frozenset()  # qubits that are read with errors, after which nothing comes
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
        """The gates and channels, first to last in time."""
        return tuple(self._operations)

    @property
    def noisy(self) -> bool:
        """Whether a channel stands among the operations."""
        return any(op.channel is not None for op in self._operations)

    # -- building -----------------------------------------------------------------------------------------------

    def inputs(self, count: int) -> tuple[Angle, ...]:
        """`count` new input slots."""
        self._check_open()
        start = self._n_inputs
        self._n_inputs += _check_count(count, start)
        return tuple(input_(i) for i in range(start, self._n_inputs))

    def weights(self, count: int) -> tuple[Angle, ...]:
        """`count` new weight slots."""
        self._check_open()
        start = self._n_weights
        self._n_weights += _check_count(count, start)
        return tuple(weight(j) for j in range(start, self._n_weights))

    def append(self, name: str | Channel, qubits: Iterable[int], params: Iterable[AngleLike] = ()) -> None:
        """Append one gate, or one channel: as a value, or by name with its numbers.

        Raises:
            SpecError: unknown gate, wrong number of qubits or angles, a qubit or slot that does not exist, or a
                circuit that is frozen. The circuit is unchanged then.
        """
        self._check_open()
        if isinstance(name, Channel) or (isinstance(name, str) and name in CHANNELS):
            self._append_channel(name, qubits, params)
            return
        entry = gate(name)
        where = check_items(qubits, f"{entry.name}: qubits", entry.n_qubits + 1)
        angles = tuple(as_angle(p) for p in check_items(params, f"{entry.name}: angles", entry.n_params + 1))
        if len(where) != entry.n_qubits or len(angles) != entry.n_params:
            raise SpecError(
                f"{entry.name} takes {entry.n_params} angle(s), then {entry.n_qubits} qubit(s); "
                f"received {len(angles)} angle(s) and {len(where)} qubit(s)."
            )
        where = self._check_qubits(entry.name, where)
        for angle in angles:
            for kind, index in angle.check().slots:
                if index >= (self._n_inputs if kind == "x" else self._n_weights):
                    what = "inputs" if kind == "x" else "weights"
                    raise SpecError(
                        f"{entry.name}: slot {kind}{index} does not exist; reserve it with circuit.{what}(k)."
                    )
        if self._steps + len(entry.steps) > MAX_STEPS:
            raise SpecError(
                f"a circuit has gates of at most {MAX_STEPS} rotations and CNOTs; one more {entry.name} would make "
                f"this {self._steps + len(entry.steps)}."
            )
        self._steps += len(entry.steps)
        self._operations.append(Operation(entry.name, where, angles))

    def _append_channel(self, given: str | Channel, qubits: Iterable[int], numbers: Iterable[Any]) -> None:
        name = given.name if isinstance(given, Channel) else given
        where = check_items(qubits, f"{name}: qubits", 3)
        numbers = check_items(numbers, f"{name}: numbers", MAX_OPERATIONS)
        if any(isinstance(number, Angle) for number in numbers):
            raise SpecError(
                f"{name}: its numbers are constants, and cannot be trained or be inputs; received an expression of "
                "slots. Make one circuit for each value."
            )
        channel = given if isinstance(given, Channel) else Channel(given, numbers, len(where) or 1)
        if len(where) != channel.n_qubits:
            raise SpecError(f"{channel} is on {channel.n_qubits} qubit(s), received {len(where)}.")
        where = self._check_qubits(name, where, reading=channel.is_readout)
        self._operations.append(Operation(name, where, (), channel))
        if channel.is_readout:
            self._read |= {*where}

    def _check_qubits(self, name: str, where: tuple[Any, ...], reading: bool = False) -> tuple[int, ...]:
        """Different qubits of this circuit that are still there, for one more operation."""
        for qubit in where:
            if whole_number(qubit) is None or not 0 <= qubit < self._n_qubits:
                raise SpecError(f"{name}: qubit {shown(qubit)} does not exist; qubits are 0 to {self._n_qubits - 1}.")
        if len(set(where)) != len(where):
            raise SpecError(f"{name}: qubits must differ, received {where}.")
        if not reading and not self._read.isdisjoint(where):
            raise SpecError(f"{name}: a readout error comes after all gates of its qubit, received qubits {where}.")
        if len(self._operations) >= MAX_OPERATIONS:
            raise SpecError(f"a circuit has at most {MAX_OPERATIONS} gates, which this one has already.")
        return tuple(int(q) for q in where)

    def kraus(self, operators: Iterable[Any], *qubits: int) -> None:
        """ρ → Σ K ρ K†, by matrices of one or two qubits with Σ K†K = 1.

        Example:
            >>> c = Circuit(1)
            >>> c.kraus([[[0.8**0.5, 0], [0, 0.8**0.5]], [[0, 0.2**0.5], [0.2**0.5, 0]]], 0)
            >>> print(c.operations[0])
            kraus(2 operators) 0
        """
        self.append(Channel.kraus(operators), qubits)

    def extend(self, operations: Iterable[Operation]) -> None:
        """Append several operations."""
        for op in check_items(operations, "operations", MAX_OPERATIONS):
            if not isinstance(op, Operation):
                raise SpecError(f"extend takes operations, as in circuit.operations, received {shown(op)}.")
            self.append(op.channel or op.gate, op.qubits, op.params)

    def copy(self) -> Circuit:
        """A copy that can be built further."""
        other = self._like()
        other._operations, other._read, other._steps = list(self._operations), self._read, self._steps
        return other

    def _like(self) -> Circuit:
        """A circuit with the same qubits and slots, without gates."""
        other = Circuit(self._n_qubits, amplitudes=self._amplitudes)
        other._n_inputs, other._n_weights = self._n_inputs, self._n_weights
        return other

    def _check_open(self) -> None:
        if self._key is not None:
            raise SpecError("this circuit has been compiled or hashed and is frozen. Build on circuit.copy().")

    def draw(self, width: int | None = WIDTH) -> str:
        """The circuit as text; see `qstore_core.pictures` for pictures.

        Args:
            width: Characters of a line, after which the drawing goes on below; None for lines of any length.
        """
        return draw(self, width)

    def _repr_html_(self) -> str:
        return drawing(self.draw())

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
        modules = {op.gate: module_of(op.gate) for op in self._operations if module_of(op.gate)}
        return {
            "n_qubits": self._n_qubits,
            "amplitudes": self._amplitudes,
            "n_inputs": self._n_inputs,
            "n_weights": self._n_weights,
            "operations": [
                [op.gate, list(op.qubits), list(op.channel.numbers) if op.channel else [a.to_list() for a in op.params]]
                for op in self._operations
            ],
        } | ({"gates_from": modules} if modules else {})

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Circuit:
        """Inverse of `to_dict`.

        Raises:
            SpecError: `data` is not the form that `to_dict` gives: an entry is missing, unknown, of a wrong type or
                out of range, or a gate is not known here.
        """
        required = ("n_qubits", "amplitudes", "n_inputs", "n_weights", "operations")
        fields = read_fields(data, "a circuit", required, {"gates_from": {}})
        circuit = Circuit(fields["n_qubits"], amplitudes=check_flag(fields["amplitudes"], "amplitudes"))
        circuit._n_inputs = _check_count(fields["n_inputs"], 0)
        circuit._n_weights = _check_count(fields["n_weights"], 0)
        modules = fields["gates_from"]
        for entry in check_items(fields["operations"], "the operations of a circuit", MAX_OPERATIONS):
            items = check_items(entry, "an operation", 3)
            if len(items) != 3:
                raise SpecError(f"an operation is saved as [gate, qubits, angles], received {shown(entry)}.")
            name, qubits, params = items
            if isinstance(name, str) and name in CHANNELS:
                circuit.append(name, qubits, params)
                continue
            if isinstance(name, str) and name not in GATES and isinstance(modules, dict) and name in modules:
                raise SpecError(
                    f"no gate named {shown(name)}. It was registered by module {shown(modules[name])}: import that "
                    "first."
                )
            most = gate(name).n_params + 1
            circuit.append(
                name, qubits, [Angle.from_list(p) for p in check_items(params, "the angles of a gate", most)]
            )
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
        if name in _WRITERS:  # the module makes a method of its function
            importlib.import_module(f"qstore_core.interchange.{_WRITERS[name]}")
            return object.__getattribute__(self, name)
        raise AttributeError(f"Circuit has no gate or attribute {name!r}.{nearest(name, [*GATES, *CHANNELS])}")


_WRITERS = {"to_pennylane": "pennylane_writing", "to_qiskit": "qiskit", "to_openqasm": "openqasm"}


def _gate_method(name: str) -> Callable[..., None]:
    entry = GATES[name]

    def method(self: Circuit, *arguments: Any) -> None:
        self.append(name, arguments[entry.n_params :], arguments[: entry.n_params])

    method.__name__ = name
    method.__doc__ = f"{entry.help} Takes {entry.n_params} angle(s), then {entry.n_qubits} qubit(s)."
    return method


def _channel_method(name: str) -> Callable[..., None]:
    kind = CHANNELS[name]
    count = len(kind.numbers)

    def method(self: Circuit, *arguments: Any) -> None:
        self.append(name, arguments[count:], arguments[:count])

    method.__name__ = name
    qubits = "one qubit" if kind.most_qubits == 1 else f"1 to {kind.most_qubits} qubits"
    method.__doc__ = f"{kind.help} Takes {', '.join(kind.numbers)}, then {qubits}."
    return method


for _name in GATES:
    setattr(Circuit, _name, _gate_method(_name))
for _name in CHANNELS:
    if _name != "kraus":
        setattr(Circuit, _name, _channel_method(_name))
Circuit.cx = Circuit.cnot  # type: ignore[attr-defined]


def register_gate(entry: Gate) -> Gate:
    """Add a gate of yours to the gate table: a method of circuits from now on, on every engine and backend.

    Args:
        entry: Its name, matrix, decomposition into rotations and CNOTs, and shift rule; see `Gate`.

    Raises:
        SpecError: the name is taken, or matrix, decomposition and shift rule do not agree.

    Example:
        >>> import numpy as np
        >>> from qstore_core.circuit.gates.table import AxisRotation, Cnot, Gate
        >>> XX = np.kron([[0, 1], [1, 0]], [[0, 1], [1, 0]])
        >>> entry = register_gate(Gate(
        ...     name="example_xx", n_qubits=2, n_params=1,
        ...     matrix=lambda a: np.cos(a / 2) * np.eye(4) - 1j * np.sin(a / 2) * XX,
        ...     steps=(Cnot(0, 1), AxisRotation(0, (1.0, 0.0, 0.0), (1.0,)), Cnot(0, 1)),
        ...     shift="two-term", help="exp(-i angle XX/2).",
        ... ))
        >>> c = Circuit(2)
        >>> c.example_xx(0.5, 0, 1)
        >>> print(c.operations[0])
        example_xx(0.5) 0 1
        >>> unregister_gate("example_xx")
    """
    if isinstance(entry, Gate) and isinstance(entry.name, str) and hasattr(Circuit, entry.name):
        raise SpecError(f"a gate cannot be called {shown(entry.name)}: circuits have a method of that name already.")
    add_gate(entry)
    setattr(Circuit, entry.name, _gate_method(entry.name))
    return entry


def unregister_gate(name: str) -> None:
    """Remove a gate that `register_gate` added."""
    remove_gate(name)
    delattr(Circuit, name)


def _check_count(count: Any, have: int) -> int:
    number = check_whole(count, "a number of slots", 0, MAX_SLOTS)
    if have + number > MAX_SLOTS:
        raise SpecError(f"a circuit has at most {MAX_SLOTS} inputs and as many weights; this would be {have + number}.")
    return number
