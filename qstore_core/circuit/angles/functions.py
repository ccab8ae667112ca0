"""Functions of angles, computed before the circuit: `arccos(x0)` becomes an input of a circuit with polynomial angles.

Engines and backends know polynomials alone. `flattened` gives them such a circuit; `Derived` computes the slots that
it has besides, in the array functions of any framework, and pulls gradients back through them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ...errors import InputError, SpecError
from ..circuit import Circuit
from .angle import FUNCTIONS, Angle, Monomial, Slot

__all__ = ["Derived", "flattened", "refuse_functions"]


@lru_cache(maxsize=1024)
def flattened(circuit: Circuit) -> tuple[Circuit, Derived | None]:
    """The same circuit with polynomial angles, and what computes the weights and inputs that it has besides.

    Example:
        >>> c = Circuit(1)
        >>> c.ry(2 * c.inputs(1)[0].arccos(), 0)
        >>> print(flattened(c)[0].operations[0])
        ry(2*x1) 0
    """
    if all(angle.is_polynomial for op in circuit.operations for angle in op.params):
        return circuit, None
    derived = Derived(circuit)
    operations = [(op.channel or op.gate, op.qubits, [derived.flat(a) for a in op.params]) for op in circuit.operations]
    out = Circuit(circuit.n_qubits, amplitudes=circuit.n_amplitudes > 0)
    out.inputs(circuit.n_inputs + derived.count("x")), out.weights(circuit.n_weights + derived.count("w"))
    for name, qubits, params in operations:
        out.append(name, qubits, params)
    hash(out)
    return out, derived


def refuse_functions(circuit: Circuit) -> None:
    """Raise where an angle is no polynomial."""
    for number, op in enumerate(circuit.operations):
        if not all(angle.is_polynomial for angle in op.params):
            raise SpecError(
                f"operation {number}, {op}, has a function of an angle, which layers compute before the circuit. "
                "Compile qstore_core.circuit.angles.functions.flattened(circuit)[0], whose last weights and inputs "
                "they are."
            )


class Derived:
    """The slots of a flat circuit that are functions of others.

    Args:
        circuit: The circuit that is made flat.
    """

    def __init__(self, circuit: Circuit) -> None:
        """No slots yet; `flat` finds them."""
        self.width, self.own = circuit.n_amplitudes, {"w": circuit.n_weights, "x": circuit.n_inputs}
        self._known: dict[Slot, Slot] = {}
        self.steps: list[tuple[str, Angle, Slot]] = []  # function, its argument, the slot that it gives: in order

    @property
    def mixes(self) -> bool:
        """Whether a derived input depends on weights."""
        return any(at[0] == "x" and any(kind == "w" for kind, _ in a.slots) for _, a, at in self.steps)

    def count(self, kind: str) -> int:
        """How many weights, or inputs, are derived."""
        return sum(slot[0] == kind for _, _, slot in self.steps)

    def flat(self, angle: Angle) -> Angle:
        """An angle with slots in the place of functions."""
        return Angle.from_terms((tuple(self._slot(s) for s in monomial), c) for monomial, c in angle.terms)

    def _slot(self, slot: Slot) -> Slot:
        if slot[0] not in FUNCTIONS:
            return slot
        if slot not in self._known:
            argument = self.flat(Angle(slot[1]))
            kind = "x" if argument.uses_inputs else "w"
            self._known[slot] = kind, self.own[kind] + self.count(kind)
            self.steps.append((slot[0], argument, self._known[slot]))
        return self._known[slot]

    def extend(self, ops: Any, theta: Any, inputs: Any) -> tuple[Any, Any, Callable[[Any, Any], tuple[Any, Any]]]:
        """Weights (W,) and inputs (B, I) of the circuit → those of the flat one, and the vjp of that.

        Args:
            ops: Array functions, see `engines.arrays.ops`.
            theta: Weights.
            inputs: Amplitudes, then angles.
        """
        slots: dict[Slot, Any] = {}
        arguments = []

        def slot(at: Slot) -> Any:
            if at not in slots:
                slots[at] = theta[at[1]] if at[0] == "w" else inputs[:, self.width + at[1]]
            return slots[at]

        for name, argument, at in self.steps:
            value = argument.constant
            for monomial, coefficient in argument.terms:
                if monomial:
                    value = value + coefficient * _product(slot, monomial)
            arguments.append(value)
            slots[at] = ops.function(name, value)

        def joined(base: Any, kind: str) -> Any:
            made = [slots[at] for _, _, at in self.steps if at[0] == kind]
            return ops.concat([base, ops.stack(made, -1)]) if made else base

        def vjp_fn(d_theta: Any, d_inputs: Any) -> tuple[Any, Any]:
            slopes: dict[Slot, Any] = {}
            for (name, argument, at), value in zip(reversed(self.steps), reversed(arguments), strict=True):
                slope = d_theta[at[1]] if at[0] == "w" else d_inputs[:, self.width + at[1]]
                slope = (slope + slopes[at] if at in slopes else slope) * _derivative(ops, name, value, slots[at])
                for monomial, coefficient in argument.terms:
                    for k, factor in enumerate(monomial):
                        part = slope * coefficient * _product(slot, monomial[:k] + monomial[k + 1 :])
                        if factor[0] == "w" and at[0] == "x":
                            part = ops.sum(part, 0)
                        slopes[factor] = slopes[factor] + part if factor in slopes else part
            return (
                self._gathered(ops, slopes, "w", d_theta, self.own["w"]),
                self._gathered(ops, slopes, "x", d_inputs, self.width + self.own["x"]),
            )

        return joined(theta, "w"), joined(inputs, "x"), vjp_fn

    def _gathered(self, ops: Any, slopes: dict[Slot, Any], kind: str, base: Any, size: int) -> Any:
        """Gradients of the circuit's own slots: as they came, and through the functions."""
        out = base[..., :size]
        touched = {at[1]: slope for at, slope in slopes.items() if at[0] == kind and at[1] < self.own[kind]}
        if not touched:
            return out
        first = size - self.own[kind]
        columns = [out[..., first + k] for k in range(self.own[kind])]
        own = ops.stack([c + touched[k] if k in touched else c for k, c in enumerate(columns)], -1)
        return ops.concat([out[..., :first], own]) if first else own

    def refuse(self, theta: np.ndarray, inputs: np.ndarray, layer: str) -> None:
        """Raise `InputError` for the first function that has no value.

        Args:
            theta: Of the flat circuit.
            inputs: Of the flat circuit.
            layer: Name, for the message.
        """
        for name, argument, (kind, index) in self.steps:
            column = theta[index : index + 1] if kind == "w" else inputs[:, self.width + index]
            if not np.isfinite(column).all():
                row = int(np.flatnonzero(~np.isfinite(column))[0])
                value = float(argument.value(theta, inputs[row, self.width :]))
                where = "" if kind == "w" else f"row {row}: "
                raise InputError(
                    f"{layer}: {where}{name}({argument}) is {column[row]} where its argument is {value:g}. "
                    f"{_DOMAINS.get(name, 'Keep arguments small enough')}: scale what comes before.",
                    row=row if kind == "x" else None,
                    value=value,
                )


_DOMAINS = {
    "arccos": "Arguments are from -1 to 1", "arcsin": "Arguments are from -1 to 1", "sqrt": "Arguments are at least 0",
    "log": "Arguments are above 0", "reciprocal": "Arguments are not 0",
}  # fmt: skip


def _product(slot: Callable[[Slot], Any], monomial: Monomial) -> Any:
    value: Any = 1.0
    for at in monomial:
        value = slot(at) * value
    return value


def _derivative(ops: Any, name: str, argument: Any, value: Any) -> Any:
    """Of a function at `argument`, where it is `value`; infinite where it is, as at the ends of arccos."""
    if name in ("arcsin", "arccos"):
        return (1.0 if name == "arcsin" else -1.0) / ops.sqrt(1.0 - argument * argument)
    return {
        "sin": lambda: ops.cos(argument),
        "cos": lambda: -ops.sin(argument),
        "tan": lambda: 1.0 + value * value,
        "tanh": lambda: 1.0 - value * value,
        "arctan": lambda: 1.0 / (1.0 + argument * argument),
        "exp": lambda: value,
        "log": lambda: 1.0 / argument,
        "reciprocal": lambda: -value * value,
        "sqrt": lambda: 0.5 / value,
    }[name]()
