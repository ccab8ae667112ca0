"""Gate angles as polynomials in parameter slots.

A circuit holds no numbers that change: its angles are expressions in *weight slots* `w[j]` (trainable, shared by the
batch) and *input slots* `x[i]` (features, one value per sample). `Angle` is such an expression: frozen, hashable, with
`+`, `-` and `*`.

Example:
    >>> w0, x1 = weight(0), input_(1)
    >>> print(2 * x1 + w0 - 0.5)
    -0.5 + w0 + 2*x1
    >>> (w0 * x1).uses_inputs
    True
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias

from ..errors import SpecError

__all__ = ["Angle", "AngleLike", "as_angle", "input_", "weight"]

# A slot is ("w", j) or ("x", i); a monomial is a sorted tuple of slots; () is the constant term.
Slot: TypeAlias = tuple[str, int]
Monomial: TypeAlias = tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Angle:
    """A polynomial in weight and input slots, in radians.

    Attributes:
        terms: `(monomial, coefficient)` pairs, sorted, without zero coefficients. A monomial is a sorted tuple of
            slots `("w", j)` or `("x", i)`; the empty one is the constant.
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
        """The slots that appear."""
        return frozenset(slot for monomial, _ in self.terms for slot in monomial)

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

    def __truediv__(self, other: float) -> Angle:
        return self * (1.0 / other)

    __radd__ = __add__
    __rmul__ = __mul__

    def value(self, theta: Any, inputs: Any) -> float:
        """Evaluate for one sample: `theta` (W,), `inputs` (F,) of angles."""
        return sum(c * math.prod((theta if kind == "w" else inputs)[index] for kind, index in m) for m, c in self.terms)

    def to_list(self) -> list[Any]:
        """JSON form; `from_list` is its inverse."""
        return [[[list(slot) for slot in m], c] for m, c in self.terms]

    @staticmethod
    def from_list(data: list[Any]) -> Angle:
        """Inverse of `to_list`."""
        return Angle.from_terms((tuple((str(k), int(i)) for k, i in m), c) for m, c in data)

    def __str__(self) -> str:
        if not self.terms:
            return "0"
        parts = []
        for monomial, coefficient in self.terms:
            name = "*".join(f"{kind}{index}" for kind, index in monomial)
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


AngleLike: TypeAlias = "Angle | float"


def as_angle(value: AngleLike) -> Angle:
    """A number or an `Angle` as an `Angle`."""
    if isinstance(value, Angle):
        return value
    if isinstance(value, Real):
        if not math.isfinite(value):
            raise SpecError(f"a gate angle must be finite, received {value!r}.")
        return Angle((((), float(value)),)) if value else Angle()
    raise SpecError(
        f"a gate angle is a number (radians) or an expression of slots from circuit.weights(k) and circuit.inputs(k), "
        f"received {type(value).__name__}: {value!r}."
    )


def weight(index: int) -> Angle:
    """The weight slot `index`."""
    return Angle((((("w", index),), 1.0),))


def input_(index: int) -> Angle:
    """The input slot `index`."""
    return Angle((((("x", index),), 1.0),))
