"""Light cones: what is measured on few qubits of a wide, shallow circuit, computed on the qubits that matter.

`narrow` looks at a circuit and its measurement and says how each Pauli string that is measured is computed:

* in *cones*: the gates that can reach a string act on few qubits, so that a circuit of these alone gives its value;
* in a *window*: gates are taken in another order, each qubit enters when its first gate comes and leaves after its last
  one, so that few are there at any time. What is kept of those is ⟨P⟩ of every Pauli string P on them, 4**w numbers:
  a chain of any length has a window as narrow as its depth, though the cone of its end is all of it;
* in *full*: as one state of all qubits.

Which, is a matter of arithmetic: see `narrow`. Everything here is a pure function of what was declared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..angles.angle import Angle
from ..checks import shown
from ..circuit import Circuit, Operation
from ..gates.table import Cnot
from ..measurements.measurement import Expectation, Measurement, Observable, Probabilities
from .plan import Factor, decompose
from .window import STEP_WORK, Item, PauliString, Window, frozen, window

__all__ = ["LEAST_QUBITS", "Cone", "Narrowing", "narrow"]

LEAST_QUBITS = 14
"""Circuits of fewer qubits are computed in full: a state of that size costs less than the steps around it."""
_GAIN = 8  # how much less arithmetic a narrow way must take
_MOST_WORK, _MOST_WORK_OF_MANY = 1 << 25, 1 << 28  # multiply-adds per sample in a window, whose tables are written out
_MOST_CONE = 26
_MOST_STRINGS = 1 << 12
_MOST_LOOKS = 1 << 22  # strings times gates, for which cones are looked for
_MOST_MARGINAL = 8  # qubits whose joint probabilities are sums of 2**k Pauli strings


@dataclass(frozen=True)
class Cone:
    """Strings that the same qubits reach, and the circuit of these alone.

    Attributes:
        circuit: On the qubits of the cone, with slots numbered as they appear: equal cones are equal circuits.
        measurement: The strings.
        weights: Which weight of the whole circuit stands in each slot.
        inputs: The same for inputs.
        strings: Numbers of the strings, in the order of the measurement.
    """

    circuit: Circuit
    measurement: Expectation
    weights: tuple[int, ...]
    inputs: tuple[int, ...]
    strings: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Narrowing:
    """How a circuit and its measurement are computed.

    Attributes:
        cones: By cones; empty for the other ways.
        window: In a window; None for the other ways.
        combine: (strings, outputs): outputs are these sums of the strings.
        widest: Qubits in the widest light cone of a string.
        why: Why it is computed in full; "" where it is not.
    """

    cones: tuple[Cone, ...] = ()
    window: Window | None = None
    combine: np.ndarray | None = None
    widest: int = 0
    why: str = ""

    @property
    def is_full(self) -> bool:
        """True where one state of all qubits is computed."""
        return not self.cones and self.window is None

    @property
    def width(self) -> int:
        """Qubits whose states are held at once: of a statevector, or for a window half of what is held."""
        if self.window is not None:
            return self.window.width
        return max((cone.circuit.n_qubits for cone in self.cones), default=0)

    def __str__(self) -> str:
        if self.window is not None:
            return f"in a window of {self.width} qubit{'s' * (self.width != 1)} that moves over the circuit"
        if self.cones:
            kinds = len({(cone.circuit, cone.measurement) for cone in self.cones})
            return f"in {len(self.cones)} light cones of at most {self.width} qubits, {kinds} of them different"
        return f"as one state: {self.why}"


def narrow(circuit: Circuit, measurement: Measurement) -> Narrowing:
    """How the measurement of a circuit is computed: in full, by light cones or in a window.

    Circuits of fewer than `LEAST_QUBITS` qubits are computed in full; wider ones in the way that takes the least
    arithmetic per sample, where that is less than an eighth of the full state's: 8 · 2**n per gate for a state of n
    qubits, 4 · 4**w per rotation for a window of w, and 500 for every array operation.

    Example:
        A chain of 40 qubits; the cone of its last qubit is all of it:

        >>> c = Circuit(40)
        >>> w = c.weights(40)
        >>> for q in range(40): c.ry(w[q], q)
        >>> for q in range(39): c.cnot(q, q + 1)
        >>> for q in range(40): c.ry(w[q], q)
        >>> print(narrow(c, Expectation("Z")))
        in a window of 2 qubits that moves over the circuit
    """
    if circuit.n_qubits < LEAST_QUBITS:
        return Narrowing(why=f"fewer than {LEAST_QUBITS} qubits")
    return _narrow(circuit, measurement)


@lru_cache(maxsize=128)
def _narrow(circuit: Circuit, measurement: Measurement) -> Narrowing:
    if circuit.n_amplitudes:
        return Narrowing(why="amplitudes as inputs entangle all qubits from the start")
    if circuit.noisy:
        return Narrowing(why="it has channels")
    found = _strings_of(measurement, circuit.n_qubits)
    if found is None:
        return Narrowing(why=f"{shown(measurement.n_outputs(circuit.n_qubits))} outputs read too many qubits together")
    strings, combine = found
    items, kept = _absorb(decompose(circuit), strings)
    signs = np.array([string.sign for string in kept], dtype=np.float64)
    combine = combine * signs[:, None]
    cones, widest = _cones(circuit, strings)
    full = (8 << circuit.n_qubits) * max(len(circuit.operations), 1)
    most = min(full // _GAIN, _MOST_WORK if circuit.n_qubits <= _MOST_CONE else _MOST_WORK_OF_MANY)
    ways: list[tuple[int, Narrowing]] = []
    if cones:
        work = sum((8 << c.circuit.n_qubits) * max(len(c.circuit.operations), 1) + 8 * STEP_WORK for c in cones)
        most = min(most, work)
        order = [number for cone in cones for number in cone.strings]
        mixed = np.asarray(found[1])[order]
        ways.append((work, Narrowing(cones=cones, combine=frozen(mixed), widest=widest)))
    if (found_window := window(items, kept, most)) is not None:
        mixed = combine[list(found_window.strings)]
        ways.append((found_window.work, Narrowing(window=found_window, combine=frozen(mixed), widest=widest)))
    best = min(ways, key=lambda way: way[0], default=None)
    if best is not None and _GAIN * best[0] <= full:
        return best[1]
    return Narrowing(
        widest=widest,
        why=f"the light cone of an output has {widest} qubits"
        + ("" if best is None else ", and narrower ways would cost more"),
    )


def _strings_of(measurement: Measurement, n_qubits: int) -> tuple[list[PauliString], np.ndarray] | None:
    """Pauli strings, and outputs as sums of them (strings, outputs); None where they would be too many."""
    numbers: dict[tuple[int, int], int] = {}
    entries: list[tuple[int, int, float]] = []
    if isinstance(measurement, Expectation):
        observables = measurement.as_observables(n_qubits)
        for output, observable in enumerate(observables):
            for letters, coefficient in observable.terms:
                x = sum(1 << q for q, letter in enumerate(letters) if letter in "XY")
                z = sum(1 << q for q, letter in enumerate(letters) if letter in "YZ")
                entries.append((numbers.setdefault((x, z), len(numbers)), output, coefficient))
                if len(numbers) > _MOST_STRINGS:
                    return None
        n_outputs = len(observables)
    elif isinstance(measurement, Probabilities):
        qubits, classes = _marginal(measurement, n_qubits)
        if len(qubits) > _MOST_MARGINAL:
            return None
        n_outputs = measurement.n_outputs(n_qubits)
        basis = np.arange(1 << len(qubits))
        for subset in basis:
            z = sum(1 << q for k, q in enumerate(reversed(qubits)) if subset >> k & 1)
            signs = (1.0 - 2.0 * (np.bitwise_count(basis & subset) & 1)) / len(basis)
            totals = np.bincount(basis % (classes or len(basis)), signs, n_outputs)
            number = numbers.setdefault((0, z), len(numbers))
            entries += [(number, k, float(total)) for k, total in enumerate(totals) if total]
    else:
        return None
    if len(numbers) * n_outputs > _MOST_LOOKS:
        return None
    combine = np.zeros((len(numbers), n_outputs))
    for number, output, coefficient in entries:
        combine[number, output] += coefficient
    return [PauliString(x, z) for x, z in numbers], combine


def _marginal(measurement: Probabilities, n_qubits: int) -> tuple[tuple[int, ...], int | None]:
    """The qubits that outputs depend on, and the classes of their basis states."""
    qubits = tuple(range(n_qubits)) if measurement.qubits is None else measurement.qubits
    classes = measurement.n_classes
    if classes is not None and classes & (classes - 1) == 0:  # the index modulo a power of two is the last bits
        bits = classes.bit_length() - 1
        return (qubits[len(qubits) - bits :], None) if bits else ((), 1)
    return qubits, classes


def _absorb(
    instructions: Sequence[tuple[int, Factor] | Cnot], strings: Sequence[PauliString]
) -> tuple[list[Item], list[PauliString]]:
    """What is left of a circuit when strings have taken its last CNOTs in, and what they cannot see is dropped.

    Rotations of a qubit without a CNOT between are one item.
    """
    blocked, kept = 0, list(strings)
    items: list[Any] = []
    after: dict[int, int] = {}  # where in `items` the next item of a qubit is, where that is a rotation
    letters = _letters(kept)
    for instruction in reversed(instructions):
        if isinstance(instruction, Cnot):
            control, target = instruction.control, instruction.target
            both = 1 << control | 1 << target
            if not blocked & both:
                kept = [string.after_cnot(control, target) for string in kept]
                for q in (control, target):
                    letters[q] = {string.letter(q) for string in kept} - {0}
                continue
            items.append(instruction)
            blocked |= both
            after.pop(control, None)
            after.pop(target, None)
            continue
        qubit, factor = instruction
        if not blocked >> qubit & 1:
            seen = letters.get(qubit, set())
            axis = next((k + 1 for k in range(3) if factor[0][k] == 1.0), None)
            if seen <= {axis}:
                continue
        blocked |= 1 << qubit
        if qubit in after:
            _, factors = items[after[qubit]]
            items[after[qubit]] = (qubit, _prepended(factor, factors))
        else:
            after[qubit] = len(items)
            items.append((qubit, (factor,)))
    return items[::-1], kept


def _letters(strings: Iterable[PauliString]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for string in strings:
        support, q = string.support, 0
        while support:
            q = (support & -support).bit_length() - 1
            found.setdefault(q, set()).add(string.letter(q))
            support &= support - 1
    return found


def _prepended(factor: Factor, factors: tuple[Factor, ...]) -> tuple[Factor, ...]:
    """Factors with one more in front; rotations about one axis add up."""
    if factors and factors[0][0] == factor[0]:
        return ((factor[0], factor[1] + factors[0][1]), *factors[1:])
    return (factor, *factors)


# -- cones ------------------------------------------------------------------------------------------------------------


def _cones(circuit: Circuit, strings: Sequence[PauliString]) -> tuple[tuple[Cone, ...], int]:
    """The cones of all strings, none where one is too wide; and the width of the widest."""
    if len(strings) * len(circuit.operations) > _MOST_LOOKS:
        return (), circuit.n_qubits
    operations, strings = _without_last_cnots(circuit.operations, strings)
    masks = [sum(1 << q for q in op.qubits) for op in operations]
    groups: dict[int, list[int]] = {}
    for number, string in enumerate(strings):
        mask = string.support
        for at in range(len(operations) - 1, -1, -1):
            if masks[at] & mask:
                mask |= masks[at]
        groups.setdefault(mask, []).append(number)
    widest = max((mask.bit_count() for mask in groups), default=0)
    if widest > min(_MOST_CONE, circuit.n_qubits - 1):
        return (), widest
    return tuple(_cone(operations, masks, [strings[k] for k in those], those) for those in groups.values()), widest


def _without_last_cnots(
    operations: Sequence[Operation], strings: Sequence[PauliString]
) -> tuple[list[Operation], list[PauliString]]:
    """Operations but for the last CNOTs, which the strings take in."""
    blocked, kept, out = 0, [], list(strings)
    for op in reversed(operations):
        mask = sum(1 << q for q in op.qubits)
        if op.gate == "cnot" and not blocked & mask:
            out = [string.after_cnot(*op.qubits) for string in out]
        else:
            kept.append(op)
            blocked |= mask
    return kept[::-1], out


def _cone(
    operations: Sequence[Operation], masks: Sequence[int], strings: Sequence[PauliString], numbers: Sequence[int]
) -> Cone:
    mask, kept = 0, []
    for string in strings:
        mask |= string.support
    for at in range(len(masks) - 1, -1, -1):
        if masks[at] & mask:
            mask |= masks[at]
            kept.append(operations[at])
    qubits = [q for q in range(mask.bit_length()) if mask >> q & 1] or [0]
    place = {q: k for k, q in enumerate(qubits)}
    slots: dict[str, dict[int, int]] = {"w": {}, "x": {}}
    made: list[Operation] = []
    for op in reversed(kept):
        params = []
        for angle in op.params:
            for kind, index in sorted(angle.slots):
                slots[kind].setdefault(index, len(slots[kind]))
            params.append(_renumbered(angle, slots))
        made.append(Operation(op.gate, tuple(place[q] for q in op.qubits), tuple(params)))
    out = Circuit(len(qubits))
    out.inputs(len(slots["x"]))
    out.weights(len(slots["w"]))
    out.extend(made)
    hash(out)
    words = ["".join("IXYZ"[string.letter(q)] for q in qubits) for string in strings]
    measured = Expectation(
        observables=tuple(
            Observable(((word, float(string.sign)),)) for word, string in zip(words, strings, strict=True)
        )
    )
    return Cone(out, measured, tuple(slots["w"]), tuple(slots["x"]), tuple(numbers))


def _renumbered(angle: Angle, slots: dict[str, dict[int, int]]) -> Angle:
    return Angle.from_terms(
        (tuple((kind, slots[kind][index]) for kind, index in monomial), coefficient)
        for monomial, coefficient in angle.terms
    )
