"""Circuits from circuits: inverse, composition, powers, other inputs; and gates of any size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import numpy as np

from ..errors import SpecError
from .angles.angle import FUNCTIONS, Angle, AngleLike, as_angle
from .checks import MAX_OPERATIONS, MAX_SLOTS, check_items, check_operations, check_whole, shown
from .gates import synthesis
from .gates.families import MOST_QUBITS
from .gates.table import GATES, Cnot, gate
from .measurements.observable import Observable

__all__ = ["Composing"]

_INVERSES = {"s": "sdg", "sdg": "s", "t": "tdg", "tdg": "t"}
_OWN_INVERSES = {"id", "x", "y", "z", "h", "cnot", "cy", "cz", "ch", "swap", "ccx", "ccz", "cswap"}
_MOST_DIAGONAL = 8  # qubits: 4**k coefficients
_NEGATED = {"rx", "ry", "rz", "p", "cp", "crx", "cry", "crz", "rxx", "ryy", "rzz"}
_AXES = {(1.0, 0.0, 0.0): "rx", (0.0, 1.0, 0.0): "ry", (0.0, 0.0, 1.0): "rz"}


class Composing:
    """What `Circuit` has beside single gates of the table."""

    n_qubits: Any
    n_inputs: Any
    n_weights: Any
    n_amplitudes: Any
    operations: Any
    append: Any
    extend: Any
    inputs: Any
    weights: Any
    copy: Any
    _like: Any

    # -- gates of any size --------------------------------------------------------------------------------------

    def controlled(
        self,
        name: str,
        controls: Iterable[int],
        qubits: Iterable[int],
        params: Iterable[AngleLike] = (),
        values: Iterable[int] | None = None,
    ) -> None:
        """Append a gate of the table that acts where all controls have their values.

        Args:
            name: Of the gate.
            controls: Qubits; with those of the gate at most 10.
            qubits: Of the gate.
            params: Its angles.
            values: 1 or 0 for each control; all 1 by default.

        Example:
            >>> from qstore_core import Circuit
            >>> c = Circuit(3)
            >>> c.controlled("ry", [0, 1], [2], [0.5], values=[1, 0])
            >>> print(c.operations[0])
            controlled_10_ry(0.5) 0 1 2
        """
        at, entry = check_items(controls, "controls", MOST_QUBITS), gate(name)
        bits = (1,) * len(at) if values is None else check_items(values, "values of controls", MOST_QUBITS)
        if len(bits) != len(at) or not at or any(bit not in (0, 1) for bit in bits):
            raise SpecError(f"controls={shown(at)} need as many values, 0 or 1, at least one; received {shown(bits)}.")
        if len(at) + entry.n_qubits > MOST_QUBITS:
            raise SpecError(f"a controlled gate has at most {MOST_QUBITS} qubits; this would be on more.")
        full = {("x", 1): "cnot", ("x", 2): "ccx", ("z", 1): "cz", ("z", 2): "ccz", ("p", 1): "cp"}
        plain = full.get((entry.name, len(at))) if all(bits) else None
        word = "".join(str(int(bit)) for bit in bits)
        self.append(plain or f"controlled_{word}_{entry.name}", [*at, *qubits], params)

    def mcx(self, controls: Iterable[int], target: int) -> None:
        """X on `target` where all controls are 1."""
        self.controlled("x", controls, [target])

    def mcz(self, controls: Iterable[int], target: int) -> None:
        """Z on `target` where all controls are 1."""
        self.controlled("z", controls, [target])

    def mcp(self, angle: AngleLike, controls: Iterable[int], target: int) -> None:
        """The phase exp(i angle) where all controls and `target` are 1."""
        self.controlled("p", controls, [target], [angle])

    def pauli_rot(self, angle: AngleLike, word: str, *qubits: int) -> None:
        """exp(-i angle P/2) for a Pauli word; letter k on qubit k of `qubits`, by default on qubit k.

        Example:
            >>> from qstore_core import Circuit
            >>> c = Circuit(4)
            >>> c.pauli_rot(0.5, "XIZ", 3, 1, 0)
            >>> print(c.operations[0])
            pauli_rot_xz(0.5) 3 0
        """
        if not isinstance(word, str) or set(word.upper()) - set("IXYZ"):
            raise SpecError(f"a Pauli word has letters I, X, Y, Z, received {shown(word)}.")
        where = qubits or tuple(range(len(word)))
        if len(where) != len(word):
            raise SpecError(f"word {shown(word)} has {len(word)} letters, received {len(where)} qubits.")
        pairs = [(letter, q) for letter, q in zip(word.lower(), where, strict=True) if letter != "i"]
        if not pairs:  # a global phase
            return
        if len(pairs) > MOST_QUBITS:
            raise SpecError(
                f"a Pauli rotation has at most {MOST_QUBITS} letters that are not I; received {len(pairs)}."
            )
        self.append(f"pauli_rot_{''.join(letter for letter, _ in pairs)}", [q for _, q in pairs], [angle])

    def unitary(self, matrix: Any, *qubits: int) -> None:
        """Any unitary on at most 7 qubits, first most significant, as rotations and CNOTs; up to a global phase.

        Example:
            >>> import numpy as np
            >>> from qstore_core import Circuit
            >>> c = Circuit(2)
            >>> c.unitary(np.eye(4)[[0, 1, 3, 2]], 0, 1)   # a CNOT
            >>> {op.gate for op in c.operations} <= {"rz", "ry", "cnot"}
            True
        """
        where = self._qubits(qubits)
        if not 1 <= len(where) <= synthesis.MOST_QUBITS:
            raise SpecError(f"a unitary is on 1 to {synthesis.MOST_QUBITS} qubits, received {len(where)}.")
        gates = synthesis.synthesise(synthesis.check_unitary(matrix, len(where)), where)
        check_operations(len(self.operations) + len(gates), "the circuit")
        for name, at, angles in gates:
            if angles != (0.0,):
                self.append(name, at, angles)

    def qft(self, *qubits: int) -> None:
        """The quantum Fourier transform of `qubits`, first most significant; of all by default."""
        where = self._qubits(qubits or range(self.n_qubits))
        for k, q in enumerate(where):
            self.append("h", [q])
            for j in range(k + 1, len(where)):
                self.append("cp", [where[j], q], [math.pi / (1 << (j - k))])
        for k in range(len(where) // 2):
            self.append("swap", [where[k], where[-1 - k]])

    def trotter(self, observable: Any, time: AngleLike, steps: int = 1, *, order: int = 1) -> None:
        """exp(-i H t) for a sum H of Pauli strings, as a product of their rotations; up to a global phase.

        Each step is the product of exp(-i c P t / steps) over the terms c P of H, in their order; of order 2 it is half
        of that, then the other half in reverse. The error vanishes with 1 / steps, of order 2 with its square, and is
        none where all terms commute.

        Args:
            observable: H, on all qubits of the circuit.
            time: t; a number, or an expression of slots.
            steps: How many.
            order: 1 or 2.

        Example:
            >>> from qstore_core import Circuit, Pauli
            >>> c = Circuit(2)
            >>> c.trotter(0.5 * Pauli("ZZ") + Pauli("XI"), c.weights(1)[0], steps=1)
            >>> [str(op) for op in c.operations]
            ['pauli_rot_zz(w0) 0 1', 'pauli_rot_x(2*w0) 0']

        Source:
            Suzuki, Communications in Mathematical Physics 51 (1976).
        """
        if not isinstance(observable, Observable):
            raise SpecError(f"H is a sum of Pauli(...), received {shown(observable)}.", argument="observable")
        if observable.n_qubits != self.n_qubits:
            raise SpecError(
                f"the circuit has {self.n_qubits} qubits, H is on {observable.n_qubits}. Write one letter per qubit.",
                argument="observable",
            )
        count = check_whole(steps, "steps", 1, MAX_OPERATIONS, "steps")
        if check_whole(order, "order", 1, 2, "order") == 2:
            count *= 2
        terms = [(word, c) for word, c in observable.terms if c and set(word) != {"I"}]
        check_operations(len(self.operations) + count * len(terms), "the circuit")
        scratch = self._like()
        for number in range(count):
            for word, coefficient in terms if order == 1 or number % 2 == 0 else reversed(terms):
                scratch.pauli_rot(2 * coefficient / count * as_angle(time), word)
        self.extend(scratch.operations)

    def diagonal(self, angles: Iterable[AngleLike], *qubits: int) -> None:
        """Multiply each basis state of `qubits` by exp(i angle), one angle per state; of all qubits by default.

        Behind amplitudes as inputs, whose magnitudes those are, its angles are the phases of complex amplitudes.

        Example:
            >>> from qstore_core import Circuit
            >>> c = Circuit(1, amplitudes=True)
            >>> c.diagonal(c.inputs(2))
            >>> print(c.operations[0])
            rz(-x0 + x1) 0
        """
        where = self._qubits(qubits or range(self.n_qubits))
        if not 1 <= len(where) <= _MOST_DIAGONAL:
            raise SpecError(f"a diagonal gate is on 1 to {_MOST_DIAGONAL} qubits, received {len(where)}.")
        size = 1 << len(where)
        phases = [as_angle(angle) for angle in check_items(angles, "angles of a diagonal gate", size + 1)]
        if len(phases) != size:
            raise SpecError(f"a diagonal gate on {len(where)} qubits has {size} angles, received {len(phases)}.")
        # Σ_p angle_p |p⟩⟨p| as a sum of Z strings, by the Walsh–Hadamard transform; the empty one is a global phase.
        for mask in range(1, size):
            total = Angle.from_terms(
                (slots, (-1) ** (p & mask).bit_count() * -2.0 / size * c)
                for p, phase in enumerate(phases)
                for slots, c in phase.terms
            )
            at = [q for k, q in enumerate(where) if mask >> (len(where) - 1 - k) & 1]
            if total.terms:
                self.append("rz", at, [total]) if len(at) == 1 else self.pauli_rot(total, "Z" * len(at), *at)

    # -- measured on the way, by deferral -----------------------------------------------------------------------

    def measure(self, qubit: int, record: int) -> None:
        """Measure a qubit on the way, and leave the outcome on a fresh qubit: |0⟩ or |1⟩, for gates to depend on.

        By deferral: a CNOT copies the outcome, and what is read at the end, averaged over `record`, is the same as if
        it had been measured here. Each outcome doubles the state. Let `record` only control from then on.

        Example:
            Teleport a rotation, corrected by the outcome:

            >>> from qstore_core import Circuit, Expectation, QuantumLayer
            >>> import numpy as np
            >>> c = Circuit(3)
            >>> x, = c.inputs(1)
            >>> c.ry(x, 0); c.cnot(0, 1)
            >>> c.h(0); c.measure(0, 2)
            >>> c.cz(2, 1)                                   # where the outcome is 1
            >>> QuantumLayer(c, Expectation("X", qubits=[1]))(np.array([[0.5]])).round(4)   # sin 0.5
            array([[0.4794]])
        """
        self._check_fresh(record, qubit)
        self.append("cnot", [qubit, record])

    def reset(self, qubit: int, fresh: int) -> None:
        """Set a qubit to |0⟩, by a fresh one that takes its place; what it was in stays on `fresh`, traced out.

        Example:
            >>> from qstore_core import Circuit, Expectation, QuantumLayer
            >>> import numpy as np
            >>> c = Circuit(2)
            >>> c.ry(c.inputs(1)[0], 0); c.reset(0, 1)
            >>> QuantumLayer(c, Expectation("Z", qubits=[0]))(np.array([[0.5]])).round(4)
            array([[1.]])
        """
        self._check_fresh(fresh, qubit)
        self.append("swap", [qubit, fresh])

    def _check_fresh(self, fresh: int, qubit: int) -> None:
        """Refuse a qubit that need not be in |0⟩."""
        self._qubits((qubit, fresh))
        used = next((op for op in self.operations if fresh in op.qubits), None)
        if used is not None or self.n_amplitudes:
            reason = "the start state is an input" if used is None else f"{used} has acted on it"
            raise SpecError(
                f"a qubit that is measured or reset on the way needs a fresh one in |0⟩; qubit {shown(fresh)} need not "
                f"be, since {reason}. Make the circuit one qubit wider for each."
            )

    # -- circuits from circuits ---------------------------------------------------------------------------------

    def inverse(self) -> Self:
        """The circuit that undoes this one, with the same slots; equal up to a global phase.

        Example:
            >>> from qstore_core import Circuit
            >>> c = Circuit(1)
            >>> c.s(0); c.ry(c.weights(1)[0], 0)
            >>> [str(op) for op in c.inverse().operations]
            ['ry(-w0) 0', 'sdg 0']
        """
        if self.n_amplitudes:
            raise SpecError("a circuit whose start state is an input has no inverse: undo its gates alone.")
        out = self._like()
        for op in reversed(self.operations):
            for name, qubits, params in _inverse(op):
                out.append(name, qubits, params)
        return out

    def compose(
        self,
        other: Self,
        qubits: Iterable[int] | None = None,
        *,
        inputs: Iterable[AngleLike] | None = None,
        weights: Iterable[AngleLike] | None = None,
    ) -> Self:
        """A new circuit: this one, then `other` on `qubits`.

        Args:
            other: Without amplitude inputs.
            qubits: Where its qubits go; the first ones by default.
            inputs: What stands in the place of its input slots: numbers or expressions of slots of this circuit.
                New slots by default.
            weights: The same for its weights.

        Example:
            The same input on another qubit:

            >>> from qstore_core import Circuit
            >>> c = Circuit(2)
            >>> x = c.inputs(1)
            >>> c.ry(x[0], 0)
            >>> [str(op) for op in c.compose(c, [1, 0], inputs=x).operations]
            ['ry(x0) 0', 'ry(x0) 1']
        """
        if not isinstance(other, Composing):
            raise SpecError(
                f"a circuit is composed with a Circuit, received {shown(other)}. A layer's is layer.circuit."
            )
        if other.n_amplitudes:
            raise SpecError("the circuit that comes second cannot have a start state of its own.")
        where = range(other.n_qubits) if qubits is None else check_items(qubits, "qubits", other.n_qubits + 1)
        if len(where) != other.n_qubits:
            raise SpecError(f"the other circuit has {other.n_qubits} qubits, received {len(where)}.")
        where = self._qubits(where)
        check_operations(len(self.operations) + len(other.operations), "the composed circuit")
        out = self.copy()
        x = out.inputs(other.n_inputs) if inputs is None else check_items(inputs, "inputs", MAX_SLOTS)
        w = out.weights(other.n_weights) if weights is None else check_items(weights, "weights", MAX_SLOTS)
        if len(x) != other.n_inputs or len(w) != other.n_weights:
            raise SpecError(
                f"the other circuit has {other.n_inputs} inputs and {other.n_weights} weights, received {len(x)} and "
                f"{len(w)} expressions."
            )
        for op in other.operations:
            out.append(op.channel or op.gate, [where[q] for q in op.qubits], [_replaced(a, x, w) for a in op.params])
        return out

    def power(self, k: int) -> Self:
        """This circuit `k` times, with the same slots; its inverse where `k` is negative."""
        times = check_whole(k, "power", -MAX_OPERATIONS, MAX_OPERATIONS)
        if times and self.n_amplitudes:
            raise SpecError("a circuit whose start state is an input cannot be repeated.")
        check_operations(abs(times) * len(self.operations), f"power {times} of this circuit")
        base, out = (self.inverse() if times < 0 else self), self._like()
        for _ in range(abs(times)):
            out.extend(base.operations)
        return out

    def map_inputs(
        self,
        function: Callable[[Sequence[Angle]], Iterable[AngleLike]],
        n_inputs: int | None = None,
    ) -> Self:
        """A new circuit whose angles are functions of other inputs.

        Args:
            function: New input slots → one number or expression per input of this circuit.
            n_inputs: How many new inputs; as many as now by default.

        Example:
            >>> from qstore_core import Circuit
            >>> c = Circuit(1)
            >>> c.ry(c.inputs(1)[0], 0)
            >>> print(c.map_inputs(lambda x: [x[0] * x[1] + 1], 2).operations[0])
            ry(1 + x0*x1) 0
        """
        if not callable(function):
            raise SpecError(f"map_inputs takes a function (inputs) → angles, received {shown(function)}.")
        out = self._like()
        out._n_inputs = 0
        fresh = out.inputs(self.n_inputs if n_inputs is None else n_inputs)
        x = tuple(as_angle(a) for a in check_items(function(fresh), "what the function returns", MAX_SLOTS))
        if len(x) != self.n_inputs:
            raise SpecError(f"this circuit has {self.n_inputs} inputs, the function returned {len(x)} expressions.")
        for op in self.operations:
            out.append(op.channel or op.gate, op.qubits, [_replaced(a, x, None) for a in op.params])
        return out

    def _qubits(self, qubits: Sequence[Any]) -> tuple[int, ...]:
        """Different qubits of this circuit."""
        where = tuple(check_whole(q, "a qubit", 0, self.n_qubits - 1) for q in qubits)
        if len(set(where)) != len(where):
            raise SpecError(f"qubits must differ, received {shown(where)}.")
        return where


def _replaced(angle: Angle, inputs: Sequence[AngleLike], weights: Sequence[AngleLike] | None) -> Angle:
    """An angle with expressions in the place of its slots; None leaves weights as they are."""
    total = Angle()
    for monomial, coefficient in angle.terms:
        term = as_angle(coefficient)
        for kind, index in monomial:
            if kind in FUNCTIONS:
                term = term * _replaced(Angle(index), inputs, weights).of(kind)
            elif kind == "w" and weights is None:
                term = term * Angle((((("w", index),), 1.0),))
            else:
                term = term * as_angle((inputs if kind == "x" else weights or ())[index])
        total = total + term
    return total


def _inverse(op: Any) -> list[tuple[str, tuple[int, ...], tuple[Angle, ...]]]:
    """Gates that undo one."""
    if op.channel is not None:
        raise SpecError(f"a circuit with a channel has no inverse: {op}. Invert the circuit without it.")
    name, qubits, params = op.gate, op.qubits, op.params
    prefix, entry = "", GATES[name]
    while name.startswith("controlled_"):
        word = name.split("_")[1]
        prefix, name = f"{prefix}controlled_{word}_", name.removeprefix(f"controlled_{word}_")
    if name in _OWN_INVERSES:
        return [(prefix + name, qubits, ())]
    if name in _INVERSES:
        return [(prefix + _INVERSES[name], qubits, ())]
    if name in _NEGATED or name.startswith("pauli_rot_"):
        return [(prefix + name, qubits, (-params[0],))]
    if name == "rot":
        return [(prefix + "rot", qubits, tuple(-p for p in reversed(params)))]
    if name == "u3":
        return [(prefix + "u3", qubits, (-params[0], -params[2], -params[1]))]
    gates: list[tuple[str, tuple[int, ...], tuple[Angle, ...]]] = []
    for step in reversed(entry.steps):  # of any gate, by its steps
        if isinstance(step, Cnot):
            gates.append(("cnot", (qubits[step.control], qubits[step.target]), ()))
            continue
        angle = as_angle(step.constant)
        for coefficient, param in zip(step.coefficients, params, strict=False):
            angle = angle + coefficient * param
        gates += _rotation(qubits[step.qubit], step.axis, -angle)
    return gates


def _rotation(
    qubit: int, axis: tuple[float, float, float], angle: Angle
) -> list[tuple[str, tuple[int, ...], tuple[Angle, ...]]]:
    """exp(-i angle/2 axis·σ) as gates: about Z between rotations that take Z to the axis."""
    if axis in _AXES:
        return [(_AXES[axis], (qubit,), (angle,))]
    x, y, z = axis
    tilt, turn = as_angle(math.acos(np.clip(z, -1, 1))), as_angle(math.atan2(y, x))
    around = [("rz", (qubit,), (-turn,)), ("ry", (qubit,), (-tilt,))]
    back = [("ry", (qubit,), (tilt,)), ("rz", (qubit,), (turn,))]
    return [*around, ("rz", (qubit,), (angle,)), *back]
