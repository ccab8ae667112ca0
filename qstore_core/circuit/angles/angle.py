"""Gate angles as polynomials in parameter slots, and in functions of such polynomials.

A circuit holds no numbers that change: its angles are expressions in *weight slots* `w[j]` (trainable, shared by the
batch) and *input slots* `x[i]` (features, one value per sample). `Angle` is such an expression: frozen, hashable, with
`+`, `-`, `*` and whole powers.

Example:
    >>> w0, x1 = weight(0), input_(1)
    >>> print(2 * x1 + w0 - 0.5)
    -0.5 + w0 + 2*x1
    >>> (w0 * x1).uses_inputs
    True

    Functions of angles are methods, so that NumPy's functions take them:

    >>> import numpy as np
    >>> print(2 * np.arccos(x1))
    2*arccos(x1)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias

import numpy as np

from ...errors import SpecError
from ..checks import (
    MAX_DEGREE,
    MAX_OPERATIONS,
    MAX_SLOTS,
    check_finite_number,
    check_items,
    check_pair,
    check_whole,
    shown,
)

__all__ = ["FUNCTIONS", "Angle", "AngleLike", "as_angle", "input_", "weight"]

FUNCTIONS = ("arccos", "arcsin", "arctan", "cos", "exp", "log", "reciprocal", "sin", "sqrt", "tan", "tanh")
_MOST_NESTED = 8  # functions of functions

# A slot is ("w", j) or ("x", i), or a function of an angle: (its name, the angle's terms). A monomial is a sorted tuple
# of slots; () is the constant term.
Slot: TypeAlias = tuple[str, Any]
Monomial: TypeAlias = tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Angle:
    """A polynomial in weight and input slots, in radians.

    Attributes:
        terms: `(monomial, coefficient)` pairs, sorted, without zero coefficients. A monomial is a sorted tuple of
            slots `("w", j)`, `("x", i)` or `(name of a function, terms of its argument)`; the empty one is the
            constant.
    """

    terms: tuple[tuple[Monomial, float], ...] = ()

    @staticmethod
    def from_terms(terms: Iterable[tuple[Monomial, float]]) -> Angle:
        """Collect equal monomials and drop the zero ones."""
        total: dict[Monomial, float] = {}
        for monomial, coefficient in terms:
            key = tuple(sorted(monomial))
            total[key] = total.get(key, 0.0) + float(coefficient)
        return Angle(tuple(sorted((m, c) for m, c in total.items() if c != 0.0)))

    def check(self, nested: int = 0) -> Angle:
        """This angle, where every slot and number in it is one.

        Raises:
            SpecError: a slot is not ("w", j) or ("x", i) with an index from 0, or a coefficient is not a finite number.
        """
        for monomial, coefficient in self.terms:
            check_finite_number(coefficient, "a coefficient of an angle")
            if len(monomial) > MAX_DEGREE:
                raise SpecError(f"an angle has products of at most {MAX_DEGREE} slots, received {len(monomial)}.")
            for kind, index in monomial:
                if kind in FUNCTIONS and isinstance(index, tuple):
                    if nested == _MOST_NESTED:
                        raise SpecError(f"functions of angles are nested at most {_MOST_NESTED} deep.")
                    Angle(index).check(nested + 1)
                elif kind not in ("w", "x") or type(index) is not int or index < 0:
                    raise SpecError(
                        f'a slot is ("w", j) or ("x", i) with an index of at least 0, received {shown((kind, index))}.'
                    )
        return self

    @property
    def constant(self) -> float:
        """The constant term, radians."""
        return dict(self.terms).get((), 0.0)

    @property
    def is_constant(self) -> bool:
        """True where no slot appears."""
        return all(not monomial for monomial, _ in self.terms)

    @property
    def slots(self) -> frozenset[Slot]:
        """The weights and inputs that appear, those in functions among them."""
        found: set[Slot] = set()
        for monomial, _ in self.terms:
            for slot in monomial:
                found |= Angle(slot[1]).slots if slot[0] in FUNCTIONS else {slot}
        return frozenset(found)

    @property
    def is_polynomial(self) -> bool:
        """True where no function appears."""
        return not any(kind in FUNCTIONS for monomial, _ in self.terms for kind, _ in monomial)

    @property
    def uses_inputs(self) -> bool:
        """True where the angle differs from sample to sample."""
        return any(kind == "x" for kind, _ in self.slots)

    def __add__(self, other: AngleLike) -> Angle:
        return Angle.from_terms(self.terms + as_angle(other).terms)

    def __neg__(self) -> Angle:
        return Angle(tuple((m, -c) for m, c in self.terms))

    def __sub__(self, other: AngleLike) -> Angle:
        return self + (-as_angle(other))

    def __rsub__(self, other: AngleLike) -> Angle:
        return as_angle(other) - self

    def __mul__(self, other: AngleLike) -> Angle:
        return Angle.from_terms((m + k, c * d) for m, c in self.terms for k, d in as_angle(other).terms)

    def __pow__(self, power: int) -> Angle:
        total = as_angle(1.0)
        for _ in range(check_whole(power, "a power of an angle", 0, MAX_DEGREE)):
            total = total * self
        return total

    def __truediv__(self, other: AngleLike) -> Angle:
        if isinstance(other, Angle) and not other.is_constant:
            return self * other.of("reciprocal")
        other = other.constant if isinstance(other, Angle) else other
        divisor = check_finite_number(other, "a divisor of an angle")
        if divisor == 0.0:
            raise SpecError(f"an angle cannot be divided by zero: ({self}) / {other!r}.")
        return Angle.from_terms((m, c / divisor) for m, c in self.terms)

    def __rtruediv__(self, other: AngleLike) -> Angle:
        return as_angle(other) / self

    __radd__ = __add__
    __rmul__ = __mul__

    def value(self, theta: Any, inputs: Any) -> float:
        """Evaluate for one sample: `theta` (W,), `inputs` (F,) of angles."""

        def slot(kind: str, index: Any) -> Any:
            if kind in FUNCTIONS:
                return getattr(np, kind)(Angle(index).value(theta, inputs))
            return (theta if kind == "w" else inputs)[index]

        return sum(c * math.prod(slot(*s) for s in m) for m, c in self.terms)

    def of(self, function: str) -> Angle:
        """A function of this angle: one of `FUNCTIONS`. `np.arccos(angle)` and `angle.arccos()` are the same.

        Raises:
            SpecError: no such function, or it has no value at a constant.
        """
        if function not in FUNCTIONS:
            raise SpecError(f"no function of angles {shown(function)}. Known: {', '.join(FUNCTIONS)}.")
        if self.is_constant:
            with np.errstate(all="ignore"):
                return as_angle(float(getattr(np, function)(self.constant)))
        return Angle(((((function, self.terms),), 1.0),)).check()

    def to_list(self) -> list[Any]:
        """JSON form; `from_list` is its inverse."""
        return [[[[kind, Angle(k).to_list() if kind in FUNCTIONS else k] for kind, k in m], c] for m, c in self.terms]

    @staticmethod
    def from_list(data: list[Any], nested: int = 0) -> Angle:
        """Inverse of `to_list`.

        Raises:
            SpecError: `data` is not the form that `to_list` gives.
        """
        terms = []
        for entry in check_items(data, "an angle", MAX_OPERATIONS):
            monomial, coefficient = check_pair(entry, "a term of an angle", "[slots, coefficient]")
            slots: list[Slot] = []
            for slot in check_items(monomial, "the slots of an angle", MAX_DEGREE):
                kind, index = check_pair(slot, "a slot", '["w", j] or ["x", i]')
                if isinstance(kind, str) and kind in FUNCTIONS and nested <= _MOST_NESTED:
                    slots.append((str(kind), Angle.from_list(index, nested + 1).terms))
                    continue
                if not isinstance(kind, str) or kind not in ("w", "x"):
                    raise SpecError(f'a slot is ["w", j] or ["x", i], received {shown(slot)}.')
                slots.append((str(kind), check_whole(index, "the index of a slot", 0, MAX_SLOTS - 1)))
            terms.append((tuple(slots), check_finite_number(coefficient, "a coefficient of an angle")))
        return Angle.from_terms(terms).check()

    def __str__(self) -> str:
        if not self.terms:
            return "0"
        parts = []
        for monomial, coefficient in self.terms:
            name = "*".join(f"{kind}({Angle(k)})" if kind in FUNCTIONS else f"{kind}{k}" for kind, k in monomial)
            number = f"{coefficient:.6g}"
            text = (
                number
                if not name
                else name
                if coefficient == 1
                else f"-{name}"
                if coefficient == -1
                else f"{number}*{name}"
            )
            parts.append(text)
        return " + ".join(parts).replace("+ -", "- ")


def _method(name: str) -> Any:
    def method(self: Angle) -> Angle:
        return self.of(name)

    method.__name__, method.__doc__ = name, f"{name} of this angle."
    return method


for _name in FUNCTIONS:
    setattr(Angle, _name, _method(_name))

AngleLike: TypeAlias = "Angle | float"


def as_angle(value: AngleLike) -> Angle:
    """A number or an `Angle` as an `Angle`."""
    if isinstance(value, Angle):
        return value
    if isinstance(value, Real) and not isinstance(value, bool):
        number = check_finite_number(value, "a gate angle")
        return Angle((((), number),)) if number else Angle()
    raise SpecError(
        f"a gate angle is a number (radians) or an expression of slots from circuit.weights(k) and circuit.inputs(k), "
        f"received {type(value).__name__}: {shown(value)}."
    )


def weight(index: int) -> Angle:
    """The weight slot `index`."""
    return Angle((((("w", check_whole(index, "the index of a weight slot", 0, MAX_SLOTS - 1)),), 1.0),))


def input_(index: int) -> Angle:
    """The input slot `index`."""
    return Angle((((("x", check_whole(index, "the index of an input slot", 0, MAX_SLOTS - 1)),), 1.0),))
